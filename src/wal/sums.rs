//! Computes the checksum of any record in a part of a file, each at the same small cost, after one pass over that part.
//!
//! A CRC is linear. The CRC of a range follows from the CRCs of two prefixes of the part: one ends where the range
//! begins, the other ends where the range ends. Bytes in a value may claim, at every possible record start, to be a
//! record of megabytes. With these sums they cost one pass over the part, and not one pass each.
//!
//! As polynomials over GF(2), modulo the CRC's polynomial: `crc(A B) = crc(A) x^(8 |B|) + crc(B)`. Here a sum is an
//! exclusive or, and an initial value of the CRC is added to `crc(A)`. The hasher's own `combine` computes the power of
//! x again for each range, with up to twenty products. Two tables reduce this to three products.

use super::disk::DiskReader;
use super::error::WalError;
use super::record::{self, Prefix, RECORD_ALIGN};
use super::scan::Window;
use crc32fast::Hasher;

/// Bytes read at once.
const PIECE: u64 = 64 * 1024;
/// The CRC's polynomial, with x^31 in the lowest bit.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// The polynomials 1 and x^32 in that form.
const ONE: u32 = 1 << 31;
const X_32: u32 = POLYNOMIAL;
/// Number of powers in the fine table.
const FINE: usize = 1024;

/// Takes half as much memory as the part of the file that it covers.
pub(super) struct Sums {
    /// Start of the part.
    start: u64,
    /// CRC of the part's prefix, for each place where a record may begin or end.
    beginnings: Vec<u32>,
    /// x^(64 i) for i below `FINE`, and x^(64 FINE i) up to the length of the part.
    fine: Vec<u32>,
    coarse: Vec<u32>,
}

impl Sums {
    /// Sums of everything from `start` on. A record may begin at `start`.
    pub fn read<R: DiskReader>(window: &mut Window<R>, start: u64) -> Result<Sums, WalError> {
        let mut hasher = Hasher::new();
        let mut beginnings = vec![0];
        let mut offset = start;
        while offset < window.bytes() {
            let piece = window.load(offset, PIECE)?;
            for bytes in piece.chunks_exact(RECORD_ALIGN as usize) {
                hasher.update(bytes);
                beginnings.push(hasher.clone().finalize());
            }
            offset += PIECE;
        }
        let fine = powers(product(X_32, X_32), FINE);
        let step = product(fine[FINE - 1], fine[1]);
        let coarse = powers(step, beginnings.len() / FINE + 1);
        Ok(Sums {
            start,
            beginnings,
            fine,
            coarse,
        })
    }

    /// Whether the record that the prefix at `offset` announces has the right checksum.
    pub fn match_record(&self, prefix: &Prefix, salt: u32, offset: u64) -> bool {
        let units = (prefix.record_bytes() / RECORD_ALIGN) as usize;
        let Some(before) = self.up_to(offset) else {
            return false;
        };
        let Some(whole) = self.up_to(offset + prefix.record_bytes()) else {
            return false;
        };
        // The checksum does not cover itself. It takes half a unit, so the power is x^32.
        let mut before = Hasher::new_with_initial(before);
        before.update(&prefix.crc.to_le_bytes());
        let begun = before.finalize() ^ record::checksum_start(salt, offset);
        let power = product(
            self.fine[(units - 1) % FINE],
            self.coarse[(units - 1) / FINE],
        );
        product(product(begun, X_32), power) ^ whole == prefix.crc
    }

    fn up_to(&self, offset: u64) -> Option<u32> {
        let at = offset.checked_sub(self.start)? / RECORD_ALIGN;
        self.beginnings.get(at as usize).copied()
    }
}

/// The first `count` powers of `base`.
fn powers(base: u32, count: usize) -> Vec<u32> {
    let next = |power: &u32| Some(product(*power, base));
    std::iter::successors(Some(ONE), next).take(count).collect()
}

/// Product of two polynomials, modulo the CRC's. It has no branches, because they would be unpredictable.
fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    for bit in (0..32).rev() {
        sum ^= b & (a >> bit & 1).wrapping_neg();
        b = b >> 1 ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::{Disk, FaultyDisk};
    use super::*;
    use std::path::Path;

    const SALT: u32 = 0x1234_5678;

    fn window(bytes: &[u8]) -> Window<<FaultyDisk as Disk>::Reader> {
        let (disk, path) = (FaultyDisk::new(1), Path::new("/file"));
        disk.put(path, bytes);
        Window::new(path, disk.open(path).expect("it is there"), SALT)
    }

    /// Bytes without a pattern.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn they_tell_of_each_range_what_its_own_checksum_tells() {
        let mut bytes = noise(3 * PIECE as usize);
        bytes[100_000..].fill(0);
        let (start, end) = (24, bytes.len() as u64);
        for (offset, size) in [
            (24, 24),
            (24, end - 24),
            (4096, 80_000),
            (65_528, 24),
            (99_992, 24),
            (end - 24, 24),
        ] {
            let record = &bytes[offset as usize..][..size as usize];
            let own = record::checksum(record, SALT, offset);
            // The checksum does not cover its own bytes, so it can be written into them afterwards.
            let mut bytes = bytes.clone();
            bytes[offset as usize..][..4].copy_from_slice(&own.to_le_bytes());
            let sums = Sums::read(&mut window(&bytes), start).expect("read");
            let mut prefix = Prefix {
                crc: own,
                length: size as u32 - 12,
                durable: 0,
                kind: 2,
            };
            assert!(sums.match_record(&prefix, SALT, offset), "{offset}, {size}");
            assert!(!sums.match_record(&prefix, SALT + 1, offset));
            prefix.length -= 8;
            assert!(!sums.match_record(&prefix, SALT, offset));
            prefix.length = end as u32;
            assert!(!sums.match_record(&prefix, SALT, offset), "beyond the end");
        }
    }
}
