// Trace records in words.

const WHY = {
  "newer term": "its term is newer", "has leader": "it hears from a leader", "log behind": "the candidate's log ends before its own",
  "voted for another": "it has voted for another member in this term", "knows no members": "it does not know the members yet",
};

/** One sentence about a record. Null if it is one of the many that only keep things going. `name` gives a member's name. */
function traceSentence(record, name) {
  const me = name(record.member);
  const words = {
    start: () => `${me} starts with a log up to entry ${record.last}.`,
    role: () => roleSentence(record, me, name),
    timeout: () => `${me} has not heard from a leader for ${record.after_ms} ms. It asks whether it could win an election.`,
    vote_asked: () => record.pre
      ? `${me} asks the others whether they would vote for it, without raising the term.`
      : `${me} is a candidate in term ${record.term} and asks for votes.`,
    vote_answer: () => `${me} ${record.granted ? (record.pre ? "would vote" : "votes") : "does not vote"} for ${name(record.for)}`
      + `${record.granted ? "" : `, because ${WHY[record.why] ?? record.why}`}.`,
    truncated: () => `${me} removes its entries from ${record.from} on: the leader of term ${record.term} has others there. None of them was committed.`,
    refused: () => `${name(record.by)} does not have the entry before those that ${me} sent. ${me} looks for the last one they have in common.`,
    snapshot: () => ({
      made: `${me} has written a snapshot of its keys at entry ${record.index}. Older entries are no longer needed.`,
      sending: `${me} sends a snapshot to ${name(record.peer)}, whose log ends before the first entry that ${me} still has.`,
      sent: `${name(record.peer)} has installed the snapshot of ${me}.`,
      installed: `${me} has installed a snapshot at entry ${record.index}. It replaces the log up to there.`,
      failed: `The snapshot for ${name(record.peer)} was not installed.`,
    })[record.what],
    members: () => `${me} now knows ${record.voters} voters${record.learners ? ` and ${record.learners} learners` : ""}.`,
    link: () => `${me} ${record.up ? "is connected to" : "has lost the connection to"} ${name(record.peer)}.`,
    gap: () => "Some records are missing here: there were more than this page reads.",
  };
  return words[record.kind]?.() ?? null;
}

function roleSentence(record, me, name) {
  switch (record.role) {
    case "leader": return `${me} is the leader of term ${record.term}: a majority has voted for it.`;
    case "candidate": return `${me} is a candidate in term ${record.term} and votes for itself.`;
    case "pre-candidate": return `${me} would like to lead.`;
    case "learner": return `${me} is a learner: it gets the log and has no vote yet.`;
    default: return record.leader ? `${me} follows ${name(record.leader)}, the leader of term ${record.term}.` : `${me} is a follower in term ${record.term} and knows no leader.`;
  }
}
