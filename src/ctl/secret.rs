//! Passwords on their way to the server.

use std::fmt;

use super::base64::base64;

/// A text that must not appear in an error, in the output of `--debug`, or in the `Debug` form of a type.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The value of the header `Authorization` for `USER:PASSWORD`.
    pub fn basic(user_and_password: &[u8]) -> Secret {
        Secret(format!("Basic {}", base64(user_and_password)))
    }

    /// The text itself, for a request.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_hides_the_text() {
        let secret = Secret::basic(b"root:sesame");
        assert_eq!(secret.expose(), "Basic cm9vdDpzZXNhbWU=");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
