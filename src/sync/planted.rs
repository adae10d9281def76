//! `Planted`: defects at the hand-overs between threads, one at a time, to show that the model tests would find them.
//!
//! Only `--cfg tidemill_planted` compiles them in; otherwise [`planted`] is a constant `false` and the branch is gone.
//! Whoever adds a hand-over adds its most likely mistake here, and names it in the `check` of its model test. The
//! defect in force belongs to the operating system's thread, and an exploration stays on one: tests do not disturb each
//! other.

#[cfg(tidemill_planted)]
use std::cell::Cell;

/// A defect, named for what the code forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// `Signal`: a raise that comes before the wait is lost.
    SignalForgetsRaise,
    /// `Mailbox`: a receive does not tell the senders that there is room.
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
    /// `Poison`: a listener that registers late is told nothing, or registers after it looked.
    PoisonCheckedFirst,
    /// `RecurringTimer`: the stop does not wake the thread.
    TimerSleepsThroughStop,
    /// `Thread`: a thread that drops its own handle waits for itself.
    ThreadJoinsItself,
    /// `Account`: a starved reader does not look again after it said so.
    AccountSkipsRecheck,
    /// `Pool`: a frozen buffer is not given back.
    FrozenBufferIsLost,
    /// `RangeQueue`: a starved reader does not look again after it said so.
    QueueSkipsRecheck,
    /// `RangeQueue`: a drain clears the mark of the starved after it woke them, and with it newer marks.
    DrainClearsLate,
    /// `IntakeLane`: a lane with a backlog does not ask for the wake-up.
    BacklogAsksForNothing,
    /// `Generator`: a cut that was held and took nothing wakes the readers all the same.
    HeldCutWakesAll,
    /// `Generator`: a tick counts the blocks in the push queue only, not the one that is being pushed.
    TickForgetsCurrentPush,
    /// `Generator`: the stop cuts once, whatever the push queue had no room for.
    StopCutsOnce,
    /// `batch::run`: two tasks of a stage that end at once are counted as one.
    StageCountsOnce,
    /// `JobLoop`: the stop does not give the waiting tick its blocks first.
    FinalForgetsWaitingTick,
    /// `JobLoop`: a tick that comes after the stop still becomes a batch.
    TickAfterFinal,
    /// `JobLoop`: the end is told while batches run.
    DrainedTooEarly,
    /// `Running`: the job loop's mailbox closes before the last batch was done.
    StopSkipsDrain,
}

/// Whether this defect is in force.
#[cfg(not(tidemill_planted))]
pub(crate) const fn planted(_defect: Planted) -> bool {
    false
}

#[cfg(tidemill_planted)]
thread_local! {
    static IN_FORCE: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Whether this defect is in force.
#[cfg(tidemill_planted)]
pub(crate) fn planted(defect: Planted) -> bool {
    IN_FORCE.get() == Some(defect)
}

/// Runs `body` with a defect in force.
#[cfg(all(test, tidemill_model, tidemill_planted))]
pub(crate) fn with<T>(defect: Planted, body: impl FnOnce() -> T) -> T {
    IN_FORCE.set(Some(defect));
    let result = body();
    IN_FORCE.set(None);
    result
}
