//! Whole clusters in one thread, from one seed.

pub mod linear;
