//! Threads that the process cannot work without.
//!
//! A panic in the raft, wal, snapshot, watch or accept thread leaves a state behind that may be inconsistent. A failed
//! disk leaves a log whose content is unknown. Both end the process with a message. The other members continue, and
//! this member recovers from its disk at the next start. (A worker of the HTTP server catches panics of one connection
//! itself. Only a panic outside of a connection arrives here.)

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
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

type Job = Box<dyn FnOnce() + Send>;

/// A critical thread that does jobs for the thread which has started it, until it gets its own work.
///
/// The C library's allocator gives each thread memory of its own. What another thread has allocated is not used again
/// after it is freed, except by that thread. So the thread that changes a large value should also be the one that
/// makes it.
pub struct Reserved {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

impl Reserved {
    /// Starts the thread, like [`critical`].
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(name: &str) -> io::Result<Reserved> {
        let (jobs, to_do) = unbounded::<Job>();
        let thread = critical(name, move || to_do.into_iter().for_each(|job| job()))?;
        Ok(Reserved { jobs, thread })
    }

    /// Begins a job after the ones before it. The channel returns the result. If it is closed without one, the job has
    /// panicked, and the process is about to end.
    pub fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Receiver<T> {
        let (result, results) = bounded(1);
        self.add(move || {
            // Nobody may want the result any longer.
            let _ = result.send(job());
        });
        results
    }

    /// Gives the thread its own work, after which it ends.
    pub fn work(self, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        self.add(body);
        self.thread
    }

    /// Sending fails only after a panic, and then the process is about to end.
    fn add(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.jobs.send(Box::new(job));
    }
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

    #[test]
    fn a_reserved_thread_does_jobs_and_then_its_work() {
        let reserved = Reserved::start("reserved").expect("a thread");
        let who = || std::thread::current().id();
        let first = reserved.begin(who).recv().expect("a result");
        let second = reserved.begin(who);
        assert_ne!(first, who(), "not this thread");
        let (done, is_done) = bounded(1);
        let thread = reserved.work(move || done.send(who()).expect("the test waits"));
        assert_eq!(second.recv(), Ok(first));
        assert_eq!(is_done.recv(), Ok(first));
        thread.join().expect("it ends");
    }

    #[test]
    fn a_reserved_thread_ends_without_work() {
        let Reserved { jobs, thread } = Reserved::start("reserved").expect("a thread");
        drop(jobs);
        thread.join().expect("it ends");
    }

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
