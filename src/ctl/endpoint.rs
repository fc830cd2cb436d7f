//! Parses the addresses of servers.
//!
//! etcdctl accepts any URL: with a path before the API (a proxy), without a port (80), with a query that is added to
//! each request, with a scheme that it does not speak (it goes on to the next server). Here, `http://` may also be omitted, a user in the URL is sent to the server, and empty items of a
//! list are skipped.

use super::secret::Secret;
use super::wire;
use crate::dial;
use crate::urls::{Scheme, Url};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::net::Ipv6Addr;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The text for messages: with the scheme, without ignored parts.
    text: String,
    url: Url,
    /// The path before `/v2`, without a slash at its end.
    prefix: String,
    /// The query that is added to each request.
    query: Vec<(String, String)>,
    /// A scheme that is not one of etcd's. Requests to this server fail.
    unknown_scheme: Option<String>,
    /// `Authorization` for the user in the URL.
    pub authorization: Option<Secret>,
}

impl Endpoint {
    /// Parses one endpoint.
    ///
    /// # Errors
    /// Returns a message that contains the endpoint.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let (scheme, rest) = split_scheme(text.trim());
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let scheme = scheme.to_ascii_lowercase();
        if scheme.starts_with("unix") {
            return Endpoint::unix(&scheme, rest);
        }
        let (address, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, host) = match address.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, address),
        };
        let default_port = if scheme == "https" { 443 } else { 80 };
        let is_known = matches!(&*scheme, "http" | "https");
        let spoken = if is_known { &*scheme } else { "http" };
        let url = Url::parse(&format!("{spoken}://{}", with_port(host, default_port)))
            .map_err(|error| error.to_string())?;
        let prefix = path_in_front(path);
        Ok(Endpoint {
            text: format!("{scheme}://{host}{prefix}"),
            url,
            prefix,
            query: wire::read_query(query),
            unknown_scheme: (!is_known).then_some(scheme),
            authorization: user.map(authorization),
        })
    }

    fn unix(scheme: &str, rest: &str) -> Result<Endpoint, String> {
        // For a relative name without a port, etcdctl opens the file `name:80`.
        let rest = rest.trim_end_matches('/');
        let rest = if rest.starts_with('/') {
            rest.to_owned()
        } else {
            with_port(rest, 80)
        };
        let text = format!("{scheme}://{rest}");
        let url = Url::parse(&text).map_err(|error| error.to_string())?;
        Ok(Endpoint {
            text,
            url,
            prefix: String::new(),
            query: Vec::new(),
            unknown_scheme: None,
            authorization: None,
        })
    }

    /// Parses a list separated by commas. Empty items are skipped.
    pub fn parse_list(text: &str) -> Result<Vec<Endpoint>, String> {
        let given = text.split(',').filter(|text| !text.trim().is_empty());
        given.map(Endpoint::parse).collect()
    }

    /// The text for messages.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The base to which requests append an API path.
    pub fn base(&self) -> String {
        format!("{}{}", dial::base(&self.url), self.prefix)
    }

    /// The query that is added to each request.
    pub fn query(&self) -> &[(String, String)] {
        &self.query
    }

    /// The URL to connect to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// # Errors
    /// Its scheme, if it is not one of etcd's.
    pub fn scheme(&self) -> Result<Scheme, &str> {
        match &self.unknown_scheme {
            None => Ok(self.url.scheme()),
            Some(scheme) => Err(scheme),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The part before `://`, or `http` if there is none.
fn split_scheme(text: &str) -> (&str, &str) {
    let is_scheme =
        |scheme: &str| !scheme.is_empty() && !scheme.contains(|c: char| "/:?#[@".contains(c));
    match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        _ => ("http", text.strip_prefix("//").unwrap_or(text)),
    }
}

/// The path before the API, cleaned and escaped as etcdctl does it.
fn path_in_front(path: &str) -> String {
    let plain = percent_decode_str(path).decode_utf8_lossy();
    wire::escape_path(wire::clean(&plain).trim_end_matches('/'))
}

/// The address with its port, which may have been omitted. Without a host it is this machine.
fn with_port(address: &str, port: u16) -> String {
    let address = match address.strip_prefix(':') {
        Some(port) if !port.is_empty() && !port.contains(':') => format!("localhost:{port}"),
        _ => address.to_owned(),
    };
    // `::1:2379`: Go uses the last colon for the port.
    if let Some((host, port)) = address.rsplit_once(':')
        && host.parse::<Ipv6Addr>().is_ok()
    {
        return format!("[{host}]:{port}");
    }
    let after_host = address.rfind(']').map_or(0, |at| at + 1);
    match address[after_host..].split_once(':') {
        None if !address.is_empty() => format!("{address}:{port}"),
        Some((_, "")) if address != ":" => format!("{address}{port}"),
        _ => address,
    }
}

/// The value of `Authorization` for `USER[:PASSWORD]` of a URL.
fn authorization(user: &str) -> Secret {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let pair = [plain(name), plain(password)].join(&b':');
    Secret::basic(&pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_in_every_form_that_people_write() {
        let table = [
            ("http://h:2379", "http://h:2379", "http://h:2379"),
            ("h:2379", "http://h:2379", "http://h:2379"),
            ("HTTP://h:2379/", "http://h:2379", "http://h:2379"),
            ("http://h:2379//", "http://h:2379", "http://h:2379"),
            ("http://lb/etcd", "http://lb/etcd", "http://lb:80/etcd"),
            ("http://lb/a//b/?x=y#z", "http://lb/a/b", "http://lb:80/a/b"),
            ("http://lb/a/../b/.", "http://lb/b", "http://lb:80/b"),
            (
                "http://lb/a%2Fb c/ü%7a",
                "http://lb/a/b%20c/%C3%BCz",
                "http://lb:80/a/b%20c/%C3%BCz",
            ),
            ("http://::1:2379", "http://::1:2379", "http://[::1]:2379"),
            (
                "fd00::1:2379/a",
                "http://fd00::1:2379/a",
                "http://[fd00::1]:2379/a",
            ),
            ("localhost", "http://localhost", "http://localhost:80"),
            ("//h:2379", "http://h:2379", "http://h:2379"),
            ("http://h:/a", "http://h:/a", "http://h:80/a"),
            ("http://[::1]:", "http://[::1]:", "http://[::1]:80"),
            ("h:1/a?u=http://x", "http://h:1/a", "http://h:1/a"),
            ("http://:2379", "http://:2379", "http://localhost:2379"),
            ("http://u:p%40@h:1", "http://h:1", "http://h:1"),
            ("[::1]:2379", "http://[::1]:2379", "http://[::1]:2379"),
            ("http://[::1]", "http://[::1]", "http://[::1]:80"),
            (
                "http://[fe80::1%25lo]:1",
                "http://[fe80::1%25lo]:1",
                "http://[fe80::1]:1",
            ),
            (
                "unix:///run/a.sock",
                "unix:///run/a.sock",
                "http://localhost",
            ),
            (
                "unix://localhost:1",
                "unix://localhost:1",
                "http://localhost",
            ),
            ("unix://a.sock", "unix://a.sock:80", "http://localhost"),
        ];
        for (given, text, base) in table {
            let endpoint = Endpoint::parse(given).expect(given);
            assert_eq!(
                (endpoint.as_str(), &*endpoint.base()),
                (text, base),
                "{given}"
            );
        }
        let other = Endpoint::parse("FTP://h/a").expect("a URL");
        assert_eq!((other.as_str(), other.scheme()), ("ftp://h/a", Err("ftp")));
        let token = Endpoint::parse("http://h:1/?token=a%20b#c").expect("a URL");
        assert_eq!(token.query(), [("token".to_owned(), "a b".to_owned())]);
        let user = Endpoint::parse("http://u:p%40@h:1").expect("a URL");
        let sent = user.authorization.as_ref().map(Secret::expose);
        assert_eq!(sent, Some("Basic dTpwQA=="));
        assert!(!format!("{user:?}").contains("dTpw"), "{user:?}");
    }

    #[test]
    fn a_list_may_have_empty_places() {
        let list = |text: &str| Endpoint::parse_list(text).map(|list| list.len());
        assert_eq!(list("http://a:1,"), Ok(1));
        assert_eq!(list(",http://a:1, ,b:2"), Ok(2));
        assert_eq!(list(" , "), Ok(0));
        assert!(list("http://a:1,http://").is_err());
        assert!(list("http://a:1,//").is_err() && list(":").is_err() && list("::1").is_err());
        assert!(list("http://a:b").is_err());
        assert_eq!(list("ftp://a:1,http://b"), Ok(2));
    }
}
