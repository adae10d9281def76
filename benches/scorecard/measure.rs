//! The figures that one process measured of itself, and the stopwatch for them. Main thread of a child.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill::internals::lab::sample::{figure, own_cpu};
use tidemill::internals::settings::units::as_f64;
use tidemill::time::Moment;

use crate::wait::{now, seconds_since};

/// One side of a pair, as its process reports it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Lines that came.
    pub records: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// The sum of the counted words; see [`Sum`].
    pub sum: Sum,
    /// From before the connect to the last result.
    pub seconds: f64,
    /// Processor time of the whole process meanwhile, user and system.
    pub cpu_seconds: f64,
    /// The most memory that was resident, in KiB.
    pub peak_kib: u64,
    /// One entry for each batch or hand-over: microseconds.
    pub micros: Vec<f64>,
    /// The same for a second quantity, such as the lateness of a bare timer.
    pub beside: Vec<f64>,
}

impl Figures {
    /// Lines per second.
    pub fn rate(&self) -> f64 {
        as_f64(self.records) / self.seconds
    }

    /// Processor seconds for 10^9 bytes.
    pub fn cpu_per_gb(&self) -> f64 {
        self.cpu_seconds * 1e9 / as_f64(self.bytes.max(1))
    }
}

/// All results of all intervals in two numbers that do not depend on how the lines were cut into batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Words counted.
    pub words: u64,
    /// Each word's own number times its count, added up.
    pub checked: u64,
}

impl Sum {
    /// Takes one row of a result.
    pub fn add(&mut self, word: &[u8], count: u64) {
        let (pieces, tail) = word.as_chunks::<8>();
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        let number = pieces.iter().chain([&last]).fold(word.len() as u64, |number, piece| {
            (number ^ u64::from_le_bytes(*piece))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29)
        });
        self.words += count;
        self.checked = self.checked.wrapping_add(number.wrapping_mul(count));
    }
}

/// Runs from its making.
pub struct Stopwatch {
    start: Moment,
    cpu: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Stopwatch { start: now(), cpu: own_cpu() }
    }

    pub fn seconds(&self) -> f64 {
        seconds_since(self.start)
    }

    /// Writes the times and the memory into `figures`.
    pub fn stop(&self, figures: &mut Figures) {
        figures.seconds = self.seconds();
        figures.cpu_seconds = own_cpu().saturating_sub(self.cpu).as_secs_f64();
        figures.peak_kib = figure("/proc/self/status", "VmHWM:");
    }
}
