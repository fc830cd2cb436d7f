//! Identifies the sender of a request, and decides whether the request is allowed.
//!
//! Without authentication this costs one load of a flag. With it, the credentials are looked up among those that were
//! found right ([`Passwords`](super::passwords::Passwords)). If they are not there, the request is suspended until the
//! password was compared, and then handled again.

use super::Api;
use super::answer;
use super::cors::Grant;
use super::passwords::{Busy, Guess};
use super::route::{Route, Rule};
use crate::auth::basic::{self, Credentials};
use crate::auth::{Right, Store};
use crate::http1::{Answer, Reply, Request};
use std::sync::Arc;

/// A longer `Authorization` header contains no valid credentials.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Seconds a client should wait if too many passwords are being compared.
const RETRY_AFTER: u64 = 1;

/// The sender of a request.
#[derive(Debug, PartialEq, Eq)]
enum Sender {
    /// It sent no credentials.
    Guest,
    /// Its credentials are those of this user.
    User(String),
    /// Its credentials are wrong.
    Nobody,
}

/// What a request may do.
#[derive(Debug)]
pub struct Access {
    /// `None`: everything, because authentication is disabled or the request needs nothing.
    checked: Option<(Arc<Store>, Sender)>,
}

impl Access {
    const EVERYTHING: Access = Access { checked: None };

    /// Whether the request may access the key: the part of the path after `/v2/keys`.
    pub fn allows(&self, key: &[u8], right: Right, recursive: bool) -> bool {
        let Some((auth, sender)) = &self.checked else {
            return true;
        };
        match sender {
            Sender::Guest => auth.allows(None, key, right, recursive),
            Sender::User(name) => auth.allows(Some(name), key, right, recursive),
            Sender::Nobody => false,
        }
    }

    /// Whether the request may read every key that begins with `prefix`.
    pub fn may_read_all(&self, prefix: &[u8]) -> bool {
        let Some((auth, sender)) = &self.checked else {
            return true;
        };
        match sender {
            Sender::Guest => auth.allows_prefix(None, prefix, Right::Read),
            Sender::User(name) => auth.allows_prefix(Some(name), prefix, Right::Read),
            Sender::Nobody => false,
        }
    }

    /// Whether the credentials are wrong, so that the request is refused whatever it asks for.
    pub fn is_nobody(&self) -> bool {
        matches!(self.checked, Some((_, Sender::Nobody)))
    }

    fn is_root(&self) -> bool {
        match &self.checked {
            None => true,
            Some((auth, Sender::User(name))) => auth.is_root(name),
            Some((_, Sender::Guest | Sender::Nobody)) => false,
        }
    }
}

/// The result of comparing a request's password: the work with which the suspended request continues.
struct Compared {
    credentials: Credentials,
    outcome: Result<bool, Busy>,
}

impl Api {
    /// Determines what a request may do, before it is passed to its endpoint. `None`: the request was answered, or will
    /// be handled again.
    pub(super) fn admit<'a>(
        &self,
        request: &Request<'_>,
        route: Route<'_>,
        grant: &Grant,
        reply: Reply<'a>,
    ) -> Option<(Access, Reply<'a>)> {
        let rule = route.rule(request.method());
        let enforced = match rule {
            Rule::Open => None,
            Rule::Key | Rule::Root => self.replica.status().enforced_auth(),
        };
        let Some(auth) = enforced else {
            return Some((Access::EVERYTHING, reply));
        };
        let sender = match self.identify(request, &auth) {
            Identity::Known(sender) => sender,
            Identity::Unchecked(credentials) => {
                self.compare(request, &auth, credentials, reply);
                return None;
            }
            Identity::Busy => {
                reply.send(busy(self, grant));
                return None;
            }
        };
        let access = Access {
            checked: Some((auth, sender)),
        };
        if rule == Rule::Root && !access.is_root() {
            reply.send(answer::message(401, "Insufficient credentials", grant));
            return None;
        }
        Some((access, reply))
    }

    fn identify(&self, request: &Request<'_>, auth: &Store) -> Identity {
        let header = request.header("authorization").unwrap_or_default();
        if header.is_empty() {
            return Identity::Known(self.named_by_certificate(request, auth));
        }
        let readable = Some(header).filter(|header| header.len() <= HEADER_BYTES_MAX);
        let Some(credentials) = readable.and_then(basic::parse) else {
            return Identity::Known(Sender::Nobody);
        };
        let Credentials { name, password } = &credentials;
        let user = auth.user(name);
        if user.is_some_and(|user| self.passwords.is_known(name, user.hash(), password)) {
            return Identity::Known(Sender::User(credentials.name));
        }
        // The same request continues, so its credentials are the same. A right password is found above, unless the user
        // has changed meanwhile: then it is compared again.
        let compared = self.compared(request);
        match compared.filter(|compared| compared.credentials == credentials) {
            Some(compared) if compared.outcome == Ok(false) => Identity::Known(Sender::Nobody),
            Some(compared) if compared.outcome == Err(Busy) => Identity::Busy,
            _ => Identity::Unchecked(credentials),
        }
    }

    /// The sender of a request without the header: the user with the common name of the client's certificate.
    fn named_by_certificate(&self, request: &Request<'_>, auth: &Store) -> Sender {
        let name = request.certificate_name().filter(|_| self.client_cert_auth);
        match name.filter(|name| auth.user(name).is_some()) {
            Some(name) => Sender::User(name.to_owned()),
            None => Sender::Guest,
        }
    }

    fn compared(&self, request: &Request<'_>) -> Option<Box<Compared>> {
        let work = request.work()?;
        match work.downcast() {
            Ok(compared) => Some(compared),
            Err(other) => {
                request.keep_work(other);
                None
            }
        }
    }

    fn compare(
        &self,
        request: &Request<'_>,
        auth: &Store,
        credentials: Credentials,
        reply: Reply<'_>,
    ) {
        let Credentials { name, password } = credentials.clone();
        let guess = Guess {
            hash: auth.user(&name).map(|user| user.hash().to_owned()),
            user: name,
            password,
            from: request.remote().ip().into(),
        };
        let suspended = reply.suspend();
        let then = move |outcome| {
            suspended.go_on(Box::new(Compared {
                credentials,
                outcome,
            }));
        };
        self.passwords.compare(guess, Box::new(then));
    }
}

enum Identity {
    Known(Sender),
    /// The password must be compared first.
    Unchecked(Credentials),
    /// Too many passwords are being compared.
    Busy,
}

/// The answer while too many passwords are being compared.
pub(super) fn busy(api: &Api, grant: &Grant) -> Answer {
    let text = "too many passwords are being checked, try again later";
    answer::message(503, text, grant)
        .header("X-Etcd-Cluster-Id", api.cluster.text())
        .number("Retry-After", RETRY_AFTER)
}
