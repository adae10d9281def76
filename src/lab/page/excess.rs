//! Latencies less the floor that a batch interval alone makes: half of it at the median, 0.99 of it at the 99th percentile.
//! The curve of a cell with its spread, as far as enough samples lie beyond it. Pure.

use hdrhistogram::Histogram;

use crate::lab::protocol::{histogram, histogram_of};
use crate::lab::results::{Cell, Figures};
use crate::page::{Point, Stretch};
use crate::settings::units::as_f64;

/// The samples that must lie beyond a percentile for it to be shown.
pub(super) const BEYOND_MIN: f64 = 100.0;

/// The furthest percentile that is shown: 99.99 %, as one in this many.
pub(super) const ONE_IN_MAX: f64 = 1e4;

/// Nanoseconds of a second, and microseconds of one.
const NANOS: f64 = 1e9;
const MICROS: f64 = 1e6;

/// Points for each tenfold of the horizontal axis.
const POINTS: i32 = 12;

/// The latencies of a cell's runs, in seconds over a floor.
pub(super) struct Excess {
    all: Histogram<u64>,
    runs: Vec<RunExcess>,
    /// The interval whose part is the floor, in seconds.
    interval: f64,
}

/// One run.
struct RunExcess {
    latencies: Histogram<u64>,
    /// The time by which its sender was late at most, in seconds: the line was younger than its stamp by no more.
    sender_late: f64,
}

impl Excess {
    /// The excess of a cell over this interval in seconds; `None` if no run has latencies.
    pub(super) fn of(cell: &Cell, interval: f64) -> Option<Excess> {
        let timed = cell.done().map(|(_, figures)| figures).filter(|it| !it.latencies.is_empty());
        let runs: Vec<RunExcess> = timed.map(RunExcess::of).collect();
        let mut all = histogram();
        runs.iter().for_each(|run| all.add(&run.latencies).expect("it grows"));
        (!runs.is_empty()).then_some(Excess { all, runs, interval })
    }

    /// The lines that were timed.
    pub(super) fn lines(&self) -> u64 {
        self.all.len()
    }

    /// True if enough samples lie beyond this percentile, beyond which one sample in `one_in` lies.
    pub(super) fn reaches(&self, one_in: f64) -> bool {
        as_f64(self.all.len()) / one_in >= BEYOND_MIN * 0.999_999
    }

    /// The excess of all runs together, in seconds.
    pub(super) fn at(&self, one_in: f64) -> f64 {
        self.over(&self.all, 1.0 - 1.0 / one_in)
    }

    /// The longest latency of all, less the whole interval.
    pub(super) fn longest(&self) -> f64 {
        self.over(&self.all, 1.0)
    }

    fn over(&self, latencies: &Histogram<u64>, part: f64) -> f64 {
        as_f64(latencies.value_at_quantile(part)) / NANOS - part * self.interval
    }

    /// From the least run, less the lateness of its sender, to the greatest one.
    pub(super) fn stretch(&self, one_in: f64) -> Stretch {
        let part = 1.0 - 1.0 / one_in;
        let middle = self.at(one_in);
        let run = |run: &RunExcess| self.over(&run.latencies, part);
        let low = |it: &RunExcess| run(it) - it.sender_late;
        Stretch {
            at: one_in,
            low: self.runs.iter().map(low).fold(middle, f64::min),
            high: self.runs.iter().map(run).fold(middle, f64::max),
        }
    }

    /// The most by which a sender was late, in seconds.
    pub(super) fn sender_late(&self) -> f64 {
        self.runs.iter().map(|run| run.sender_late).fold(0.0, f64::max)
    }

    /// The places of the curve, from the median as far as it reaches.
    fn places(&self) -> impl Iterator<Item = f64> {
        let last = ONE_IN_MAX.log10() * f64::from(POINTS);
        let steps = (0..).map(f64::from).take_while(move |step| *step <= last + 0.5);
        let places = steps.map(|step| 10_f64.powf(step / f64::from(POINTS)));
        places.filter(|one_in| *one_in >= 1.99 && self.reaches(*one_in))
    }

    pub(super) fn points(&self) -> Vec<Point> {
        self.places().map(|one_in| Point::new(one_in, self.at(one_in))).collect()
    }

    pub(super) fn band(&self) -> Vec<Stretch> {
        self.places().map(|one_in| self.stretch(one_in)).collect()
    }
}

impl RunExcess {
    fn of(figures: &Figures) -> RunExcess {
        RunExcess {
            latencies: histogram_of(&figures.latencies),
            sender_late: as_f64(figures.sent.behind_micros) / MICROS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::protocol::Sent;
    use crate::lab::results::{Run, RunOutcome};

    /// Lines that come evenly over a batch of 10 ms and take this much longer, in microseconds.
    fn run(above: u64, lines: u64, behind_micros: u64) -> Run {
        let latencies = (0..1_000).map(|n| ((n * 10 + above) * 1_000, lines)).collect();
        let sent = Sent { behind_micros, ..Sent::default() };
        let figures = Figures { latencies, sent, ..Figures::default() };
        Run { pair: 0, turn: 0, outcome: RunOutcome::Done(Box::new(figures)) }
    }

    fn excess(runs: Vec<Run>) -> Excess {
        Excess::of(&Cell { runs, ..Cell::default() }, 0.01).expect("latencies")
    }

    #[test]
    fn the_floor_is_taken_off_and_the_spread_has_the_sender() {
        let excess = excess(vec![run(400, 1, 0), run(600, 1, 50)]);
        for one_in in [2.0, 10.0] {
            let Stretch { low, high, .. } = excess.stretch(one_in);
            let middle = excess.at(one_in);
            assert!((middle - 0.000_5).abs() < 0.000_06, "{middle}");
            assert!(
                (low - 0.000_4).abs() < 0.000_06 && (high - 0.000_6).abs() < 0.000_06,
                "{low} {high}"
            );
        }
        let late = super::tests::excess(vec![run(400, 1, 300)]).stretch(2.0);
        assert!((late.high - late.low - 0.000_3).abs() < 1e-6, "{late:?}");
    }

    #[test]
    fn a_percentile_needs_samples_beyond_it() {
        let check = |lines, one_in, expected| {
            assert_eq!(
                excess(vec![run(0, lines, 0)]).reaches(one_in),
                expected,
                "{lines} {one_in}"
            );
        };
        check(1, 10.0, true);
        check(1, 11.0, false);
        check(1_000, 1e4, true);
        check(999, 1e4, false);
        let last =
            |lines| excess(vec![run(0, lines, 0)]).points().last().map(|point| point.x.round());
        assert_eq!((last(1), last(1_000)), (Some(10.0), Some(1e4)));
    }

    #[test]
    fn a_cell_without_latencies_has_none() {
        assert!(Excess::of(&Cell::default(), 0.01).is_none());
    }
}
