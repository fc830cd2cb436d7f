//! The counters of `/v2/stats/store` that are part of the replicated state (spec §12).

use super::command::Action;
use super::json;

/// Number of applied commands of each kind and of expired nodes. They are the same on every member, because each member
/// applies the same log. Gets and watchers are counted elsewhere by each member for itself. Every refusal counts as a
/// failure of the command's kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// `setsSuccess`.
    pub sets_success: u64,
    /// `setsFail`.
    pub sets_fail: u64,
    /// `deleteSuccess`.
    pub delete_success: u64,
    /// `deleteFail`.
    pub delete_fail: u64,
    /// `updateSuccess`.
    pub update_success: u64,
    /// `updateFail`.
    pub update_fail: u64,
    /// `createSuccess`. In-order creations are included.
    pub create_success: u64,
    /// `createFail`.
    pub create_fail: u64,
    /// `compareAndSwapSuccess`.
    pub compare_and_swap_success: u64,
    /// `compareAndSwapFail`.
    pub compare_and_swap_fail: u64,
    /// `compareAndDeleteSuccess`.
    pub compare_and_delete_success: u64,
    /// `compareAndDeleteFail`.
    pub compare_and_delete_fail: u64,
    /// `expireCount`.
    pub expire_count: u64,
}

/// Counters of one member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LocalStats {
    /// `getsSuccess`, including quorum reads.
    pub gets_success: u64,
    /// `getsFail`.
    pub gets_fail: u64,
    /// `watchers`: number of open watches.
    pub watchers: u64,
}

impl Stats {
    pub(super) fn count(&mut self, action: Action, done: bool) {
        let counter = match (action, done) {
            (Action::Set, true) => &mut self.sets_success,
            (Action::Set, false) => &mut self.sets_fail,
            (Action::Create | Action::CreateInOrder, true) => &mut self.create_success,
            (Action::Create | Action::CreateInOrder, false) => &mut self.create_fail,
            (Action::Update, true) => &mut self.update_success,
            (Action::Update, false) => &mut self.update_fail,
            (Action::CompareAndSwap, true) => &mut self.compare_and_swap_success,
            (Action::CompareAndSwap, false) => &mut self.compare_and_swap_fail,
            (Action::Delete, true) => &mut self.delete_success,
            (Action::Delete, false) => &mut self.delete_fail,
            (Action::CompareAndDelete, true) => &mut self.compare_and_delete_success,
            (Action::CompareAndDelete, false) => &mut self.compare_and_delete_fail,
        };
        *counter += 1;
    }

    /// Appends the body of `/v2/stats/store` (no newline).
    pub fn render(&self, local: &LocalStats, out: &mut Vec<u8>) {
        let fields = [
            ("getsSuccess", local.gets_success),
            ("getsFail", local.gets_fail),
            ("setsSuccess", self.sets_success),
            ("setsFail", self.sets_fail),
            ("deleteSuccess", self.delete_success),
            ("deleteFail", self.delete_fail),
            ("updateSuccess", self.update_success),
            ("updateFail", self.update_fail),
            ("createSuccess", self.create_success),
            ("createFail", self.create_fail),
            ("compareAndSwapSuccess", self.compare_and_swap_success),
            ("compareAndSwapFail", self.compare_and_swap_fail),
            ("compareAndDeleteSuccess", self.compare_and_delete_success),
            ("compareAndDeleteFail", self.compare_and_delete_fail),
            ("expireCount", self.expire_count),
            ("watchers", local.watchers),
        ];
        for (at, (name, value)) in fields.into_iter().enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            json::push_string(out, name.as_bytes());
            out.push(b':');
            json::push_number(out, value);
        }
        out.push(b'}');
    }

    /// The counters in the order of the snapshot.
    /// The largest of all.
    pub fn largest(&self) -> u64 {
        self.as_array().into_iter().max().unwrap_or(0)
    }

    pub(super) fn as_array(&self) -> [u64; 13] {
        [
            self.sets_success,
            self.sets_fail,
            self.delete_success,
            self.delete_fail,
            self.update_success,
            self.update_fail,
            self.create_success,
            self.create_fail,
            self.compare_and_swap_success,
            self.compare_and_swap_fail,
            self.compare_and_delete_success,
            self.compare_and_delete_fail,
            self.expire_count,
        ]
    }

    /// The inverse of [`Stats::as_array`].
    pub(super) fn from_array(counters: [u64; 13]) -> Stats {
        let [
            sets_success,
            sets_fail,
            delete_success,
            delete_fail,
            update_success,
            update_fail,
            create_success,
            create_fail,
            compare_and_swap_success,
            compare_and_swap_fail,
            compare_and_delete_success,
            compare_and_delete_fail,
            expire_count,
        ] = counters;
        Stats {
            sets_success,
            sets_fail,
            delete_success,
            delete_fail,
            update_success,
            update_fail,
            create_success,
            create_fail,
            compare_and_swap_success,
            compare_and_swap_fail,
            compare_and_delete_success,
            compare_and_delete_fail,
            expire_count,
        }
    }
}
