//! The commands for keys.

use std::io::Write;

use super::Stop;
use super::answer::Node;
use super::args::Opt;
use super::command::{Command, HELP, Run};
use super::paint::Paint;
use super::tree::{self, Look};
use super::wire::{Ask, Body, Further, Limit, Method, Parameters};

const QUORUM: Opt = Opt::flag(
    &["quorum", "q"],
    "read through a majority, not only from one member",
);
const RECURSIVE: Opt = Opt::flag(&["recursive", "r"], "include everything below");
const SORT: Opt = Opt::flag(&["sort"], "sort by key");
const TTL: Opt = Opt::number(&["ttl"], "seconds until it expires");

const FILE: Opt = Opt::text(&["file"], "read the value from FILE ('-': from stdin)");

pub(super) const ALL: &[Command] = &[
    Command {
        name: "get",
        arguments: "KEY",
        what: "print the value of a key",
        examples: &[
            "get /message",
            "-o extended get /message",
            "get -r /services",
        ],
        options: &[
            QUORUM,
            SORT,
            Opt::flag(
                &["recursive", "r"],
                "show a directory as a tree with its values",
            ),
            HELP,
        ],
        run: get,
    },
    Command {
        name: "set",
        arguments: "KEY [VALUE]",
        what: "set the value of a key; without VALUE, read it from stdin",
        examples: &[
            "set /message hello",
            "set /lease mine --ttl 30",
            "set /config --file config.json",
            "set /message new --swap-with-value hello",
        ],
        options: &[
            TTL,
            FILE,
            Opt::text(&["swap-with-value"], "only if the key has this value"),
            Opt::number(
                &["swap-with-index"],
                "only if it was last modified at this index",
            ),
            HELP,
        ],
        run: set,
    },
    Command {
        name: "mk",
        arguments: "KEY [VALUE]",
        what: "create a key that does not exist yet",
        examples: &["mk /lock me --ttl 30", "mk --in-order /queue job"],
        options: &[
            Opt::flag(
                &["in-order"],
                "in the directory KEY, under an increasing number",
            ),
            TTL,
            FILE,
            HELP,
        ],
        run: mk,
    },
    Command {
        name: "update",
        arguments: "KEY [VALUE]",
        what: "set the value of a key that already exists",
        examples: &["update /message hello", "update /lock me --ttl 30"],
        options: &[TTL, FILE, HELP],
        run: update,
    },
    Command {
        name: "ls",
        arguments: "[KEY]",
        what: "list a directory",
        examples: &["ls", "ls -r -p --sort /services", "ls --tree /services"],
        options: &[
            RECURSIVE,
            SORT,
            QUORUM,
            Opt::flag(&["p"], "print a slash after directories"),
            Opt::flag(&["tree"], "show everything below as a tree"),
            HELP,
        ],
        run: ls,
    },
    Command {
        name: "mkdir",
        arguments: "KEY",
        what: "create a directory that does not exist yet",
        examples: &["mkdir /services", "mkdir /presence --ttl 60"],
        options: &[TTL, HELP],
        run: mkdir,
    },
    Command {
        name: "setdir",
        arguments: "KEY",
        what: "create a directory; it may replace a key",
        examples: &["setdir /services"],
        options: &[TTL, HELP],
        run: setdir,
    },
    Command {
        name: "updatedir",
        arguments: "KEY",
        what: "change the time to live of a directory",
        examples: &["updatedir /presence --ttl 60"],
        options: &[TTL, HELP],
        run: updatedir,
    },
    Command {
        name: "rm",
        arguments: "KEY",
        what: "remove a key or a directory",
        examples: &["rm /message", "rm -r /services", "rm /lock --with-value me"],
        options: &[
            RECURSIVE,
            Opt::flag(&["dir"], "also remove an empty directory"),
            Opt::text(&["with-value"], "only if the key has this value"),
            Opt::number(
                &["with-index"],
                "only if it was last modified at this index",
            ),
            HELP,
        ],
        run: rm,
    },
    Command {
        name: "rmdir",
        arguments: "KEY",
        what: "remove a key or an empty directory",
        examples: &["rmdir /services"],
        options: &[HELP],
        run: rmdir,
    },
];

fn get(run: &mut Run) -> Result<(), Stop> {
    let (key, recursive) = (run.key()?, run.parsed.flag("recursive"));
    let query = vec![
        run.switch("quorum", "quorum"),
        run.switch("recursive", "recursive"),
        ("sorted", (run.parsed.flag("sort") || recursive).to_string()),
    ];
    let event = run.connect()?.send(&Ask::key(&key, query))?;
    if recursive && event.node.dir && run.is_simple() {
        return draw(run, &event.node, true);
    }
    if event.node.dir && !recursive {
        return Err(Stop::Plain(format!("{}: is a directory", event.node.key)));
    }
    run.print(&event)
}

fn set(run: &mut Run) -> Result<(), Stop> {
    let key = run.key()?;
    let mut query = vec![];
    query.extend(run.text("swap-with-value", "prevValue"));
    query.extend(run.index("swap-with-index", "prevIndex"));
    put_value(run, &key, query)
}

fn update(run: &mut Run) -> Result<(), Stop> {
    let key = run.key()?;
    put_value(run, &key, vec![("prevExist", "true".to_owned())])
}

fn mk(run: &mut Run) -> Result<(), Stop> {
    let key = run.key()?;
    if !run.parsed.flag("in-order") {
        return put_value(run, &key, vec![("prevExist", "false".to_owned())]);
    }
    let mut form = vec![("value", run.value()?)];
    form.extend(run.ttl());
    let ask = Ask {
        method: Method::Post,
        body: Body::Form(form),
        further: Further::Always,
        limit: Limit::Event,
        ..Ask::key(&key, vec![])
    };
    let client = run.connect()?;
    run.send_and_print(&client, &ask)
}

fn put_value(run: &mut Run, key: &str, query: Parameters) -> Result<(), Stop> {
    let mut form = vec![("value", run.value()?)];
    form.extend(run.ttl());
    let client = run.connect()?;
    run.send_and_print(&client, &Ask::put(key, query, form))
}

fn ls(run: &mut Run) -> Result<(), Stop> {
    let key = run.parsed.args.first().map_or("/", String::as_str);
    let tree = run.parsed.flag("tree");
    let or_tree = |option| (run.parsed.flag(option) || tree).to_string();
    let query = vec![
        run.switch("quorum", "quorum"),
        ("recursive", or_tree("recursive")),
        ("sorted", or_tree("sort")),
    ];
    let ask = Ask::key(key, query);
    let event = run.connect()?.send(&ask)?;
    if !run.is_simple() {
        return run.print(&event);
    }
    if tree && event.node.dir {
        return draw(run, &event.node, false);
    }
    if !event.node.dir {
        writeln!(run.world.stdout, "{}", event.node.key)?;
    }
    let slash = if run.parsed.flag("p") { "/" } else { "" };
    list(event.node.children(), slash, run.world.stdout)
}

fn draw(run: &mut Run, root: &Node, values: bool) -> Result<(), Stop> {
    let look = Look {
        paint: Paint::new(run.world),
        values,
        slash: run.parsed.flag("p"),
    };
    tree::draw(root, look, run.world.stdout)
}

/// Prints one key per line, depth first. Uses an explicit stack, because directories may be nested deeper than the
/// program's stack allows.
fn list(nodes: &[Node], slash: &str, out: &mut dyn Write) -> Result<(), Stop> {
    let mut out = std::io::BufWriter::new(out);
    let mut rest: Vec<&Node> = nodes.iter().rev().collect();
    while let Some(node) = rest.pop() {
        writeln!(out, "{}{}", node.key, if node.dir { slash } else { "" })?;
        rest.extend(node.children().iter().rev());
    }
    Ok(out.flush()?)
}

fn mkdir(run: &mut Run) -> Result<(), Stop> {
    put_directory(run, Some("false"))
}

fn setdir(run: &mut Run) -> Result<(), Stop> {
    put_directory(run, None)
}

fn updatedir(run: &mut Run) -> Result<(), Stop> {
    put_directory(run, Some("true"))
}

fn put_directory(run: &mut Run, prev_exist: Option<&str>) -> Result<(), Stop> {
    let key = run.key()?;
    let mut query = vec![("dir", "true".to_owned())];
    query.extend(prev_exist.map(|value| ("prevExist", value.to_owned())));
    let ask = Ask::put(&key, query, run.ttl().into_iter().collect());
    let event = run.connect()?.send(&ask)?;
    if run.is_simple() {
        return Ok(());
    }
    run.print(&event)
}

fn rm(run: &mut Run) -> Result<(), Stop> {
    let mut query = run.flags(&["dir", "recursive"]);
    query.extend(run.text("with-value", "prevValue"));
    query.extend(run.index("with-index", "prevIndex"));
    delete(run, query)
}

fn rmdir(run: &mut Run) -> Result<(), Stop> {
    delete(run, vec![("dir", "true".to_owned())])
}

fn delete(run: &mut Run, query: Parameters) -> Result<(), Stop> {
    let key = run.key()?;
    let event = run.connect()?.send(&Ask::delete(&key, query))?;
    if event.node.dir && run.is_simple() {
        return Ok(());
    }
    run.print(&event)
}
