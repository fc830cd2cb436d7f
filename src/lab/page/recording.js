// A recording of real members: their trace files (src/guide/trace.md) as a run. It has the methods of the engine, so the
// page shows it in the same way, step by step forward and backward. A step is a record.
"use strict";

/** With more records, only the newest ones are shown. */
const RECORDS_MAX = 300000;
const CHECKPOINT_RECORDS = 1000;
/** A member without a record for so long is paused, or does not run. A leader sends a heartbeat every 100 ms, and a follower gets it. */
const SILENCE_MICROS = 1500000;
/** A lost message is shown for so long. */
const LOST_MICROS = 20000;
/** So many records before the present one are searched for messages that are on their way. */
const SEARCHED_MAX = 5000;
const CELLS = 40;
/**
 * A member records that it has sent a message when it learns that the message has left. Messages that wait for the disk
 * leave before. So their records may be so much later than those of the receiver: for repeated messages less, so that one
 * of them is not taken for the next.
 */
const LATE_MICROS = 500000;
const LATE_MICROS_REPEATED = 50000;
/** These never wait for the disk, so their times tell how clocks differ. */
const PROMPT = new Set(["append", "pre-vote", "pre-vote-answer", "forward"]);
const ID_FIELDS = ["member", "to", "from", "by", "for", "leader", "peer"];

class Recording {
  /** `files` are pairs of a name and a text. Throws a text if they contain no records. */
  constructor(files) {
    const { members, skipped } = readTraces(files);
    this.isRecording = true;
    this.violation = null;
    this.skipped = skipped;
    this.numbers = new Map(members.map(({ id }, at) => [id, at + 1]));
    this.members = members.map(({ id, name }, at) => ({ number: at + 1, id, name }));
    alignClocks(members);
    matchMessages(members);
    const items = mergeRecords(members);
    this.dropped = Math.max(0, items.length - RECORDS_MAX);
    this.items = items.slice(this.dropped);
    this.begin();
  }

  /** Times from the first record on, members as numbers, and the state before the first record. */
  begin() {
    const from = this.items[0].at;
    let shown = 0;
    this.items.forEach((item, place) => {
      // A record that waits for the sender's is shown with it.
      shown = Math.max(shown, item.at - from);
      Object.assign(item, { place, shown, record: this.translate(item.record, shown) });
    });
    this.findEnds();
    this.now = 0;
    this.model = new CLUSTER.ClusterModel();
    this.model.setMembers(this.members.map(({ number, name }) => ({ id: number.toString(16), name })));
    this.heard = new Map();
    this.votes = new Map();
    this.checkpoints = [];
    this.keep();
  }

  /** Marks the last record of each process that has ended before the recording. */
  findEnds() {
    const end = this.items.at(-1).shown;
    const newest = new Map();
    for (const item of this.items) {
      if (item.record.kind === "start" && newest.has(item.record.member)) newest.get(item.record.member).isLast = true;
      newest.set(item.record.member, item);
    }
    for (const item of newest.values()) item.isLast ||= end - item.shown >= SILENCE_MICROS;
  }

  translate(record, at) {
    const named = { ...record, at };
    for (const field of ID_FIELDS) {
      if (this.numbers.has(record[field])) named[field] = this.numbers.get(record[field]).toString(16);
    }
    return named;
  }

  /** The lines of the files, in the order of the steps. */
  lines() {
    return this.items.map((item) => item.line);
  }

  // The methods of the engine

  keep() {
    if (this.checkpoints.length && this.checkpoints.at(-1).now >= this.now) return;
    this.model.forgetFlights(Infinity);
    this.checkpoints.push({ now: this.now, model: this.model.clone(), heard: new Map(this.heard), votes: new Map(this.votes) });
  }

  step(count) {
    const before = this.now;
    const end = Math.min(this.items.length, before + count);
    while (this.now < end) {
      this.apply(this.items[this.now]);
      this.now += 1;
      if (this.now % CHECKPOINT_RECORDS === 0) this.keep();
    }
    return this.now - before;
  }

  apply({ record, isLast }) {
    this.model.apply(record);
    this.heard.set(record.member, isLast ? -Infinity : record.at);
    if (record.kind === "vote_stored") this.votes.set(record.member, [record.in, record.for]);
    if (record.kind === "start" && record.term === 0) this.votes.delete(record.member);
  }

  runTo(at, most) {
    let end = this.now;
    while (end < this.items.length && end - this.now < most && this.items[end].shown <= at) end += 1;
    return this.step(end - this.now);
  }

  seek(step) {
    if (step < this.now) {
      const { now, model, heard, votes } = this.checkpoints.findLast((checkpoint) => checkpoint.now <= step);
      Object.assign(this, { now, model: model.clone(), heard: new Map(heard), votes: new Map(votes) });
    }
    this.step(step - this.now);
  }

  act() {
    return "a recording cannot be changed";
  }

  trace(known) {
    return { records: this.items.slice(known, this.now).map((item) => item.record), lines: [], next: [this.now, 0] };
  }

  /** A new simulated run with as many members. */
  run() {
    return `lab 1\nseed 1\nmembers ${Math.min(7, Math.max(3, this.members.length))}\n`;
  }

  state() {
    const at = this.now === 0 ? 0 : this.items[this.now - 1].shown;
    return {
      step: this.now, at, end: this.items.length, next_at: this.items[this.now]?.shown ?? null,
      members: this.members.map(({ number }) => this.member(number, at)),
      messages: this.messages(at),
      cuts: [], requests: [], acts: [], without: [], broken: null, founders: this.members.length,
    };
  }

  member(number, at) {
    const id = number.toString(16);
    const member = this.model.members.get(id);
    const isUp = this.heard.has(id) && at - this.heard.get(id) < SILENCE_MICROS;
    const [inTerm, vote] = this.votes.get(id) ?? [0, null];
    const from = Math.max(member.first, member.last - CELLS + 1);
    const log = Array.from({ length: Math.max(0, member.last - from + 1) }, (_, place) => ({ index: from + place, term: CLUSTER.termAt(member, from + place) ?? 0, label: "" }));
    const voted = inTerm === member.term && vote !== null ? parseInt(vote, 16) : null;
    return {
      id: number, role: isUp ? member.role : "down", up: isUp, paused: false, retired: false, disk: "good", keys: [],
      term: member.term, vote: voted, stored_vote: [member.term, voted], log, stored: member.stored, commit: member.commit,
    };
  }

  /** The messages that are on their way. */
  messages(at) {
    const found = [];
    const first = Math.max(0, this.now - SEARCHED_MAX);
    for (let place = this.now - 1; place >= first && at - this.items[place].shown < SILENCE_MICROS; place--) {
      const { record, receipt, shown } = this.items[place];
      if (record.kind !== "sent") continue;
      const isThere = receipt ? receipt.place < this.now : at - shown > LOST_MICROS;
      if (isThere) continue;
      const range = record.last === undefined ? "" : ` ${record.first === undefined ? "" : `${record.first} to `}${record.last}`;
      found.push({
        from: parseInt(record.member, 16), to: parseInt(record.to, 16), what: record.what, text: `${record.what}${range}`,
        sent: shown, arrives: receipt ? receipt.shown : shown + 2 * LOST_MICROS,
      });
    }
    return found.reverse();
  }
}

/** Reads trace files. A member has the records of all its processes, in their order. */
function readTraces(files) {
  const parts = [];
  let skipped = 0;
  for (const [name, text] of files) {
    let part = null;
    for (const line of text.split("\n")) {
      if (!line.trim()) continue;
      const record = parseLine(line);
      if (!record) {
        // A process that was killed leaves the beginning of a line.
        skipped += 1;
      } else if (record.format !== undefined) {
        if (record.format !== 1) throw new Error(`${name} has the format ${record.format}, and this lab reads format 1`);
        part = { id: record.member, name: record.name, start: record.start, items: [] };
        parts.push(part);
      } else if (part || record.member) {
        if (!part) parts.push(part = { id: record.member, name: "", start: 0, items: [] });
        // A gap has no time and no member.
        const at = record.at ?? part.items.at(-1)?.at ?? part.start;
        part.items.push({ line, at, record: { member: part.id, ...record, at } });
      } else {
        skipped += 1;
      }
    }
  }
  if (!parts.some((part) => part.items.length)) throw new Error("there is no trace record in it");
  return { members: gather(parts), skipped };
}

function parseLine(line) {
  try {
    const record = JSON.parse(line);
    return record && typeof record === "object" && (record.format !== undefined || record.kind) ? record : null;
  } catch {
    return null;
  }
}

/** Members by name. Those that only others mention come last, without records. */
function gather(parts) {
  parts.sort((a, b) => a.start - b.start || firstSeq(a) - firstSeq(b));
  const members = new Map();
  for (const part of parts) {
    if (!members.has(part.id)) members.set(part.id, { id: part.id, name: part.name, items: [], start: null, seq: 0 });
    const member = members.get(part.id);
    member.name ||= part.name;
    if (part.start !== member.start) Object.assign(member, { start: part.start, seq: 0 });
    for (const item of part.items) {
      // A file may be given twice.
      if (item.record.seq !== undefined && item.record.seq <= member.seq) continue;
      member.seq = item.record.seq ?? member.seq;
      member.items.push(item);
    }
  }
  const known = [...members.values()].sort((a, b) => (a.name || a.id).localeCompare(b.name || b.id, undefined, { numeric: true }));
  const mentioned = new Set(known.flatMap((member) => member.items.flatMap(({ record }) => [record.to, record.from, record.peer])));
  const others = [...mentioned].filter((id) => id && !members.has(id)).sort();
  return [...known, ...others.map((id) => ({ id, name: "", items: [] }))];
}

function firstSeq(part) {
  return part.items.find((item) => item.record.seq !== undefined)?.record.seq ?? 0;
}

/** The messages by sender, receiver and content: those sent and those received, each in order. */
function messagesOf(members) {
  const kinds = new Map();
  for (const { items } of members) {
    for (const item of items) {
      const { kind, member, to, from, what, first, last } = item.record;
      if (kind !== "sent" && kind !== "received") continue;
      const [sender, receiver] = kind === "sent" ? [member, to] : [from, member];
      const key = [sender, receiver, what, first, last].join();
      if (!kinds.has(key)) kinds.set(key, { sender, receiver, what, sent: [], received: [] });
      kinds.get(key)[kind].push(item);
    }
  }
  return [...kinds.values()];
}

/**
 * Shifts the times of members whose clocks differ so much that a message arrives before it is sent. Only messages that are
 * sent and received once are used: they cannot be confused.
 */
function alignClocks(members) {
  const least = new Map();
  for (const { sender, receiver, what, sent, received } of messagesOf(members)) {
    if (sent.length !== 1 || received.length !== 1 || !PROMPT.has(what)) continue;
    const link = `${sender} ${receiver}`;
    least.set(link, Math.min(least.get(link) ?? Infinity, received[0].at - sent[0].at));
  }
  const aligned = members.slice(0, 1);
  for (const member of members.slice(1)) {
    // The clock of this member is ahead by something between the two.
    const bounds = aligned.map((other) => [-(least.get(`${member.id} ${other.id}`) ?? Infinity), least.get(`${other.id} ${member.id}`) ?? Infinity, other.shift ?? 0]);
    const known = bounds.find(([low, high]) => Number.isFinite(low) || Number.isFinite(high));
    aligned.push(member);
    if (!known) continue;
    const [low, high, shift] = known;
    const ahead = low <= 0 && 0 <= high ? 0 : Number.isFinite(low) && Number.isFinite(high) ? (low + high) / 2 : Number.isFinite(low) ? low : high;
    member.shift = shift - Math.round(ahead);
    for (const item of member.items) item.at += member.shift;
  }
}

/**
 * Finds the record of the sender for each received message: the last one before it that is not another message's. Messages
 * on a link arrive in order and at most once, so before the third that arrived, at least three were sent.
 */
function matchMessages(members) {
  for (const { what, sent, received } of messagesOf(members)) {
    const late = QUIET.has(what) ? LATE_MICROS_REPEATED : LATE_MICROS;
    let place = sent.length;
    const causes = received.toReversed().map((item) => {
      place -= 1;
      while (place >= 0 && sent[place].at > item.at) place -= 1;
      return place;
    }).reverse();
    received.forEach((item, count) => {
      const isLate = causes[count] < count && sent[count]?.at - item.at <= late;
      const cause = sent[isLate ? count : causes[count]];
      if (!cause) return;
      item.cause = cause;
      cause.receipt = item;
    });
  }
}

/**
 * All records in one order: each member's in its own, a message sent before it is received, otherwise by time. The files
 * can contradict that, see LATE_MICROS: a member records that its vote has left after the new leader's first message.
 */
function mergeRecords(members) {
  const merged = [];
  const next = members.map(() => 0);
  const places = new Map(members.map(({ id }, place) => [id, place]));
  const placed = new Set();
  const head = (place) => members[place].items[next[place]];
  const isFree = (item) => !item.cause || item.isContradicted || placed.has(item.cause);
  for (;;) {
    const open = members.map((_, place) => place).filter(head);
    if (!open.length) return merged;
    const free = open.filter((place) => isFree(head(place)));
    if (!free.length) {
      contradicted(head, (item) => places.get(item.cause.record.member), open[0]).isContradicted = true;
      continue;
    }
    const best = free.reduce((best, place) => (head(place).at < head(best).at ? place : best));
    const item = head(best);
    next[best] += 1;
    placed.add(item);
    merged.push(item);
  }
}

/** The item of a circle of members, each waiting for a message of the next, whose message was recorded latest. */
function contradicted(head, waitsFor, start) {
  const seen = [];
  let place = start;
  while (!seen.includes(place)) {
    seen.push(place);
    place = waitsFor(head(place));
  }
  const circle = seen.slice(seen.indexOf(place)).map(head);
  return circle.reduce((worst, item) => (item.cause.at - item.at > worst.cause.at - worst.at ? item : worst));
}
