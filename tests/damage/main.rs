//! Damage of every record kind in every file of a data directory: the node starts right, or says what
//! to do in one line; and `wal check` agrees with it.
//!
//! | file          | what                                                                          |
//! |---------------|-------------------------------------------------------------------------------|
//! | `specimen.rs` | data directories with all that a node writes                                  |
//! | `memory.rs`   | all damage, one by one, on a disk of memory: the functions of a start and of a check |
//! | `process.rs`  | one of each kind on files: `edgetcdctl wal check`, then `edgetcd`             |
//! | `said.rs`     | what the two commands print, in a transcript                                  |
//!
//! What counts as right: the node has all that it has acknowledged. Only where the last record of all is
//! damaged, which nothing behind it calls durable, may it be without that one, as after a crash.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../harness/transcript.rs"]
mod transcript;

mod memory;
mod process;
mod said;
mod specimen;
