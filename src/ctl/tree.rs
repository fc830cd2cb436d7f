//! Draws keys as a tree.

use std::io::Write;

use super::Stop;
use super::answer::Node;
use super::paint::Paint;

/// The details that are drawn with the names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub paint: Paint,
    /// Values and times to live.
    pub values: bool,
    /// A slash after the names of directories.
    pub slash: bool,
}

/// Draws the directory and everything below it, and the numbers of keys and directories.
pub(super) fn draw(root: &Node, look: Look, out: &mut dyn Write) -> Result<(), Stop> {
    let mut out = std::io::BufWriter::new(out);
    let top = match root.key.as_str() {
        "" => "/".to_owned(),
        key => label(root, key, look),
    };
    writeln!(out, "{top}")?;
    // The prefix of each level is in this list and not on the program's stack, because trees may be deep.
    let mut levels = vec![(String::new(), root.children().iter())];
    let (mut directories, mut keys) = (0_u64, 0_u64);
    while let Some((prefix, rest)) = levels.last_mut() {
        let Some(node) = rest.next() else {
            levels.pop();
            continue;
        };
        let (branch, below) = match rest.as_slice() {
            [] => ("└── ", "    "),
            _ => ("├── ", "│   "),
        };
        let name = node.key.rsplit('/').next().unwrap_or_default();
        writeln!(out, "{prefix}{branch}{}", label(node, name, look))?;
        *(if node.dir {
            &mut directories
        } else {
            &mut keys
        }) += 1;
        let prefix = format!("{prefix}{below}");
        levels.push((prefix, node.children().iter()));
    }
    writeln!(
        out,
        "\n{}, {}",
        counted(directories, "directory", "directories"),
        counted(keys, "key", "keys")
    )?;
    Ok(out.flush()?)
}

fn label(node: &Node, name: &str, look: Look) -> String {
    let mut out = if node.dir {
        let slash = if look.slash { "/" } else { "" };
        look.paint.directory(name) + slash
    } else {
        name.to_owned()
    };
    if look.values && !node.dir {
        out += &format!(" = {}", on_one_line(&node.value));
    }
    if look.values && node.ttl > 0 {
        out += &format!(" ({}s left)", node.ttl);
    }
    out
}

/// The value as it is, or with quotes and escapes if it would break the drawing.
fn on_one_line(value: &str) -> String {
    if value.chars().any(char::is_control) {
        format!("{value:?}")
    } else {
        value.to_owned()
    }
}

fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(json: &str, values: bool) -> String {
        let root: Node = serde_json::from_str(json).unwrap();
        let look = Look {
            paint: Paint::NONE,
            values,
            slash: false,
        };
        let mut out = vec![];
        draw(&root, look, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const ROOT: &str = r#"{"dir":true,"nodes":[
        {"key":"/a","dir":true,"nodes":[
            {"key":"/a/b","dir":true,"nodes":[{"key":"/a/b/c","value":"1\n2","ttl":9}]},
            {"key":"/a/d","value":"x"}]},
        {"key":"/e","dir":true}]}"#;

    #[test]
    fn branches_end_where_nothing_comes_behind() {
        let expected = "\
/
├── a
│   ├── b
│   │   └── c
│   └── d
└── e

3 directories, 2 keys
";
        assert_eq!(drawn(ROOT, false), expected);
    }

    #[test]
    fn values_stay_on_their_line() {
        let drawn = drawn(ROOT, true);
        assert!(drawn.contains("└── c = \"1\\n2\" (9s left)\n"), "{drawn}");
        assert!(drawn.contains("└── d = x\n"), "{drawn}");
    }
}
