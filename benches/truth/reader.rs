//! The reader of the program's standard output: each line with the time at which it came. A thread of its own reads; what the
//! lines mean is looked at afterwards, for that takes time.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::Arc;

use serde_json::Value;
use tidemill::internals::sync::thread::{self, Thread};
use tidemill::internals::sync::{Mutex, Poison};

use crate::{Outcome, clock};

/// The job that prints a row of quantiles for each batch.
pub const JOB: &str = "waits";

/// A line as it came.
struct Line {
    at: u64,
    text: String,
}

/// A reader at work.
pub struct Reader {
    lines: Arc<Mutex<Vec<Line>>>,
    thread: Option<Thread>,
}

/// What the job said of a batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// When its row came, in nanoseconds since the epoch.
    pub came: u64,
    pub records: u64,
    /// The quantiles of its row, in microseconds; none without a record.
    pub p50_us: Option<u64>,
    pub p95_us: Option<u64>,
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
        Ok(Reader { lines, thread: Some(thread::spawn("reader", &Poison::new(), body)?) })
    }

    /// Every batch, once the program has closed its output.
    pub fn finish(mut self) -> Outcome<Vec<Batch>> {
        self.thread.take().into_iter().for_each(Thread::join);
        self.lines.lock().iter().map(|line| batch(&line.text, line.at)).collect()
    }
}

impl Drop for Reader {
    /// After an error the program may still run, and nothing ends a read of its output.
    fn drop(&mut self) {
        self.thread.take().into_iter().for_each(Thread::abandon);
    }
}

fn batch(text: &str, came: u64) -> Outcome<Batch> {
    let value: Value = serde_json::from_str(text)?;
    let row = |name: &str| {
        let mut rows = value["rows"].as_array().into_iter().flatten();
        rows.find(|row| row[0] == name).and_then(|row| row[1].as_u64())
    };
    let records = value["records"].as_u64().ok_or_else(|| format!("no batch: {text}"))?;
    Ok(Batch { came, records, p50_us: row("p50_us"), p95_us: row("p95_us") })
}
