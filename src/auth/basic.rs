//! The `Authorization` header, as Go reads it: HTTP Basic (RFC 7617).

/// A name and a password. The password appears in no log line and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub name: String,
    /// The password's bytes.
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the credentials of {:?}", self.name)
    }
}

/// Reads the value of the header. `None` if it is not `Basic` with a name, a colon and a password in base64, or if the
/// name is not UTF-8, because no user has such a name.
pub fn parse(header: &[u8]) -> Option<Credentials> {
    const SCHEME: &[u8] = b"Basic ";
    let (scheme, encoded) = header.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let mut name = decode(encoded)?;
    let colon = name.iter().position(|&byte| byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    let name = String::from_utf8(name).ok()?;
    Some(Credentials { name, password })
}

/// Decodes base64 with padding (RFC 4648 §4).
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers of the reference to the same headers.
    #[test]
    fn headers_are_read_as_the_reference_reads_them() {
        let table = [
            ("Basic cm9vdDpw", Some(("root", "p"))),
            ("basic cm9vdDpw", Some(("root", "p"))),
            ("BASIC cm9vdDpwcA==", Some(("root", "pp"))),
            ("Basic cm9vdDo=", Some(("root", ""))),
            ("Basic Og==", Some(("", ""))),
            ("Basic YTpiOmM=", Some(("a", "b:c"))),
            ("Basic  cm9vdDpw", None),
            ("Basic cm9v dDpw", None),
            ("Basic cm9vdDpw=", None),
            ("Basic cm9vdDpwcA", None),
            ("Basic cm9vdHA=", None),
            ("Basic", None),
            ("Basic ", None),
            ("Bearer cm9vdDpw", None),
            ("", None),
        ];
        for (header, wanted) in table {
            let found = parse(header.as_bytes());
            let found = found.map(|found| (found.name, found.password));
            let wanted = wanted.map(|(name, password)| (name.to_owned(), password.into()));
            assert_eq!(found, wanted, "{header:?}");
        }
    }
}
