//! The page that every member serves to browsers: the cluster, its keys and its health.
//!
//! One self-contained document: plain JavaScript and CSS, assembled from the files of this folder when the program is
//! built (`build.rs`). It loads nothing from elsewhere and works offline. The program holds it compressed, and browsers
//! get it so. The text has no comments and no indentation, and is otherwise what a person has written.
//!
//! | file | purpose |
//! |---|---|
//! | `head.html`, `body.html`, `page.css` | the frame of the document |
//! | `dom.js`, `format.js`, `http.js` | elements without markup; numbers, JSON, YAML and differences as text; requests |
//! | `cluster_model.js` | the state of a cluster, computed from trace records. Knows no document and no clock |
//! | `cluster_view.js` | draws that state: members in a ring, messages, logs |
//! | `cluster_words.js` | a trace record as a sentence |
//! | `cluster_live.js` | reads status and trace of the running members |
//! | `cluster_page.js` | the view of them: the drawing, its controls, and what happened |
//! | `keys_*.js` | the tree of keys, one key, many keys |
//! | `health.js` | plots of `/metrics`, with advice |
//! | `pack.rs`, `unpack.rs`, `classes.rs` | make the document small when the program is built; read it again |
//! | `main.js` | the three views, sign-in, read-only mode; starts everything |
//!
//! # Rules
//!
//! Keys and values reach the document only as text (`textContent`, `value`), never as markup. The policy that comes with
//! the page (`Content-Security-Policy`) forbids scripts, styles and requests that are not the page's own. A hidden page
//! sends no requests.

mod classes;
#[cfg(test)]
mod pack;
mod unpack;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const HEAD: &str = include_str!("head.html");

/// The rest of the document, as `build.rs` has packed it.
static REST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/page.deflate"));

/// The document. `origins` are the other addresses to which its policy admits requests, so that it tries no others.
/// They must need no escape in an attribute.
pub fn html(origins: &str) -> String {
    format!("{}{}", head(origins), unpack::inflate(REST))
}

fn head(origins: &str) -> String {
    format!("{HEAD}<meta name=\"members\" content=\"{origins}\">\n")
}

/// The same document in the form of `Content-Encoding: gzip`: the head as it is, and the rest as it is packed. None if
/// the head is too long for a single block.
pub fn gzip(origins: &str) -> Option<Vec<u8>> {
    let head = head(origins);
    let length = u16::try_from(head.len()).ok()?;
    let page = page();
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    // A block that is stored.
    bytes.push(0);
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend(head.as_bytes());
    bytes.extend(REST);
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(head.as_bytes());
    checksum.combine(&page.checksum);
    bytes.extend(checksum.finalize().to_le_bytes());
    bytes.extend((head.len() as u32 + page.rest_bytes).to_le_bytes());
    Some(bytes)
}

/// What a response with the document needs to say about it.
pub struct Page {
    /// Changes with the document, apart from the origins.
    pub tag: String,
    /// `sha256-…` of the script, for the policy.
    pub script_hash: String,
    /// `sha256-…` of the style.
    pub style_hash: String,
    /// Of the rest of the document, after its head.
    checksum: crc32fast::Hasher,
    rest_bytes: u32,
}

/// Computed when it is first needed.
pub fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| {
        let rest = unpack::inflate(REST);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(rest.as_bytes());
        Page {
            tag: hash(&format!("{HEAD}{rest}"))["sha256-".len()..].to_owned(),
            script_hash: hash(between(&rest, "<script>", "</script>")),
            style_hash: hash(between(&rest, "<style>", "</style>")),
            checksum,
            rest_bytes: rest.len() as u32,
        }
    });
    &PAGE
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, after) = text.split_once(from).expect("the document has it");
    after.split_once(to).expect("the document has it").0
}

/// `sha256-…` of a script or a style, as a policy names it.
pub fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document is sent with each visit, and is a part of the program.
    const SENT_BYTES_MAX: usize = 40_000;

    #[test]
    fn the_document_loads_nothing_and_is_small() {
        let html = html("http://a:1 http://b:1");
        let sent = gzip("http://a:1 http://b:1").expect("a short head");
        assert!(sent.len() <= SENT_BYTES_MAX, "{} bytes", sent.len());
        let script_ends = html.matches("</script").count();
        assert_eq!((script_ends, html.matches("</style").count()), (1, 1));
        for loader in [
            "<link rel=\"stylesheet",
            " src=",
            "@import",
            "url(",
            "import(",
            "eval(",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
        ] {
            assert!(!html.contains(loader), "{loader}");
        }
    }

    #[test]
    fn the_document_is_all_of_its_files() {
        let html = html("");
        for name in pack::SCRIPTS {
            let path = format!("{}/src/page/{name}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).expect("a file of this folder");
            let code = |line: &&str| !line.is_empty() && !line.starts_with(['/', '*']);
            let last = text.lines().map(str::trim).rfind(code).expect("code");
            assert!(html.contains(last), "{name}: {last}");
        }
        assert!(!html.contains("\n//") && !html.contains("\n/*") && !html.contains("\n "));
    }

    #[test]
    fn what_is_stripped_is_no_code() {
        let text = "// a\n\n  a(); // b\n  /** c\n   *  d\n   */\n  /* e */\n  \"/* f\";\n";
        assert_eq!(pack::strip(text), "a(); // b\n\"/* f\";\n");
    }

    #[test]
    #[should_panic(expected = "code after a comment: end */ b();")]
    fn code_after_a_comment_is_not_lost() {
        pack::strip("/* a\nend */ b();\n");
    }

    #[test]
    fn what_is_packed_is_read_again() {
        let mut noise = String::new();
        for number in 0..40_000_u64 {
            let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58;
            noise.push(char::from(b' ' + bits as u8));
        }
        let far = format!("abcdefgh{}abcdefgh", "x".repeat(32_760));
        for text in [
            "",
            "a",
            "ab",
            "aaaaaaaaaaaa",
            "äöü–…≥",
            &"ab".repeat(2000),
            &far,
            &noise,
        ] {
            let packed = pack::deflate(text.as_bytes());
            assert_eq!(unpack::inflate(&packed), text);
        }
    }
}
