//! Encoding of commands: the bytes of a raft command, or of the context of a membership change.
//!
//! | offset | size | field | |
//! |---:|---:|---|---|
//! | 0 | 1 | kind | 1 tree command, 2 expire, 3 publish, 4 time, 5 update, 6 add, 7 remove, 8 expire some; plus 64 if it takes an index of the tree, plus 128 with a tag |
//! | 1 | 8 | cluster | cluster time in nanoseconds, little-endian |
//! | 9 | 8 | wall | the leader's wall clock in nanoseconds since 1970 |
//! | 17 | 8 | tag | only with 128 in the kind |
//! | 17 or 25 | n | body | a tree command ([`encode`](crate::tree::Command::encode)); JSON for 3, 5 and 6; the member's id for 7; the maximum number of nodes (4) for 8; otherwise nothing |
//!
//! The leader fills in the two times when it appends the command, so that every member applies the same values.
//!
//! Membership changes take an index of the tree, as in the reference. Logs that were written by earlier versions
//! contain them without the 64. Such entries keep their meaning.
//!
//! # Formats
//!
//! A *format* is a set of kinds. Format 1 has the kinds above, and format 2 has changes of users and roles, as JSON
//! ([`auth::Change`]). A kind of a later format is written with the kind 9, and its
//! body begins with the number of its format (2 bytes, little-endian), so that a program of an earlier format can say which
//! one it needs. Members tell each other the newest format that they understand when they connect, and a leader appends a
//! kind only if every member understands it ([`format_of`]). A member that finds a later format in its own log does not
//! start.
//!
//! The member that forwards a command to its leader chooses a *tag*. By the tag it recognises its own command when it
//! applies the entry. The leader's own commands need no tag, because the leader knows their positions.

use super::members::{Member, Published};
use crate::auth;
use crate::raft::{Change, ChangeKind, NodeId, Payload};
use crate::tree::{self, Action, ClusterTime, EXPIRED_AT_ONCE, Stamp, WallTime};

/// Length of the part before the tag or the body.
pub const HEAD_BYTES: usize = 17;

const TREE: u8 = 1;
const EXPIRE: u8 = 2;
const PUBLISH: u8 = 3;
const TIME: u8 = 4;
const UPDATE: u8 = 5;
const ADD: u8 = 6;
const REMOVE: u8 = 7;
const EXPIRE_SOME: u8 = 8;
/// A kind of a later format than 1.
const LATER: u8 = 9;
const FORMAT_BYTES: usize = 2;

/// The first format. It is what a member understands that does not say.
pub const FIRST_FORMAT: u16 = 1;

/// The format with changes of users and roles.
pub const AUTH_FORMAT: u16 = 2;

/// The newest format that this program understands. The tests build a program with one more.
pub const FORMAT: u16 = AUTH_FORMAT + cfg!(edgetcd_next_format) as u16;

/// Flag of a membership change that takes an index of the tree.
const COUNTED: u8 = 64;
const TAGGED: u8 = 128;
const TAG_BYTES: usize = 8;

/// A decoded command.
#[derive(Debug)]
pub enum Command {
    /// A client's write.
    Tree(tree::Command),
    /// Expires nodes that are due at the stamp's cluster time, at most this many.
    Expire(usize),
    /// A member publishes its name, client URLs and incarnation.
    Publish(Published),
    /// Only records the time. Appended while keys with a TTL exist, so that a restart knows the time.
    Time,
    /// Replaces a member's peer URLs.
    Update(Member),
    /// The context of an [`AddLearner`](crate::raft::ChangeKind::AddLearner): the new member.
    Add(Member),
    /// The context of a [`Remove`](crate::raft::ChangeKind::Remove).
    Remove(NodeId),
    /// A change of users and roles.
    Auth(auth::Change),
    /// Nothing: the kind of the next format, which only a program built for the tests writes.
    NextFormat,
}

/// Bytes that are not a command: a bug, or an entry of a later version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// Encodes a client's write, without its stamp.
pub fn tree(command: &tree::Command) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + TAG_BYTES + 64 + command.value.len());
    bytes.push(TREE);
    bytes.resize(HEAD_BYTES, 0);
    command.encode(&mut bytes);
    bytes
}

/// Encodes an expiry of at most [`EXPIRED_AT_ONCE`] nodes.
pub fn expire() -> Vec<u8> {
    without_body(EXPIRE)
}

/// Encodes an expiry of at most `most` nodes: 1 to [`EXPIRED_AT_ONCE`]. The leader chooses the number so that applying
/// it does not take too long.
pub fn expire_some(most: usize) -> Vec<u8> {
    let mut bytes = without_body(EXPIRE_SOME);
    let most = most.clamp(1, EXPIRED_AT_ONCE) as u32;
    bytes.extend_from_slice(&most.to_le_bytes());
    bytes
}

/// Encodes a record of the time.
pub fn time() -> Vec<u8> {
    without_body(TIME)
}

/// Encodes a change of users and roles.
pub fn auth(change: &auth::Change) -> Vec<u8> {
    let mut bytes = of_format(AUTH_FORMAT);
    serde_json::to_writer(&mut bytes, change)
        .expect("a change is plain data, and a Vec takes all bytes");
    bytes
}

/// The kind of the next format.
pub fn next_format() -> Vec<u8> {
    of_format(AUTH_FORMAT + 1)
}

fn of_format(format: u16) -> Vec<u8> {
    let mut bytes = without_body(LATER);
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes
}

/// The format that a member must understand to read a command. Bytes that are too short for a command are of the first
/// format: [`decode`] says what is wrong with them.
pub fn format_of(bytes: &[u8]) -> u16 {
    let format = split(bytes).ok().filter(|(kind, _, _)| *kind == LATER);
    let format = format.and_then(|(_, _, body)| body.first_chunk::<FORMAT_BYTES>());
    format.map_or(FIRST_FORMAT, |format| u16::from_le_bytes(*format))
}

/// Why this version cannot apply a command because of its format. `None` if the format is known.
pub fn unknown(bytes: &[u8]) -> Option<String> {
    let format = format_of(bytes);
    (format > FORMAT).then(|| needs_format(format))
}

/// Encodes what a member publishes about itself.
pub fn publish(published: &Published) -> Vec<u8> {
    with_json(COUNTED | PUBLISH, published)
}

/// Encodes new peer URLs for a member.
pub fn update(member: &Member) -> Vec<u8> {
    with_json(COUNTED | UPDATE, member)
}

/// Whether the command gives a member new peer URLs.
pub fn is_update(bytes: &[u8]) -> bool {
    is(UPDATE, bytes)
}

/// Whether the membership change takes an index of the tree.
pub fn is_counted(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first & COUNTED != 0)
}

/// Whether the command publishes a member's data.
pub fn is_publish(bytes: &[u8]) -> bool {
    is(PUBLISH, bytes)
}

/// Whether a command can only remove keys. It needs space for itself in the log, and frees the space of the removed
/// keys.
pub fn removes(bytes: &[u8]) -> bool {
    let action = decode(bytes).map(|(_, command)| match command {
        Command::Tree(command) => Some(command.action),
        _ => None,
    });
    matches!(
        action,
        Ok(Some(Action::Delete | Action::CompareAndDelete)) | Ok(None)
    )
}

/// Whether the command adds a member.
pub fn is_add(bytes: &[u8]) -> bool {
    is(ADD, bytes)
}

fn is(kind: u8, bytes: &[u8]) -> bool {
    bytes
        .first()
        .is_some_and(|first| first & !(TAGGED | COUNTED) == kind)
}

/// Encodes the addition of a member.
pub fn add(member: &Member) -> Vec<u8> {
    with_json(COUNTED | ADD, member)
}

/// Encodes the removal of a member.
pub fn remove(id: NodeId) -> Vec<u8> {
    let mut bytes = without_body(COUNTED | REMOVE);
    bytes.extend_from_slice(&id.0.to_le_bytes());
    bytes
}

fn with_json(kind: u8, value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = without_body(kind);
    serde_json::to_writer(&mut bytes, value)
        .expect("a member is plain data, and a Vec takes all bytes");
    bytes
}

fn without_body(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    bytes[0] = kind;
    bytes
}

/// Fills in the times. The leader that appends the command calls this once.
///
/// # Panics
/// If the head is missing. Bytes from outside must pass [`decode`] first.
pub fn stamp(bytes: &mut [u8], stamp: Stamp) {
    assert!(
        bytes.len() >= HEAD_BYTES,
        "{} bytes are no command",
        bytes.len()
    );
    bytes[1..9].copy_from_slice(&stamp.cluster.0.to_le_bytes());
    bytes[9..17].copy_from_slice(&stamp.wall.0.to_le_bytes());
}

/// Adds a tag to a command without one.
pub fn put_tag(bytes: &mut Vec<u8>, tag: u64) {
    assert_eq!(bytes[0] & TAGGED, 0, "a command is tagged once");
    bytes[0] |= TAGGED;
    bytes.splice(HEAD_BYTES..HEAD_BYTES, tag.to_le_bytes());
}

/// Removes the tag from a command, for another attempt with another tag.
pub fn without_tag(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    if plain[0] & TAGGED != 0 {
        plain[0] &= !TAGGED;
        plain.drain(HEAD_BYTES..HEAD_BYTES + TAG_BYTES);
    }
    plain
}

/// The tag, if there is one.
pub fn tag(bytes: &[u8]) -> Option<u64> {
    let tag = bytes.get(HEAD_BYTES..)?.first_chunk()?;
    (bytes[0] & TAGGED != 0).then(|| u64::from_le_bytes(*tag))
}

/// Decodes a command.
///
/// # Errors
/// [`Malformed`] describes what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<(Stamp, Command), Malformed> {
    let (kind, stamp, body) = split(bytes)?;
    Ok((stamp, decode_body(kind, body)?))
}

/// The kind without its flags, the times, and the body.
fn split(bytes: &[u8]) -> Result<(u8, Stamp, &[u8]), Malformed> {
    let (head, mut body) = bytes
        .split_first_chunk::<HEAD_BYTES>()
        .ok_or_else(|| Malformed(format!("{} bytes are shorter than a head", bytes.len())))?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let stamp = Stamp {
        cluster: ClusterTime(number(1)),
        wall: WallTime(number(9) as i64),
    };
    if head[0] & TAGGED != 0 {
        body = body
            .get(TAG_BYTES..)
            .ok_or_else(|| Malformed("the tag is cut short".into()))?;
    }
    let kind = head[0] & !TAGGED;
    let is_change = [PUBLISH, UPDATE, ADD, REMOVE].contains(&(kind & !COUNTED));
    let kind = if is_change { kind & !COUNTED } else { kind };
    Ok((kind, stamp, body))
}

/// No correct leader uses times beyond this limit: nanoseconds of 146 years.
const TIME_LIMIT: ClusterTime = ClusterTime(1 << 62);

/// Whether an entry from another member can be applied when it is committed. An entry that cannot would end every
/// member that applies it.
///
/// # Errors
/// [`Malformed`]: no member of this version writes such an entry.
pub fn check(payload: &Payload) -> Result<(), Malformed> {
    match payload {
        Payload::Noop => Ok(()),
        Payload::Command(bytes) => check_command(bytes),
        Payload::Change(change) => check_change(change),
    }
}

/// Writes are frequent, so they are checked without a copy.
fn check_command(bytes: &[u8]) -> Result<(), Malformed> {
    let (kind, stamp, body) = split(bytes)?;
    check_time(stamp)?;
    let command = match kind {
        TREE => {
            return tree::Command::check(body)
                .map_err(|error| Malformed(format!("tree command: {error:?}")));
        }
        kind => decode_body(kind, body)?,
    };
    match command {
        Command::Add(_) | Command::Remove(_) => {
            Err(Malformed("a change of the members as a command".into()))
        }
        _ => Ok(()),
    }
}

/// What raft does with a change, and what its context does to the member table, must agree. The context of a promotion
/// does not matter.
fn check_change(change: &Change) -> Result<(), Malformed> {
    if change.kind == ChangeKind::Promote {
        return Ok(());
    }
    let (stamp, command) = decode(&change.context)?;
    check_time(stamp)?;
    let fits = match (change.kind, command) {
        (ChangeKind::AddLearner, Command::Add(member)) => member.id == change.node.0,
        (ChangeKind::Remove, Command::Remove(node)) => node == change.node,
        _ => false,
    };
    let misfit = || Malformed("a change whose context describes another change".into());
    fits.then_some(()).ok_or_else(misfit)
}

/// Whether a cluster time from another member can be valid.
pub fn check_time(stamp: Stamp) -> Result<(), Malformed> {
    match stamp.cluster < TIME_LIMIT {
        true => Ok(()),
        false => Err(Malformed(format!("cluster time {}", stamp.cluster.0))),
    }
}

fn decode_body(kind: u8, body: &[u8]) -> Result<Command, Malformed> {
    Ok(match kind {
        TREE => Command::Tree(
            tree::Command::decode(body)
                .map_err(|error| Malformed(format!("tree command: {error:?}")))?,
        ),
        EXPIRE => Command::Expire(EXPIRED_AT_ONCE),
        EXPIRE_SOME => {
            let most = <[u8; 4]>::try_from(body).map(u32::from_le_bytes).ok();
            let most = most.and_then(|most| usize::try_from(most).ok());
            let sound = most.filter(|most| (1..=EXPIRED_AT_ONCE).contains(most));
            let misfit = || Malformed("an expiry of no number, or of too many".into());
            Command::Expire(sound.ok_or_else(misfit)?)
        }
        PUBLISH => Command::Publish(from_json(body)?),
        TIME => Command::Time,
        UPDATE => Command::Update(from_json(body)?),
        ADD => Command::Add(from_json(body)?),
        REMOVE => {
            let id = <[u8; 8]>::try_from(body)
                .map_err(|_| Malformed(format!("an id of {} bytes", body.len())))?;
            Command::Remove(NodeId(u64::from_le_bytes(id)))
        }
        LATER => return decode_later(body),
        kind => return Err(Malformed(format!("no command has kind {kind}"))),
    })
}

fn decode_later(body: &[u8]) -> Result<Command, Malformed> {
    let (format, rest) = match body.split_first_chunk::<FORMAT_BYTES>() {
        Some((format, rest)) => (u16::from_le_bytes(*format), rest),
        None => (0, body),
    };
    match format {
        ..=FIRST_FORMAT => Err(Malformed("a kind without a later format".into())),
        AUTH_FORMAT => {
            let change = serde_json::from_slice(rest);
            let change = change.map_err(|error| Malformed(format!("users and roles: {error}")));
            change.map(Command::Auth)
        }
        format if format > FORMAT => Err(Malformed(needs_format(format))),
        _ => Ok(Command::NextFormat),
    }
}

/// The error text of a program that does not understand a format.
pub fn needs_format(format: u16) -> String {
    format!(
        "it is of format {format}, and this edgetcd {} understands formats up to {FORMAT}: use a newer edgetcd",
        env!("CARGO_PKG_VERSION")
    )
}

fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(body).map_err(|error| Malformed(format!("member: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_says_how_many_keys_it_may_take() {
        let most = |bytes: &[u8]| match decode(bytes) {
            Ok((_, Command::Expire(most))) => Some(most),
            _ => None,
        };
        assert_eq!(most(&expire()), Some(EXPIRED_AT_ONCE));
        let table = [(0, 1), (1, 1), (700, 700), (usize::MAX, EXPIRED_AT_ONCE)];
        for (wanted, said) in table {
            assert_eq!(most(&expire_some(wanted)), Some(said), "{wanted}");
        }
        for number in [0, EXPIRED_AT_ONCE as u32 + 1, u32::MAX] {
            let mut bytes = without_body(EXPIRE_SOME);
            bytes.extend_from_slice(&number.to_le_bytes());
            assert_eq!(most(&bytes), None, "{number}");
        }
        let whole = expire_some(9);
        assert_eq!(most(&whole[..whole.len() - 1]), None);
    }

    #[test]
    fn a_later_format_says_which_one_it_is() {
        let mut later = without_body(LATER);
        later.extend_from_slice(&(FORMAT + 7).to_le_bytes());
        put_tag(&mut later, 5);
        assert_eq!(format_of(&later), FORMAT + 7);
        let Malformed(text) = decode(&later).expect_err("it is not understood");
        let wanted = format!("it is of format {}, and this edgetcd ", FORMAT + 7);
        assert!(text.starts_with(&wanted), "{text}");
        for earlier in [time(), expire(), expire_some(3), vec![LATER], Vec::new()] {
            assert_eq!(format_of(&earlier), FIRST_FORMAT);
        }
        assert_eq!(format_of(&next_format()), AUTH_FORMAT + 1);
        assert_eq!(
            format_of(&auth(&auth::Change::Enable)),
            AUTH_FORMAT,
            "an earlier program must not get it"
        );
    }
}
