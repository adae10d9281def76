//! A whole stream without sockets under the schedule explorer: ticks race with the stop in order.

use std::time::Duration;

use super::*;
use crate::Interval;
use crate::sync::explore::{check, thread};
use crate::sync::planted::Planted;

/// The clock passes two ticks while the stream is stopped: every planned batch runs, the first ones of the source, and
/// every thread ends.
#[test]
fn a_stop_between_ticks_runs_what_was_planned_and_leaves_nothing() {
    let defects =
        [Planted::StopSkipsDrain, Planted::DrainedTooEarly, Planted::TimerSleepsThroughStop];
    check(500, &defects, || {
        let clock = ManualClock::new();
        let config = Config::new("model").batch_interval(Interval::secs(1)).workers(1);
        let ctx = StreamingContext::with_clock(config, clock.clone()).expect("it is valid");
        let batches = vec![Some(vec![1]), Some(vec![2]), Some(vec![3])];
        let rows = ctx.queue_stream(batches, 1).collect();
        let running = ctx.start().expect("threads");
        let driver = thread("driver", move || {
            (0..2).for_each(|_| clock.advance(Duration::from_secs(1)));
        });
        let report = running.stop().expect("nothing is left");
        driver.join();
        let rows: Vec<i32> = rows.rows().into_iter().flat_map(|(_, rows)| rows).collect();
        assert!(report.batches > 0 && report.left.is_empty(), "{report:?}");
        assert_eq!(rows, [1, 2, 3][..usize::try_from(report.batches).expect("three at most")]);
    });
}
