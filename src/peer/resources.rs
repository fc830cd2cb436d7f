//! The threads and sockets of a link, so that stopping ends all of them.
//!
//! Every thread holds a clone of one channel's sender, its token. When the last token is dropped, the channel
//! disconnects, and all threads have ended. Every socket that a thread may block on is also registered here. Stopping
//! shuts the socket down, which wakes a blocked reader or writer with an error.

use crate::threads;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// The same as for our other threads: none of them recurses.
const STACK_BYTES: usize = 256 << 10;

/// Threads and sockets of one link.
pub(super) struct Resources {
    state: Mutex<State>,
    stopped: Receiver<Infallible>,
    ended: Receiver<Infallible>,
}

struct State {
    /// None: the link is stopping. Both fields exist only to be dropped.
    running: Option<Running>,
    sockets: BTreeMap<u64, Arc<TcpStream>>,
    next: u64,
}

struct Running {
    _stop: Sender<Infallible>,
    token: Sender<Infallible>,
}

impl Resources {
    pub fn new() -> Arc<Resources> {
        let (stop, stopped) = bounded(0);
        let (token, ended) = bounded(0);
        let state = State {
            running: Some(Running { _stop: stop, token }),
            sockets: BTreeMap::new(),
            next: 0,
        };
        Arc::new(Resources {
            state: Mutex::new(state),
            stopped,
            ended,
        })
    }

    /// Starts a thread that the link cannot work without: a panic in it ends the process.
    pub fn critical(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let token = self.token()?;
        let body = move || {
            let _token = token;
            body();
        };
        threads::critical(name, body).map(drop)
    }

    /// Starts the thread of one connection: a panic, like any other failure there, ends only that connection.
    pub fn connection(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let token = self.token()?;
        let body = move || {
            let _token = token;
            body();
        };
        let builder = Builder::new().name(name.to_owned()).stack_size(STACK_BYTES);
        builder.spawn(body).map(drop)
    }

    fn token(&self) -> io::Result<Sender<Infallible>> {
        let running = self.state().running.as_ref().map(|r| r.token.clone());
        running.ok_or_else(|| io::Error::other("this member is stopping"))
    }

    /// Registers a socket. Returns None, and closes the socket, if the link is stopping.
    pub fn hold(self: &Arc<Resources>, socket: TcpStream) -> Option<Held> {
        let mut state = self.state();
        state.running.as_ref()?;
        let (socket, number) = (Arc::new(socket), state.next);
        state.next += 1;
        state.sockets.insert(number, Arc::clone(&socket));
        drop(state);
        Some(Held {
            resources: Arc::clone(self),
            number,
            socket,
        })
    }

    pub fn is_stopping(&self) -> bool {
        self.state().running.is_none()
    }

    /// A channel that is disconnected when the link is stopping. Threads select on it.
    pub fn stopped(&self) -> &Receiver<Infallible> {
        &self.stopped
    }

    /// Refuses new threads and sockets, and shuts down the existing sockets.
    pub fn stop(&self) {
        let mut state = self.state();
        state.running = None;
        for socket in state.sockets.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Called after [`Resources::stop`]: whether all threads have ended in time. A thread that waits for a resolver may not
    /// end.
    pub fn join(&self, at_most: Duration) -> bool {
        matches!(
            self.ended.recv_timeout(at_most),
            Err(RecvTimeoutError::Disconnected)
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered socket. Its drop shuts the socket down, even if other handles to it exist.
pub(super) struct Held {
    resources: Arc<Resources>,
    number: u64,
    socket: Arc<TcpStream>,
}

impl Held {
    /// A handle for a caller that may need to shut the socket down.
    pub fn handle(&self) -> Arc<TcpStream> {
        Arc::clone(&self.socket)
    }
}

impl Deref for Held {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.resources.state().sockets.remove(&self.number);
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
