//! TLS: the module, and the HTTP server with it. Most tests of the HTTP server run over TLS too.

mod ctl;
mod files;
mod process;
mod sessions;
mod users;

#[path = "../harness/mod.rs"]
mod harness;

use harness::certificates;

#[path = "../auth/matrix.rs"]
mod matrix;

#[path = "../http1/answers.rs"]
mod answers;
#[path = "../http1/child.rs"]
mod child;
#[path = "../http1/framing.rs"]
mod framing;
#[path = "../http1/limits.rs"]
mod limits;
#[path = "../http1/load.rs"]
mod load;
#[path = "../http1/socket.rs"]
mod socket;
#[path = "../http1/support.rs"]
mod support;

/// Whether the clients of the HTTP server's tests use TLS.
const TLS: bool = true;
