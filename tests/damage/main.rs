//! Damage to every kind of record in every file of a data directory. The node starts with the right state, or prints
//! one line that says what to do. `wal check` gives the same result.
//!
//! | file          | purpose                                                                       |
//! |---------------|-------------------------------------------------------------------------------|
//! | `specimen.rs` | data directories with everything that a node writes                           |
//! | `memory.rs`   | each damage on a disk in memory, with the functions of a start and of a check |
//! | `process.rs`  | one damage of each kind on files: `edgetcdctl wal check`, then `edgetcd`      |
//! | `said.rs`     | the output of the two commands, as a transcript                               |
//!
//! The state is right if the node has everything that it acknowledged. There is one exception: if the very last record
//! is damaged, which no later record calls durable, the node may start without it, as after a crash.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../harness/transcript.rs"]
mod transcript;

mod memory;
mod process;
mod said;
mod specimen;
