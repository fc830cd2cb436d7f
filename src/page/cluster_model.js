// The state of a cluster, computed from trace records (src/guide/trace.md). It knows no document and no clock, so the same
// code shows running members, a recording, and a simulation.
//
// Records are applied in the order of their time `at`, in microseconds. What a member does not tell itself is taken from
// the records of the others: a leader tells what its followers have stored.

const FLIGHTS_MAX = 240;
const TERM_RUNS_MAX = 64;

class ClusterModel {
  /**
   * Messages of one kind on one link are shown as one, if they are sent within `mergeMicros`. A message is taken for lost
   * if the receiver has later records, by more than `lossMicros`, and it is not among them.
   */
  constructor({ mergeMicros = 70000, lossMicros = 250000 } = {}) {
    Object.assign(this, { mergeMicros, lossMicros });
    this.members = new Map();
    this.flights = [];
    /** Links whose messages are lost, as "from to". No member notices that, so no record changes it. */
    this.cuts = new Set();
    this.electionTimeoutMs = 1000;
    this.heartbeatMs = 100;
    this.at = 0;
  }

  /** A copy that later records do not change: a checkpoint from which a run can be repeated. */
  clone() {
    const copy = new ClusterModel();
    return Object.assign(copy, structuredClone({ ...this }));
  }

  /** Sets who the members are, in the order in which they are drawn. The state of those that stay is kept. */
  setMembers(list) {
    const before = this.members;
    this.members = new Map(list.map(({ id, name, learner }) => {
      const member = before.get(id) ?? newMember(id);
      member.name = name || id.slice(0, 6);
      if (!member.told) member.role = learner ? "learner" : member.role === "learner" ? "follower" : member.role;
      return [id, member];
    }));
  }

  /** What is known of a member at one moment, as in /edgetcd/status. */
  status(status) {
    const member = this.members.get(status.id);
    if (!member) return;
    Object.assign(member, { role: status.role, leader: status.leader, up: true, told: true });
    this.raiseTerm(member, status.term);
    const { first, last, stored, commit, applied, terms } = status.log;
    Object.assign(member, { first, last, stored, commit, applied, terms: terms.slice(-TERM_RUNS_MAX) });
  }

  /** Marks a member that does not answer, as seen by whoever asks. */
  silent(id) {
    const member = this.members.get(id);
    if (member) member.up = false;
  }

  /** Applies a record. Records of unknown members and kinds are ignored. */
  apply(record) {
    const member = this.members.get(record.member);
    if (!member) return;
    this.at = Math.max(this.at, record.at);
    member.told = member.traced = member.up = true;
    member.tracedAt = record.at;
    if (record.term !== undefined) this.raiseTerm(member, record.term);
    const change = changes[record.kind];
    if (change) change.call(this, member, record);
  }

  raiseTerm(member, term) {
    if (term <= member.term) return;
    member.term = term;
    member.votes = [];
    member.refusals = [];
    member.votedFor = null;
  }

  /** A message leaves, or arrives without that its start was seen. */
  depart(from, to, record) {
    const what = record.what;
    for (let at = this.flights.length - 1; at >= 0 && at >= this.flights.length - 40; at--) {
      const flight = this.flights[at];
      if (flight.from !== from || flight.to !== to || flight.what !== what) continue;
      if (record.at - flight.sent >= this.mergeMicros) break;
      flight.count += 1;
      flight.first = flight.first ?? record.first;
      flight.last = record.last ?? flight.last;
      return flight;
    }
    const term = record.term;
    const flight = { from, to, what, term, first: record.first, last: record.last, sent: record.at, received: null, count: 1 };
    this.flights.push(flight);
    if (this.flights.length > FLIGHTS_MAX) this.flights.splice(0, this.flights.length - FLIGHTS_MAX);
    return flight;
  }

  /** A message arrives. */
  arrive(from, to, record) {
    // Whatever was told of the connection before, it carries messages.
    this.members.get(from).links[to] = true;
    const fits = (flight) => flight.from === from && flight.to === to && flight.what === record.what
      && flight.received === null && flight.sent <= record.at;
    const flight = this.flights.find(fits);
    if (flight) flight.received = record.at;
    else this.depart(from, to, record).received ??= record.at;
  }

  /** Whether a message will not arrive: its receiver is away, or would have recorded it by now. */
  isLost(flight) {
    const to = this.members.get(flight.to);
    if (flight.received !== null || !to) return false;
    return !to.up || (to.traced && to.tracedAt > flight.sent + this.lossMicros);
  }

  /** Forgets the messages that left before this time. */
  forgetFlights(before) {
    if (this.flights.length && this.flights[0].sent < before) {
      this.flights = this.flights.filter((flight) => flight.sent >= before);
    }
  }

  /** A leader has every entry of its term, and knows first what is committed. Its own records may be read later. */
  raiseLeader(member) {
    for (const leader of this.members.values()) {
      if (leader === member || leader.role !== "leader" || leader.term !== member.term) continue;
      if (member.last > leader.last) growLog(leader, leader.last + 1, member.last, member.term);
      leader.commit = Math.max(leader.commit, member.commit);
    }
  }

  /** The last entry of the longest log. */
  lastIndex() {
    return Math.max(0, ...[...this.members.values()].map((member) => member.last));
  }

  /** The leader with the newest term, or undefined. */
  leader() {
    const leaders = [...this.members.values()].filter((member) => member.role === "leader" && member.up);
    return leaders.sort((a, b) => b.term - a.term)[0];
  }

  /** Number of members with a vote. */
  voters() {
    return [...this.members.values()].filter((member) => member.role !== "learner").length;
  }
}

function newMember(id) {
  return {
    id, name: id, role: "follower", term: 0, leader: null, votedFor: null, votes: [], refusals: [],
    first: 1, last: 0, stored: 0, commit: 0, applied: 0, terms: [],
    // When the election timeout began, and how long it is if that is known.
    heard: null, timeoutMs: null,
    up: true, links: {}, silentMs: null,
    // Whether it tells its own state, and whether its own records are known.
    told: false, traced: false,
  };
}

/** The term of the entry at an index, or undefined if it is not in the log. */
function termAt(member, index) {
  if (index > member.last) return undefined;
  let found;
  for (const [first, term] of member.terms) {
    if (first > index) break;
    found = term;
  }
  return found;
}

function cutLog(member, from) {
  member.last = Math.min(member.last, from - 1);
  member.stored = Math.min(member.stored, member.last);
  member.terms = member.terms.filter(([first]) => first < from);
}

function growLog(member, first, last, term) {
  if (member.last >= first) cutLog(member, first);
  if (member.terms.at(-1)?.[1] !== term) member.terms.push([first, term]);
  if (member.terms.length > TERM_RUNS_MAX) member.terms.shift();
  member.last = last;
}

/** What a record of each kind changes. `this` is the model. */
const changes = {
  start(member, record) {
    Object.assign(member, { role: "follower", leader: null, votes: [], heard: record.at, links: {} });
    for (const field of ["first", "last", "applied"]) if (record[field] !== undefined) member[field] = record[field];
    member.stored = member.last;
    member.commit = Math.max(member.applied, 0);
    cutLog(member, member.last + 1);
  },
  role(member, record) {
    member.role = record.role;
    member.leader = record.leader ?? null;
    member.heard = record.at;
    if (record.after_ms) member.timeoutMs = record.after_ms;
    if (record.role === "candidate" || record.role === "pre-candidate") {
      member.votes = [member.id];
      member.refusals = [];
    }
  },
  timer(member, record) {
    member.timeoutMs = record.after_ms;
    member.heard = record.at;
  },
  timeout(member, record) {
    member.heard = record.at;
  },
  vote_asked(member) {
    member.votes = [member.id];
    member.refusals = [];
  },
  vote_answer(member, record) {
    if (!record.granted || record.pre) return;
    member.votedFor = record.for;
    member.heard = record.at;
  },
  vote_got(member, record) {
    const list = record.granted ? member.votes : member.refusals;
    if (!list.includes(record.by)) list.push(record.by);
  },
  appended(member, record) {
    const term = record.entry_term ?? record.term;
    // An earlier record can be read after a later one. What is removed from a log has its own record.
    if (record.last <= member.last && termAt(member, record.last) === term) return;
    growLog(member, record.first, record.last, term);
    if (term === member.term) this.raiseLeader(member);
  },
  truncated(member, record) {
    cutLog(member, record.from);
  },
  stored(member, record) {
    member.stored = record.last;
  },
  sent(member, record) {
    if (this.members.has(record.to)) this.depart(member.id, record.to, record);
  },
  received(member, record) {
    if (!this.members.has(record.from)) return;
    this.arrive(record.from, member.id, record);
    const ofLeader = record.what === "heartbeat" || record.what === "append" || record.what === "snapshot";
    if (ofLeader && member.role !== "leader") member.heard = record.at;
  },
  acknowledged(member, record) {
    const other = this.members.get(record.by);
    if (!other || other.traced) return;
    // Its log is the leader's up to here.
    Object.assign(other, { last: record.last, stored: record.last, up: true });
    other.terms = member.terms.filter(([first]) => first <= record.last);
    if (other.role !== "learner") other.role = "follower";
    this.raiseTerm(other, member.term);
  },
  committed(member, record) {
    member.commit = Math.max(member.commit, record.index);
    this.raiseLeader(member);
  },
  applied(member, record) {
    member.applied = Math.max(member.applied, record.index);
  },
  snapshot(member, record) {
    if (record.what === "made") return;
    if (record.what !== "installed") return;
    Object.assign(member, { first: record.index + 1, applied: record.index, stored: Math.max(member.stored, record.index) });
    member.commit = Math.max(member.commit, record.index);
    if (member.last < record.index) Object.assign(member, { last: record.index, terms: [] });
  },
  link(member, record) {
    member.links[record.peer] = record.up;
  },
};
