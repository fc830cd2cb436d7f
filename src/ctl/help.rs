//! The help of the program, of a group of commands, and of one command.

use super::command::Command;
use super::globals::GLOBAL_OPTIONS;
use super::{auth, restore, role, user};

/// Help of one command, with examples.
pub(super) fn of_command(command: &Command) -> String {
    let mut out = format!(
        "edgetcdctl {}: {}\n\nUsage:\n  edgetcdctl {} [options] {}",
        command.name, command.what, command.name, command.arguments
    );
    out.truncate(out.trim_end().len());
    out += "\n\nOptions:\n";
    command
        .options
        .iter()
        .for_each(|option| out += &option.help());
    if let Some(notes) = notes_of(command) {
        out += &format!("\n{notes}");
    }
    if !command.examples.is_empty() {
        out += "\nExamples:\n";
        for example in command.examples {
            out += &format!("  edgetcdctl {example}\n");
        }
    }
    out
}

/// More text about a command, in lines.
pub(super) fn notes_of(command: &Command) -> Option<&'static str> {
    let mut all = [restore::NOTES, auth::NOTES, user::NOTES, role::NOTES]
        .into_iter()
        .flatten();
    let (_, notes) = all.find(|(name, _)| *name == command.name)?;
    Some(notes)
}

/// Help of the commands with the same first word.
pub(super) fn of_group<'a>(name: &str, commands: impl Iterator<Item = &'a Command>) -> String {
    let mut out = format!("Usage: edgetcdctl {name} COMMAND [options] [arguments]\n\nCommands:\n");
    commands.for_each(|command| out += &line(command));
    out
}

fn line(command: &Command) -> String {
    format!("  {:<16} {}\n", command.name, command.what)
}

/// Help of the program.
pub(super) fn of_all<'a>(commands: impl Iterator<Item = &'a Command>) -> String {
    let mut out = String::from(
        "edgetcdctl: a command line client for the v2 API of etcd\n\n\
         Usage:\n  edgetcdctl [global options] command [options] [arguments]\n\nCommands:\n",
    );
    commands.for_each(|command| out += &line(command));
    out += "\nGlobal options:\n";
    GLOBAL_OPTIONS
        .iter()
        .for_each(|option| out += &option.help());
    out += "\nThe variables ETCDCTL_ENDPOINTS, ETCDCTL_ENDPOINT, ETCDCTL_PEERS, ETCDCTL_USERNAME, ETCDCTL_CA_FILE,\n\
            ETCDCTL_CERT_FILE and ETCDCTL_KEY_FILE set the options of the same names. HTTP_PROXY, HTTPS_PROXY and\n\
            NO_PROXY work as in etcdctl.\n\n\
            Examples:\n  edgetcdctl set /message Hello\n  edgetcdctl get /message\n  \
            edgetcdctl help set\n";
    out
}
