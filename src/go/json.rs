//! The syntax errors of Go's `encoding/json`, whose texts etcd sends to clients.
//!
//! The JSON library of this program describes errors in other words. So a body is first scanned here, byte by byte as
//! Go does. A byte that is not ASCII is shown as the character with its number. If a word or a number ends with the
//! body, Go complains about a blank.

/// Arrays and objects that may be open at the same time.
const DEPTH_MAX: usize = 10_000;

const UNEXPECTED_END: &str = "unexpected end of JSON input";

/// The tokens that may follow, apart from blanks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    /// The first item of an array, or its end.
    ItemOrEnd,
    Name,
    /// The first name of an object, or its end.
    NameOrEnd,
    Colon,
    /// A comma or an end, or the end of the body.
    AfterValue,
}

/// Checks that `body` is one JSON value.
///
/// # Errors
/// Go's text for the first error.
pub fn check(body: &[u8]) -> Result<(), String> {
    use Expected::{AfterValue, Colon, ItemOrEnd, Name, NameOrEnd, Value};
    let mut scan = Scan { body, at: 0 };
    // The closing brackets of the open lists and objects.
    let mut open: Vec<u8> = Vec::new();
    let mut expected = Value;
    while let Some(byte) = scan.token() {
        expected = match (expected, byte, open.last()) {
            (Value | ItemOrEnd, b'{' | b'[', _) => {
                open.push(if byte == b'{' { b'}' } else { b']' });
                if open.len() > DEPTH_MAX {
                    return Err(invalid(byte, "exceeded max depth"));
                }
                if byte == b'{' { NameOrEnd } else { ItemOrEnd }
            }
            (ItemOrEnd, b']', _) | (NameOrEnd, b'}', _) => {
                open.pop();
                AfterValue
            }
            (Value | ItemOrEnd, _, _) => {
                scan.scalar(byte)?;
                AfterValue
            }
            (Name | NameOrEnd, b'"', _) => {
                scan.string()?;
                Colon
            }
            (Name | NameOrEnd, _, _) => {
                return Err(invalid(byte, "looking for beginning of object key string"));
            }
            (Colon, b':', _) => Value,
            (Colon, _, _) => return Err(invalid(byte, "after object key")),
            (AfterValue, _, None) => return Err(invalid(byte, "after top-level value")),
            (AfterValue, _, Some(end)) if byte == *end => {
                open.pop();
                AfterValue
            }
            (AfterValue, b',', Some(b'}')) => Name,
            (AfterValue, b',', Some(_)) => Value,
            (AfterValue, _, Some(b'}')) => {
                return Err(invalid(byte, "after object key:value pair"));
            }
            (AfterValue, _, Some(_)) => return Err(invalid(byte, "after array element")),
        };
    }
    match expected == AfterValue && open.is_empty() {
        true => Ok(()),
        false => Err(UNEXPECTED_END.to_owned()),
    }
}

/// The bytes of a body from a position on.
struct Scan<'a> {
    body: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    /// Takes the next byte that is not a blank.
    fn token(&mut self) -> Option<u8> {
        let rest = &self.body[self.at..];
        let blanks = rest.iter().take_while(|byte| b" \t\r\n".contains(byte));
        self.at += blanks.count() + 1;
        self.body.get(self.at - 1).copied()
    }

    /// The next byte, or a blank at the end.
    fn peek(&self) -> u8 {
        self.body.get(self.at).copied().unwrap_or(b' ')
    }

    /// Takes the next byte if it satisfies `is_right`.
    fn take(&mut self, is_right: impl Fn(u8) -> bool, place: &str) -> Result<(), String> {
        let byte = self.peek();
        if !is_right(byte) {
            return Err(invalid(byte, place));
        }
        self.at += 1;
        Ok(())
    }

    fn digits(&mut self, place: &str) -> Result<(), String> {
        self.take(|byte| byte.is_ascii_digit(), place)?;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// Takes the rest of a string, number or word that begins with `first`.
    fn scalar(&mut self, first: u8) -> Result<(), String> {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(first),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => Err(invalid(first, "looking for beginning of value")),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        word.chars().skip(1).try_for_each(|letter| {
            let place = format!("in literal {word} (expecting '{letter}')");
            self.take(|byte| char::from(byte) == letter, &place)
        })
    }

    fn number(&mut self, first: u8) -> Result<(), String> {
        let (own, exponent) = ("in numeric literal", "in exponent of numeric literal");
        if first != b'-' {
            self.at -= 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            _ => self.digits(own)?,
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if b"eE".contains(&self.peek()) {
            self.at += 1;
            self.at += usize::from(b"+-".contains(&self.peek()));
            self.digits(exponent)?;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        while let Some(&byte) = self.body.get(self.at) {
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0..=0x1f => return Err(invalid(byte, "in string literal")),
                _ => {}
            }
        }
        Err(UNEXPECTED_END.to_owned())
    }

    fn escape(&mut self) -> Result<(), String> {
        let byte = self.peek();
        self.take(
            |byte| b"bfnrt\\/\"u".contains(&byte),
            "in string escape code",
        )?;
        let digits = if byte == b'u' { 4 } else { 0 };
        (0..digits).try_for_each(|_| {
            let place = "in \\u hexadecimal character escape";
            self.take(|byte| byte.is_ascii_hexdigit(), place)
        })
    }
}

/// Go shows the byte as a character in single quotes.
fn invalid(byte: u8, place: &str) -> String {
    let mut shown = String::new();
    match byte {
        b'\'' => shown.push_str("\\'"),
        _ => super::escape(char::from(byte), &mut shown),
    }
    format!("invalid character '{shown}' {place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers of etcd 3.4.23. `golden/broken-json.json` has those to bodies in UTF-8.
    #[test]
    fn other_bytes_are_shown_by_their_number() {
        let start = "looking for beginning of value";
        let table: [(&[u8], &str); 9] = [
            (b"\xe9", "'é' looking"),
            (b"\x80", r"'\u0080' looking"),
            (b"\xff", "'ÿ' looking"),
            (b"\xad", r"'\u00ad' looking"),
            (b"\xa0", r"'\u00a0' looking"),
            (b"\x7f", r"'\x7f' looking"),
            (b"\xef\xbb\xbf{}", "'ï' looking"),
            (b"\xc2\xa0", "'Â' looking"),
            (b"\"\\\xe9", "'é' in string escape code"),
        ];
        for (body, expected) in table {
            let expected = expected.replace("looking", start);
            let expected = format!("invalid character {expected}");
            assert_eq!(check(body), Err(expected), "{body:?}");
        }
        assert_eq!(check(b"\"\xff\""), Ok(()), "not UTF-8, but a string");
    }

    #[test]
    fn the_depth_is_limited() {
        let deep = |count| [vec![b'['; count], vec![b']'; count]].concat();
        assert_eq!(check(&deep(DEPTH_MAX)), Ok(()));
        let error = "invalid character '[' exceeded max depth".to_owned();
        assert_eq!(check(&deep(DEPTH_MAX + 1)), Err(error));
    }

    #[test]
    fn all_json_is_valid() {
        for body in [
            "{}",
            "[]",
            " \t\r\n[ ] ",
            "0",
            "-0.5e-7",
            "1E+20",
            "true",
            "false",
            "null",
            r#""\"\\\/\b\f\n\r\t\u00aF""#,
            r#"{"":{"a":[1,"b",{}]},"c":[[],{}]}"#,
        ] {
            assert_eq!(check(body.as_bytes()), Ok(()), "{body}");
        }
    }
}
