//! Conditions on the state of a run: `leads 2`, `committed 1 5`, `message append 1 3`.

use super::Lab;
use crate::raft::NodeId;
use crate::sim::{Answer, MemberView};

/// Every condition, with its meaning.
pub const WORDS: &[(&str, &str)] = &[
    ("leader", "a member leads in the newest term"),
    (
        "leads N",
        "N leads, also if a newer term has another leader",
    ),
    (
        "steady",
        "all members that run follow one leader, and have all of its entries committed and applied",
    ),
    ("answered", "each client's request has a reply"),
    ("up N", "the process of N runs"),
    ("candidate N", "N asks for votes or for pre-votes"),
    ("voted N M", "N has voted for M in its term"),
    (
        "vote-stored N",
        "the vote and the term of N are on its disk",
    ),
    ("term N T", "the term of N is T or newer"),
    ("last N I", "the log of N ends at index I or later"),
    (
        "holds N I T",
        "the log of N has an entry of term T at index I",
    ),
    (
        "stored N I",
        "the disk of N has entries up to index I or later",
    ),
    (
        "shown-stored N",
        "what readers of N see is on its disk, and the term too",
    ),
    (
        "sent WHAT N M COUNT",
        "N has sent M at least that many messages of this kind",
    ),
    ("committed N I", "N knows that index I is committed"),
    ("member N M", "M is a voter in the membership that N uses"),
    (
        "message WHAT N M",
        "a message of this kind is on its way from N to M",
    ),
    ("key N kK V", "readers of N see that request V wrote key K"),
    (
        "reply R done|failed|refused|V",
        "request R has this reply; V is the request whose value a read returned",
    ),
    ("broken", "an invariant is broken"),
];

/// Whether these words, which may begin with `not`, can be a condition.
///
/// # Errors
/// A sentence for the person who wrote the words.
pub fn check(words: &[&str]) -> Result<(), String> {
    let words = words.strip_prefix(&["not"]).unwrap_or(words);
    let form = form(words)?;
    match words
        .iter()
        .zip(&form)
        .find(|(word, slot)| !fits(word, slot))
    {
        None => Ok(()),
        Some((word, slot)) => Err(format!("{word:?} is no {slot} as in {:?}", form.join(" "))),
    }
}

/// The form of the condition that these words are, without `not`: for `leads 2`, the words `leads` and `N`.
///
/// # Errors
/// A sentence for the person who wrote the words.
pub fn form(words: &[&str]) -> Result<Vec<&'static str>, String> {
    let forms = WORDS.iter().map(|(form, _)| form.split(' ').collect());
    let is_like = |form: &Vec<&str>| form.len() == words.len() && form.first() == words.first();
    let form = forms.into_iter().find(is_like);
    form.ok_or_else(|| format!("no condition is {:?}", words.join(" ")))
}

/// What a word of a form stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// A member: `N` or `M`.
    Member,
    /// An index, a term, a request or a count.
    Number,
    /// Itself, or a kind of message, a key or a reply.
    Word,
}

impl Slot {
    /// What a word of a form stands for.
    pub fn of(word: &str) -> Slot {
        match word {
            "N" | "M" => Slot::Member,
            "I" | "T" | "V" | "R" | "COUNT" => Slot::Number,
            _ => Slot::Word,
        }
    }
}

/// Whether a word can be in the place of this word of a form.
fn fits(word: &str, slot: &str) -> bool {
    let is_number = |word: &str| word.parse::<u64>().is_ok();
    match (slot, Slot::of(slot)) {
        (_, Slot::Member) => is_number(word.strip_prefix('n').unwrap_or(word)),
        (_, Slot::Number) => is_number(word),
        ("WHAT", _) => true,
        ("kK", _) => word.strip_prefix('k').is_some_and(is_number),
        ("done|failed|refused|V", _) => {
            ["done", "failed", "refused"].contains(&word) || is_number(word)
        }
        (itself, _) => word == itself,
    }
}

/// Like [`holds`], with `not` before the words for the opposite.
///
/// # Errors
/// Like [`holds`].
pub fn holds_or_not(
    lab: &Lab,
    words: &[&str],
    member: &dyn Fn(&str) -> Result<u64, String>,
    number: &dyn Fn(&str) -> Result<u64, String>,
) -> Result<bool, String> {
    match words {
        ["not", rest @ ..] => Ok(!holds(lab, rest, member, number)?),
        all => holds(lab, all, member, number),
    }
}

/// Whether the words hold now. `member` gives the number of a member, and `number` that of an index, a term or a request.
///
/// # Errors
/// A sentence for the person who wrote the words.
pub fn holds(
    lab: &Lab,
    words: &[&str],
    member: &dyn Fn(&str) -> Result<u64, String>,
    number: &dyn Fn(&str) -> Result<u64, String>,
) -> Result<bool, String> {
    let members = lab.cluster.members();
    let one = |word: &str| {
        let id = member(word)?;
        let found = members.iter().find(|member| member.id == id);
        found.ok_or_else(|| format!("there is no member {id}"))
    };
    Ok(match words {
        ["leader"] => lab.leader().is_some(),
        ["leads", n] => one(n)?.role == "leader",
        ["steady"] => is_steady(lab, &members),
        ["answered"] => lab
            .cluster
            .requests()
            .iter()
            .all(|op| op.returned.is_some()),
        ["up", n] => one(n)?.up,
        ["candidate", n] => one(n)?.role.ends_with("candidate"),
        ["voted", n, m] => one(n)?.vote == Some(member(m)?),
        ["vote-stored", n] => {
            let view = one(n)?;
            view.stored_vote == (view.term, view.vote)
        }
        ["term", n, t] => one(n)?.term >= number(t)?,
        ["last", n, i] => one(n)?.log.last().map_or(0, |entry| entry.index) >= number(i)?,
        ["holds", n, i, t] => {
            let (index, term) = (number(i)?, number(t)?);
            let mut log = one(n)?.log.iter();
            log.any(|entry| entry.index == index && entry.term == term)
        }
        ["stored", n, i] => one(n)?.stored >= number(i)?,
        ["shown-stored", n] => lab.cluster.shows_stored(NodeId(one(n)?.id)),
        ["sent", what, n, m, count] => {
            let (from, to) = (NodeId(member(n)?), NodeId(member(m)?));
            let records = lab.cluster.records().iter();
            let sent =
                records.filter(|record| record.member == from && record.sent(to) == Some(*what));
            sent.count() as u64 >= number(count)?
        }
        ["committed", n, i] => one(n)?.commit >= number(i)?,
        ["member", n, m] => one(n)?.voters.contains(&member(m)?),
        ["message", what, n, m] => {
            let link = (member(n)?, member(m)?);
            let messages = lab.cluster.messages();
            messages
                .iter()
                .any(|message| message.what == *what && (message.from, message.to) == link)
        }
        ["key", n, k, v] => {
            let key = k
                .strip_prefix('k')
                .map_or(Err(format!("{k:?} is no key")), number)?;
            one(n)?.keys.contains(&(key, number(v)?))
        }
        ["reply", r, wanted] => reply(lab, number(r)?, wanted, number)?,
        ["broken"] => lab.broken.is_some(),
        _ => return Err(format!("no condition is {:?}", words.join(" "))),
    })
}

fn is_steady(lab: &Lab, members: &[MemberView]) -> bool {
    let Some(leader) = lab.leader() else {
        return false;
    };
    let leading = members.iter().find(|member| member.id == leader.0);
    leading.is_some_and(|leading| {
        let last = leading
            .log
            .last()
            .map_or(leading.commit, |entry| entry.index);
        let follows = |member: &MemberView| {
            !member.up
                || (member.leader == Some(leader.0)
                    && (member.term, member.commit, member.applied) == (leading.term, last, last))
        };
        leading.commit == last && members.iter().all(follows)
    })
}

fn reply(
    lab: &Lab,
    request: u64,
    wanted: &str,
    number: &dyn Fn(&str) -> Result<u64, String>,
) -> Result<bool, String> {
    let requests = lab.cluster.requests();
    let op = usize::try_from(request)
        .ok()
        .and_then(|at| requests.get(at));
    let op = op.ok_or_else(|| format!("there is no request #{request}"))?;
    Ok(match (wanted, &op.answer) {
        ("done", answer) => matches!(answer, Some(Answer::Done(..) | Answer::Found(_))),
        ("failed", answer) => {
            op.returned.is_some() && matches!(answer, None | Some(Answer::Failed(_)))
        }
        ("refused", answer) => matches!(answer, Some(Answer::NotTaken | Answer::Refused)),
        (value, answer) => {
            let value = number(value)?;
            matches!(answer, Some(Answer::Found(Some((found, _)))) if *found == value)
        }
    })
}
