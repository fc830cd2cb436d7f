//! Runs `tests/transcripts/tree/*`: blocks of commands, a line `---`, then the tree's answers. `UPDATE=1` writes the
//! answers again. A person reads them before committing them.
//!
//! | command | effect |
//! |---|---|
//! | `set KEY[=VALUE]`, `create`, `in-order`, `update`, `swap`, `delete`, `compare-and-delete` | applies the action, with the options `ttl=N dir recursive refresh prevValue=V prevIndex=N` |
//! | `get KEY [recursive]` | prints a listing |
//! | `clock +Ns` | advances both clocks |
//! | `expire` | removes all nodes that are due |
//! | `watch NAME KEY [recursive]` | registers a watch, which stays. An event that it receives is followed by `→ NAME` |
//! | `unwatch` | removes all watches |
//! | `history KEY from=N [recursive]` | prints the event that a watch finds in the history |
//! | `repeat N COMMAND` | applies a command N times and prints the last answer |
//! | `stats`, `due` | prints the counters, or the seconds until the next expiry |
//!
//! Keys and values are percent-decoded. The history keeps 8 events, so that a short transcript reaches its end.

use crate::random::stamp_at;
use edgetcd::tree::{
    Action, ApiError, Applied, Bytes, Command, Key, Listing, LocalStats, Tree, TreeIndex,
};
use std::fmt::Write;
use std::path::{Path, PathBuf};

struct Replay {
    tree: Tree,
    seconds: u64,
    watches: Vec<(String, Key, bool)>,
}

impl Replay {
    fn run(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        match verb {
            "get" => self.get(&words),
            "clock" => self.go_on(words[0]),
            "expire" => self.expire(),
            "watch" => self.watch(&words),
            "unwatch" => self.unwatch(),
            "history" => self.look_back(&words),
            "repeat" => self.repeat(&words),
            "stats" => self.stats(),
            "due" => self.due(),
            _ => self.write(verb, &words),
        }
    }

    fn write(&mut self, verb: &str, words: &[&str]) -> String {
        let command = command(verb, words);
        let result = self.tree.apply(&command, stamp_at(self.seconds));
        self.answer(result)
    }

    fn answer(&self, result: Result<Applied, ApiError>) -> String {
        let mut out = Vec::new();
        match &result {
            Ok(applied) => {
                out.extend_from_slice(format!("{} ", applied.event.status()).as_bytes());
                applied.event.render(&mut out);
            }
            Err(error) => {
                out.extend_from_slice(format!("{} ", error.status()).as_bytes());
                error.render(&mut out);
            }
        }
        let mut text = String::from_utf8(out).expect("JSON is UTF-8");
        if let Ok(applied) = result {
            self.tell(&applied, &mut text);
        }
        text
    }

    fn tell(&self, applied: &Applied, text: &mut String) {
        for (name, key, recursive) in &self.watches {
            if applied
                .event
                .matches(key, *recursive, applied.removed.as_ref())
            {
                writeln!(text, "  → {name}").expect("a string takes everything");
            }
        }
    }

    fn get(&self, words: &[&str]) -> String {
        let now = stamp_at(self.seconds).cluster;
        let mut out = Vec::new();
        match Listing::new(
            &self.tree,
            &key(words[0]),
            words.contains(&"recursive"),
            now,
        ) {
            Ok(mut listing) => {
                out.extend_from_slice(b"200 ");
                listing.render(&mut out, usize::MAX);
            }
            Err(error) => {
                out.extend_from_slice(format!("{} ", error.status()).as_bytes());
                error.render(&mut out);
            }
        }
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn go_on(&mut self, by: &str) -> String {
        let seconds = by.trim_start_matches('+').trim_end_matches('s');
        self.seconds += seconds.parse::<u64>().expect("clock +Ns");
        String::new()
    }

    fn expire(&mut self) -> String {
        let expired = self.tree.expire(stamp_at(self.seconds).cluster);
        expired
            .into_iter()
            .map(|applied| self.answer(Ok(applied)))
            .collect()
    }

    fn watch(&mut self, words: &[&str]) -> String {
        self.watches.push((
            words[0].to_owned(),
            key(words[1]),
            words.contains(&"recursive"),
        ));
        String::new()
    }

    fn unwatch(&mut self) -> String {
        self.watches.clear();
        String::new()
    }

    fn look_back(&self, words: &[&str]) -> String {
        let from = words
            .iter()
            .find_map(|word| word.strip_prefix("from="))
            .expect("history KEY from=N");
        let from = TreeIndex(from.parse().expect("a number"));
        match self
            .tree
            .history()
            .scan(from, &key(words[0]), words.contains(&"recursive"))
        {
            Ok(None) => "waits\n".to_owned(),
            Ok(Some(event)) => {
                let mut out = Vec::new();
                event.render(&mut out);
                String::from_utf8(out).expect("JSON is UTF-8")
            }
            Err(error) => self.answer(Err(error)),
        }
    }

    fn repeat(&mut self, words: &[&str]) -> String {
        let times: u32 = words[0].parse().expect("repeat N COMMAND");
        (0..times)
            .map(|_| self.run(&words[1..].join(" ")))
            .last()
            .unwrap_or_default()
    }

    fn stats(&self) -> String {
        let mut out = Vec::new();
        self.tree.stats().render(&LocalStats::default(), &mut out);
        String::from_utf8(out).expect("JSON is UTF-8") + "\n"
    }

    fn due(&self) -> String {
        let now = stamp_at(self.seconds).cluster.0;
        match self.tree.next_expiry() {
            None => "never\n".to_owned(),
            Some(deadline) => format!(
                "in {} s\n",
                (deadline.0 as i128 - i128::from(now)) / 1_000_000_000
            ),
        }
    }
}

fn command(verb: &str, words: &[&str]) -> Command {
    let action = match verb {
        "set" => Action::Set,
        "create" => Action::Create,
        "in-order" => Action::CreateInOrder,
        "update" => Action::Update,
        "swap" => Action::CompareAndSwap,
        "delete" => Action::Delete,
        "compare-and-delete" => Action::CompareAndDelete,
        _ => panic!("no such command: {verb}"),
    };
    let (path, value) = words[0].split_once('=').unwrap_or((words[0], ""));
    let mut command = Command::new(action, key(path));
    command.value = Bytes::from(decoded(value));
    for option in &words[1..] {
        match option.split_once('=') {
            None if *option == "dir" => command.dir = true,
            None if *option == "recursive" => command.recursive = true,
            None if *option == "refresh" => command.refresh = true,
            Some(("ttl", seconds)) => command.ttl = Some(seconds.parse().expect("a ttl")),
            Some(("prevValue", value)) => command.prev_value = Some(Bytes::from(decoded(value))),
            Some(("prevIndex", index)) => {
                command.prev_index = Some(index.parse().expect("an index"))
            }
            _ => panic!("no such option: {option}"),
        }
    }
    command
}

fn key(path: &str) -> Key {
    Key::new(&decoded(path))
}

fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/tree")
}

/// Blocks are separated by empty lines. The comments and commands of each block stay, and the answers follow.
fn replay(text: &str) -> String {
    let mut replay = Replay {
        tree: Tree::new(8),
        seconds: 0,
        watches: Vec::new(),
    };
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let commands = block.split("\n---").next().unwrap_or_default();
        let mut out = format!("{commands}\n");
        let lines: Vec<&str> = commands
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        if !lines.is_empty() {
            out.push_str("---\n");
        }
        for line in lines {
            out.push_str(&replay.run(line));
        }
        blocks.push(out);
    }
    blocks.join("\n")
}

fn check(name: &str) {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let actual = replay(&text);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &actual).expect("the transcript is written");
        return;
    }
    for (number, (expected, actual)) in text.lines().zip(actual.lines()).enumerate() {
        assert_eq!(
            actual,
            expected,
            "{name}:{} (left: now, right: expected)",
            number + 1
        );
    }
    assert_eq!(
        actual.lines().count(),
        text.lines().count(),
        "{name}: lines are missing or too many"
    );
}

macro_rules! transcripts {
    ($($test:ident $file:literal)*) => {
        $(#[test] fn $test() { check($file); })*

        #[test]
        fn every_transcript_is_run() {
            let mut files: Vec<String> = std::fs::read_dir(folder())
                .expect("the folder of transcripts")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            files.sort();
            let mut run = vec![$($file),*];
            run.sort_unstable();
            assert_eq!(files, run);
        }
    };
}

transcripts! {
    set_and_get "set-and-get"
    directories "directories"
    in_order "in-order"
    create_and_update "create-and-update"
    compare_and_swap "compare-and-swap"
    compare_and_delete "compare-and-delete"
    update_of_directories "update-of-directories"
    hidden "hidden"
    ttl_and_expiry "ttl-and-expiry"
    expiry_of_directories "expiry-of-directories"
    refresh "refresh"
    history_and_401 "history-and-401"
    watch_matching "watch-matching"
    root "root"
    huge_ttl "huge-ttl"
    odd_names "odd-names"
    index_rules "index-rules"
    counters "counters"
}
