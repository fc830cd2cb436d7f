//! The WAL on faulty disks that lose, tear and rot data or are full, and on the real disk.

mod crash;
mod files;
mod inspecting;
mod lookalikes;
mod process;
mod real;
mod simulation;
mod snapshots;
mod support;
mod transcripts;
mod unknown;
