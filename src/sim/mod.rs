//! Whole clusters in one thread, from one seed.

mod any_core;
mod calm;
mod checks;
mod client;
mod clock;
mod cluster;
mod desk;
mod disk;
mod driver;
mod flaw;
mod history;
pub mod linear;
mod nemesis;
mod node;
mod power;
mod random;
mod streams;
mod trace;
mod weather;

pub use any_core::Keeping;
pub use client::{Answer, Ask, Op};
pub use clock::Pace;
pub use cluster::{Cluster, Settings};
pub use flaw::Flaw;
pub use trace::{Happening, Line};
pub use weather::{Calm, Kind, Weather};
