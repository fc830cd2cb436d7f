//! The answer to a GET, written piece by piece.
//!
//! A listing owns a version of the part of the tree that it shows, so it can be written as slowly as a client reads.
//! Later changes make other versions. The listing remembers its place by name, with one entry for each level, and
//! continues from there. So it never recurses, at any depth. Long values are written in
//! parts, too, from the bytes that the tree holds.
//!
//! Nodes are always in key order, which is one of the orders that an unsorted listing may have.

use super::Tree;
use super::bytes::Bytes;
use super::clock::ClusterTime;
use super::error::ApiError;
use super::json;
use super::key::{HIDDEN, Key, PAST_HIDDEN};
use super::long::LongString;
use super::node::{Dir, File, Found, Node, NodeRef};
use std::ops::Bound;
use std::sync::Arc;

/// The body `{"action":"get","node":{…}}` with its newline, written in pieces. A clone continues from the same place,
/// so the length of a listing can be measured by writing a clone.
#[derive(Clone)]
pub struct Listing {
    now: ClusterTime,
    recursive: bool,
    start: Option<Start>,
    /// The open directories, from the outermost inwards.
    open: Vec<Level>,
    /// The escaped path of the innermost open directory. Empty for the root.
    path: Vec<u8>,
    /// The file whose long value is being written.
    long: Option<Box<LongFile>>,
}

/// A file that is written up to some position in its value.
#[derive(Clone)]
struct LongFile {
    value: LongString,
    file: File,
}

/// The node that the listing begins with.
#[derive(Clone)]
enum Start {
    File(Key, File),
    Dir(Key, Arc<Dir>),
}

/// A directory whose children are being written.
#[derive(Clone)]
struct Level {
    dir: Arc<Dir>,
    /// The last child written.
    after: Option<Bytes>,
    /// Whether `"nodes":[` has been written.
    listed: bool,
    /// Length of its parent's path, restored when the directory is closed.
    path_before: usize,
}

impl Listing {
    /// The listing of `key`: a file, or a directory with its visible children, and with theirs if `recursive`. The
    /// `ttl` fields are relative to `now`.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn new(
        tree: &Tree,
        key: &Key,
        recursive: bool,
        now: ClusterTime,
    ) -> Result<Listing, ApiError> {
        let start = match tree.find(key)? {
            Found::File(file) => Start::File(key.clone(), file.clone()),
            Found::Dir(dir) => Start::Dir(key.clone(), dir.clone()),
        };
        Ok(Listing {
            now,
            recursive,
            start: Some(start),
            open: Vec::new(),
            path: Vec::new(),
            long: None,
        })
    }

    /// An address that identifies what the listing keeps in memory: the directory or the value that it shows. Zero when
    /// rendering has begun.
    pub fn source(&self) -> usize {
        match &self.start {
            Some(Start::File(_, file)) => file.value.as_ptr().addr(),
            Some(Start::Dir(_, dir)) => Arc::as_ptr(dir).addr(),
            None => 0,
        }
    }

    /// Appends at least `at_least` more bytes (at least one), or all remaining bytes. Stops at most one path and 96 KiB
    /// after that. Returns whether bytes remain.
    pub fn render(&mut self, out: &mut Vec<u8>, at_least: usize) -> bool {
        let enough = out.len().saturating_add(at_least.max(1));
        match self.start.take() {
            Some(Start::File(key, file)) => {
                begin_file(&key, out);
                self.push_file(&file, out);
            }
            Some(Start::Dir(key, dir)) => self.begin(&key, dir, out),
            None => {}
        }
        while self.long.is_some() || !self.open.is_empty() {
            if out.len() >= enough {
                return true;
            }
            match self.long.take() {
                Some(long) => self.go_on(long, out, enough),
                None => self.advance(out, enough),
            }
        }
        out.extend_from_slice(b"}\n");
        false
    }

    /// Writes a file's fields after its key. A long value and what follows it are left to [`Listing::go_on`].
    fn push_file(&mut self, file: &File, out: &mut Vec<u8>) {
        match LongString::new(&file.value) {
            None => push_file(out, file, self.now),
            Some(value) => {
                out.extend_from_slice(b",\"value\":\"");
                let file = file.clone();
                self.long = Some(Box::new(LongFile { value, file }));
            }
        }
    }

    /// Continues with a long value.
    fn go_on(&mut self, mut long: Box<LongFile>, out: &mut Vec<u8>, enough: usize) {
        match long.value.render(out, enough) {
            true => {
                out.push(b'"');
                end_file(out, &long.file, self.now);
            }
            false => self.long = Some(long),
        }
    }

    fn begin(&mut self, key: &Key, dir: Arc<Dir>, out: &mut Vec<u8>) {
        out.extend_from_slice(HEAD);
        if !key.is_root() {
            json::push_escaped(&mut self.path, key.as_bytes());
            out.extend_from_slice(b"\"key\":\"");
            out.extend_from_slice(&self.path);
            out.extend_from_slice(b"\",");
        }
        out.extend_from_slice(b"\"dir\":true");
        json::push_expiry(out, dir.expiry, self.now);
        self.open.push(Level {
            dir,
            after: None,
            listed: false,
            path_before: 0,
        });
    }

    /// Writes children of the innermost directory until there are enough bytes, a child directory must be opened, or
    /// all children are written.
    fn advance(&mut self, out: &mut Vec<u8>, enough: usize) {
        let Some(mut level) = self.open.pop() else {
            return;
        };
        let dir = level.dir.clone();
        let after = level.after.take();
        for (name, node) in visible(&dir, after.as_deref()) {
            out.extend_from_slice(if level.listed { b"," } else { b",\"nodes\":[" });
            level.listed = true;
            let inner = self.child(name, node, out);
            if inner.is_some() || self.long.is_some() || out.len() >= enough {
                level.after = Some(name.clone());
                self.open.push(level);
                self.open.extend(inner);
                return;
            }
        }
        self.close(&level, out);
    }

    /// Writes a child. If it is a directory that must be opened, writes only its beginning and returns the directory.
    fn child(&mut self, name: &[u8], node: &Node, out: &mut Vec<u8>) -> Option<Level> {
        let path_before = self.path.len();
        out.extend_from_slice(b"{\"key\":\"");
        out.extend_from_slice(&self.path);
        let name_start = out.len();
        out.push(b'/');
        json::push_escaped(out, name);
        let name_end = out.len();
        out.push(b'"');
        match node {
            Node::File(file) => self.push_file(file, out),
            Node::Dir(dir) => {
                out.extend_from_slice(b",\"dir\":true");
                json::push_expiry(out, dir.expiry, self.now);
                if self.recursive {
                    self.path.extend_from_slice(&out[name_start..name_end]);
                    return Some(Level {
                        dir: dir.clone(),
                        after: None,
                        listed: false,
                        path_before,
                    });
                }
                json::push_indexes(out, dir.modified, dir.created);
                out.push(b'}');
            }
        }
        None
    }

    /// Writes the end of a directory that was just taken off `open`.
    fn close(&mut self, level: &Level, out: &mut Vec<u8>) {
        if level.listed {
            out.push(b']');
        }
        if !self.path.is_empty() {
            json::push_indexes(out, level.dir.modified, level.dir.created);
        }
        out.push(b'}');
        self.path.truncate(level.path_before);
    }
}

/// The children after the name `after` whose names are not hidden. In the order of names, all hidden names are
/// consecutive, so they are skipped in one step.
fn visible<'a>(
    dir: &'a Dir,
    after: Option<&'a [u8]>,
) -> impl Iterator<Item = (&'a Bytes, &'a Node)> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let past_hidden = match after {
        Some(name) if name >= PAST_HIDDEN => start,
        _ => Bound::Included(PAST_HIDDEN),
    };
    let before = dir
        .children
        .range(start)
        .take_while(|(name, _)| name.as_slice() < HIDDEN);
    before.chain(dir.children.range(past_hidden))
}

const HEAD: &[u8] = b"{\"action\":\"get\",\"node\":{";

impl NodeRef<'_> {
    /// Fast path for files, which most reads are for: appends the complete body of the GET. Returns false and appends
    /// nothing if this is a directory, or a file with a value longer than `most` bytes.
    pub fn render_file(&self, key: &Key, now: ClusterTime, out: &mut Vec<u8>, most: usize) -> bool {
        match self.0 {
            Found::File(file) if file.value.len() <= most => {
                begin_file(key, out);
                push_file(out, file, now);
                out.extend_from_slice(b"}\n");
                true
            }
            _ => false,
        }
    }
}

fn begin_file(key: &Key, out: &mut Vec<u8>) {
    out.extend_from_slice(HEAD);
    out.extend_from_slice(b"\"key\":");
    json::push_string(out, key.as_bytes());
}

/// Appends a file's fields after its key, and the closing brace.
fn push_file(out: &mut Vec<u8>, file: &File, now: ClusterTime) {
    out.extend_from_slice(b",\"value\":");
    json::push_string(out, &file.value);
    end_file(out, file, now);
}

/// Appends a file's fields after its value, and the closing brace.
fn end_file(out: &mut Vec<u8>, file: &File, now: ClusterTime) {
    json::push_expiry(out, file.expiry, now);
    json::push_indexes(out, file.modified, file.created);
    out.push(b'}');
}
