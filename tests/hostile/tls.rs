//! The attacks of `main.rs` over TLS, and those that only TLS permits.

mod attacks;
mod bystander;
mod crowds;
mod handshakes;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "transport_tls.rs"]
mod transport;
