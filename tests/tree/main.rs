//! The key tree from outside: transcripts to read, a naive model to agree with, and the shapes that
//! break careless trees (very deep, very wide, hostile bytes).

mod deep;
mod expiry;
mod model;
mod persistence;
mod random;
mod snapshots;
mod transcripts;
