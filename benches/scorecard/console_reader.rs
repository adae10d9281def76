//! Reads what an engine prints for each batch, on a thread of its own that can stand still: then the pipe fills, and the
//! engine's console sink stands still with it.

use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::pipe::fcntl_setpipe_size;
use serde_json::Value;
use tidemill::internals::sync::thread::{self, Thread};
use tidemill::internals::sync::{Mutex, Poison, Signal};

use crate::Outcome;

/// Bytes of the pipe: the least that the kernel gives, so that a sink that nobody reads from stands still soon.
const PIPE_BYTES: usize = 4096;

/// A batch, as its line says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Printed {
    pub records: u64,
    pub scheduling_delay_us: u64,
    pub processing_us: u64,
}

/// The lines so far, and those to come.
pub struct Printing {
    shared: Arc<Shared>,
    reader: Option<Thread>,
}

#[derive(Default)]
struct Shared {
    batches: Mutex<Vec<Printed>>,
    still: AtomicBool,
    go: Signal,
}

impl Printing {
    pub fn start(output: ChildStdout) -> Outcome<Printing> {
        fcntl_setpipe_size(&output, PIPE_BYTES)?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let reader =
            thread::spawn("reader", &Poison::new(), move || read(BufReader::new(output), &own))?;
        Ok(Printing { shared, reader: Some(reader) })
    }

    /// From the next line on nothing is read, or it is again.
    pub fn stand_still(&self, still: bool) {
        self.shared.still.store(still, Ordering::SeqCst);
        if !still {
            self.shared.go.raise();
        }
    }

    /// The batches so far.
    pub fn batches(&self) -> Vec<Printed> {
        self.shared.batches.lock().clone()
    }

    /// All batches; the engine has ended.
    pub fn finish(mut self) -> Vec<Printed> {
        self.stand_still(false);
        self.reader.take().into_iter().for_each(Thread::join);
        self.batches()
    }
}

impl Drop for Printing {
    /// After an error the engine may still run: its output has no end yet, and a reader of it would be waited for in vain.
    fn drop(&mut self) {
        self.stand_still(false);
        self.reader.take().into_iter().for_each(Thread::abandon);
    }
}

fn read(mut output: BufReader<ChildStdout>, shared: &Shared) {
    let mut line = Vec::new();
    loop {
        while shared.still.load(Ordering::SeqCst) {
            shared.go.wait();
        }
        line.clear();
        match output.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => shared.batches.lock().push(printed(&line)),
        }
    }
}

/// The numbers before and behind the rows, which may be many: they are left out before the line is parsed.
fn printed(line: &[u8]) -> Printed {
    let find = |text: &[u8]| memchr::memmem::find(line, text);
    let last = |text: &[u8]| memchr::memmem::rfind(line, text);
    let (Some(rows), Some(end)) = (find(b",\"rows\":["), last(b"],\"scheduling_delay_us\"")) else {
        return Printed::default();
    };
    let short = [&line[..rows], &line[end + 1..]].concat();
    let value: Value = serde_json::from_slice(&short).unwrap_or_default();
    let number = |name: &str| value[name].as_u64().unwrap_or(0);
    Printed {
        records: number("records"),
        scheduling_delay_us: number("scheduling_delay_us"),
        processing_us: number("processing_us"),
    }
}
