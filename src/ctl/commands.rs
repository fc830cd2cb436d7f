//! The commands on keys: what each sends and prints.

use std::io::{Read, Write};

use super::Stop;
use super::args::{Opt, Parsed};
use super::client::{Ask, Client, Event, Further, Method, Node, Parameters, Payload};

pub(super) struct Command {
    /// One word, or two with a blank: that of a group and its own.
    pub name: &'static str,
    pub arguments: &'static str,
    pub what: &'static str,
    pub options: &'static [Opt],
    pub run: fn(&mut Run) -> Result<(), Stop>,
}

/// What a command works with.
pub(super) struct Run<'a> {
    pub client: &'a Client,
    pub parsed: &'a Parsed,
    /// Given `--no-sync`.
    pub no_sync: bool,
    pub stdin: &'a mut dyn Read,
    pub out: &'a mut dyn Write,
}

impl Command {
    pub fn usage(&self) -> String {
        let mut out = format!(
            "Usage: edgetcdctl {} [options] {}\n",
            self.name, self.arguments
        );
        self.options.iter().for_each(|option| out += &option.help());
        out.trim_end().to_owned()
    }
}

pub(super) const HELP: Opt = Opt::flag(&["help", "h"], "print this");
const QUORUM: Opt = Opt::flag(&["quorum", "q"], "ask the cluster, not only this member");
const RECURSIVE: Opt = Opt::flag(&["recursive", "r"], "also all that is below");
const SORT: Opt = Opt::flag(&["sort"], "in the order of keys");
const TTL: Opt = Opt::value(&["ttl"], "seconds until it goes by itself");

pub(super) const ALL: &[Command] = &[
    Command {
        name: "get",
        arguments: "KEY",
        what: "print the value of a key",
        options: &[QUORUM, SORT, HELP],
        run: get,
    },
    Command {
        name: "set",
        arguments: "KEY [VALUE]",
        what: "set the value of a key; without one, it is read from stdin",
        options: &[
            TTL,
            Opt::value(&["swap-with-value"], "only if it has this value"),
            Opt::value(
                &["swap-with-index"],
                "only if it was last modified at this index",
            ),
            HELP,
        ],
        run: set,
    },
    Command {
        name: "ls",
        arguments: "[KEY]",
        what: "list a directory",
        options: &[
            RECURSIVE,
            SORT,
            QUORUM,
            Opt::flag(&["p"], "a slash behind the names of directories"),
            HELP,
        ],
        run: ls,
    },
    Command {
        name: "rm",
        arguments: "KEY",
        what: "remove a key or a directory",
        options: &[
            RECURSIVE,
            Opt::flag(&["dir"], "an empty directory, too"),
            Opt::value(&["with-value"], "only if it has this value"),
            Opt::value(
                &["with-index"],
                "only if it was last modified at this index",
            ),
            HELP,
        ],
        run: rm,
    },
    Command {
        name: "mkdir",
        arguments: "KEY",
        what: "make a directory",
        options: &[TTL, HELP],
        run: mkdir,
    },
    Command {
        name: "watch",
        arguments: "KEY",
        what: "wait for a change and print it",
        options: &[
            RECURSIVE,
            Opt::value(&["after-index"], "what changed after this index"),
            HELP,
        ],
        run: watch,
    },
];

fn get(run: &mut Run) -> Result<(), Stop> {
    let Run { client, parsed, .. } = run;
    let key = clean(argument(parsed, 0, "key")?);
    let event = client.send(&read(&key, flags(parsed, &["quorum", "sort"])))?;
    if event.node.dir {
        return Err(Stop::Plain(format!("{}: is a directory", event.node.key)));
    }
    print_event(&event, run.out)
}

fn set(run: &mut Run) -> Result<(), Stop> {
    let Run { client, parsed, .. } = run;
    let key = clean(argument(parsed, 0, "key")?);
    let mut parameters = vec![("value", value(parsed, run.stdin)?)];
    parameters.extend(number(parsed, "ttl", "ttl")?);
    parameters.extend(text(parsed, "swap-with-value", "prevValue"));
    parameters.extend(number(parsed, "swap-with-index", "prevIndex")?);
    print_event(
        &client.send(&change(Method::Put, &key, parameters, true))?,
        run.out,
    )
}

fn ls(run: &mut Run) -> Result<(), Stop> {
    let Run { client, parsed, .. } = run;
    let key = clean(parsed.args.first().map_or("/", String::as_str));
    let event = client.send(&read(&key, flags(parsed, &["quorum", "recursive", "sort"])))?;
    let slash = if parsed.flag("p") { "/" } else { "" };
    if !event.node.dir {
        writeln!(run.out, "{}", event.node.key)?;
    }
    // Depth first, the first one on top.
    let mut rest: Vec<&Node> = event.node.nodes.iter().rev().collect();
    while let Some(node) = rest.pop() {
        writeln!(run.out, "{}{}", node.key, if node.dir { slash } else { "" })?;
        rest.extend(node.nodes.iter().rev());
    }
    Ok(())
}

fn rm(run: &mut Run) -> Result<(), Stop> {
    let Run { client, parsed, .. } = run;
    let key = clean(argument(parsed, 0, "key")?);
    let mut parameters = flags(parsed, &["dir", "recursive"]);
    parameters.extend(text(parsed, "with-value", "prevValue"));
    parameters.extend(number(parsed, "with-index", "prevIndex")?);
    let event = client.send(&change(Method::Delete, &key, parameters, false))?;
    if event.node.dir {
        Ok(())
    } else {
        print_event(&event, run.out)
    }
}

fn mkdir(run: &mut Run) -> Result<(), Stop> {
    let Run { client, parsed, .. } = run;
    let key = clean(argument(parsed, 0, "key")?);
    let mut parameters = vec![
        ("dir", "true".to_owned()),
        ("prevExist", "false".to_owned()),
    ];
    parameters.extend(number(parsed, "ttl", "ttl")?);
    client.send(&change(Method::Put, &key, parameters, false))?;
    Ok(())
}

/// Events of directories are passed over, as etcdctl does.
fn watch(run: &mut Run) -> Result<(), Stop> {
    let Run { client, parsed, .. } = run;
    let key = clean(argument(parsed, 0, "key")?);
    let recursive = parsed.flag("recursive");
    let mut after = parsed.number("after-index")?;
    loop {
        let mut parameters = flags(parsed, &["recursive"]);
        parameters.push(("wait", "true".to_owned()));
        parameters.extend(after.map(|index| ("waitIndex", index.saturating_add(1).to_string())));
        let event = client.send(&Ask {
            patient: true,
            ..read(&key, parameters)
        })?;
        if event.node.dir {
            after = Some(event.node.modified_index);
            continue;
        }
        if recursive {
            writeln!(run.out, "[{}] {}", event.action, event.node.key)?;
        }
        return print_event(&event, run.out);
    }
}

/// The output format `simple`.
fn print_event(event: &Event, out: &mut dyn Write) -> Result<(), Stop> {
    match (event.action.as_str(), &event.prev_node) {
        ("delete", Some(before)) => writeln!(out, "PrevNode.Value: {}", before.value)?,
        _ => writeln!(out, "{}", event.node.value)?,
    }
    Ok(())
}

fn read(key: &str, parameters: Parameters) -> Ask {
    Ask {
        method: Method::Get,
        path: format!("/v2/keys{key}"),
        payload: Payload::Parameters(parameters),
        further: Further::Always,
        patient: false,
    }
}

/// `repeatable`: may be sent to a further endpoint after one that may have done it already.
fn change(method: Method, key: &str, parameters: Parameters, repeatable: bool) -> Ask {
    Ask {
        method,
        further: if repeatable {
            Further::Always
        } else {
            Further::Never
        },
        ..read(key, parameters)
    }
}

fn argument<'a>(parsed: &'a Parsed, at: usize, name: &str) -> Result<&'a str, Stop> {
    let given = parsed.args.get(at);
    given
        .map(String::as_str)
        .ok_or_else(|| Stop::Usage(format!("{name} required")))
}

/// The value behind the key, or all of stdin, as it is.
fn value(parsed: &Parsed, stdin: &mut dyn Read) -> Result<String, Stop> {
    if let Some(value) = parsed.args.get(1) {
        return Ok(value.clone());
    }
    let mut bytes = vec![];
    match stdin.read_to_end(&mut bytes) {
        Ok(read) if read > 0 => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Err(Stop::Usage("value required".to_owned())),
    }
}

/// Those of `names` that were given, as parameters: of the same name, but for one.
fn flags(parsed: &Parsed, names: &[&'static str]) -> Parameters {
    let given = names.iter().filter(|name| parsed.flag(name));
    let parameter = |name: &&'static str| if *name == "sort" { "sorted" } else { *name };
    given
        .map(|name| (parameter(name), "true".to_owned()))
        .collect()
}

fn text(parsed: &Parsed, option: &str, parameter: &'static str) -> Option<(&'static str, String)> {
    let given = parsed.value(option).filter(|value| !value.is_empty());
    given.map(|value| (parameter, value.to_owned()))
}

/// A number; 0 is as good as none.
fn number(
    parsed: &Parsed,
    option: &str,
    parameter: &'static str,
) -> Result<Option<(&'static str, String)>, Stop> {
    let given = parsed.number(option)?.filter(|number| *number > 0);
    Ok(given.map(|number| (parameter, number.to_string())))
}

/// A key as a path: a slash in front, no empty places, no `.` and `..`. The server would clean it,
/// too, but by a redirect, which a PUT does not survive.
pub(super) fn clean(key: &str) -> String {
    let mut parts: Vec<&str> = vec![];
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_cleaned() {
        let table = [
            ("a", "/a"),
            ("/a/b/", "/a/b"),
            ("//a/./b/../c", "/a/c"),
            ("..", "/"),
            ("", "/"),
            ("/", "/"),
        ];
        for (given, expected) in table {
            assert_eq!(clean(given), expected, "{given:?}");
        }
    }
}
