//! Terminal input that is not shown, for passwords.

use std::io::{Read, stdin};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::Stop;
use super::command::World;

/// Prints a question on stderr, so that stdout contains only output for scripts, and reads a line. On a terminal the
/// typed text is not shown. Otherwise the answer is the next line of stdin.
pub(super) fn ask_password(question: &str, world: &mut World) -> Result<String, Stop> {
    write!(world.stderr, "{question}")?;
    world.stderr.flush()?;
    let shown = tcgetattr(stdin()).ok();
    if let Some(mut hidden) = shown.clone() {
        hidden.local_modes.remove(LocalModes::ECHO);
        let set = tcsetattr(stdin(), OptionalActions::Flush, &hidden);
        set.map_err(std::io::Error::from)?;
    }
    let line = read_line(world.stdin);
    if let Some(shown) = shown {
        // If the terminal is closed, there is no echo to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &shown);
    }
    writeln!(world.stderr)?;
    Ok(line?)
}

/// Reads only to the end of the line, because a value may follow.
fn read_line(from: &mut dyn Read) -> std::io::Result<String> {
    let mut line = vec![];
    let mut byte = [0];
    while from.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line)
        .trim_end_matches('\r')
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_the_rest_is_left() {
        let mut from: &[u8] = b"secret\r\nvalue";
        assert_eq!(read_line(&mut from).unwrap(), "secret");
        assert_eq!(from, b"value");
    }
}
