//! The end of the job loop under the schedule explorer: ticks, blocks and jobs race with `Final`.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::blocks::{Block, Range};
use crate::framing::Framing;
use crate::memory::budget::MemoryBudget;
use crate::sink::Writer;
use crate::source::ingest::block_cutter::{BlockCutter, CutterOptions};
use crate::source::ingest::handover::BlockTarget;
use crate::stream::{Collected, GraphOptions};
use crate::sync::Signal;
use crate::sync::explore::{check, thread};
use crate::time::{Interval, ManualClock};

const PERIOD: Interval = Interval::secs(1);

/// The real target behind the push thread: with the short cut of `push_now` no tick ever waits for its blocks.
struct Pushed(Stored);

impl BlockTarget for Pushed {
    fn push(&self, block: &Arc<Block>) -> Result<()> {
        self.0.push(block)
    }

    fn reached(&self, source: u32, time: Time) {
        self.0.reached(source, time);
    }
}

/// A source without sockets, the loop, one worker, and an output that keeps the records.
struct Rig {
    scheduler: Scheduler,
    generator: Arc<BlockCutter>,
    tracker: Arc<BlockTracker>,
    workers: Arc<WorkerPool>,
    clock: Arc<ManualClock>,
    rows: Collected<Vec<u8>>,
    job_loop: Thread,
    /// The progress at each `Drained`.
    drained: Arc<Mutex<Vec<Progress>>>,
    told: Signal,
    /// Raised when the asked number of batches is done.
    reached: Signal,
}

fn generator(
    clock: Arc<ManualClock>,
    account: &Arc<MemoryBudget>,
    poison: &Poison,
) -> Arc<BlockCutter> {
    BlockCutter::new(CutterOptions {
        name: "rx0".to_owned(),
        source: 0,
        framing: Framing::Lines,
        block_interval: PERIOD,
        block_bytes_max: 1 << 20,
        clock,
        account: Arc::clone(account),
        poison: poison.clone(),
        log: None,
    })
}

fn rig(timer: BatchTimer, batches_max: Option<u64>) -> Rig {
    let (clock, poison) = (Arc::new(ManualClock::new()), Poison::new());
    let account = MemoryBudget::new(1 << 20);
    let store = Arc::new(BlockManager::new(Arc::clone(&account), None));
    let (tracker, scheduler) = (Arc::new(BlockTracker::new(1)), Scheduler::new());
    let generator = generator(clock.clone(), &account, &poison);
    let (own, known) = (Arc::clone(&store), Arc::clone(&tracker));
    let times = EngineTimes::new();
    let stored =
        Stored { store: own, tracker: known, clock: clock.clone(), scheduler: scheduler.clone() };
    generator.start(Arc::new(Pushed(stored)), times.cut_ticks.recorder()).expect("threads");
    let graph = Graph::new(GraphOptions {
        pipeline: "model".to_owned(),
        workers: 1,
        seed: 7,
        batch_interval: PERIOD,
        console: Writer::new(Box::new(std::io::sink())),
    });
    let rows = graph.blocks(0, "in").collect();
    let workers = Arc::new(WorkerPool::start(1, &poison).expect("threads"));
    let (drained, told) = (Arc::new(Mutex::new(Vec::new())), Signal::new());
    let (list, raise, progress) = (Arc::clone(&drained), told.clone(), scheduler.clone());
    let reached = Signal::new();
    let raise_reached = reached.clone();
    let tell = move |message| match message {
        SchedulerNotice::Drained => {
            list.lock().push(progress.progress());
            raise.raise();
        }
        SchedulerNotice::BatchesReached => raise_reached.raise(),
        other => panic!("{other:?}"),
    };
    let parts = Parts {
        clock: clock.clone(),
        graph,
        workers: Arc::clone(&workers),
        store,
        tracker: Arc::clone(&tracker),
        pool: Pool::new(account),
        cutters: vec![(0, Cutter(Arc::clone(&generator)))],
        direct: Vec::new(),
        steered: Vec::new(),
        arrivals: None,
        dead_letters: None,
        recovery: None,
        identity: StateId::default(),
        times,
        history: Arc::new(History::default()),
        events: EventBus::new(),
        tell: Arc::new(tell),
        tell_batches: false,
    };
    let options = Options {
        batches: Batches::Every(Schedule::aligned(clock.as_ref(), PERIOD), CatchUp::Coalesce),
        timer,
        interval: PERIOD.as_duration(),
        allocate_wait: Duration::from_millis(100),
        concurrent_jobs: 1,
        retries: Retries { failures: 0, away: Duration::ZERO },
        batches_max,
        skip_empty: false,
        kept: KeptBound { memory_bytes: u64::MAX, bytes_max: None },
    };
    let job_loop = scheduler.start(options, parts, &poison).expect("a thread");
    Rig { scheduler, generator, tracker, workers, clock, rows, job_loop, drained, told, reached }
}

impl Rig {
    /// Reads this many records, one range each.
    fn feed(&self, records: u8) {
        for number in b'0'..b'0' + records {
            let bytes = Bytes::copy_from_slice(&[number, b'\n']);
            let range = Range::new(bytes, 1);
            assert!(self.generator.offer(range).is_ok(), "there is room");
        }
    }

    /// Two ticks come, by another thread.
    fn tick(&self) -> Thread {
        let clock = Arc::clone(&self.clock);
        thread("clock", move || (1..=2).for_each(|_| clock.advance(PERIOD.as_duration())))
    }

    fn stop_generator(&self) {
        assert_eq!(self.generator.stop(Moment::from_nanos(u64::MAX)), Vec::<String>::new());
    }

    /// Posts `Final`, waits for the end and returns the records of all batches.
    fn finish(self, ticks: Thread) -> Vec<Vec<u8>> {
        self.scheduler.post(Message::Final(super::Ends::Asked));
        self.told.wait();
        ticks.join();
        self.stop_generator();
        let stuck = self.workers.stop(self.clock.as_ref(), Moment::from_nanos(u64::MAX));
        assert!(stuck.is_empty(), "{stuck:?}");
        self.scheduler.close();
        self.job_loop.join();
        let (first, last) = (self.drained.lock()[0].clone(), self.scheduler.progress());
        assert_eq!(
            (first.batches_waiting, &first),
            (0, &last),
            "drained means that nothing follows"
        );
        let rows = self.rows.rows();
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "a batch time is used once");
        rows.into_iter().flat_map(|(_, records)| records).collect()
    }
}

#[test]
fn the_last_batch_takes_what_no_tick_took_and_nothing_follows_it() {
    for timer in [BatchTimer::Thread, BatchTimer::Loop] {
        check(600, &[Planted::DrainedTooEarly, Planted::TickAfterFinal], move || {
            let rig = rig(timer, None);
            let (ticks, tracker) = (rig.tick(), Arc::clone(&rig.tracker));
            rig.feed(2);
            rig.stop_generator();
            assert_eq!(rig.finish(ticks), [b"0", b"1"]);
            assert_eq!(tracker.unallocated(), (0, 0));
        });
    }
}

/// As after a push that did not end by the deadline: blocks that came too late are left, but no batch time is used twice.
#[test]
fn a_final_before_the_blocks_of_a_tick_gives_each_batch_its_own_time() {
    for timer in [BatchTimer::Thread, BatchTimer::Loop] {
        check(600, &[Planted::FinalForgetsWaitingTick], move || {
            let rig = rig(timer, None);
            let ticks = rig.tick();
            rig.feed(2);
            let (tracker, records) = (Arc::clone(&rig.tracker), rig.finish(ticks));
            let left = usize::try_from(tracker.unallocated().1).expect("two at most");
            assert_eq!(records, [b"0", b"1"][..2 - left]);
        });
    }
}

/// The timer's two signals may arrive as one before the loop waits; the first tick makes no batch whose end would wake it.
#[test]
fn two_ticks_that_one_signal_tells_of_are_both_taken() {
    check(600, &[Planted::DueTickWaitsForTimer], || {
        let rig = rig(BatchTimer::Thread, Some(1));
        let ticks = rig.tick();
        rig.reached.wait();
        rig.stop_generator();
        assert_eq!(rig.finish(ticks), Vec::<Vec<u8>>::new());
    });
}
