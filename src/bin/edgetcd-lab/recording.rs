//! What all nodes have recorded, as one text: `GET /recording`.
//!
//! The files of long runs do not fit into memory together, so each member has its part of [`BYTES_MAX`] and the text has
//! its newest records. A file that is shown in part keeps its first line, which says whose records follow. One recording
//! is read at a time.

use edgetcd::http1::{Answer, Ticket};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Bytes of records in one recording, without the first lines of files.
const BYTES_MAX: u64 = 64 << 20;
/// A first line that is longer is not one of a trace file.
const HEAD_BYTES_MAX: u64 = 4 << 10;

/// Reads recordings.
pub struct Recorder {
    /// The files of the members' records.
    traces: Vec<PathBuf>,
    is_busy: Arc<AtomicBool>,
}

/// Ends a recording when it is dropped.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Recorder {
    /// A recorder of these files, one of each member. The older file of a member has `.1` after its name.
    pub fn new(traces: Vec<PathBuf>) -> Recorder {
        Recorder {
            traces,
            is_busy: Arc::default(),
        }
    }

    /// Answers with a recording, or with 503 while another one is being read. Another thread reads the files.
    pub fn answer(&self, ticket: Ticket) {
        if self.is_busy.swap(true, Ordering::SeqCst) {
            let text = "another recording is being read; try again\n";
            return ticket.send(Answer::text(503, text));
        }
        let (traces, busy) = (self.traces.clone(), Busy(Arc::clone(&self.is_busy)));
        let body = move || {
            let recording = recording(&traces);
            // A client that has the answer may ask again.
            drop(busy);
            ticket.send(recording);
        };
        // Without a thread, the ticket is dropped, which answers 500.
        let _ = thread::Builder::new().name("recording".into()).spawn(body);
    }
}

/// The newest records of all members, one member after the other.
fn recording(traces: &[PathBuf]) -> Answer {
    let mut lines = Vec::new();
    for file in traces {
        member(file, BYTES_MAX / traces.len() as u64, &mut lines);
    }
    Answer::new(200)
        .header("Content-Type", "application/x-ndjson")
        .header(
            "Content-Disposition",
            "attachment; filename=\"cluster.trace\"",
        )
        .header("X-Content-Type-Options", "nosniff")
        .header("Cache-Control", "no-store")
        .body(lines)
}

/// Appends the newest records of a member: those of its older file first.
fn member(file: &Path, room: u64, lines: &mut Vec<u8>) {
    let mut older = file.to_owned().into_os_string();
    older.push(".1");
    // A node that has not started yet has no file. A file that cannot be read is left out, as the others are of use.
    let newer = newest(file, room).unwrap_or_default();
    let room = room.saturating_sub(newer.len() as u64);
    if room > 0 {
        lines.append(&mut newest(Path::new(&older), room).unwrap_or_default());
    }
    lines.extend_from_slice(&newer);
}

/// The last complete lines of a file in at most `room` bytes, after its first line.
fn newest(file: &Path, room: u64) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(file)?);
    let mut lines = Vec::new();
    let length = file.get_ref().metadata()?.len();
    if length > room {
        let head = file
            .by_ref()
            .take(HEAD_BYTES_MAX)
            .read_until(b'\n', &mut lines)?;
        let start = (head as u64).max(length - room);
        file.seek(SeekFrom::Start(start - 1))?;
        // The rest of the line before. Nothing, if a line ends there.
        file.by_ref().take(room).skip_until(b'\n')?;
    }
    file.take(room).read_to_end(&mut lines)?;
    // A line that is being written has no end yet.
    let complete = lines.iter().rposition(|byte| *byte == b'\n');
    lines.truncate(complete.map_or(0, |end| end + 1));
    Ok(lines)
}
