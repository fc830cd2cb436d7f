//! Commands: writes as the raft log stores them, and their encoding.
//!
//! | bytes | field      |                                                                         |
//! |------:|------------|-------------------------------------------------------------------------|
//! |     1 | version    | 1                                                                       |
//! |     1 | action     | 0 set, 1 create, 2 create in order, 3 update, 4 compare and swap, 5 delete, 6 compare and delete |
//! |     1 | flags      | bits: 0 dir, 1 recursive, 2 refresh. Bits 3 ttl, 4 prevValue, 5 prevIndex: the field follows |
//! |     n | key        | string: the cleaned path                                                |
//! |     n | value      | string                                                                  |
//! |     n | ttl        | number of seconds, if flagged                                           |
//! |     n | prevValue  | string, if flagged                                                      |
//! |     n | prevIndex  | number, if flagged                                                      |
//!
//! `codec` defines numbers (varints) and strings (length, then bytes). The command ends after the last field. The two
//! times of a [`Stamp`](super::Stamp) are not part of it: they belong to the log entry.

use super::bytes::Bytes;
use super::codec::{Malformed, Reader, Unread, put_bytes, put_number};
use super::key::{Key, is_clean};

const VERSION: u8 = 1;
const DIR: u8 = 1;
const RECURSIVE: u8 = 1 << 1;
const REFRESH: u8 = 1 << 2;
const TTL: u8 = 1 << 3;
const PREV_VALUE: u8 = 1 << 4;
const PREV_INDEX: u8 = 1 << 5;
const KNOWN_FLAGS: u8 = DIR | RECURSIVE | REFRESH | TTL | PREV_VALUE | PREV_INDEX;

/// Kind of a write (spec §6 lists the requests for each).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write a file, or create a directory, whether or not the key exists.
    Set,
    /// Create a file or directory that must not exist.
    Create,
    /// Create a child of the key. Its name is the new index in 20 digits.
    CreateInOrder,
    /// Write an existing file, or renew an existing directory's ttl.
    Update,
    /// Write an existing file if it is as expected.
    CompareAndSwap,
    /// Remove a node.
    Delete,
    /// Remove a file if it is as expected.
    CompareAndDelete,
}

const ACTIONS: [Action; 7] = [
    Action::Set,
    Action::Create,
    Action::CreateInOrder,
    Action::Update,
    Action::CompareAndSwap,
    Action::Delete,
    Action::CompareAndDelete,
];

/// A write. Fields that the action does not use are ignored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// Kind of the write.
    pub action: Action,
    /// Key that is written.
    pub key: Key,
    /// The new value. Ignored if a directory is created, and by a refresh.
    pub value: Bytes,
    /// Set and create: create a directory. Delete: allow removal of an empty directory.
    pub dir: bool,
    /// Delete: allow removal of a directory with everything below it.
    pub recursive: bool,
    /// Seconds to live. `None` makes the node permanent. A number too large for the clock also does.
    pub ttl: Option<u64>,
    /// Set, update, compare and swap: keep the value and notify no watch.
    pub refresh: bool,
    /// The expected value. `None` or empty: any.
    pub prev_value: Option<Bytes>,
    /// The expected modifiedIndex. `None` or 0: any.
    pub prev_index: Option<u64>,
}

impl Command {
    /// A command with an action and a key, an empty value, and no other fields.
    pub fn new(action: Action, key: Key) -> Command {
        Command {
            action,
            key,
            value: Bytes::new(),
            dir: false,
            recursive: false,
            ttl: None,
            refresh: false,
            prev_value: None,
            prev_index: None,
        }
    }

    /// Appends the encoded command.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self.action as u8, self.flags()]);
        put_bytes(out, self.key.as_bytes());
        put_bytes(out, &self.value);
        if let Some(ttl) = self.ttl {
            put_number(out, ttl);
        }
        if let Some(value) = &self.prev_value {
            put_bytes(out, value);
        }
        if let Some(index) = self.prev_index {
            put_number(out, index);
        }
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        flag(self.dir, DIR)
            | flag(self.recursive, RECURSIVE)
            | flag(self.refresh, REFRESH)
            | flag(self.ttl.is_some(), TTL)
            | flag(self.prev_value.is_some(), PREV_VALUE)
            | flag(self.prev_index.is_some(), PREV_INDEX)
    }

    /// Decodes a command. Accepts any bytes, and refuses all that [`Command::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Result<Command, Malformed> {
        let fields = Fields::read(bytes)?;
        let key = Key::from_clean(fields.key).ok_or(UNCLEAN)?;
        Ok(fields.command(key))
    }

    /// Whether [`Command::decode`] would read these bytes. Allocates nothing.
    pub fn check(bytes: &[u8]) -> Result<(), Malformed> {
        let fields = Fields::read(bytes)?;
        is_clean(fields.key).then_some(()).ok_or(UNCLEAN)
    }
}

const UNCLEAN: Malformed = Malformed("a key that is not clean");

/// A command's fields, as they stand in its bytes.
struct Fields<'a> {
    action: Action,
    flags: u8,
    key: &'a [u8],
    value: &'a [u8],
    ttl: Option<u64>,
    prev_value: Option<&'a [u8]>,
    prev_index: Option<u64>,
}

impl Fields<'_> {
    fn read(bytes: &[u8]) -> Result<Fields<'_>, Malformed> {
        let mut reader = Reader::new(bytes);
        match read(&mut reader) {
            Ok(fields) if reader.left() == 0 => Ok(fields),
            Ok(_) => Err(Malformed("bytes after the end of a command")),
            Err(Unread::Short) => Err(Malformed("a command ends within a field")),
            Err(Unread::Bad(malformed)) => Err(malformed),
        }
    }

    fn command(self, key: Key) -> Command {
        let has = |bit: u8| self.flags & bit != 0;
        Command {
            action: self.action,
            key,
            value: Bytes::from(self.value),
            dir: has(DIR),
            recursive: has(RECURSIVE),
            ttl: self.ttl,
            refresh: has(REFRESH),
            prev_value: self.prev_value.map(Bytes::from),
            prev_index: self.prev_index,
        }
    }
}

fn read<'a>(reader: &mut Reader<'a>) -> Result<Fields<'a>, Unread> {
    if reader.byte()? != VERSION {
        return Err(Malformed("a command of another version").into());
    }
    let action = *ACTIONS
        .get(usize::from(reader.byte()?))
        .ok_or(Malformed("an unknown action"))?;
    let flags = reader.byte()?;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Malformed("unknown flags of a command").into());
    }
    let has = |bit: u8| flags & bit != 0;
    Ok(Fields {
        action,
        flags,
        key: reader.bytes()?,
        value: reader.bytes()?,
        ttl: has(TTL).then(|| reader.number()).transpose()?,
        prev_value: has(PREV_VALUE).then(|| reader.bytes()).transpose()?,
        prev_index: has(PREV_INDEX).then(|| reader.number()).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_as_the_table_says() {
        let mut command = Command::new(Action::CompareAndSwap, Key::new(b"/a"));
        command.value = Bytes::from("v");
        command.ttl = Some(300);
        command.prev_value = Some(Bytes::from("u"));
        command.prev_index = Some(7);
        let mut out = Vec::new();
        command.encode(&mut out);
        assert_eq!(out, b"\x01\x04\x38\x02/a\x01v\xac\x02\x01u\x07");
        assert_eq!(Command::decode(&out), Ok(command));
    }

    #[test]
    fn actions_have_the_numbers_of_the_table() {
        for (number, action) in ACTIONS.iter().enumerate() {
            assert_eq!(*action as usize, number);
        }
    }

    #[test]
    fn a_check_refuses_what_decoding_refuses() {
        let mut whole = Vec::new();
        Command {
            ttl: Some(300),
            prev_value: Some(Bytes::from("u")),
            prev_index: Some(7),
            ..Command::new(Action::Set, Key::new(b"/a/b"))
        }
        .encode(&mut whole);
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut other = whole.clone();
                other[at] = byte;
                let decoded = Command::decode(&other).map(drop);
                assert_eq!(Command::check(&other), decoded, "byte {at} as {byte}");
            }
        }
    }

    #[test]
    fn what_was_not_written_so_is_refused() {
        let mut whole = Vec::new();
        Command::new(Action::Set, Key::new(b"/a/b")).encode(&mut whole);
        for length in 0..whole.len() {
            assert!(
                Command::decode(&whole[..length]).is_err(),
                "cut to {length}"
            );
        }
        let mut more = whole.clone();
        more.push(0);
        assert!(Command::decode(&more).is_err());
        for (at, byte) in [(0, 2), (1, 7), (2, 0x40), (4, b'x'), (5, b'/')] {
            let mut other = whole.clone();
            other[at] = byte;
            assert!(Command::decode(&other).is_err(), "byte {at} as {byte}");
        }
    }
}
