//! `edgetcdctl man`: prints the page for man(1). It is made from the same tables as the help, so it always matches
//! the program.
//!
//! The text is roff with the macros of man(7). Some characters are special in roff: a backslash is written as `\e`,
//! and a dash as `\-`, so that commands copied from the page work. A line that begins with a dot or a quote gets a
//! `\&` in front.

use std::fmt::Write as _;

use super::Stop;
use super::all_commands;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::globals::{ENDPOINTS, GLOBAL_OPTIONS, TLS_FILES, USERNAME};
use super::help;

pub(super) const ALL: &[Command] = &[Command {
    name: "man",
    arguments: "",
    what: "print the page for man(1)",
    examples: &[
        "man | man -l -",
        "man > /usr/local/share/man/man1/edgetcdctl.1",
    ],
    options: &[HELP],
    run: man,
}];

fn man(run: &mut Run) -> Result<(), Stop> {
    if !run.parsed.args.is_empty() {
        return Err(Stop::Usage("No arguments accepted".to_owned()));
    }
    Ok(run.world.stdout.write_all(page().as_bytes())?)
}

/// Exit statuses and their meaning.
const STATUSES: [(u8, &str); 6] = [
    (0, "It is done."),
    (
        1,
        "Invalid arguments, or a file that is damaged or does not exist.",
    ),
    (2, "No connection to any server could be made."),
    (3, "The command does not exist."),
    (
        4,
        "The server refused the request or did not answer in time.",
    ),
    (5, "Not all members are healthy (cluster-health, status)."),
];

fn page() -> String {
    let mut page = Page::default();
    page.head();
    page.section("COMMANDS");
    all_commands().for_each(|command| page.command(command));
    page.section("OPTIONS");
    page.text("Write these before the command.");
    page.options(GLOBAL_OPTIONS);
    page.section("ENVIRONMENT");
    for (option, variable) in ENDPOINTS.into_iter().chain([USERNAME]).chain(TLS_FILES) {
        page.entry(variable, &format!("sets --{option}."));
    }
    page.section("EXIT STATUS");
    for (status, what) in STATUSES {
        page.entry(&status.to_string(), what);
    }
    page.section("EXAMPLES");
    for command in all_commands().filter(|command| !command.examples.is_empty()) {
        let _ = writeln!(page.0, ".TP\nTo {}:", escaped(command.what));
        page.examples(command);
    }
    page.section("SEE ALSO");
    page.text("edgetcd --help, edgetcdctl help COMMAND");
    page.0
}

/// The page as it is written. Writing to a String does not fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        let _ = writeln!(
            self.0,
            ".TH EDGETCDCTL 1 \"\" \"edgetcd {version}\" \"User Commands\""
        );
        self.section("NAME");
        self.text("edgetcdctl - a command line client for the v2 API of etcd");
        self.section("SYNOPSIS");
        self.0 += ".B edgetcdctl\n[global options] \\fIcommand\\fR [options] [arguments]\n";
        self.section("DESCRIPTION");
        self.text(
            "Reads and changes the keys of an edgetcd or an etcd, shows and changes the members of its cluster, \
             and saves, checks and restores its data. Options of a command may stand behind its arguments, \
             with one dash or two. A value is an argument, what is in the file of --file, or what comes in on standard input.",
        );
    }

    fn section(&mut self, name: &str) {
        let _ = writeln!(self.0, ".SH {name}");
    }

    fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", escaped(text));
    }

    /// Writes a bold word and its description.
    fn entry(&mut self, name: &str, what: &str) {
        let _ = writeln!(self.0, ".TP\n.B {}\n{}", escaped(name), escaped(what));
    }

    fn command(&mut self, command: &Command) {
        let (name, arguments) = (escaped(command.name), escaped(command.arguments));
        let _ = writeln!(self.0, ".SS \"{name} {}\"", arguments.replace('"', "\\(dq"));
        self.text(command.what);
        let own: Vec<&Opt> = (command.options.iter())
            .filter(|option| !option.dashed().any(|name| name == "--help"))
            .collect();
        self.options(own);
        let notes = help::notes_of(command).unwrap_or_default();
        for paragraph in notes.split("\n\n").filter(|text| !text.is_empty()) {
            self.0 += ".PP\n";
            paragraph.lines().for_each(|line| self.text(line));
        }
    }

    fn options<'a>(&mut self, options: impl IntoIterator<Item = &'a Opt>) {
        for option in options {
            self.entry(&option.typed(), option.what());
        }
    }

    /// The examples as they are typed, each on its own line.
    fn examples(&mut self, command: &Command) {
        self.0 += ".nf\n";
        for example in command.examples {
            let _ = writeln!(self.0, "edgetcdctl {}", escaped(example));
        }
        self.0 += ".fi\n";
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_ours_is_a_request_to_roff() {
        assert_eq!(escaped(".hidden -r \\n"), "\\&.hidden \\-r \\en");
        let known = [".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".nf", ".fi"];
        for line in page().lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next().unwrap_or_default();
            assert!(known.contains(&request), "{line}");
        }
    }

    #[test]
    fn every_command_and_option_is_told() {
        let page = page();
        for command in all_commands() {
            assert!(
                page.contains(&format!(".SS \"{}", escaped(command.name))),
                "{}",
                command.name
            );
            for option in command.options.iter().flat_map(Opt::dashed) {
                assert!(
                    page.contains(&escaped(&option)),
                    "{}: {option}",
                    command.name
                );
            }
        }
    }
}
