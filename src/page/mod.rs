//! The page that every member serves to browsers: the cluster, its keys and its health.
//!
//! One self-contained document: plain JavaScript and CSS, assembled from the files of this folder when the program is
//! built. It loads nothing from elsewhere and works offline. All of it is text that a person can read; there is no
//! build tool.
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
//! | `main.js` | the three views, sign-in, read-only mode; starts everything |
//!
//! The lab draws with the same files ([`CLUSTER_MODEL_JS`], [`CLUSTER_VIEW_JS`]).
//!
//! # Rules
//!
//! Keys and values reach the document only as text (`textContent`, `value`), never as markup. The policy that comes with
//! the page (`Content-Security-Policy`) forbids scripts, styles and requests that are not the page's own. A hidden page
//! sends no requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Elements without markup, for all scripts that draw.
pub const DOM_JS: &str = include_str!("dom.js");
/// The state of a cluster, computed from trace records.
pub const CLUSTER_MODEL_JS: &str = include_str!("cluster_model.js");
/// Draws a cluster. Needs [`DOM_JS`] and the styles.
pub const CLUSTER_VIEW_JS: &str = include_str!("cluster_view.js");
/// The styles of the page.
pub const STYLE: &str = include_str!("page.css");

macro_rules! script {
    () => {
        concat!(
            "\"use strict\";\n",
            include_str!("dom.js"),
            include_str!("format.js"),
            include_str!("http.js"),
            include_str!("cluster_model.js"),
            include_str!("cluster_view.js"),
            include_str!("cluster_words.js"),
            include_str!("cluster_live.js"),
            include_str!("cluster_page.js"),
            include_str!("keys_tree.js"),
            include_str!("keys_value.js"),
            include_str!("keys_many.js"),
            include_str!("health.js"),
            include_str!("main.js"),
        )
    };
}

const HEAD: &str = include_str!("head.html");
const REST: &str = concat!(
    "<style>",
    include_str!("page.css"),
    "</style>\n",
    include_str!("body.html"),
    "<script>",
    script!(),
    "</script>\n</html>\n",
);

/// The document. `origins` are the other addresses to which its policy admits requests, so that it tries no others.
/// They must need no escape in an attribute.
pub fn html(origins: &str) -> String {
    format!("{HEAD}<meta name=\"members\" content=\"{origins}\">\n{REST}")
}

/// What a response with the document needs to say about it.
pub struct Page {
    /// Changes with the document, apart from the origins.
    pub tag: String,
    /// `sha256-…` of the script, for the policy.
    pub script_hash: String,
    /// `sha256-…` of the style.
    pub style_hash: String,
}

/// Computed when it is first needed.
pub fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
        tag: hash(&html(""))["sha256-".len()..].to_owned(),
        script_hash: hash(script!()),
        style_hash: hash(STYLE),
    });
    &PAGE
}

/// `sha256-…` of a script or a style, as a policy names it.
pub fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document is sent with each visit, and is a part of the program.
    const HTML_BYTES_MAX: usize = 160 << 10;

    #[test]
    fn the_document_loads_nothing_and_is_small() {
        let html = html("http://a:1 http://b:1");
        assert!(html.len() <= HTML_BYTES_MAX, "{} bytes", html.len());
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
}
