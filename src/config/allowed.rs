//! Lists of names that a flag allows: origins and hosts.

use std::collections::BTreeSet;

/// A list of names or origins, which may also mean all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Allows no name.
    Nobody,
    /// Allows every name: the list contained `*`.
    Anybody,
    /// Allows these names, compared exactly, including a port or scheme if the list has one.
    Only(BTreeSet<String>),
}

impl Allowed {
    /// Parses a comma-separated list. `*` anywhere in it allows every name. An empty list gives `empty`.
    pub fn parse(text: &str, empty: Allowed) -> Allowed {
        let names: BTreeSet<String> = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(Into::into)
            .collect();
        if names.is_empty() {
            empty
        } else if names.contains("*") {
            Allowed::Anybody
        } else {
            Allowed::Only(names)
        }
    }

    /// Whether the list allows exactly `name`.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Allowed::Nobody => false,
            Allowed::Anybody => true,
            Allowed::Only(names) => names.contains(name),
        }
    }
}
