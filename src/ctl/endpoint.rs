//! Where a server is, as people and scripts write it.
//!
//! etcdctl takes any URL: a path in front of the API (a proxy), no port (80), a user, a query that it ignores. Here
//! `http://` may be left out as well, and empty places of a list are skipped.

use super::globals::base64;
use crate::dial;
use crate::urls::{Scheme, Url};
use percent_encoding::percent_decode_str;
use std::fmt;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// As messages show it: with its scheme, without what is ignored.
    text: String,
    url: Url,
    /// What stands before `/v2`, without a slash at its end.
    prefix: String,
    /// `Authorization` for the user that stands in it.
    pub authorization: Option<String>,
}

impl Endpoint {
    /// Reads one endpoint.
    ///
    /// # Errors
    /// What is wrong with it, in words that name it.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
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
        let url = Url::parse(&format!("{scheme}://{}", with_port(host, default_port)))
            .map_err(|error| error.to_string())?;
        let names = path
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".");
        let prefix: String = names.flat_map(|name| ["/", name]).collect();
        Ok(Endpoint {
            text: format!("{scheme}://{host}{prefix}"),
            url,
            prefix,
            authorization: user.map(authorization),
        })
    }

    fn unix(scheme: &str, rest: &str) -> Result<Endpoint, String> {
        // A relative path needs no port here, as a file has none.
        let rest = rest.trim_end_matches('/');
        let rest = if rest.starts_with('/') {
            rest.to_owned()
        } else {
            with_port(rest, 0)
        };
        let text = format!("{scheme}://{rest}");
        let url = Url::parse(&text).map_err(|error| error.to_string())?;
        Ok(Endpoint {
            text,
            url,
            prefix: String::new(),
            authorization: None,
        })
    }

    /// A comma list. Empty places are skipped.
    pub fn parse_list(text: &str) -> Result<Vec<Endpoint>, String> {
        let given = text.split(',').filter(|text| !text.trim().is_empty());
        given.map(Endpoint::parse).collect()
    }

    /// As messages show it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What a path of the API is appended to in a request.
    pub fn base(&self) -> String {
        format!("{}{}", dial::base(&self.url), self.prefix)
    }

    /// How it is reached.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn scheme(&self) -> Scheme {
        self.url.scheme()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The address with its port, which may have been left out; without a host it is this machine.
fn with_port(address: &str, port: u16) -> String {
    let after_host = address.rfind(']').map_or(0, |at| at + 1);
    let colons = address[after_host..].matches(':').count();
    let address = match address.strip_prefix(':') {
        Some(port) => format!("localhost:{port}"),
        None => address.to_owned(),
    };
    match colons {
        0 if !address.is_empty() => format!("{address}:{port}"),
        _ => address,
    }
}

fn authorization(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let pair = [plain(name), plain(password)].join(&b':');
    format!("Basic {}", base64(&pair))
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
            ("localhost", "http://localhost", "http://localhost:80"),
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
            ("unix://a.sock", "unix://a.sock:0", "http://localhost"),
        ];
        for (given, text, base) in table {
            let endpoint = Endpoint::parse(given).expect(given);
            assert_eq!(
                (endpoint.as_str(), &*endpoint.base()),
                (text, base),
                "{given}"
            );
        }
        let user = Endpoint::parse("http://u:p%40@h:1").expect("a URL");
        assert_eq!(user.authorization.as_deref(), Some("Basic dTpwQA=="));
    }

    #[test]
    fn a_list_may_have_empty_places() {
        let list = |text: &str| Endpoint::parse_list(text).map(|list| list.len());
        assert_eq!(list("http://a:1,"), Ok(1));
        assert_eq!(list(",http://a:1, ,b:2"), Ok(2));
        assert_eq!(list(" , "), Ok(0));
        assert!(list("http://a:1,http://").is_err());
        assert!(list("http://a:b").is_err());
        assert!(list("ftp://a:1").is_err());
    }
}
