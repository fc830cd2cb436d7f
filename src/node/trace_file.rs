//! `--trace FILE`: a thread that appends the trace to a file, in the lines of `/edgetcd/trace`.
//!
//! The file helps to understand what happened, and nothing depends on it. So it is never synced, and no error of it ends
//! the node: the thread logs the error, and tries again every second. Records that it cannot write in time are a line
//! about a gap, as for every reader that is too slow.
//!
//! A file that has reached [`FILE_BYTES_MAX`] becomes `FILE.1`, in place of an older one. So both together have at most
//! twice that size. Each start of the process, and each new file, begins with a head line.

use crate::config::Stop;
use crate::replica::trace_log::{Resume, TraceLog, TraceReader};
use crate::threads;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Size of the file at which it is renamed.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// About this many bytes are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// New records are collected for this time before they are written.
const PACE: Duration = Duration::from_millis(50);

/// Wait before the file is tried again after an error.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often errors are logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// How long the thread waits for records. Then it waits again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The thread that writes the file.
pub(super) struct TraceFile {
    log: Arc<TraceLog>,
    /// Dropping it tells the thread to end.
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl TraceFile {
    /// Starts the thread. `name` is that of the member.
    ///
    /// # Errors
    /// The system cannot create another thread.
    pub fn start(path: &Path, name: &str, log: &Arc<TraceLog>) -> Result<TraceFile, Stop> {
        let (stop, stopping) = bounded(0);
        let (end, ended) = bounded(0);
        let writer = Writer {
            path: path.to_owned(),
            name: name.to_owned(),
            log: Arc::clone(log),
            bytes_max: FILE_BYTES_MAX,
            next: 0,
            open: None,
            lines: String::new(),
            complained: None,
        };
        let body = move || {
            writer.run(&stopping);
            drop(end);
        };
        threads::critical("trace-file", body).map_err(super::no_threads)?;
        Ok(TraceFile {
            log: Arc::clone(log),
            stop,
            ended,
        })
    }

    /// Writes the rest, and ends the thread. Waits for at most `patience`: the file may hang.
    pub fn stop(self, patience: Duration) {
        drop(self.stop);
        self.log.wake();
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the trace file does not accept the last records: stopping without them");
        }
    }
}

struct Writer {
    path: PathBuf,
    name: String,
    log: Arc<TraceLog>,
    bytes_max: u64,
    /// The number of the first record that is not in the file.
    next: u64,
    open: Option<Open>,
    lines: String,
    complained: Option<Instant>,
}

struct Open {
    file: File,
    reader: TraceReader,
    bytes: u64,
    /// Only such a file is limited and renamed. Others are pipes and devices.
    is_regular: bool,
}

impl Writer {
    fn run(mut self, stop: &Receiver<()>) {
        loop {
            let mark = self.log.mark();
            let stops = stop.try_recv() == Err(TryRecvError::Disconnected);
            let written = self.write_some();
            match written {
                Ok(true) => continue,
                _ if stops => return,
                Ok(false) => {
                    self.log.wait(mark, PATIENCE);
                    let _ = stop.recv_timeout(PACE);
                }
                Err(error) => {
                    self.complain(&error);
                    let _ = stop.recv_timeout(AGAIN_AFTER);
                }
            }
        }
    }

    /// Writes the next lines. Returns whether there can be more.
    fn write_some(&mut self) -> io::Result<bool> {
        self.lines.clear();
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let more = open.reader.render(WRITE_BYTES, &mut self.lines);
        if let Err(error) = open.file.write_all(self.lines.as_bytes()) {
            // The lines are written again, so the file must not keep a part of them.
            let _ = open.file.set_len(open.bytes);
            return Err(error);
        }
        self.next = open.reader.next();
        open.bytes += self.lines.len() as u64;
        // A full file is renamed when the next one is opened.
        let is_full = open.is_regular && open.bytes >= self.bytes_max;
        self.open = Some(open).filter(|_| !is_full);
        Ok(more)
    }

    /// Opens the file at its end. Its next lines begin with the head.
    fn open(&mut self) -> io::Result<Open> {
        let present = fs::metadata(&self.path).ok();
        if present.is_some_and(|present| present.is_file() && present.len() >= self.bytes_max) {
            fs::rename(&self.path, older(&self.path))?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).open(&self.path)?;
        let found = file.metadata()?;
        let resume = Resume {
            since: self.next,
            ..Resume::default()
        };
        // The last process may have ended in the middle of a line.
        if found.is_file() && !ends_a_line(&self.path, found.len())? {
            file.write_all(b"\n")?;
        }
        let bytes = file.metadata()?.len();
        let reader = TraceReader::begin(&self.log, &self.name, resume, &mut self.lines);
        Ok(Open {
            file,
            reader,
            bytes,
            is_regular: found.is_file(),
        })
    }

    fn complain(&mut self, error: &io::Error) {
        if self
            .complained
            .is_some_and(|at| at.elapsed() < COMPLAIN_EVERY)
        {
            return;
        }
        self.complained = Some(Instant::now());
        log::warn!(
            "cannot write the trace to {}: {error}; trying again. Give --trace a file that can be written, on a disk \
             with space",
            self.path.display()
        );
    }
}

fn older(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    name.into()
}

fn ends_a_line(path: &Path, bytes: u64) -> io::Result<bool> {
    if bytes == 0 {
        return Ok(true);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(bytes - 1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::trace::{Record, Trace};
    use crate::raft::{LogIndex, NodeId, Term};
    use crate::replica::trace_log::Timed;

    fn add(log: &TraceLog, numbers: std::ops::RangeInclusive<u64>) {
        let record = |seq| Record {
            seq,
            term: Term(1),
            event: Trace::Committed {
                index: LogIndex(seq),
            },
        };
        let timed = numbers.map(|seq| Timed {
            at: seq,
            record: record(seq),
        });
        log.add(&mut timed.collect());
    }

    fn writer(path: &Path, log: &Arc<TraceLog>, bytes_max: u64) -> Writer {
        Writer {
            path: path.to_owned(),
            name: "a".to_owned(),
            log: Arc::clone(log),
            bytes_max,
            next: 0,
            open: None,
            lines: String::new(),
            complained: None,
        }
    }

    /// `head`, or the number of a record, or `gap`, or what else the line is.
    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).expect("the file");
        let short = |line: &str| {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
                return line.to_owned();
            };
            match (value.get("format"), value.get("seq")) {
                (Some(_), _) => "head".to_owned(),
                (_, Some(seq)) => seq.to_string(),
                _ => "gap".to_owned(),
            }
        };
        text.lines().map(short).collect()
    }

    #[test]
    fn a_full_file_becomes_the_older_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace");
        let log = Arc::new(TraceLog::new(NodeId(1)));
        let mut writer = writer(&path, &log, 200);
        add(&log, 1..=3);
        assert!(!writer.write_some().expect("it is written"));
        add(&log, 4..=4);
        writer.write_some().expect("it is written");
        assert_eq!(lines(&older(&path)), ["head", "1", "2", "3"]);
        add(&log, 5..=6);
        writer.write_some().expect("it is written");
        assert_eq!(lines(&path), ["head", "4", "5", "6"]);
        add(&log, 7..=7);
        writer.write_some().expect("it is written");
        assert_eq!(lines(&older(&path)), ["head", "4", "5", "6"]);
    }

    /// The next process appends, also after a line that was cut short.
    #[test]
    fn a_file_is_continued() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace");
        fs::write(&path, "{\"seq\":7,").expect("a torn line");
        for _ in 0..2 {
            let log = Arc::new(TraceLog::new(NodeId(1)));
            add(&log, 1..=1);
            writer(&path, &log, 1 << 20).write_some().expect("written");
        }
        assert_eq!(lines(&path), ["{\"seq\":7,", "head", "1", "head", "1"]);
    }

    /// A disk without space for a while: the file has no torn line, and the records in memory are written later.
    #[test]
    fn nothing_is_lost_or_torn_by_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace");
        let log = Arc::new(TraceLog::new(NodeId(1)));
        let mut writer = writer(&path, &log, 1 << 20);
        add(&log, 1..=2);
        writer.write_some().expect("it is written");
        add(&log, 3..=4);
        // A file that is open for reading refuses writes, as a full disk does.
        let mut open = writer.open.take().expect("it is open");
        open.file = File::open(&path).expect("the file");
        writer.open = Some(open);
        assert!(writer.write_some().is_err());
        add(&log, 5..=5);
        writer.write_some().expect("it is written");
        assert_eq!(lines(&path), ["head", "1", "2", "head", "3", "4", "5"]);
    }
}
