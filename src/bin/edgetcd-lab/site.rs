//! The page and its endpoints.
//!
//! | request | response |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /cluster` | the nodes and the links as JSON |
//! | `POST /act` | performs the act in the body, such as `kill 1`; then as `/cluster` |
//! | `GET /recording` | the newest records of all nodes |
//!
//! Only the page of this address may act, and programs that are not browsers. A web page of another origin can make a
//! browser send requests to this machine: they are recognized by their `Origin`, by a `Host` that is only a name for this
//! machine (DNS rebinding), or by `Sec-Fetch-Site`, which browsers send with requests that have no `Origin`. Another page
//! may only link to this one.

use crate::recording::Recorder;
use edgetcd::http1::{Answer, BodyState, Handler, Limits, Reply, Request, Ticket};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;

const CSS: &str = concat!(
    include_str!("../../page/page.css"),
    include_str!("page/cluster.css")
);

/// The drawing of the node's page, and handles.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("../../page/dom.js"),
    include_str!("../../page/http.js"),
    include_str!("../../page/cluster_model.js"),
    include_str!("../../page/cluster_view.js"),
    include_str!("../../page/cluster_words.js"),
    include_str!("../../page/cluster_live.js"),
    include_str!("../../page/cluster_page.js"),
    include_str!("page/cluster.js"),
);

/// An act is a few words.
const ACT_BYTES_MAX: usize = 1 << 10;
/// A browser opens six at most.
const CONNECTIONS_MAX: usize = 64;

/// The limits of the server that serves the site.
pub fn limits() -> Limits {
    Limits {
        body_bytes: ACT_BYTES_MAX,
        connections: CONNECTIONS_MAX,
        ..Limits::default()
    }
}

/// A request to the program.
pub enum Event {
    /// Tell the state of the cluster.
    State(Ticket),
    /// Perform this act, then send the state.
    Act(String, Ticket),
    /// The cluster has added this member, counted from 0, in place of the one without data, and has given it an id. Start
    /// it, then send the state.
    Added(usize, Result<String, String>, Ticket),
    /// End.
    Stop,
}

/// Answers requests. What needs the nodes is passed to the thread that owns them.
pub struct Site {
    host: String,
    document: String,
    policy: String,
    recorder: Recorder,
    events: Sender<Event>,
}

impl Site {
    /// The site at this address, for nodes with these client URLs.
    pub fn new(
        address: SocketAddr,
        clients: &[String],
        recorder: Recorder,
        events: Sender<Event>,
    ) -> Site {
        let origins = clients.join(" ");
        let (script, style) = (edgetcd::page::hash(SCRIPT), edgetcd::page::hash(CSS));
        Site {
            host: address.to_string(),
            document: format!(
                "{}<meta name=\"members\" content=\"{origins}\">\n<style>{CSS}</style>\n{}<script>{SCRIPT}</script>\n</html>\n",
                include_str!("../../page/head.html"),
                include_str!("page/cluster.html"),
            ),
            policy: format!(
                "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; \
                 form-action 'none'; frame-ancestors 'none'; connect-src 'self' {origins}"
            ),
            recorder,
            events,
        }
    }

    /// Why the request is not answered.
    fn refusal(&self, request: &Request<'_>) -> Option<Answer> {
        let host = &self.host;
        let refused = |why: &str| {
            let text = format!("{why}; open http://{host}/ in the browser and act there\n");
            Some(Answer::text(403, text))
        };
        if request.authority() != host.as_bytes() {
            return refused("the address of this page is not the one in the request");
        }
        let origin = request.header("origin");
        let is_foreign = origin.is_some_and(|origin| origin != format!("http://{host}").as_bytes());
        let site = request.header("sec-fetch-site");
        let is_from_outside = matches!(site, Some(b"cross-site" | b"same-site"));
        let is_link = request.method() == "GET" && request.path() == b"/";
        if is_foreign || (is_from_outside && !is_link) {
            return refused("another page has sent this request");
        }
        None
    }

    fn page(&self) -> Answer {
        Answer::new(200)
            .header("Content-Type", "text/html; charset=utf-8")
            .header("Content-Security-Policy", &self.policy)
            .header("X-Content-Type-Options", "nosniff")
            .header("Referrer-Policy", "no-referrer")
            .header("Cache-Control", "no-store")
            .body(self.document.as_str())
    }

    fn pass_on(&self, event: Event) {
        // Without a receiver the program is ending, and the ticket in the error answers 500.
        let _ = self.events.send(event);
    }
}

impl Handler for Site {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        if let Some(refusal) = self.refusal(request) {
            return reply.send(refusal);
        }
        match (request.method(), request.path()) {
            ("GET", b"/") => reply.send(self.page()),
            ("GET", b"/cluster") => self.pass_on(Event::State(reply.later())),
            ("GET", b"/recording") => self.recorder.answer(reply.later()),
            ("POST", b"/act") if request.body_state() == BodyState::TooLarge => {
                let text = format!("an act has at most {ACT_BYTES_MAX} bytes, such as `kill 1`\n");
                reply.send(Answer::text(413, text));
            }
            ("POST", b"/act") => {
                let act = String::from_utf8_lossy(request.body()).into_owned();
                self.pass_on(Event::Act(act, reply.later()));
            }
            ("GET", _) => reply.send(Answer::text(404, "the page is at /\n")),
            _ => reply.send(
                Answer::text(405, "only POST /act changes something\n")
                    .header("Allow", "GET, POST"),
            ),
        }
    }
}
