//! Clusters that are closed: TLS with certificates for clients and between members, and users.
//!
//! | file            | what it tests                                                              |
//! |-----------------|----------------------------------------------------------------------------|
//! | `rights.rs`     | what each client may do, on each member, over each kind of connection       |

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../auth/matrix.rs"]
mod matrix;

mod rights;
mod support;
