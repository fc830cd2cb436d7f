//! Names and values of a request: the query and the form body as one list (spec §4.1).

use super::content_type::is_form;
use super::target::hex;

/// The names that any endpoint uses. Only their first values are stored, so memory and time do not depend on how many
/// pairs a client sends.
const NAMES: [&str; 15] = [
    "value",
    "prevValue",
    "prevIndex",
    "prevExist",
    "ttl",
    "dir",
    "recursive",
    "sorted",
    "wait",
    "waitIndex",
    "stream",
    "quorum",
    "refresh",
    "noValueOnSuccess",
    "local",
];

/// Length of the longest known name with every byte escaped.
const NAME_BYTES_MAX: usize = 3 * 16;

/// Bytes of a form that are read in one turn. The slowest forms take about ten nanoseconds per byte, so a turn takes
/// about a millisecond.
const TURN_BYTES: usize = 128 << 10;

/// The first value of each known name. A value in the body has precedence over one in the query.
#[derive(Debug, Default)]
pub struct Form<'a> {
    texts: [&'a [u8]; TEXTS],
    values: Values,
}

/// The body and the query.
const TEXTS: usize = 2;

/// The first value of each of [`NAMES`], if there is one.
type Values = [Option<Value>; NAMES.len()];

/// An unescaped value.
#[derive(Debug)]
enum Value {
    /// Contained no escapes: it is this range of that text.
    Plain { text: usize, from: usize, to: usize },
    /// A copy without the escapes.
    Unescaped(Vec<u8>),
}

/// The state of a request's body.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// The body is not read for this method.
    Ignored,
    /// The complete body: at most `Limits::body_bytes` of the HTTP server.
    Complete {
        /// The header as received. If it is absent or empty, the body is not a form and is not parsed.
        content_type: Option<&'a [u8]>,
        /// The body without transfer coding.
        bytes: &'a [u8],
    },
    /// Longer than that. That is an error if it is a form, and has no effect otherwise.
    TooLarge {
        /// As in [`Body::Complete`]. An invalid content type is reported before the length.
        content_type: Option<&'a [u8]>,
    },
}

/// The result of one turn of [`Form::read`].
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "each request makes a form, which is moved once; a box would cost each an allocation"
)]
pub enum Reading<'a> {
    /// The form is read completely.
    Whole(Form<'a>),
    /// Reading continues in another turn.
    Part(Box<Progress>),
}

/// How far a form has been read.
#[derive(Debug, Default)]
pub struct Progress {
    values: Values,
    /// The text that is being read, and the position in it.
    text: usize,
    at: usize,
    place: Place,
}

/// The reader's position within a pair.
#[derive(Debug, Default)]
enum Place {
    /// At its beginning.
    #[default]
    Start,
    /// In a name that is too long to be a known one.
    Name,
    /// In a value that is not stored. An invalid escape in it is an error nevertheless.
    Skipped,
    /// In the value of a known name, which begins at `from`. `copy` contains its unescaped part so far; `None` if
    /// nothing was escaped.
    Kept {
        name: usize,
        from: usize,
        copy: Option<Vec<u8>>,
    },
}

impl<'a> Form<'a> {
    /// Reads body and query of any length in one turn. An error in the body is reported before one in the query.
    ///
    /// # Errors
    /// The cause text of error 210.
    pub fn parse(query: Option<&'a [u8]>, body: Body<'a>) -> Result<Form<'a>, String> {
        let mut progress = None;
        loop {
            match Form::read(query, body, progress)? {
                Reading::Whole(form) => return Ok(form),
                Reading::Part(part) => progress = Some(part),
            }
        }
    }

    /// Does one turn of [`Form::parse`]. The caller passes the same query and body in each turn, and the progress that
    /// the previous turn returned.
    ///
    /// # Errors
    /// Like [`Form::parse`].
    pub fn read(
        query: Option<&'a [u8]>,
        body: Body<'a>,
        progress: Option<Box<Progress>>,
    ) -> Result<Reading<'a>, String> {
        let body = match body {
            Body::Ignored => None,
            Body::Complete {
                content_type,
                bytes,
            } => is_form(content_type)?.then_some(bytes),
            Body::TooLarge { content_type } => match is_form(content_type)? {
                true => return Err("http: POST too large".into()),
                false => None,
            },
        };
        let texts = [body.unwrap_or_default(), query.unwrap_or_default()];
        let mut progress = progress.map_or_else(Progress::default, |progress| *progress);
        let mut budget = TURN_BYTES;
        while let Some(text) = texts.get(progress.text) {
            progress.read(text, &mut budget)?;
            if budget == 0 && progress.text < TEXTS {
                return Ok(Reading::Part(Box::new(progress)));
            }
        }
        let values = progress.values;
        Ok(Reading::Whole(Form { texts, values }))
    }

    /// The first value of that name. It may be empty.
    ///
    /// # Panics
    /// If the name is not one of the known names.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        let Some(at) = known(name.as_bytes()) else {
            unreachable!("{name} is not kept by forms")
        };
        Some(match self.values[at].as_ref()? {
            Value::Plain { text, from, to } => &self.texts[*text][*from..*to],
            Value::Unescaped(bytes) => bytes,
        })
    }
}

impl Progress {
    /// Continues in `text` until it ends or the budget is used up.
    fn read(&mut self, text: &[u8], budget: &mut usize) -> Result<(), String> {
        // The reference checks for a semicolon in the whole text before it reports an invalid escape.
        if self.at == 0 && text.contains(&b';') {
            return Err("invalid semicolon separator in query".into());
        }
        while self.at < text.len() && *budget > 0 {
            let before = self.at;
            match self.place {
                Place::Start => self.read_name(text)?,
                _ => self.read_run(text, *budget)?,
            }
            *budget = budget.saturating_sub(self.at - before);
        }
        if self.at == text.len() {
            self.end_pair();
            (self.text, self.at) = (self.text + 1, 0);
        }
        Ok(())
    }

    /// At the beginning of a pair: reads the name, unless it is too long to be a known one.
    fn read_name(&mut self, text: &[u8]) -> Result<(), String> {
        let rest = &text[self.at..];
        let near = &rest[..rest.len().min(NAME_BYTES_MAX + 1)];
        let end = near.iter().position(|byte| matches!(byte, b'&' | b'='));
        let Some(end) = end.or((near.len() == rest.len()).then_some(rest.len())) else {
            self.place = Place::Name;
            return Ok(());
        };
        let name = number_of(&rest[..end])?;
        self.at += end + usize::from(rest.get(end) == Some(&b'='));
        self.place = match name {
            Some(name) if self.values[name].is_none() => Place::Kept {
                name,
                from: self.at,
                copy: None,
            },
            _ => Place::Skipped,
        };
        Ok(())
    }

    /// In a name or a value: reads to its end or past an escape, or as far as the budget allows.
    fn read_run(&mut self, text: &[u8], budget: usize) -> Result<(), String> {
        let from = self.at;
        let most = &text[from..text.len().min(from + budget)];
        let run = match self.place {
            Place::Name => most
                .iter()
                .position(|byte| matches!(byte, b'&' | b'=' | b'%')),
            Place::Kept { .. } => most
                .iter()
                .position(|byte| matches!(byte, b'&' | b'%' | b'+')),
            _ => most.iter().position(|byte| matches!(byte, b'&' | b'%')),
        };
        self.at = from + run.unwrap_or(most.len());
        if let Place::Kept {
            copy: Some(copy), ..
        } = &mut self.place
        {
            copy.extend_from_slice(&text[from..self.at]);
        }
        if run.is_none() {
            return Ok(());
        }
        match text[self.at] {
            b'&' => {
                self.end_pair();
                self.at += 1;
            }
            b'=' => {
                self.place = Place::Skipped;
                self.at += 1;
            }
            _ => self.read_escape(text)?,
        }
        Ok(())
    }

    /// At a `%` or, in a value that is stored, a `+`.
    fn read_escape(&mut self, text: &[u8]) -> Result<(), String> {
        let near = &text[self.at..text.len().min(self.at + 3)];
        let in_name = matches!(self.place, Place::Name);
        let is_end = |byte: &u8| *byte == b'&' || in_name && *byte == b'=';
        let end = near.iter().position(is_end).unwrap_or(near.len());
        let (byte, taken) = unescape_one(&near[..end])?;
        if let Place::Kept { from, copy, .. } = &mut self.place {
            let copy = copy.get_or_insert_with(|| text[*from..self.at].to_vec());
            copy.push(byte);
        }
        self.at += taken;
        Ok(())
    }

    /// The pair ends here.
    fn end_pair(&mut self) {
        let Place::Kept { name, from, copy } = std::mem::take(&mut self.place) else {
            return;
        };
        self.values[name] = Some(match copy {
            Some(copy) => Value::Unescaped(copy),
            None => Value::Plain {
                text: self.text,
                from,
                to: self.at,
            },
        });
    }
}

/// The number of a name that may contain escapes, if it is a known one.
fn number_of(name: &[u8]) -> Result<Option<usize>, String> {
    if !name.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Ok(known(name));
    }
    let mut unescaped = Vec::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let (byte, taken) = unescape_one(rest)?;
        unescaped.push(byte);
        rest = &rest[taken..];
    }
    Ok(known(&unescaped))
}

/// The number of a known name.
fn known(name: &[u8]) -> Option<usize> {
    NAMES.iter().position(|known| known.as_bytes() == name)
}

/// The first byte that `text` encodes, and the length of its encoding. `text` is not empty.
fn unescape_one(text: &[u8]) -> Result<(u8, usize), String> {
    match text[0] {
        b'+' => Ok((b' ', 1)),
        b'%' => Ok((escape(text)?, 3)),
        byte => Ok((byte, 1)),
    }
}

/// The byte encoded by the `%XX` at the start of `text`.
fn escape(text: &[u8]) -> Result<u8, String> {
    let digits = text
        .get(1..3)
        .and_then(|digits| Some((hex(digits[0])?, hex(digits[1])?)));
    match digits {
        Some((high, low)) => Ok(high << 4 | low),
        None => {
            let shown = quote(&text[..text.len().min(3)]);
            Err(format!("invalid URL escape {shown}"))
        }
    }
}

/// Text in double quotes, with non-printable bytes escaped.
fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\x07' => quoted.push_str("\\a"),
                '\x08' => quoted.push_str("\\b"),
                '\x0c' => quoted.push_str("\\f"),
                '\x0b' => quoted.push_str("\\v"),
                other if other.is_control() && other.is_ascii() => {
                    quoted.push_str(&format!("\\x{:02x}", other as u32));
                }
                other if other.is_control() => quoted.push_str(&format!("\\u{:04x}", other as u32)),
                other => quoted.push(other),
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")));
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form_body<'a>(content_type: &'a str, bytes: &'a str) -> Body<'a> {
        Body::Complete {
            content_type: Some(content_type.as_bytes()),
            bytes: bytes.as_bytes(),
        }
    }

    fn value(query: &str, body: Body<'_>, name: &str) -> String {
        match Form::parse(Some(query.as_bytes()), body) {
            Ok(form) => match form.first(name) {
                Some(value) => String::from_utf8_lossy(value).into_owned(),
                None => "absent".into(),
            },
            Err(cause) => format!("error: {cause}"),
        }
    }

    #[test]
    fn reads_pairs_as_the_reference_does() {
        let table = [
            ("value=a+b%21", "a b!"),
            ("value", ""),
            ("&&value=1&value=2", "1"),
            ("VALUE=1", "absent"),
            ("value=a=b", "a=b"),
            ("value=%zz", "error: invalid URL escape \"%zz\""),
            ("value=%4", "error: invalid URL escape \"%4\""),
            ("a;value=1", "error: invalid semicolon separator in query"),
            ("value=%zz&;", "error: invalid semicolon separator in query"),
        ];
        for (query, wanted) in table {
            assert_eq!(value(query, Body::Ignored, "value"), wanted, "of {query:?}");
        }
    }

    #[test]
    fn the_body_comes_first_if_it_is_a_form() {
        const FORM: &str = "application/x-www-form-urlencoded";
        let with = |content_type: &str| {
            value(
                "value=query",
                form_body(content_type, "value=body"),
                "value",
            )
        };
        assert_eq!(with(FORM), "body");
        assert_eq!(
            with("Application/X-WWW-Form-Urlencoded; charset=\"utf-8\";"),
            "body"
        );
        assert_eq!(with("text/plain"), "query");
        assert_eq!(with(""), "query");
        assert_eq!(
            with("application/x-www-form-urlencoded; x"),
            "error: mime: invalid media parameter"
        );
        assert_eq!(with("a b"), "error: mime: expected slash after first token");
        assert_eq!(with("a/"), "error: mime: expected token after slash");
        assert_eq!(
            with("a/b c"),
            "error: mime: unexpected content after media subtype"
        );
        assert_eq!(with("/b"), "error: mime: no media type");
        assert_eq!(
            with("a/b; c=1; C=2"),
            "error: mime: duplicate parameter name"
        );
    }

    #[test]
    fn a_body_over_the_limit_is_an_error_only_as_a_form() {
        let body = |content_type: &'static str| Body::TooLarge {
            content_type: Some(content_type.as_bytes()),
        };
        let form = value(
            "value=query",
            body("application/x-www-form-urlencoded"),
            "value",
        );
        assert_eq!(form, "error: http: POST too large");
        assert_eq!(value("value=query", body("text/plain"), "value"), "query");
    }

    fn turns(query: &[u8], body: &[u8]) -> (usize, String) {
        let content_type = Some(&b"application/x-www-form-urlencoded"[..]);
        let body = Body::Complete {
            content_type,
            bytes: body,
        };
        let (mut turns, mut progress) = (1, None);
        loop {
            match Form::read(Some(query), body, progress) {
                Err(error) => return (turns, format!("error: {error}")),
                Ok(Reading::Part(part)) => progress = Some(part),
                Ok(Reading::Whole(form)) => {
                    let value = form.first("value").unwrap_or(b"none");
                    return (turns, format!("{} bytes", value.len()));
                }
            }
            turns += 1;
        }
    }

    /// A turn is short, however many pairs the form has.
    #[test]
    fn long_forms_are_read_in_turns() {
        let table = [
            ("a&".repeat(1 << 20), "none"),
            ("a&".repeat(1 << 18) + "value=x", "1"),
            ("&".repeat(2 << 20), "none"),
            (format!("value={}", "%41".repeat(1 << 18)), "262144"),
            (format!("value={}", "+".repeat(1 << 20)), "1048576"),
            (format!("value={}", "v".repeat(1 << 20)), "1048576"),
            (format!("x{}=%41&value=y", "%41".repeat(1 << 18)), "1"),
            (format!("x={}&value=y", "%41=".repeat(1 << 18)), "1"),
        ];
        for (text, wanted) in table {
            let start = &text[..20];
            let (count, found) = turns(b"value=q1", text.as_bytes());
            let wanted = match wanted {
                "none" => "2 bytes".into(),
                length => format!("{length} bytes"),
            };
            assert_eq!(found, wanted, "{start}");
            assert!(count >= text.len() / TURN_BYTES, "{start}: {count} turns");
            let (count, _) = turns(text.as_bytes(), b"");
            assert!(count >= text.len() / TURN_BYTES, "{start}: {count} turns");
        }
    }

    /// The result does not depend on where a turn ends.
    #[test]
    fn turns_end_anywhere() {
        let filler = "x&".repeat(TURN_BYTES / 2 - 20);
        for (text, wanted) in [
            ("v%61lue=a%42+c&value=d", "4 bytes"),
            ("prevValue=1&value=%41%42", "2 bytes"),
            ("value&value=d", "0 bytes"),
            ("value=&value=d", "0 bytes"),
            ("y=%4&value=d", "error: invalid URL escape \"%4\""),
            ("y%4=1&value=d", "error: invalid URL escape \"%4\""),
            ("y=%zz1&value=%", "error: invalid URL escape \"%zz\""),
            ("y=%zz1&z=;", "error: invalid semicolon separator in query"),
        ] {
            for shift in 0..60 {
                let body = format!("{}{filler}{text}", "&".repeat(shift));
                assert_eq!(turns(b"", body.as_bytes()).1, wanted, "{text} {shift}");
            }
        }
    }

    #[test]
    fn a_name_may_be_long() {
        let long = format!("{}=1&{}%zz=2&value=3", "n".repeat(49), "%6e".repeat(16));
        assert_eq!(
            value(&long, Body::Ignored, "value"),
            "error: invalid URL escape \"%zz\""
        );
        let long = format!("{}&{}=2&value=3", "n".repeat(60), "%6e".repeat(17));
        assert_eq!(value(&long, Body::Ignored, "value"), "3");
        let escaped = format!("{}=3", "%6E%6f%56%61%6c%75%65%4f%6e%53%75%63%63%65%73%73");
        assert_eq!(value(&escaped, Body::Ignored, "noValueOnSuccess"), "3");
    }
}
