//! Writes JSON without a serializer: numbers, strings and the fields of a node, appended to a byte buffer.
//!
//! An event is rendered once for all its watchers, and a listing may have a million nodes. So this code avoids a
//! generic serializer: a string without characters to escape is one copy. The escapes are those of the reference, which
//! are part of its contract. Strings are bytes. Each byte that is not part of valid UTF-8 is written as `\ufffd`.

use super::clock::{ClusterTime, Expiry, WallTime};
use super::node::TreeIndex;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use std::borrow::Cow;
use std::io::{self, Write};

/// Appends a decimal number.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    let (digits, start) = decimal(number);
    out.extend_from_slice(&digits[start..]);
}

/// The numbers from 00 to 99. A division is what a digit costs most, and with this table it serves two digits.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// The digits of a number: the array from the returned index to its end.
fn decimal(number: u64) -> ([u8; 20], usize) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    while rest >= 10 {
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    if rest > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + rest as u8;
    }
    (digits, start)
}

/// Appends a quoted string.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Appends the inside of a string. The parts of a path can be escaped separately, because each byte or character is
/// escaped on its own.
pub fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        return out.extend_from_slice(text);
    }
    let mut rest = text;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => return push_valid(out, valid.as_bytes()),
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                push_valid(out, valid);
                out.extend_from_slice(b"\\ufffd");
                rest = &broken[1..];
            }
        }
    }
}

/// Appends the escaped text of about `most` bytes from `at` on, and returns where the next part begins. The parts together
/// are what [`push_escaped`] appends at once, because no part ends within a character.
pub(super) fn push_escaped_part(out: &mut Vec<u8>, text: &[u8], at: usize, most: usize) -> usize {
    let end = text.len().min(at.saturating_add(most.max(UTF8_BYTES_MAX)));
    // A byte that continues a character has its first byte at most three places before.
    let is_inside = |&place: &usize| text.get(place).is_some_and(|byte| byte & 0xc0 == 0x80);
    let before = (end + 1 - UTF8_BYTES_MAX..=end)
        .rev()
        .find(|place| !is_inside(place));
    let end = before.unwrap_or(end);
    push_escaped(out, &text[at..end]);
    end
}

const UTF8_BYTES_MAX: usize = 4;

/// Whether the text is ASCII without characters that need an escape, as most keys and values are. Then it need not be
/// read again to find out whether it is UTF-8.
fn is_plain(text: &[u8]) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0;
        while byte < 0x80 {
            plain[byte] = !is_special(byte as u8);
            byte += 1;
        }
        plain
    };
    let is_plain = |chunk: &[u8]| {
        let any = |any, &byte: &u8| any | is_special(byte) | (byte >= 0x80);
        !chunk.iter().fold(false, any)
    };
    match text.last_chunk::<SHORT>() {
        None => text.iter().all(|&byte| PLAIN[usize::from(byte)]),
        // The last chunk overlaps with the one before it.
        Some(last) => text.chunks_exact(SHORT).all(is_plain) && is_plain(last),
    }
}

/// Number of bytes that [`is_plain`] tests together.
const SHORT: usize = 16;

/// Appends UTF-8. The text between characters that need an escape is copied.
fn push_valid(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = find_special(text) {
        out.extend_from_slice(&text[..at]);
        let escaped = push_escape(out, &text[at..]);
        text = &text[at + escaped..];
    }
    out.extend_from_slice(text);
}

/// Number of bytes that are tested together. The compiler turns the test of such a chunk into vector instructions.
const CHUNK: usize = 32;

/// Position of the first byte that is escaped, or that may begin an escaped character.
fn find_special(text: &[u8]) -> Option<usize> {
    let is_plain = |chunk: &&[u8]| {
        !chunk
            .iter()
            .fold(false, |any, &byte| any | is_special(byte))
    };
    let plain = text.chunks_exact(CHUNK).take_while(is_plain).count() * CHUNK;
    let rest = text[plain..].iter().position(|&byte| is_special(byte));
    rest.map(|at| plain + at)
}

/// The first byte of U+2028 and U+2029, and of many characters that are not escaped.
const SEPARATOR: u8 = 0xe2;

const fn is_special(byte: u8) -> bool {
    (byte < 0x20)
        | (byte == b'"')
        | (byte == b'\\')
        | (byte == b'<')
        | (byte == b'>')
        | (byte == b'&')
        | (byte == SEPARATOR)
}

/// Appends the escape for the beginning of `text`, which is a special byte. Returns how many bytes of `text` the escape
/// replaces. Like Go, this escapes the characters that are special in HTML and JavaScript, and has no `\b` and `\f`.
fn push_escape(out: &mut Vec<u8>, text: &[u8]) -> usize {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match text {
        [b'"', ..] => out.extend_from_slice(b"\\\""),
        [b'\\', ..] => out.extend_from_slice(b"\\\\"),
        [b'\n', ..] => out.extend_from_slice(b"\\n"),
        [b'\r', ..] => out.extend_from_slice(b"\\r"),
        [b'\t', ..] => out.extend_from_slice(b"\\t"),
        [SEPARATOR, 0x80, last @ (0xa8 | 0xa9), ..] => {
            out.extend_from_slice(b"\\u202");
            out.push(HEX[usize::from(last & 15)]);
            return 3;
        }
        [SEPARATOR, ..] => out.push(SEPARATOR),
        [byte, ..] => {
            let (high, low) = (byte >> 4, byte & 15);
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(high)], HEX[usize::from(low)]]);
        }
        [] => unreachable!("a special byte was found"),
    }
    1
}

/// Text from outside, as the reference's parsers read it: each byte that is not UTF-8 becomes U+FFFD.
pub fn readable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Serializes a value as JSON with the reference's escapes, for small or rare values.
///
/// # Errors
/// The value cannot be serialized. This never happens with plain data.
pub fn to_vec(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, GoEscapes))?;
    Ok(bytes)
}

struct GoEscapes;

impl Formatter for GoEscapes {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut escaped = Vec::with_capacity(fragment.len());
        push_valid(&mut escaped, fragment.as_bytes());
        out.write_all(&escaped)
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let byte = match escape {
            CharEscape::Quote => b'"',
            CharEscape::ReverseSolidus => b'\\',
            CharEscape::Solidus => b'/',
            CharEscape::LineFeed => b'\n',
            CharEscape::CarriageReturn => b'\r',
            CharEscape::Tab => b'\t',
            CharEscape::Backspace => 0x08,
            CharEscape::FormFeed => 0x0c,
            CharEscape::AsciiControl(byte) => byte,
        };
        let mut escaped = Vec::with_capacity(6);
        push_valid(&mut escaped, &[byte]);
        out.write_all(&escaped)
    }
}

/// Appends `,"expiration":"…","ttl":N` for a node with a time to live. Appends nothing for a permanent node, and no
/// `ttl` if 0 seconds are left.
pub(super) fn push_expiry(out: &mut Vec<u8>, expiry: Option<Expiry>, now: ClusterTime) {
    let Some(expiry) = expiry else { return };
    out.extend_from_slice(b",\"expiration\":\"");
    push_time(out, expiry.expiration());
    out.push(b'"');
    let left = expiry.seconds_left(now);
    if left != 0 {
        out.extend_from_slice(b",\"ttl\":");
        if left < 0 {
            out.push(b'-');
        }
        push_number(out, left.unsigned_abs());
    }
}

/// Appends `,"modifiedIndex":…,"createdIndex":…`.
pub(super) fn push_indexes(out: &mut Vec<u8>, modified: TreeIndex, created: TreeIndex) {
    let (digits, start) = decimal(modified.0);
    out.extend_from_slice(b",\"modifiedIndex\":");
    out.extend_from_slice(&digits[start..]);
    out.extend_from_slice(b",\"createdIndex\":");
    match created == modified {
        true => out.extend_from_slice(&digits[start..]),
        false => push_number(out, created.0),
    }
}

/// Appends an RFC 3339 time in UTC with `Z` and up to 9 fraction digits without trailing zeros.
pub fn push_time(out: &mut Vec<u8>, time: WallTime) {
    let written = match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(timestamp) => write!(out, "{timestamp}"),
        Err(error) => unreachable!("64-bit nanoseconds reach 1677 to 2262: {} {error}", time.0),
    };
    debug_assert!(written.is_ok(), "a byte buffer takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn strings_as_the_reference_writes_them() {
        assert_eq!(string(b""), r#""""#);
        assert_eq!(string(b"plain/text"), r#""plain/text""#);
        assert_eq!(string(b"q\"b\\s"), r#""q\"b\\s""#);
        assert_eq!(
            string(b"\n\r\t\x00\x08\x0c\x1f\x7f"),
            "\"\\n\\r\\t\\u0000\\u0008\\u000c\\u001f\x7f\""
        );
        assert_eq!(string("키 é".as_bytes()), "\"키 é\"");
        assert_eq!(
            string("<a href='x'>&\u{2027}\u{2028}\u{2029}\u{202a}“€”".as_bytes()),
            "\"\\u003ca href='x'\\u003e\\u0026\u{2027}\\u2028\\u2029\u{202a}“€”\""
        );
    }

    #[test]
    fn an_escape_is_found_wherever_it_stands() {
        for (raw, escaped) in [
            ("<", "\\u003c"),
            ("\u{2028}", "\\u2028"),
            ("\u{2026}", "\u{2026}"),
        ] {
            for before in 0..70 {
                for after in 0..70 {
                    let (before, after) = ("a".repeat(before), "é".repeat(after));
                    let text = format!("{before}{raw}{after}");
                    assert_eq!(
                        string(text.as_bytes()),
                        format!("\"{before}{escaped}{after}\"")
                    );
                }
            }
        }
    }

    #[test]
    fn parts_together_are_the_whole() {
        let texts: [&[u8]; 4] = [
            "a<é키😀\u{2028}\"".as_bytes(),
            b"\xe2\x80\xa8\x80\x80\x80\x80\x80\x80\xf0\x9f\x98",
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\xff\xff",
            b"\xf0\x9f\x98\x80\xf0\x9f\x98\xf0\x9f\xe2\x80",
        ];
        for text in texts {
            let text = text.repeat(5);
            let mut whole = Vec::new();
            push_escaped(&mut whole, &text);
            for most in 1..40 {
                let (mut parts, mut at) = (Vec::new(), 0);
                while at < text.len() {
                    let next = push_escaped_part(&mut parts, &text, at, most);
                    assert!(next > at && next <= at + most.max(4));
                    at = next;
                }
                assert_eq!(parts, whole, "{most} bytes at a time");
            }
        }
    }

    #[test]
    fn plain_data_has_the_same_escapes() {
        let text = "<a href=\"x\">&\u{2028}\u{8}\u{c}\u{1}\n\r\t\\/ü\x7f</a>";
        let written = to_vec(&text).expect("a string is plain data");
        assert_eq!(String::from_utf8_lossy(&written), string(text.as_bytes()));
    }

    #[test]
    fn every_unreadable_byte_is_replaced_by_itself() {
        assert_eq!(string(b"\xff\xe2\x82x"), r#""\ufffd\ufffd\ufffdx""#);
        assert_eq!(
            string(b"a\xed\xa0\x80b"),
            r#""a\ufffd\ufffd\ufffdb""#,
            "a surrogate is no character"
        );
        assert_eq!(string(b"\xc3\xa9\xc3"), "\"é\\ufffd\"");
    }

    #[test]
    fn any_bytes_give_a_string_that_a_parser_reads() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let text = string(&[first, second, b'x']);
                let read: String = serde_json::from_str(&text).expect("valid JSON");
                assert!(read.ends_with('x'), "{first} {second}: {text}");
            }
        }
    }

    #[test]
    fn numbers_and_times() {
        let mut out = Vec::new();
        push_number(&mut out, 0);
        out.push(b' ');
        push_number(&mut out, u64::MAX);
        out.push(b' ');
        push_time(&mut out, WallTime(1_500_000_000));
        out.push(b' ');
        push_time(&mut out, WallTime(i64::MAX));
        out.push(b' ');
        push_time(&mut out, WallTime(i64::MIN));
        let text = "0 18446744073709551615 1970-01-01T00:00:01.5Z 2262-04-11T23:47:16.854775807Z \
                    1677-09-21T00:12:43.145224192Z";
        assert_eq!(String::from_utf8_lossy(&out), text);
    }
}
