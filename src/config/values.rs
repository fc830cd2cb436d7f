//! Parses the values of flags into their types.
//!
//! An invalid value on the command line is a usage error (status 2). An invalid value in the environment stops the
//! start (status 1). Both messages use the reference's words and have a hint what to type.

use super::Stop;
use super::flags::{self, Flag, Given, Kind, Source};
use crate::go;
use crate::urls::Url;

/// The given values, and the defaults of the table for the others.
pub(super) struct Values<'a> {
    given: &'a Given,
}

impl<'a> Values<'a> {
    pub fn new(given: &'a Given) -> Values<'a> {
        Values { given }
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.given
            .get(name)
            .is_some_and(|(value, _)| !value.is_empty())
    }

    /// Whether the flag is given, even with an empty value.
    pub fn has_value(&self, name: &str) -> bool {
        self.given.get(name).is_some()
    }

    /// The given value or the default. `--flag=''` gives an empty text.
    pub fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some((value, _)) => value,
            None => default(name),
        }
    }

    /// The given value, or `None` if it is absent or empty.
    pub fn some_text(&self, name: &str) -> Option<&str> {
        self.given
            .get(name)
            .map(|(value, _)| value)
            .filter(|value| !value.is_empty())
    }

    pub fn boolean(&self, name: &str) -> Result<bool, Stop> {
        go::boolean(self.text(name).as_bytes()).ok_or_else(|| {
            self.bad(
                name,
                "parse error",
                &format!("type --{name}=true or =false"),
            )
        })
    }

    pub fn uint(&self, name: &str) -> Result<u64, Stop> {
        go::unsigned(self.text(name)).map_err(|why| self.not_a_number(name, why))
    }

    fn not_a_number(&self, name: &str, why: &str) -> Stop {
        let hint = format!("type a whole number, such as --{name}={}", default(name));
        self.bad(name, why, &hint)
    }

    /// Checks a value that has no effect. A script that sets it finds its mistakes as with etcd.
    pub fn check_kind(&self, flag: &Flag) -> Result<(), Stop> {
        let (name, text) = (flag.name, self.text(flag.name));
        match flag.kind {
            Kind::Text => Ok(()),
            Kind::Bool => self.boolean(name).map(|_| ()),
            Kind::Int => go::signed(text)
                .map(|_| ())
                .map_err(|why| self.not_a_number(name, why)),
            Kind::Uint => self.uint(name).map(|_| ()),
            Kind::Uint32 => match self.uint(name)? {
                number if number <= u64::from(u32::MAX) => Ok(()),
                _ => Err(self.not_a_number(name, "value out of range")),
            },
            Kind::Duration => go::duration(text).map(|_| ()).map_err(|why| {
                let hint = format!("type a time, such as --{name}={}", default(name));
                self.bad(name, why, &hint)
            }),
        }
    }

    /// Parses a whole number, and optionally a second one after a comma.
    pub fn one_or_two(&self, name: &str) -> Result<(u64, Option<u64>), Stop> {
        let text = self.text(name);
        let parsed = match text.split_once(',') {
            Some((first, second)) => {
                go::unsigned(first).and_then(|first| Ok((first, Some(go::unsigned(second)?))))
            }
            None => go::unsigned(text).map(|only| (only, None)),
        };
        parsed.map_err(|_| {
            let one = default(name);
            let hint = format!(
                "type one or two whole numbers, such as --{name}={one} or --{name}={one},1000000"
            );
            self.bad(name, "parse error", &hint)
        })
    }

    /// Parses a list of URLs separated by commas. The result is sorted, without duplicates. An empty value counts as
    /// not given.
    pub fn urls(&self, name: &str) -> Result<Vec<Url>, Stop> {
        let text = self.some_text(name).unwrap_or_else(|| default(name));
        let mut urls = Url::parse_list(text).map_err(|error| {
            let hint = format!("type --{name}=http://HOST:PORT, several separated by commas");
            self.bad(name, &error.to_string(), &hint)
        })?;
        urls.dedup();
        Ok(urls)
    }

    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, Stop> {
        let text = self.text(name);
        let found = choices.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.bad(
                name,
                "invalid value",
                &format!("type --{name}={}", words.join("|")),
            )
        })
    }

    fn bad(&self, name: &str, reason: &str, hint: &str) -> Stop {
        let (value, source) = self.given.get(name).unwrap_or(("", Source::CommandLine));
        let is_bool = flags::find(name).is_some_and(|flag| flag.kind == Kind::Bool);
        match source {
            Source::CommandLine if is_bool => Stop::usage(
                &format!("invalid boolean value {value:?} for -{name}: {reason}"),
                hint,
            ),
            Source::CommandLine => Stop::usage(
                &format!("invalid value {value:?} for flag -{name}: {reason}"),
                hint,
            ),
            Source::Environment => {
                let variable = flags::variable(name);
                let hint = hint.replace(&format!("--{name}="), &format!("{variable}="));
                Stop::verify(
                    &format!("invalid value {value:?} for {variable}: {reason}"),
                    &hint,
                )
            }
        }
    }
}

fn default(name: &str) -> &'static str {
    flags::find(name).map_or("", |flag| flag.default)
}
