//! The reader of the program's standard output: each line with the time at which it came. A thread of its own reads; what the
//! lines mean is looked at afterwards, for that takes time.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::Arc;

use serde_json::Value;
use tidemill::sync::thread::{self, Thread};
use tidemill::sync::{Mutex, Poison};

use crate::{Outcome, clock};

/// The two jobs: a row of quantiles for each batch, and one for all lines of a window. They run in this order.
pub const PER_BATCH: &str = "a-batch";
pub const PER_WINDOW: &str = "b-window";

/// A line as it came.
struct Line {
    at: u64,
    text: String,
}

/// A reader at work.
pub struct Reader {
    lines: Arc<Mutex<Vec<Line>>>,
    thread: Thread,
}

/// What one of the two jobs said at one time.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// When the row came, in nanoseconds since the epoch.
    pub came: u64,
    /// The time of the batch, in milliseconds since the epoch.
    pub batch_ms: u64,
    /// Records of the batch.
    pub records: u64,
    /// The quantiles that the row has, in microseconds.
    pub p50_us: Option<u64>,
    pub p95_us: Option<u64>,
}

/// Everything that was printed.
#[derive(Debug, Default)]
pub struct Printed {
    /// A row for each batch.
    pub batches: Vec<Said>,
    /// A row for each window.
    pub windows: Vec<Said>,
}

impl Reader {
    pub fn start(output: ChildStdout) -> Outcome<Reader> {
        let lines = Arc::<Mutex<Vec<Line>>>::default();
        let own = Arc::clone(&lines);
        let body = move || {
            let (mut output, mut text) = (BufReader::new(output), String::new());
            while output.read_line(&mut text).is_ok_and(|bytes| bytes > 0) {
                let at = clock::nanos();
                own.lock().push(Line { at, text: std::mem::take(&mut text) });
            }
        };
        Ok(Reader { lines, thread: thread::spawn("reader", &Poison::new(), body)? })
    }

    /// Everything, once the program has closed its output.
    pub fn finish(self) -> Outcome<Printed> {
        self.thread.join();
        let (lines, mut printed) = (self.lines.lock(), Printed::default());
        for line in lines.iter() {
            let value: Value = serde_json::from_str(&line.text)?;
            let said = said(&value, line.at);
            match value["job"].as_str() {
                Some(PER_BATCH) => printed.batches.push(said),
                Some(PER_WINDOW) => printed.windows.push(said),
                _ => return Err(format!("no job of this pipeline: {}", line.text).into()),
            }
        }
        Ok(printed)
    }
}

fn said(value: &Value, came: u64) -> Said {
    let number = |name: &str| value[name].as_u64().unwrap_or(0);
    let row = |name: &str| {
        let mut rows = value["rows"].as_array().into_iter().flatten();
        rows.find(|row| row[0] == name).and_then(|row| row[1].as_u64())
    };
    Said {
        came,
        batch_ms: number("batch_time_ms"),
        records: number("records"),
        p50_us: row("p50_us"),
        p95_us: row("p95_us"),
    }
}
