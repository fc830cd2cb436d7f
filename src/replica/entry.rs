//! What the bytes of a raft command say to the state machine.
//!
//! | offset | size | field | |
//! |---:|---:|---|---|
//! | 0 | 1 | kind | 1 tree command, 2 expire, 3 publish, 4 time |
//! | 1 | 8 | cluster | cluster time in nanoseconds, little-endian |
//! | 9 | 8 | wall | the leader's wall clock in nanoseconds since 1970 |
//! | 17 | n | body | a tree command ([`Command::encode`]); a member as JSON; otherwise nothing |
//!
//! The two times are filled in by the leader when it appends, so that every member applies the same.

use super::members::Member;
use crate::tree::{ClusterTime, Command, Stamp, WallTime};

/// Bytes before the body.
pub const HEAD_BYTES: usize = 17;

const TREE: u8 = 1;
const EXPIRE: u8 = 2;
const PUBLISH: u8 = 3;
const TIME: u8 = 4;

/// A decoded command.
#[derive(Debug)]
pub enum Order {
    /// A client's write.
    Tree(Command),
    /// Everything due at the stamp's cluster time expires.
    Expire,
    /// A member tells its name and client URLs.
    Publish(Member),
    /// Nothing but the time: logged while keys with a TTL exist, so that a restart knows it.
    Time,
}

/// Bytes that are no command: a bug of ours, or of a future version that wrote the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

/// A client's write, its stamp still open.
pub fn tree(command: &Command) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 64 + command.value.len());
    bytes.push(TREE);
    bytes.resize(HEAD_BYTES, 0);
    command.encode(&mut bytes);
    bytes
}

/// "Expire all that is due".
pub fn expire() -> Vec<u8> {
    without_body(EXPIRE)
}

/// "It is now".
pub fn time() -> Vec<u8> {
    without_body(TIME)
}

/// A member's name and client URLs.
pub fn publish(member: &Member) -> Vec<u8> {
    let mut bytes = without_body(PUBLISH);
    serde_json::to_writer(&mut bytes, member)
        .expect("a member is plain data, and a Vec takes all bytes");
    bytes
}

fn without_body(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    bytes[0] = kind;
    bytes
}

/// Fills in the times. Called once, by the leader that appends.
pub fn stamp(bytes: &mut [u8], stamp: Stamp) {
    bytes[1..9].copy_from_slice(&stamp.cluster.0.to_le_bytes());
    bytes[9..17].copy_from_slice(&stamp.wall.0.to_le_bytes());
}

/// Reads a command back.
///
/// # Errors
/// [`Malformed`] says what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<(Stamp, Order), Malformed> {
    let (head, body) = bytes
        .split_first_chunk::<HEAD_BYTES>()
        .ok_or_else(|| Malformed(format!("{} bytes are shorter than a head", bytes.len())))?;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
    let stamp = Stamp {
        cluster: ClusterTime(number(1)),
        wall: WallTime(number(9) as i64),
    };
    let order = match head[0] {
        TREE => Order::Tree(
            Command::decode(body).map_err(|error| Malformed(format!("tree command: {error:?}")))?,
        ),
        EXPIRE => Order::Expire,
        PUBLISH => Order::Publish(
            serde_json::from_slice(body).map_err(|error| Malformed(format!("member: {error}")))?,
        ),
        TIME => Order::Time,
        kind => return Err(Malformed(format!("no command has kind {kind}"))),
    };
    Ok((stamp, order))
}
