//! A progress bar on a terminal, shown after one second.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
const WIDTH: usize = 30;

/// Counts finished items of a known total.
#[derive(Debug)]
pub(super) struct Progress {
    pub done: AtomicUsize,
    all: usize,
    unit: &'static str,
    over: AtomicBool,
}

/// See [`Progress::until_dropped`].
#[derive(Debug)]
pub(super) struct Ends<'a>(&'a Progress);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

impl Progress {
    pub fn new(all: usize) -> Progress {
        Progress::with_unit(all, "")
    }

    /// `unit` is the unit of the counts, with a blank in front.
    pub fn with_unit(all: usize, unit: &'static str) -> Progress {
        Progress {
            done: AtomicUsize::new(0),
            all,
            unit,
            over: AtomicBool::new(false),
        }
    }

    /// Returns a guard that ends [`Progress::show`] when it is dropped, in every case. Otherwise the thread that
    /// waits for `show` would wait forever.
    pub fn until_dropped(&self) -> Ends<'_> {
        Ends(self)
    }

    /// Draws the bar on stderr until the end, then removes it. It runs in its own thread: it sleeps between two
    /// drawings and waits for nothing else.
    pub fn show(&self) {
        let start = Instant::now();
        let mut drawn = false;
        while !self.over.load(Ordering::Acquire) {
            if start.elapsed() >= PATIENCE {
                self.draw(start.elapsed());
                drawn = true;
            }
            thread::sleep(PAUSE);
        }
        if drawn {
            // If the terminal is closed, the bar need not be removed.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn draw(&self, elapsed: Duration) {
        let line = bar(
            self.done.load(Ordering::Relaxed),
            self.all,
            self.unit,
            elapsed,
        );
        // If the terminal is closed, the bar need not be drawn.
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
    }
}

fn bar(done: usize, all: usize, unit: &str, elapsed: Duration) -> String {
    let share = done as f64 / all.max(1) as f64;
    let full = ((share * WIDTH as f64) as usize).min(WIDTH);
    let left = match done {
        0 => "?".to_owned(),
        _ => format!("{:.0}s", elapsed.as_secs_f64() * (1.0 - share) / share),
    };
    format!(
        "[{}{}] {:3.0}% {done}/{all}{unit}, {left} left",
        "=".repeat(full),
        " ".repeat(WIDTH - full),
        share * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_with_what_is_done() {
        let ten = Duration::from_secs(10);
        assert_eq!(
            bar(0, 100, "", ten),
            "[                              ]   0% 0/100, ? left"
        );
        assert_eq!(
            bar(50, 100, " KiB", ten),
            "[===============               ]  50% 50/100 KiB, 10s left"
        );
        assert_eq!(
            bar(100, 100, "", ten),
            "[==============================] 100% 100/100, 0s left"
        );
        assert!(bar(0, 0, "", ten).starts_with("[ "));
    }
}
