//! URLs in the form that etcd accepts: only `scheme://host:port`.
//!
//! They come from flags, from `--initial-cluster` and from the members API, and member ids are derived from them. So
//! they are stored as text, exactly as they are shown again (only the scheme is changed to lower case). The parser is
//! small and strict. If the reference refuses a URL, this parser refuses it with the same words, which are part of the
//! v2 contract because the members API returns them.
//!
//! This parser is stricter than the reference: it refuses a user, a query, a fragment, an empty port and a port above
//! 65535. The reference accepts these and fails or misbehaves later.

use crate::go;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

/// The part before `://`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS.
    Https,
    /// A socket in the file system, for clients on the same machine.
    Unix,
    /// TLS over such a socket.
    Unixs,
}

impl Scheme {
    fn parse(lower_case: &str) -> Option<Scheme> {
        match lower_case {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            "unix" => Some(Scheme::Unix),
            "unixs" => Some(Scheme::Unixs),
            _ => None,
        }
    }

    /// Whether connections to such a URL are encrypted.
    pub fn has_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }

    /// The scheme as in a URL, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        }
    }
}

/// A checked `scheme://host:port`, or `unix://` with the path of a socket. URLs are ordered and compared by their text,
/// as the derivation of ids requires.
///
/// The host may be empty (`http://:2379`). Whether that is allowed depends on the use of the URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
}

/// Why a text is not such a URL. Prints the reference's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlError {
    /// The text is not a URL at all.
    Parse {
        /// The text as given, without the spaces around it.
        text: String,
        /// The words of the reference's URL parser.
        why: String,
    },
    /// The scheme is none of [`Scheme`]'s.
    Scheme(String),
    /// The port is missing, or the address is not valid.
    HostPort(String),
    /// There is a path after the port, even if it is only a slash.
    Path(String),
    /// There is a user, a query, a fragment or an invalid port. Only this parser refuses these.
    More(String),
    /// The list contains no URL.
    Empty,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::Parse { text, why } => write!(f, "parse {}: {why}", go::quoted(text)),
            UrlError::Scheme(text) => {
                write!(f, "URL scheme must be http, https, unix, or unixs: {text}")
            }
            UrlError::HostPort(text) => {
                write!(
                    f,
                    "URL address does not have the form \"host:port\": {text}"
                )
            }
            UrlError::Path(text) => write!(f, "URL must not contain a path: {text}"),
            UrlError::More(text) => write!(
                f,
                "URL must be scheme://host:port with a port up to 65535, and nothing more: {text}"
            ),
            UrlError::Empty => write!(f, "no valid URLs given"),
        }
    }
}

impl std::error::Error for UrlError {}

impl Url {
    /// Parses one URL and drops spaces around it. The checks have the reference's order: syntax, scheme, `host:port`,
    /// path.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.trim();
        let fail = |why: &str| UrlError::Parse {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(fail("net/url: invalid control character in URL"));
        }
        let (scheme, rest) = split_scheme(text).map_err(fail)?;
        if let Some(url) = unix_path(scheme, rest) {
            return Ok(url);
        }
        let (address, tail) = split_address(rest);
        let address = address.unwrap_or_default();
        let plain_address = address.rsplit_once('@').map_or(address, |(_, host)| host);
        check_host(plain_address).map_err(|why| fail(&why))?;

        let lower = scheme.to_ascii_lowercase();
        let scheme = Scheme::parse(&lower).ok_or_else(|| UrlError::Scheme(text.to_owned()))?;
        let (host, port) =
            split_port(plain_address).ok_or_else(|| UrlError::HostPort(text.to_owned()))?;
        if tail.starts_with('/') {
            return Err(UrlError::Path(text.to_owned()));
        }
        let port = port.parse().map_err(|_| UrlError::More(text.to_owned()))?;
        if !tail.is_empty() || address.contains('@') {
            return Err(UrlError::More(text.to_owned()));
        }
        let text = format!("{lower}://{address}");
        Ok(Url {
            text,
            scheme,
            host: host.replacen("%25", "%", 1),
            port,
        })
    }

    /// Parses and sorts a comma-separated list, as the reference does for all stored URLs.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        Url::parse_all(text.split(','))
    }

    /// Parses and sorts at least one URL. A URL that is given twice is kept twice.
    pub fn parse_all<T: AsRef<str>>(
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Url>, UrlError> {
        let mut urls = texts
            .into_iter()
            .map(|text| Url::parse(text.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(UrlError::Empty);
        }
        urls.sort_unstable();
        Ok(urls)
    }

    /// Parses and sorts the URLs of a member. Refuses paths of Unix sockets: they are only for clients on the same
    /// machine. The reference does not have them, and members cannot reach another member at a path.
    pub fn parse_members<T: AsRef<str>>(
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Vec<Url>, UrlError> {
        let urls = Url::parse_all(texts)?;
        let is_path = |url: &&Url| url.socket_path().is_some_and(Path::is_absolute);
        match urls.iter().find(is_path) {
            Some(url) => Err(UrlError::HostPort(url.text.clone())),
            None => Ok(urls),
        }
    }

    /// The complete URL, as it is shown and as ids are derived from it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before `://`.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name or an address, which may be empty. An IPv6 address has no brackets, and its zone follows a `%`. For
    /// `unix://` with an absolute path, this is the path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. 0 in a listen URL means any free port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port` for connecting and for a Host header.
    pub fn authority(&self) -> &str {
        &self.text[self.scheme.as_str().len() + "://".len()..]
    }

    /// The path of a Unix socket. As in the reference, `unix://name:1` is the file `name:1` in the working directory.
    /// `unix:///run/a.sock` is an absolute path.
    pub fn socket_path(&self) -> Option<&Path> {
        match self.scheme {
            Scheme::Unix | Scheme::Unixs => Some(Path::new(self.authority())),
            Scheme::Http | Scheme::Https => None,
        }
    }

    /// `host:port` for a Host header, without a zone, because a zone has no meaning on another machine.
    pub fn host_header(&self) -> String {
        match self.host.split_once('%') {
            Some((address, _)) => format!("[{address}]:{}", self.port),
            None => self.authority().to_owned(),
        }
    }

    /// The address to listen on. The host must be an IP address or `localhost`. Here `localhost` is always 127.0.0.1,
    /// so that it works on a machine that cannot resolve names. (The reference also listens on only one address of
    /// `localhost`.)
    pub fn listen_address(&self) -> Option<SocketAddr> {
        if self.socket_path().is_some() {
            return None;
        }
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // Only the system knows the number of a zone's interface.
            host if host.contains('%') => return self.resolve().ok()?.first().copied(),
            host => host.parse::<IpAddr>().ok()?.to_canonical(),
        };
        Some(SocketAddr::new(ip, self.port))
    }

    /// The addresses to connect to. Uses the system's resolver unless the host is an IP address, so it may block as
    /// long as that takes.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map(Iterator::collect)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Parses `unix:///an/absolute/path`, which the reference does not support.
fn unix_path(scheme: &str, rest: &str) -> Option<Url> {
    let scheme = Scheme::parse(&scheme.to_ascii_lowercase())?;
    let path = rest
        .strip_prefix("//")
        .filter(|path| path.starts_with('/'))?;
    let is_file = path.len() > 1 && !path.ends_with('/') && !path.contains(['?', '#', '%']);
    let is_socket = matches!(scheme, Scheme::Unix | Scheme::Unixs);
    (is_socket && is_file).then(|| Url {
        text: format!("{}://{path}", scheme.as_str()),
        scheme,
        host: path.to_owned(),
        port: 0,
    })
}

/// Joins URLs with commas, for messages and answers.
pub fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

/// Splits off `scheme:`. A missing scheme is not an error yet, unless a colon shows that one was intended.
fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    let is_scheme_byte = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || (at > 0 && (byte.is_ascii_digit() || b"+-.".contains(&byte)))
    };
    let length = text
        .bytes()
        .enumerate()
        .take_while(|&at| is_scheme_byte(at))
        .count();
    match text.as_bytes().get(length) {
        Some(b':') if length == 0 => Err("missing protocol scheme"),
        Some(b':') => Ok((&text[..length], &text[length + 1..])),
        _ if text
            .split('/')
            .next()
            .is_some_and(|segment| segment.contains(':')) =>
        {
            Err("first path segment in URL cannot contain colon")
        }
        _ => Ok(("", text)),
    }
}

/// Splits the text after `//` into the address and the rest: path, query or fragment.
fn split_address(rest: &str) -> (Option<&str>, &str) {
    match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
        None => (None, rest),
    }
}

/// The checks of a URL parser for `host[:port]`. They come before the check for a missing port.
fn check_host(address: &str) -> Result<(), String> {
    let after_host = if address.starts_with('[') {
        address
            .rfind(']')
            .map(|at| at + 1)
            .ok_or("missing ']' in host")?
    } else {
        address.rfind(':').unwrap_or(address.len())
    };
    let (host, port) = address.split_at(after_host);
    let port_digits = port.strip_prefix(':').unwrap_or(port);
    if !port_digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("invalid port {port:?} after host"));
    }
    let (name, zone) = match host
        .strip_suffix(']')
        .and_then(|inner| inner.split_once("%25"))
    {
        Some((name, zone)) => (name, Some(zone)),
        None => (host, None),
    };
    let bad = [Some(name), zone].into_iter().flatten();
    let mut bad = bad.filter_map(|part| part.find('%').map(|at| &part[at..]));
    if let Some(escape) = bad.next() {
        let escape: String = escape.chars().take(3).collect();
        return Err(format!("invalid URL escape {escape:?}"));
    }
    // Go accepts these in a name, too, and leaves them to the resolver.
    let known = |c: char| c.is_alphanumeric() || "-_.~:[]!$&'()*+,;=<>\"".contains(c);
    match host
        .replacen("%25", "", usize::from(zone.is_some()))
        .chars()
        .find(|&c| !known(c))
    {
        Some(c) => Err(format!(
            "invalid character {:?} in host name",
            c.to_string()
        )),
        None => Ok(()),
    }
}

/// Splits `host:port` or `[address]:port`. A bare IPv6 address has too many colons.
fn split_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        let (address, zone) = match inner.split_once("%25") {
            Some((address, zone)) => (address, Some(zone)),
            None => (inner, None),
        };
        let is_good = address.parse::<std::net::Ipv6Addr>().is_ok() && zone != Some("");
        return is_good.then_some((inner, port));
    }
    (!host.contains([':', '[', ']'])).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left: the given text. Right: how it is shown again, or the error in the exact words of the reference (the last
    /// group is ours).
    const TABLE: &[(&str, &str)] = &[
        ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
        (" https://example.com:2379 ", "https://example.com:2379"),
        ("HTTP://Host_1:80", "http://Host_1:80"),
        ("http://[::1]:2379", "http://[::1]:2379"),
        ("http://:2379", "http://:2379"),
        ("unix://sock:1", "unix://sock:1"),
        ("UNIX:///run/a.sock", "unix:///run/a.sock"),
        ("http://*:1", "http://*:1"),
        ("http://(a;b)=<c>+$&'!\":1", "http://(a;b)=<c>+$&'!\":1"),
        (
            "http://a:1,http://b:1",
            "URL address does not have the form \"host:port\": http://a:1,http://b:1",
        ),
        (
            "http://[fe80::1%25eth0]:2380",
            "http://[fe80::1%25eth0]:2380",
        ),
        (
            "http://[fe80::1%eth0]:2380",
            "parse \"http://[fe80::1%eth0]:2380\": invalid URL escape \"%et\"",
        ),
        (
            "http://[fe80::1%25]:2380",
            "URL address does not have the form \"host:port\": http://[fe80::1%25]:2380",
        ),
        (
            "http://fe80::1%25eth0:2380",
            "parse \"http://fe80::1%25eth0:2380\": invalid URL escape \"%25\"",
        ),
        (
            "unix:///run/",
            "URL address does not have the form \"host:port\": unix:///run/",
        ),
        ("", "URL scheme must be http, https, unix, or unixs: "),
        ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
        (
            "ftp://127.0.0.1:2379",
            "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:2379",
        ),
        (
            "http://127.0.0.1",
            "URL address does not have the form \"host:port\": http://127.0.0.1",
        ),
        (
            "http://127.0.0.1:1:2",
            "URL address does not have the form \"host:port\": http://127.0.0.1:1:2",
        ),
        (
            "http:127.0.0.1:1",
            "URL address does not have the form \"host:port\": http:127.0.0.1:1",
        ),
        (
            "http://[::1]",
            "URL address does not have the form \"host:port\": http://[::1]",
        ),
        (
            "http://127.0.0.1:2379/",
            "URL must not contain a path: http://127.0.0.1:2379/",
        ),
        (
            "HTTP://127.0.0.1:1/x",
            "URL must not contain a path: HTTP://127.0.0.1:1/x",
        ),
        (
            "127.0.0.1:2379",
            "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
        ),
        (
            "://127.0.0.1:1",
            "parse \"://127.0.0.1:1\": missing protocol scheme",
        ),
        (
            "http://127.0.0.1:abc",
            "parse \"http://127.0.0.1:abc\": invalid port \":abc\" after host",
        ),
        (
            "http://[::1:abc",
            "parse \"http://[::1:abc\": missing ']' in host",
        ),
        (
            "http://a b:1",
            "parse \"http://a b:1\": invalid character \" \" in host name",
        ),
        (
            "http://a%zz:1",
            "parse \"http://a%zz:1\": invalid URL escape \"%zz\"",
        ),
        (
            "http://a\u{7}:1",
            "parse \"http://a\\a:1\": net/url: invalid control character in URL",
        ),
        (
            "http://127.0.0.1:99999",
            "URL must be scheme://host:port with a port up to 65535, and nothing more: http://127.0.0.1:99999",
        ),
        (
            "http://127.0.0.1:",
            "URL must be scheme://host:port with a port up to 65535, and nothing more: http://127.0.0.1:",
        ),
        (
            "http://u:p@h:1",
            "URL must be scheme://host:port with a port up to 65535, and nothing more: http://u:p@h:1",
        ),
        (
            "http://h:1?x=y",
            "URL must be scheme://host:port with a port up to 65535, and nothing more: http://h:1?x=y",
        ),
    ];

    #[test]
    fn each_url_is_taken_or_refused_in_the_words_of_the_reference() {
        for (given, expected) in TABLE {
            let got = match Url::parse(given) {
                Ok(url) => url.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(&got, expected, "given {given:?}");
        }
    }

    #[test]
    fn a_url_in_parts() {
        let url = Url::parse("http://[::1]:2379").unwrap();
        assert_eq!(
            (url.host(), url.port(), url.authority()),
            ("::1", 2379, "[::1]:2379")
        );
        assert_eq!(url.listen_address(), Some("[::1]:2379".parse().unwrap()));
        let local = Url::parse("http://localhost:0").unwrap();
        assert_eq!(local.listen_address(), Some("127.0.0.1:0".parse().unwrap()));
        let mapped = Url::parse("http://[::ffff:0.0.0.0]:1").unwrap();
        assert_eq!(mapped.listen_address(), Some("0.0.0.0:1".parse().unwrap()));
        assert_eq!(
            Url::parse("http://example.com:1").unwrap().listen_address(),
            None
        );
    }

    #[test]
    fn a_zone_names_an_interface_of_this_machine() {
        let url = Url::parse("http://[fe80::1%25lo]:2380").unwrap();
        assert_eq!((url.host(), url.port()), ("fe80::1%lo", 2380));
        assert_eq!(url.authority(), "[fe80::1%25lo]:2380");
        assert_eq!(url.host_header(), "[fe80::1]:2380");
        let Some(SocketAddr::V6(address)) = url.listen_address() else {
            panic!("an IPv6 address")
        };
        assert!(address.scope_id() > 0, "{address:?}");
        assert_eq!(
            Url::parse("http://[fe80::1%25none]:1")
                .unwrap()
                .listen_address(),
            None
        );
    }

    #[test]
    fn a_unix_socket_has_a_path() {
        let path = |url: &str| Url::parse(url).unwrap().socket_path().map(Path::to_owned);
        assert_eq!(path("unix://localhost:2379"), Some("localhost:2379".into()));
        assert_eq!(path("unix:///run/a.sock"), Some("/run/a.sock".into()));
        assert_eq!(path("http://localhost:2379"), None);
        assert_eq!(
            Url::parse("unix://127.0.0.1:2379")
                .unwrap()
                .listen_address(),
            None
        );
    }

    #[test]
    fn a_list_is_sorted_and_not_empty() {
        let urls = Url::parse_list("http://b:2, http://a:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:2");
        assert_eq!(Url::parse_all::<&str>([]), Err(UrlError::Empty));
        assert!(Url::parse_members(["unix://a:1", "http://a:1"]).is_ok());
        assert_eq!(
            Url::parse_members(["http://a:1", "unix:///run/a"]),
            Err(UrlError::HostPort("unix:///run/a".to_owned()))
        );
        assert_eq!(
            Url::parse_list("http://a:1,"),
            Err(UrlError::Scheme(String::new()))
        );
    }

    /// No text makes the parser panic. This tries every short mixture of characters with a meaning.
    #[test]
    fn nothing_panics() {
        let alphabet = [
            "h", "http", ":", "/", "[", "]", "@", "?", "%", "1", "é", " ",
        ];
        for n in 0..alphabet.len().pow(5) {
            let text: String = (0..5)
                .map(|digit| alphabet[n / alphabet.len().pow(digit) % alphabet.len()])
                .collect();
            if let Ok(url) = Url::parse(&text) {
                assert_eq!(
                    Url::parse(url.as_str()).as_ref(),
                    Ok(&url),
                    "not stable: {text:?}"
                );
            }
        }
    }
}
