//! The lab for a host of WebAssembly: the page, or Node.
//!
//! The host writes a text (UTF-8) to the place that [`lab_input`] returns, and calls a function. A function that returns a
//! number of bytes has written that many to [`lab_output`]. If a member stops in an assertion, the instance ends with a
//! trap. Then [`lab_violation`] returns the message, and the host must copy back an earlier memory of the instance.

use super::{Lab, Run, script::Progress, script::Script, show};
use std::cell::RefCell;

/// What the host and the functions share.
struct Shared {
    input: Vec<u8>,
    output: String,
    /// The script whose run this is. A run without a script is a script without lines.
    script: Option<Box<Script>>,
    from: (u64, u64),
    violation: String,
}

thread_local! {
    static SHARED: RefCell<Shared> = const {
        RefCell::new(Shared {
            input: Vec::new(),
            output: String::new(),
            script: None,
            from: (0, 0),
            violation: String::new(),
        })
    };
}

fn shared<T>(work: impl FnOnce(&mut Shared) -> T) -> T {
    SHARED.with_borrow_mut(work)
}

fn put(text: String) -> usize {
    shared(|shared| {
        shared.output = text;
        shared.output.len()
    })
}

fn input() -> String {
    shared(|shared| String::from_utf8_lossy(&shared.input).into_owned())
}

/// Calls `work` on the script. It is not borrowed meanwhile, because `work` may end in a trap.
fn with<T>(work: impl FnOnce(&mut Script) -> T) -> T {
    let script = shared(|shared| shared.script.take());
    let mut script = script.unwrap_or_default();
    let result = work(&mut script);
    shared(|shared| shared.script = Some(script));
    result
}

fn on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        shared(|shared| shared.violation = text);
    }));
}

// SAFETY of all functions below: an exported name is unsafe because two libraries may export it. This module is built
// only when the crate is the one library of an instance.

/// Reserves this many bytes for the input, and returns their place.
#[unsafe(no_mangle)]
pub extern "C" fn lab_input(bytes: usize) -> *mut u8 {
    shared(|shared| {
        shared.input = vec![0; bytes];
        shared.input.as_mut_ptr()
    })
}

/// The place of the output.
#[unsafe(no_mangle)]
pub extern "C" fn lab_output() -> *const u8 {
    shared(|shared| shared.output.as_ptr())
}

/// Begins the run in the input, at step 0. Returns 0, or the bytes of a message about the error.
#[unsafe(no_mangle)]
pub extern "C" fn lab_open() -> usize {
    on_panic();
    match Run::parse(&input()) {
        Ok(run) => {
            let script = Script::over(Lab::new(run));
            shared(|shared| shared.script = Some(Box::new(script)));
            0
        }
        Err(why) => put(why),
    }
}

/// Makes the acts of the run in the input follow. Returns 0, or the bytes of a message about the error.
#[unsafe(no_mangle)]
pub extern "C" fn lab_continue() -> usize {
    let run = Run::parse(&input());
    let done = with(|script| run.and_then(|run| script.lab().continue_as(run)));
    done.err().map_or(0, put)
}

/// The run with all its acts, also those after the present step, as a text. Returns its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_whole_run() -> usize {
    put(with(|script| script.lab().whole_run().to_string()))
}

/// Begins a new script. Its lines follow.
#[unsafe(no_mangle)]
pub extern "C" fn lab_begin() {
    on_panic();
    shared(|shared| shared.script = None);
}

/// Processes up to this many events. Returns how many there were.
#[unsafe(no_mangle)]
pub extern "C" fn lab_step(most: u32) -> u32 {
    with(|script| {
        let lab = script.lab();
        let before = lab.steps();
        while lab.steps() - before < u64::from(most) && lab.step() {}
        (lab.steps() - before) as u32
    })
}

/// Processes the events up to a virtual time in microseconds, at most `most`. Returns how many there were.
#[unsafe(no_mangle)]
pub extern "C" fn lab_run_to(at: f64, most: u32) -> u32 {
    with(|script| {
        let lab = script.lab();
        let before = lab.steps();
        let is_due = |lab: &Lab| {
            lab.cluster()
                .next_at()
                .is_some_and(|next| next as f64 <= at)
        };
        while lab.steps() - before < u64::from(most) && is_due(lab) && lab.step() {}
        (lab.steps() - before) as u32
    })
}

/// Begins a line of the script: an act, a condition, a name.
#[unsafe(no_mangle)]
pub extern "C" fn lab_line_begin() {
    let from = with(|script| script.begin());
    shared(|shared| shared.from = from);
}

/// Continues the line in the input by at most this many events. Returns 0 if the line is done, -1 if it needs more, or the
/// bytes of a message if it cannot be done.
#[unsafe(no_mangle)]
pub extern "C" fn lab_line(most: u32) -> i32 {
    let (line, mut from) = (input(), shared(|shared| shared.from));
    let done = with(|script| {
        for _ in 0..most {
            match script.advance(&line, &mut from) {
                Ok(Progress::More) => {}
                done => return done,
            }
        }
        Ok(Progress::More)
    });
    match done {
        Ok(Progress::Done) => 0,
        Ok(Progress::More) => -1,
        Err(why) => put(why) as i32,
    }
}

/// The state as JSON. Returns its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_state() -> usize {
    put(with(|script| script.lab().json()))
}

/// The records and the other lines from these positions on, as JSON. Returns its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_trace(records: usize, others: usize) -> usize {
    put(with(|script| script.lab().trace_json(records, others)))
}

/// The run up to the present step, as a text. Returns its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_run() -> usize {
    put(with(|script| script.lab().run().to_string()))
}

/// Rules, acts and conditions as JSON. Returns its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_about() -> usize {
    put(show::about())
}

/// Number of events so far.
#[unsafe(no_mangle)]
pub extern "C" fn lab_steps() -> f64 {
    with(|script| script.lab().steps() as f64)
}

/// [`Lab::state_hash`] as hexadecimal digits. Returns their bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_hash() -> usize {
    put(with(|script| format!("{:016x}", script.lab().state_hash())))
}

/// The message of the assertion that ended the instance. Returns its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn lab_violation() -> usize {
    let text = shared(|shared| shared.violation.clone());
    put(text)
}
