//! The log: one line per event on stderr, behind the `log` crate's macros.
//!
//! A line says when (RFC 3339, UTC, milliseconds), how grave, which room and what:
//!
//! ```text
//! 2026-01-05T09:30:12.407Z warn raft: no leader for 1.2 s, asking for votes in term 4
//! {"time":"2026-01-05T09:30:12.407Z","level":"warn","area":"raft","message":"no leader for …"}
//! ```
//!
//! Threads that must not stop write these lines (raft, wal), so a log may cost them little:
//!
//! - The same words are shown once a second at most; the others are counted, and with the next line of any kind
//!   after that second, or with [`flush`], it is said how many there were, in one line for the second. Warnings and errors are the same if they differ in numbers
//!   only (ports, times, offsets), and of each place in the code a handful of different ones are shown: what a
//!   broken peer or a stranger can cause ten times a second is no news. Infos are events (a new leader, a
//!   member added), of which none is lost because another one looks like it.
//! - A stderr whose reader has stalled (a full pipe, a stopped terminal) is waited for 100 ms, once;
//!   from then on lines are dropped until it moves again, and then their number is told. For that
//!   it is asked before each write whether it takes one, and no write is larger than what "yes"
//!   means for a pipe. A closed stderr is no error, only silence.
//! - Nothing here panics, and one thread's panic elsewhere does not close the log to others.
//!
//! Control characters are escaped: keys and headers, which anybody may send, can neither forge a
//! line nor speak to a terminal.

use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Stderr, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the same words are not shown again.
const QUIET: Duration = Duration::from_secs(1);
/// Different words remembered for that; infos beyond are shown unchecked, warnings are held back.
const REMEMBERED: usize = 256;
/// Different warnings of one place in the code that are shown within that time.
const OF_ONE_PLACE: usize = 6;
/// How long a stderr that takes nothing is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// What a pipe that is ready takes without blocking (POSIX's least `PIPE_BUF` is 512, Linux's 4096).
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, room and message, with blanks between them.
    Text,
    /// The same as one JSON object.
    Json,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sends the `log` crate's lines to stderr from now on. A second call changes the level only; a
/// program that embeds a node and has a logger of its own keeps that.
pub fn start(level: LevelFilter, format: Format) {
    let logger = LOGGER.get_or_init(|| Logger {
        format,
        lines: Mutex::new(Lines {
            repeats: Repeats::default(),
            outlet: Outlet::new(io::stderr()),
        }),
    });
    // Fails only when there is a logger already: ours from an earlier call, or the embedder's.
    let _ = log::set_logger(logger);
    set_level(level);
}

/// Shows lines of this gravity and graver, at once and on all threads.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// What [`set_level`] last set.
pub fn level() -> LevelFilter {
    log::max_level()
}

/// Tells what repeats were held back. To be called before the process ends.
pub fn flush() {
    log::logger().flush();
}

/// One thing to tell.
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

    /// What another event must have in common with this one to be the same again.
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

/// The text with each number as one zero. Digits behind a letter are part of a name (`n1`, an id).
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
            // A name stays one up to its end.
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

/// What one thread at a time may touch.
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
        // Formatted before the lock is taken: the words may be long, or panic.
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

    /// Tells of repeats whose second has passed by `now`; of all if that is `None`.
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
        message: format!("{count} lines were lost: stderr took no more"),
        place: (None, None),
    }
}

/// Whether a line is shown. What the libraries below say of each step they take is for `trace` only.
fn shows(max: LevelFilter, level: Level, target: &str) -> bool {
    let is_own = target.starts_with(env!("CARGO_PKG_NAME"));
    level <= max && (is_own || level <= Level::Info || max == LevelFilter::Trace)
}

/// The room a line comes from: the second word of its module's path.
fn area(target: &str) -> &str {
    let own = target
        .strip_prefix(concat!(env!("CARGO_PKG_NAME"), "::"))
        .unwrap_or(target);
    own.split("::").next().unwrap_or(own)
}

/// One event as one line, with its end.
fn line(event: &Event, time: Timestamp, format: Format) -> String {
    let time = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
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
            serde_json::Value::from(area.as_str()),
            serde_json::Value::from(message.as_str()),
        ),
    }
}

/// Without control characters, so that an event stays on its line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// What was shown within the last second, and how often it was said again since.
#[derive(Default)]
struct Repeats {
    recent: Vec<Recent>,
}

struct Recent {
    key: u64,
    /// The last one that came.
    event: Event,
    shown: Instant,
    again: u64,
    /// Not all of them had the same words.
    varied: bool,
}

impl Repeats {
    /// Whether to show `event`. If not, it is counted.
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

    /// Of a warning whose place in the code has said enough for this second: the last that it said.
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

    /// Forgets what was shown a second or longer before `now` (all, if that is `None`), and hands
    /// back what to say of the repeats.
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
            // The summary is shown now; what goes on is counted for the next.
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

/// Where lines go, as long as they are taken.
struct Outlet<W> {
    to: W,
    /// Lines dropped since the last one that was written.
    lost: u64,
    /// Of the first of them, a part was written.
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

    /// Writes `line`, or drops it. When some were dropped before, `lost` makes the line that says so.
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

    /// In pieces that do not block. Otherwise: how many bytes were written before that. That
    /// nobody reads any more is no such case, since there is nobody to tell.
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

/// Whether a write would not block, waiting up to `patience` for it.
fn takes_more(to: &impl AsFd, patience: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: 0, // patience is less than a second
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(to, PollFlags::OUT)];
    // An interrupted or failed question is answered by the write itself.
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

    /// All lines that come out when each of `said` is logged at its number of milliseconds.
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

    /// Nobody reads: the log gives up after a moment, and says later what was lost.
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
