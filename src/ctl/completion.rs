//! `edgetcdctl completion`: what a shell needs to complete our words, made from the tables of
//! commands and options, so that it knows what the program knows.

use std::fmt::Write as _;

use super::Stop;
use super::all_commands;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::globals::GLOBAL_OPTIONS;

pub(super) const ALL: &[Command] = &[Command {
    name: "completion",
    arguments: "bash | zsh | fish",
    what: "print a script that completes the words of a shell",
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

/// The first words of commands, each once, with what is said of it.
fn first_words() -> Vec<(&'static str, String)> {
    let mut words: Vec<(&str, String)> = vec![];
    for command in all_commands() {
        let (first, what) = match command.name.split_once(' ') {
            // What is read on the spot is not many.
            Some((group @ "wal", _)) => (group, "commands on a node's own log".to_owned()),
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

/// Patterns of those whose value is the next word.
fn with_value(options: &[Opt]) -> String {
    let options = options.iter().filter(|option| option.takes_value());
    options.flat_map(Opt::dashed).collect::<Vec<_>>().join("|")
}

/// The lines of a shell's `case` by command: what may stand behind each.
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

/// The part that bash and zsh share: from the words so far to `found`, what may come next.
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

/// Bash cuts its words at `=` and `:` as well, which stand in URLs, so the line is read anew.
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

/// From a folder of `fpath` it is the body of the function; sourced, it says what it is for.
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
