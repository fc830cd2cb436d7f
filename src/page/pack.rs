//! Makes the document small when the program is built: removes what only readers of the source need, and compresses it.
//!
//! This file is a part of `build.rs`. The compressed form is deflate (RFC 1951) with fixed codes: a few lines here and in
//! [`unpack`](super::unpack), and browsers read it as it is.

use super::classes::{distances, lengths};

/// The scripts in the order in which the document has them.
pub const SCRIPTS: [&str; 14] = [
    "dom.js",
    "format.js",
    "http.js",
    "cluster_model.js",
    "cluster_view.js",
    "cluster_words.js",
    "cluster_live.js",
    "cluster_page.js",
    "keys_tree.js",
    "keys_value.js",
    "keys_undo.js",
    "keys_many.js",
    "health.js",
    "main.js",
];

/// The text without indentation, empty lines, and lines that are comments of JavaScript. No file of the page has a text
/// that goes over several lines, so the space at the begin of a line means nothing.
///
/// # Panics
/// If code follows a comment on its line. It would be removed with the comment.
pub fn strip(text: &str) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut in_comment = false;
    for line in text.lines().map(str::trim) {
        in_comment |= line.starts_with("/*");
        let rest = line.split_once("*/").map_or("", |(_, rest)| rest);
        assert!(
            !in_comment || rest.is_empty(),
            "code after a comment: {line}"
        );
        if !in_comment && !line.is_empty() && !line.starts_with("//") {
            stripped.push_str(line);
            stripped.push('\n');
        }
        in_comment &= !line.ends_with("*/");
    }
    stripped
}

/// How far back a repetition may lie, in bytes.
const WINDOW_BYTES: usize = 32768;
const MATCH_BYTES_MIN: usize = 3;
const MATCH_BYTES_MAX: usize = 258;
/// Earlier places with the same three bytes that are compared.
const PLACES_MAX: usize = 256;

/// The bytes as one last block with fixed codes.
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.push(1, 1);
    bits.push(1, 2);
    let mut places = Places::of(bytes);
    let mut at = 0;
    while at < bytes.len() {
        let (length, distance) = places.longest(at);
        // A longer repetition may begin at the next byte.
        if length < MATCH_BYTES_MIN || places.longest(at + 1).0 > length {
            bits.literal(u16::from(bytes[at]));
            at += 1;
        } else {
            bits.repetition(length, distance);
            at += length;
        }
    }
    bits.literal(256);
    bits.bytes
}

/// Where the same three bytes were before.
struct Places<'a> {
    bytes: &'a [u8],
    /// For each place, the one before with the same three bytes.
    before: Vec<Option<usize>>,
}

impl Places<'_> {
    fn of(bytes: &[u8]) -> Places<'_> {
        let mut newest = std::collections::HashMap::new();
        let before = bytes
            .windows(MATCH_BYTES_MIN)
            .enumerate()
            .map(|(at, three)| newest.insert(three, at))
            .collect();
        Places { bytes, before }
    }

    /// Length and distance of the longest earlier repetition of what begins here. (0, 0) if there is none.
    fn longest(&mut self, at: usize) -> (usize, usize) {
        let mut best = (0, 0);
        let mut place = self.before.get(at).copied().flatten();
        for _ in 0..PLACES_MAX {
            let Some(from) = place.filter(|&from| at - from <= WINDOW_BYTES) else {
                break;
            };
            let pairs = self.bytes[at..].iter().zip(&self.bytes[from..]);
            let same = pairs.take_while(|(a, b)| a == b).take(MATCH_BYTES_MAX);
            let length = same.count();
            if length > best.0 {
                best = (length, at - from);
            }
            place = self.before[from];
        }
        best
    }
}

/// Bits, packed into bytes from the lowest on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are used.
    used: usize,
}

impl Bits {
    /// Appends the lowest `count` bits of a number, the lowest one first.
    fn push(&mut self, number: usize, count: u32) {
        for bit in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("it was just pushed");
            *last |= ((number >> bit & 1) as u8) << self.used;
            self.used = (self.used + 1) % 8;
        }
    }

    /// Appends a code, its highest bit first.
    fn code(&mut self, code: u16, count: u32) {
        self.push(usize::from(code.reverse_bits() >> (16 - count)), count);
    }

    /// Appends the fixed code of a byte, the end (256), or a length.
    fn literal(&mut self, symbol: u16) {
        match symbol {
            0..=143 => self.code(symbol + 0x30, 8),
            144..=255 => self.code(symbol - 144 + 0x190, 9),
            256..=279 => self.code(symbol - 256, 7),
            _ => self.code(symbol - 280 + 0xc0, 8),
        }
    }

    fn repetition(&mut self, length: usize, distance: usize) {
        let (symbol, base, extra) = last_at_most(lengths(), length);
        self.literal(257 + symbol);
        self.push(length - base, extra);
        let (symbol, base, extra) = last_at_most(distances(), distance);
        self.code(symbol, 5);
        self.push(distance - base, extra);
    }
}

fn last_at_most(classes: impl Iterator<Item = (usize, u32)>, number: usize) -> (u16, usize, u32) {
    let numbered = classes
        .zip(0..)
        .map(|((base, extra), symbol)| (symbol, base, extra));
    let fitting = numbered.take_while(|&(_, base, _)| base <= number);
    fitting
        .last()
        .expect("the first class is the smallest number")
}
