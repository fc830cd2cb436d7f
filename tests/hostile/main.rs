//! Hostile or abandoned clients, while the same process must serve others.
//!
//! During each attack, another client (the bystander) reads and writes on its own connections and measures the
//! latency, and the test samples the server's memory. `HOSTILE_CONNECTIONS` (default 10,000) is the number of idle
//! connections and parked watches in the memory tests. The limits apply to a release build (`make bars`). A debug
//! build has more time and fewer deaf clients.
//!
//! | file           | what it tests                                                               |
//! |----------------|-----------------------------------------------------------------------------|
//! | `attacks.rs`   | requests that are abandoned, incomplete, endless or malformed               |
//! | `crowds.rs`    | many watches, idle connections and listings at once                         |
//! | `expiry.rs`    | many keys that expire at once                                               |
//! | `handshakes.rs`| handshakes and TLS records that are incomplete, malformed or many            |
//!
//! The same attacks run over TLS: `tls.rs` is the program, and `handshakes.rs` is a part of it alone. `transport.rs` and
//! `transport_tls.rs` have what differs.

mod attacks;
mod bystander;
mod crowds;
mod expiry;
#[path = "../harness/mod.rs"]
mod harness;
mod transport;
