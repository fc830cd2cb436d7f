//! Requests of the v2 API, to one endpoint after the other until one answers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::request::Builder;
use ureq::http::{Request, Response, StatusCode};

use super::answer::{self, Event, KeysError};
use super::endpoint::Endpoint;
use super::proxy::{Proxies, Proxy};
use super::wire::{Ask, Body, Further, Method, Patience};
use crate::dial;
use crate::urls::Scheme;

/// Why no answer came back, or none that was hoped for.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(KeysError),
    /// An answer that is none of the keys API.
    NoJson,
    /// A success without a body: of a watch whose server ended it.
    Empty,
    /// No endpoint served the request.
    Unavailable(Vec<Miss>),
    /// An endpoint did not serve it, and a second one was not to be asked.
    Missed(Miss),
    /// The command took longer than it may.
    Deadline,
    /// There is nobody to ask.
    NoEndpoints,
}

impl Failure {
    /// Whether no endpoint at all could be connected to.
    pub fn is_unconnected(&self) -> bool {
        match self {
            Failure::Unavailable(misses) => misses.iter().all(|miss| miss.reach == Reach::Refused),
            _ => false,
        }
    }

    /// All there is to say, but what went wrong at each endpoint is said once only: so etcdctl
    /// tells it where an error is not its own.
    pub fn brief(&self) -> String {
        let Failure::Unavailable(misses) = self else {
            return self.to_string();
        };
        let mut out = "client: etcd cluster is unavailable or misconfigured".to_owned();
        for (number, miss) in misses.iter().enumerate() {
            out += &format!("; error #{number}: {}\n", miss.error);
        }
        out
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(error) => write!(f, "{error}"),
            Failure::NoJson => f.write_str(
                "client: response is invalid json. The endpoint is probably not valid etcd \
                 cluster endpoint.",
            ),
            Failure::Empty => f.write_str("client: response body is empty"),
            Failure::Unavailable(misses) => {
                f.write_str(&self.brief())?;
                for (number, miss) in misses.iter().enumerate() {
                    write!(f, "\nerror #{number}: {}", miss.error)?;
                }
                writeln!(f)
            }
            Failure::Missed(miss) => f.write_str(&miss.error),
            Failure::Deadline => f.write_str("context deadline exceeded"),
            Failure::NoEndpoints => f.write_str("client: no endpoints available"),
        }
    }
}

/// How far a request came that was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// No connection, and at once.
    Refused,
    /// No connection in time.
    Silent,
    /// It was sent; whether it was done is not known.
    Sent,
}

/// Why one endpoint did not serve a request.
#[derive(Debug)]
pub(super) struct Miss {
    pub error: String,
    pub reach: Reach,
    /// The whole command has used up its time, so that no other endpoint is asked.
    over: bool,
}

impl Miss {
    /// Why one endpoint that was reached is of no use.
    pub fn sent(error: String) -> Miss {
        Miss {
            error,
            reach: Reach::Sent,
            over: false,
        }
    }

    fn deadline() -> Miss {
        Miss {
            error: Failure::Deadline.to_string(),
            reach: Reach::Sent,
            over: true,
        }
    }
}

/// What one endpoint answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// `X-Etcd-Index`; 0 where there is none.
    pub index: u64,
    /// `X-Raft-Index` and `X-Raft-Term`, of answers about keys.
    pub raft_index: Option<u64>,
    pub raft_term: Option<u64>,
    pub body: Vec<u8>,
}

/// What requests are sent with.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// How long an endpoint may take to begin its answer.
    pub timeout: Duration,
    /// How long a request may take at all its endpoints together; a watch may take for ever.
    pub total_timeout: Duration,
    /// The value of `Authorization`, if there is one.
    pub authorization: Option<String>,
    /// Tell each request on stderr, as the curl command that does the same.
    pub debug: bool,
    /// Proxies of the environment.
    pub proxies: Proxies,
}

/// Sends requests to some endpoints, in their order from the one that answered last.
#[derive(Debug)]
pub(super) struct Client {
    pub endpoints: Vec<Endpoint>,
    pub settings: Settings,
    agent: Agent,
    /// Agents for endpoints that need one of their own, or are asked by a proxy; by endpoint.
    special: Mutex<BTreeMap<String, Agent>>,
    /// Which endpoint answered last: it is asked first.
    pinned: AtomicUsize,
}

impl Client {
    pub fn new(endpoints: Vec<Endpoint>, settings: Settings) -> Client {
        Client {
            endpoints,
            settings,
            agent: dial::config().build().into(),
            special: Mutex::default(),
            pinned: AtomicUsize::new(0),
        }
    }

    /// Sends a request of the keys API.
    pub fn send(&self, ask: &Ask) -> Result<Event, Failure> {
        read_event(self.answer(ask)?)
    }

    /// The first answer that is no error of its server.
    pub fn answer(&self, ask: &Ask) -> Result<Answer, Failure> {
        let hurried = ask.patience == Patience::Usual;
        let deadline = hurried.then(|| Instant::now() + self.settings.total_timeout);
        let first = self.pinned.load(Ordering::Relaxed);
        let mut misses = vec![];
        for at in 0..self.endpoints.len() {
            let at = (first + at) % self.endpoints.len();
            let miss = match self.answer_of(&self.endpoints[at], ask, deadline) {
                Ok(answer) => {
                    self.pinned.store(at, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(miss) => miss,
            };
            if miss.over {
                return Err(Failure::Deadline);
            }
            let sent = miss.reach == Reach::Sent;
            misses.push(miss);
            if sent && ask.further != Further::Always {
                break;
            }
        }
        Err(match ask.further {
            _ if misses.is_empty() => Failure::NoEndpoints,
            Further::Once => misses.pop().map_or(Failure::NoEndpoints, Failure::Missed),
            Further::Always | Further::IfNotReached => Failure::Unavailable(misses),
        })
    }

    /// Goes on with other endpoints, first with the one that answered last, if it is among them.
    pub fn move_to(&mut self, endpoints: Vec<Endpoint>) {
        let answered = self.endpoints.get(self.pinned.load(Ordering::Relaxed));
        let at = endpoints.iter().position(|url| Some(url) == answered);
        self.pinned = AtomicUsize::new(at.unwrap_or(0));
        self.endpoints = endpoints;
    }

    /// What this endpoint answers until the deadline, if that is no error of its own.
    fn answer_of(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        deadline: Option<Instant>,
    ) -> Result<Answer, Miss> {
        let answer = self.any_answer_of(endpoint, ask, deadline)?;
        if answer.status >= 500 {
            return Err(error_of_server(endpoint, answer.status));
        }
        Ok(answer)
    }

    /// What this endpoint answers until the deadline, with any status.
    pub fn any_answer_of(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        deadline: Option<Instant>,
    ) -> Result<Answer, Miss> {
        refuse_scheme(endpoint)?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Miss::deadline());
        }
        let proxy = self.proxy_of(endpoint)?;
        let miss = |error: ureq::Error| explain(endpoint, proxy.as_ref(), &error);
        let exchanged = self.exchange(endpoint, proxy.as_ref(), ask, deadline);
        let mut response = exchanged.map_err(miss)?;
        let status = response.status().as_u16();
        let text = |name: &str| response.headers().get(name)?.to_str().ok();
        let number = |name: &str| -> Option<u64> { text(name)?.parse().ok() };
        let index = number("X-Etcd-Index").unwrap_or(0);
        let (raft_index, raft_term) = (number("X-Raft-Index"), number("X-Raft-Term"));
        let body = response.body_mut().with_config().limit(u64::MAX);
        Ok(Answer {
            status,
            index,
            raft_index,
            raft_term,
            body: body.read_to_vec().map_err(miss)?,
        })
    }

    /// The head of this endpoint's answer, with any status; its body comes as it is read.
    pub fn begin(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Response<ureq::Body>, Miss> {
        refuse_scheme(endpoint)?;
        let proxy = self.proxy_of(endpoint)?;
        let response = self.exchange(endpoint, proxy.as_ref(), ask, None);
        response.map_err(|error| explain(endpoint, proxy.as_ref(), &error))
    }

    /// The proxy of the environment that this endpoint is asked by.
    fn proxy_of(&self, endpoint: &Endpoint) -> Result<Option<Proxy>, Miss> {
        if dial::is_special(endpoint.url()) {
            return Ok(None);
        }
        let found = self.settings.proxies.of(endpoint.url());
        found.map_err(|why| Miss::sent(format!("client: {endpoint}: {why}")))
    }

    fn exchange(
        &self,
        endpoint: &Endpoint,
        proxy: Option<&Proxy>,
        ask: &Ask,
        deadline: Option<Instant>,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let url = ask.url(&endpoint.base(), endpoint.query());
        let (content_type, body) = match &ask.body {
            Body::None => ("", String::new()),
            Body::Form(parameters) => (
                "application/x-www-form-urlencoded",
                super::wire::form(parameters),
            ),
            Body::Json(text) => ("application/json", text.clone()),
        };
        if self.settings.debug {
            // With stderr gone there is nobody to tell.
            let shown = ask.url(endpoint.as_str(), endpoint.query());
            let _ = writeln!(std::io::stderr(), "{}", ask.curl(&shown, &body));
        }
        let filled = |request: Builder| request.header("Content-Type", content_type);
        let run = (endpoint, proxy, ask.patience, deadline);
        match ask.method {
            Method::Get => self.run(Request::get(url), (), run),
            Method::Head => self.run(Request::head(url), (), run),
            Method::Delete => self.run(Request::delete(url), (), run),
            Method::Put => self.run(filled(Request::put(url)), body, run),
            Method::Post => self.run(filled(Request::post(url)), body, run),
        }
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        mut request: Builder,
        body: B,
        (endpoint, proxy, patience, deadline): (
            &Endpoint,
            Option<&Proxy>,
            Patience,
            Option<Instant>,
        ),
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let Settings {
            timeout,
            authorization,
            ..
        } = &self.settings;
        if let Some(value) = authorization.as_ref().or(endpoint.authorization.as_ref()) {
            request = request.header("Authorization", value);
        }
        let connect = (!timeout.is_zero()).then_some(*timeout);
        let begin = connect.filter(|_| patience != Patience::Long);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let agent = self.agent_of(endpoint, proxy)?;
        let request = agent
            .configure_request(request.body(body)?)
            .timeout_connect(connect)
            .timeout_recv_response(begin)
            .timeout_global(left)
            .build();
        agent.run(request)
    }

    fn agent_of(&self, endpoint: &Endpoint, proxy: Option<&Proxy>) -> Result<Agent, ureq::Error> {
        if proxy.is_none() && !dial::is_special(endpoint.url()) {
            return Ok(self.agent.clone());
        }
        let mut special = self.special.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = special.get(endpoint.as_str()) {
            return Ok(agent.clone());
        }
        let config = dial::config().build();
        let agent = match proxy {
            Some(proxy) => dial::by_proxy(
                config,
                &proxy.url,
                &dial::base(endpoint.url()),
                &proxy.header(),
            )?,
            None => dial::agent(config, endpoint.url())?,
        };
        special.insert(endpoint.as_str().to_owned(), agent.clone());
        Ok(agent)
    }
}

fn refuse_scheme(endpoint: &Endpoint) -> Result<(), Miss> {
    match endpoint.scheme() {
        Scheme::Http | Scheme::Unix => Ok(()),
        _ => Err(Miss {
            error: format!("client: {endpoint}: there is no TLS yet, only http:// and unix://"),
            reach: Reach::Refused,
            over: false,
        }),
    }
}

fn error_of_server(endpoint: &Endpoint, status: u16) -> Miss {
    let words = StatusCode::from_u16(status).ok();
    let words = words.and_then(|status| status.canonical_reason());
    let error = match status {
        500 | 503 => format!("client: etcd member {endpoint} has no leader"),
        _ => format!(
            "client: etcd member {endpoint} returns server error [{}]",
            words.unwrap_or_default()
        ),
    };
    Miss {
        error,
        reach: Reach::Sent,
        over: false,
    }
}

fn explain(endpoint: &Endpoint, proxy: Option<&Proxy>, error: &ureq::Error) -> Miss {
    use std::io::ErrorKind::{ConnectionRefused, UnexpectedEof};
    use ureq::{Error, Timeout};

    let dialled = proxy.map_or(endpoint.url(), |proxy| &proxy.url);
    let proxied = proxy.map_or("", |_| "proxyconnect tcp: ");
    let lookup = match error {
        Error::Io(error) => dial::lookup_failure(error),
        Error::HostNotFound => Some("no such host".to_owned()),
        _ => None,
    };
    if let Some(why) = lookup {
        let host = dialled.host();
        return Miss {
            error: format!("{proxied}dial tcp: lookup {host}: {why}"),
            reach: Reach::Refused,
            over: false,
        };
    }
    let address = match dialled.socket_path() {
        Some(path) => format!("unix {}", path.display()),
        None => format!("tcp {}", dialled.authority()),
    };
    let late = || format!("client: endpoint {endpoint} exceeded header timeout");
    let (error, reach) = match error {
        Error::Io(error) if error.kind() == ConnectionRefused => {
            let is_missing = |path: &Path| !path.exists();
            let why = match dialled.socket_path().is_some_and(is_missing) {
                true => "no such file or directory",
                false => "connection refused",
            };
            (
                format!("{proxied}dial {address}: connect: {why}"),
                Reach::Refused,
            )
        }
        Error::Io(error) if error.kind() == UnexpectedEof => ("EOF".to_owned(), Reach::Sent),
        Error::Timeout(Timeout::Global) => {
            return Miss::deadline();
        }
        Error::Timeout(Timeout::Connect) => (late(), Reach::Silent),
        Error::Timeout(_) => (late(), Reach::Sent),
        other => (format!("client: {endpoint}: {other}"), Reach::Sent),
    };
    Miss {
        error,
        reach,
        over: false,
    }
}

fn read_event(answer: Answer) -> Result<Event, Failure> {
    let Answer {
        status,
        index,
        body,
        ..
    } = answer;
    if !matches!(status, 200 | 201) {
        return match serde_json::from_slice(&body) {
            Ok(error) => Err(Failure::Refused(error)),
            Err(_) => Err(Failure::NoJson),
        };
    }
    if body.is_empty() {
        return Err(Failure::Empty);
    }
    let event = answer::read_event(&body).ok_or(Failure::NoJson)?;
    Ok(Event { index, ..event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_endpoints_that_fail_are_told_as_etcdctl_tells_them() {
        let miss = |error: &str| Miss {
            error: error.to_owned(),
            reach: Reach::Refused,
            over: false,
        };
        let failure = Failure::Unavailable(vec![miss("one"), miss("two")]);
        assert_eq!(
            failure.to_string(),
            "client: etcd cluster is unavailable or misconfigured; error #0: one\n\
             ; error #1: two\n\nerror #0: one\nerror #1: two\n"
        );
        assert!(failure.is_unconnected());
    }
}
