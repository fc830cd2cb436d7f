//! Serves one HTML file. It also works without a server, as a `file://` URL. Some browsers copy links only from pages
//! that a server has sent.

use edgetcd::http1::{Answer, Handler, HttpServer, Limits, Reply, Request, listen};
use std::net::SocketAddr;
use std::sync::Arc;

const FILE: &str = "target/lab.html";
const ADDRESS: &str = "127.0.0.1:2390";

/// Answers every request for the root with the page.
struct Page(Vec<u8>);

impl Handler for Page {
    fn handle(&self, request: &Request<'_>, reply: Reply<'_>) {
        let answer = match (request.method(), request.path()) {
            ("GET" | "HEAD", b"/") => Answer::new(200)
                .header("Content-Type", "text/html; charset=utf-8")
                .header("X-Content-Type-Options", "nosniff")
                .header("Cache-Control", "no-cache")
                .body(self.0.clone()),
            ("GET" | "HEAD", b"/favicon.ico") => Answer::new(204),
            ("GET" | "HEAD", _) => Answer::text(404, "the lab is at /\n"),
            _ => Answer::text(405, "the lab only answers GET\n").header("Allow", "GET, HEAD"),
        };
        reply.send(answer);
    }
}

/// Serves until the process is ended. `args` are the file and the address.
pub fn serve(args: &[String]) -> Result<(), String> {
    let file = args.first().map_or(FILE, String::as_str);
    let address = args.get(1).map_or(ADDRESS, String::as_str);
    let page = std::fs::read(file)
        .map_err(|error| format!("cannot read {file}: {error}; build it with `make lab`"))?;
    let address: SocketAddr = address
        .parse()
        .map_err(|_| format!("{address} is not an address such as {ADDRESS}"))?;
    let listener =
        listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let server = HttpServer::open(vec![listener], 1, Limits::default(), Arc::new(Page(page)))
        .map_err(|error| format!("cannot serve on {address}: {error}"))?;
    println!("the lab is at http://{}/", server.addresses()[0]);
    loop {
        std::thread::park();
    }
}
