//! The queries of this server's own endpoints below `/edgetcd/`.

use super::target::hex;

/// A query, decoded name by name.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(&'a [u8]);

impl<'a> Query<'a> {
    /// `query` as [`Request::query`](crate::http1::Request::query) returns it.
    pub fn new(query: Option<&'a [u8]>) -> Query<'a> {
        Query(query.unwrap_or_default())
    }

    /// The first value with this name, which must need no escape. An incomplete escape stays as it is, and `+` is a
    /// space, as in forms.
    pub fn first(&self, name: &str) -> Option<Vec<u8>> {
        self.all(name).next()
    }

    /// All values with this name, in their order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = Vec<u8>> {
        let pairs = self.0.split(|&byte| byte == b'&');
        pairs.filter_map(move |pair| {
            let end = pair
                .iter()
                .position(|&byte| byte == b'=')
                .unwrap_or(pair.len());
            let (found, value) = pair.split_at(end);
            (found == name.as_bytes()).then(|| decode(value.get(1..).unwrap_or_default()))
        })
    }

    /// Whether the value is `true`. No value and `false` mean no.
    ///
    /// # Errors
    /// A message for the client if it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, String> {
        match self.first(name).as_deref() {
            None | Some(b"false") => Ok(false),
            Some(b"true") => Ok(true),
            Some(_) => Err(format!("{name} is true or false")),
        }
    }

    /// A number from `least` to `most`.
    ///
    /// # Errors
    /// A message for the client if it is something else.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        let Some(text) = self.first(name) else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(&text)
            .ok()
            .filter(|text| !text.starts_with('+'));
        let number = digits.and_then(|digits| digits.parse().ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("{name} is a number from {least} to {most}")),
        }
    }
}

fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        decoded.push(match escaped {
            Some((high, low)) => high << 4 | low,
            None if byte == b'+' => b' ',
            None => byte,
        });
        rest = &after[if escaped.is_some() { 2 } else { 0 }..];
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Query::new(Some(b"a=%2fx+y%zz%4&b&c=&a=2&d=%"));
        assert_eq!(query.first("a").as_deref(), Some(&b"/x y%zz%4"[..]));
        assert_eq!(query.first("b").as_deref(), Some(&b""[..]));
        assert_eq!(query.first("c").as_deref(), Some(&b""[..]));
        assert_eq!(query.first("d").as_deref(), Some(&b"%"[..]));
        assert_eq!(query.first("e"), None);
        assert_eq!(Query::new(None).first("a"), None);
    }

    #[test]
    fn numbers_have_limits() {
        let number = |text: &str| Query::new(Some(text.as_bytes())).number("n", 1, 10);
        assert_eq!(number(""), Ok(None));
        assert_eq!(number("n=10"), Ok(Some(10)));
        for wrong in [
            "n=",
            "n=0",
            "n=11",
            "n=+1",
            "n=-1",
            "n=x",
            "n=99999999999999999999",
        ] {
            assert_eq!(
                number(wrong),
                Err("n is a number from 1 to 10".to_owned()),
                "{wrong}"
            );
        }
    }

    #[test]
    fn flags_are_true_or_false() {
        let flag = |text: &str| Query::new(Some(text.as_bytes())).flag("f");
        assert_eq!(
            (flag("f=true"), flag("f=false"), flag("")),
            (Ok(true), Ok(false), Ok(false))
        );
        assert!(flag("f=1").is_err() && flag("f").is_err());
    }
}
