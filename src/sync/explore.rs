//! Runs all model tests: each takes a scenario through thousands of schedules, the same ones in every run.
//!
//! Half of the schedules are random walks. The other half preempt rarely, at random places (PCT), and find bugs that need a
//! thread to be held for long. A failure prints its schedule, for `shuttle::replay`; `SHUTTLE_RANDOM_SEED` chooses other
//! schedules. A lost wake-up shows as a deadlock, or as a schedule that never ends.

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use super::planted::Planted;
use super::thread::{self, Thread};
use super::{Arc, Poison};

/// Fixed, so that a failure in one run is a failure in all.
const SEED: u64 = 0x071D_E000;

/// Preemptions that the PCT scheduler places, plus one.
const PCT_DEPTH: usize = 3;

/// The most steps of one schedule; a longer one counts as endless.
const STEPS_MAX: usize = 20_000;

/// The stack size of a task, in bytes.
const STACK_BYTES: usize = 256 * 1024;

type Scenario = Arc<dyn Fn() + Send + Sync>;

/// Runs `scenario` under `schedules` schedules. Built with `--cfg tidemill_planted`, it expects instead that each of
/// `defects` makes it fail.
pub(crate) fn check(
    schedules: usize,
    defects: &[Planted],
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let scenario: Scenario = Arc::new(scenario);
    if cfg!(tidemill_planted) {
        defects.iter().for_each(|defect| expect_found(*defect, schedules, &scenario));
    } else {
        explore(schedules, &scenario);
    }
}

/// A thread of a scenario.
pub(crate) fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> Thread {
    thread::spawn(name, &Poison::new(), body).expect("the explorer gives any number of threads")
}

fn explore(schedules: usize, scenario: &Scenario) {
    let half = schedules / 2;
    run(RandomScheduler::new_from_seed(SEED, half), scenario);
    run(PctScheduler::new_from_seed(SEED, PCT_DEPTH, half), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: &Scenario) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let scenario = Arc::clone(scenario);
    Runner::new(scheduler, config).run(move || scenario());
}

#[cfg(not(tidemill_planted))]
fn expect_found(_defect: Planted, _schedules: usize, _scenario: &Scenario) {}

#[cfg(tidemill_planted)]
fn expect_found(defect: Planted, schedules: usize, scenario: &Scenario) {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let explored = super::planted::with(defect, || {
        catch_unwind(AssertUnwindSafe(|| explore(schedules, scenario)))
    });
    assert!(explored.is_err(), "{schedules} schedules did not find {defect:?}");
}
