//! Byte strings: short ones stored inline, long ones shared.
//!
//! Names and values of keys are mostly short. [`Bytes`] stores up to [`INLINE`] bytes without an allocation, so a name
//! lies in the map of its directory itself. Finding a name then touches no other memory, and copying a part of the map
//! (as a persistent map does on the first write after a publication) copies plain bytes. A longer string lies behind a
//! shared pointer, so the tree, its older versions and the events use the same bytes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Length in bytes of the longest string that is stored inline.
pub const INLINE: usize = 22;

/// An immutable byte string of three words, ordered bytewise like `[u8]`.
#[derive(Clone)]
pub struct Bytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

const _: () = assert!(
    size_of::<Bytes>() == 24,
    "a name is three words in every map"
);

impl Bytes {
    /// The empty string.
    pub const fn new() -> Bytes {
        Bytes(Repr::Inline {
            len: 0,
            bytes: [0; INLINE],
        })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::new()
    }
}

impl From<&[u8]> for Bytes {
    fn from(source: &[u8]) -> Bytes {
        if source.len() > INLINE {
            return Bytes(Repr::Shared(Arc::from(source)));
        }
        let mut bytes = [0; INLINE];
        bytes[..source.len()].copy_from_slice(source);
        Bytes(Repr::Inline {
            len: source.len() as u8,
            bytes,
        })
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(source: Vec<u8>) -> Bytes {
        Bytes::from(source.as_slice())
    }
}

impl From<&str> for Bytes {
    fn from(source: &str) -> Bytes {
        Bytes::from(source.as_bytes())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl PartialOrd for Bytes {
    fn partial_cmp(&self, other: &Bytes) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bytes {
    fn cmp(&self, other: &Bytes) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

impl std::hash::Hash for Bytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

/// Formats the bytes as text for assertions and logs. Bytes that are not UTF-8 are replaced.
impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_lengths_come_back_and_are_ordered_as_bytes() {
        let texts: Vec<Vec<u8>> = (0..50).map(|length| vec![b'x'; length]).collect();
        for shorter in &texts {
            let bytes = Bytes::from(shorter.as_slice());
            assert_eq!(bytes.as_slice(), shorter.as_slice());
            assert_eq!(
                matches!(bytes.0, Repr::Inline { .. }),
                shorter.len() <= INLINE
            );
            for longer in &texts {
                assert_eq!(bytes.cmp(&Bytes::from(longer.clone())), shorter.cmp(longer));
            }
        }
    }
}
