//! The parameters of a key-space request, checked in the contract's order (spec §4.2, §4.3).

use super::form::Form;
use crate::go;
use crate::tree::ApiError;
use crate::tree::error::{
    INDEX_NOT_A_NUMBER, INVALID_FIELD, PREV_VALUE_REQUIRED, TTL_NOT_A_NUMBER,
    TTL_REQUIRED_ON_REFRESH, VALUE_ON_REFRESH,
};

/// Parameters that passed every check.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    /// Any bytes. `None` if it is not given; a write then uses the empty value.
    pub value: Option<&'a [u8]>,
    /// Seconds.
    pub ttl: Option<u64>,
    /// PUT and POST create a directory; DELETE may remove an empty one.
    pub dir: bool,
    /// GET lists, watches, and DELETE removes the whole subtree.
    pub recursive: bool,
    /// Only checked: listings are always sorted.
    pub sorted: bool,
    /// GET is a quorum read (spec §4.4). Then `wait` is ignored.
    pub quorum: bool,
    /// GET waits for an event (spec §9). An error with any other method.
    pub wait: bool,
    /// With `wait`: many events in one response, until the client disconnects.
    pub stream: bool,
    /// Keeps the value and sets a new `ttl`, which is required. `value` is not allowed.
    pub refresh: bool,
    /// The response to a write contains only its action. A delete gets the full response nevertheless.
    pub no_value_on_success: bool,
    /// 0 means from now on.
    pub wait_index: u64,
    /// 0 means no condition.
    pub prev_index: u64,
    /// The write is done only if this is the present value (spec §6). Never empty.
    pub prev_value: Option<&'a [u8]>,
    /// PUT: `true` only updates, `false` only creates; `None` does either.
    pub prev_exist: Option<bool>,
}

impl<'a> Params<'a> {
    /// Checks all parameters for every method, also those that have no effect there.
    ///
    /// # Errors
    /// The first failure in the order of spec §4.3.
    pub fn check(form: &'a Form<'_>, is_get: bool) -> Result<Params<'a>, ApiError> {
        let mut params = Params {
            value: form.first("value"),
            prev_index: index(form, "prevIndex")?,
            wait_index: index(form, "waitIndex")?,
            recursive: boolean(form, "recursive")?,
            sorted: boolean(form, "sorted")?,
            wait: boolean(form, "wait")?,
            dir: boolean(form, "dir")?,
            quorum: boolean(form, "quorum")?,
            stream: boolean(form, "stream")?,
            ..Params::default()
        };
        if params.wait && !is_get {
            return Err(ApiError::parameter(
                INVALID_FIELD,
                "\"wait\" can only be used with GET requests",
            ));
        }
        params.prev_value = form.first("prevValue");
        if params.prev_value.is_some_and(<[u8]>::is_empty) {
            return Err(ApiError::parameter(
                PREV_VALUE_REQUIRED,
                "\"prevValue\" cannot be empty",
            ));
        }
        params.no_value_on_success = boolean(form, "noValueOnSuccess")?;
        params.ttl = ttl(form)?;
        params.prev_exist = unquoted_boolean(form, "prevExist")?;
        params.refresh = unquoted_boolean(form, "refresh")?.unwrap_or(false);
        if params.refresh && params.value.is_some_and(|value| !value.is_empty()) {
            return Err(ApiError::parameter(
                VALUE_ON_REFRESH,
                "A value was provided on a refresh",
            ));
        }
        if params.refresh && params.ttl.is_none() {
            return Err(ApiError::parameter(
                TTL_REQUIRED_ON_REFRESH,
                "No TTL value set",
            ));
        }
        Ok(params)
    }
}

/// Decimal digits up to 2^64-1; 0 if absent.
fn index(form: &Form<'_>, name: &str) -> Result<u64, ApiError> {
    let Some(text) = form.first(name) else {
        return Ok(0);
    };
    digits(text).ok_or_else(|| {
        ApiError::parameter(INDEX_NOT_A_NUMBER, format!("invalid value for \"{name}\""))
    })
}

/// Like an index, but the empty value means "not given".
fn ttl(form: &Form<'_>) -> Result<Option<u64>, ApiError> {
    match form.first("ttl") {
        None | Some(b"") => Ok(None),
        Some(text) => digits(text)
            .map(Some)
            .ok_or_else(|| ApiError::parameter(TTL_NOT_A_NUMBER, "invalid value for \"ttl\"")),
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    // Skips leading zeros in large steps: one by one, megabytes of them would take milliseconds.
    let zeros = text
        .chunks_exact(64)
        .take_while(|chunk| **chunk == [b'0'; 64]);
    let zeros = zeros.count() * 64;
    text[zeros..].iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn boolean(form: &Form<'_>, name: &str) -> Result<bool, ApiError> {
    let Some(text) = form.first(name) else {
        return Ok(false);
    };
    go::boolean(text)
        .ok_or_else(|| ApiError::parameter(INVALID_FIELD, format!("invalid value for \"{name}\"")))
}

/// Two of the booleans are not quoted in their error messages.
fn unquoted_boolean(form: &Form<'_>, name: &str) -> Result<Option<bool>, ApiError> {
    let Some(text) = form.first(name) else {
        return Ok(None);
    };
    go::boolean(text)
        .map(Some)
        .ok_or_else(|| ApiError::parameter(INVALID_FIELD, format!("invalid value for {name}")))
}

#[cfg(test)]
mod tests {
    use super::super::form::Body;
    use super::*;

    fn cause(query: &str, is_get: bool) -> String {
        let form = Form::parse(Some(query.as_bytes()), Body::Ignored).expect("the query parses");
        match Params::check(&form, is_get) {
            Ok(_) => "ok".into(),
            Err(error) => {
                let mut body = Vec::new();
                error.render(&mut body);
                String::from_utf8_lossy(&body).into_owned()
            }
        }
    }

    #[test]
    fn the_first_failure_in_the_contracts_order_is_told() {
        // Each query also fails every check below its own.
        let checks = [
            ("prevIndex=x", "203"),
            ("waitIndex=-1", "203"),
            ("recursive=x", "209"),
            ("sorted=", "209"),
            ("wait=x", "209"),
            ("dir=x", "209"),
            ("quorum=x", "209"),
            ("stream=x", "209"),
            ("prevValue=", "201"),
            ("noValueOnSuccess=x", "209"),
            ("ttl=x", "202"),
            ("prevExist=x", "209"),
            ("refresh=x", "209"),
        ];
        for at in 0..checks.len() {
            let query: Vec<&str> = checks[at..].iter().map(|check| check.0).collect();
            let told = cause(&query.join("&"), true);
            let (pair, code) = checks[at];
            let name = pair.split('=').next().unwrap_or_default();
            assert!(
                told.contains(&format!("\"errorCode\":{code}")) && told.contains(name),
                "{pair}: {told}"
            );
        }
    }

    #[test]
    fn numbers_booleans_and_refresh() {
        let table = [
            (
                "prevIndex=18446744073709551615&waitIndex=007&ttl=&wait=true",
                "ok",
            ),
            ("prevIndex=18446744073709551616", "203"),
            ("prevIndex=", "203"),
            ("ttl=18446744073709551616", "202"),
            ("ttl=+1", "202"),
            (&format!("ttl={}1", "0".repeat(1000)), "ok"),
            (&format!("ttl={}", "0".repeat(1024)), "ok"),
            (&format!("ttl={}x", "0".repeat(1024)), "202"),
            ("dir=yes", "209"),
            ("dir=T&sorted=FALSE&recursive=1", "ok"),
            ("refresh=true&value=&ttl=5", "ok"),
            ("refresh=true&value=a&ttl=5", "211"),
            ("refresh=true&ttl=", "212"),
            ("refresh=false&value=a", "ok"),
        ];
        for (query, wanted) in table {
            assert!(
                cause(query, true).contains(wanted),
                "{query}: {}",
                cause(query, true)
            );
        }
        assert!(cause("wait=true", false).contains("can only be used with GET"));
        assert_eq!(cause("wait=false", false), "ok");
    }
}
