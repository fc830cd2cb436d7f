//! The lab: runs of a simulated cluster that a person drives, event by event.
//!
//! The lab runs the code of the server. Each member is an [`Engine`](crate::engine::Engine) over the server's WAL code and
//! a simulated disk, in a [`Cluster`] of the simulator in which nothing fails by itself. The person decides what fails, and
//! when ([`Act`]): after how many events. So a run is a small value ([`Run`]): a seed, the rules that are off
//! ([`switches`]), and the acts with their steps. The same run gives the same events everywhere, also in WebAssembly.
//!
//! To step backward, a host plays the run again to an earlier step. The page in the browser first copies back the memory
//! of the instance that it had at an earlier step, so that it plays only the steps since then.
//!
//! | part | file |
//! |---|---|
//! | a run as a value and as a text | [`run`] |
//! | acts as words | [`acts`] |
//! | rules that can be off | [`switches`] |
//! | conditions such as `leads 2`, and scripts of acts and conditions | [`condition`], [`script`] |
//! | what the page shows, as JSON | `show` |
//! | shorter runs that break in the same way | [`shrink`] |
//! | the shortest run for each rule | [`runs`] |
//! | ten lessons | [`lessons`] |
//! | functions for a host of WebAssembly | `wasm` |
//!
//! The page also replays recordings: the trace files of real members ([the guide](crate::guide::trace)), without this
//! module.
//!
//! # Violations
//!
//! A run ends at the first violation of an invariant, which the simulator's checks or an assertion of a member report.
//! Only harm counts here (see [`Act`]'s module): two leaders in a term, a committed entry that is lost, a read that
//! returns an old value. Some rules protect the service, for example from needless elections. A run shows their harm with a
//! condition that it requires, such as `require leads 1`: the run breaks if the condition does not hold.
//!
//! With all rules kept, a run breaks only if data directories are emptied in a way that no consensus survives, with the result that
//! no majority has an entry any more, or one whose member most others have not seen run yet.

pub mod acts;
pub mod condition;
pub mod lessons;
pub mod run;
pub mod runs;
pub mod script;
mod show;
pub mod shrink;
pub mod switches;
#[cfg(target_arch = "wasm32")]
mod wasm;

pub use run::Run;
pub use show::about;

use crate::raft::NodeId;
use crate::sim::{Act, Cluster, Settings};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The step in which it broke. Its effects are not complete.
    pub step: u64,
    /// One line that says what broke.
    pub text: String,
}

/// A run in progress.
pub struct Lab {
    run: Run,
    cluster: Cluster,
    /// Number of events so far.
    steps: u64,
    /// Number of acts of the run that have been performed.
    performed: usize,
    /// Number of required conditions of the run that were checked.
    checked: usize,
    broken: Option<Violation>,
}

impl Lab {
    /// The beginning of a run. Acts at step 0 are performed.
    pub fn new(run: Run) -> Lab {
        let (keeping, without) = switches::keeping(&run.without);
        let settings = Settings {
            seed: run.seed,
            nodes: run.members,
            kind: None,
            keeping,
            without,
            tracing: true,
        };
        let cluster = Cluster::by_hand(settings, run.snapshot_every);
        let mut lab = Lab {
            run,
            cluster,
            steps: 0,
            performed: 0,
            checked: 0,
            broken: None,
        };
        lab.perform_due();
        lab
    }

    /// Plays a run to a step, or to the violation before it.
    pub fn at(run: Run, step: u64) -> Lab {
        let mut lab = Lab::new(run);
        while lab.steps < step && lab.step() {}
        lab
    }

    /// Plays a run to its end, or to its violation.
    pub fn play(run: Run) -> Lab {
        let end = run.end;
        Lab::at(run, end)
    }

    /// The run so far: it ends at the present step.
    pub fn run(&self) -> Run {
        Run {
            acts: self.run.acts[..self.performed].to_vec(),
            requires: self.run.requires[..self.checked].to_vec(),
            end: self.steps,
            ..self.run.clone()
        }
    }

    /// The run with all its acts, also those after the present step.
    pub fn whole_run(&self) -> Run {
        Run {
            end: self.run.end.max(self.steps),
            ..self.run.clone()
        }
    }

    /// Knows from now on which acts follow. A host uses this after it has copied back an earlier memory.
    ///
    /// # Errors
    /// The run begins in another way than this one.
    pub fn continue_as(&mut self, run: Run) -> Result<(), String> {
        let setup = |run: &Run| {
            (
                run.seed,
                run.members,
                run.without.clone(),
                run.snapshot_every,
            )
        };
        let is_same = setup(&run) == setup(&self.run)
            && run.acts.get(..self.performed) == Some(&self.run.acts[..self.performed])
            && run.requires.get(..self.checked) == Some(&self.run.requires[..self.checked]);
        if !is_same {
            return Err("this run begins in another way".into());
        }
        self.run = run;
        self.perform_due();
        Ok(())
    }

    /// The members, messages and requests.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Number of events so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The violation that ended the run.
    pub fn broken(&self) -> Option<&Violation> {
        self.broken.as_ref()
    }

    /// Processes the next event, and performs the acts after it. False if the run has ended: an invariant broke, or
    /// nothing will happen without an act.
    pub fn step(&mut self) -> bool {
        if self.broken.is_some() || !self.cluster.has_events() || self.steps >= run::STEPS_MAX {
            return false;
        }
        self.steps += 1;
        let cluster = &mut self.cluster;
        let done = caught(|| cluster.step());
        self.note(done);
        self.perform_due();
        self.broken.is_none()
    }

    /// Performs an act now. The acts of the run after this step are dropped.
    ///
    /// # Errors
    /// Why the act has no effect now. It is not recorded.
    pub fn act(&mut self, act: Act) -> Result<(), String> {
        if let Some(Violation { step, text }) = &self.broken {
            return Err(format!("the run has ended at step {step}: {text}"));
        }
        self.cluster.may(act)?;
        self.drop_later();
        self.run.acts.push((self.steps, act));
        self.perform_due();
        Ok(())
    }

    fn perform_due(&mut self) {
        while let Some((step, act)) = self.run.acts.get(self.performed).copied()
            && step <= self.steps
            && self.broken.is_none()
        {
            self.performed += 1;
            let cluster = &mut self.cluster;
            let done = caught(|| cluster.act(act));
            self.note(done);
        }
        while let Some((step, words)) = self.run.requires.get(self.checked).cloned()
            && step <= self.steps
            && self.broken.is_none()
        {
            self.checked += 1;
            let done = self.is_met(&words);
            self.note(done);
        }
    }

    /// Adds a condition that must hold now. It becomes a part of the run.
    pub fn require(&mut self, words: &str) {
        self.drop_later();
        self.run.requires.push((self.steps, words.into()));
        self.perform_due();
    }

    /// Drops the acts and conditions of the run after this step.
    fn drop_later(&mut self) {
        self.run.acts.truncate(self.performed);
        self.run.requires.truncate(self.checked);
        self.run.end = self.steps;
    }

    fn is_met(&self, words: &str) -> Result<(), String> {
        let number = |word: &str| {
            // Members have names such as n2, or only their numbers.
            let number = word.strip_prefix('n').unwrap_or(word).parse();
            number.map_err(|_| format!("{word:?} is not a number"))
        };
        let all: Vec<&str> = words.split_whitespace().collect();
        match condition::holds_or_not(self, &all, &number, &number) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("required: {words}")),
            Err(why) => Err(format!("required: {words}: {why}")),
        }
    }

    fn note(&mut self, done: Result<(), String>) {
        if let Err(text) = done {
            self.broken = Some(Violation {
                step: self.steps,
                text,
            });
        }
    }

    /// The same number for the same run on every machine. At a violation, the number of the state before the step that
    /// broke: a member that stopped in an assertion has no state that could be compared.
    pub fn state_hash(&self) -> u64 {
        match &self.broken {
            None => self.cluster.state_hash(),
            Some(violation) => {
                let mut run = self.run();
                run.acts.retain(|(step, _)| *step < violation.step);
                run.requires.retain(|(step, _)| *step < violation.step);
                Lab::at(run, violation.step.saturating_sub(1)).state_hash()
            }
        }
    }

    /// A member that leads in the newest term.
    pub fn leader(&self) -> Option<NodeId> {
        self.cluster.leading().map(|(leader, _)| leader)
    }
}

/// Runs `work`. An assertion that fails in it is a violation. In WebAssembly it ends the instance instead.
fn caught(work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("assertion: {}", text.unwrap_or_default()))
    })
}
