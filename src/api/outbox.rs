//! How answers of this API reach clients: by the HTTP server's outbox.

use crate::http1::{Gone, Outbox, Parked};
use crate::replica;
use crate::watch;
use std::sync::Arc;

/// The replica that this API asks.
pub type Replica = replica::Replica<Outbox>;

/// The hub in which this API's watchers wait.
pub type WatchHub = watch::WatchHub<Outbox>;

impl watch::Outbox for Outbox {
    type Watcher = Parked;

    fn chunk<'a>(&mut self, watchers: impl Iterator<Item = &'a Parked>, bytes: Arc<[u8]>) {
        Outbox::chunk(self, watchers, bytes);
    }

    fn end(&mut self, watcher: Parked, bytes: Arc<[u8]>) {
        watcher.end_in(bytes, self);
    }

    fn flush(&mut self) {
        Outbox::flush(self);
    }

    fn waiting(&self) -> usize {
        Outbox::waiting(self)
    }

    fn is_full(&self, patient: bool) -> bool {
        Outbox::is_full(self, patient)
    }
}

impl Gone for WatchHub {
    fn gone(&self, token: u64) {
        WatchHub::gone(self, token);
    }
}
