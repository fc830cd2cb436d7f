//! Compares and hashes passwords, on a thread of its own.
//!
//! A bcrypt hash takes tens of milliseconds on purpose. So one thread does this work for all requests, and requests wait
//! for it without a thread. A password that was found right is remembered as a keyed digest together with the hash that
//! it was compared with. A request with the same credentials then needs no bcrypt, as long as the user still has this
//! hash. So a changed or removed password is forgotten on every member, without a message.
//!
//! The thread is also a limit: guesses take at most one core, and few of them wait (`waiting`). A client whose
//! credentials are remembered is not delayed by them.

use super::waiting::{Job, Network, Waiting};
use crate::auth::Hash;
use crate::threads;
use bcrypt::{HashParts, Version};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use subtle::ConstantTimeEq;

/// The cost that etcd uses.
const COST: u32 = 10;

/// Hashes with a higher cost take more than a second. No etcd makes them.
const COST_MAX: u32 = 14;

/// bcrypt ignores all later bytes of a password.
const PASSWORD_BYTES: usize = 72;

/// Number of users whose password is remembered.
const REMEMBERED_MAX: usize = 10_000;

/// A hash of no known password, with etcd's cost. The password of a user who does not exist is compared with it, so that
/// the answer takes as long as for one who exists.
const NOBODY: &str = "$2a$10$6v7cJQbqwgzlRmX0cXnnyeuqT0q1oFqgwZ9nYFVyqxUgVYtT9zF9W";

/// Too many passwords wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Receives the result of a comparison, or a hash, on the thread, which it must not block.
type Then<T> = Box<dyn FnOnce(Result<T, Busy>) + Send>;

struct Hashing {
    password: Vec<u8>,
    then: Then<Hash>,
}

/// A password that is said to be that of a user.
pub struct Guess {
    /// The user.
    pub user: String,
    /// The hash of the user's password. `None`: there is no such user; this takes the same time.
    pub hash: Option<String>,
    /// The password to compare.
    pub password: Vec<u8>,
    /// Where the client is.
    pub from: Network,
}

struct Comparison {
    user: String,
    /// `None`: there is no such user.
    hash: Option<String>,
    password: Vec<u8>,
    /// Requests with the same credentials share a comparison.
    then: Vec<Then<bool>>,
}

/// The thread, and the passwords that it has found right. The thread starts when it is first needed, and ends when this value is dropped.
pub struct Passwords {
    started: Once,
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Notified when the queue is no longer empty, and at the end.
    changed: Condvar,
    known: Known,
}

#[derive(Default)]
struct Queue {
    waiting: Waiting<Comparison, Hashing>,
    has_ended: bool,
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
    /// The key has a fixed length, and digests are not shown to anybody, so the key as a prefix suffices.
    fn digest(&self, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update(significant(password));
        digest.finalize().into()
    }

    fn contains(&self, user: &str, hash: &str, password: &[u8]) -> bool {
        let digest = self.digest(password);
        lock(&self.users).get(user).is_some_and(|remembered| {
            remembered.hash == hash && bool::from(remembered.digest.ct_eq(&digest))
        })
    }

    fn remember(&self, user: String, hash: String, password: &[u8]) {
        let digest = self.digest(password);
        let mut users = lock(&self.users);
        if users.len() >= REMEMBERED_MAX && !users.contains_key(&user) {
            users.clear();
        }
        users.insert(user, Remembered { hash, digest });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            started: Once::new(),
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                known,
            }),
        }
    }

    /// Whether the password is known to be right: it was compared with this hash before.
    pub fn is_known(&self, user: &str, hash: &str, password: &[u8]) -> bool {
        self.shared.known.contains(user, hash, password)
    }

    /// Compares a password, and calls `then` with the result. If there is no place, `then` is called with [`Busy`]: at
    /// once, or when another client takes the place.
    pub fn compare(&self, guess: Guess, then: Then<bool>) {
        let mut queue = lock(&self.shared.queue);
        let mut waiting = queue.waiting.comparisons();
        if let Some(same) = waiting.find(|other| other.is_of(&guess)) {
            return same.then.push(then);
        }
        drop(waiting);
        let Guess {
            user,
            hash,
            password,
            from,
        } = guess;
        let comparison = Comparison {
            user,
            hash,
            password,
            then: vec![then],
        };
        let refused = queue.waiting.compare(from, comparison);
        drop(queue);
        self.notify();
        let refused = refused.into_iter().flat_map(|refused| refused.then);
        refused.for_each(|then| then(Err(Busy)));
    }

    /// Hashes a new password, and calls `then`, as [`Passwords::compare`] does.
    pub fn hash(&self, password: Vec<u8>, then: Then<Hash>) {
        let mut queue = lock(&self.shared.queue);
        let refused = queue.waiting.hash(Hashing { password, then });
        drop(queue);
        self.notify();
        if let Some(refused) = refused {
            (refused.then)(Err(Busy));
        }
    }

    fn notify(&self) {
        self.shared.changed.notify_one();
        self.started.call_once(|| {
            let shared = Arc::clone(&self.shared);
            if let Err(error) = threads::critical("passwords", move || shared.run()) {
                threads::fatal(&format!("the passwords thread cannot be started: {error}"));
            }
        });
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        lock(&self.shared.queue).has_ended = true;
        self.shared.changed.notify_one();
    }
}

impl Comparison {
    fn is_of(&self, guess: &Guess) -> bool {
        self.user == guess.user
            && self.hash == guess.hash
            && bool::from(self.password.ct_eq(&guess.password))
    }
}

impl Shared {
    fn run(&self) {
        while let Some(job) = self.next() {
            match job {
                Job::Compare(comparison) => self.compare(comparison),
                Job::Hash(Hashing { password, then }) => then(Ok(hashed(&password))),
            }
        }
    }

    fn next(&self) -> Option<Job<Comparison, Hashing>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.has_ended {
                return None;
            }
            if let Some(job) = queue.waiting.next() {
                return Some(job);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn compare(&self, comparison: Comparison) {
        let Comparison {
            user,
            hash,
            password,
            then,
        } = comparison;
        let is_right = match hash {
            // An equal comparison was in progress when this one was added.
            Some(hash) if self.known.contains(&user, &hash, &password) => true,
            Some(hash) => {
                let is_right = is_right(&password, &hash);
                if is_right {
                    self.known.remember(user, hash, &password);
                }
                is_right
            }
            None => {
                is_right(&password, NOBODY);
                false
            }
        };
        then.into_iter().for_each(|then| then(Ok(is_right)));
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
    use crate::api::waiting::WAITING_MAX;
    use crossbeam_channel::unbounded;
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn guess(hash: Option<String>, password: Vec<u8>) -> Guess {
        Guess {
            user: "u".into(),
            hash,
            password,
            from: Network::from(IpAddr::from([10, 0, 0, 1])),
        }
    }

    fn compared(passwords: &Passwords, hash: Option<&str>, password: &[u8]) -> bool {
        let (said, says) = unbounded();
        let then = Box::new(move |outcome| said.send(outcome).expect("somebody listens"));
        let (hash, password) = (hash.map(str::to_owned), password.to_vec());
        passwords.compare(guess(hash, password), then);
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
    fn only_some_passwords_wait_and_equal_ones_wait_together() {
        let passwords = Passwords::new();
        let (gate, opens) = unbounded::<()>();
        let (begun, begins) = unbounded();
        let blocks = Box::new(move |_| {
            let _ = begun.send(());
            let _ = opens.recv();
        });
        passwords.compare(guess(None, Vec::new()), blocks);
        begins.recv_timeout(PATIENCE).expect("the thread works");
        let (said, says) = unbounded();
        let wait = |password: usize| {
            let said = said.clone();
            // At the end of the test nobody listens.
            let then = Box::new(move |outcome| {
                let _ = said.send(outcome);
            });
            passwords.compare(guess(None, password.to_le_bytes().into()), then);
        };
        (0..WAITING_MAX).for_each(wait);
        (0..WAITING_MAX).for_each(wait);
        assert!(says.is_empty(), "all of them wait");
        wait(WAITING_MAX);
        assert_eq!(says.try_recv(), Ok(Err(Busy)));
        let (hashed, hashes) = unbounded();
        let then = Box::new(move |outcome: Result<Hash, Busy>| {
            let _ = hashed.send(outcome.is_ok());
        });
        passwords.hash(b"new".to_vec(), then);
        drop(gate);
        assert_eq!(
            hashes.recv_timeout(PATIENCE),
            Ok(true),
            "it has its own place"
        );
        for _ in 0..2 * WAITING_MAX {
            assert_eq!(says.recv_timeout(PATIENCE), Ok(Ok(false)));
        }
    }
}
