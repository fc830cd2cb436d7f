//! `edgetcdctl completion`: prints completion scripts for shells. They are made from the tables of commands and
//! options, so they always match the program.

use std::fmt::Write as _;

use super::Stop;
use super::all_commands;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::globals::GLOBAL_OPTIONS;

pub(super) const ALL: &[Command] = &[Command {
    name: "completion",
    arguments: "bash | zsh | fish",
    what: "print a completion script for a shell",
    examples: &[
        "completion bash > /etc/bash_completion.d/edgetcdctl",
        "completion zsh > \"${fpath[1]}/_edgetcdctl\"",
        "completion fish > ~/.config/fish/completions/edgetcdctl.fish",
    ],
    options: &[HELP],
    run: completion,
}];

fn completion(run: &mut Run) -> Result<(), Stop> {
    let script = match run
        .parsed
        .args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()[..]
    {
        ["bash"] => bash(),
        ["zsh"] => zsh(),
        ["fish"] => fish(),
        _ => return Err(Stop::Usage("bash, zsh or fish required".to_owned())),
    };
    Ok(run.world.stdout.write_all(script.as_bytes())?)
}

/// The first words of commands without duplicates, each with its description.
fn first_words() -> Vec<(&'static str, String)> {
    let mut words: Vec<(&str, String)> = vec![];
    for command in all_commands() {
        let (first, what) = match command.name.split_once(' ') {
            // These two have no plural.
            Some((group @ "wal", _)) => (group, "commands on the log of a node".to_owned()),
            Some((group @ "auth", _)) => (group, "switch access control on and off".to_owned()),
            Some((group, _)) => (group, format!("commands on {group}s")),
            None => (command.name, command.what.to_owned()),
        };
        if words.iter().all(|(known, _)| *known != first) {
            words.push((first, what));
        }
    }
    words
}

/// Groups with the second words of their commands.
fn groups() -> Vec<(&'static str, Vec<&'static Command>)> {
    let mut groups: Vec<(&str, Vec<&Command>)> = vec![];
    for command in all_commands() {
        let Some((group, _)) = command.name.split_once(' ') else {
            continue;
        };
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, commands)) => commands.push(command),
            None => groups.push((group, vec![command])),
        }
    }
    groups
}

fn second_word(command: &Command) -> &'static str {
    command
        .name
        .split_once(' ')
        .map_or(command.name, |(_, second)| second)
}

fn dashed(options: &[Opt]) -> String {
    options
        .iter()
        .flat_map(Opt::dashed)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Patterns of options that take the next word as their value.
fn with_value(options: &[Opt]) -> String {
    let options = options.iter().filter(|option| option.takes_value());
    options.flat_map(Opt::dashed).collect::<Vec<_>>().join("|")
}

/// The lines of a shell's `case` per command: the words that may follow it.
fn cases() -> String {
    let mut out = String::new();
    let first: Vec<&str> = first_words().iter().map(|(word, _)| *word).collect();
    let mut case = |pattern: &str, words: &str| {
        let _ = writeln!(out, "        '{pattern}') found='{words}' ;;");
    };
    case(
        "",
        &format!("{} help {}", first.join(" "), dashed(GLOBAL_OPTIONS)),
    );
    for (group, commands) in groups() {
        let second: Vec<&str> = commands
            .iter()
            .map(|command| second_word(command))
            .collect();
        case(group, &second.join(" "));
    }
    for command in all_commands() {
        let shells = if command.name == "completion" {
            "bash zsh fish "
        } else {
            ""
        };
        case(
            command.name,
            &format!("{shells}{}", dashed(command.options)),
        );
    }
    case("help", &first.join(" "));
    out
}

/// The part shared by bash and zsh: computes from the words so far the possible next words, in `found`.
fn finder(before: &str) -> String {
    let names: Vec<&str> = groups().iter().map(|(group, _)| *group).collect();
    format!(
        "    local command='' found='' skip='' before\n    \
             for before in {before}; do\n        \
                 if [[ -n $skip ]]; then skip=''; continue; fi\n        \
                 case $before in\n            \
                     {}) [[ -n $command ]] || skip=1 ;;\n            \
                     -*) ;;\n            \
                     *) case $command in\n                \
                         '') command=$before ;;\n                \
                         {}) command=\"$command $before\" ;;\n            \
                     esac ;;\n        \
                 esac\n    \
             done\n    \
             case $command in\n{}    esac\n",
        with_value(GLOBAL_OPTIONS),
        names.join("|"),
        cases()
    )
}

/// Bash also splits words at `=` and `:`, which occur in URLs, so the script splits the line again.
fn bash() -> String {
    format!(
        "# bash completion of edgetcdctl; made by: edgetcdctl completion bash\n\
         _edgetcdctl() {{\n    \
             local line=${{COMP_LINE:0:COMP_POINT}} words\n    \
             read -ra words <<< \"$line\"\n    \
             [[ $line == *' ' ]] && words+=('')\n{}    \
             COMPREPLY=($(compgen -W \"$found\" -- \"${{COMP_WORDS[COMP_CWORD]}}\"))\n\
         }}\n\
         complete -o default -F _edgetcdctl edgetcdctl\n",
        finder("\"${words[@]:1:${#words[@]}-2}\"")
    )
}

/// In a folder of `fpath` this is the body of the function. If it is sourced, it registers the function.
fn zsh() -> String {
    format!(
        "#compdef edgetcdctl\n\
         # zsh completion of edgetcdctl; made by: edgetcdctl completion zsh\n\
         _edgetcdctl() {{\n{}    \
             compadd -- ${{=found}}\n    \
             [[ -n $command ]] && _files\n\
         }}\n\
         if [[ $funcstack[1] == _edgetcdctl ]]; then\n    \
             _edgetcdctl\n\
         else\n    \
             compdef _edgetcdctl edgetcdctl\n\
         fi\n",
        finder("\"${(@)words[2,CURRENT-1]}\"")
    )
}

fn fish() -> String {
    let mut out =
        String::from("# fish completion of edgetcdctl; made by: edgetcdctl completion fish\n");
    let mut line = |condition: &str, rest: &str, what: &str| {
        let what = what.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = writeln!(
            out,
            "complete -c edgetcdctl -n '{condition}' {rest} -d '{what}'"
        );
    };
    const NONE_YET: &str = "__fish_use_subcommand";
    for (word, what) in first_words() {
        line(NONE_YET, &format!("-f -a {word}"), &what);
    }
    for option in GLOBAL_OPTIONS {
        line(NONE_YET, &fish_option(option), option.what());
    }
    for (group, commands) in groups() {
        let condition = format!("__fish_seen_subcommand_from {group}");
        for command in commands {
            line(
                &condition,
                &format!("-f -a {}", second_word(command)),
                command.what,
            );
        }
    }
    for command in all_commands().filter(|command| !command.name.contains(' ')) {
        let condition = format!("__fish_seen_subcommand_from {}", command.name);
        for option in command.options {
            line(&condition, &fish_option(option), option.what());
        }
    }
    line(
        "__fish_seen_subcommand_from completion",
        "-f -a 'bash zsh fish'",
        "shell",
    );
    out
}

fn fish_option(option: &Opt) -> String {
    let names = option.dashed().map(|name| match name.strip_prefix("--") {
        Some(long) => format!("-l {long}"),
        None => format!("-s {}", name.trim_start_matches('-')),
    });
    let value = if option.takes_value() { " -r" } else { "" };
    names.collect::<Vec<_>>().join(" ") + value
}
