//! Clusters that are closed: TLS with certificates for clients and between members, and users.
//!
//! | file              | what it tests                                                            |
//! |-------------------|--------------------------------------------------------------------------|
//! | `rights.rs`       | what each client may do, on each member, over each kind of connection     |
//! | `certificates.rs` | members with wrong certificates, and certificates that are replaced       |
//! | `ctl.rs`          | every command of edgetcdctl, with and without a certificate and a user      |
//! | `secrets.rs`      | passwords, hashes and keys are shown nowhere                               |
//! | `strangers.rs`    | no peer message without the right certificate                             |

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../auth/matrix.rs"]
mod matrix;

mod certificates;
mod ctl;
mod rights;
mod secrets;
#[path = "../strangers/stranger.rs"]
mod stranger;
mod strangers;
mod support;
