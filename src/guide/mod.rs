#![doc = include_str!("README.md")]
//! # For whoever changes a page
//!
//! Each page is a file of this folder, and what its ```` ```console ```` blocks show is real: `tests/guide.rs` walks
//! every page in a bash and compares, and `UPDATE=1 make test ARGS='--test guide'` writes what was printed into it.

#[doc = include_str!("damaged_log.md")]
pub mod damaged_log {}

#[doc = include_str!("from_etcd.md")]
pub mod from_etcd {}

#[doc = include_str!("full_disk.md")]
pub mod full_disk {}

#[doc = include_str!("lost_disk.md")]
pub mod lost_disk {}

#[doc = include_str!("lost_majority.md")]
pub mod lost_majority {}

#[doc = include_str!("restore.md")]
pub mod restore {}
