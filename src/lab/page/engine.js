// The instance of WebAssembly: calls with texts, and checkpoints of its whole memory.
"use strict";

/** Steps between two checkpoints. */
const CHECKPOINT_STEPS = 500;
/** The most checkpoints that are kept. Above that, every second one is dropped. */
const CHECKPOINTS_MAX = 40;
/** Lines of a script that a violation fulfils. */
const isBroken = /^(until|expect) broken\b/;

class Engine {
  constructor(module) {
    this.module = module;
    this.checkpoints = [];
    this.violation = null;
    /** The run with all its acts, also those after the present step. Null while a script performs its lines. */
    this.whole = null;
    this.load();
  }

  load() {
    this.exports = new WebAssembly.Instance(this.module, {}).exports;
  }

  output(bytes) {
    const { memory, lab_output } = this.exports;
    return new TextDecoder().decode(new Uint8Array(memory.buffer, lab_output(), bytes));
  }

  input(text) {
    const bytes = new TextEncoder().encode(text);
    const place = this.exports.lab_input(bytes.length);
    new Uint8Array(this.exports.memory.buffer, place, bytes.length).set(bytes);
  }

  /** Begins a run at step 0. Throws a text if it cannot be read. */
  open(text) {
    this.load();
    this.input(text);
    const wrong = this.exports.lab_open();
    if (wrong > 0) throw new Error(this.output(wrong));
    this.begun(text);
  }

  /** Begins a script with the lines that choose the members and the rules. */
  begin(lines) {
    this.load();
    this.exports.lab_begin();
    for (const line of lines) {
      this.lineBegin();
      this.input(line);
      const wrong = this.exports.lab_line(1);
      if (wrong !== 0) throw new Error(`${line}: ${this.output(wrong)}`);
    }
    this.begun(null);
  }

  begun(whole) {
    this.checkpoints = [];
    this.violation = null;
    this.whole = whole;
    this.keep();
  }

  /** Keeps a copy of the memory, to return to this step. */
  keep() {
    const { memory, lab_steps } = this.exports;
    this.checkpoints.push({ step: lab_steps(), memory: memory.buffer.slice(0) });
    if (this.checkpoints.length > CHECKPOINTS_MAX) {
      this.checkpoints = this.checkpoints.filter((_, at) => at % 2 === 0 || at === this.checkpoints.length - 1);
    }
  }

  /** Copies back the last memory at or before this step. */
  restore(step) {
    while (this.checkpoints.length > 1 && this.checkpoints.at(-1).step > step) this.checkpoints.pop();
    const { memory } = this.checkpoints.at(-1);
    // A new instance has the module's globals, which are those of an instance between two calls.
    this.load();
    const target = this.exports.memory;
    const missing = memory.byteLength - target.buffer.byteLength;
    if (missing > 0) target.grow(missing / 65536);
    new Uint8Array(target.buffer).set(new Uint8Array(memory));
    // This memory does not know the acts after it.
    if (this.whole) {
      this.input(this.whole);
      this.exports.lab_continue();
    }
  }

  /** Calls something that processes events. An assertion of a member ends the instance: then goes to the step before it. */
  guarded(call, isAct = false) {
    this.remember();
    const before = this.exports.lab_steps();
    try {
      return call();
    } catch (trap) {
      if (!(trap instanceof WebAssembly.RuntimeError)) throw trap;
      const text = `assertion: ${this.output(this.exports.lab_violation())}`;
      this.restore(before);
      if (!isAct) return this.findTrap(text);
      this.forward(before);
      this.violation = { step: before, text };
      return 0;
    }
  }

  /** Steps one by one from a checkpoint until the step that ends the instance, and stays before it. */
  findTrap(text) {
    let good = this.exports.lab_steps();
    for (;;) {
      try {
        if (this.exports.lab_step(1) === 0) break;
        good = this.exports.lab_steps();
      } catch (trap) {
        if (!(trap instanceof WebAssembly.RuntimeError)) throw trap;
        break;
      }
    }
    this.restore(good);
    this.forward(good);
    this.violation = { step: good + 1, text };
    return 0;
  }

  forward(step) {
    for (;;) {
      const now = this.exports.lab_steps();
      if (now >= step || this.violation) return;
      const most = Math.min(step - now, CHECKPOINT_STEPS - (now % CHECKPOINT_STEPS));
      if (this.exports.lab_step(most) === 0) return;
      if (this.exports.lab_steps() % CHECKPOINT_STEPS === 0) this.keep();
    }
  }

  /** Processes this many events. */
  step(count) {
    if (this.violation) return 0;
    const before = this.exports.lab_steps();
    this.guarded(() => this.forward(before + count));
    return this.exports.lab_steps() - before;
  }

  /** Processes the events up to a time in virtual microseconds. */
  runTo(at, most) {
    if (this.violation) return 0;
    const before = this.exports.lab_steps();
    const done = this.guarded(() => this.exports.lab_run_to(at, most));
    if (Math.floor(before / CHECKPOINT_STEPS) !== Math.floor(this.exports.lab_steps() / CHECKPOINT_STEPS)) this.keep();
    return done;
  }

  /** Goes to any step of the run. */
  seek(step) {
    this.remember();
    const now = this.exports.lab_steps();
    if (step > now) {
      this.step(step - now);
    } else if (step < now || this.violation) {
      this.violation = null;
      this.restore(step);
      this.guarded(() => this.forward(step));
    }
  }

  /** Begins a line of a script. */
  lineBegin() {
    this.exports.lab_line_begin();
  }

  /** Continues it by at most this many events. Returns "done", "more", or the text of an error. */
  line(text, most) {
    if (this.violation) return isBroken.test(text) ? "done" : this.violation.text;
    const result = this.guarded(() => {
      this.input(text);
      return this.exports.lab_line(most);
    }, !/^(until|run|step|expect)\b/.test(text));
    if (this.violation) return isBroken.test(text) ? "done" : this.violation.text;
    return result === 0 ? "done" : result === -1 ? "more" : this.output(result);
  }

  /** Performs an act. Returns an empty text, or why it has no effect. */
  act(text) {
    if (this.violation) return "the run has ended: step back first";
    this.lineBegin();
    const done = this.line(text, 1);
    if (done !== "done") return done;
    // A checkpoint at this step was made before the act.
    this.checkpoints = this.checkpoints.filter(({ step }, at) => at === 0 || step < this.exports.lab_steps());
    this.keep();
    this.remember();
    return "";
  }

  /** Keeps the run as it is now, to return to this step. */
  remember() {
    this.whole = this.output(this.exports.lab_whole_run());
  }

  state() {
    const state = JSON.parse(this.output(this.exports.lab_state()));
    if (this.violation) state.broken = [this.violation.step, this.violation.text];
    return state;
  }

  trace(records, lines) {
    return JSON.parse(this.output(this.exports.lab_trace(records, lines)));
  }

  run() {
    return this.output(this.exports.lab_run());
  }

  hash() {
    return this.output(this.exports.lab_hash());
  }

  about() {
    return JSON.parse(this.output(this.exports.lab_about()));
  }
}
