//! Decodes chunked request bodies in place.
//!
//! The decoder gets the bytes that have arrived, and moves the data of the chunks together, to the beginning of the
//! body. At most a few bytes of framing remain, so a buffer never holds more than the body itself. The decoder is as
//! strict as the one for the head: a size consists only of hexadecimal digits before CR LF or an extension, and a line
//! ends with CR LF. Extensions and trailers are dropped, but their total size is limited in relation to the data.
//! Otherwise a body of one-byte chunks with long extensions would cost its sender little and this server a long scan.

/// Bytes of framing that a body may have in addition to what its data allows.
const FRAMING_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the digits of a size; the number of digits so far.
    Size(u8),
    /// After `;`, before the CR.
    Extension,
    /// After the CR of a size line.
    SizeEnd,
    /// In the data; the remaining size counts down.
    Data,
    /// After the data: CR, then LF.
    DataCr,
    DataLf,
    /// Four places: at the beginning of a trailer line, in one, after the CR of one, and after the CR of the last.
    Trailer,
    TrailerLine,
    TrailerEnd,
    LastEnd,
    Done,
}

/// The result of a call of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Bytes consumed from the input.
    pub taken: usize,
    /// Bytes of data written.
    pub data: usize,
}

/// The framing is invalid: 400, and the end of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The decoder's position in a chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    place: Place,
    size: u64,
    framing: usize,
}

impl Chunked {
    pub fn new() -> Chunked {
        Chunked {
            place: Place::Size(0),
            size: 0,
            framing: 0,
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// Remaining bytes of the present chunk. The body is longer by at least this number.
    pub fn promised(&self) -> u64 {
        self.size
    }

    /// Decodes `bytes[from..]`, and writes the data to `bytes[to..]`; `to` is at most `from`. Consumes everything up to
    /// the body's end.
    pub fn decode(
        &mut self,
        bytes: &mut [u8],
        from: usize,
        to: usize,
    ) -> Result<Decoded, Malformed> {
        debug_assert!(to <= from && from <= bytes.len());
        let (mut at, mut end) = (from, to);
        while at < bytes.len() && self.place != Place::Done {
            if self.place == Place::Data {
                let length = self.size.min((bytes.len() - at) as u64) as usize;
                bytes.copy_within(at..at + length, end);
                at += length;
                end += length;
                self.took_data(length);
            } else {
                self.frame(bytes[at])?;
                at += 1;
            }
        }
        Ok(Decoded {
            taken: at - from,
            data: end - to,
        })
    }

    fn took_data(&mut self, length: usize) {
        self.size -= length as u64;
        // Data allows more framing: a sender may use any number of small chunks.
        self.framing = self.framing.saturating_sub(2 * length);
        if self.size == 0 {
            self.place = Place::DataCr;
        }
    }

    /// Processes one byte outside of the data.
    fn frame(&mut self, byte: u8) -> Result<(), Malformed> {
        self.framing += 1;
        if self.framing > FRAMING_BYTES_MAX {
            return Err(Malformed);
        }
        self.place = match (self.place, byte) {
            (Place::Size(digits), _) if digits < 16 && byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).ok_or(Malformed)?;
                self.size = self.size << 4 | u64::from(digit);
                Place::Size(digits + 1)
            }
            (Place::Size(1..), b';') => Place::Extension,
            (Place::Size(1..) | Place::Extension, b'\r') => Place::SizeEnd,
            (Place::Extension, _) if is_text(byte) => Place::Extension,
            (Place::SizeEnd, b'\n') if self.size == 0 => Place::Trailer,
            (Place::SizeEnd, b'\n') => Place::Data,
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => {
                self.framing = self.framing.saturating_sub(16);
                Place::Size(0)
            }
            (Place::Trailer, b'\r') => Place::LastEnd,
            (Place::TrailerLine, b'\r') => Place::TrailerEnd,
            (Place::Trailer | Place::TrailerLine, _) if is_text(byte) => Place::TrailerLine,
            (Place::TrailerEnd, b'\n') => Place::Trailer,
            (Place::LastEnd, b'\n') => Place::Done,
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `body` in reads of `step` bytes, as a connection does.
    fn decode(body: &[u8], step: usize) -> Result<(Vec<u8>, usize), Malformed> {
        let (mut decoder, mut bytes, mut end, mut taken) = (Chunked::new(), Vec::new(), 0, 0);
        for part in body.chunks(step) {
            let from = bytes.len();
            bytes.extend_from_slice(part);
            let decoded = decoder.decode(&mut bytes, from, end)?;
            end += decoded.data;
            taken += decoded.taken;
            bytes.truncate(end);
            if decoder.is_done() {
                return Ok((bytes, taken));
            }
        }
        Ok((bytes, usize::MAX))
    }

    #[test]
    fn chunks_come_together_whatever_the_reads() {
        let body = b"4\r\nWiki\r\n5;x=\"y\"\r\npedia\r\n000\r\nTrailer: x\r\n\r\nGET /next";
        for step in 1..=body.len() {
            let next = body.len() - b"GET /next".len();
            assert_eq!(
                decode(body, step),
                Ok((b"Wikipedia".to_vec(), next)),
                "step {step}"
            );
        }
    }

    #[test]
    fn broken_framing_is_refused() {
        let broken: [&[u8]; 13] = [
            b"4\nWiki\r\n0\r\n\r\n",
            b"4 \r\nWiki\r\n0\r\n\r\n",
            b" 4\r\nWiki\r\n0\r\n\r\n",
            b"+4\r\nWiki\r\n0\r\n\r\n",
            b"-4\r\nWiki\r\n0\r\n\r\n",
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b"\r\n\r\n",
            b";x\r\n",
            b"4\r\nWikiX\r\n0\r\n\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"4;a\nb\r\nWiki\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"0\r\n\n",
        ];
        for body in broken {
            assert_eq!(
                decode(body, body.len()),
                Err(Malformed),
                "{:?}",
                body.escape_ascii()
            );
            assert_eq!(decode(body, 1), Err(Malformed), "{:?}", body.escape_ascii());
        }
    }

    #[test]
    fn framing_without_data_has_an_end() {
        let endless = format!("1;{}\r\nx\r\n", "e".repeat(3000)).repeat(8);
        assert_eq!(decode(endless.as_bytes(), 4096), Err(Malformed));
        let small = "1\r\nx\r\n".repeat(100_000);
        assert_eq!(
            decode(small.as_bytes(), 4096).map(|(data, _)| data.len()),
            Ok(100_000)
        );
    }
}
