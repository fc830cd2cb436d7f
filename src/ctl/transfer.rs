//! `edgetcdctl export` and `import`: write all keys of a server to a file, and the reverse. The format is one line of
//! JSON per key and directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Stop;
use super::args::Opt;
use super::client::Client;
use super::command::{Command, HELP, Run};
use super::entry::{Entry, read_all};
use super::progress::Progress;

pub(super) const ALL: &[Command] = &[
    Command {
        name: "export",
        arguments: "[KEY...]",
        what: "write all keys as lines of JSON (hidden keys only if named)",
        examples: &[
            "export > keys.jsonl",
            "export --file keys.jsonl /services",
            "export / /_hidden",
        ],
        options: &[
            Opt::text(&["file"], "write to this file instead of stdout"),
            HELP,
        ],
        run: export,
    },
    Command {
        name: "import",
        arguments: "[FILE]",
        what: "import the output of export from a file or stdin",
        examples: &["import keys.jsonl", "import < keys.jsonl"],
        options: &[
            Opt::number(&["concurrency", "c"], "number of concurrent writes (8)"),
            HELP,
        ],
        run: import,
    },
];

fn export(run: &mut Run) -> Result<(), Stop> {
    let keys = match run.parsed.args.as_slice() {
        [] => vec!["/".to_owned()],
        keys => keys.to_vec(),
    };
    let client = run.connect()?;
    let mut entries = vec![];
    let mut seen = BTreeSet::new();
    for key in &keys {
        let read = read_all(&client, key)?.0;
        entries.extend(
            read.into_iter()
                .filter(|entry| seen.insert(entry.key.clone())),
        );
    }
    let Some(path) = run.parsed.text("file") else {
        return write_lines(&entries, run.world.stdout);
    };
    let named = |error: std::io::Error| Stop::Plain(format!("{path}: {error}"));
    let file = File::create(path).map_err(named)?;
    write_lines(&entries, &mut &file)?;
    // The file may also be a pipe, which cannot be synced.
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file {
        file.sync_all().map_err(named)
    } else {
        Ok(())
    }
}

fn write_lines(entries: &[Entry], out: &mut dyn Write) -> Result<(), Stop> {
    let mut out = BufWriter::new(out);
    for entry in entries {
        serde_json::to_writer(&mut out, entry).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn import(run: &mut Run) -> Result<(), Stop> {
    let mut text = String::new();
    let read = match run.parsed.args.first() {
        Some(path) => File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|error| format!("{path}: {error}")),
        None => run
            .world
            .stdin
            .read_to_string(&mut text)
            .map_err(|error| format!("stdin: {error}")),
    };
    read.map_err(Stop::Plain)?;
    let entries = read_lines(&text)?;
    let at_once = run.parsed.number("concurrency").unwrap_or(8).clamp(1, 256);
    let client = run.connect()?;
    let at_once = usize::try_from(at_once).unwrap_or(1);
    send_all(&client, &entries, at_once, run.world.stderr_is_terminal)?;
    Ok(writeln!(
        run.world.stderr,
        "imported {} keys and directories",
        entries.len()
    )?)
}

fn read_lines(text: &str) -> Result<Vec<Entry>, Stop> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let entry = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| Stop::Plain(format!("line {}: {error}", number + 1)))
    };
    lines.map(entry).collect()
}

/// Sends directories first, one by one, because their order matters. Then sends keys, several at a time. Stops at the
/// first failure.
pub(super) fn send_all(
    client: &Client,
    entries: &[Entry],
    at_once: usize,
    show: bool,
) -> Result<(), Stop> {
    let progress = Progress::new(entries.len());
    thread::scope(|scope| {
        if show {
            scope.spawn(|| progress.show());
        }
        let _ends = progress.until_dropped();
        send_in_order(client, entries, at_once, &progress)
    })
}

fn send_in_order(
    client: &Client,
    entries: &[Entry],
    at_once: usize,
    progress: &Progress,
) -> Result<(), Stop> {
    let (directories, keys): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().partition(|entry| entry.dir);
    let send = |entry: &Entry| -> Result<(), Stop> {
        let sent = entry.send(client);
        sent.map_err(|failure| Stop::FailedAt(entry.key.clone(), failure))?;
        progress.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    directories.into_iter().try_for_each(&send)?;
    let next = AtomicUsize::new(0);
    let failed: Mutex<Option<Stop>> = Mutex::new(None);
    let work = || {
        while let Some(entry) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(stop) = send(entry) {
                next.store(keys.len(), Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(|broken| broken.into_inner());
                failed.get_or_insert(stop);
            }
        }
    };
    thread::scope(|scope| {
        (0..at_once).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner());
    failed.map_or(Ok(()), Err)
}
