//! Parses options and arguments as etcdctl does. Options have one or two dashes and are `--option=value` or
//! `--option value`. They may follow arguments, and `--` ends them.
//!
//! A word with a dash that is not an option is an argument if another argument precedes it, so `set temperature -5`
//! needs no `--`. If it is the first word, it is an error.
//!
//! One behaviour of etcdctl is not copied: it treats the word after a flag as the flag's value, so in
//! `ls -r /dir --sort` it silently ignores the last option. Here that option is used.

use std::time::Duration;

use super::Stop;
use crate::go;

/// Width of the option names in a help text. Longer names get their own line.
const NAMES_WIDTH: usize = 26;

/// The kind of value that an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    Text,
    Number,
    Duration,
}

/// One option with all its names. The first name is the one used in the code.
#[derive(Debug)]
pub(super) struct Opt {
    names: &'static [&'static str],
    kind: Kind,
    what: &'static str,
}

impl Opt {
    pub const fn flag(names: &'static [&'static str], what: &'static str) -> Opt {
        Opt::new(names, Kind::Flag, what)
    }

    pub const fn text(names: &'static [&'static str], what: &'static str) -> Opt {
        Opt::new(names, Kind::Text, what)
    }

    pub const fn number(names: &'static [&'static str], what: &'static str) -> Opt {
        Opt::new(names, Kind::Number, what)
    }

    pub const fn duration(names: &'static [&'static str], what: &'static str) -> Opt {
        Opt::new(names, Kind::Duration, what)
    }

    const fn new(names: &'static [&'static str], kind: Kind, what: &'static str) -> Opt {
        Opt { names, kind, what }
    }

    /// Its names with dashes, as they are typed.
    pub fn dashed(&self) -> impl Iterator<Item = String> {
        self.names.iter().map(|name| match name.len() {
            1 => format!("-{name}"),
            _ => format!("--{name}"),
        })
    }

    pub fn takes_value(&self) -> bool {
        self.kind != Kind::Flag
    }

    pub fn what(&self) -> &'static str {
        self.what
    }

    /// All its names and the placeholder of its value.
    pub fn typed(&self) -> String {
        let names: Vec<String> = self.dashed().collect();
        let value = match self.kind {
            Kind::Flag => "",
            Kind::Text => " TEXT",
            Kind::Number => " N",
            Kind::Duration => " TIME",
        };
        names.join(", ") + value
    }

    /// Its line in a help text.
    pub fn help(&self) -> String {
        let names = self.typed();
        if names.len() > NAMES_WIDTH {
            return format!("  {names}\n  {:<NAMES_WIDTH$} {}\n", "", self.what);
        }
        format!("  {names:<NAMES_WIDTH$} {}\n", self.what)
    }

    /// Rejects a value that cannot be parsed, in etcdctl's words. `name` is the name that was typed.
    fn check(&self, name: &str, value: &str) -> Result<(), String> {
        let outcome = match self.kind {
            Kind::Flag if go::boolean(value.as_bytes()).is_none() => {
                return Err(format!(
                    "invalid boolean value {value:?} for -{name}: parse error"
                ));
            }
            Kind::Flag | Kind::Text => Ok(()),
            Kind::Number => go::signed(value).map(drop),
            Kind::Duration => go::duration(value).map(drop),
        };
        outcome.map_err(|why| format!("invalid value {value:?} for flag -{name}: {why}"))
    }
}

/// The parsed words: arguments and options, both in order.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub args: Vec<String>,
    /// The number of arguments before `--`, if it was given.
    pub before_dashes: Option<usize>,
    values: Vec<(&'static str, String)>,
}

impl Parsed {
    /// The last value of an option.
    pub fn text(&self, name: &str) -> Option<&str> {
        let mut latest_first = self.values.iter().rev();
        latest_first
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of an option that may be given several times, in order.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let given = self.values.iter().filter(move |(known, _)| *known == name);
        given.map(|(_, value)| value.as_str())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name)
            .and_then(|text| go::boolean(text.as_bytes()))
            == Some(true)
    }

    /// Values are checked when they are parsed, so each can be converted here.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(|text| go::signed(text).ok())
    }

    /// As [`Parsed::number`]. A negative duration is 0.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(|text| go::duration(text).ok())
    }
}

/// Parses the options before the first argument. Returns the rest.
pub(super) fn leading<'a>(
    words: &'a [String],
    options: &[Opt],
) -> Result<(Parsed, &'a [String]), Stop> {
    let mut parsed = Parsed::default();
    let mut rest = words;
    while let [word, after @ ..] = rest
        && let Some(option) = as_option(word)
    {
        if option.is_empty() {
            return Ok((parsed, after));
        }
        rest = take(word, after, options, &mut parsed).map_err(Stop::misuse)?;
    }
    Ok((parsed, rest))
}

/// Parses options and arguments to the end.
pub(super) fn all(words: &[String], options: &[Opt]) -> Result<Parsed, Stop> {
    let mut parsed = Parsed::default();
    let mut rest = words;
    while let [word, after @ ..] = rest {
        let may_be_argument = !parsed.args.is_empty() && find(word, options).is_none();
        rest = match as_option(word) {
            Some("") => {
                parsed.before_dashes = Some(parsed.args.len());
                parsed.args.extend_from_slice(after);
                break;
            }
            Some(_) if !may_be_argument => {
                take(word, after, options, &mut parsed).map_err(Stop::misuse)?
            }
            _ => {
                parsed.args.push(word.clone());
                after
            }
        };
    }
    Ok(parsed)
}

/// The word without its dashes, if it has some. Empty for `--`.
fn as_option(word: &str) -> Option<&str> {
    let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    (word != "-").then_some(option)
}

fn find<'a>(word: &str, options: &'a [Opt]) -> Option<&'a Opt> {
    let name = as_option(word)?.split('=').next()?;
    options.iter().find(|known| known.names.contains(&name))
}

fn take<'a>(
    word: &str,
    after: &'a [String],
    options: &[Opt],
    parsed: &mut Parsed,
) -> Result<&'a [String], String> {
    let option = as_option(word).unwrap_or_default();
    if option.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: {word}"));
    }
    let (name, inline) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    let Some(found) = find(word, options) else {
        return Err(format!("flag provided but not defined: -{name}"));
    };
    let (value, rest) = match (inline, found.takes_value(), after) {
        (Some(value), ..) => (value, after),
        (None, false, _) => ("true".to_owned(), after),
        (None, true, [value, rest @ ..]) => (value.clone(), rest),
        (None, true, []) => return Err(format!("flag needs an argument: -{name}")),
    };
    found.check(name, &value)?;
    parsed.values.push((found.names[0], value));
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[Opt] = &[
        Opt::flag(&["recursive", "r"], ""),
        Opt::number(&["ttl"], ""),
    ];

    fn read(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        match all(&words, OPTIONS) {
            Ok(parsed) => format!(
                "{} r={} ttl={:?}",
                parsed.args.join("|"),
                parsed.flag("recursive"),
                parsed.number("ttl")
            ),
            Err(stop) => stop.text(),
        }
    }

    #[test]
    fn options_stand_anywhere() {
        let table = [
            ("a b", "a|b r=false ttl=None"),
            ("-r a", "a r=true ttl=None"),
            ("a --recursive", "a r=true ttl=None"),
            ("-r a --ttl 5", "a r=true ttl=Some(5)"),
            ("a --ttl 5 b", "a|b r=false ttl=Some(5)"),
            ("a -ttl=5 --ttl=6", "a r=false ttl=Some(6)"),
            ("a -5", "a|-5 r=false ttl=None"),
            ("a --unknown", "a|--unknown r=false ttl=None"),
            ("a - b", "a|-|b r=false ttl=None"),
            ("a -- -r --", "a|-r|-- r=false ttl=None"),
            ("a --recursive=false", "a r=false ttl=None"),
            ("a --recursive=0", "a r=false ttl=None"),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_etcdctl() {
        let table = [
            ("-x", "flag provided but not defined: -x"),
            ("--x=1 a", "flag provided but not defined: -x"),
            ("---x", "bad flag syntax: ---x"),
            ("-=x", "bad flag syntax: -=x"),
            ("a --ttl", "flag needs an argument: -ttl"),
            ("a --ttl=", "invalid value \"\" for flag -ttl: parse error"),
            (
                "a -r=maybe",
                "invalid boolean value \"maybe\" for -r: parse error",
            ),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn leading_options_end_at_the_command() {
        let words = ["--ttl", "5", "get", "-r"].map(String::from);
        let (parsed, rest) = leading(&words, OPTIONS).unwrap();
        assert_eq!((parsed.number("ttl"), rest), (Some(5), &words[2..]));
    }
}
