//! Numbers and times as etcdctl's options take them: those of Go's flags.

use std::time::Duration;

const BROKEN: &str = "parse error";
const TOO_BIG: &str = "value out of range";

/// A whole number: decimal, or with `0x`, `0o` or `0`, `0b` in front.
pub(super) fn parse_number(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(BROKEN);
    }
    let value = i128::from_str_radix(digits, base).map_err(|_| TOO_BIG)?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| TOO_BIG)
}

const UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// A time with its units, as `2s`, `1m30s` or `0.5s`; a negative one is none.
pub(super) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = unsigned;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let number: f64 = number.parse().map_err(|_| BROKEN)?;
        let size = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or(BROKEN)?
            .1;
        seconds += number * size;
        rest = after;
    }
    if unsigned.is_empty() {
        return Err(BROKEN);
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| TOO_BIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bases_of_go() {
        let table = [
            ("5", Ok(5)),
            ("-5", Ok(-5)),
            ("+5", Ok(5)),
            ("0", Ok(0)),
            ("0x1F", Ok(31)),
            ("010", Ok(8)),
            ("0b11", Ok(3)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("9223372036854775808", Err(TOO_BIG)),
            ("99999999999999999999999999999999999999999", Err(TOO_BIG)),
            ("", Err(BROKEN)),
            ("0x", Err(BROKEN)),
            ("--5", Err(BROKEN)),
            ("5s", Err(BROKEN)),
        ];
        for (text, expected) in table {
            assert_eq!(parse_number(text), expected, "{text}");
        }
    }

    #[test]
    fn times_need_a_unit() {
        let millis = |text| parse_duration(text).map(|time| time.as_millis());
        let table = [
            ("2s", Ok(2000)),
            ("1m30s", Ok(90_000)),
            ("0.5s", Ok(500)),
            ("0", Ok(0)),
            ("-1s", Ok(0)),
            ("5", Err(BROKEN)),
            ("", Err(BROKEN)),
            ("s", Err(BROKEN)),
            ("1s2", Err(BROKEN)),
            ("99999999999999999999h", Err(TOO_BIG)),
        ];
        for (text, expected) in table {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
