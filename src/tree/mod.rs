//! The key tree as a pure value.
