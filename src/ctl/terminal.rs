//! Terminal input that is not shown, for passwords.
//!
//! A program that ends or stops while the terminal hides its input would leave it so for the shell. So from the first
//! question on, a thread handles the signals that end or stop the program: it shows the input again, and then lets the
//! signal have its usual effect. A signal handler cannot be removed again, so the thread stays. A command that handles
//! the signals itself calls [`leave_signals`].

use std::io::{Read, stdin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::command::World;

/// The modes of the terminal before its input was hidden. None if it is shown.
static SHOWN: Mutex<Option<Termios>> = Mutex::new(None);
/// Whether the thread that handles signals runs.
static IS_GUARDED: Mutex<bool> = Mutex::new(false);
/// The signals that a command handles.
static TAKEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Prints a question on stderr, so that stdout contains only output for scripts, and reads a line without the blanks
/// around it. On a terminal the typed text is not shown. Otherwise the answer is the next line of stdin.
pub(super) fn ask_password(question: &str, world: &mut World) -> std::io::Result<String> {
    write!(world.stderr, "{question}")?;
    world.stderr.flush()?;
    let hidden = Hidden::new()?;
    let line = read_line(world.stdin);
    drop(hidden);
    writeln!(world.stderr)?;
    line
}

/// From now on, the program has other handlers for these signals, so this module must not let them end it.
pub(super) fn leave_signals(signals: &[i32]) {
    taken().extend_from_slice(signals);
}

/// While this exists, the terminal does not show what is typed. Without a terminal it has no effect.
struct Hidden;

impl Hidden {
    fn new() -> std::io::Result<Hidden> {
        let Ok(modes) = tcgetattr(stdin()) else {
            return Ok(Hidden);
        };
        guard()?;
        let mut shown = shown();
        hide(&modes)?;
        *shown = Some(modes);
        Ok(Hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(modes) = shown().take() {
            show(&modes);
        }
    }
}

fn shown() -> MutexGuard<'static, Option<Termios>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken() -> MutexGuard<'static, Vec<i32>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hide(modes: &Termios) -> std::io::Result<()> {
    let mut hidden = modes.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    Ok(tcsetattr(stdin(), OptionalActions::Flush, &hidden)?)
}

fn show(modes: &Termios) {
    // If the terminal is closed, there is no echo to restore.
    let _ = tcsetattr(stdin(), OptionalActions::Flush, modes);
}

/// Starts the thread that handles signals, unless it runs already.
fn guard() -> std::io::Result<()> {
    let mut is_guarded = IS_GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_guarded {
        let signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP])?;
        thread::Builder::new().spawn(move || handle(signals))?;
        *is_guarded = true;
    }
    Ok(())
}

fn handle(mut signals: Signals) {
    for signal in signals.forever() {
        if taken().contains(&signal) {
            continue;
        }
        if let Some(modes) = &*shown() {
            show(modes);
        }
        // This fails only for signals that cannot have a handler.
        let _ = emulate_default_handler(signal);
        // The program was stopped and continues.
        if let Some(modes) = &*shown() {
            // If the terminal is closed, nothing is typed.
            let _ = hide(modes);
        }
    }
}

/// Reads only to the end of the line, because a value may follow. As in etcdctl, blanks around a password do not
/// count.
fn read_line(from: &mut dyn Read) -> std::io::Result<String> {
    let mut line = vec![];
    let mut byte = [0];
    while from.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_the_rest_is_left() {
        let mut from: &[u8] = b" secret \r\nvalue";
        assert_eq!(read_line(&mut from).unwrap(), "secret");
        assert_eq!(from, b"value");
    }
}
