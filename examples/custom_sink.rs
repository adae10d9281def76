//! A sink of your own: running totals of words, in which each batch counts once however often it is delivered. The whole
//! key identifies a batch: another state directory has batches of the same time.
//!
//! `cargo run --release --example custom_sink` counts three batches of a queue and prints the totals.

#![expect(clippy::disallowed_types, reason = "a program has the locks of the standard library")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tidemill::sink::{BatchId, BatchMeta, Cell, CommitKey, Rows};
use tidemill::testing::ManualClock;
use tidemill::{Config, Error, Result, Sink, StreamingContext, Time};

type Totals = Arc<Mutex<BTreeMap<String, u64>>>;

/// A real one would keep the totals and the last keys in one transaction of a database.
#[derive(Default)]
struct Adding {
    /// Rows that were written and do not count yet.
    written: Vec<(String, u64)>,
    /// The last batch of each job that counts. Batches of a job come in order, so one key is enough.
    last: HashMap<Arc<str>, CommitKey>,
    totals: Totals,
}

impl Sink for Adding {
    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        let Some(last) = self.last.get(&key.job).filter(|last| key.time <= last.time) else {
            return Ok(false);
        };
        let is_earlier = key.time < last.time && key.id.state == last.id.state;
        if is_earlier || key == last {
            return Ok(true);
        }
        // The batch must not count as committed, and its rows must not be added to a batch that they are no part of.
        let (job, time) = (&key.job, key.time);
        let BatchId { state, run, digest } = key.id;
        Err(Error::Failed(format!(
            "batch {time} of job `{job}`, which start {run} of the state {state} planned as {digest}, is another one than \
             {:?}, which is in the totals",
            last.id
        )))
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, rows: &Rows) -> Result<()> {
        // An earlier attempt at this batch may have written some.
        self.written.clear();
        for row in rows.iter() {
            if let [Cell::Text(word), Cell::U64(count)] = row.cells().collect::<Vec<_>>()[..] {
                self.written.push((String::from_utf8_lossy(word).into_owned(), count));
            }
        }
        Ok(())
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        let mut totals = self.totals.lock().expect("no thread panicked");
        for (word, count) in self.written.drain(..) {
            *totals.entry(word).or_default() += count;
        }
        self.last.insert(Arc::clone(&key.job), key.clone());
        Ok(())
    }
}

/// A batch is recognised when it comes again; one that was planned differently is refused although it has the same time.
fn check_keys() -> Result<()> {
    let mut sink = Adding::default();
    let planned_by = |run| {
        let key = CommitKey::new("totals", "words", Time::from_millis(1_000), 0);
        key.with_id(BatchId { run, ..BatchId::default() })
    };
    assert!(!sink.committed(&planned_by(1))?);
    sink.commit(&planned_by(1))?;
    assert!(sink.committed(&planned_by(1))?);
    assert!(sink.committed(&planned_by(2)).is_err());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn main() -> Result<()> {
    let ctx = StreamingContext::with_clock(Config::new("totals"), ManualClock::new())?;
    let batches = [vec!["to", "be"], vec!["or", "not"], vec!["to", "be"]];
    let words = ctx.queue_stream(batches.map(Some).to_vec(), 2);
    let totals = Totals::default();
    let counts = words.map(|word| (*word).to_owned()).count_by_value();
    check_keys()?;
    counts.save(Adding { totals: Arc::clone(&totals), ..Adding::default() });
    ctx.run_batches(3)?;
    for (word, count) in totals.lock().expect("no thread panicked").iter() {
        println!("{word} {count}");
    }
    assert_eq!(totals.lock().expect("no thread panicked").values().sum::<u64>(), 6);
    Ok(())
}
