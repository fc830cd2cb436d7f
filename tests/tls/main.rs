//! TLS: the module, and the HTTP server with it.

mod ctl;
mod files;

#[path = "../harness/certificates.rs"]
mod certificates;
