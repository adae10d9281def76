//! What one process measured of itself, and the clocks it does that with.

use std::fs;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tidemill::time::{Clock, Moment, SystemClock};

/// One side of a pair, as its process reports it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Lines that came.
    pub records: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// What the counted words come to; see [`Sum`].
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

/// A figure with a few digits.
#[expect(clippy::cast_precision_loss, reason = "figures are shown with a few digits")]
pub fn as_f64(value: u64) -> f64 {
    value as f64
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
    clock: Arc<SystemClock>,
    start: Moment,
    cpu: f64,
}

impl Stopwatch {
    pub fn start() -> Self {
        let clock = SystemClock::new();
        Stopwatch { start: clock.now(), cpu: cpu_seconds(), clock }
    }

    pub fn seconds(&self) -> f64 {
        self.clock.now().since(self.start).as_secs_f64()
    }

    /// Writes the times and the memory into `figures`.
    pub fn stop(&self, figures: &mut Figures) {
        figures.seconds = self.seconds();
        figures.cpu_seconds = cpu_seconds() - self.cpu;
        figures.peak_kib = status_kib("self", "VmHWM:");
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a short run")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

/// A figure of `/proc/PROCESS/status`, in KiB; zero if it cannot be read.
pub fn status_kib(process: &str, field: &str) -> u64 {
    proc_figure(&format!("/proc/{process}/status"), field)
}

/// The number behind a name at the start of a line of a file; zero if it cannot be read.
pub fn proc_figure(file: &str, field: &str) -> u64 {
    let status = fs::read_to_string(file).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
