//! The output of `--help` and `--version`.

use super::flags::{FLAGS, Flag, Kind, Role};

use crate::ETCD_VERSION;

const INTRODUCTION: &str = "\
edgetcd: a small server for etcd's v2 API

Usage:

  edgetcd [flags]
    Start a member. Without other flags it is a cluster of one.

  edgetcd --version
    Show the version.

  edgetcd -h | --help
    Show this help.

Example: a node on this machine with its data in ./default.etcd, and a first key:

  edgetcd &
  curl http://127.0.0.1:2379/v2/keys/message -XPUT -d value='Hello'

Example: the first of three members:

  edgetcd --name n1 --data-dir /var/lib/edgetcd \\
    --listen-peer-urls http://10.0.0.1:2380 \\
    --initial-advertise-peer-urls http://10.0.0.1:2380 \\
    --listen-client-urls http://10.0.0.1:2379,http://127.0.0.1:2379 \\
    --advertise-client-urls http://10.0.0.1:2379 \\
    --initial-cluster-token fruit \\
    --initial-cluster n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380,n3=http://10.0.0.3:2380

Flags have one dash or two. Their value follows '=' or is the next word; the value of a boolean flag
must follow '='. Each flag can be set by a variable instead: --data-dir is ETCD_DATA_DIR.
A flag overrides its variable. If a flag is repeated, the last one counts.
The --initial-* flags are used on the first start only. Later starts use the data directory.
";

/// Printed below the message of a usage error.
pub(super) const USAGE: &str = "\
Usage:

  edgetcd [flags]
    Start a member.

  edgetcd -h | --help
    Show all flags.
";

/// The whole text of `--help`.
pub(super) fn help() -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut group = "";
    for flag in FLAGS {
        let Role::Ours(what) = flag.role else {
            continue;
        };
        if flag.group != group {
            group = flag.group;
            out += &format!("\n{group}:\n");
        }
        out += &format!("  --{}{}\n    {what}\n", flag.name, shown_default(flag));
    }
    out += "\nAccepted with a warning, so that etcd's command lines work:\n";
    out += &names(|role| matches!(role, Role::Warned(_)));
    out += "\nAccepted and ignored with a warning, as in etcd:\n";
    out += &names(|role| matches!(role, Role::Gone));
    out += "\nRefused, because this server does not have the features that they ask for:\n";
    out += &names(|role| matches!(role, Role::Refused(_)));
    out
}

fn shown_default(flag: &Flag) -> String {
    match flag.kind {
        Kind::Bool if flag.group == "Other" => String::new(),
        _ => format!(" '{}'", flag.default),
    }
}

/// The flags of a role as a paragraph.
fn names(of: impl Fn(Role) -> bool) -> String {
    let mut out = String::new();
    let mut column = 0;
    for flag in FLAGS.iter().filter(|flag| of(flag.role)) {
        if column == 0 || column + flag.name.len() + 3 > 96 {
            out += if column == 0 { " " } else { "\n " };
            column = 1;
        }
        out += &format!(" --{}", flag.name);
        column += flag.name.len() + 3;
    }
    out + "\n"
}

/// The output of `--version`: the same four lines as the reference, because scripts read the third word of the first
/// line.
pub(super) fn version() -> String {
    format!(
        "etcd Version: {ETCD_VERSION} (edgetcd {}, which serves etcd's v2 API)\n\
         Git SHA: Not provided (not a build of etcd)\n\
         Go Version: none (written in Rust)\n\
         Go OS/Arch: {}/{}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        go_arch(std::env::consts::ARCH),
    )
}

/// Go's name of a processor architecture, which scripts compare.
fn go_arch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        other => other,
    }
}
