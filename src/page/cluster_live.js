// The running cluster: reads /edgetcd/status and /edgetcd/trace of every member that answers, and plays the records a
// moment later in the order of their times.

const STATUS_EVERY_MS = 1000;
const STATUS_EVERY_MS_WITHOUT_TRACE = 300;
/** Records are shown this much later, because they arrive from several members. */
const DELAY_MS = 350;
/** A member with more records per second is asked for its newest ones, a few times per second. */
const STREAM_RECORDS_MAX = 600;
const NEWEST = 150;
/** The newest records that are read at first, to tell what happened before. */
const NEWEST_AT_FIRST = 1000;
const ASK_EVERY_MS = 300;
const QUEUE_MAX = 30000;
/** Messages of one kind on one link within this time are drawn as one. */
const MERGE_MICROS = 70000;
const MERGE_MICROS_BUSY = 250000;
/** Time in a frame to apply records. What is left waits for the next frame. */
const APPLY_MS_MAX = 10;
/** A clock that differs by less is taken as it is. */
const CLOCK_DIFFERENCE_MS = 1000;
const ANSWER_MS_MAX = 1500;
/** A member of an older version has no trace. */
const WITHOUT_TRACE_MS = 60000;
/** The addresses to which the policy of this document admits requests. A later member needs another document. */
const ADMITTED = new Set(document.querySelector("meta[name=members]").content.split(" "));
/** A member that does not let this page read its answers (its client URL is not the address of this page) is not asked
 *  again until its connection to this member was renewed. */
const FAILURES_MAX = 3;

class LiveCluster {
  /** `onStatus` gets each status of this member. `onRecord` gets each record when it is shown. */
  constructor({ onStatus = () => {}, onRecord = () => {}, onTrouble = () => {} } = {}) {
    Object.assign(this, { onStatus, onRecord, onTrouble });
    this.model = new ClusterModel();
    this.self = null;
    this.queue = [];
    this.sources = new Map();
    // How far the trace of each member was read.
    this.places = new Map();
    this.names = new Map();
    this.speed = 1;
    this.shown = null;
  }

  start() {
    if (this.stopper) return;
    this.stopper = new AbortController();
    this.shown = null;
    this.queue = [];
    this.follow(this.stopper.signal);
  }

  /** Ends all requests. */
  stop() {
    this.stopper?.abort();
    this.stopper = null;
    this.sources.clear();
  }

  /** Asks this member for its status again and again. */
  async follow(signal) {
    while (!signal.aborted) {
      try {
        const status = await getJson("/edgetcd/status", { signal: AbortSignal.any([signal, AbortSignal.timeout(5000)]) });
        this.take(status, signal);
        this.onTrouble(null);
      } catch (error) {
        if (signal.aborted) return;
        if (this.self) this.model.silent(this.self);
        this.onTrouble(error);
      }
      const traced = this.self && this.model.members.get(this.self)?.traced;
      await sleep(traced ? STATUS_EVERY_MS : STATUS_EVERY_MS_WITHOUT_TRACE, signal);
    }
  }

  take(status, signal) {
    this.self = status.id;
    this.model.electionTimeoutMs = status.election_timeout_ms;
    this.model.heartbeatMs = status.heartbeat_ms;
    status.members.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    this.model.setMembers(status.members);
    this.names = new Map(status.members.map((member) => [member.id, member.name || member.id.slice(0, 6)]));
    // Members let only the pages of their cluster read their answers. A refused request is an error in the console.
    const urls = status.members.flatMap((member) => member.client_urls);
    this.mayAsk = urls.some((url) => new URL(url).origin === location.origin);
    this.urls = urls;
    this.isOld = urls.some((url) => !ADMITTED.has(url.replace(/\/$/, "")));
    for (const member of status.members) this.takeMember(status, member, signal);
    this.correct(status);
    this.onStatus(status);
  }

  /** Takes a member's own status if its records do not tell the same: at first, and when records were left out. */
  correct(status) {
    const state = this.model.members.get(status.id);
    if (!state) return;
    // A record tells of the connection to a member or of the one from it. The status knows both.
    for (const { id, connected } of status.members) if (id !== status.id) state.links[id] = connected;
    const agrees = state.role === status.role && state.term === status.term && state.leader === status.leader;
    state.disagreed = agrees ? 0 : (state.disagreed ?? 0) + 1;
    const isFollowed = state.traced && state.isCorrected && !this.sources.get(status.id)?.isBusy;
    if (isFollowed && state.disagreed < 2) return;
    this.model.status(status);
    state.isCorrected = true;
  }

  /** What this member's status says about another one, until that one is asked itself. */
  takeMember(status, member, signal) {
    const state = this.model.members.get(member.id);
    if (!this.sources.has(member.id)) {
      const isSelf = member.id === status.id;
      const bases = isSelf ? [""] : member.client_urls.map((url) => url.replace(/\/$/, "")).filter((url) => ADMITTED.has(url));
      // A member without an address is looked for again.
      if (bases.length) this.sources.set(member.id, {});
      for (const base of bases.slice(0, 1)) {
        this.watchMember(member.id, base, signal);
        this.readTrace(member.id, base, signal);
      }
    }
    state.silentMs = member.silent_ms ?? null;
    state.linked = member.connected;
    if (!state.answers && member.id !== status.id) {
      state.up = member.connected;
      state.told = state.traced = false;
      if (!member.connected) return;
      if (member.id === status.leader) Object.assign(state, { role: "leader", term: Math.max(state.term, status.term) });
      else if (state.role !== "learner") state.role = "follower";
      if (member.matched !== undefined) {
        Object.assign(state, { last: member.matched, stored: member.matched, term: status.term });
        state.commit = state.applied = Math.min(member.matched, status.log.commit);
        state.terms = status.log.terms.filter(([first]) => first <= member.matched);
      }
    }
  }

  /** Asks another member for its status, directly. */
  async watchMember(id, base, signal) {
    if (id === this.self) return;
    let failures = 0;
    while (!signal.aborted && this.names.has(id)) {
      const state = this.model.members.get(id);
      // A failed request is an error in the browser's console, so a member that is known to be away is not asked.
      const status = state.linked && this.mayAsk && failures < FAILURES_MAX ? await this.statusOf(base, signal) : null;
      if (signal.aborted) break;
      if (state.linked) failures = status ? 0 : failures + 1;
      if (!state.linked) failures = 0;
      state.answers = status?.id === id;
      if (state.answers) this.correct(status);
      else state.traced = state.isCorrected = false;
      await sleep(state.traced ? STATUS_EVERY_MS : STATUS_EVERY_MS_WITHOUT_TRACE, signal);
    }
    if (!signal.aborted) this.sources.delete(id);
  }

  async statusOf(base, signal) {
    try {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS_MAX)]);
      const response = await fetch(`${base}/edgetcd/status`, { signal: limit, cache: "no-store", credentials: "omit" });
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  }

  /** Reads a member's trace for as long as it is a member. */
  async readTrace(id, base, signal) {
    const place = this.places.get(id) ?? { next: null };
    this.places.set(id, place);
    while (!signal.aborted && this.names.has(id)) {
      const state = this.model.members.get(id);
      if (id !== this.self && !(state?.answers && this.hasTrace)) {
        await sleep(STATUS_EVERY_MS_WITHOUT_TRACE, signal);
        continue;
      }
      const isBusy = await this.streamTrace(base, place, signal).catch(() => {
        // Its process may have ended. The next status tells.
        if (!signal.aborted && id !== this.self) Object.assign(this.model.members.get(id) ?? {}, { up: false, answers: false, traced: false });
        return false;
      });
      const source = this.sources.get(id) ?? {};
      source.isBusy = isBusy;
      if (isBusy) await this.pollTrace(base, place, signal).catch(() => {});
      source.isBusy = false;
      await sleep(500, signal);
    }
  }

  traceUrl(base, place, more) {
    if (place.next === null) return `${base}/edgetcd/trace?last=${NEWEST_AT_FIRST}${more}`;
    return `${base}/edgetcd/trace?last=${NEWEST}&since=${place.next}&start=${place.start}${more}`;
  }

  /** Returns true if there are more records than a stream should carry. */
  async streamTrace(base, place, signal) {
    const own = new AbortController();
    const both = AbortSignal.any([signal, own.signal]);
    const response = await fetch(this.traceUrl(base, place, ""), { signal: both, cache: "no-store", credentials: "omit" });
    if (base === "") this.hasTrace = response.ok;
    if (!response.ok) {
      await sleep(WITHOUT_TRACE_MS, signal);
      return false;
    }
    let [second, count, isBusy] = [performance.now(), 0, false];
    try {
      await readLines(response, (records) => {
        this.enqueue(records, place);
        count += records.length;
        if (performance.now() - second < 1000) return;
        isBusy = count > STREAM_RECORDS_MAX;
        [second, count] = [performance.now(), 0];
        if (isBusy) own.abort();
      });
    } catch (error) {
      if (!isBusy) throw error;
    }
    return isBusy;
  }

  /** Asks for the newest records until there are few again. */
  async pollTrace(base, place, signal) {
    for (;;) {
      const before = place.next;
      const began = performance.now();
      const response = await fetch(this.traceUrl(base, place, "&wait=false"), { signal, cache: "no-store", credentials: "omit" });
      if (!response.ok) return;
      await readLines(response, (records) => this.enqueue(records, place));
      await sleep(ASK_EVERY_MS, signal);
      const perSecond = ((place.next - before) * 1000) / (performance.now() - began);
      if (signal.aborted || perSecond < STREAM_RECORDS_MAX / 2) return;
    }
  }

  enqueue(records, place) {
    const now = Date.now() * 1000;
    // At first a response has old records, from which the difference of the clocks cannot be told.
    place.began ??= now;
    const isFresh = now - place.began > 1e6;
    for (const record of records) {
      if (record.format) place.start = record.start;
      if (record.seq === undefined || record.at === undefined) continue;
      place.next = record.seq + 1;
      const difference = now - record.at;
      if (isFresh || difference < 0) place.least = Math.min(place.least ?? Infinity, difference);
      if (Math.abs(place.least ?? 0) > CLOCK_DIFFERENCE_MS * 1000) record.at += place.least;
      this.queue.push(record);
    }
    this.isSorted = false;
    if (this.queue.length > QUEUE_MAX) this.queue.splice(0, this.queue.length - QUEUE_MAX);
  }

  /** Applies all records whose time has come. Returns the time that is shown. */
  play() {
    const now = (Date.now() - DELAY_MS) * 1000;
    const passed = this.drawn === undefined ? 0 : performance.now() - this.drawn;
    this.drawn = performance.now();
    this.shown = this.speed === 1 || this.shown === null ? now : Math.min(now, this.shown + passed * 1000 * this.speed);
    if (!this.isSorted) {
      this.queue.sort((a, b) => a.at - b.at);
      this.isSorted = true;
    }
    let count = 0;
    for (; count < this.queue.length && this.queue[count].at <= this.shown; count++) {
      if (count % 64 === 63 && performance.now() - this.drawn > APPLY_MS_MAX) break;
      this.model.apply(this.queue[count]);
      this.onRecord(this.queue[count]);
    }
    this.queue.splice(0, count);
    this.model.mergeMicros = this.isBusy() ? MERGE_MICROS_BUSY : MERGE_MICROS;
    this.model.forgetFlights(this.shown - 2e6 * Math.max(this.speed, 0.05));
    return this.shown;
  }

  /** Whether a member has more records than are read. */
  isBusy() {
    return [...this.sources.values()].some((source) => source.isBusy);
  }

  /** How far the shown time is behind, in seconds. */
  lag() {
    return this.shown === null ? 0 : Math.max(0, Date.now() / 1000 - DELAY_MS / 1000 - this.shown / 1e6);
  }
}
