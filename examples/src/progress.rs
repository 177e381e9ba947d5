//! How far a run is, on standard error: a bar on a terminal, a line each tenth elsewhere, nothing when quiet.
//!
//! Standard output stays free for results. Reporting never fails a run: what cannot be written is dropped.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The report of one run.
///
/// ```
/// use chare_examples::progress::Progress;
///
/// let mut progress = Progress::on_stderr(200, false);
/// for step in 1..=200 {
///     progress.reached(step, 1.0 / step as f64);
/// }
/// progress.finish();
/// ```
#[derive(Debug)]
pub struct Progress {
    step_count: u64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { writer: Box<dyn Write + Send>, tenths: u64 },
    Nothing,
}

impl Progress {
    /// Reports a run of at most so many steps on standard error, in the way that suits it.
    pub fn on_stderr(step_count: u64, quiet: bool) -> Progress {
        if quiet {
            Progress { step_count, shown: Shown::Nothing }
        } else if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(step_count), ProgressDrawTarget::stderr());
            let template = "{bar:32} {msg}, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            Progress { step_count, shown: Shown::Bar(bar) }
        } else {
            Progress::as_lines(step_count, io::stderr())
        }
    }

    /// Reports a run of at most so many steps as plain lines, one each tenth of it.
    pub fn as_lines(step_count: u64, writer: impl Write + Send + 'static) -> Progress {
        Progress { step_count, shown: Shown::Lines { writer: Box::new(writer), tenths: 0 } }
    }

    /// Says that so many steps are done, and the last one's largest change. Any number of steps may lie between calls.
    pub fn reached(&mut self, step: u64, residual: f64) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(line(step, self.step_count, residual));
                bar.set_position(step);
            }
            Shown::Lines { writer, tenths } => {
                let reached = (u128::from(step) * 10 / u128::from(self.step_count.max(1))) as u64;
                if reached > *tenths {
                    *tenths = reached;
                    // A closed standard error is no reason to stop computing.
                    let _ = writeln!(writer, "{}", line(step, self.step_count, residual));
                }
            }
            Shown::Nothing => {}
        }
    }

    /// Ends the report and clears the bar, so that what is printed next stands alone.
    pub fn finish(self) {
        match self.shown {
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Lines { mut writer, .. } => {
                let _ = writer.flush();
            }
            Shown::Nothing => {}
        }
    }
}

fn line(step: u64, step_count: u64, residual: f64) -> String {
    format!("step {step} of {step_count}, residual {residual:.3e}")
}

impl fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Shown::Bar(_) => "Bar",
            Shown::Lines { .. } => "Lines",
            Shown::Nothing => "Nothing",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(step_count: u64, steps: impl IntoIterator<Item = u64>) -> Vec<String> {
        let sink = Sink::default();
        let mut progress = Progress::as_lines(step_count, sink.clone());
        for step in steps {
            progress.reached(step, 1.0 / step as f64);
        }
        progress.finish();
        let bytes = sink.0.lock().expect("no test panics with it").clone();
        String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_long_run_has_ten_lines() {
        let lines = lines(200, 1..=200);
        assert_eq!(lines.len(), 10);
        assert_eq!(lines[0], "step 20 of 200, residual 5.000e-2");
        assert_eq!(lines[9], "step 200 of 200, residual 5.000e-3");
    }

    #[test]
    fn coarse_short_and_repeated_reports_do_not_repeat_lines() {
        assert_eq!(lines(3, 1..=3).len(), 3);
        assert_eq!(lines(100, [50, 50, 51, 100]).len(), 2);
        assert_eq!(lines(0, [0]).len(), 0);
        assert_eq!(lines(u64::MAX, [u64::MAX]).len(), 1);
    }

    #[test]
    fn a_closed_writer_does_not_matter() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut progress = Progress::as_lines(10, Closed);
        progress.reached(10, 0.5);
        progress.finish();
    }
}
