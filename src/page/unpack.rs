//! Reads what `pack.rs` has compressed, for clients that do not read deflate themselves.

use super::classes;

/// The text of a stream with one block of fixed codes.
///
/// # Panics
/// If the stream is not one that `pack.rs` has made: it is a part of the program.
pub fn inflate(stream: &[u8]) -> String {
    let lengths: Vec<_> = classes::lengths().collect();
    let distances: Vec<_> = classes::distances().collect();
    let mut bits = Bits { stream, at: 0 };
    assert_eq!(bits.number(3), 0b011, "one last block with fixed codes");
    let mut bytes = Vec::new();
    loop {
        match bits.literal() {
            byte @ 0..=255 => bytes.push(byte as u8),
            256 => return String::from_utf8(bytes).expect("the document is text"),
            symbol => {
                let length = bits.of_class(lengths[symbol - 257]);
                let symbol = bits.code(5);
                let distance = bits.of_class(distances[symbol]);
                for _ in 0..length {
                    bytes.push(bytes[bytes.len() - distance]);
                }
            }
        }
    }
}

struct Bits<'a> {
    stream: &'a [u8],
    /// Bits that were read.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> usize {
        let bit = self.stream[self.at / 8] >> (self.at % 8) & 1;
        self.at += 1;
        usize::from(bit)
    }

    /// A number, its lowest bit first.
    fn number(&mut self, count: u32) -> usize {
        (0..count).fold(0, |number, bit| number | self.bit() << bit)
    }

    /// A code, its highest bit first.
    fn code(&mut self, count: u32) -> usize {
        (0..count).fold(0, |code, _| code << 1 | self.bit())
    }

    fn of_class(&mut self, (base, extra): (usize, u32)) -> usize {
        base + self.number(extra)
    }

    /// A byte, the end (256), or a length symbol, by the fixed codes of 7, 8 and 9 bits.
    fn literal(&mut self) -> usize {
        let seven = self.code(7);
        if seven < 0b001_1000 {
            return 256 + seven;
        }
        let eight = seven << 1 | self.bit();
        match eight {
            0x30..0xc0 => eight - 0x30,
            0xc0..0xc8 => 280 + eight - 0xc0,
            _ => 144 + (eight << 1 | self.bit()) - 0x190,
        }
    }
}
