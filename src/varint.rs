//! Variable-length numbers: LEB128, seven bits a byte, the lowest first. The top bit of a byte is set while more bytes
//! follow. A `u64` takes one to ten bytes.

/// Why no number could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VarintError {
    /// The bytes end within the number.
    Short,
    /// The number does not fit 64 bits.
    TooLarge,
}

/// Appends a number.
pub fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes [`put`] appends for a number.
pub fn bytes(number: u64) -> usize {
    let bits = (u64::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

/// Takes a number from the front of `rest`.
///
/// # Errors
/// [`VarintError`]. How far `rest` has advanced is then not defined.
pub fn take(rest: &mut &[u8]) -> Result<u64, VarintError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(VarintError::Short)?;
        *rest = after;
        if shift == 63 && byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(VarintError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 127, 128, 300, 16_383, 16_384, u64::MAX - 1, u64::MAX];
        for number in numbers {
            let mut out = Vec::new();
            put(number, &mut out);
            assert_eq!(bytes(number), out.len(), "{number}");
            let mut rest = &out[..];
            assert_eq!(take(&mut rest), Ok(number));
            assert_eq!(rest, b"");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let mut two_to_the_64 = [0x80; 10];
        two_to_the_64[9] = 2;
        let table: [(&[u8], VarintError); 4] = [
            (&[], VarintError::Short),
            (&[0xff; 5], VarintError::Short),
            (&[0xff; 11], VarintError::TooLarge),
            (&two_to_the_64, VarintError::TooLarge),
        ];
        for (bytes, error) in table {
            assert_eq!(take(&mut &bytes[..]), Err(error), "{bytes:x?}");
        }
    }
}
