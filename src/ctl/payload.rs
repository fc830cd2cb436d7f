//! Shows a command of the log, as text for people and as JSON fields.
//!
//! Keys and values are bytes. The text shows them quoted and escaped, and shortens long ones. JSON has them as text
//! if they are valid text, otherwise as base64 under another name (`value_base64`).

use serde::Serialize;

use super::base64::base64;
use crate::auth;
use crate::engine::entry::{self, Command};
use crate::engine::members::Member;
use crate::identity::ids::hex;
use crate::raft::{Change, ChangeKind, Payload};
use crate::tree::{self, Action, EXPIRED_AT_ONCE, Stamp};

/// Maximum number of characters of a key or value in the text, unless the user asks for all.
const SHORT: usize = 64;

/// An entry's payload as JSON. Absent fields are omitted.
#[derive(Debug, Default, Serialize)]
pub(super) struct Fields {
    payload: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    dir: bool,
    #[serde(skip_serializing_if = "is_false")]
    recursive: bool,
    #[serde(skip_serializing_if = "is_false")]
    refresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Member>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
    /// Cluster time, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_ns: Option<u64>,
    /// The leader's wall clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    wall: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Text, or base64 if it is not valid text.
type Either = (Option<String>, Option<String>);

fn either(bytes: &[u8]) -> Either {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}

impl Fields {
    /// The fields of a payload, or of the error if it cannot be decoded.
    pub fn new(payload: &Result<Payload, String>) -> Fields {
        match payload {
            Ok(Payload::Noop) => Fields {
                payload: "no-op",
                ..Fields::default()
            },
            Ok(Payload::Command(bytes)) => Fields {
                payload: "command",
                ..Fields::of_command(bytes)
            },
            Ok(Payload::Change(change)) => Fields {
                payload: "change",
                change: Some(change_name(change.kind)),
                node: Some(hex(change.node.0)),
                ..match change.context.is_empty() {
                    true => Fields::default(),
                    false => Fields::of_command(&change.context),
                }
            },
            Err(error) => Fields {
                payload: "unknown",
                error: Some(error.clone()),
                ..Fields::default()
            },
        }
    }

    fn of_command(bytes: &[u8]) -> Fields {
        let (stamp, command) = match entry::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                return Fields {
                    error: Some(error.0),
                    ..Fields::default()
                };
            }
        };
        let fields = Fields {
            cluster_ns: Some(stamp.cluster.0),
            wall: wall(&stamp),
            tag: entry::tag(bytes).map(hex),
            ..Fields::default()
        };
        match command {
            Command::Tree(command) => fields.with_command(&command),
            Command::Expire(most) => Fields {
                most: Some(most).filter(|most| *most < EXPIRED_AT_ONCE),
                ..fields.named("expire")
            },
            Command::Time => fields.named("time"),
            Command::Auth(change) => fields.named(auth_name(&change)),
            Command::NextFormat => fields.named("next format"),
            Command::Publish(published) => Fields {
                incarnation: Some(hex(published.incarnation)),
                member: Some(published.member),
                ..fields.named("publish")
            },
            Command::Update(member) => Fields {
                member: Some(member),
                ..fields.named("update member")
            },
            Command::Add(member) => Fields {
                member: Some(member),
                ..fields.named("add member")
            },
            Command::Remove(id) => Fields {
                node: Some(hex(id.0)),
                ..fields.named("remove member")
            },
        }
    }

    fn named(self, name: &'static str) -> Fields {
        Fields {
            command: Some(name),
            ..self
        }
    }

    fn with_command(self, command: &tree::Command) -> Fields {
        let (key, key_base64) = either(command.key.as_bytes());
        let (value, value_base64) = match has_value(command) {
            true => either(&command.value),
            false => (None, None),
        };
        let before = command.prev_value.as_ref().map(|value| either(value));
        let (prev_value, prev_value_base64) = before.unwrap_or_default();
        Fields {
            key,
            key_base64,
            value,
            value_base64,
            dir: command.dir,
            recursive: command.recursive,
            refresh: command.refresh,
            ttl: command.ttl,
            prev_value,
            prev_value_base64,
            prev_index: command.prev_index,
            ..self.named(action_name(command.action))
        }
    }
}

/// What a change of users and roles does. Hashes of passwords are not shown.
fn auth_name(change: &auth::Change) -> &'static str {
    match change {
        auth::Change::Enable => "enable auth",
        auth::Change::Disable => "disable auth",
        auth::Change::CreateUser { .. } => "create user",
        auth::Change::PutUser { .. } => "put user",
        auth::Change::UpdateUser { .. } => "update user",
        auth::Change::DeleteUser(_) => "delete user",
        auth::Change::CreateRole { .. } => "create role",
        auth::Change::UpdateRole { .. } => "update role",
        auth::Change::DeleteRole(_) => "delete role",
    }
}

fn auth_text(change: &auth::Change) -> String {
    let name = match change {
        auth::Change::Enable | auth::Change::Disable => return auth_name(change).to_owned(),
        auth::Change::CreateUser { name, .. }
        | auth::Change::PutUser { name, .. }
        | auth::Change::UpdateUser { name, .. }
        | auth::Change::DeleteUser(name)
        | auth::Change::CreateRole { name, .. }
        | auth::Change::UpdateRole { name, .. }
        | auth::Change::DeleteRole(name) => name,
    };
    format!("{} {}", auth_name(change), quoted(name.as_bytes(), true))
}

/// A payload as text. `full`: nothing is shortened.
pub(super) fn text(payload: &Result<Payload, String>, full: bool) -> String {
    match payload {
        Ok(Payload::Noop) => "no-op".to_owned(),
        Ok(Payload::Command(bytes)) => payload_text(bytes, full),
        Ok(Payload::Change(change)) => change_text(change, full),
        Err(error) => format!("cannot be read: {error}"),
    }
}

fn change_text(change: &Change, full: bool) -> String {
    let what = format!("{} {}", change_name(change.kind), hex(change.node.0));
    match change.context.is_empty() {
        true => what,
        false => format!("{what}: {}", payload_text(&change.context, full)),
    }
}

fn payload_text(bytes: &[u8], full: bool) -> String {
    let (stamp, command) = match entry::decode(bytes) {
        Ok(decoded) => decoded,
        Err(error) => return format!("cannot be read: {}", error.0),
    };
    let what = match command {
        Command::Tree(command) => command_text(&command, full),
        Command::Expire(EXPIRED_AT_ONCE) => "expire".to_owned(),
        Command::Expire(most) => format!("expire {most} at most"),
        Command::Time => "time".to_owned(),
        Command::Auth(change) => auth_text(&change),
        Command::NextFormat => "next format".to_owned(),
        Command::Publish(published) => format!("publish {}", member_text(&published.member)),
        Command::Update(member) => format!("update member {}", member_text(&member)),
        Command::Add(member) => format!("add member {}", member_text(&member)),
        Command::Remove(id) => format!("remove member {}", hex(id.0)),
    };
    match wall(&stamp) {
        Some(wall) => format!("{what}  at {wall}"),
        None => what,
    }
}

fn command_text(command: &tree::Command, full: bool) -> String {
    let mut words = vec![
        action_name(command.action).to_owned(),
        plain(command.key.as_bytes(), full),
    ];
    if has_value(command) {
        words.push(quoted(&command.value, full));
    }
    let flags = [
        ("dir", command.dir),
        ("recursive", command.recursive),
        ("refresh", command.refresh),
    ];
    let flags = flags.into_iter().filter(|(_, given)| *given);
    words.extend(flags.map(|(name, _)| name.to_owned()));
    words.extend(command.ttl.map(|ttl| format!("ttl {ttl}")));
    let before = command.prev_value.as_ref();
    words.extend(before.map(|value| format!("if value {}", quoted(value, full))));
    words.extend(command.prev_index.map(|index| format!("if index {index}")));
    words.join(" ")
}

/// Whether the command writes its value.
fn has_value(command: &tree::Command) -> bool {
    let removes = matches!(command.action, Action::Delete | Action::CompareAndDelete);
    !removes && !command.dir && !command.refresh
}

fn member_text(member: &Member) -> String {
    let mut words = vec![hex(member.id)];
    if !member.name.is_empty() {
        words.push(format!("name {}", quoted(member.name.as_bytes(), true)));
    }
    for (name, urls) in [
        ("peers", &member.peer_urls),
        ("clients", &member.client_urls),
    ] {
        if !urls.is_empty() {
            words.push(format!("{name} {}", urls.join(",")));
        }
    }
    words.join(" ")
}

/// A key without quotes. Characters that are not plain text are escaped.
fn plain(bytes: &[u8], full: bool) -> String {
    let escaped = escaped(bytes);
    short(&escaped, bytes.len(), full)
}

fn quoted(bytes: &[u8], full: bool) -> String {
    let escaped = format!("\"{}\"", escaped(bytes));
    short(&escaped, bytes.len(), full)
}

/// Escapes characters that a terminal cannot show, and writes other bytes as `\x80`.
fn escaped(bytes: &[u8]) -> String {
    let chunks = bytes.utf8_chunks();
    let texts = chunks.map(|chunk| {
        let text = chunk.valid().escape_debug().to_string();
        text.replace("\\'", "'") + &chunk.invalid().escape_ascii().to_string()
    });
    texts.collect()
}

fn short(text: &str, bytes: usize, full: bool) -> String {
    match text.char_indices().nth(SHORT) {
        Some((end, _)) if !full => format!("{}… ({bytes} bytes)", &text[..end]),
        _ => text.to_owned(),
    }
}

fn wall(stamp: &Stamp) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(stamp.wall.0)).ok()?;
    (stamp.wall.0 != 0).then(|| format!("{time:.3}"))
}

fn action_name(action: Action) -> &'static str {
    match action {
        Action::Set => "set",
        Action::Create => "create",
        Action::CreateInOrder => "create in order",
        Action::Update => "update",
        Action::CompareAndSwap => "compare and swap",
        Action::Delete => "delete",
        Action::CompareAndDelete => "compare and delete",
    }
}

fn change_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::AddLearner => "add learner",
        ChangeKind::Promote => "promote",
        ChangeKind::Remove => "remove",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::NodeId;
    use crate::tree::{Bytes, ClusterTime, Key, WallTime};

    fn stamped(mut bytes: Vec<u8>) -> Vec<u8> {
        let stamp = Stamp {
            cluster: ClusterTime(7),
            wall: WallTime(1_500_000_000),
        };
        entry::stamp(&mut bytes, stamp);
        bytes
    }

    fn both(payload: Payload) -> (String, String) {
        let payload = Ok(payload);
        let json = serde_json::to_string(&Fields::new(&payload)).expect("plain data");
        (text(&payload, false), json)
    }

    #[test]
    fn a_command_is_told_with_all_its_fields() {
        let mut command = tree::Command::new(Action::CompareAndSwap, Key::new("/a/ü".as_bytes()));
        command.value = Bytes::from("two\nlines \"and\" it's");
        command.ttl = Some(5);
        command.prev_value = Some(Bytes::from(&b"\xff"[..]));
        command.prev_index = Some(3);
        let (text, json) = both(Payload::Command(stamped(entry::tree(&command)).into()));
        assert_eq!(
            text,
            r#"compare and swap /a/ü "two\nlines \"and\" it's" ttl 5 if value "\xff" if index 3  at 1970-01-01T00:00:01.500Z"#
        );
        assert_eq!(
            json,
            r#"{"payload":"command","command":"compare and swap","key":"/a/ü","value":"two\nlines \"and\" it's","ttl":5,"prev_value_base64":"/w==","prev_index":3,"cluster_ns":7,"wall":"1970-01-01T00:00:01.500Z"}"#
        );
    }

    #[test]
    fn long_values_are_cut_and_there_is_none_where_none_is_written() {
        let mut command = tree::Command::new(Action::Set, Key::new(b"/a"));
        command.value = Bytes::from("ü".repeat(1000).as_str());
        let payload = Ok(Payload::Command(entry::tree(&command).into()));
        assert_eq!(
            text(&payload, false),
            format!("set /a \"{}… (2000 bytes)", "ü".repeat(63))
        );
        assert_eq!(
            text(&payload, true),
            format!("set /a \"{}\"", "ü".repeat(1000))
        );
        (command.dir, command.recursive) = (true, true);
        command.action = Action::Delete;
        let (text, _) = both(Payload::Command(entry::tree(&command).into()));
        assert_eq!(text, "delete /a dir recursive");
    }

    #[test]
    fn changes_tell_the_member_and_strange_bytes_the_reason() {
        let context = entry::remove(NodeId(0xab)).into();
        let change = Change {
            kind: ChangeKind::Remove,
            node: NodeId(0xab),
            context,
        };
        let (text, json) = both(Payload::Change(change));
        assert_eq!(text, "remove ab: remove member ab");
        assert_eq!(
            json,
            r#"{"payload":"change","command":"remove member","change":"remove","node":"ab","cluster_ns":0}"#
        );
        let (text, json) = both(Payload::Command(vec![99; 40].into()));
        assert_eq!(text, "cannot be read: no command has kind 99");
        assert_eq!(
            json,
            r#"{"payload":"command","error":"no command has kind 99"}"#
        );
    }
}
