//! What the page shows, as JSON.

use super::run::Run;
use super::switches::{RAFT, Switch};
use super::{Lab, acts, condition};
use crate::sim::{Happening, MemberView, MessageView, Op};
use serde::Serialize;

/// The whole state of a run at the present step.
#[derive(Serialize)]
struct State {
    step: u64,
    /// Virtual microseconds.
    at: u64,
    next_at: Option<u64>,
    members: Vec<MemberView>,
    messages: Vec<MessageView>,
    cuts: Vec<(u64, u64)>,
    requests: Vec<RequestView>,
    broken: Option<(u64, String)>,
    acts: Vec<(u64, String)>,
    performed: usize,
    requires: Vec<(u64, String)>,
    snapshot_every: u64,
    end: u64,
    without: Vec<String>,
    seed: u64,
    founders: u64,
}

#[derive(Serialize)]
struct RequestView {
    number: usize,
    what: String,
    called: u64,
    returned: Option<u64>,
    answer: Option<String>,
}

#[derive(Serialize)]
struct LineView {
    seq: usize,
    at: u64,
    text: String,
}

#[derive(Serialize)]
struct RuleView {
    name: String,
    sentence: &'static str,
    section: &'static str,
    raft: bool,
}

impl Lab {
    /// The state as JSON.
    pub fn json(&self) -> String {
        let Run {
            seed,
            members,
            without,
            acts: all,
            end,
            requires,
            snapshot_every,
        } = self.whole_run();
        let state = State {
            step: self.steps,
            at: self.cluster.now(),
            next_at: self.cluster.next_at(),
            members: self.cluster.members(),
            messages: self.cluster.messages(),
            cuts: self.cluster.cut_links(),
            requests: (self.cluster.requests().iter().enumerate())
                .map(|(number, op)| request(number, op))
                .collect(),
            broken: (self.broken.as_ref()).map(|broken| (broken.step, broken.text.clone())),
            acts: all
                .iter()
                .map(|(step, act)| (*step, acts::text(*act)))
                .collect(),
            performed: self.performed,
            requires,
            snapshot_every,
            end,
            without: without.iter().map(Switch::to_string).collect(),
            seed,
            founders: members,
        };
        serde_json::to_string(&state).expect("a state is JSON")
    }

    /// The members' records from one position on, and what clients and the person did from another one on, as JSON.
    pub fn trace_json(&self, records: usize, others: usize) -> String {
        let records = self.cluster.records().iter().skip(records);
        let records: Vec<String> = records.map(|record| record.json()).collect();
        let lines = self.cluster.trace().iter().enumerate().skip(others);
        let lines = lines.filter(|(_, line)| !is_recorded(&line.what));
        let lines: Vec<LineView> = lines
            .map(|(seq, line)| LineView {
                seq,
                at: line.at,
                text: line.what.to_string(),
            })
            .collect();
        let lines = serde_json::to_string(&lines).expect("lines are JSON");
        let (of_records, of_lines) = (self.cluster.records().len(), self.cluster.trace().len());
        format!(
            "{{\"records\":[{}],\"lines\":{lines},\"next\":[{of_records},{of_lines}]}}",
            records.join(",")
        )
    }
}

/// Whether the members' records tell this too.
fn is_recorded(what: &Happening) -> bool {
    !matches!(
        what,
        Happening::Nemesis(_)
            | Happening::Asked { .. }
            | Happening::Answered { .. }
            | Happening::GaveUp { .. }
            | Happening::Down { .. }
            | Happening::Removed { .. }
            | Happening::Full { .. }
    )
}

fn request(number: usize, op: &Op) -> RequestView {
    RequestView {
        number,
        what: format!("{:?}", op.ask),
        called: op.called,
        returned: op.returned,
        answer: op.answer.as_ref().map(|answer| format!("{answer:?}")),
    }
}

/// The rules, acts and conditions as JSON.
pub fn about() -> String {
    let rules: Vec<RuleView> = Switch::all()
        .map(|switch| match switch {
            Switch::Raft(number) => RuleView {
                name: switch.to_string(),
                sentence: RAFT[number].sentence,
                section: RAFT[number].section,
                raft: true,
            },
            Switch::Engine(_) => RuleView {
                name: switch.to_string(),
                sentence: "",
                section: "src/engine/rules.rs",
                raft: false,
            },
        })
        .collect();
    let all = serde_json::json!({
        "rules": rules,
        "acts": acts::WORDS,
        "conditions": condition::WORDS,
    });
    all.to_string()
}
