//! Commands, messages and answers in words.

use crate::raft_text::{body_text, entries_text, hard_state_text};
use edgetcd::engine::entry::{self, Command};
use edgetcd::engine::members::MemberError;
use edgetcd::engine::peer_message::{LeaderReply, PeerMessage};
use edgetcd::engine::request::{Effect, Outcome};
use edgetcd::engine::{Batch, Stored};
use edgetcd::tree::{self, Action, Key, Tree};

pub fn command_text(bytes: &[u8]) -> String {
    match entry::decode(bytes) {
        Ok((_, Command::Tree(command))) => tree_text(&command),
        Ok((_, Command::Expire(_))) => "expire keys".into(),
        Ok((_, Command::Publish(published))) => format!("publish n{}", published.member.id),
        Ok((_, Command::Time)) => "time".into(),
        Ok((_, Command::Update(member))) => format!("new peer URLs of n{}", member.id),
        Ok((_, Command::Add(member))) => format!("add n{}", member.id),
        Ok((_, Command::Remove(id))) => format!("remove n{}", id.0),
        Ok((_, Command::Auth(change))) => format!("{change:?}"),
        Ok((_, Command::NextFormat)) => "next format".into(),
        Err(error) => format!("{error:?}"),
    }
}

pub fn tree_text(command: &tree::Command) -> String {
    let key = String::from_utf8_lossy(command.key.as_bytes()).into_owned();
    match command.action {
        Action::Set => {
            let value = String::from_utf8_lossy(&command.value);
            let ttl = command.ttl.map(|ttl| format!(" ttl={ttl}"));
            format!("set {key}={value}{}", ttl.unwrap_or_default())
        }
        Action::Delete => format!("delete {key}"),
        other => format!("{other:?} {key}"),
    }
}

pub fn message_text(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft { message, .. } => body_text(&message.body, command_text),
        PeerMessage::Forward { term, commands, .. } => {
            let commands: Vec<String> = commands
                .iter()
                .map(|command| command_text(command))
                .collect();
            format!("Forward for term {} [{}]", term.0, commands.join(", "))
        }
        PeerMessage::Change { term, command, .. } => {
            format!("Forward for term {} [{}]", term.0, command_text(command))
        }
        PeerMessage::AskIndex { .. } => "AskIndex".into(),
        PeerMessage::Reply { reply, .. } => match reply {
            LeaderReply::Index(index) => format!("Reply: read when {} is applied", index.0),
            LeaderReply::NotTaken => "Reply: not taken".into(),
            LeaderReply::Refused(error) => format!("Reply: refused, {}", refusal_text(*error)),
        },
    }
}

/// `term 2, vote for n1, [3@2 no-op]`; empty if there is nothing to store.
pub fn batch_text(batch: &Batch) -> String {
    let hard_state = batch.hard_state.map(hard_state_text);
    let entries = (!batch.entries.is_empty()).then(|| entries_text(&batch.entries, command_text));
    let parts: Vec<String> = hard_state.into_iter().chain(entries).collect();
    parts.join(", ")
}

pub fn stored_text(stored: &Stored) -> String {
    let hard_state = stored.hard_state.map(hard_state_text);
    let last = stored.last.map(|last| format!("everything to {last}"));
    let parts: Vec<String> = hard_state.into_iter().chain(last).collect();
    parts.join(", ")
}

fn refusal_text(error: MemberError) -> &'static str {
    match error {
        MemberError::IdExists => "it is a member already",
        MemberError::UrlExists => "another member has this URL",
        MemberError::NotFound => "there is no such member",
        MemberError::Removed => "it was removed",
        MemberError::Unhealthy => "the change could cost the majority",
    }
}

/// The answer to a client. A quorum read returns what readers of `tree` see.
pub fn answer_text(outcome: &Outcome, key: Option<&Key>, tree: &Tree) -> String {
    match (outcome, key) {
        (
            Outcome::Done {
                effect, applied, ..
            },
            _,
        ) => match effect {
            Effect::Event(_) | Effect::Members(Ok(())) | Effect::Auth(Ok(_)) => {
                format!("done, entry {}", applied.0)
            }
            Effect::Refused(error) => format!("refused, {}", error.message()),
            Effect::Members(Err(error)) => format!("refused, {}", refusal_text(*error)),
            Effect::Auth(Err(refusal)) => format!("refused, {refusal}"),
        },
        (Outcome::Confirmed, Some(key)) => key_text(key, tree),
        (Outcome::Confirmed, None) => "confirmed".into(),
        (Outcome::Copy(..), _) => "a copy of the state".into(),
        (Outcome::Failed(failure), _) => format!("error 300, {}", failure.cause()),
    }
}

/// The value of `key` for readers of `tree`.
pub fn key_text(key: &Key, tree: &Tree) -> String {
    let name = String::from_utf8_lossy(key.as_bytes());
    match tree.get(key).ok().and_then(|node| node.value()) {
        Some(value) => format!("{name} is {}", String::from_utf8_lossy(value)),
        None => format!("{name} does not exist"),
    }
}
