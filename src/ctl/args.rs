//! Options and arguments as etcdctl takes them: one or two dashes, `--option=value` or
//! `--option value`, options also behind arguments. `-5` is an argument, `--` ends the options.

use super::Stop;

/// One option, by all its names; the first is the one it is asked for by.
#[derive(Debug)]
pub(super) struct Opt {
    names: &'static [&'static str],
    takes_value: bool,
    what: &'static str,
}

impl Opt {
    pub const fn flag(names: &'static [&'static str], what: &'static str) -> Opt {
        Opt {
            names,
            takes_value: false,
            what,
        }
    }

    pub const fn value(names: &'static [&'static str], what: &'static str) -> Opt {
        Opt {
            names,
            takes_value: true,
            what,
        }
    }

    pub fn help(&self) -> String {
        let dashed = |name: &&str| {
            if name.len() == 1 {
                format!("-{name}")
            } else {
                format!("--{name}")
            }
        };
        let names: Vec<String> = self.names.iter().map(dashed).collect();
        let value = if self.takes_value { " VALUE" } else { "" };
        format!("  {:<25} {}\n", names.join(", ") + value, self.what)
    }
}

/// What was given: arguments in their order, and the last value of each option.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub args: Vec<String>,
    values: Vec<(&'static str, String)>,
}

impl Parsed {
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut latest_first = self.values.iter().rev();
        latest_first
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// # Errors
    /// A value that is no number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Stop> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Stop::Plain(format!(
                    "Incorrect Usage: invalid value {text:?} for flag -{name}: parse error"
                ))
            })
        };
        self.value(name).map(parse).transpose()
    }
}

/// Reads the options in front of the first argument; the rest is handed back.
pub(super) fn leading<'a>(
    words: &'a [String],
    options: &[Opt],
) -> Result<(Parsed, &'a [String]), Stop> {
    let mut parsed = Parsed::default();
    let mut rest = words;
    while let [word, after @ ..] = rest
        && let Some(option) = as_option(word)
    {
        rest = take(option, after, options, &mut parsed)?;
    }
    Ok((parsed, rest))
}

/// Reads options and arguments to the end.
pub(super) fn all(words: &[String], options: &[Opt]) -> Result<Parsed, Stop> {
    let mut parsed = Parsed::default();
    let mut rest = words;
    while let [word, after @ ..] = rest {
        rest = match as_option(word) {
            Some("") => {
                parsed.args.extend_from_slice(after);
                break;
            }
            Some(option) => take(option, after, options, &mut parsed)?,
            None => {
                parsed.args.push(word.clone());
                after
            }
        };
    }
    Ok(parsed)
}

/// A word without its dashes, if it is an option; empty for `--`.
fn as_option(word: &str) -> Option<&str> {
    let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let is_number = option.starts_with(|c: char| c.is_ascii_digit());
    (word != "-" && !is_number).then_some(option)
}

fn take<'a>(
    option: &str,
    after: &'a [String],
    options: &[Opt],
    parsed: &mut Parsed,
) -> Result<&'a [String], Stop> {
    let (name, inline) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    let found = options
        .iter()
        .find(|known| known.names.contains(&name))
        .ok_or_else(|| {
            Stop::Plain(format!(
                "Incorrect Usage: flag provided but not defined: -{name}"
            ))
        })?;
    let (value, rest) = match (inline, found.takes_value, after) {
        (Some(value), ..) => (value, after),
        (None, false, _) => ("true".to_owned(), after),
        (None, true, [value, rest @ ..]) => (value.clone(), rest),
        (None, true, []) => {
            let text = format!("Incorrect Usage: flag needs an argument: -{name}");
            return Err(Stop::Plain(text));
        }
    };
    parsed.values.push((found.names[0], value));
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[Opt] = &[Opt::flag(&["recursive", "r"], ""), Opt::value(&["ttl"], "")];

    fn read(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        match all(&words, OPTIONS) {
            Ok(parsed) => format!(
                "{} r={} ttl={:?}",
                parsed.args.join("|"),
                parsed.flag("recursive"),
                parsed.value("ttl")
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
            ("a --ttl 5 b", "a|b r=false ttl=Some(\"5\")"),
            ("a -ttl=5 --ttl=6", "a r=false ttl=Some(\"6\")"),
            ("a -5", "a|-5 r=false ttl=None"),
            ("a - b", "a|-|b r=false ttl=None"),
            ("a -- -r --", "a|-r|-- r=false ttl=None"),
            ("a --recursive=false", "a r=false ttl=None"),
            ("a -x", "Incorrect Usage: flag provided but not defined: -x"),
            ("a --ttl", "Incorrect Usage: flag needs an argument: -ttl"),
        ];
        for (line, expected) in table {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn leading_options_end_at_the_command() {
        let words = ["--ttl", "5", "get", "-r"].map(String::from);
        let (parsed, rest) = leading(&words, OPTIONS).unwrap();
        assert_eq!((parsed.value("ttl"), rest), (Some("5"), &words[2..]));
    }
}
