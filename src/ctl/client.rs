//! Requests of the v2 API, to one endpoint after the other until one answers.

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::Agent;
use ureq::http::{Request, Response, request};

use crate::urls::{Scheme, Url, UrlError};

/// How long an endpoint may take to begin its answer; a watch may take for ever.
const PATIENCE: Duration = Duration::from_secs(2);

const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');
const IN_FORM: &AsciiSet = &IN_PATH.add(b'/');

/// An event, or what a GET answers.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub action: String,
    pub node: Node,
    #[serde(rename = "prevNode")]
    pub prev_node: Option<Node>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Node {
    /// The root has none.
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value: String,
    #[serde(default)]
    pub dir: bool,
    #[serde(default)]
    pub nodes: Vec<Node>,
    #[serde(default, rename = "modifiedIndex")]
    pub modified_index: u64,
}

/// An error answer of the keys API.
#[derive(Debug, Deserialize)]
pub(super) struct KeysError {
    #[serde(rename = "errorCode")]
    code: u64,
    message: String,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    index: u64,
}

/// Why no event came back.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(KeysError),
    /// An answer that is none of the keys API, with its status.
    Odd(u16, String),
    /// No endpoint served the request. `reached`: one of them at least could be connected to.
    Unavailable {
        errors: Vec<String>,
        reached: bool,
    },
}

impl Failure {
    pub fn status(&self) -> u8 {
        match self {
            Failure::Unavailable { reached: false, .. } => 2,
            _ => 4,
        }
    }

    /// All there is to say, but what went wrong at each endpoint is said once only: so etcdctl
    /// tells it where an error is not its own.
    pub fn brief(&self) -> String {
        let Failure::Unavailable { errors, .. } = self else {
            return self.to_string();
        };
        let mut out = "client: etcd cluster is unavailable or misconfigured".to_owned();
        for (number, error) in errors.iter().enumerate() {
            out += &format!("; error #{number}: {error}\n");
        }
        out
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(KeysError {
                code,
                message,
                cause,
                index,
            }) => {
                write!(f, "{code}: {message} ({cause}) [{index}]")
            }
            Failure::Odd(status, body) => write!(f, "client: odd answer, status {status}: {body}"),
            Failure::Unavailable { errors, .. } => {
                f.write_str(&self.brief())?;
                for (number, error) in errors.iter().enumerate() {
                    write!(f, "\nerror #{number}: {error}")?;
                }
                writeln!(f)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Put,
    Post,
    Delete,
}

/// Names and values, not yet escaped.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// What a request carries.
#[derive(Debug)]
pub(super) enum Payload {
    /// In the form of a PUT, in the query of the others.
    Parameters(Parameters),
    Json(String),
}

/// Whether a further endpoint is asked after one that did not serve the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Further {
    Always,
    /// Only after one that could not be connected to: any other may have done it already.
    IfNotReached,
    Never,
}

/// One request.
#[derive(Debug)]
pub(super) struct Ask {
    pub method: Method,
    /// From its first slash on, not yet escaped.
    pub path: String,
    pub payload: Payload,
    pub further: Further,
    /// May take for ever.
    pub patient: bool,
}

pub(super) struct Client {
    endpoints: Vec<Url>,
    agent: Agent,
    patient_agent: Agent,
}

/// Why one endpoint did not serve a request.
struct Miss {
    error: String,
    reached: bool,
}

impl Client {
    /// `endpoints` is a comma list; `http://` may be left out.
    pub fn new(endpoints: &str) -> Result<Client, UrlError> {
        let with_scheme = |text: &str| {
            let text = text.trim().trim_end_matches('/');
            Url::parse(&if text.contains("://") {
                text.into()
            } else {
                format!("http://{text}")
            })
        };
        let endpoints = endpoints
            .split(',')
            .map(with_scheme)
            .collect::<Result<Vec<_>, _>>()?;
        let agent = |answer_within| -> Agent {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .proxy(None);
            let times = config
                .timeout_connect(Some(PATIENCE))
                .timeout_recv_response(answer_within);
            times.build().into()
        };
        Ok(Client {
            endpoints,
            agent: agent(Some(PATIENCE)),
            patient_agent: agent(None),
        })
    }

    /// Sends a request of the keys API.
    pub fn send(&self, ask: &Ask) -> Result<Event, Failure> {
        let (status, body) = self.answer(ask)?;
        read_answer(status, &body)
    }

    /// The status, below 500, and body of the first answer.
    pub fn answer(&self, ask: &Ask) -> Result<(u16, Vec<u8>), Failure> {
        let mut errors = vec![];
        let mut reached = false;
        for endpoint in &self.endpoints {
            let miss = match self.send_to(endpoint, ask) {
                Ok(answer) => return Ok(answer),
                Err(miss) => miss,
            };
            errors.push(miss.error);
            reached |= miss.reached;
            let go_on = match ask.further {
                Further::Always => true,
                Further::IfNotReached => !miss.reached,
                Further::Never => false,
            };
            if !go_on {
                break;
            }
        }
        Err(Failure::Unavailable { errors, reached })
    }

    fn send_to(&self, endpoint: &Url, ask: &Ask) -> Result<(u16, Vec<u8>), Miss> {
        if endpoint.scheme() != Scheme::Http {
            let error = format!("client: {endpoint}: only http:// can be spoken yet");
            return Err(Miss {
                error,
                reached: false,
            });
        }
        let miss = |error: ureq::Error| explain(endpoint, &error);
        let mut response = self.exchange(endpoint, ask).map_err(miss)?;
        let status = response.status().as_u16();
        if status >= 500 {
            let words = response.status().canonical_reason().unwrap_or_default();
            let error = match status {
                500 | 503 => format!("client: etcd member {endpoint} has no leader"),
                _ => format!("client: etcd member {endpoint} returns server error [{words}]"),
            };
            return Err(Miss {
                error,
                reached: true,
            });
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec();
        Ok((status, body.map_err(miss)?))
    }

    fn exchange(&self, endpoint: &Url, ask: &Ask) -> Result<Response<ureq::Body>, ureq::Error> {
        let agent = if ask.patient {
            &self.patient_agent
        } else {
            &self.agent
        };
        let mut url = format!("{endpoint}{}", utf8_percent_encode(&ask.path, IN_PATH));
        let (content_type, body) = match (&ask.payload, ask.method) {
            (Payload::Json(text), _) => ("application/json", text.clone()),
            (Payload::Parameters(parameters), Method::Put) => {
                ("application/x-www-form-urlencoded", form(parameters))
            }
            (Payload::Parameters(parameters), _) => {
                if !parameters.is_empty() {
                    url += &format!("?{}", form(parameters));
                }
                ("", String::new())
            }
        };
        let filled = |request: request::Builder| request.header("Content-Type", content_type);
        match ask.method {
            Method::Get => agent.run(Request::get(url).body(())?),
            Method::Delete => agent.run(Request::delete(url).body(())?),
            Method::Put => agent.run(filled(Request::put(url)).body(body)?),
            Method::Post => agent.run(filled(Request::post(url)).body(body)?),
        }
    }
}

fn form(parameters: &[(&str, String)]) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, IN_FORM)))
        .collect();
    pairs.join("&")
}

fn explain(endpoint: &Url, error: &ureq::Error) -> Miss {
    let address = endpoint.authority();
    match error {
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Miss {
            error: format!("dial tcp {address}: connect: connection refused"),
            reached: false,
        },
        ureq::Error::Timeout(ureq::Timeout::Connect) => Miss {
            error: format!("dial tcp {address}: i/o timeout"),
            reached: false,
        },
        ureq::Error::Timeout(_) => Miss {
            error: format!("client: endpoint {endpoint} exceeded header timeout"),
            reached: true,
        },
        ureq::Error::HostNotFound => Miss {
            error: format!("dial tcp: lookup {}: no such host", endpoint.host()),
            reached: false,
        },
        other => Miss {
            error: format!("client: {endpoint}: {other}"),
            reached: true,
        },
    }
}

fn read_answer(status: u16, body: &[u8]) -> Result<Event, Failure> {
    let odd = || Failure::Odd(status, String::from_utf8_lossy(body).trim().to_owned());
    if status < 300 {
        return serde_json::from_slice(body).map_err(|_| odd());
    }
    match serde_json::from_slice(body) {
        Ok(error) => Err(Failure::Refused(error)),
        Err(_) => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_letter_is_escaped() {
        let parameters = [
            ("value", "a b&c=ü/+".to_owned()),
            ("dir", "true".to_owned()),
        ];
        assert_eq!(form(&parameters), "value=a%20b%26c%3D%C3%BC%2F%2B&dir=true");
        assert_eq!(
            utf8_percent_encode("/a b/ü?#", IN_PATH).to_string(),
            "/a%20b/%C3%BC%3F%23"
        );
    }

    #[test]
    fn several_endpoints_that_fail_are_told_as_etcdctl_tells_them() {
        let errors = vec!["one".to_owned(), "two".to_owned()];
        let failure = Failure::Unavailable {
            errors,
            reached: false,
        };
        assert_eq!(
            failure.to_string(),
            "client: etcd cluster is unavailable or misconfigured; error #0: one\n\
             ; error #1: two\n\nerror #0: one\nerror #1: two\n"
        );
        assert_eq!(failure.status(), 2);
    }
}
