//! Escapes control characters in output to a terminal.
//!
//! Keys, values, names of members and texts of errors come from servers and files, and may contain any bytes. Some
//! characters control a terminal: they move the cursor, change the title, make the terminal send input, or reverse the
//! text. So all output to a terminal passes through a [`Screen`], which writes these characters as escapes: `\u001b`.
//! All other text is unchanged. Output to a pipe or a file is not escaped.
//!
//! This program also sends control sequences of its own, such as colours. [`command`] marks them with a random number
//! that is chosen once per process, so text from outside cannot imitate them.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use crate::logging;

const ESCAPE: char = '\x1b';

/// Digits of the number in a command.
const MARK_DIGITS: usize = 16;

/// Maximum number of characters of a command after its number.
const COMMAND_CHARS_MAX: usize = 8;

/// Marks a control sequence for the terminal. `text` is the part after the escape character, such as `[31m`.
pub(super) fn command(text: &str) -> String {
    format!("{ESCAPE}{}{text}", mark())
}

/// The random number in commands. No other process knows it.
fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        // The standard library keys its hashes from the system's random source.
        let number = RandomState::new().hash_one(0);
        format!("{number:0width$x}", width = MARK_DIGITS)
    })
}

/// Passes text on, with everything escaped that a terminal would obey.
pub(super) struct Screen<W: Write> {
    out: W,
    /// The beginning of a character or of a command whose remaining bytes have not been written yet.
    waiting: Vec<u8>,
}

impl<W: Write> Screen<W> {
    pub fn new(out: W) -> Screen<W> {
        Screen {
            out,
            waiting: Vec::new(),
        }
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        let mut shown = String::new();
        let done = show(&self.waiting, &mut shown);
        self.waiting.drain(..done);
        self.out.write_all(shown.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        // What never became a whole character.
        let rest = self.waiting.escape_ascii().to_string();
        let _ = self.out.write_all(rest.as_bytes());
        let _ = self.out.flush();
    }
}

/// Appends what is to be shown of `bytes` to `shown`. How many bytes are done with: all but a beginning of which the
/// rest decides.
fn show(bytes: &[u8], shown: &mut String) -> usize {
    let mut done = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        let text = chunk.valid();
        let is_last = chunk.invalid().is_empty() && chunks.peek().is_none();
        let shown_now = show_text(text, is_last, shown);
        done += shown_now;
        if shown_now < text.len() {
            return done;
        }
        let invalid = chunk.invalid();
        let is_begun = chunks.peek().is_none() && is_beginning(invalid);
        if !is_begun {
            let _ = write!(shown, "{}", invalid.escape_ascii());
            done += invalid.len();
        }
    }
    done
}

/// Whether these bytes are the beginning of a longer UTF-8 character.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Like [`show`], for text that consists of complete characters. `is_last`: the text that follows is not known yet.
fn show_text(text: &str, is_last: bool, shown: &mut String) -> usize {
    let mut rest = text;
    while let Some(at) = rest.find(is_obeyed) {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        rest = match own_command(from) {
            Own::Whole(length) => {
                let (own, behind) = from.split_at(length);
                shown.push(ESCAPE);
                shown.push_str(&own[ESCAPE.len_utf8() + MARK_DIGITS..]);
                behind
            }
            Own::Begun if is_last => return text.len() - from.len(),
            Own::Begun | Own::No => {
                let mut chars = from.chars();
                chars.by_ref().take(1).for_each(|c| escape(c, shown));
                chars.as_str()
            }
        };
    }
    shown.push_str(rest);
    text.len()
}

/// Whether a text that begins with an escape character is a command of this program.
enum Own {
    /// It begins with a command of this length in bytes.
    Whole(usize),
    /// It may be the beginning of a command.
    Begun,
    No,
}

fn own_command(text: &str) -> Own {
    let Some(behind) = text.strip_prefix(ESCAPE) else {
        return Own::No;
    };
    let Some(own) = behind.strip_prefix(mark()) else {
        return match mark().starts_with(behind) {
            true => Own::Begun,
            false => Own::No,
        };
    };
    match own.find(|c: char| c.is_ascii_alphabetic()) {
        Some(end) if end < COMMAND_CHARS_MAX => Own::Whole(text.len() - own.len() + end + 1),
        None if own.len() < COMMAND_CHARS_MAX => Own::Begun,
        _ => Own::No,
    }
}

/// Line ends and tabs are part of values.
fn is_obeyed(c: char) -> bool {
    logging::controls_terminal(c) && !matches!(c, '\n' | '\t')
}

/// As in JSON, so that JSON stays what it says.
fn escape(c: char, shown: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(shown, "\\u{unit:04x}");
    }
}

/// Stderr, for a thread that does not have the program's: escaped where it is a terminal.
pub(super) fn write_to_stderr(text: &str) {
    let mut stderr = io::stderr();
    // If stderr is closed, the error cannot be reported.
    let _ = match stderr.is_terminal() {
        true => Screen::new(stderr).write_all(text.as_bytes()),
        false => stderr.write_all(text.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out);
        for piece in pieces {
            assert_eq!(screen.write(piece).unwrap(), piece.len());
        }
        drop(screen);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_all_else_is_as_it_was() {
        let table: [(&[u8], &str); 13] = [
            (b"plain \n\ttext", "plain \n\ttext"),
            ("ü€😀 é".as_bytes(), "ü€😀 é"),
            (b"\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
            (b"\x1b]0;title\x07", "\\u001b]0;title\\u0007"),
            (b"over\rwritten\x08", "over\\u000dwritten\\u0008"),
            (b"\0\x7f", "\\u0000\\u007f"),
            ("\u{9b}31m\u{85}".as_bytes(), "\\u009b31m\\u0085"),
            (b"\x9b31m\xff", "\\x9b31m\\xff"),
            (
                "\u{202e}back\u{2066}\u{200f}".as_bytes(),
                "\\u202eback\\u2066\\u200f",
            ),
            ("\u{2028}\u{feff}".as_bytes(), "\\u2028\\ufeff"),
            ("\u{e0041}".as_bytes(), "\\udb40\\udc41"),
            (b"cut \xe2\x82", "cut \\xe2\\x82"),
            (b"\x1b\xff and on", "\\u001b\\xff and on"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(&[text]), expected, "{text:?}");
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(shown(&bytes), expected, "{text:?} byte by byte");
        }
    }

    #[test]
    fn only_commands_of_this_program_pass() {
        let text = format!("{}good{}\n", command("[32m"), command("[0m"));
        assert_eq!(shown(&[text.as_bytes()]), "\x1b[32mgood\x1b[0m\n");
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(shown(&bytes), "\x1b[32mgood\x1b[0m\n");
        let other = format!("{ESCAPE}{}[32m", "0".repeat(MARK_DIGITS));
        assert!(!shown(&[other.as_bytes()]).contains(ESCAPE));
        let begun = command("[");
        assert!(!shown(&[begun.as_bytes()]).contains(ESCAPE));
        let endless = command(&"1".repeat(100));
        assert!(!shown(&[endless.as_bytes(), b"m"]).contains(ESCAPE));
    }
}
