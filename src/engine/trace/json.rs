//! The lines of a trace.

use super::{MessageSummary, Record, Trace, reason_name};
use crate::raft::{LogIndex, NodeId, VoteReason};
use core::fmt::Write as _;

impl Record {
    /// Appends the record as one JSON object, without an end of line. `at` is in microseconds: of Unix time on a server,
    /// of simulated time in the simulator.
    pub fn write_json(&self, at: u64, member: NodeId, out: &mut String) {
        let mut json = Json(out);
        json.0.push('{');
        let _ = write!(
            json.0,
            "\"seq\":{},\"at\":{at},\"member\":\"{:x}\",\"term\":{},\"kind\":\"{}\"",
            self.seq,
            member.0,
            self.term.0,
            self.event.kind()
        );
        json.fields(&self.event);
        json.0.push('}');
    }

    /// Like [`Record::write_json`], as a text of its own.
    pub fn json(&self, at: u64, member: NodeId) -> String {
        let mut out = String::new();
        self.write_json(at, member, &mut out);
        out
    }
}

/// Writes the fields of an object. Writing to a `String` does not fail.
struct Json<'a>(&'a mut String);

impl Json<'_> {
    fn number(&mut self, name: &str, value: u64) {
        let _ = write!(self.0, ",\"{name}\":{value}");
    }

    /// A number that is left out if it is 0.
    fn known(&mut self, name: &str, index: LogIndex) {
        if index.0 > 0 {
            self.number(name, index.0);
        }
    }

    /// `text` is one of the names above, which need no escapes.
    fn text(&mut self, name: &str, text: &str) {
        let _ = write!(self.0, ",\"{name}\":\"{text}\"");
    }

    fn flag(&mut self, name: &str, flag: bool) {
        let _ = write!(self.0, ",\"{name}\":{flag}");
    }

    fn id(&mut self, name: &str, id: NodeId) {
        let _ = write!(self.0, ",\"{name}\":\"{:x}\"", id.0);
    }

    fn id_or_null(&mut self, name: &str, id: Option<NodeId>) {
        match id {
            Some(id) => self.id(name, id),
            None => {
                let _ = write!(self.0, ",\"{name}\":null");
            }
        }
    }

    fn message(&mut self, message: &MessageSummary) {
        self.text("what", message.what.name());
        self.known("first", message.first);
        self.known("last", message.last);
    }

    fn fields(&mut self, event: &Trace) {
        match *event {
            Trace::Start {
                first,
                last,
                applied,
            } => {
                self.number("first", first.0);
                self.number("last", last.0);
                self.number("applied", applied.0);
            }
            Trace::Role { role, leader } => {
                self.text("role", role.name());
                self.id_or_null("leader", leader);
            }
            Trace::Term { was } => self.number("was", was.0),
            Trace::Timer { after_ms } | Trace::Timeout { after_ms } => {
                self.number("after_ms", after_ms)
            }
            Trace::Members {
                voters,
                learners,
                index,
            } => {
                self.number("voters", voters.into());
                self.number("learners", learners.into());
                self.number("index", index.0);
            }
            Trace::Link { peer, up } => {
                self.id("peer", peer);
                self.flag("up", up);
            }
            Trace::Sent { to, ref message } => {
                self.id("to", to);
                self.message(message);
            }
            Trace::Received { from, ref message } => {
                self.id("from", from);
                self.message(message);
            }
            _ => self.more_fields(event),
        }
    }

    fn more_fields(&mut self, event: &Trace) {
        match *event {
            Trace::Appended {
                first,
                last,
                entry_term,
            } => {
                self.number("first", first.0);
                self.number("last", last.0);
                self.number("entry_term", entry_term.0);
            }
            Trace::Truncated { from } => self.number("from", from.0),
            Trace::Stored { last } => self.number("last", last.0),
            Trace::Acknowledged { by, last } | Trace::Refused { by, last } => {
                self.id("by", by);
                self.number("last", last.0);
            }
            Trace::Committed { index } | Trace::Applied { index } => self.number("index", index.0),
            Trace::Snapshot { what, index, peer } => {
                self.text("what", what.name());
                self.known("index", index);
                if let Some(peer) = peer {
                    self.id("peer", peer);
                }
            }
            Trace::Forward { what, to, count } => {
                self.text("what", what.name());
                if let Some(to) = to {
                    self.id("to", to);
                }
                self.number("count", count.into());
            }
            Trace::Read { index } => {
                self.text("what", index.map_or("asked", |_| "confirmed"));
                if let Some(index) = index {
                    self.number("index", index.0);
                }
            }
            _ => self.vote_fields(event),
        }
    }

    fn vote_fields(&mut self, event: &Trace) {
        match *event {
            Trace::VoteAsked {
                pre,
                last,
                last_term,
            } => {
                self.flag("pre", pre);
                self.number("last_index", last.0);
                self.number("last_term", last_term.0);
            }
            Trace::VoteAnswer {
                candidate,
                pre,
                reason,
            } => {
                self.id("for", candidate);
                self.flag("pre", pre);
                self.flag("granted", reason == VoteReason::Granted);
                self.text("why", reason_name(reason));
            }
            Trace::VoteGot { by, pre, granted } => {
                self.id("by", by);
                self.flag("pre", pre);
                self.flag("granted", granted);
            }
            Trace::VoteStored { term, candidate } => {
                self.number("in", term.0);
                self.id_or_null("for", candidate);
            }
            _ => unreachable!("{event:?} has its fields above"),
        }
    }
}
