//! Tests of the key tree through its public interface: transcripts for readers, a comparison with a simple model, and
//! trees that are hard to handle (very deep, very wide, hostile bytes).

mod deep;
mod expiry;
mod model;
mod persistence;
mod random;
mod snapshots;
mod transcripts;
