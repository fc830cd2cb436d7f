//! The shortest known run for each rule that breaks without it.

/// A run that breaks if its rules are off, and holds if they are kept.
pub struct Stored {
    /// The name of the file, without its end.
    pub name: &'static str,
    /// The text of the run.
    pub text: &'static str,
}

macro_rules! stored {
    ($($name:literal)*) => {
        /// All stored runs.
        pub const ALL: &[Stored] = &[$(Stored {
            name: $name,
            text: include_str!(concat!("runs/", $name, ".run")),
        },)*];
    };
}

stored! {}
