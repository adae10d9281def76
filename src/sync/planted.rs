//! `Planted`: defects at the hand-overs between threads, in the durable layers and at the receivers' bounds. One at a time
//! is planted, to prove that the model tests, the crash tests and the tests with hostile peers find it.
//!
//! Only `--cfg tidemill_planted` compiles them in; otherwise [`planted`] is a constant `false` and the branch disappears.
//! If you add a hand-over, add its most likely mistake here and name it in the `check` of its model test. The defect in
//! force belongs to the operating system's thread, and an exploration or a check of a log stays on one thread, so tests do
//! not disturb each other. A process that explores nothing takes the defect that the environment variable
//! `TIDEMILL_PLANTED` names, for all its threads, so that a test can plant it in a program that it starts.

#[cfg(tidemill_planted)]
use std::cell::Cell;

/// A defect, named for what the code forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// `Signal`: a raise that comes before the wait is lost.
    SignalForgetsRaise,
    /// `Mailbox`: a receive does not wake the senders that wait for room.
    RecvWakesNobody,
    /// `Mailbox`: the close wakes one of the senders that wait for room.
    MailboxCloseWakesOne,
    /// `TaskQueue`: a push wakes one reader, however many tasks it brings.
    PushWakesOne,
    /// `TaskQueue`: the close wakes one reader.
    TaskCloseWakesOne,
    /// `TaskQueue`: a closed queue hands out nothing.
    ClosedQueueDropsTasks,
    /// `StopToken`: a registration looks for the stop before it registers.
    StopCheckedFirst,
    /// `Poison`: a listener that registers late is not notified, or registers after it looked.
    PoisonCheckedFirst,
    /// `RecurringTimer`: the stop does not wake the thread.
    TimerSleepsThroughStop,
    /// `Thread`: a thread that drops its own handle waits for itself.
    ThreadJoinsItself,
    /// `Gate`: a reader that found no room does not look again after it marked the gate.
    GateSkipsRecheck,
    /// `Gate`: the mark is cleared after the readers are woken, and with it newer marks.
    GateClearsLate,
    /// `Pool`: a frozen buffer is not given back.
    FrozenBufferIsLost,
    /// `BlockManager`: a put wakes the spill before the block is there to be moved.
    PutLooksFirst,
    /// `BlockManager`: a block that was released while the spill had it is kept again.
    SpillPutsBackReleased,
    /// `BackOff`: a connection that was made counts as a good one, however soon it ends.
    BackOffResetOnConnect,
    /// `IntakeLane`: a lane with a backlog does not ask for the wake-up.
    BacklogAsksForNothing,
    /// `Generator`: a held cut that took nothing wakes the readers anyway.
    HeldCutWakesAll,
    /// `Generator`: a tick counts only the blocks in the push queue, not the one in the middle of a push.
    TickForgetsCurrentPush,
    /// `Generator`: the stop cuts once, whatever the push queue had no room for.
    StopCutsOnce,
    /// `ChunkLogger`: it does not check the queue again after it announced its wait.
    LoggerSkipsRecheck,
    /// `ChunkLogger`: a chunk is acknowledged when it is handed to the log, before it is durable.
    AcknowledgesBeforeLog,
    /// `ChunkLogger`: a chunk that found no room on the disk counts as durable.
    RefusedIsDurable,
    /// `JobLoop`: a batch runs before its plan is in the log.
    RunsBeforePlan,
    /// A start with a log forgets records that belong to no batch.
    ForgetsUnplanned,
    /// A checkpoint covers batches that are planned and not done.
    CoversTooMuch,
    /// A batch of an earlier run takes the partitions of this one.
    ReplayTakesWorkers,
    /// A batch that was planned under a job's old name is committed under the new one.
    ReplayTakesNewNames,
    /// `exec::run`: two tasks of a stage that end at once are counted as one.
    StageCountsOnce,
    /// `OpenBatch`: the nodes of a planning that failed count as computed.
    FailedPlanningIsKept,
    /// `JobLoop`: the stop does not give the waiting tick its blocks first.
    FinalForgetsWaitingTick,
    /// `JobLoop`: a tick that comes after the stop still becomes a batch.
    TickAfterFinal,
    /// `LoopTicks`: a tick that is due already waits for the timer's next signal.
    DueTickWaitsForTimer,
    /// `JobLoop`: the end is reported while batches run.
    DrainedTooEarly,
    /// `Running`: the job loop's mailbox closes before the last batch is done.
    StopSkipsDrain,
    /// `IntakeLane`: a record may be of any length.
    RecordLimitOff,
    /// `UnfinishedRecord`: an unfinished record is outside the memory budget.
    UnfinishedUncounted,
    /// `Owner`: a connection that waits for the fate of its record is not woken.
    GivenUpTellsNobody,
    /// `Seats`: there is always one seat more.
    ConnectionLimitOff,
    /// `Seat`: the place of a closed connection stays taken.
    SeatIsLost,
    /// The io models: the socket of a connection that ended is not closed.
    DescriptorLeak,
    /// `Acceptor`: a peer that is turned away for lack of descriptors is not counted.
    RefusedUncounted,
    /// `bio`: the thread of a connection does not end with it.
    ThreadLingers,
    /// `IntakeLane`: one peer that was turned away, or closed for a malformed frame, stops the reading of all peers.
    HonestStarved,
    /// The log: a sync of data reports success without a sync.
    SkipSync,
    /// The log: a group is acknowledged once it is written, before it is synced.
    AckBeforeSync,
    /// The log: a checksum that does not match counts as a match.
    IgnoreCrc,
    /// The log: an incomplete spare segment is kept, and tried again and again.
    SpareTriedForEver,
    /// A start mistakes missing newest segments, or missing newest groups, for a torn tail.
    AcceptsMissingNewest,
    /// `Storage`: a file gets its final name before its bytes are synced.
    RenameBeforeSync,
    /// The sinks: a batch counts as committed because its time, or a later one, is present.
    CommitByLabel,
    /// `Decider`: a second signal to stop ends the process, however soon it follows the first.
    SecondSignalAtOnce,
    /// `files`: two files count as one if they have the same inode.
    IdentityIsInode,
    /// `files`: a file with two names in the directory is two files.
    LinkIsReadTwice,
    /// The sink `sqlite` commits the rows of a batch, and then the mark that they are committed.
    #[cfg(feature = "sqlite")]
    MarkAfterRows,
}

/// True if this defect is in force.
#[cfg(not(tidemill_planted))]
pub(crate) const fn planted(_defect: Planted) -> bool {
    false
}

#[cfg(tidemill_planted)]
thread_local! {
    static IN_FORCE: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// True if this defect is in force.
#[cfg(tidemill_planted)]
pub(crate) fn planted(defect: Planted) -> bool {
    IN_FORCE.get() == Some(defect) || of_process() == Some(defect)
}

/// The defects that a process can be started with.
#[cfg(all(tidemill_planted, not(tidemill_model)))]
const OF_PROCESS: &[Planted] = &[
    Planted::CommitByLabel,
    Planted::BackOffResetOnConnect,
    Planted::SecondSignalAtOnce,
    Planted::AcceptsMissingNewest,
    Planted::AcknowledgesBeforeLog,
    Planted::RefusedIsDurable,
    Planted::RunsBeforePlan,
    Planted::ForgetsUnplanned,
    Planted::CoversTooMuch,
    Planted::ReplayTakesWorkers,
    Planted::ReplayTakesNewNames,
    Planted::RecordLimitOff,
    Planted::UnfinishedUncounted,
    Planted::ConnectionLimitOff,
    Planted::SeatIsLost,
    Planted::DescriptorLeak,
    Planted::RefusedUncounted,
    Planted::ThreadLingers,
    Planted::HonestStarved,
];

/// The defect that this process was started with. Reads the variable once: planting must not slow a process down.
#[cfg(all(tidemill_planted, not(tidemill_model)))]
fn of_process() -> Option<Planted> {
    static CHOSEN: std::sync::OnceLock<Option<Planted>> = std::sync::OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("TIDEMILL_PLANTED").ok()?;
        let chosen = OF_PROCESS.iter().copied().find(|defect| format!("{defect:?}") == name);
        assert!(chosen.is_some(), "no defect is called {name}");
        chosen
    })
}

#[cfg(all(tidemill_planted, tidemill_model))]
fn of_process() -> Option<Planted> {
    None
}

/// Runs `body` with a defect in force.
#[cfg(all(test, tidemill_planted))]
pub(crate) fn with<T>(defect: Planted, body: impl FnOnce() -> T) -> T {
    IN_FORCE.set(Some(defect));
    let result = body();
    IN_FORCE.set(None);
    result
}
