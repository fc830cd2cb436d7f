//! Checksums of any records of a part of a file, each at the same small price, after one pass over it.
//!
//! A CRC is linear: that of a range follows from those of the two beginnings that end where the range
//! begins and ends, whatever is between. So bytes that claim to be a record of megabytes, at every
//! place where a record may begin, cost one pass and not one for each of them.
//!
//! As polynomials over GF(2), modulo the CRC's own: `crc(A B) = crc(A) x^(8 |B|) + crc(B)`, where a
//! sum is an exclusive or, and starting a CRC from a number adds that number to `crc(A)`. The hasher's
//! own `combine` reckons the power of x anew for each range, with up to twenty products; two tables
//! make it three in all.

use super::disk::DiskReader;
use super::error::WalError;
use super::record::{self, Prefix, RECORD_ALIGN};
use super::scan::Window;
use crc32fast::Hasher;

/// What is read at once.
const PIECE: u64 = 64 * 1024;
/// The CRC's polynomial, x^31 in the lowest bit.
const POLYNOMIAL: u32 = 0xedb8_8320;
/// One, and x^32, as polynomials of that form.
const ONE: u32 = 1 << 31;
const X_32: u32 = POLYNOMIAL;
/// Powers in the finer table.
const FINE: usize = 1024;

/// Half as large as the part of the file it is of.
pub(super) struct Sums {
    /// Where the part begins.
    start: u64,
    /// The CRC of the part's beginning, for each place in it where a record may begin or end.
    beginnings: Vec<u32>,
    /// x^(64 i) for i below `FINE`, and x^(64 FINE i) as far as the part reaches.
    fine: Vec<u32>,
    coarse: Vec<u32>,
}

impl Sums {
    /// Of everything from `start` on, a place where a record may begin.
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

    /// Whether the record that the prefix at `offset` promises has the checksum that it should.
    pub fn match_record(&self, prefix: &Prefix, salt: u32, offset: u64) -> bool {
        let units = (prefix.record_bytes() / RECORD_ALIGN) as usize;
        let Some(before) = self.up_to(offset) else {
            return false;
        };
        let Some(whole) = self.up_to(offset + prefix.record_bytes()) else {
            return false;
        };
        // The checksum leaves itself out, which is half a unit: x^32.
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

/// Of two polynomials, modulo the CRC's. Without branches: they would be taken by chance.
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
    use super::super::{Disk, LyingDisk};
    use super::*;
    use std::path::Path;

    const SALT: u32 = 0x1234_5678;

    fn window(bytes: &[u8]) -> Window<<LyingDisk as Disk>::Reader> {
        let (disk, path) = (LyingDisk::new(1), Path::new("/file"));
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
            // The checksum's place is before what it is of, so it can be put there afterwards.
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
