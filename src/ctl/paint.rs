//! Colours, used if the output goes to a terminal and the user has not disabled them.

use super::command::World;
use super::screen;

/// Adds colours to words, or returns them unchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    #[cfg(test)]
    pub const NONE: Paint = Paint { on: false };

    /// Colours are on if stdout is a terminal, unless `NO_COLOR` is set or the terminal type is `dumb`.
    pub fn new(world: &World) -> Paint {
        let refused = (world.env)("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = (world.env)("TERM").is_some_and(|value| value == "dumb");
        Paint {
            on: world.stdout_is_terminal && !refused && !dumb,
        }
    }

    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    pub fn directory(self, text: &str) -> String {
        self.with("1;34", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on {
            let (on, off) = (
                screen::command(&format!("[{code}m")),
                screen::command("[0m"),
            );
            format!("{on}{text}{off}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn colours_are_for_terminals() {
        let table = [
            (true, &[][..], "\x1b[32mgood\x1b[0m"),
            (true, &[("NO_COLOR", "")][..], "\x1b[32mgood\x1b[0m"),
            (true, &[("NO_COLOR", "1")][..], "good"),
            (true, &[("TERM", "dumb")][..], "good"),
            (false, &[][..], "good"),
        ];
        for (stdout_is_terminal, variables, expected) in table {
            let env = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let world = World {
                env: &env,
                stdin: &mut std::io::empty(),
                stdout: &mut std::io::sink(),
                stderr: &mut std::io::sink(),
                stdout_is_terminal,
                stderr_is_terminal: false,
            };
            let painted = Paint::new(&world).good("good");
            let mut shown = Vec::new();
            let passed = screen::Screen::new(&mut shown).write_all(painted.as_bytes());
            passed.expect("memory takes it");
            assert_eq!(shown, expected.as_bytes(), "{variables:?}");
        }
    }
}
