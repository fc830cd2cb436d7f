//! systemd's notification protocol (`sd_notify(3)`): reports the state of this process to its supervisor.
//!
//! `NOTIFY_SOCKET` names a datagram socket, either by its path or, with a leading `@`, by an abstract name (Linux).
//! Each datagram contains lines of the form `NAME=value`:
//!
//! | line | when it is sent |
//! |---|---|
//! | `READY=1` | when the node can show everything that it has acknowledged |
//! | `STATUS=…` | together with the others: the current activity, for `systemctl status` |
//! | `EXTEND_TIMEOUT_USEC=…` | every few seconds during a long start, because of a long log or a missing majority |
//! | `WATCHDOG=1` | every half of `WATCHDOG_USEC`, while the raft thread makes progress |
//! | `STOPPING=1` | when the node begins to stop |
//!
//! Without the variable nothing is sent. A failure to send never affects the node. Sending never waits: if the socket
//! is full, the message is dropped.

use crate::threads;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// Interval at which a long start asks for more time.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// The time that it asks for. A start that does not ask again within this time is considered hung.
const EXTEND_BY: Duration = Duration::from_secs(30);

/// The supervisor of this process, if it wants notifications. Clones refer to the same supervisor.
#[derive(Debug, Clone, Default)]
pub struct Supervisor {
    socket: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Reads the environment.
    pub fn new(get: impl Fn(&str) -> Option<OsString>) -> Supervisor {
        let Some(name) = get("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Supervisor::default();
        };
        let number = |name| get(name)?.to_str()?.parse::<u64>().ok();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let span = number("WATCHDOG_USEC").filter(|us| meant && *us > 0);
        let watchdog = span.map(Duration::from_micros);
        match connect(name.as_bytes()) {
            Ok(socket) => Supervisor {
                socket: Some(Arc::new(socket)),
                watchdog,
            },
            Err(error) => {
                log::warn!("NOTIFY_SOCKET={}: {error}", name.to_string_lossy());
                Supervisor::default()
            }
        }
    }

    /// Sends these lines as one datagram.
    pub fn notify(&self, lines: &[&str]) {
        if let Some(socket) = &self.socket {
            let (socket, to) = &**socket;
            if let Err(error) = socket.send_to_addr(lines.join("\n").as_bytes(), to) {
                log::debug!("NOTIFY_SOCKET takes nothing: {error}");
            }
        }
    }

    /// Asks for more time repeatedly, until the returned value is dropped.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn extend(&self) -> io::Result<Extending> {
        let (extending, dropped) = bounded(0);
        if self.socket.is_some() {
            let this = self.clone();
            threads::critical("notify", move || {
                let line = format!("EXTEND_TIMEOUT_USEC={}", EXTEND_BY.as_micros());
                this.every(EXTEND_EVERY, &dropped, || Some(line.clone()));
            })?;
        }
        Ok(Extending(extending))
    }

    /// Feeds the watchdog, if there is one, as long as `turns` returns a different number each time.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn watch(&self, turns: impl Fn() -> u64 + Send + 'static) -> io::Result<Extending> {
        let (watching, dropped) = bounded(0);
        if let Some(span) = self.watchdog {
            let this = self.clone();
            threads::critical("watchdog", move || {
                let mut last = None;
                this.every(span / 2, &dropped, || {
                    let now = turns();
                    let turned = last.replace(now) != Some(now);
                    turned.then(|| "WATCHDOG=1".to_owned())
                });
            })?;
        }
        Ok(Extending(watching))
    }

    fn every(
        &self,
        span: Duration,
        dropped: &Receiver<()>,
        mut line: impl FnMut() -> Option<String>,
    ) {
        loop {
            if let Some(line) = line() {
                self.notify(&[&line]);
            }
            if dropped.recv_timeout(span) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }
}

/// Keeps a thread sending until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it ends what it stands for"]
pub struct Extending(#[expect(dead_code, reason = "its end is what is waited for")] Sender<()>);

fn connect(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "abstract names are Linux's",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A supervisor's socket, and a `Supervisor` that sends to it.
    fn pair(more: &'static [(&'static str, &'static str)]) -> (UnixDatagram, Supervisor) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let ear = UnixDatagram::bind(&path).expect("a socket");
        let patience = Some(Duration::from_secs(10));
        ear.set_read_timeout(patience).expect("set");
        let supervisor = Supervisor::new(|name| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into_os_string()),
            name => {
                let found = more.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            }
        });
        // The path must exist as long as datagrams are sent to it.
        std::mem::forget(folder);
        (ear, supervisor)
    }

    fn heard(ear: &UnixDatagram) -> String {
        let mut bytes = [0; 1000];
        let length = ear.recv(&mut bytes).expect("a word");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn words_are_datagrams_of_lines() {
        let (ear, supervisor) = pair(&[]);
        supervisor.notify(&["READY=1", "STATUS=here"]);
        assert_eq!(heard(&ear), "READY=1\nSTATUS=here");
        let extending = supervisor.extend().expect("a thread");
        assert_eq!(heard(&ear), "EXTEND_TIMEOUT_USEC=30000000");
        drop(extending);
    }

    #[test]
    fn the_watchdog_is_fed_while_something_turns() {
        let (ear, supervisor) = pair(&[("WATCHDOG_USEC", "20000")]);
        let turns = Arc::new(AtomicU64::new(0));
        let seen = turns.clone();
        let turning = supervisor.watch(move || seen.fetch_add(1, Ordering::SeqCst));
        assert_eq!(heard(&ear), "WATCHDOG=1");
        assert_eq!(heard(&ear), "WATCHDOG=1");
        drop(turning);
        let (ear, supervisor) = pair(&[("WATCHDOG_USEC", "20000")]);
        let _standing = supervisor.watch(|| 7).expect("a thread");
        assert_eq!(heard(&ear), "WATCHDOG=1", "it has turned up to then");
        let short = Some(Duration::from_millis(200));
        ear.set_read_timeout(short).expect("set");
        assert!(ear.recv(&mut [0; 10]).is_err(), "it stands, and is fed");
        let (_, other) = pair(&[("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]);
        assert_eq!(other.watchdog, None);
    }

    #[test]
    fn nobody_to_tell_is_no_error() {
        let supervisor = Supervisor::new(|_| None);
        supervisor.notify(&["READY=1"]);
        let gone = Supervisor::new(|name| (name == "NOTIFY_SOCKET").then(|| "/nowhere".into()));
        gone.notify(&["READY=1"]);
        let _extending = gone.extend().expect("a thread");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn abstract_names_begin_with_an_at() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("edgetcd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let ear = UnixDatagram::bind_addr(&address).expect("a socket");
        let at = |asked: &str| (asked == "NOTIFY_SOCKET").then(|| format!("@{name}").into());
        Supervisor::new(at).notify(&["STOPPING=1"]);
        assert_eq!(heard(&ear), "STOPPING=1");
    }
}
