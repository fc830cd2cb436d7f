//! A run as a value and as a text: a seed, the rules that are off, and the acts with their steps.
//!
//! ```text
//! lab 1                        format 1
//! seed 7                       decides the election timeouts
//! members 5                    3 to 7
//! without COMMIT_OWN_TERM_ONLY a rule that is off; may be repeated
//! 120 crash 1                  after 120 events, the power of member 1 fails
//! 300 cut 1 2                  after 300 events, messages of member 1 to member 2 are lost
//! snapshots 5                  a snapshot after that many entries, instead of 40
//! 700 require leads 2          the run breaks here unless this condition holds
//! 800 end                      the run was driven to this step
//! ```
//!
//! In the fragment of a URL, `;` separates the lines and `+` the words. Both forms are read by the same function. Lines
//! that begin with `#` are comments.

use super::switches::{self, Switch};
use super::{acts, condition};
use crate::sim::Act;
use std::fmt;

/// The most bytes that a text may have.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// The most events of a run.
pub const STEPS_MAX: u64 = 2_000_000;
const ACTS_MAX: usize = 10_000;
/// Entries between two snapshots, unless a run says otherwise.
const SNAPSHOT_EVERY: u64 = 40;

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Decides the election timeouts.
    pub seed: u64,
    /// Number of members at the start: 3 to 7.
    pub members: u64,
    /// Rules that are off.
    pub without: Vec<Switch>,
    /// Acts, each after this many events, in order.
    pub acts: Vec<(u64, Act)>,
    /// Conditions that must hold after this many events, in order. A rule that protects the service, and not the data, is
    /// shown by these.
    pub requires: Vec<(u64, String)>,
    /// Entries between two snapshots of a member.
    pub snapshot_every: u64,
    /// Number of events to which the run was driven.
    pub end: u64,
}

impl Run {
    /// A run without acts that keeps all rules.
    pub fn new(seed: u64, members: u64) -> Run {
        Run {
            seed,
            members,
            without: Vec::new(),
            acts: Vec::new(),
            requires: Vec::new(),
            snapshot_every: SNAPSHOT_EVERY,
            end: 0,
        }
    }

    /// Reads a text, which may come from anywhere.
    ///
    /// # Errors
    /// A sentence with the line that is wrong.
    pub fn parse(text: &str) -> Result<Run, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("the run has more than {TEXT_BYTES_MAX} bytes"));
        }
        let mut run = Run::new(0, 3);
        let mut has_format = false;
        for line in text.split(['\n', ';']).map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line
                .split([' ', '+'])
                .filter(|word| !word.is_empty())
                .collect();
            if !has_format {
                has_format = words == ["lab", "1"];
                if !has_format {
                    return Err(format!(
                        "a run begins with the line \"lab 1\", not {line:?}"
                    ));
                }
                continue;
            }
            run.line(&words).map_err(|why| format!("{line:?}: {why}"))?;
        }
        match has_format {
            true => Ok(run),
            false => Err("a run begins with the line \"lab 1\"".into()),
        }
    }

    /// Takes a line that says how the run begins: `seed`, `members`, `snapshots` or `without`. False: it is another line.
    ///
    /// # Errors
    /// A sentence for the person who wrote the line.
    pub fn set_up(&mut self, words: &[&str]) -> Result<bool, String> {
        match words {
            ["seed", seed] => self.seed = number(seed)?,
            ["members", members] => match number(members)? {
                members @ 3..=7 => self.members = members,
                _ => return Err("a run has 3 to 7 members".into()),
            },
            ["snapshots", entries] => match number(entries)? {
                entries @ 1..=1_000 => self.snapshot_every = entries,
                _ => return Err("a snapshot is made after 1 to 1000 entries".into()),
            },
            ["without", name] => {
                let switch = Switch::named(name);
                self.without
                    .push(switch.ok_or_else(|| format!("no rule has the name {name}"))?);
                switches::check(&self.without)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn line(&mut self, words: &[&str]) -> Result<(), String> {
        if self.set_up(words)? {
            return Ok(());
        }
        match words {
            [step, "end"] => self.end = self.step(step)?,
            [step, act @ ..] => {
                let step = self.step(step)?;
                if self.acts.len() + self.requires.len() == ACTS_MAX {
                    return Err(format!("a run has at most {ACTS_MAX} acts"));
                }
                if let ["require", words @ ..] = act {
                    condition::check(words)?;
                    self.requires.push((step, words.join(" ")));
                    self.end = step;
                    return Ok(());
                }
                self.acts.push((step, acts::parse(act, &number)?));
                self.end = step;
            }
            [] => {}
        }
        Ok(())
    }

    /// A step that is not before the last one.
    fn step(&self, word: &str) -> Result<u64, String> {
        let step = number(word)?;
        if step < self.end {
            return Err(format!("step {step} comes after step {}", self.end));
        }
        if step > STEPS_MAX {
            return Err(format!("a run has at most {STEPS_MAX} steps"));
        }
        Ok(step)
    }

    /// The run as the fragment of a URL, without its `#`.
    pub fn fragment(&self) -> String {
        let text = self.to_string();
        text.trim_end().replace('\n', ";").replace(' ', "+")
    }
}

/// A number in decimal digits.
fn number(word: &str) -> Result<u64, String> {
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let number = word.parse().ok().filter(|_| is_plain);
    number.ok_or_else(|| format!("{word:?} is not a number"))
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lab 1\nseed {}\nmembers {}", self.seed, self.members)?;
        for switch in &self.without {
            writeln!(f, "without {switch}")?;
        }
        if self.snapshot_every != SNAPSHOT_EVERY {
            writeln!(f, "snapshots {}", self.snapshot_every)?;
        }
        let acts = self.acts.iter();
        let acts = acts.map(|(step, act)| (*step, acts::text(*act)));
        let requires = self.requires.iter();
        let requires = requires.map(|(step, words)| (*step, format!("require {words}")));
        let mut lines: Vec<(u64, String)> = acts.chain(requires).collect();
        // Acts come first: the conditions of a step are checked after its acts.
        lines.sort_by_key(|(step, _)| *step);
        for (step, line) in lines {
            writeln!(f, "{step} {line}")?;
        }
        writeln!(f, "{} end", self.end)
    }
}
