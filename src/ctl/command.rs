//! The types of a command and of its environment.

use std::io::{ErrorKind, Read, Write};

use super::Stop;
use super::answer::{Event, to_json};
use super::args::{Opt, Parsed};
use super::client::{Client, Failure};
use super::globals::Globals;
use super::wire::{Ask, Parameters};

/// One command: its help and its function.
pub(super) struct Command {
    /// One word, or two with a blank: the name of the group and the command's own name.
    pub name: &'static str,
    pub arguments: &'static str,
    pub what: &'static str,
    /// Command lines without the program's name, for the help.
    pub examples: &'static [&'static str],
    pub options: &'static [Opt],
    pub run: fn(&mut Run) -> Result<(), Stop>,
}

/// The environment of the program: its variables and streams.
pub struct World<'a> {
    /// Returns a variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Values that are not arguments are read from here.
    pub stdin: &'a mut dyn Read,
    /// Receives the command's output.
    pub stdout: &'a mut dyn Write,
    /// Receives errors and other messages.
    pub stderr: &'a mut dyn Write,
    /// Whether stdout is a terminal. Colours are used only there.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal. Progress bars are drawn only there.
    pub stderr_is_terminal: bool,
}

/// The input of a command.
pub(super) struct Run<'a, 'w> {
    pub globals: &'a Globals,
    pub parsed: &'a Parsed,
    pub world: &'a mut World<'w>,
}

pub(super) const HELP: Opt = Opt::flag(&["help", "h"], "print this help");

impl Run<'_, '_> {
    /// Finds the servers as etcdctl does. See [`Globals::connect`].
    pub fn connect(&mut self) -> Result<Client, Stop> {
        self.globals.connect(self.world.stderr)
    }

    /// The first argument, which is a key.
    pub fn key(&self) -> Result<String, Stop> {
        let given = self.parsed.args.first().cloned();
        given.ok_or_else(|| Stop::Usage("key required".to_owned()))
    }

    /// The value: the argument after the key, or the contents of `--file FILE`, or all of stdin.
    pub fn value(&mut self) -> Result<String, Stop> {
        let file = self.parsed.text("file").map(str::to_owned);
        let bytes = match (self.parsed.args.get(1), file) {
            (Some(given), None) => return Ok(given.clone()),
            (Some(_), Some(_)) => {
                return Err(Stop::Usage(
                    "a value and --file were given: use only one of them".into(),
                ));
            }
            (None, Some(path)) if path != "-" => std::fs::File::open(&path)
                .and_then(|mut file| read_value(&mut file))
                .map_err(|error| Stop::Usage(format!("--file {path}: {error}")))?,
            (None, _) => match read_value(&mut *self.world.stdin) {
                Ok(bytes) if bytes.is_empty() => {
                    return Err(Stop::Usage("value required".to_owned()));
                }
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                    return Err(Stop::Usage(format!("stdin: {error}")));
                }
                Err(_) => return Err(Stop::Usage("value required".to_owned())),
            },
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a request and prints the result.
    pub fn send_and_print(&mut self, client: &Client, ask: &Ask) -> Result<(), Stop> {
        let event = client.send(ask)?;
        self.print(&event)
    }

    /// Prints an event in the selected format.
    pub fn print(&mut self, event: &Event) -> Result<(), Stop> {
        let out = &mut self.world.stdout;
        match self.globals.output.as_str() {
            "simple" => print_simple(event, out),
            "extended" => print_extended(event, out),
            "json" => writeln!(out, "{}", to_json(event)?),
            other => writeln!(self.world.stderr, "Unsupported output format: {other}"),
        }?;
        Ok(())
    }

    pub fn is_simple(&self) -> bool {
        self.globals.output == "simple"
    }

    /// A flag as a parameter, whether it was given or not.
    pub fn switch(&self, option: &str, parameter: &'static str) -> (&'static str, String) {
        (parameter, self.parsed.flag(option).to_string())
    }

    /// The given flags among `names`, as parameters of the same name.
    pub fn flags(&self, names: &[&'static str]) -> Parameters {
        let given = names.iter().filter(|name| self.parsed.flag(name));
        given.map(|name| (*name, "true".to_owned())).collect()
    }

    /// An option as a parameter. An empty one counts as not given.
    pub fn text(&self, option: &str, parameter: &'static str) -> Option<(&'static str, String)> {
        let given = self.parsed.text(option).filter(|value| !value.is_empty());
        given.map(|value| (parameter, value.to_owned()))
    }

    /// `--ttl`, if it is greater than 0.
    pub fn ttl(&self) -> Option<(&'static str, String)> {
        let given = self.parsed.number("ttl").filter(|ttl| *ttl > 0);
        given.map(|ttl| ("ttl", ttl.to_string()))
    }

    /// An index. 0 counts as not given. A negative one is treated as in etcdctl: as an index that is never reached.
    pub fn index(&self, option: &str, parameter: &'static str) -> Option<(&'static str, String)> {
        let given = self.parsed.number(option).filter(|index| *index != 0);
        given.map(|index| (parameter, index.cast_unsigned().to_string()))
    }
}

/// No server takes a longer value.
const VALUE_BYTES_MAX: u64 = 64 << 20;

fn read_value(from: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    from.take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= VALUE_BYTES_MAX {
        true => Ok(bytes),
        false => {
            let what = format!("a value has at most {VALUE_BYTES_MAX} bytes");
            Err(std::io::Error::new(ErrorKind::FileTooLarge, what))
        }
    }
}

fn print_simple(event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
    match (event.action.as_str(), &event.prev_node) {
        ("delete", Some(before)) => writeln!(out, "PrevNode.Value: {}", before.value),
        _ => writeln!(out, "{}", event.node.value),
    }
}

fn print_extended(event: &Event, out: &mut dyn Write) -> std::io::Result<()> {
    let node = &event.node;
    writeln!(out, "Key: {}", node.key)?;
    writeln!(out, "Created-Index: {}", node.created_index)?;
    writeln!(out, "Modified-Index: {}", node.modified_index)?;
    if let Some(before) = &event.prev_node {
        writeln!(out, "PrevNode.Value: {}", before.value)?;
    }
    writeln!(out, "TTL: {}", node.ttl)?;
    writeln!(out, "Index: {}", event.index)?;
    if event.action == "delete" {
        return Ok(());
    }
    writeln!(out, "\n{}", node.value)
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}
