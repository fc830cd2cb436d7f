//! A key or a directory as `export` writes it, `import` reads it and `mirror` sends it on.

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
    /// Seconds that were left when it was read.
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

    /// Makes it so, whatever is there before, but for a directory in the place of a key.
    pub fn send(&self, client: &Client) -> Result<(), Failure> {
        let mut form = vec![];
        form.extend(self.ttl.map(|ttl| ("ttl", ttl.to_string())));
        if !self.dir {
            form.push(("value", self.value.clone().unwrap_or_default()));
            return client.send(&Ask::put(&self.key, vec![], form)).map(drop);
        }
        let dir = || ("dir", "true".to_owned());
        match client.send(&Ask::put(&self.key, vec![dir()], form.clone())) {
            // It is there: all that can be changed of it is its time to live.
            Err(Failure::Refused(error)) if error.code == NOT_A_FILE => {
                let query = vec![dir(), ("prevExist", "true".to_owned())];
                client.send(&Ask::put(&self.key, query, form)).map(drop)
            }
            made => made.map(drop),
        }
    }
}

impl Entry {
    /// How long it lives.
    pub fn lifetime(&self) -> Option<Duration> {
        let seconds = self.ttl.and_then(|ttl| u64::try_from(ttl).ok());
        seconds.map(Duration::from_secs)
    }

    /// Gives what is there already this time to live; no watch hears of that. What has gone is made anew.
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

/// The code of an error: there is a directory already.
const NOT_A_FILE: u32 = 102;
/// The code of an error: there is no such key.
pub(super) const NOT_FOUND: u32 = 100;

/// All that is at a key and below it, directories before what is in them, and the index of the
/// moment. The root has no line of its own. What has a name with `_` in front is not among it,
/// unless it was asked for by that name.
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
