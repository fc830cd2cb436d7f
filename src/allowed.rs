//! Lists of names that a flag admits: origins, hosts.

use std::collections::BTreeSet;

/// A list of names, or of origins, that may be "all".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// The list is empty: nothing is admitted.
    Nobody,
    /// `*` stood in the list.
    Anybody,
    /// These, compared letter for letter, a port or scheme included if one was written.
    Only(BTreeSet<String>),
}

impl Allowed {
    /// Reads a comma list; `*` anywhere in it is everybody. Nothing in it: `empty`.
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

    /// Whether `name` is in the list, letter for letter.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Allowed::Nobody => false,
            Allowed::Anybody => true,
            Allowed::Only(names) => names.contains(name),
        }
    }
}
