//! JSON text with long strings in it, rendered in parts.
//!
//! A value may have megabytes, and six times as many when every byte is escaped. Hundreds of clients may be sent it at
//! the same time, each as slowly as it reads. So the text that is held for a client does not include its long strings:
//! they stay shared with the tree and are escaped when they are sent.

use super::bytes::Bytes;
use super::json;
use std::sync::Arc;

/// Strings up to this length, in bytes, are rendered at once.
pub(super) const SHORT_BYTES_MAX: usize = 16 << 10;

/// A long string, and how much of it is rendered.
#[derive(Clone)]
pub(super) struct LongString {
    bytes: Bytes,
    at: usize,
}

impl LongString {
    /// None if the string is short.
    pub(super) fn new(bytes: &Bytes) -> Option<LongString> {
        (bytes.len() > SHORT_BYTES_MAX).then(|| LongString {
            bytes: bytes.clone(),
            at: 0,
        })
    }

    /// Appends until `out` has `enough` bytes, or the string has ended. Returns whether it has.
    pub(super) fn render(&mut self, out: &mut Vec<u8>, enough: usize) -> bool {
        while self.at < self.bytes.len() {
            if out.len() >= enough {
                return false;
            }
            let most = (enough - out.len()).min(SHORT_BYTES_MAX);
            self.at = json::push_escaped_part(out, &self.bytes, self.at, most);
        }
        true
    }
}

/// A text with long strings in it, and how much of it is rendered. A clone continues where the original is.
#[derive(Clone)]
pub struct LongText {
    /// The text without its long strings, and how much of it is rendered.
    text: Arc<[u8]>,
    at: usize,
    /// The long strings that are not rendered yet, and their positions in the text. The next one is the last here.
    strings: Vec<(usize, LongString)>,
}

impl LongText {
    /// `strings` belong at these positions of `text`, which ascend.
    pub(super) fn new(text: Vec<u8>, mut strings: Vec<(usize, LongString)>) -> LongText {
        strings.reverse();
        LongText {
            text: text.into(),
            at: 0,
            strings,
        }
    }

    /// An address that identifies the first long string, or the text if there is none.
    pub fn source(&self) -> usize {
        let first = self.strings.last();
        first
            .map_or(self.text.as_ptr(), |(_, string)| string.bytes.as_ptr())
            .addr()
    }

    /// Appends at least `at_least` more bytes (always some), or all that are left. Returns whether there is more.
    pub fn render(&mut self, out: &mut Vec<u8>, at_least: usize) -> bool {
        let enough = out.len().saturating_add(at_least.max(1));
        loop {
            let place = self
                .strings
                .last()
                .map_or(self.text.len(), |string| string.0);
            let end = place.min(self.at + enough.saturating_sub(out.len()));
            out.extend_from_slice(&self.text[self.at..end]);
            self.at = end;
            if end == self.text.len() && self.strings.is_empty() {
                return false;
            }
            if out.len() >= enough {
                return true;
            }
            if let Some((_, string)) = self.strings.last_mut()
                && string.render(out, enough)
            {
                self.strings.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{ApiError, COMPARE_FAILED};

    #[test]
    fn parts_together_are_the_whole() {
        let long = "a<é\u{2028}\"\\".repeat(4000);
        for cause in ["", "[a != b]", &long] {
            let error = ApiError::new(COMPARE_FAILED, cause, 7);
            let mut whole = Vec::new();
            error.render(&mut whole);
            for at_least in [1, 100, 20_000, 1 << 20] {
                let (mut text, mut parts) = (error.long_text(), Vec::new());
                loop {
                    let before = parts.len();
                    let more = text.render(&mut parts, at_least);
                    assert!(!more || parts.len() - before >= at_least);
                    if !more {
                        break;
                    }
                }
                assert_eq!(parts, whole, "{at_least} bytes at a time");
            }
        }
    }
}
