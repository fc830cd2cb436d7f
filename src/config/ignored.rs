//! Checks the values of flags that have no effect, as the reference does.
//!
//! A command line that the reference refuses is refused here too, so that a mistake shows on this server and not first
//! on another one. [`check_kinds`] makes the checks of the reference's parser, [`check_meanings`] those of its start.

use super::Stop;
use super::flags::{FLAGS, Role};
use super::values::Values;
use crate::go;

/// Checks that numbers are numbers, and times are times.
///
/// # Errors
/// A given value is not of the flag's kind.
pub(super) fn check_kinds(values: &Values) -> Result<(), Stop> {
    for flag in FLAGS.iter().filter(|flag| values.has_value(flag.name)) {
        if matches!(flag.role, Role::Warned(_)) {
            values.check_kind(flag)?;
        }
    }
    values.choice("discovery-fallback", &[("exit", ()), ("proxy", ())])
}

/// Checks texts that the reference understands only at its start.
///
/// # Errors
/// A given value has no meaning for the reference.
pub(super) fn check_meanings(values: &Values) -> Result<(), Stop> {
    let mode = values.text("auto-compaction-mode");
    if !["", "periodic", "revision"].contains(&mode) {
        return Err(Stop::verify(
            &format!("unknown auto-compaction-mode {mode:?}"),
            "type --auto-compaction-mode=periodic or =revision, or omit the flag: it has no effect",
        ));
    }
    check_retention(values.text("auto-compaction-retention"))?;
    let token = values.text("auth-token");
    let kind = token.split(',').next().unwrap_or_default();
    if !["", "simple", "jwt"].contains(&kind) {
        return Err(Stop::verify(
            &format!("unknown token type {kind:?} of --auth-token"),
            "type --auth-token=simple, or omit the flag: it has no effect",
        ));
    }
    Ok(())
}

/// A retention is a whole number of hours or revisions, or a time.
fn check_retention(text: &str) -> Result<(), Stop> {
    let is_count = text.parse::<u32>().is_ok();
    if text.is_empty() || is_count || go::duration(text).is_ok() {
        return Ok(());
    }
    Err(Stop::fatal(
        format!("error parsing CompactionRetention: time: invalid duration {text:?}"),
        "type --auto-compaction-retention=1h, or omit the flag: it has no effect",
    ))
}
