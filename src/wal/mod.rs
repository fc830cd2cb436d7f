//! The write-ahead log and snapshot files.
