//! The proxy of the environment, with the same rules as etcdctl (Go's rules).
//!
//! `HTTP_PROXY` and `http_proxy` name a proxy. `NO_PROXY` and `no_proxy` list the hosts that are reached without one.
//! The variable in capitals takes precedence. `HTTPS_PROXY` and `https_proxy` do the same for
//! `https` endpoints: there, the proxy is asked for a tunnel and sees no request. `all_proxy` is ignored. This machine
//! (`localhost`, 127.0.0.0/8, `[::1]`) is never reached through a proxy. Only `edgetcdctl` reads these variables.
//! Members never do.

use super::endpoint::Endpoint;
use super::secret::Secret;
use crate::urls::{Scheme, Url};
use std::net::IpAddr;

/// The variables, not parsed yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: String,
    https: String,
    except: String,
    /// The program runs under a web server (CGI). There, a client could set `HTTP_PROXY` with a header.
    is_cgi: bool,
}

/// A proxy to send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub url: Url,
    /// The value of `Proxy-Authorization`, if the URL names a user.
    pub authorization: Option<Secret>,
    /// For an `https` endpoint: the text of the variable. The proxy is asked for a tunnel.
    pub tunnel: Option<Secret>,
}

impl Proxies {
    pub fn read(env: &dyn Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: [&str; 2]| {
            let mut values = names.into_iter().filter_map(env);
            values.find(|value| !value.is_empty()).unwrap_or_default()
        };
        Proxies {
            http: first(["HTTP_PROXY", "http_proxy"]),
            https: first(["HTTPS_PROXY", "https_proxy"]),
            except: first(["NO_PROXY", "no_proxy"]),
            is_cgi: env("REQUEST_METHOD").is_some_and(|method| !method.is_empty()),
        }
    }

    /// The proxy for `url`. None: the server is reached directly.
    ///
    /// # Errors
    /// Fails if the variable names a proxy of a kind that is not supported, or must not be used here.
    pub fn of(&self, url: &Url) -> Result<Option<Proxy>, String> {
        let (name, value, is_tunnel) = match url.scheme() {
            Scheme::Https => ("HTTPS_PROXY", &self.https, true),
            _ => ("HTTP_PROXY", &self.http, false),
        };
        if value.is_empty() || !is_foreign(url.host()) || is_among(url, &self.except) {
            return Ok(None);
        }
        if self.is_cgi && !is_tunnel {
            let why = "HTTP_PROXY is not used where REQUEST_METHOD is set, as under a web server";
            return Err(why.to_owned());
        }
        if let Some((scheme, _)) = value.split_once("://")
            && !scheme.eq_ignore_ascii_case("http")
        {
            return Err(format!(
                "{name}: edgetcdctl speaks http to a proxy, not {scheme}; name this host in \
                 NO_PROXY to reach it directly"
            ));
        }
        // etcdctl ignores a value that is not a URL.
        let proxy = Endpoint::parse(value).ok();
        Ok(proxy.map(|proxy| Proxy {
            url: proxy.url().clone(),
            authorization: proxy.authorization,
            tunnel: is_tunnel.then(|| Secret::new(value.clone())),
        }))
    }
}

fn is_foreign(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    host != "localhost" && !ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a list of names, addresses and networks, separated by commas, contains this host, with this port or
/// without one.
fn is_among(url: &Url, list: &str) -> bool {
    let host = url.host().to_ascii_lowercase();
    let ip = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
    list.split(',').any(|item| {
        let item = item.trim().to_ascii_lowercase();
        let (item, port) = split_port(&item);
        let is_port = port.is_none_or(|port| port == url.port().to_string());
        match (item.parse::<IpAddr>(), ip) {
            (Ok(item), ip) => is_port && ip == Some(item.to_canonical()),
            _ if item.is_empty() => false,
            _ if item == "*" => port.is_none(),
            (_, Some(ip)) if item.contains('/') => port.is_none() && is_in_network(ip, item),
            // An address may also be given by its end: `.2.3` matches 10.1.2.3.
            _ => is_port && is_in_domain(&host, item),
        }
    })
}

/// Splits `host:port` or `[address]:port`. A bare IPv6 address has no port.
fn split_port(item: &str) -> (&str, Option<&str>) {
    match item.rsplit_once(':') {
        Some((host, port)) if host.starts_with('[') && host.ends_with(']') => {
            (&host[1..host.len() - 1], Some(port))
        }
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (item, None),
    }
}

fn is_in_network(ip: IpAddr, network: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else {
        return false;
    };
    let Ok(bits) = bits.parse::<u32>() else {
        return false;
    };
    match (ip, base.parse()) {
        (IpAddr::V4(ip), Ok(IpAddr::V4(base))) if bits <= 32 => {
            (ip.to_bits() ^ base.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(ip), Ok(IpAddr::V6(base))) if bits <= 128 => {
            (ip.to_bits() ^ base.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

/// `a.org` matches itself and its subdomains. `.a.org` and `*.a.org` match only the subdomains.
fn is_in_domain(host: &str, domain: &str) -> bool {
    let below = domain.strip_prefix("*.").or(domain.strip_prefix('.'));
    let is_below = |domain: &str| {
        let rest = host.strip_suffix(domain);
        rest.is_some_and(|rest| rest.ends_with('.'))
    };
    match below {
        Some(domain) => is_below(domain),
        None => host == domain || is_below(domain),
    }
}

impl Proxy {
    /// The header lines for the proxy in the head of each request. May be empty.
    pub fn header(&self) -> String {
        match &self.authorization {
            Some(value) => format!("Proxy-Authorization: {}\r\n", value.expose()),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Proxies::read(&find)
    }

    /// The proxy of `http://HOST:2379`, as text. `-`: none. `!`: refused.
    fn of(variables: &[(&str, &str)], host: &str) -> String {
        of_url(variables, &format!("http://{host}:2379"))
    }

    fn of_url(variables: &[(&str, &str)], url: &str) -> String {
        let url = Url::parse(url).expect("a URL");
        match proxies(variables).of(&url) {
            Ok(Some(proxy)) => proxy.url.to_string(),
            Ok(None) => "-".to_owned(),
            Err(_) => "!".to_owned(),
        }
    }

    #[test]
    fn the_variables_that_count_are_those_of_go() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], "-"),
            (&[("http_proxy", "http://p:3128")], "http://p:3128"),
            (&[("HTTP_PROXY", "http://p:3128/")], "http://p:3128"),
            (&[("http_proxy", "p:3128")], "http://p:3128"),
            (&[("http_proxy", "p")], "http://p:80"),
            (
                &[("HTTP_PROXY", "a:1"), ("http_proxy", "b:1")],
                "http://a:1",
            ),
            (&[("HTTP_PROXY", ""), ("http_proxy", "b:1")], "http://b:1"),
            (&[("all_proxy", "p:1"), ("ALL_PROXY", "p:1")], "-"),
            (&[("https_proxy", "p:1"), ("HTTPS_PROXY", "p:1")], "-"),
            (&[("http_proxy", "HTTP://p:1")], "http://p:1"),
            (&[("http_proxy", "http://%zz:1")], "-"),
            (&[("http_proxy", "socks5://p:1")], "!"),
            (&[("http_proxy", "https://p:1")], "!"),
            (&[("http_proxy", "p:1"), ("REQUEST_METHOD", "GET")], "!"),
            (&[("REQUEST_METHOD", "GET")], "-"),
        ];
        for (variables, expected) in table {
            assert_eq!(of(variables, "10.1.2.3"), *expected, "{variables:?}");
        }
        let both = [("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://q:1")];
        assert_eq!(of_url(&both, "https://10.1.2.3:1"), "http://p:1");
        assert_eq!(of_url(&both, "http://10.1.2.3:1"), "http://q:1");
        assert_eq!(of_url(&both[1..], "https://10.1.2.3:1"), "-");
        let user = proxies(&[("http_proxy", "http://u:p%40@p:1")]);
        let proxy = user.of(&Url::parse("http://h:1").expect("a URL"));
        let proxy = proxy.expect("a proxy").expect("a proxy");
        assert_eq!(proxy.header(), "Proxy-Authorization: Basic dTpwQA==\r\n");
    }

    #[test]
    fn this_machine_is_asked_directly_and_so_is_whom_the_list_names() {
        let direct = |list: &str, host: &str| {
            let variables = [("http_proxy", "p:1"), ("no_proxy", list)];
            of(&variables, host) == "-"
        };
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(direct("", host), "{host}");
        }
        let table = [
            ("", "10.1.2.3", false),
            ("*", "a.org", true),
            (" 10.1.2.3 ", "10.1.2.3", true),
            ("10.1.2.3:2379", "10.1.2.3", true),
            ("10.1.2.3:1", "10.1.2.3", false),
            ("10.1.0.0/16", "10.1.2.3", true),
            ("10.1.0.0/24", "10.1.2.3", false),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("10.1.0.0/99", "10.1.2.3", false),
            ("fd00::/8", "[fd01::1]", true),
            ("[fd01::1]:2379", "[fd01::1]", true),
            ("fd01::1", "[fd01::1]", true),
            (".2.3", "10.1.2.3", true),
            ("2.3", "10.1.2.3", true),
            ("*.2.3", "10.1.2.3", true),
            ("2.33", "10.1.2.3", false),
            ("10.1.2.", "10.1.2.3", false),
            ("10.1.2.0/24:2379", "10.1.2.3", false),
            ("[10.1.2.3]", "10.1.2.3", false),
            ("a.org", "a.org", true),
            ("A.org", "x.a.ORG", true),
            ("a.org", "xa.org", false),
            (".a.org", "a.org", false),
            (".a.org", "x.a.org", true),
            ("*.a.org", "a.org", false),
            ("*.a.org", "x.a.org", true),
            ("*a.org", "x.a.org", false),
            ("*:2379", "a.org", false),
            (":2379", "a.org", false),
            ("a.org:2379", "a.org", true),
            ("a.org:1", "a.org", false),
            ("b.org,,a.org", "a.org", true),
        ];
        for (list, host, expected) in table {
            assert_eq!(direct(list, host), expected, "{list:?} {host}");
        }
    }
}
