//! A backlog beyond the bound of memory, with a log: blocks leave memory for where they are in the log.

use tempfile::TempDir;

use tidemill::internals::blocks::{Acknowledge, Range, Receipt};
use tidemill::internals::owner::{OutputMark, Owner};
use tidemill::internals::storage::{Fault, Storage};
use tidemill::internals::sync::{Arc, Mailbox};
use tidemill::internals::{keep_state_in, memory_budget, offer};
use tidemill::sink::{BatchMeta, CommitKey, File, FileOptions, Rows, Sink};
use tidemill::{Config, Result, StreamingContext};

use super::alive::Alive;
use super::{Acknowledged, PERIOD, Trouble, World, idle, until};

/// `store_bytes_max`, the least that there may be.
const BOUND: usize = 1 << 20;

/// With the chunks that two tasks read back at that time, which are counted and not waited for.
const BOUND_READING: usize = BOUND + BOUND / 4;

/// Small enough that several fit into the bound, and a backlog lies in many segments.
const BLOCK_BYTES: u64 = 64 << 10;
const SEGMENT_BYTES: u64 = 256 << 10;

/// Records of one range, about 1 KiB each.
const RANGE: u64 = 8;

/// Records of a backlog, six times the bound.
const BACKLOG: u64 = 6 << 10;

/// A sink that takes a batch for each token, and everything once the tokens are closed.
struct Gated {
    file: File,
    tokens: Mailbox<()>,
}

impl Sink for Gated {
    fn check(&mut self, owner: &Owner) -> Result<()> {
        self.file.check(owner)
    }

    fn begin(&mut self, owner: &Owner, note: &mut dyn FnMut(String)) -> Result<()> {
        self.file.begin(owner, note)
    }

    fn reached(&self) -> Option<OutputMark> {
        self.file.reached()
    }

    fn committed(&mut self, key: &CommitKey) -> Result<bool> {
        self.file.committed(key)
    }

    fn write(&mut self, key: &CommitKey, meta: &BatchMeta, rows: &Rows) -> Result<()> {
        self.tokens.recv();
        self.file.write(key, meta, rows)
    }

    fn commit(&mut self, key: &CommitKey) -> Result<()> {
        self.file.commit(key)
    }
}

fn record(number: u64) -> String {
    format!("{number:01020}")
}

/// The state and the output of a stream with a backlog, and the records that were sent and acknowledged.
struct Backlog {
    world: World,
    sent: u64,
    acknowledged: Arc<Acknowledged>,
    /// For blocks that are not in the log: none here. One for each life: a thread that a stop has abandoned, which is soon where
    /// the clock runs ahead of it, still holds the one of its own.
    spills: Vec<TempDir>,
    /// A tick comes after this many records.
    tick_after: u64,
}

impl Backlog {
    fn new(seed: u64, tick_after: u64) -> Backlog {
        Backlog {
            world: World::new(seed),
            tick_after,
            sent: 0,
            acknowledged: Arc::default(),
            spills: Vec::new(),
        }
    }

    fn start(&mut self, tokens: &Mailbox<()>) -> Alive {
        let config = Config::new("backlog").batch_interval(PERIOD).workers(2);
        let config = config.store_bytes_max(BOUND as u64).block_bytes_max(BLOCK_BYTES);
        let spill = TempDir::new().expect("a directory");
        let config = config.spill_dir(spill.path());
        self.spills.push(spill);
        let context = StreamingContext::with_clock(config, self.world.clock.clone());
        let context = context.expect("good");
        keep_state_in(&context, Arc::new(self.world.state.clone()), SEGMENT_BYTES);
        let source = idle().record_bytes_max(2_000);
        let lines = context.receiver(source).expect("one source");
        let storage: Arc<dyn Storage> = Arc::new(self.world.output.clone());
        let file = File::open(storage, FileOptions::default());
        lines.named("lines").save(Gated { file: file.expect("free"), tokens: tokens.clone() });
        let running = context.start().expect("started");
        Alive::new(running, &self.world.clock).with_tokens(tokens)
    }

    /// Sends this many records as a connection does: while there is room, each range counted. Returns once all of them are
    /// acknowledged, which means that they are in the log.
    fn send(&mut self, running: &Alive, records: u64) {
        let account = memory_budget(running);
        let end = self.sent + records;
        while self.sent < end {
            until("there is room", || account.has_room());
            let mut bytes = Vec::new();
            for number in self.sent..self.sent + RANGE {
                let text = record(number);
                bytes.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
                bytes.extend(text.as_bytes());
            }
            let to = Arc::clone(&self.acknowledged) as Arc<dyn Acknowledge>;
            let receipts = vec![Receipt { to, upto: self.sent + RANGE }];
            let charge = Some(account.charge(bytes.len()));
            let range = Range { receipts, charge, ..Range::new(bytes.into(), RANGE) };
            if offer(running, 0, range).is_ok() {
                self.sent += RANGE;
                if self.sent.is_multiple_of(self.tick_after) {
                    self.world.clock.advance(PERIOD.as_duration());
                }
            }
            let used = account.used();
            assert!(used <= BOUND_READING, "{used} bytes in memory");
        }
        until("all is in the log", || *self.acknowledged.0.lock() == end);
    }

    fn check_output(&self, what: &str) {
        let output = self.world.output("lines");
        let expected: Vec<String> = (0..self.sent).map(record).collect();
        assert_eq!(output.len(), expected.len(), "{what}");
        assert!(output == expected, "{what}: all that was sent, once and in order");
    }
}

/// A backlog of small batches, or one that comes within one interval. The results are as large as the input: batches
/// take as much of it as has room together with its results.
fn check_backlog(tick_after: u64) {
    let (mut backlog, tokens) = (Backlog::new(1, tick_after), Mailbox::new(1));
    let running = backlog.start(&tokens);
    let inspector = running.inspector();
    backlog.send(&running, BACKLOG);
    let memory = inspector.memory();
    assert!(memory.spilled.bytes > 4 * BOUND as u64, "{memory:?}");
    assert_eq!((memory.spilled.file_bytes, memory.spilled.failures), (0, 0), "{memory:?}");
    tokens.close();
    until("it is processed", || {
        let (memory, progress) = (inspector.memory(), inspector.progress());
        assert!(memory.used <= BOUND_READING, "{memory:?}");
        if progress.batches_waiting == 0 {
            backlog.world.clock.advance(PERIOD.as_duration());
        }
        progress.records == BACKLOG
    });
    assert!(running.stop(Trouble::None));
    let memory = inspector.memory();
    assert_eq!((memory.used, memory.spilled.bytes, memory.spilled.blocks), (0, 0, 0));
    backlog.check_output("one life");
}

#[test]
fn with_a_log_reading_goes_on_beyond_the_bound_of_memory() {
    check_backlog(256);
    check_backlog(u64::MAX);
}

#[test]
fn a_backlog_in_the_log_is_there_after_a_power_cut() {
    for batches in [0, 3] {
        let (mut backlog, tokens) = (Backlog::new(batches, 256), Mailbox::new(3));
        let running = backlog.start(&tokens);
        (0..batches).for_each(|_| tokens.send(()).expect("open"));
        backlog.send(&running, BACKLOG);
        until("as many are done", || running.inspector().progress().batches >= batches);
        // How many records the batches hold that are done depends on when their ticks were seen.
        let away = running.inspector().memory().spilled.bytes;
        assert!(batches > 0 || away > 4 * BOUND as u64, "{away} bytes are out of memory");
        for disk in [&backlog.world.state, &backlog.world.output] {
            disk.fail(disk.calls() + 1, Fault::PowerCut);
        }
        tokens.close();
        assert!(!running.stop(Trouble::StateFull), "its disks are gone");
        backlog.world.power_back();
        let running = backlog.start(&tokens);
        backlog.send(&running, BACKLOG / 3);
        assert!(running.stop(Trouble::None));
        backlog.check_output(&format!("a power cut after {batches} batches"));
    }
}
