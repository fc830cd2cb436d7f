//! Raft's messages, entries and logs in words, for lessons.

use edgetcd::raft::{
    Body, ChangeKind, Core, Entry, HardState, LogIndex, Payload, Position, Role, Rules,
};

pub fn role_text(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

pub fn role_line<R: Rules>(core: &Core<R>) -> String {
    format!(
        "n{} is {} in term {}",
        core.id().0,
        role_text(core.role()),
        core.term().0
    )
}

pub fn hard_state_text(hard_state: HardState) -> String {
    let vote = hard_state.vote;
    let vote = vote.map_or("no vote".into(), |vote| format!("vote for n{}", vote.0));
    format!("term {}, {vote}", hard_state.term.0)
}

/// `1@1 … 7@1, 8@2`: a log as runs of equal terms.
pub fn log_text<R: Rules>(core: &Core<R>) -> String {
    let last = core.last_position().index.0;
    let known = (0..=last).filter_map(|index| core.position_at(LogIndex(index)));
    let mut runs: Vec<(Position, Position)> = Vec::new();
    for position in known.skip_while(|position| position.index.0 == 0) {
        match runs.last_mut() {
            Some(run) if run.1.term == position.term => run.1 = position,
            _ => runs.push((position, position)),
        }
    }
    let text = |(first, last): &(Position, Position)| match first == last {
        true => format!("{first}"),
        false => format!("{first} … {last}"),
    };
    format!("[{}]", runs.iter().map(text).collect::<Vec<_>>().join(", "))
}

/// `command` shows the bytes of a command.
pub fn entries_text(entries: &[Entry], command: fn(&[u8]) -> String) -> String {
    if entries.len() > 3 {
        let [first, last] = [&entries[0], &entries[entries.len() - 1]];
        return format!(
            "[{} … {}: {} entries]",
            first.position,
            last.position,
            entries.len()
        );
    }
    let one = |entry: &Entry| format!("{} {}", entry.position, payload_text(entry, command));
    format!(
        "[{}]",
        entries.iter().map(one).collect::<Vec<_>>().join(", ")
    )
}

fn payload_text(entry: &Entry, command: fn(&[u8]) -> String) -> String {
    match &entry.payload {
        Payload::Noop => "no-op".into(),
        Payload::Command(bytes) => command(bytes),
        Payload::Change(change) => {
            let kind = match change.kind {
                ChangeKind::AddLearner => "add learner",
                ChangeKind::Promote => "promote",
                ChangeKind::Remove => "remove",
            };
            format!("{kind} n{}", change.node.0)
        }
    }
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// `command` shows the bytes of a command.
pub fn body_text(body: &Body, command: fn(&[u8]) -> String) -> String {
    match body {
        Body::PreVote { last } => format!("PreVote, log ends {last}"),
        Body::PreVoteReply { asked, granted } => {
            format!("PreVoteReply {}: {}", asked.0, yes(*granted))
        }
        Body::Vote {
            last,
            handover: false,
        } => format!("Vote, log ends {last}"),
        Body::Vote {
            last,
            handover: true,
        } => format!("Vote, log ends {last}, handover"),
        Body::VoteReply { granted } => format!("VoteReply: {}", yes(*granted)),
        Body::Append {
            previous,
            entries,
            commit,
        } => {
            format!(
                "Append after {previous} {} commit {}",
                entries_text(entries, command),
                commit.0
            )
        }
        Body::Accepted { matched } => format!("Accepted to {}", matched.0),
        Body::Refused { previous, hint } => format!("Refused {}, try {hint}", previous.0),
        Body::Heartbeat { round, commit } => format!("Heartbeat {round}, commit {commit}"),
        Body::HeartbeatReply { round } => format!("HeartbeatReply {round}"),
        Body::Commit { commit } => format!("Commit {commit}"),
        Body::CampaignNow => "CampaignNow".into(),
        Body::Blank => "Blank".into(),
        Body::Outdated => "Outdated".into(),
    }
}
