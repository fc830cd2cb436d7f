//! The names of cipher suites, as `--cipher-suites` takes them.

use super::Error;

/// The names of all supported suites: those of TLS 1.2 and, from `TLS_AES_128_GCM_SHA256` on, those of TLS 1.3.
pub const SUITES: [&str; 9] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// Checks the names of a comma-separated list and returns them in the form of [`SUITES`]. The reference also has two
/// names without their last word, `_SHA256`.
///
/// # Errors
/// A name that is not in the list, in the reference's words. The hint lists all names.
pub fn check_suites(list: &str) -> Result<Vec<String>, Error> {
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names.map(check_suite).collect()
}

fn check_suite(name: &str) -> Result<String, Error> {
    let long = format!("{name}_SHA256");
    let is_it = |suite: &&&str| **suite == name || (name.ends_with("_POLY1305") && **suite == long);
    match SUITES.iter().find(is_it) {
        Some(suite) => Ok((*suite).to_owned()),
        None => Err(Error::new(
            format!("unexpected TLS cipher suite {name:?}"),
            format!("type one or more of --cipher-suites={}", SUITES.join(",")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_suite_is_refused_with_the_list() {
        let given = "TLS_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305";
        let names = check_suites(given).expect("known");
        assert_eq!(names, [SUITES[6], SUITES[5]]);
        let error = check_suites("TLS_RSA_WITH_RC4_128_SHA").expect_err("unknown");
        assert_eq!(
            error.message,
            "unexpected TLS cipher suite \"TLS_RSA_WITH_RC4_128_SHA\""
        );
        assert!(SUITES.iter().all(|suite| error.hint.contains(suite)));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn the_list_is_that_of_rustls() {
        let rustls = rustls::crypto::ring::ALL_CIPHER_SUITES.iter();
        let mut theirs: Vec<_> = rustls
            .map(|suite| super::super::server::name(*suite))
            .collect();
        let mut ours = SUITES.map(str::to_owned).to_vec();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs);
    }
}
