#![doc = include_str!("README.md")]
//! # How to change a page
//!
//! Each page is a file in this folder. The ```` ```console ```` blocks show real output: `tests/guide.rs` runs every
//! command in one bash and compares the output. `UPDATE=1 make test ARGS='--test guide'` writes the real output into
//! the pages.

#[doc = include_str!("alerts.md")]
pub mod alerts {}

#[doc = include_str!("closed_cluster.md")]
pub mod closed_cluster {}

#[doc = include_str!("damaged_log.md")]
pub mod damaged_log {}

#[doc = include_str!("from_etcd.md")]
pub mod from_etcd {}

#[doc = include_str!("full_disk.md")]
pub mod full_disk {}

#[doc = include_str!("log_lines.md")]
pub mod log_lines {}

#[doc = include_str!("lost_disk.md")]
pub mod lost_disk {}

#[doc = include_str!("lost_majority.md")]
pub mod lost_majority {}

#[doc = include_str!("page.md")]
pub mod page {}

#[doc = include_str!("restore.md")]
pub mod restore {}

#[doc = include_str!("slow_disk.md")]
pub mod slow_disk {}

#[doc = include_str!("trace.md")]
pub mod trace {}

#[doc = include_str!("trust.md")]
pub mod trust {}
