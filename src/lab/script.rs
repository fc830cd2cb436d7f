//! Scripts: acts and conditions, one on a line. A lesson is a script with a text around it.
//!
//! ```text
//! members 5                    before the first act: members, seed, without
//! until steady                 events happen until the condition holds
//! name old leader              from now on, `old` is the member that leads now
//! crash old                    an act; members have numbers or names
//! until leads other            `leader` is the present leader, `other` and `third` are the next members that run
//! expect not leads old         the condition must hold now
//! require leads old            the same, and the run breaks if it does not: this becomes a part of the run
//! run 300                      events happen for 300 ms
//! step 5                       five events happen
//! index spot last old          from now on, `spot` is the index of the last entry of `old`
//! ```

use super::condition::{self, Slot};
use super::run::Run;
use super::{Lab, acts};
use std::collections::BTreeMap;

/// An `until` fails after this time, in virtual microseconds.
const PATIENCE: u64 = 20_000_000;

/// A script in progress.
pub struct Script {
    setup: Run,
    lab: Option<Lab>,
    names: BTreeMap<String, u64>,
}

/// How a line continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The line is done.
    Done,
    /// An event happened, and the line needs more of them.
    More,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            setup: Run::new(1, 3),
            lab: None,
            names: BTreeMap::new(),
        }
    }
}

impl Script {
    /// A script that continues a run.
    pub fn over(lab: Lab) -> Script {
        Script {
            lab: Some(lab),
            ..Script::default()
        }
    }

    /// Runs all lines of a text.
    ///
    /// # Errors
    /// The line, and why it cannot be done.
    pub fn run(text: &str) -> Result<Lab, String> {
        let mut script = Script::default();
        for line in text.lines() {
            script.line(line)?;
        }
        Ok(script.into_lab())
    }

    /// Runs a line to its end.
    ///
    /// # Errors
    /// The line, and why it cannot be done.
    pub fn line(&mut self, line: &str) -> Result<(), String> {
        let mut from = self.begin();
        loop {
            match self.advance(line, &mut from) {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::More) => {}
                Err(why) => return Err(format!("{line:?}: {why}")),
            }
        }
    }

    /// The place where a line begins, for [`Script::advance`]: the step and the time.
    pub fn begin(&self) -> (u64, u64) {
        let lab = self.lab.as_ref();
        lab.map_or((0, 0), |lab| (lab.steps(), lab.cluster.now()))
    }

    /// Does a line, or one event of it.
    ///
    /// # Errors
    /// Why the line cannot be done.
    pub fn advance(&mut self, line: &str, from: &mut (u64, u64)) -> Result<Progress, String> {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] => return Ok(Progress::Done),
            ["members" | "seed" | "without" | "snapshots", _] => return self.set_up(&words),
            ["until", ref condition @ ..] => {
                if self.holds(condition)? {
                    return Ok(Progress::Done);
                }
                return match self.lab().cluster.now() - from.1 > PATIENCE {
                    true => Err("this has not come true".into()),
                    false => self.event(),
                };
            }
            ["expect", ref condition @ ..] if !self.holds(condition)? => {
                return Err("this does not hold".into());
            }
            ["expect", ..] => {}
            ["require", ref condition @ ..] => {
                // A condition that cannot be checked is an error of the script, not a violation.
                self.holds(condition)?;
                let words = self.in_numbers(condition)?;
                self.lab().require(&words);
            }
            // A broken run has no further events.
            ["run" | "step", _] if self.lab().broken().is_some() => {}
            ["run", ms] => {
                let until = from.1.saturating_add(number(ms)?.min(10_000) * 1_000);
                let next = self.lab().cluster.next_at();
                if next.is_some_and(|next| next <= until) {
                    return self.event();
                }
            }
            ["step", count] => {
                let until = from.0.saturating_add(number(count)?.min(10_000));
                if self.lab().steps() < until {
                    return self.event();
                }
            }
            ["name", name, member] => {
                let member = self.member(member)?;
                self.names.insert(name.into(), member);
            }
            ["index" | "spot-term", name, "last", member] => {
                let id = self.member(member)?;
                let members = self.lab().cluster.members();
                let found = members.iter().find(|member| member.id == id);
                let last = found.and_then(|member| member.log.last());
                let last = last.map_or(0, |entry| match words[0] {
                    "index" => entry.index,
                    _ => entry.term,
                });
                self.names.insert(name.into(), last);
            }
            _ => {
                let act = acts::parse(&words, &|word| self.member(word))?;
                self.lab().act(act)?;
            }
        }
        Ok(Progress::Done)
    }

    /// The run so far.
    pub fn into_lab(mut self) -> Lab {
        self.lab();
        self.lab.expect("it has begun")
    }

    /// The run, which begins now if it has not yet.
    pub fn lab(&mut self) -> &mut Lab {
        let setup = &self.setup;
        self.lab.get_or_insert_with(|| Lab::new(setup.clone()))
    }

    fn set_up(&mut self, words: &[&str]) -> Result<Progress, String> {
        if self.lab.is_some() {
            return Err("this must be before the first act".into());
        }
        self.setup.set_up(words)?;
        Ok(Progress::Done)
    }

    fn event(&mut self) -> Result<Progress, String> {
        let lab = self.lab();
        if lab.step() {
            return Ok(Progress::More);
        }
        match lab.broken() {
            // `until broken` is asked once more.
            Some(broken) if lab.steps() == broken.step => Ok(Progress::More),
            _ => Err("nothing more will happen".into()),
        }
    }

    fn holds(&mut self, words: &[&str]) -> Result<bool, String> {
        self.lab();
        let lab = self.lab.as_ref().ok_or("nothing has begun")?;
        let (member, named) = (
            |word: &str| self.member(word),
            |word: &str| self.named(word),
        );
        condition::holds_or_not(lab, words, &member, &named)
    }

    /// The words of a condition with numbers instead of names, as a run has them.
    fn in_numbers(&self, words: &[&str]) -> Result<String, String> {
        let (not, words) = words.split_at(usize::from(words.first() == Some(&"not")));
        let form = condition::form(words)?;
        let in_number = |(word, slot): (&&str, &&str)| match Slot::of(slot) {
            Slot::Member => Ok(self.member(word)?.to_string()),
            Slot::Number => Ok(self.named(word)?.to_string()),
            Slot::Word => Ok((*word).to_owned()),
        };
        let words: Result<Vec<String>, String> = words.iter().zip(&form).map(in_number).collect();
        let words = words?;
        let all: Vec<&str> = not
            .iter()
            .copied()
            .chain(words.iter().map(String::as_str))
            .collect();
        condition::check(&all)?;
        Ok(all.join(" "))
    }

    /// A number, which may have a name.
    fn named(&self, word: &str) -> Result<u64, String> {
        match self.names.get(word) {
            Some(number) => Ok(*number),
            None => number(word),
        }
    }

    /// The number of a member, which may be a name.
    fn member(&self, word: &str) -> Result<u64, String> {
        if let Some(known) = self.names.get(word) {
            return Ok(*known);
        }
        // Members have the names that the lab shows, such as n2, or only their numbers.
        let numbered = || number(word.strip_prefix('n').unwrap_or(word));
        let Some(lab) = &self.lab else {
            return numbered();
        };
        let leader = || lab.leader().ok_or("nobody leads now");
        let others = |skip: usize| {
            let leader = leader()?.0;
            let members = lab.cluster.members();
            let is_free = |id: &u64| *id != leader && !self.names.values().any(|known| known == id);
            let mut up = members
                .iter()
                .filter(|member| member.up)
                .map(|member| member.id);
            let mut free = up.by_ref().filter(is_free);
            free.nth(skip).ok_or("no other member runs")
        };
        match word {
            "leader" => Ok(leader()?.0),
            "other" => Ok(others(0)?),
            "third" => Ok(others(1)?),
            _ => numbered(),
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    let number = word.parse().ok();
    number.ok_or_else(|| format!("{word:?} is neither a number nor a name"))
}
