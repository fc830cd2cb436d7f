// One sentence for each trace record: what happened, the rule that acted, and its place in the paper.
"use strict";

const PAPER = "raft paper";
const THESIS = "dissertation";

/** Returns [what happened, why, section] of a record. */
function describe(record) {
  const n = (id) => (id === null || id === undefined ? "nobody" : `n${parseInt(id, 16)}`);
  const range = record.first !== undefined && record.first !== record.last ? `${record.first} to ${record.last}` : `${record.last}`;
  const pre = record.pre ? "pre-vote" : "vote";
  switch (record.kind) {
    case "start": return [`starts with a log up to ${record.last}`, "What is on disk is what it knows: term, vote and entries survive a restart.", `${PAPER} §5.1, figure 2`];
    case "role": return [`is ${record.role}${record.leader ? `, follows ${n(record.leader)}` : ""}`,
      record.role === "leader" ? "A majority has voted for it. It sends heartbeats and a no-op of its term." :
      record.role === "pre-candidate" ? "It asks whether it could win before it raises its term." :
      record.role === "candidate" ? "A majority would vote for it. It raises its term and votes for itself." : "A member without a majority of votes follows.",
      record.role === "pre-candidate" ? `${THESIS} §9.6` : `${PAPER} §5.2`];
    case "term": return [`goes from term ${record.was} to ${record.term}`, "Whoever sees a newer term adopts it and steps down.", `${PAPER} §5.1`];
    case "timer": return [`waits for a leader for at most ${record.after_ms} ms`, "The wait is random, so that members rarely stand at the same time.", `${PAPER} §5.2`];
    case "timeout": return [`has heard no leader for ${record.after_ms} ms`, "The wait is random, so that members rarely stand at the same time.", `${PAPER} §5.2`];
    case "vote_asked": return [`asks for a ${pre}; its log ends at ${record.last_index} of term ${record.last_term}`, "It sends the end of its log, so that voters can compare.", record.pre ? `${THESIS} §9.6` : `${PAPER} §5.4.1`];
    case "vote_answer": return [`${record.granted ? "grants" : "refuses"} a ${pre} to ${n(record.for)}: ${record.why}`, voteReason(record), record.why === "log behind" ? `${PAPER} §5.4.1` : record.why === "has leader" ? `${THESIS} §4.2.3` : `${PAPER} §5.2`];
    case "vote_stored": return [`has its vote for ${n(record.for)} in term ${record.in} on disk`, "Only now may the vote be answered: a member that forgets a vote can vote twice.", `${PAPER} §5.2, figure 2`];
    case "vote_got": return [`gets a ${pre} of ${n(record.by)}: ${record.granted ? "yes" : "no"}`, "A majority of yes wins.", `${PAPER} §5.2`];
    case "appended": return [`appends ${range} of term ${record.entry_term} in memory`, "An entry in memory is no promise yet.", `${PAPER} §5.3`];
    case "truncated": return [`deletes its log from ${record.from} on`, "These entries contradict the leader's. They were not committed.", `${PAPER} §5.3, figure 7`];
    case "stored": return [`has its log up to ${record.last} on disk`, "Now it may acknowledge, and a leader may count itself.", `${PAPER} §5.3, figure 2`];
    case "sent": return [`sends ${record.what} to ${n(record.to)}${record.last !== undefined ? ` (${range})` : ""}`, messageReason(record.what), messageSection(record.what)];
    case "received": return [`receives ${record.what} of ${n(record.from)}${record.last !== undefined ? ` (${range})` : ""}`, messageReason(record.what), messageSection(record.what)];
    case "acknowledged": return [`knows that ${n(record.by)} has stored up to ${record.last}`, "The leader counts disks, not memories.", `${PAPER} §5.3`];
    case "refused": return [`learns that ${n(record.by)} lacks the entry before; they may agree up to ${record.last}`, "The leader tries an earlier entry until the logs agree.", `${PAPER} §5.3`];
    case "committed": return [`knows that ${record.index} is committed`, "A leader counts a majority of disks, for entries of its own term only.", `${PAPER} §5.4.2`];
    case "applied": return [`applies up to ${record.index}`, "Only committed entries change the keys, in the same order everywhere.", `${PAPER} §5.3`];
    case "snapshot": return [`snapshot ${record.what} at ${record.index}`, "A snapshot replaces the log before it.", `${PAPER} §7`];
    case "members": return [`uses ${record.voters} voters and ${record.learners} learners from ${record.index} on`, "A change takes effect when it is appended, one member at a time.", `${THESIS} §4.1`];
    case "link": return [`${record.up ? "is connected to" : "has lost"} ${n(record.peer)}`, "", ""];
    case "forward": return [`forwards commands to its leader: ${record.what}`, "A follower passes writes on, once: a lost one is not repeated.", `${THESIS} §6.3`];
    case "read": return [`read ${record.what}${record.index !== undefined ? ` at ${record.index}` : ""}`, "The leader confirms by a heartbeat round that it still leads.", `${THESIS} §6.4`];
    case "gap": return [record.restart ? "has started again" : "has made more records, which are not in the file", "", ""];
    default: return [record.kind, "", ""];
  }
}

function voteReason(record) {
  return {
    "granted": "It has not voted for another in this term, and its own log does not end later.",
    "newer term": "The candidate's term is old.",
    "has leader": "It hears a leader, so it ignores candidates.",
    "voted for another": "A member votes once in a term.",
    "log behind": "A log that ends earlier may lack committed entries.",
    "knows no members": "A new member waits until it learns who the members are.",
  }[record.why] || "";
}

function messageReason(what) {
  return {
    "append": "Names the entry before, so that the follower can compare.",
    "append-answer": "Says what is on disk, identical to the leader's log.",
    "append-refusal": "The follower lacks the entry before.",
    "heartbeat": "Keeps the followers from standing for election.",
    "heartbeat-answer": "Confirms the leader; reads wait for a majority of these.",
    "commit": "Tells how far the log is committed.",
    "vote": "Asks for a vote in a new term.",
    "vote-answer": "A promise: no other vote in this term.",
    "pre-vote": "Asks whether a vote would be granted. Changes nothing.",
    "pre-vote-answer": "No promise: several candidates may get a yes.",
    "newer-term": "Tells the sender that its term is over.",
    "transfer": "The leader asks this member to stand at once.",
    "snapshot": "For a follower whose next entries are no longer in the log.",
  }[what] || "";
}

function messageSection(what) {
  if (what.startsWith("pre-vote")) return `${THESIS} §9.6`;
  if (what.startsWith("vote") || what.startsWith("heartbeat")) return `${PAPER} §5.2`;
  if (what.startsWith("append") || what === "commit") return `${PAPER} §5.3`;
  return what === "snapshot" ? `${PAPER} §7` : what === "transfer" ? `${THESIS} §3.10` : "";
}
