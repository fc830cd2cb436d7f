//! Compares and hashes passwords, on a thread of its own.
//!
//! A bcrypt hash takes tens of milliseconds on purpose. So one thread does this work for all requests, and requests wait
//! for it without a thread. A password that was found right is remembered as a keyed digest together with the hash that
//! it was compared with. A request with the same credentials then needs no bcrypt, as long as the user still has this
//! hash. So a changed or removed password is forgotten on every member, without a message.
//!
//! The thread is also a limit: guesses take at most one core, and at most [`WAITING_MAX`] of them wait. A client whose
//! credentials are remembered is not delayed by them.

use crate::auth::Hash;
use crate::threads;
use bcrypt::{HashParts, Version};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use subtle::ConstantTimeEq;

/// The cost that etcd uses.
const COST: u32 = 10;

/// Hashes with a higher cost take more than a second. No etcd makes them.
const COST_MAX: u32 = 14;

/// bcrypt ignores all later bytes of a password.
const PASSWORD_BYTES: usize = 72;

/// Number of passwords that wait to be compared or hashed: a few seconds of work.
const WAITING_MAX: usize = 64;

/// Number of users whose password is remembered.
const REMEMBERED_MAX: usize = 10_000;

/// A hash of no known password, with etcd's cost. The password of a user who does not exist is compared with it, so that
/// the answer takes as long as for one who exists.
const NOBODY: &str = "$2a$10$6v7cJQbqwgzlRmX0cXnnyeuqT0q1oFqgwZ9nYFVyqxUgVYtT9zF9W";

/// Too many passwords wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

enum Job {
    Compare {
        user: String,
        hash: Option<String>,
        password: Vec<u8>,
        then: Box<dyn FnOnce(Result<bool, Busy>) + Send>,
    },
    Hash {
        password: Vec<u8>,
        then: Box<dyn FnOnce(Result<Hash, Busy>) + Send>,
    },
}

/// The thread, and what it has found. The thread starts when it is first needed.
pub struct Passwords {
    jobs: OnceLock<Sender<Job>>,
    known: Arc<Known>,
}

/// Passwords that were found right.
struct Known {
    /// Chosen at random by each process, so that a digest is of no use elsewhere.
    key: [u8; 32],
    users: Mutex<HashMap<String, Remembered>>,
}

struct Remembered {
    hash: String,
    digest: [u8; 32],
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key has a fixed length, and digests are not shown to anybody, so the key as a prefix suffices.
    fn digest(&self, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update(significant(password));
        digest.finalize().into()
    }

    fn remember(&self, user: String, hash: String, password: &[u8]) {
        let digest = self.digest(password);
        let mut users = self.lock();
        if users.len() >= REMEMBERED_MAX && !users.contains_key(&user) {
            users.clear();
        }
        users.insert(user, Remembered { hash, digest });
    }
}

fn significant(password: &[u8]) -> &[u8] {
    &password[..password.len().min(PASSWORD_BYTES)]
}

impl Passwords {
    /// Remembers nothing yet.
    #[expect(
        clippy::new_without_default,
        reason = "it takes random numbers from the system"
    )]
    pub fn new() -> Passwords {
        let known = Known {
            key: random(),
            users: Mutex::default(),
        };
        Passwords {
            jobs: OnceLock::new(),
            known: Arc::new(known),
        }
    }

    fn jobs(&self) -> &Sender<Job> {
        self.jobs.get_or_init(|| {
            let (jobs, waiting) = bounded(WAITING_MAX);
            let known = Arc::clone(&self.known);
            if let Err(error) = threads::critical("passwords", move || run(&waiting, &known)) {
                threads::fatal(&format!("the passwords thread cannot be started: {error}"));
            }
            jobs
        })
    }

    /// Whether the password is known to be right: it was compared with this hash before.
    pub fn is_known(&self, user: &str, hash: &str, password: &[u8]) -> bool {
        let digest = self.known.digest(password);
        let users = self.known.lock();
        users.get(user).is_some_and(|remembered| {
            remembered.hash == hash && bool::from(remembered.digest.ct_eq(&digest))
        })
    }

    /// Compares a password, and calls `then` with the result on the thread, which must not be blocked. If too many
    /// passwords wait, `then` is called at once, with [`Busy`]. `hash`: `None` if there is no such user; this takes the
    /// same time.
    pub fn compare(
        &self,
        user: String,
        hash: Option<String>,
        password: Vec<u8>,
        then: Box<dyn FnOnce(Result<bool, Busy>) + Send>,
    ) {
        self.send(Job::Compare {
            user,
            hash,
            password,
            then,
        });
    }

    /// Hashes a new password, and calls `then`, as [`Passwords::compare`] does.
    pub fn hash(&self, password: Vec<u8>, then: Box<dyn FnOnce(Result<Hash, Busy>) + Send>) {
        self.send(Job::Hash { password, then });
    }

    fn send(&self, job: Job) {
        match self.jobs().try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => match job {
                Job::Compare { then, .. } => then(Err(Busy)),
                Job::Hash { then, .. } => then(Err(Busy)),
            },
        }
    }
}

fn run(waiting: &Receiver<Job>, known: &Known) {
    for job in waiting {
        match job {
            Job::Compare {
                user,
                hash,
                password,
                then,
            } => {
                let is_right = is_right(&password, hash.as_deref().unwrap_or(NOBODY));
                match hash.filter(|_| is_right) {
                    Some(hash) => {
                        known.remember(user, hash, &password);
                        then(Ok(true));
                    }
                    None => then(Ok(false)),
                }
            }
            Job::Hash { password, then } => then(Ok(hashed(&password))),
        }
    }
}

/// A hash that cannot be read, or that would occupy the thread for long, is that of no password.
fn is_right(password: &[u8], hash: &str) -> bool {
    let parts: Result<HashParts, _> = hash.parse();
    let is_cheap = parts.is_ok_and(|parts| parts.get_cost() <= COST_MAX);
    is_cheap && bcrypt::verify(significant(password), hash).unwrap_or(false)
}

fn hashed(password: &[u8]) -> Hash {
    let parts = bcrypt::hash_with_salt(significant(password), COST, random());
    let parts = parts.expect("the cost is in bcrypt's range");
    Hash(parts.format_for_version(Version::TwoA))
}

/// Unpredictable bytes.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(
        filled,
        Ok(N),
        "the system has random bytes once it has booted"
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn compared(passwords: &Passwords, hash: Option<&str>, password: &[u8]) -> bool {
        let (said, says) = unbounded();
        let then = Box::new(move |outcome| said.send(outcome).expect("somebody listens"));
        let (hash, password) = (hash.map(str::to_owned), password.to_vec());
        passwords.compare("u".into(), hash, password, then);
        let outcome = says.recv_timeout(PATIENCE).expect("an answer");
        outcome.expect("there is space")
    }

    /// The hash was made by etcd 3.4.23, from the password `p`.
    #[test]
    fn hashes_of_etcd_are_understood() {
        let passwords = Passwords::new();
        let hash = "$2a$10$783xDEqAITkWBIl89QHD0OHJTuPtG93lusJmamnNNa4m9zAcCPiBa";
        let all = [&b"p"[..], b"pp", b"", b"P"];
        let right = all.map(|password| compared(&passwords, Some(hash), password));
        assert_eq!(right, [true, false, false, false]);
    }

    #[test]
    fn a_hash_that_no_etcd_makes_is_that_of_no_password() {
        let hash = hashed(b"p").0;
        for wrong in [
            "",
            "p",
            "$2a$10$",
            &hash[..59],
            &hash.replace("$10$", "$31$"),
        ] {
            assert!(!is_right(b"p", wrong), "{wrong}");
        }
        assert!(is_right(b"p", &hash));
    }

    #[test]
    fn a_password_is_remembered_until_its_hash_changes() {
        let passwords = Passwords::new();
        let hash = hashed(b"secret").0;
        assert!(hash.starts_with("$2a$10$"), "as etcd writes it: {hash}");
        assert!(!passwords.is_known("u", &hash, b"secret"));
        assert!(!compared(&passwords, Some(&hash), b"wrong"));
        assert!(!passwords.is_known("u", &hash, b"wrong"));
        assert!(compared(&passwords, Some(&hash), b"secret"));
        assert!(passwords.is_known("u", &hash, b"secret"));
        assert!(!passwords.is_known("u", &hash, b"wrong"));
        assert!(!passwords.is_known("other", &hash, b"secret"));
        let other = hashed(b"secret").0;
        assert_ne!(hash, other, "each hash has a salt of its own");
        assert!(!passwords.is_known("u", &other, b"secret"));
    }

    #[test]
    fn passwords_may_have_any_bytes_and_any_length() {
        let passwords = Passwords::new();
        for password in [&b"a\0b"[..], b"\xff\xfe", &[b'x'; 72], &[b'x'; 5000]] {
            let hash = hashed(password).0;
            assert!(compared(&passwords, Some(&hash), password));
            assert!(!compared(&passwords, Some(&hash), b"a"));
        }
    }

    /// Compares the work, not the wall clock of one attempt: the least of several.
    #[test]
    fn a_user_who_does_not_exist_takes_as_long_as_one_who_does() {
        let passwords = Passwords::new();
        let hash = hashed(b"secret").0;
        let least = |hash: Option<&str>| {
            let took = (0..5).map(|_| {
                let begin = Instant::now();
                assert!(!compared(&passwords, hash, b"wrong"));
                begin.elapsed()
            });
            took.min().expect("five")
        };
        let (known, unknown) = (least(Some(&hash)), least(None));
        assert!(unknown > known / 2, "{unknown:?}, {known:?}");
    }

    #[test]
    fn only_some_requests_wait() {
        let passwords = Passwords::new();
        let (gate, opens) = unbounded::<()>();
        let wait = |then| passwords.compare("u".into(), None, Vec::new(), then);
        wait(Box::new(move |_| {
            let _ = opens.recv();
        }));
        let (said, says) = unbounded();
        for _ in 0..=WAITING_MAX + 1 {
            let said = said.clone();
            // At the end of the test nobody listens.
            wait(Box::new(move |outcome| {
                let _ = said.send(outcome);
            }));
        }
        // The thread has taken the first one at most. One more than the queue holds is refused at once.
        assert_eq!(says.try_recv(), Ok(Err(Busy)));
        drop(gate);
    }
}
