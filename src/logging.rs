//! The log: one line per event on stderr, written through the `log` crate's macros.
//!
//! A line contains the time (RFC 3339, UTC, milliseconds), the level, the module and the message:
//!
//! ```text
//! 2026-01-05T09:30:12.407Z warn raft: no leader for 1.2 s, asking for votes in term 4
//! {"time":"2026-01-05T09:30:12.407Z","level":"warn","area":"raft","message":"no leader for …"}
//! ```
//!
//! Threads that must not stop (raft, wal) write these lines, so logging must be cheap for them:
//!
//! - Equal messages are logged at most once per second. The others are counted. Their number is logged in one line for
//!   that second, together with the next line of any kind after it, or by [`flush`]. Warnings and errors count as equal
//!   if they differ only in numbers (ports, times, offsets), and each place in the code logs at most a handful of
//!   different ones per second. So a broken peer or an unknown client that causes warnings ten times a second cannot
//!   fill the log. Infos are events (a new leader, an added member), and none is dropped because another one is
//!   similar.
//! - If the reader of stderr has stalled (a full pipe, a stopped terminal), a thread waits for it once, for 100 ms.
//!   After that, lines are dropped until stderr accepts data again, and then their number is logged. For this purpose
//!   stderr is polled before each write, and no write is larger than what a ready pipe accepts without blocking. A
//!   closed stderr is not an error, and its lines are dropped.
//! - Nothing here panics, and a panic of one thread elsewhere does not stop the log for others.
//!
//! Characters that control a terminal are escaped. Anybody may send keys and headers, and they can neither forge a line
//! nor control a terminal.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Time during which an equal message is not logged again.
const QUIET: Duration = Duration::from_secs(1);
/// Number of different messages remembered for that time. Beyond it, infos are logged without a check and warnings are
/// only counted.
const REMEMBERED: usize = 256;
/// Number of different warnings of one place in the code that are logged within that time.
const OF_ONE_PLACE: usize = 6;
/// How long a thread waits for a stalled stderr.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes that a ready pipe accepts without blocking. The smallest `PIPE_BUF` of POSIX is 512, Linux's is 4096.
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, module and message, separated by spaces.
    Text,
    /// The same as one JSON object.
    Json,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// From now on writes the `log` crate's lines to stderr. A second call changes only the level. A program that embeds a
/// node and has its own logger keeps that logger.
pub fn start(level: LevelFilter, format: Format) {
    let logger = LOGGER.get_or_init(|| Logger {
        format,
        lines: Mutex::new(Lines {
            repeats: Repeats::default(),
            outlet: Outlet::new(io::stderr()),
        }),
    });
    // This fails only if there already is a logger: ours from an earlier call, or the embedding program's.
    let _ = log::set_logger(logger);
    set_level(level);
}

/// Shows lines of this level and more severe ones, at once and on all threads.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// The level that etcd's logger reads from a word, in capitals. Its levels above "error" do not exist here, and "notice"
/// is "info".
pub fn etcd_level(word: &str) -> Option<LevelFilter> {
    match word {
        "CRITICAL" | "C" | "ERROR" | "E" | "0" => Some(LevelFilter::Error),
        "WARNING" | "W" | "1" => Some(LevelFilter::Warn),
        "NOTICE" | "N" | "2" | "INFO" | "I" | "3" => Some(LevelFilter::Info),
        "DEBUG" | "D" | "4" | "TRACE" | "T" | "5" => Some(LevelFilter::Debug),
        _ => None,
    }
}

/// The level set last with [`set_level`].
pub fn level() -> LevelFilter {
    log::max_level()
}

/// Logs the number of repeats that were not logged. Call it before the process ends.
pub fn flush() {
    log::logger().flush();
}

/// An event to log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    level: Level,
    area: String,
    message: String,
    /// File and line in the code.
    place: (Option<&'static str>, Option<u32>),
}

impl Event {
    fn is_warning(&self) -> bool {
        self.level <= Level::Warn
    }

    /// Events with the same key count as equal.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.level, &self.area).hash(&mut hasher);
        if self.is_warning() {
            self.place.hash(&mut hasher);
            without_numbers(&self.message).for_each(|c| c.hash(&mut hasher));
        } else {
            self.message.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Replaces each number in the text with one zero. Digits that follow a character of the alphabet are part of a name
/// (`n1`, an id) and stay.
fn without_numbers(text: &str) -> impl Iterator<Item = char> {
    let mut before = ' ';
    text.chars().filter_map(move |c| {
        let in_name = before.is_alphabetic() || before == '_';
        let in_number = before == '0';
        match c {
            c if !c.is_ascii_digit() => {
                before = c;
                Some(c)
            }
            // A name continues up to its end.
            c if in_name => Some(c),
            _ if in_number => None,
            _ => {
                before = '0';
                Some('0')
            }
        }
    })
}

struct Logger {
    format: Format,
    lines: Mutex<Lines<Stderr>>,
}

/// State that one thread at a time may use.
struct Lines<W> {
    repeats: Repeats,
    outlet: Outlet<W>,
}

impl Logger {
    fn lines(&self) -> MutexGuard<'_, Lines<Stderr>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        shows(log::max_level(), metadata.level(), metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Formatted before the lock is taken, because formatting may be slow or panic.
        let event = Event {
            level: record.level(),
            area: area(record.target()).to_owned(),
            message: record.args().to_string(),
            place: (record.file_static(), record.line()),
        };
        self.lines()
            .take(event, Timestamp::now(), Instant::now(), self.format);
    }

    fn flush(&self) {
        self.lines().settle(Timestamp::now(), None, self.format);
    }
}

impl<W: Write + AsFd> Lines<W> {
    fn take(&mut self, event: Event, time: Timestamp, now: Instant, format: Format) {
        self.settle(time, Some(now), format);
        if self.repeats.admit(&event, now) {
            self.outlet.put(&line(&event, time, format), |lost| {
                line(&lost_lines(lost), time, format)
            });
        }
    }

    /// Logs the number of repeats whose second has passed by `now`, or of all repeats if `now` is `None`.
    fn settle(&mut self, time: Timestamp, now: Option<Instant>, format: Format) {
        for event in self.repeats.settle(now) {
            self.outlet.put(&line(&event, time, format), |lost| {
                line(&lost_lines(lost), time, format)
            });
        }
    }
}

fn lost_lines(count: u64) -> Event {
    Event {
        level: Level::Warn,
        area: "logging".to_owned(),
        message: format!("dropped {count} lines: the reader of stderr was too slow"),
        place: (None, None),
    }
}

/// Whether a line is shown. Debug lines of libraries are shown only at level `trace`.
fn shows(max: LevelFilter, level: Level, target: &str) -> bool {
    let is_own = target.starts_with(env!("CARGO_PKG_NAME"));
    level <= max && (is_own || level <= Level::Info || max == LevelFilter::Trace)
}

/// The module that logs a line: the second part of its path.
fn area(target: &str) -> &str {
    let own = target
        .strip_prefix(concat!(env!("CARGO_PKG_NAME"), "::"))
        .unwrap_or(target);
    own.split("::").next().unwrap_or(own)
}

/// RFC 3339, for example `2026-11-27T18:40:00.125Z`.
const MILLISECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Formats an event as one line with its newline.
fn line(event: &Event, time: Timestamp, format: Format) -> String {
    let time = MILLISECONDS.timestamp_to_string(&time);
    let level = match event.level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let (area, message) = (&event.area, &event.message);
    match format {
        Format::Text => format!("{time} {level} {}: {}\n", escaped(area), escaped(message)),
        Format::Json => format!(
            "{{\"time\":\"{time}\",\"level\":\"{level}\",\"area\":{},\"message\":{}}}\n",
            json(area),
            json(message),
        ),
    }
}

/// Escapes what controls a terminal and the end of a line, so that an event stays on one line.
fn escaped(text: &str) -> String {
    escape(text, controls_terminal)
}

/// As a JSON string. JSON itself requires escapes only of the first 32 characters.
fn json(text: &str) -> String {
    let mut out = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        if controls_terminal(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Escapes what controls a terminal in a text of several lines: the reason why no node runs, which may contain names
/// from other members and from files.
pub fn printable(text: &str) -> String {
    escape(text, |c| controls_terminal(c) && !matches!(c, '\n' | '\t'))
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal obeys this character, or shows text after it in another direction or place. Includes the ends of
/// lines and tabs.
pub fn controls_terminal(c: char) -> bool {
    let is_hidden = matches!(
        c,
        // Turn the direction of what follows.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        // End a line where no line ends; have no width at all.
        | '\u{2028}' | '\u{2029}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}'
    );
    is_hidden || c.is_control()
}

/// Events logged within the last second, with the number of repeats since then.
#[derive(Default)]
struct Repeats {
    recent: Vec<Recent>,
}

struct Recent {
    key: u64,
    /// The last event with this key.
    event: Event,
    shown: Instant,
    again: u64,
    /// Whether the repeats had different texts.
    varied: bool,
}

impl Repeats {
    /// Whether to log `event`. If not, it is counted.
    fn admit(&mut self, event: &Event, now: Instant) -> bool {
        let key = event.key();
        let same = self.recent.iter().position(|recent| recent.key == key);
        if let Some(at) = same.or_else(|| self.crowded(event)) {
            let recent = &mut self.recent[at];
            recent.again += 1;
            recent.varied |= recent.event.message != event.message;
            recent.event.clone_from(event);
            return false;
        }
        if self.recent.len() < REMEMBERED {
            self.recent.push(Recent {
                key,
                event: event.clone(),
                shown: now,
                again: 0,
                varied: false,
            });
        }
        true
    }

    /// If the event is a warning and its place in the code has logged enough in this second: the last logged warning of
    /// that place.
    fn crowded(&self, event: &Event) -> Option<usize> {
        if !event.is_warning() {
            return None;
        }
        let of_place =
            |recent: &&Recent| recent.event.is_warning() && recent.event.place == event.place;
        let said = self.recent.iter().filter(of_place).count();
        let crowded = said >= OF_ONE_PLACE || self.recent.len() >= REMEMBERED;
        let last = self.recent.iter().rposition(|recent| of_place(&recent));
        last.filter(|_| crowded)
    }

    /// Forgets events that were logged a second or longer before `now` (all events if `now` is `None`). Returns the
    /// lines about their repeats.
    fn settle(&mut self, now: Option<Instant>) -> Vec<Event> {
        let mut told = Vec::new();
        self.recent.retain_mut(|recent| {
            let quiet = |now: Instant| now.saturating_duration_since(recent.shown) < QUIET;
            if now.is_some_and(quiet) {
                return true;
            }
            if recent.again > 0 {
                told.push(recent.summary());
            }
            // The line about the repeats is logged now. Further repeats are counted from now on.
            let goes_on = recent.again > 0 && now.is_some();
            recent.shown = now.unwrap_or(recent.shown);
            (recent.again, recent.varied) = (0, false);
            goes_on
        });
        told
    }
}

impl Recent {
    fn summary(&self) -> Event {
        let how = if self.varied { "like this" } else { "times" };
        let message = format!("{} ({} more {how})", self.event.message, self.again);
        Event {
            message,
            ..self.event.clone()
        }
    }
}

/// Writes lines as long as the receiver accepts them.
struct Outlet<W> {
    to: W,
    /// Number of lines dropped since the last one that was written.
    lost: u64,
    /// Whether a part of the first dropped line was written.
    torn: bool,
}

impl<W: Write + AsFd> Outlet<W> {
    fn new(to: W) -> Outlet<W> {
        Outlet {
            to,
            lost: 0,
            torn: false,
        }
    }

    /// Writes `line` or drops it. If lines were dropped before, writes the line made by `lost` first.
    fn put(&mut self, line: &str, lost: impl Fn(u64) -> String) {
        let patience = if self.lost == 0 {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let mut whole = String::from(if self.torn { "\n" } else { "" });
        if self.lost > 0 {
            whole += &lost(self.lost);
        }
        whole += line;
        match self.write(whole.as_bytes(), patience) {
            Ok(()) => (self.lost, self.torn) = (0, false),
            Err(written) => {
                self.lost += 1;
                self.torn |= written > 0;
            }
        }
    }

    /// Writes in pieces that do not block. If a piece would block, returns the number of bytes written before it. A
    /// closed receiver is not an error, because then nobody can be informed.
    fn write(&mut self, bytes: &[u8], patience: Duration) -> Result<(), usize> {
        for (number, piece) in bytes.chunks(PIECE).enumerate() {
            if !takes_more(&self.to, patience) {
                return Err(number * PIECE);
            }
            if self.to.write_all(piece).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether a write would not block. Waits up to `patience` for this.
fn takes_more(to: &impl AsFd, patience: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: 0, // patience is less than a second
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(to, PollFlags::OUT)];
    // If the poll was interrupted or failed, the write itself decides.
    !matches!(poll(&mut fds, Some(&timeout)), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn event(message: &str) -> Event {
        Event {
            level: Level::Warn,
            area: "raft".to_owned(),
            message: message.to_owned(),
            place: (Some(file!()), Some(1)),
        }
    }

    fn time() -> Timestamp {
        Timestamp::from_millisecond(1_767_605_412_407).unwrap()
    }

    #[test]
    fn an_event_is_one_line() {
        let said = event("key \"/a\nb\" \u{1b}[31m한");
        assert_eq!(
            line(&said, time(), Format::Text),
            "2026-01-05T09:30:12.407Z warn raft: key \"/a\\nb\" \\u{1b}[31m한\n"
        );
        assert_eq!(
            line(&said, time(), Format::Json),
            "{\"time\":\"2026-01-05T09:30:12.407Z\",\"level\":\"warn\",\"area\":\"raft\",\
             \"message\":\"key \\\"/a\\nb\\\" \\u001b[31m한\"}\n"
        );
    }

    #[test]
    fn the_area_is_the_room() {
        let areas = [
            "edgetcd::raft::core",
            "edgetcd::watch",
            "edgetcd",
            "mio::poll",
        ]
        .map(area);
        assert_eq!(areas, ["raft", "watch", "edgetcd", "mio"]);
    }

    #[test]
    fn libraries_are_quiet_at_debug() {
        let table = [
            (LevelFilter::Debug, Level::Debug, "edgetcd::raft", true),
            (LevelFilter::Debug, Level::Debug, "ureq::agent", false),
            (LevelFilter::Debug, Level::Warn, "ureq::agent", true),
            (LevelFilter::Trace, Level::Debug, "ureq::agent", true),
            (LevelFilter::Info, Level::Debug, "edgetcd::raft", false),
        ];
        for (max, level, target, wanted) in table {
            assert_eq!(shows(max, level, target), wanted, "{level} of {target}");
        }
    }

    /// Returns all lines written when each message of `said` is logged at its time in milliseconds.
    fn lines_of(said: &[(u64, &str)]) -> Vec<String> {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = Lines {
            repeats: Repeats::default(),
            outlet: Outlet::new(writer),
        };
        let start = Instant::now();
        for (at, message) in said {
            let now = start + Duration::from_millis(*at);
            lines.take(event(message), time(), now, Format::Text);
        }
        lines.settle(time(), None, Format::Text);
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines()
            .map(|line| line.split_once("raft: ").unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn what_goes_on_and_on_is_one_line_a_second() {
        let said: Vec<(u64, &str)> = (0..4000).map(|at| (at, "full")).collect();
        let shown = lines_of(&said);
        assert_eq!(shown[0], "full");
        assert_eq!(
            shown[1..4],
            [
                "full (999 more times)",
                "full (1000 more times)",
                "full (1000 more times)"
            ]
        );
        assert_eq!(shown.len(), 5);
    }

    #[test]
    fn the_same_words_are_shown_once_a_second() {
        let said = [
            (0, "full"),
            (1, "full"),
            (2, "other"),
            (999, "full"),
            (1000, "full"),
        ];
        assert_eq!(
            lines_of(&said),
            [
                "full",
                "other",
                "full (2 more times)",
                "full (1 more times)"
            ]
        );
    }

    #[test]
    fn warnings_that_differ_in_numbers_only_are_the_same() {
        let said = [
            (0, "no leader for 1.2 s"),
            (1, "no leader for 1.25 s"),
            (2, "refused 127.0.0.1:40001"),
            (3, "refused 127.0.0.2:39"),
            (4, "n1 is gone"),
            (5, "n2 is gone"),
            (6, "8e9e05c5 is gone"),
            (7, "8e9e06c5 is gone"),
        ];
        let shown = [
            "no leader for 1.2 s",
            "refused 127.0.0.1:40001",
            "n1 is gone",
            "n2 is gone",
            "8e9e05c5 is gone",
            "8e9e06c5 is gone",
            "no leader for 1.25 s (1 more like this)",
            "refused 127.0.0.2:39 (1 more like this)",
        ];
        assert_eq!(lines_of(&said), shown);
    }

    #[test]
    fn a_place_says_a_handful_of_different_things() {
        let words = ["a", "b", "c", "d", "e", "f", "g", "h", "a"];
        let said: Vec<(u64, &str)> = words.iter().map(|word| (0, *word)).collect();
        let shown = lines_of(&said);
        assert_eq!(shown[..OF_ONE_PLACE], words[..OF_ONE_PLACE]);
        assert_eq!(
            shown[OF_ONE_PLACE..],
            ["a (1 more times)", "h (2 more like this)"]
        );
    }

    #[test]
    fn repeats_at_the_end_are_told_by_flush() {
        assert_eq!(
            lines_of(&[(0, "full"), (1, "full")]),
            ["full", "full (1 more times)"]
        );
    }

    #[test]
    fn many_different_infos_are_all_shown() {
        let mut repeats = Repeats::default();
        let now = Instant::now();
        for number in 0..3 * REMEMBERED {
            let info = Event {
                level: Level::Info,
                ..event(&format!("member {number} was added"))
            };
            assert!(repeats.admit(&info, now));
        }
    }

    /// If nobody reads, the log gives up after a moment and later reports how many lines were lost.
    #[test]
    fn a_reader_that_stalls_holds_nobody_up() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        let long = "x".repeat(10_000) + "\n";
        let start = Instant::now();
        for _ in 0..1000 {
            outlet.put(&long, |_| String::new());
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "took {:?}",
            start.elapsed()
        );
        assert!(
            outlet.lost > 900,
            "a pipe took all but {} lines",
            outlet.lost
        );

        let lost = outlet.lost;
        let mut room = vec![0; 20_000]; // a pipe holds 16 pieces, not all of them full
        reader.read_exact(&mut room).unwrap();
        outlet.put("after\n", |lost| format!("{lost} lost\n"));
        drop(outlet);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with(&format!("x\n{lost} lost\nafter\n")));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut outlet = Outlet::new(writer);
        outlet.put("to nobody\n", |_| String::new());
        assert_eq!(outlet.lost, 0);
    }
}
