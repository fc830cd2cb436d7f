//! Which kinds of commands every member understands.
//!
//! A member of an earlier version would stop at an entry whose kind it does not know, and again after each restart. So a
//! leader appends a command only if all members have said that they understand its format ([`entry`]). A member that has
//! not connected since this process began counts as one of the first format.
//!
//! A format that the state already contains needs no such question: a member that does not know it cannot apply the log
//! or the snapshot anyway. So users and passwords can be changed while a member is away.

use super::Engine;
use super::entry::{self, AUTH_FORMAT, FIRST_FORMAT, FORMAT};
use super::rules::Rules;

impl<T, R: Rules> Engine<T, R> {
    /// The newest format that all members understand.
    pub fn common_format(&self) -> u16 {
        let me = self.core.id();
        let members = self.core.membership();
        let others = members.voters.iter().chain(&members.learners);
        let formats = others.filter(|id| **id != me).map(|id| {
            let known = self.formats.get(id);
            known.copied().unwrap_or(FIRST_FORMAT)
        });
        formats.fold(FORMAT, u16::min)
    }

    /// Whether this member may append the command as the leader.
    pub(super) fn is_understood(&self, command: &[u8]) -> bool {
        // Nearly all commands are of the first format: the members are not asked for each.
        let format = entry::format_of(command);
        format <= self.used_format() || format <= self.common_format()
    }

    /// The newest format of the commands that this state was made of, as far as the state shows it.
    fn used_format(&self) -> u16 {
        match self.state.auth.is_unused() {
            true => FIRST_FORMAT,
            false => AUTH_FORMAT,
        }
    }

    /// What a program of the next version would do, for the tests of clusters with members of two versions.
    #[cfg(edgetcd_next_format)]
    pub(super) fn propose_next_format(&mut self) {
        let command = entry::next_format();
        if !self.has_proposed_next_format && self.is_understood(&command) {
            self.has_proposed_next_format = true;
            self.propose(vec![super::request::Proposal::own(command)]);
        }
    }
}
