//! Threads that the process cannot work without.
//!
//! A panic in the raft, wal, snapshot, watch or accept thread leaves a state behind that may be inconsistent. A failed
//! disk leaves a log whose content is unknown. Both end the process with a message. The other members continue, and
//! this member recovers from its disk at the next start. (A worker of the HTTP server catches panics of one connection
//! itself. Only a panic outside of a connection arrives here.)

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

/// Exit status when the process cannot continue.
pub const EXIT_FAILURE: i32 = 1;

/// Stack size of our own threads. None of them recurses deeply.
const STACK_BYTES: usize = 256 * 1024;

/// Starts a thread whose panic ends the process.
///
/// # Errors
/// The system cannot start a thread.
pub fn critical(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let label = name.to_owned();
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            fatal(&format!(
                "the {label} thread panicked (see the line above); the process cannot continue without it"
            ));
        }
    };
    let builder = Builder::new().name(name.to_owned());
    builder.stack_size(STACK_BYTES).spawn(guarded)
}

/// Logs the reason and ends the process. It acknowledges nothing after that.
pub fn fatal(message: &str) -> ! {
    log::error!("{message}; stopping");
    log::logger().flush();
    std::process::exit(EXIT_FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs in the child process of the test below.
    fn panic_in_a_critical_thread() -> ! {
        crate::logging::start(log::LevelFilter::Info, crate::logging::Format::Text);
        let thread = critical("raft", || panic!("on purpose")).expect("a thread");
        let _ = thread.join();
        std::process::exit(0);
    }

    #[test]
    fn a_panic_in_a_critical_thread_ends_the_process_with_a_message() {
        if std::env::var_os("EDGETCD_TEST_PANIC").is_some() {
            panic_in_a_critical_thread();
        }
        let this = std::env::current_exe().expect("the test's own program");
        let output = Command::new(this)
            .args([
                "--exact",
                "threads::tests::a_panic_in_a_critical_thread_ends_the_process_with_a_message",
                "--nocapture",
            ])
            .env("EDGETCD_TEST_PANIC", "1")
            .output()
            .expect("a child");
        assert_eq!(output.status.code(), Some(EXIT_FAILURE), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the raft thread panicked"), "{said}");
        assert!(said.contains("on purpose"), "{said}");
    }
}
