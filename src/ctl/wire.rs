//! A request of the v2 API before it is sent, encoded as in etcdctl.

use super::secret::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const IN_FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b' ');
const IN_PATH: &AsciiSet = &IN_FORM
    .add(b' ')
    .remove(b'/')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

impl Method {
    fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

/// Names and values, not escaped yet.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// The body of a request.
#[derive(Debug)]
pub(super) enum Body {
    None,
    Form(Parameters),
    Json(String),
    /// JSON with a password. `--debug` prints `shown` in its place.
    Secret {
        json: Secret,
        shown: String,
    },
}

impl Body {
    /// The text that `--debug` prints, if it differs from the one that is sent.
    pub fn shown(&self) -> Option<&str> {
        match self {
            Body::Secret { shown, .. } => Some(shown),
            Body::None | Body::Form(_) | Body::Json(_) => None,
        }
    }
}

/// Whether the request is sent to another endpoint after one did not serve it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Further {
    Always,
    /// Only if no connection to the endpoint could be made. Otherwise the request may have had an effect already.
    IfNotReached,
    /// As `IfNotReached`. The error is that of the last endpoint alone.
    Once,
}

/// Time limits of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// The response must begin and end in time.
    Usual,
    /// The response must begin in time, but has no end: a watch.
    Endless,
    /// The response may be large, and may also begin late.
    Long,
}

/// A page of a server: its members, statistics or metrics. `status` reads several at the same time.
pub(super) const PAGE_BYTES_MAX: u64 = 1 << 20;

/// The reason of a refusal, which may contain a key in which every byte is escaped by six.
pub(super) const REFUSAL_BYTES_MAX: u64 = 8 << 20;

/// An event: a value and the one before, of 10 MiB each, in which every byte may be escaped by six.
pub(super) const EVENT_BYTES_MAX: u64 = 128 << 20;

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// [`PAGE_BYTES_MAX`].
    Page,
    /// [`EVENT_BYTES_MAX`].
    Event,
    /// As long as `--answer-limit` allows: a directory with all that is in it.
    Listing,
}

/// One request.
#[derive(Debug)]
pub(super) struct Ask {
    pub method: Method,
    /// Begins with a slash. Not escaped yet.
    pub path: String,
    pub query: Parameters,
    pub body: Body,
    pub further: Further,
    pub patience: Patience,
    pub limit: Limit,
}

impl Ask {
    pub fn get(path: &str, query: Parameters) -> Ask {
        Ask {
            method: Method::Get,
            path: path.to_owned(),
            query,
            body: Body::None,
            further: Further::Always,
            patience: Patience::Usual,
            limit: Limit::Page,
        }
    }

    /// A GET of a key or a directory.
    pub fn key(key: &str, query: Parameters) -> Ask {
        Ask {
            limit: Limit::Listing,
            ..Ask::get(&format!("/v2/keys{}", clean(key)), query)
        }
    }

    /// A GET that waits for the next event.
    pub fn watch(key: &str, query: Parameters) -> Ask {
        Ask {
            patience: Patience::Endless,
            limit: Limit::Event,
            ..Ask::key(key, query)
        }
    }

    /// A PUT of a key or a directory. If the key must not exist before, it is sent only once.
    pub fn put(key: &str, query: Parameters, form: Parameters) -> Ask {
        let once = query.contains(&("prevExist", "false".to_owned()));
        Ask {
            method: Method::Put,
            body: Body::Form(form),
            further: if once { Further::Once } else { Further::Always },
            limit: Limit::Event,
            ..Ask::key(key, query)
        }
    }

    /// A DELETE of a key or a directory, which is sent only once.
    pub fn delete(key: &str, query: Parameters) -> Ask {
        Ask {
            method: Method::Delete,
            further: Further::Once,
            limit: Limit::Event,
            ..Ask::key(key, query)
        }
    }

    /// `endpoint` has no slash at its end. `further` is the endpoint's query. The request's own parameters take
    /// precedence.
    pub fn url(&self, endpoint: &str, further: &[(String, String)]) -> String {
        let own = self.query.iter().map(|(name, value)| (*name, value));
        let is_own = |name: &str| self.query.iter().any(|(own, _)| *own == name);
        let further = further.iter().filter(|(name, _)| !is_own(name));
        let further = further.map(|(name, value)| (name.as_str(), value));
        match sorted_form(own.chain(further).collect()) {
            query if query.is_empty() => format!("{endpoint}{}", escape_path(&self.path)),
            query => format!("{endpoint}{}?{query}", escape_path(&self.path)),
        }
    }

    /// The equivalent curl command, as `--debug` prints it.
    pub fn curl(&self, url: &str, body: &str) -> String {
        let line = format!("cURL Command: curl -X {} {url}", self.method.as_str());
        match self.body {
            Body::None => line,
            _ => format!("{line} -d {body:?}"),
        }
    }
}

/// Parameters sorted by name.
pub(super) fn form(parameters: &[(&'static str, String)]) -> String {
    sorted_form(
        parameters
            .iter()
            .map(|(name, value)| (*name, value))
            .collect(),
    )
}

fn sorted_form(mut parameters: Vec<(&str, &String)>) -> String {
    parameters.sort_by_key(|(name, _)| *name);
    let escape = |text| {
        utf8_percent_encode(text, IN_FORM)
            .to_string()
            .replace(' ', "+")
    };
    let pairs = parameters.iter();
    let pairs = pairs.map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Parses the parameters of a URL's query.
pub(super) fn read_query(query: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

/// A path as it is written in a URL.
pub(super) fn escape_path(path: &str) -> String {
    utf8_percent_encode(path, IN_PATH).to_string()
}

/// A key as a path: with a slash in front, without empty items, `.` and `..`. The server would also clean it, but
/// with a redirect, which does not work for a PUT. A slash at the end stays.
pub(super) fn clean(key: &str) -> String {
    let mut parts: Vec<&str> = vec![];
    for part in key.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let slash = if key.ends_with('/') { "/" } else { "" };
    match parts.join("/") {
        path if path.is_empty() => slash.to_owned(),
        path => format!("/{path}{slash}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_letter_is_escaped() {
        let parameters = vec![
            ("value", "a b&c=ü/+".to_owned()),
            ("dir", "true".to_owned()),
        ];
        assert_eq!(form(&parameters), "dir=true&value=a+b%26c%3D%C3%BC%2F%2B");
        let ask = Ask::key("/a b/ü?#", parameters);
        assert_eq!(
            ask.url("http://h:1", &[]),
            "http://h:1/v2/keys/a%20b/%C3%BC%3F%23?dir=true&value=a+b%26c%3D%C3%BC%2F%2B"
        );
    }

    /// As in etcdctl: the request's own parameters take precedence, and all are sorted.
    #[test]
    fn the_endpoints_query_goes_with_each_request() {
        let further = read_query("z=a+b%2F&&dir=false&b/c&quorum=");
        let ask = Ask::key("/a", vec![("dir", "true".to_owned())]);
        let url = ask.url("http://h:1", &further);
        assert_eq!(url, "http://h:1/v2/keys/a?b%2Fc=&dir=true&quorum=&z=a+b%2F");
        let ask = Ask::get("/v2/members", vec![]);
        let url = ask.url("http://h:1", &read_query("x=y"));
        assert_eq!(url, "http://h:1/v2/members?x=y");
    }

    #[test]
    fn keys_are_cleaned() {
        let table = [
            ("a", "/a"),
            ("/a/b/", "/a/b/"),
            ("//a/./b/../c", "/a/c"),
            ("/a/..", ""),
            ("", ""),
            ("/", "/"),
        ];
        for (given, expected) in table {
            assert_eq!(clean(given), expected, "{given:?}");
        }
    }

    #[test]
    fn a_request_is_told_as_the_curl_command_that_does_the_same() {
        let ask = Ask::put("a", vec![], vec![("value", "1".to_owned())]);
        assert_eq!(
            ask.curl(&ask.url("http://h:1", &[]), "value=1"),
            "cURL Command: curl -X PUT http://h:1/v2/keys/a -d \"value=1\""
        );
    }
}
