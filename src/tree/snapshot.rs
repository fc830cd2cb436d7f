//! A version of the tree as a stream of bytes, written and read in slices, without recursion.
//!
//! ```text
//! stream   = magic index stats history nodes
//! magic    = "tree" 1                    the last byte is the version of this format
//! index    = number
//! stats    = 13 numbers                  in the order of /v2/stats/store
//! history  = count event*                oldest first
//! event    = action flags key index at node [prevNode]
//! node     = flags created modified [value] [deadline expiration]      of an event
//! nodes    = node of the tree, the root's children first to last, then 0
//! file     = 1 name created modified flags [deadline expiration] value
//! dir      = 2 name created modified flags [deadline expiration] children 0
//! ```
//!
//! `codec` defines numbers and strings. Children are in ascending order of their names, so equal trees have equal
//! bytes. The order of deadlines is not stored but computed again. A history without events was cleared at the tree's
//! index ([`Tree::skip_to`]). The carrier of the stream has checksums. This reader only has to survive any bytes, and
//! refuses those that are not such a stream.

use super::Tree;
use super::bytes::Bytes;
use super::clock::{ClusterTime, Expiry, WallTime};
use super::codec::{Malformed, Reader, Unread, put_bytes, put_number, put_signed};
use super::event::{Event, EventAction, NodeView};
use super::history::History;
use super::key::{Key, is_name};
use super::map::Builder;
use super::node::{Dir, Node, TreeIndex};
use super::stats::Stats;
use std::ops::Bound;
use std::sync::Arc;

const MAGIC: &[u8] = b"tree\x01";
const CLOSE: u8 = 0;
const FILE: u8 = 1;
const DIR: u8 = 2;

/// A slice is returned when it has at least this many bytes. A single large value may make it longer.
const SLICE_BYTES: usize = 64 * 1024;

const IS_DIR: u8 = 1;
const HAS_VALUE: u8 = 1 << 1;
const HAS_EXPIRY: u8 = 1 << 2;
const HAS_PREV: u8 = 1;
const IS_REFRESH: u8 = 1 << 1;

const ACTIONS: [EventAction; 7] = [
    EventAction::Set,
    EventAction::Create,
    EventAction::Update,
    EventAction::CompareAndSwap,
    EventAction::Delete,
    EventAction::CompareAndDelete,
    EventAction::Expire,
];

/// The year 2020. A wall clock that shows an earlier time was not set, as at the boot of a machine without a
/// battery-backed clock.
const CLOCK_IS_SET: WallTime = WallTime(1_577_836_800 * 1_000_000_000);

/// Counts of a tree's content. The root is not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Number of nodes with a value, including hidden ones.
    pub files: u64,
    /// Number of directories.
    pub dirs: u64,
    /// Number of files and directories with a time to live of their own.
    pub expiring: u64,
    /// The smallest difference between cluster time and wall-clock time over all these nodes, in nanoseconds: deadline
    /// minus `expiration`, usually negative. Nodes with an `expiration` before 2020 are ignored, because the wall clock
    /// was not set then. `None` if no node remains.
    pub least_lead: Option<i128>,
}

impl Census {
    /// Counts a complete tree.
    pub fn of(tree: &Tree) -> Census {
        let mut encoder = Encoder::new(tree.clone());
        let mut slice = Vec::new();
        while encoder.next(&mut slice) {
            slice.clear();
        }
        encoder.census()
    }

    fn count(&mut self, node: &Node) {
        let (count, expiry) = match node {
            Node::File(file) => (&mut self.files, file.expiry),
            Node::Dir(dir) => (&mut self.dirs, dir.expiry),
        };
        *count += 1;
        let Some(expiry) = expiry else { return };
        self.expiring += 1;
        if expiry.expiration() >= CLOCK_IS_SET {
            let lead = i128::from(expiry.deadline().0) - i128::from(expiry.expiration().0);
            self.least_lead = Some(self.least_lead.map_or(lead, |least| least.min(lead)));
        }
    }
}

/// Encodes one version of the tree as a stream.
pub struct Encoder {
    tree: Tree,
    stage: Stage,
    census: Census,
}

enum Stage {
    Head,
    Events(TreeIndex),
    /// The open directories, from the root inwards, each with the last child written.
    Nodes(Vec<(Arc<Dir>, Option<Bytes>)>),
}

impl Encoder {
    /// An encoder of `tree`. Pass a clone, so that the original can change meanwhile.
    pub fn new(tree: Tree) -> Encoder {
        Encoder {
            tree,
            stage: Stage::Head,
            census: Census::default(),
        }
    }

    /// Counts of the nodes written so far.
    pub fn census(&self) -> Census {
        self.census
    }

    /// Appends the next slice. Returns false after the last one.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let enough = out.len() + SLICE_BYTES;
        while out.len() < enough {
            if !self.step(out, enough) {
                return false;
            }
        }
        true
    }

    fn step(&mut self, out: &mut Vec<u8>, enough: usize) -> bool {
        match &mut self.stage {
            Stage::Head => {
                put_head(out, &self.tree);
                self.stage = Stage::Events(TreeIndex(0));
            }
            Stage::Events(from) => {
                for event in self.tree.history.since(*from) {
                    put_event(out, event);
                    *from = event.index.next();
                    if out.len() >= enough {
                        return true;
                    }
                }
                self.stage = Stage::Nodes(vec![(self.tree.root.clone(), None)]);
            }
            Stage::Nodes(open) => {
                put_children(out, open, enough, &mut self.census);
                return !open.is_empty();
            }
        }
        true
    }
}

fn put_head(out: &mut Vec<u8>, tree: &Tree) {
    out.extend_from_slice(MAGIC);
    put_number(out, tree.index.0);
    for counter in tree.stats.as_array() {
        put_number(out, counter);
    }
    put_number(out, tree.history.len() as u64);
}

fn put_event(out: &mut Vec<u8>, event: &Event) {
    let has_prev = if event.prev_node.is_some() {
        HAS_PREV
    } else {
        0
    };
    let is_refresh = if event.refresh { IS_REFRESH } else { 0 };
    out.extend_from_slice(&[event.action as u8, has_prev | is_refresh]);
    put_bytes(out, event.key.as_bytes());
    put_number(out, event.index.0);
    put_number(out, event.at.0);
    put_view(out, &event.node);
    if let Some(prev_node) = &event.prev_node {
        put_view(out, prev_node);
    }
}

fn put_view(out: &mut Vec<u8>, view: &NodeView) {
    let is_dir = if view.dir { IS_DIR } else { 0 };
    let has_value = if view.value.is_some() { HAS_VALUE } else { 0 };
    let has_expiry = if view.expiry.is_some() { HAS_EXPIRY } else { 0 };
    out.push(is_dir | has_value | has_expiry);
    put_number(out, view.created.0);
    put_number(out, view.modified.0);
    if let Some(value) = &view.value {
        put_bytes(out, value);
    }
    if let Some(expiry) = view.expiry {
        put_expiry(out, &expiry);
    }
}

fn put_expiry(out: &mut Vec<u8>, expiry: &Expiry) {
    put_number(out, expiry.deadline().0);
    put_signed(out, expiry.expiration().0);
}

/// Writes children of the innermost open directory until there are enough bytes, a child is a directory (which is
/// opened), or all children are written (then the directory is closed).
fn put_children(
    out: &mut Vec<u8>,
    open: &mut Vec<(Arc<Dir>, Option<Bytes>)>,
    enough: usize,
    census: &mut Census,
) {
    let Some((dir, after)) = open.pop() else {
        return;
    };
    let from = after
        .as_ref()
        .map_or(Bound::Unbounded, |name| Bound::Excluded(name.as_slice()));
    let children = dir.children.range(from);
    for (name, node) in children {
        let child = put_child(out, name, node);
        census.count(node);
        if child.is_some() || out.len() >= enough {
            open.push((dir.clone(), Some(name.clone())));
            open.extend(child.map(|child| (child, None)));
            return;
        }
    }
    out.push(CLOSE);
}

/// Writes a file, or the beginning of a directory, which is then returned.
fn put_child(out: &mut Vec<u8>, name: &[u8], node: &Node) -> Option<Arc<Dir>> {
    match node {
        Node::File(file) => {
            put_child_head(out, FILE, name, (file.created, file.modified), file.expiry);
            put_bytes(out, &file.value);
            None
        }
        Node::Dir(dir) => {
            put_child_head(out, DIR, name, (dir.created, dir.modified), dir.expiry);
            Some(dir.clone())
        }
    }
}

fn put_child_head(
    out: &mut Vec<u8>,
    kind: u8,
    name: &[u8],
    (created, modified): (TreeIndex, TreeIndex),
    expiry: Option<Expiry>,
) {
    out.push(kind);
    put_bytes(out, name);
    put_number(out, created.0);
    put_number(out, modified.0);
    out.push(if expiry.is_some() { HAS_EXPIRY } else { 0 });
    if let Some(expiry) = expiry {
        put_expiry(out, &expiry);
    }
}

/// Decodes a tree from a stream that arrives in slices of any size.
pub struct Decoder {
    /// Received bytes that could not be read yet: less than one group of fields.
    waiting: Vec<u8>,
    parts: Parts,
}

/// The parts that were read.
struct Parts {
    head: Option<Head>,
    history: History,
    /// Of all nodes and events.
    latest_deadline: ClusterTime,
    /// The open directories, from the root inwards. Empty if the root is closed and the stream has ended.
    open: Vec<Open>,
    root: Option<Dir>,
}

/// A directory whose children are being read.
#[derive(Default)]
struct Open {
    name: Bytes,
    /// Everything but the children.
    dir: Dir,
    children: Builder<Bytes, Node>,
}

impl Open {
    fn add(&mut self, name: Bytes, node: Node) {
        self.dir.set_due(&name, (None, node.due()));
        self.children.push(name, node);
    }

    fn close(self) -> (Bytes, Dir) {
        let Open {
            name,
            mut dir,
            children,
        } = self;
        dir.children = children.finish();
        (name, dir)
    }
}

struct Head {
    index: TreeIndex,
    stats: Stats,
    events_left: u64,
}

impl Decoder {
    /// A decoder of a tree that will keep the last `history_events` events. Of a longer history in the stream it keeps
    /// the newest events.
    pub fn new(history_events: usize) -> Decoder {
        let history = History::new(history_events);
        let open = vec![Open::default()];
        Decoder {
            waiting: Vec::new(),
            parts: Parts {
                head: None,
                history,
                latest_deadline: ClusterTime(0),
                open,
                root: None,
            },
        }
    }

    /// Keeps the newest events, of at most `bytes` bytes in total, but always at least one.
    pub fn limit_history(&mut self, bytes: usize) {
        self.parts.history.limit(bytes);
    }

    /// Takes the next slice.
    ///
    /// # Errors
    /// The bytes are not the stream of a tree.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.waiting.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            let mut reader = Reader::new(&self.waiting[done..]);
            match self.parts.read_one(&mut reader) {
                Ok(()) => done = self.waiting.len() - reader.left(),
                Err(Unread::Short) => break,
                Err(Unread::Bad(malformed)) => return Err(malformed),
            }
        }
        self.waiting.drain(..done);
        Ok(())
    }

    /// The latest deadline in the slices pushed so far; 0 if nothing in them expires.
    pub fn latest_deadline(&self) -> ClusterTime {
        self.parts.latest_deadline
    }

    /// The tree, after all slices have been pushed.
    ///
    /// # Errors
    /// The stream is incomplete, or bytes follow its end.
    pub fn finish(self) -> Result<Tree, Malformed> {
        let (Some(head), Some(root)) = (self.parts.head, self.parts.root) else {
            return Err(Malformed("a snapshot of the tree ends too early"));
        };
        if !self.waiting.is_empty() {
            return Err(Malformed("bytes after the end of a snapshot of the tree"));
        }
        let (mut history, root) = (self.parts.history, Arc::new(root));
        if history.is_empty() {
            history.clear(head.index);
        }
        Ok(Tree {
            root,
            index: head.index,
            history,
            stats: head.stats,
        })
    }
}

impl Parts {
    /// Reads the next group of fields. Keeps it only if it is complete.
    fn read_one(&mut self, reader: &mut Reader) -> Result<(), Unread> {
        let Some(head) = &mut self.head else {
            self.head = Some(read_head(reader)?);
            return Ok(());
        };
        if head.events_left > 0 {
            let event = read_event(reader)?;
            check_event(&event, head, self.history.last())?;
            head.events_left -= 1;
            let prev_node = event.prev_node.as_ref().and_then(|node| node.expiry);
            let expiries = event.node.expiry.into_iter().chain(prev_node);
            expiries.for_each(|expiry| note(&mut self.latest_deadline, Some(expiry)));
            self.history.push(Arc::new(event));
            return Ok(());
        }
        let index = head.index;
        self.read_child(reader, index)
    }

    fn read_child(&mut self, reader: &mut Reader, index: TreeIndex) -> Result<(), Unread> {
        let Some(parent) = self.open.last_mut() else {
            // The stream has ended: the next byte, if there is one, is an error.
            reader.byte()?;
            return Err(Malformed("bytes after the end of a snapshot of the tree").into());
        };
        match reader.byte()? {
            CLOSE => self.close(),
            FILE => {
                let head = read_child_head(reader, parent, index)?;
                let value = Bytes::from(reader.bytes()?);
                note(&mut self.latest_deadline, head.expiry);
                let file = Node::file(value, head.expiry, head.created, head.modified);
                parent.add(head.name, file);
            }
            DIR => {
                let ChildHead {
                    name,
                    created,
                    modified,
                    expiry,
                } = read_child_head(reader, parent, index)?;
                note(&mut self.latest_deadline, expiry);
                self.open.push(Open {
                    name,
                    dir: Dir::new(expiry, created, modified),
                    children: Builder::default(),
                });
            }
            _ => return Err(Malformed("an unknown kind of node").into()),
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some((name, dir)) = self.open.pop().map(Open::close) else {
            return;
        };
        match self.open.last_mut() {
            Some(parent) => parent.add(name, Node::Dir(Arc::new(dir))),
            None => self.root = Some(dir),
        }
    }
}

fn note(latest: &mut ClusterTime, expiry: Option<Expiry>) {
    if let Some(expiry) = expiry {
        *latest = (*latest).max(expiry.deadline());
    }
}

fn read_head(reader: &mut Reader) -> Result<Head, Unread> {
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Malformed("not a snapshot of a tree, or of another version").into());
    }
    let index = TreeIndex(read_count(reader)?);
    let mut counters = [0; 13];
    for counter in &mut counters {
        *counter = read_count(reader)?;
    }
    let (stats, events_left) = (Stats::from_array(counters), read_count(reader)?);
    Ok(Head {
        index,
        stats,
        events_left,
    })
}

/// A number that counts single steps and will be incremented further.
fn read_count(reader: &mut Reader) -> Result<u64, Unread> {
    match reader.number()? {
        count if count >> 62 == 0 => Ok(count),
        _ => Err(Malformed("a count that nobody can have reached").into()),
    }
}

/// Checks that events have indexes without gaps, that the last one has the tree's index, and that no event has a node
/// from after it.
fn check_event(event: &Event, head: &Head, last: Option<TreeIndex>) -> Result<(), Malformed> {
    let prev_node = event.prev_node.as_ref();
    for node in std::iter::once(&event.node).chain(prev_node) {
        check_indexes(node.created, node.modified, event.index)?;
        if node.dir && node.value.is_some() {
            return Err(Malformed("an event of a directory with a value"));
        }
    }
    let follows = last.is_none_or(|last| last < head.index && event.index == last.next());
    let ends = event.index.0.checked_add(head.events_left - 1) == Some(head.index.0);
    if follows && ends {
        Ok(())
    } else {
        Err(Malformed("events that are not numbered without gaps"))
    }
}

/// A node is made before it is changed, and neither after the tree's last change.
fn check_indexes(
    created: TreeIndex,
    modified: TreeIndex,
    last: TreeIndex,
) -> Result<(), Malformed> {
    if created > modified {
        return Err(Malformed("a node that was changed before it was made"));
    }
    if modified > last {
        return Err(Malformed("a node from after the tree's index"));
    }
    Ok(())
}

fn read_event(reader: &mut Reader) -> Result<Event, Unread> {
    let action = *ACTIONS
        .get(usize::from(reader.byte()?))
        .ok_or(Malformed("an unknown event"))?;
    let flags = reader.byte()?;
    if flags & !(HAS_PREV | IS_REFRESH) != 0 {
        return Err(Malformed("unknown flags of an event").into());
    }
    Ok(Event {
        action,
        key: Key::from_clean(reader.bytes()?).ok_or(Malformed("a key that is not clean"))?,
        index: TreeIndex(reader.number()?),
        at: ClusterTime(reader.number()?),
        node: read_view(reader)?,
        prev_node: (flags & HAS_PREV != 0)
            .then(|| read_view(reader))
            .transpose()?,
        refresh: flags & IS_REFRESH != 0,
    })
}

fn read_view(reader: &mut Reader) -> Result<NodeView, Unread> {
    let flags = reader.byte()?;
    if flags & !(IS_DIR | HAS_VALUE | HAS_EXPIRY) != 0 {
        return Err(Malformed("unknown flags of a node").into());
    }
    Ok(NodeView {
        dir: flags & IS_DIR != 0,
        created: TreeIndex(reader.number()?),
        modified: TreeIndex(reader.number()?),
        value: (flags & HAS_VALUE != 0)
            .then(|| reader.bytes().map(Bytes::from))
            .transpose()?,
        expiry: (flags & HAS_EXPIRY != 0)
            .then(|| read_expiry(reader))
            .transpose()?,
    })
}

fn read_expiry(reader: &mut Reader) -> Result<Expiry, Unread> {
    let deadline = ClusterTime(reader.number()?);
    let expiry = Expiry::new(deadline, WallTime(reader.signed()?));
    expiry.ok_or(Malformed("a deadline that is never").into())
}

struct ChildHead {
    name: Bytes,
    created: TreeIndex,
    modified: TreeIndex,
    expiry: Option<Expiry>,
}

/// The fields common to files and directories. The child's name must follow the parent's last one.
fn read_child_head(
    reader: &mut Reader,
    parent: &Open,
    index: TreeIndex,
) -> Result<ChildHead, Unread> {
    let name = reader.bytes()?;
    if !is_name(name) || parent.children.last().is_some_and(|last| **last >= *name) {
        return Err(Malformed("names that are no names, or not in order").into());
    }
    let (created, modified) = (TreeIndex(reader.number()?), TreeIndex(reader.number()?));
    check_indexes(created, modified, index)?;
    let expiry = match reader.byte()? {
        0 => None,
        HAS_EXPIRY => Some(read_expiry(reader)?),
        _ => return Err(Malformed("unknown flags of a node").into()),
    };
    Ok(ChildHead {
        name: Bytes::from(name),
        created,
        modified,
        expiry,
    })
}

/// FNV-1a hash of the snapshot: nodes, index, counters and history. Members with the same history capacity have the
/// same hash at the same index.
pub fn hash(tree: &Tree) -> u64 {
    let mut encoder = Encoder::new(tree.clone());
    let mut slice = Vec::new();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    loop {
        let more = encoder.next(&mut slice);
        for &byte in &slice {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if !more {
            return hash;
        }
        slice.clear();
    }
}
