//! A key or a directory, as `export` writes it, `import` reads it and `mirror` sends it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer::Node;
use super::client::{Client, Failure};
use super::wire::{Ask, Patience};

/// One line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dir: bool,
    /// Remaining seconds when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
}

impl Entry {
    pub fn new(node: &Node) -> Entry {
        Entry {
            key: node.key.clone(),
            value: (!node.dir).then(|| node.value.clone()),
            dir: node.dir,
            ttl: (node.ttl > 0).then_some(node.ttl),
        }
    }

    /// Writes the entry over an existing one. A key does not replace a directory.
    pub fn send(&self, client: &Client) -> Result<(), Failure> {
        let mut form = vec![];
        form.extend(self.ttl.map(|ttl| ("ttl", ttl.to_string())));
        if !self.dir {
            form.push(("value", self.value.clone().unwrap_or_default()));
            return client.send(&Ask::put(&self.key, vec![], form)).map(drop);
        }
        let dir = || ("dir", "true".to_owned());
        match client.send(&Ask::put(&self.key, vec![dir()], form.clone())) {
            // The directory exists already. Only its time to live can be changed.
            Err(Failure::Refused(error)) if error.code == NOT_A_FILE => {
                let query = vec![dir(), ("prevExist", "true".to_owned())];
                client.send(&Ask::put(&self.key, query, form)).map(drop)
            }
            made => made.map(drop),
        }
    }
}

impl Entry {
    /// Its remaining time to live.
    pub fn lifetime(&self) -> Option<Duration> {
        let seconds = self.ttl.and_then(|ttl| u64::try_from(ttl).ok());
        seconds.map(Duration::from_secs)
    }

    /// Sets the time to live of an existing key without an event for watchers. Creates the key if it no longer
    /// exists.
    pub fn prolong(&self, client: &Client) -> Result<(), Failure> {
        if self.dir {
            return self.send(client);
        }
        let yes = || "true".to_owned();
        let mut form = vec![("refresh", yes()), ("prevExist", yes())];
        form.extend(self.ttl.map(|ttl| ("ttl", ttl.to_string())));
        match client.send(&Ask::put(&self.key, vec![], form)) {
            Err(Failure::Refused(error)) if error.code == NOT_FOUND => self.send(client),
            prolonged => prolonged.map(drop),
        }
    }
}

/// Error code: the key is a directory.
const NOT_A_FILE: u32 = 102;
/// Error code: the key does not exist.
pub(super) const NOT_FOUND: u32 = 100;

/// Returns a key and everything below it, directories before their contents, and the current index. The root has no
/// entry of its own. Hidden names (with `_` in front) are skipped unless `key` itself is one.
pub(super) fn read_all(client: &Client, key: &str) -> Result<(Vec<Entry>, u64), Failure> {
    let yes = || "true".to_owned();
    let ask = Ask {
        patience: Patience::Long,
        ..Ask::key(
            key,
            vec![("recursive", yes()), ("sorted", yes()), ("quorum", yes())],
        )
    };
    let event = client.send(&ask)?;
    let mut entries = vec![];
    let mut rest = vec![&event.node];
    while let Some(node) = rest.pop() {
        if !node.key.is_empty() && node.key != "/" {
            entries.push(Entry::new(node));
        }
        rest.extend(node.children().iter().rev());
    }
    Ok((entries, event.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_no_more_than_it_has_to() {
        let table = [
            (r#"{"key":"/a","value":""}"#, false),
            (r#"{"key":"/d","dir":true}"#, true),
            (r#"{"key":"/d","dir":true,"ttl":5}"#, true),
        ];
        for (line, dir) in table {
            let entry: Entry = serde_json::from_str(line).unwrap();
            assert_eq!(entry.dir, dir);
            assert_eq!(serde_json::to_string(&entry).unwrap(), line);
        }
        assert!(serde_json::from_str::<Entry>(r#"{"value":"1"}"#).is_err());
        assert!(serde_json::from_str::<Entry>(r#"{"key":"/a","valu":"1"}"#).is_err());
    }
}
