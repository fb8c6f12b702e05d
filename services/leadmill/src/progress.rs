//! How far a long command is: bars on a terminal, a plain line every few seconds elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

/// The time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The bars of one command.
#[derive(Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

/// How far one part of the work is.
#[derive(Debug)]
pub struct Meter {
    bar: Option<ProgressBar>,
    label: &'static str,
    total: Option<u64>,
    told: Instant,
}

impl Progress {
    /// For this terminal, or for none.
    pub fn new() -> Self {
        Self { bars: io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// Another part of the work, out of `total` where that is known.
    pub fn meter(&self, label: &'static str, total: Option<u64>) -> Meter {
        let bar = self.bars.as_ref().map(|bars| {
            let template = if total.is_some() {
                "{prefix:>10} [{bar:40}] {pos}/{len} {msg}"
            } else {
                "{prefix:>10} {spinner} {pos} {msg}"
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            bars.add(bar.with_style(style.progress_chars("=> ")).with_prefix(label))
        });
        Meter { bar, label, total, told: Instant::now() }
    }

    /// Says what is done now, above the bars.
    pub fn say(&self, what: &str) {
        match &self.bars {
            // Where the terminal is gone there is nobody to tell.
            Some(bars) => drop(bars.println(what)),
            None => output::note(what),
        }
    }

    /// Leaves the last state of every bar on the screen, to be followed by other output.
    pub fn end(&self) {
        if let Some(bars) = &self.bars {
            bars.set_move_cursor(false);
        }
    }
}

impl Meter {
    /// It is now here.
    pub fn set(&mut self, position: u64, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(message.to_owned());
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                self.told = Instant::now();
                self.tell(position, message);
            }
            None => {}
        }
    }

    /// It is done.
    pub fn finish(self, position: u64, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.finish_with_message(message.to_owned());
            }
            None => self.tell(position, message),
        }
    }

    /// It is done, and makes room for what comes next. Where nothing was done, nothing is said.
    pub fn give_way(self, position: u64) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if position > 0 => self.tell(position, ""),
            None => {}
        }
    }

    fn tell(&self, position: u64, message: &str) {
        let total = self.total.map(|total| format!("/{total}")).unwrap_or_default();
        output::note(format!("{}: {position}{total} {message}", self.label).trim_end());
    }
}
