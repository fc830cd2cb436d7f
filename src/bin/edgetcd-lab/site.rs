//! The page and its endpoints.
//!
//! | request | response |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /cluster` | the nodes and the links as JSON |
//! | `POST /act` | performs the act in the body, such as `kill 1`; then as `/cluster` |
//! | `GET /recording` | what all nodes have recorded so far |
//!
//! Only the page of this address may act, and programs that are not browsers. A web page of another origin can make a
//! browser send requests to this machine: they are recognized by their `Origin`, or by a `Host` that is only a name for
//! this machine (DNS rebinding).

use edgetcd::http1::{Answer, BodyState, Handler, Reply, Request, Ticket};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;

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
    /// The files of the nodes' records.
    traces: Vec<PathBuf>,
    events: Sender<Event>,
}

impl Site {
    /// The site at this address, for nodes with these client URLs.
    pub fn new(
        address: SocketAddr,
        clients: &[String],
        traces: Vec<PathBuf>,
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
            traces,
            events,
        }
    }

    /// Why the request is not answered.
    fn refusal(&self, request: &Request<'_>) -> Option<Answer> {
        let host = &self.host;
        if request.authority() != host.as_bytes() {
            return Some(Answer::text(
                403,
                format!("the page is at http://{host}/\n"),
            ));
        }
        let origin = request.header("origin");
        let is_foreign = origin.is_some_and(|origin| origin != format!("http://{host}").as_bytes());
        is_foreign.then(|| Answer::text(403, "only the page of this address may do that\n"))
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

    /// Reads the files on another thread. They can be long.
    fn recording(&self, reply: Reply<'_>) {
        let (traces, ticket) = (self.traces.clone(), reply.later());
        // A ticket that is dropped answers 500.
        let _ = thread::Builder::new()
            .name("recording".into())
            .spawn(move || ticket.send(recording(&traces)));
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
            ("GET", b"/recording") => self.recording(reply),
            ("POST", b"/act") if request.body_state() == BodyState::Complete => {
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

/// All files one after the other. Each begins with the member's name.
fn recording(traces: &[PathBuf]) -> Answer {
    let mut lines = Vec::new();
    for file in traces {
        let mut older = file.clone().into_os_string();
        older.push(".1");
        for part in [PathBuf::from(older), file.clone()] {
            // A node that has not started yet has no file.
            let part = fs::read(part).unwrap_or_default();
            // A line that is being written has no end yet.
            let complete = part
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            lines.extend_from_slice(&part[..complete]);
        }
    }
    Answer::new(200)
        .header("Content-Type", "application/x-ndjson")
        .header(
            "Content-Disposition",
            "attachment; filename=\"cluster.trace\"",
        )
        .header("X-Content-Type-Options", "nosniff")
        .header("Cache-Control", "no-store")
        .body(lines)
}
