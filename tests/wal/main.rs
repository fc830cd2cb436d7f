//! The log on disks that lie, tear, rot and fill up, and on the real one.

mod crash;
mod files;
mod lookalikes;
mod looking;
mod process;
mod real;
mod simulation;
mod snapshots;
mod support;
mod transcripts;
