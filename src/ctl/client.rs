//! Sends requests of the v2 API to one endpoint after another until one answers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::request::Builder;
use ureq::http::{Request, Response, StatusCode};

use super::answer::{self, Event, KeysError};
use super::body::{self, Unread};
use super::endpoint::Endpoint;
use super::proxy::{Proxies, Proxy};
use super::screen;
use super::secret::Secret;
use super::tls::{self, Files};
use super::wire::{
    Ask, Body, EVENT_BYTES_MAX, Further, Limit, Method, PAGE_BYTES_MAX, Patience, REFUSAL_BYTES_MAX,
};
use crate::dial::{self, Overhead, Tls};
use crate::urls::Scheme;

/// Factor for the time limit of the head of a long response: the server computes all of it before it answers.
pub(super) const LONG_TIMEOUTS: u32 = 10;

/// Maximum number of redirects, as in etcdctl.
const REDIRECTS_MAX: usize = 10;

/// The reason why there is no response, or not the expected one.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(KeysError),
    /// The response is not one of the keys API.
    NoJson,
    /// A success without a body: the server ended a watch.
    Empty,
    /// No endpoint served the request.
    Unavailable(Vec<Miss>),
    /// An endpoint did not serve the request, and it must not be sent to a second one.
    Missed(Miss),
    /// The command exceeded its time limit.
    Deadline,
    /// There are no endpoints.
    NoEndpoints,
}

impl Failure {
    /// Whether no connection to any endpoint could be made.
    pub fn is_unconnected(&self) -> bool {
        match self {
            Failure::Unavailable(misses) => misses.iter().all(|miss| miss.reach == Reach::Refused),
            _ => false,
        }
    }

    /// The message in which each endpoint's error appears only once. etcdctl prints it this way if the error is not
    /// its own.
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

/// How far an unserved request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The connection was refused at once.
    Refused,
    /// No connection within the time limit, or none that the server or this client trusts.
    Silent,
    /// The request was sent. It is unknown whether it had an effect.
    Sent,
}

/// The reason why one endpoint did not serve a request.
#[derive(Debug)]
pub(super) struct Miss {
    pub error: String,
    pub reach: Reach,
    /// The time of the whole command is used up, so no other endpoint is tried.
    over: bool,
}

impl Miss {
    /// A failure of an endpoint that was reached.
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

/// The response of one endpoint.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// `X-Etcd-Index`. 0 if there is none.
    pub index: u64,
    /// `X-Raft-Index` and `X-Raft-Term` of responses about keys.
    pub raft_index: Option<u64>,
    pub raft_term: Option<u64>,
    pub body: Vec<u8>,
}

/// The settings for sending requests.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Time limit for the start of an endpoint's response.
    pub timeout: Duration,
    /// Time limit of a request at all its endpoints together. A watch has none.
    pub total_timeout: Duration,
    /// The value of `Authorization`, if there is one.
    pub authorization: Option<Secret>,
    /// Maximum size of a listing, in bytes.
    pub listing_bytes: u64,
    /// Print each request on stderr as the equivalent curl command.
    pub debug: bool,
    /// The proxies of the environment.
    pub proxies: Proxies,
    /// How `https` connections are encrypted.
    pub tls: Tls,
    pub tls_files: Files,
}

/// Sends requests to endpoints in their order, starting with the one that answered last.
#[derive(Debug)]
pub(super) struct Client {
    pub endpoints: Vec<Endpoint>,
    pub settings: Settings,
    agent: Agent,
    /// Counts what the connections of all agents receive.
    overhead: Overhead,
    /// Agents by endpoint, for endpoints that need their own or are reached through a proxy.
    special: Mutex<BTreeMap<String, Agent>>,
    /// The endpoint that answered last. It is tried first.
    pinned: AtomicUsize,
}

impl Client {
    pub fn new(endpoints: Vec<Endpoint>, settings: Settings) -> Client {
        let overhead = Overhead::default();
        Client {
            endpoints,
            agent: dial::plain_agent(config(), &settings.tls, &overhead),
            overhead,
            settings,
            special: Mutex::default(),
            pinned: AtomicUsize::new(0),
        }
    }

    /// Sends a request of the keys API.
    pub fn send(&self, ask: &Ask) -> Result<Event, Failure> {
        read_event(self.answer(ask)?)
    }

    /// Returns the first response that is not a server error.
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

    /// Replaces the endpoints. Starts with the one that answered last, if it is among them.
    pub fn move_to(&mut self, endpoints: Vec<Endpoint>) {
        let answered = self.endpoints.get(self.pinned.load(Ordering::Relaxed));
        let at = endpoints.iter().position(|url| Some(url) == answered);
        self.pinned = AtomicUsize::new(at.unwrap_or(0));
        self.endpoints = endpoints;
    }

    /// Returns this endpoint's response, unless it is a server error or misses the deadline.
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

    /// Returns this endpoint's response with any status, unless it misses the deadline.
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
        let miss = |error: ureq::Error| self.explain(endpoint, proxy.as_ref(), &error);
        let exchanged = self.exchange(endpoint, proxy.as_ref(), ask, deadline);
        let mut response = exchanged.map_err(miss)?;
        let status = response.status().as_u16();
        let headers = response.headers();
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let number = |name: &str| -> Option<u64> { text(name)?.parse().ok() };
        let index = number("X-Etcd-Index").unwrap_or(0);
        let (raft_index, raft_term) = (number("X-Raft-Index"), number("X-Raft-Term"));
        let limit = match ask.limit {
            Limit::Page => PAGE_BYTES_MAX,
            // The refusal of a comparison contains both values.
            Limit::Event => EVENT_BYTES_MAX,
            Limit::Listing if status >= 400 => REFUSAL_BYTES_MAX,
            Limit::Listing => self.settings.listing_bytes,
        };
        let body = match ask.patience {
            Patience::Usual => body::read(response.body_mut(), limit),
            Patience::Endless | Patience::Long => {
                let timeout = self.settings.timeout;
                let is_bounded = ask.patience == Patience::Long && !timeout.is_zero();
                let begin = is_bounded.then(|| timeout * LONG_TIMEOUTS);
                body::read_paced(response.into_body(), limit, begin, timeout, &self.overhead)
            }
        };
        Ok(Answer {
            status,
            index,
            raft_index,
            raft_term,
            body: body
                .map_err(|unread| self.explain_body(endpoint, proxy.as_ref(), ask, unread))?,
        })
    }

    /// Returns the head of this endpoint's response, with any status. The caller reads the body.
    pub fn begin(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Response<ureq::Body>, Miss> {
        refuse_scheme(endpoint)?;
        let proxy = self.proxy_of(endpoint)?;
        let response = self.exchange(endpoint, proxy.as_ref(), ask, None);
        response.map_err(|error| self.explain(endpoint, proxy.as_ref(), &error))
    }

    /// The environment's proxy for this endpoint.
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
        let (content_type, body) = match &ask.body {
            Body::None => ("", String::new()),
            Body::Form(parameters) => (
                "application/x-www-form-urlencoded",
                super::wire::form(parameters),
            ),
            Body::Json(text) => ("application/json", text.clone()),
            Body::Secret { json, .. } => ("application/json", json.expose().to_owned()),
        };
        if self.settings.debug {
            let shown = ask.url(endpoint.as_str(), endpoint.query());
            let body = ask.body.shown().unwrap_or(&body);
            screen::write_to_stderr(&(ask.curl(&shown, body) + "\n"));
        }
        let run = (endpoint, proxy, ask.patience, deadline);
        let mut url = ask.url(&endpoint.base(), endpoint.query());
        let mut authorization = self.settings.authorization.as_ref();
        authorization = authorization.or(endpoint.authorization.as_ref());
        // The HTTP library does not follow redirects here, because it would read the body of a redirect without a time
        // limit, and turn a PUT into a GET.
        for _ in 0..=REDIRECTS_MAX {
            let filled = |mut request: Builder| {
                if let Some(value) = authorization {
                    request = request.header("Authorization", value.expose());
                }
                match content_type {
                    "" => request,
                    _ => request.header("Content-Type", content_type),
                }
            };
            let response = self.request(&url, ask.method, &body, filled, run)?;
            let Some(location) = redirected(&response, &url) else {
                return Ok(response);
            };
            if origin(&location) != origin(&url) {
                // Another server must not get the password.
                authorization = None;
            }
            url = location;
        }
        Err(ureq::Error::TooManyRedirects)
    }

    fn request(
        &self,
        url: &str,
        method: Method,
        body: &str,
        filled: impl Fn(Builder) -> Builder,
        run: (&Endpoint, Option<&Proxy>, Patience, Option<Instant>),
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        match method {
            Method::Get => self.run(filled(Request::get(url)), (), run),
            Method::Head => self.run(filled(Request::head(url)), (), run),
            Method::Delete => self.run(filled(Request::delete(url)), (), run),
            Method::Put => self.run(filled(Request::put(url)), body, run),
            Method::Post => self.run(filled(Request::post(url)), body, run),
        }
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        request: Builder,
        body: B,
        (endpoint, proxy, patience, deadline): (
            &Endpoint,
            Option<&Proxy>,
            Patience,
            Option<Instant>,
        ),
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let timeout = &self.settings.timeout;
        let connect = (!timeout.is_zero()).then_some(*timeout);
        let begin = connect.map(|timeout| match patience {
            Patience::Long => timeout * LONG_TIMEOUTS,
            Patience::Usual | Patience::Endless => timeout,
        });
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
        let (config, tls) = (config(), &self.settings.tls);
        let agent = match proxy {
            Some(proxy) => match &proxy.tunnel {
                Some(proxy) => {
                    let proxy = ureq::Proxy::new(proxy.expose())?;
                    let config = dial::config().max_redirects(0).proxy(Some(proxy));
                    dial::plain_agent(config.build(), tls, &self.overhead)
                }
                None => dial::by_proxy(
                    config,
                    &proxy.url,
                    &dial::base(endpoint.url()),
                    &proxy.header(),
                    &self.overhead,
                )?,
            },
            None => dial::agent(config, endpoint.url(), tls, &self.overhead)?,
        };
        special.insert(endpoint.as_str().to_owned(), agent.clone());
        Ok(agent)
    }
}

fn config() -> ureq::config::Config {
    dial::config().max_redirects(0).build()
}

/// Where an answer to a request of `url` sends the client; None: nowhere, or nowhere that can be understood.
fn redirected(response: &Response<ureq::Body>, url: &str) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get("Location")?.to_str().ok()?;
    if ["http://", "https://"]
        .iter()
        .any(|scheme| location.starts_with(scheme))
    {
        return Some(location.to_owned());
    }
    let path = location.starts_with('/') && !location.starts_with("//");
    path.then(|| format!("{}{location}", origin(url)))
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let host_end = url[host..].find(['/', '?', '#']);
    &url[..host_end.map_or(url.len(), |at| host + at)]
}

fn refuse_scheme(endpoint: &Endpoint) -> Result<(), Miss> {
    let error = match endpoint.scheme() {
        Ok(Scheme::Http | Scheme::Unix) => return Ok(()),
        Ok(Scheme::Https | Scheme::Unixs) if crate::tls::IS_BUILT_IN => return Ok(()),
        Ok(_) => format!("client: {endpoint}: this program was built without TLS"),
        Err(other) => format!("unsupported protocol scheme {other:?}"),
    };
    Err(Miss {
        error,
        reach: Reach::Refused,
        over: false,
    })
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

impl Client {
    fn explain_body(
        &self,
        endpoint: &Endpoint,
        proxy: Option<&Proxy>,
        ask: &Ask,
        unread: Unread,
    ) -> Miss {
        match unread {
            Unread::TooLong(bytes) => {
                let hint = match ask.limit {
                    Limit::Listing => "; --answer-limit MIB allows more",
                    Limit::Page | Limit::Event => "",
                };
                Miss::sent(format!(
                    "client: {endpoint}: the answer has more than {bytes} bytes{hint}"
                ))
            }
            Unread::TooSlow(span) => too_slow(endpoint, span),
            Unread::Failed(error) => self.explain(endpoint, proxy, &error),
        }
    }

    fn explain(&self, endpoint: &Endpoint, proxy: Option<&Proxy>, error: &ureq::Error) -> Miss {
        use std::io::ErrorKind::{ConnectionRefused, UnexpectedEof};
        use ureq::{Error, Timeout};

        if let Some(explained) = tls::explain(error, endpoint.url(), &self.settings.tls_files) {
            let reach = if explained.is_unsent {
                Reach::Silent
            } else {
                Reach::Sent
            };
            return Miss {
                error: format!("client: {endpoint}: {}", explained.text),
                reach,
                over: false,
            };
        }
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
}

/// The failure of a response that has begun and then becomes too slow.
pub(super) fn too_slow(endpoint: &Endpoint, span: Duration) -> Miss {
    Miss::sent(format!(
        "client: {endpoint}: the response stopped or is too slow: received almost nothing for {span:?}; for a slow \
         line use a longer --timeout"
    ))
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
