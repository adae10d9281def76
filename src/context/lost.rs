//! A start whose direct sources no longer have input that batches of an earlier run would read again: refused, given up,
//! or only missing from windows. Runs on the thread that starts the stream; once.

use std::collections::BTreeSet;

use crate::config::{Resolved, Then};
use crate::error::{Error, Result};
use crate::journal::{Found, Replay, Run};
use crate::metrics::{Event, EventBus};
use crate::scheduler::{LostInput, count_lost};
use crate::source::direct::{DirectSource, DirectStart, Lost, LostSum, OnLost, REMEDY};
use crate::stream::Graph;
use crate::time::Time;

use super::RunLimits;
use super::sources::{DirectOptions, Start};

/// Decides about input that was never processed, beside the source's own `on_lost`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Policy {
    /// The user who starts the stream gives it up.
    pub(super) given_up: bool,
    /// A batch that fails without it becomes a dead letter, and the stream continues.
    pub(super) dead_letters: bool,
}

impl Policy {
    /// The policy of a run with these options and limits.
    pub(super) fn of(config: &Resolved, limits: RunLimits) -> Policy {
        let dead_letters = config.on_failure.then == Then::DeadLetter;
        Policy { given_up: limits.give_up_lost, dead_letters }
    }
}

/// A batch that runs again and lacks input of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lacking {
    index: u64,
    run: Run,
    lost: Vec<Lost>,
}

/// Asks the direct sources for input of the batches that run again that they no longer have, and changes `found` so that no state
/// is made of such a batch.
///
/// # Errors
/// If input is lost that was never processed, and nothing allows the stream to continue without it.
pub(super) fn find(
    found: &mut Found,
    graph: &Graph,
    sources: &[Start],
    policy: Policy,
    events: &EventBus,
) -> Result<LostInput> {
    let mut lost = LostInput { given_up: policy.given_up, ..LostInput::default() };
    let mut not_for_states = BTreeSet::new();
    for source in sources {
        let Start::Direct(options) = source else { continue };
        let number = found.number_of(options.number);
        let batches = lacking(&found.resume.replays, number, &*options.source)?;
        let for_states = batches.iter().filter(|batch| batch.run == Run::ForStates);
        not_for_states.extend(for_states.map(|batch| batch.index));
        let batches = allowed(&options.name, batches, options.source.on_lost(), policy)?;
        tell(options, &batches, &mut lost, events);
        for Lacking { index, lost: ranges, .. } in batches {
            lost.known.insert((index, options.number), ranges);
        }
    }
    for time in found.resume.skip_for_states(&not_for_states) {
        graph.lacks_states(Time::from_millis(time));
    }
    Ok(lost)
}

/// Asks a source that was started for input that it knew of, no plan took, and it no longer has.
///
/// # Errors
/// If there is such input, and nothing allows the stream to continue without it.
pub(super) fn find_unplanned(
    source: &dyn DirectSource,
    start: &DirectStart,
    given_up: bool,
) -> Result<()> {
    let sum = LostSum::of(&source.lost_unplanned()?);
    if sum.ranges == 0 {
        return Ok(());
    }
    if source.on_lost() == OnLost::Stop && !given_up {
        return Err(refusal(&start.source, &sum));
    }
    count_lost(&start.counters, sum.bytes, false);
    start.events.post(event(&start.source, &sum, false));
    Ok(())
}

fn refusal(source: &str, sum: &LostSum) -> Error {
    Error::Failed(format!("source `{source}`: {sum}; {REMEDY}"))
}

fn event(source: &str, sum: &LostSum, processed: bool) -> Event {
    Event::InputLost {
        source: source.to_owned(),
        ranges: sum.ranges,
        bytes: sum.bytes,
        records: sum.records,
        what: sum.to_string(),
        processed,
    }
}

/// The batches that lack input of the source that has this number in the log.
fn lacking(replays: &[Replay], number: u32, source: &dyn DirectSource) -> Result<Vec<Lacking>> {
    let of_replay = |replay: &Replay| {
        let (_, plan) = replay.plan.ranges.iter().find(|(of, _)| *of == number)?;
        (!plan.is_empty()).then(|| (replay.plan.index, replay.run, plan.clone()))
    };
    let takes: Vec<(u64, Run, Vec<u8>)> = replays.iter().filter_map(of_replay).collect();
    let plans: Vec<&[u8]> = takes.iter().map(|(.., plan)| plan.as_slice()).collect();
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    let lost = takes.iter().zip(source.lost(&plans)?);
    let lacking = lost.filter(|(_, lost)| !lost.is_empty());
    Ok(lacking.map(|((index, run, _), lost)| Lacking { index: *index, run: *run, lost }).collect())
}

/// The batches that may continue without the input they lack. One that becomes a dead letter is not among them: it fails first.
fn allowed(
    source: &str,
    batches: Vec<Lacking>,
    on_lost: OnLost,
    policy: Policy,
) -> Result<Vec<Lacking>> {
    let may_skip = policy.given_up || on_lost == OnLost::Skip;
    let (refused, allowed): (Vec<Lacking>, Vec<Lacking>) =
        batches.into_iter().partition(|batch| batch.run == Run::Again && !may_skip);
    let lost = LostSum::of(refused.iter().flat_map(|batch| &batch.lost));
    if lost.ranges == 0 || policy.dead_letters {
        return Ok(allowed);
    }
    Err(refusal(source, &lost))
}

/// Reports the input that the batches go without, once for each kind.
fn tell(options: &DirectOptions, batches: &[Lacking], lost: &mut LostInput, events: &EventBus) {
    for processed in [true, false] {
        let of_kind = batches.iter().filter(|batch| (batch.run != Run::Again) == processed);
        let sum = LostSum::of(of_kind.flat_map(|batch| &batch.lost));
        if sum.ranges == 0 {
            continue;
        }
        lost.bytes.push((options.number, sum.bytes, processed));
        events.post(event(&options.name, &sum, processed));
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::source::direct::Unit;

    fn batch(index: u64, run: Run) -> Lacking {
        let (of, why) = (format!("file `{index}`"), "it is gone".to_owned());
        let lost = vec![Lost { of, from: 0, to: 10, unit: Unit::Bytes, why }];
        Lacking { index, run, lost }
    }

    /// Batch 1 is for windows, 2 for states, 3 and 4 were never processed: those that may continue, or the refusal.
    fn check(on_lost: OnLost, given_up: bool, dead_letters: bool, expected: Result<&[u64], &str>) {
        let runs = [Run::ForWindows, Run::ForStates, Run::Again, Run::Again];
        let batches = (1..).zip(runs).map(|(index, run)| batch(index, run)).collect();
        let policy = Policy { given_up, dead_letters };
        let outcome = allowed("s", batches, on_lost, policy).map_err(|err| err.to_string());
        let indexes = outcome.map(|all| all.iter().map(|batch| batch.index).collect::<Vec<_>>());
        assert_eq!(indexes.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn what_was_never_processed_is_given_up_only_where_somebody_said_so() {
        let refusal = "source `s`: bytes 0 to 10 of file `3` cannot be read: it is gone; and one more range, 20 bytes \
            in all; it was never processed: start once with `--give-up-lost` to go on without it, or set \
            `on_lost = \"skip\"` for the source";
        check(OnLost::Stop, false, false, Err(refusal));
        check(OnLost::Stop, true, false, Ok(&[1, 2, 3, 4]));
        check(OnLost::Skip, false, false, Ok(&[1, 2, 3, 4]));
        check(OnLost::Stop, false, true, Ok(&[1, 2]));
        check(OnLost::Stop, true, true, Ok(&[1, 2, 3, 4]));
        let windows = vec![batch(1, Run::ForWindows)];
        assert_eq!(
            allowed("s", windows.clone(), OnLost::Stop, Policy::default()).ok(),
            Some(windows)
        );
    }
}
