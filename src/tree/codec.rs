//! Encodes fields as bytes and decodes them, for commands and snapshots.
//!
//! Numbers are LEB128 varints: seven bits per byte, lowest first, with the top bit set in every byte except the last,
//! at most ten bytes. A string is its length as a varint, followed by its bytes.

use crate::varint::{self, VarintError};
use std::fmt;

/// Why bytes of a log or a snapshot cannot be decoded. This version did not write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// Why a field could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// The bytes end within the field.
    Short,
    /// The field is invalid, and more bytes would not help.
    Bad(Malformed),
}

impl From<Malformed> for Unread {
    fn from(malformed: Malformed) -> Unread {
        Unread::Bad(malformed)
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    varint::put(number, out);
}

/// Encodes a signed number so that small numbers of either sign stay short.
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put_number(out, ((number << 1) ^ (number >> 63)) as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields from the front of a byte string.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Number of bytes that have not been read.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    pub fn byte(&mut self) -> Result<u8, Unread> {
        let (&byte, rest) = self.rest.split_first().ok_or(Unread::Short)?;
        self.rest = rest;
        Ok(byte)
    }

    pub fn number(&mut self) -> Result<u64, Unread> {
        varint::take(&mut self.rest).map_err(|error| match error {
            VarintError::Short => Unread::Short,
            VarintError::TooLarge => Malformed("a number of more than 64 bits").into(),
        })
    }

    pub fn signed(&mut self) -> Result<i64, Unread> {
        let folded = self.number()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Unread> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Unread::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Unread> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Unread::Short)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for number in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            put_signed(&mut out, number as i64);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.number(), Ok(number));
            assert_eq!(reader.signed(), Ok(number as i64));
            assert_eq!(reader.left(), 0);
        }
    }

    #[test]
    fn an_endless_number_is_refused() {
        assert!(matches!(
            Reader::new(&[0xff; 11]).number(),
            Err(Unread::Bad(_))
        ));
        assert!(matches!(
            Reader::new(&[0xff; 5]).number(),
            Err(Unread::Short)
        ));
        let mut two_to_the_64 = [0x80; 10];
        two_to_the_64[9] = 2;
        assert!(matches!(
            Reader::new(&two_to_the_64).number(),
            Err(Unread::Bad(_))
        ));
    }
}
