//! `/`: the page for browsers ([`crate::page`]). A request that does not accept `text/html` gets 404, as in the reference.
//!
//! The page is the same for everybody, and contains no data. It needs no credentials; the requests that it makes do.
//! Its `Content-Security-Policy` admits only its own script and style, by their hashes, and requests to this member
//! and to the client URLs of the other members.

use super::Api;
use super::answer;
use super::cors::Grant;
use crate::engine::members::Members;
use crate::http1::{Answer, Reply, Request};
use crate::page;

/// Sends the page to a browser.
pub fn handle(api: &Api, request: &Request<'_>, grant: &Grant, reply: Reply<'_>) {
    let is_read = matches!(request.method(), "GET" | "HEAD");
    let accepts = |header, what| accepts(request.header(header).unwrap_or_default(), what);
    if !is_read || !accepts("accept", b"text/html") {
        return reply.send(answer::not_found(grant));
    }
    let page = page::page();
    let origins = origins(&api.replica.status().members());
    let packed = accepts("accept-encoding", b"gzip").then(|| page::gzip(&origins));
    let packed = packed.flatten();
    let etag = format!(
        "\"{}-{:08x}{}\"",
        page.tag,
        crc32fast::hash(origins.as_bytes()),
        if packed.is_some() { "-gzip" } else { "" }
    );
    let is_known = request.header("if-none-match") == Some(etag.as_bytes());
    let answer = Answer::new(if is_known { 304 } else { 200 })
        .header("Content-Security-Policy", policy(page, &origins))
        .header("ETag", etag)
        // The policy names the members, so the browser asks each time, and gets 304.
        .header("Cache-Control", "no-cache")
        .header("Vary", "Accept, Accept-Encoding")
        .header("X-Content-Type-Options", "nosniff")
        .header("Referrer-Policy", "no-referrer")
        .header("Cross-Origin-Opener-Policy", "same-origin");
    let answer = grant.onto(answer);
    if is_known {
        return reply.send(answer);
    }
    let answer = answer.header("Content-Type", "text/html; charset=utf-8");
    reply.send(match packed {
        Some(bytes) => answer.header("Content-Encoding", "gzip").body(bytes),
        None => answer.body(page::html(&origins)),
    });
}

/// Whether the header names this itself. Clients of the API accept nothing, or `*/*`.
fn accepts(accept: &[u8], what: &[u8]) -> bool {
    let mut ranges = accept.split(|&byte| byte == b',');
    ranges.any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let is_it = parts
            .next()
            .is_some_and(|kind| kind.eq_ignore_ascii_case(what));
        is_it && !parts.any(|part| matches!(part, b"q=0" | b"q=0.0" | b"q=0.00" | b"q=0.000"))
    })
}

fn policy(page: &page::Page, origins: &str) -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; connect-src 'self' {origins}",
        page.script_hash, page.style_hash
    )
}

/// The client URLs of the members, separated by spaces. A member publishes its own URLs, so nothing is copied that could
/// be more than an origin.
fn origins(members: &Members) -> String {
    let is_origin = |url: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]/".contains(&byte);
        url.starts_with("http") && url.bytes().all(is_plain)
    };
    let urls = members.iter().flat_map(|member| &member.client_urls);
    let urls = urls.map(String::as_str).filter(is_origin);
    let origins: Vec<&str> = urls.map(|url| url.trim_end_matches('/')).collect();
    origins.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_html_by_name_gets_the_page() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for accept in [browser, "TEXT/HTML", "a/b, text/html ; q=0.1"] {
            assert!(accepts(accept.as_bytes(), b"text/html"), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/*",
            "text/html5",
            "text/html;q=0",
            "application/json",
        ] {
            assert!(!accepts(accept.as_bytes(), b"text/html"), "{accept}");
        }
    }
}
