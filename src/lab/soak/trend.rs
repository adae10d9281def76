//! Does a figure grow? A line of least squares through the means of its bins, with its interval of confidence. Pure.
//!
//! ```text
//! samples ─▶ warm-up dropped ─▶ means of bins ─▶ least squares ─▶ slope per hour ± 95 % ─▶ judgement
//! ```
//! Neighbouring seconds resemble each other, which would make an interval look narrower than it is: so the line goes
//! through the means of at most [`BINS`] bins.

use crate::lab::results::{Cell, SoakSecond};
use crate::page::Unit;
use crate::settings::units::as_f64;

/// The part of the run that is left out: caches fill, pools find their size.
const WARM_UP: f64 = 0.1;

/// The least length of a run whose slopes are judged, in seconds. A slope per hour of a shorter run is mostly that of its
/// first minutes, in which tables and pools still grow.
pub(in crate::lab) const JUDGED_MIN: f64 = 600.0;

/// Points that the line goes through.
const BINS: usize = 60;

/// The least points with which an interval says anything.
const BINS_MIN: usize = 5;

/// A figure of a run, second by second.
pub(in crate::lab) struct Series {
    pub(in crate::lab) name: &'static str,
    pub(in crate::lab) unit: Unit,
    /// Seconds from the start, with their values.
    pub(in crate::lab) points: Vec<(f64, f64)>,
    allowed: Allowed,
}

/// The slope per hour that passes.
enum Allowed {
    /// In percent of the mean.
    Percent(f64),
    /// In the unit of the values.
    Units(f64),
}

/// A series with its slope and what that means.
pub(in crate::lab) struct Trend {
    pub(in crate::lab) series: Series,
    pub(in crate::lab) line: Option<Line>,
    pub(in crate::lab) judgement: Judgement,
}

/// The meaning of a slope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lab) enum Judgement {
    /// The run was shorter than [`JUDGED_MIN`].
    TooShort,
    /// There is no interval.
    TooFew,
    /// The whole interval is within the bound.
    Flat,
    /// The interval has zero in it.
    NoSlope,
    /// It is not zero, and within the bound.
    Within,
    Falls,
    Grows,
}

impl Judgement {
    pub(in crate::lab) fn words(self) -> &'static str {
        match self {
            Judgement::TooShort => "not judged: the run is too short",
            Judgement::TooFew => "not judged: too few samples",
            Judgement::Flat => "flat: within the bound",
            Judgement::NoSlope => "not distinguishable from 0",
            Judgement::Within => "within the bound",
            Judgement::Falls => "falls",
            Judgement::Grows => "GROWS",
        }
    }
}

/// The figures of a soak with their slopes; nothing of a cell without a run.
pub(in crate::lab) fn trends(cell: &Cell) -> Vec<Trend> {
    let Some((_, figures)) = cell.done().next() else { return Vec::new() };
    let seconds = &figures.seconds_of_soak;
    let length = seconds.last().map_or(0.0, |second| second.at).max(figures.seconds);
    let trend = |series: Series| {
        let kept = series.points.iter().filter(|(at, _)| (length * WARM_UP..length).contains(at));
        let line = Line::through(&bins(&kept.copied().collect::<Vec<_>>()));
        let judgement = match line {
            None => Judgement::TooFew,
            Some(_) if length < JUDGED_MIN => Judgement::TooShort,
            Some(line) => judge(&series.allowed, line),
        };
        Trend { series, line, judgement }
    };
    all_series(seconds).into_iter().map(trend).collect()
}

fn all_series(seconds: &[SoakSecond]) -> Vec<Series> {
    let with_batches = || seconds.iter().filter(|second| second.batches > 0);
    let batches = |of: fn(&SoakSecond) -> f64| with_batches().map(|it| (it.at, of(it))).collect();
    let process = |of: fn(&SoakSecond) -> f64| seconds.iter().map(|it| (it.at, of(it))).collect();
    let (time, number) = (Unit::SECONDS, Unit::plain(""));
    let series = |name, unit, points, allowed| Series { name, unit, points, allowed };
    let (percent, mebibyte) = (Allowed::Percent(1.0), Allowed::Units(1_048_576.0));
    vec![
        series("processing time", time, batches(|it| it.processing_us / 1e6), percent),
        series("scheduling delay", time, batches(|it| it.delay_us / 1e6), Allowed::Percent(1.0)),
        series(
            "own memory",
            Unit::MEMORY,
            process(|it| as_f64(it.sample.anonymous_bytes)),
            mebibyte,
        ),
        series("descriptors", number, process(|it| as_f64(it.sample.files)), Allowed::Units(0.0)),
        series("threads", number, process(|it| as_f64(it.sample.threads)), Allowed::Units(0.0)),
    ]
}

impl Trend {
    /// The slope and its meaning.
    pub(in crate::lab) fn sentence(&self) -> String {
        let Trend { series, line, judgement } = self;
        let words = judgement.words();
        line.map_or(format!("The {}: {words}.", series.name), |line| {
            let shown = |value: f64| series.unit.shown(value);
            let (slope, error) = (shown(line.per_hour()), shown(line.error_per_hour()));
            format!("The {}: {slope} per hour ± {error}; {words}.", series.name)
        })
    }
}

fn judge(allowed: &Allowed, line: Line) -> Judgement {
    let (slope, error) = (line.per_hour(), line.error_per_hour());
    let bound = match allowed {
        Allowed::Percent(percent) => line.mean * percent / 100.0,
        Allowed::Units(units) => *units,
    };
    if slope.abs() + error <= bound {
        Judgement::Flat
    } else if slope.abs() <= error {
        Judgement::NoSlope
    } else if slope.abs() <= bound {
        Judgement::Within
    } else if slope < 0.0 {
        Judgement::Falls
    } else {
        Judgement::Grows
    }
}

/// The means of neighbouring points.
fn bins(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(BINS).max(1);
    let mean = |bin: &[(f64, f64)]| {
        let count = as_f64(bin.len() as u64);
        let sum = bin.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(size).map(mean).collect()
}

/// A line of least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::lab) struct Line {
    pub(in crate::lab) mean: f64,
    /// Per second.
    slope: f64,
    /// Half of the slope's interval of 95 % confidence, per second.
    error: f64,
}

impl Line {
    pub(in crate::lab) fn per_hour(&self) -> f64 {
        self.slope * 3_600.0
    }

    pub(in crate::lab) fn error_per_hour(&self) -> f64 {
        self.error * 3_600.0
    }

    /// The line through these points; none if there are too few of them.
    fn through(points: &[(f64, f64)]) -> Option<Line> {
        if points.len() < BINS_MIN {
            return None;
        }
        let count = as_f64(points.len() as u64);
        let middle = points.iter().map(|point| point.0).sum::<f64>() / count;
        let mean = points.iter().map(|point| point.1).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|point| (point.0 - middle).powi(2)).sum();
        if spread <= 0.0 {
            return None;
        }
        let together = |point: &(f64, f64)| (point.0 - middle) * (point.1 - mean);
        let slope = points.iter().map(together).sum::<f64>() / spread;
        let rest = |point: &(f64, f64)| (point.1 - mean - slope * (point.0 - middle)).powi(2);
        let rests: f64 = points.iter().map(rest).sum();
        let error = (rests / (count - 2.0) / spread).sqrt() * student(points.len() - 2);
        Some(Line { mean, slope, error })
    }
}

/// The 97.5th percentile of Student's distribution; rounded up between the rows of the table.
fn student(freedom: usize) -> f64 {
    const TABLE: [(usize, f64); 10] = [
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (8, 2.306),
        (10, 2.228),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (58, 2.002),
    ];
    let row = TABLE.iter().rev().find(|(least, _)| freedom >= *least);
    row.map_or(12.706, |(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::results::{Figures, Run, RunOutcome};
    use crate::lab::sample::Sample;

    fn check(points: &[f64], slope: f64, flat: bool) {
        let points: Vec<(f64, f64)> =
            points.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
        let line = Line::through(&points).expect("enough points");
        assert!((line.slope - slope).abs() < 1e-9, "{line:?}");
        assert_eq!(line.slope.abs() <= line.error, flat, "{line:?}");
    }

    #[test]
    fn slopes_and_their_intervals() {
        check(&[5.0; 20], 0.0, true);
        check(&[0.0, 2.0, 4.0, 6.0, 8.0, 10.0], 2.0, false);
        check(&[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0], 0.0, true);
        assert_eq!(Line::through(&[(0.0, 1.0); 4]), None);
        assert_eq!(Line::through(&[(0.0, 1.0); 40]), None, "all at once");
    }

    #[test]
    fn judgements() {
        let check = |slope: f64, error: f64, expected| {
            let line = Line { mean: 1_000.0, slope: slope / 3_600.0, error: error / 3_600.0 };
            assert_eq!(judge(&Allowed::Percent(1.0), line), expected);
        };
        check(1.0, 2.0, Judgement::Flat);
        check(50.0, 60.0, Judgement::NoSlope);
        check(9.0, 2.0, Judgement::Within);
        check(50.0, 2.0, Judgement::Grows);
        check(-50.0, 2.0, Judgement::Falls);
        let still = Line { mean: 9.0, slope: 0.0, error: 0.0 };
        assert_eq!(judge(&Allowed::Units(0.0), still), Judgement::Flat);
    }

    /// A soak of so many seconds whose processing time doubles in an hour and whose memory stays.
    fn soak(seconds: u32) -> Cell {
        let second = |at: u32| SoakSecond {
            at: f64::from(at),
            sample: Sample { anonymous_bytes: 1 << 20, threads: 3, files: 9, ..Sample::default() },
            batches: 10,
            processing_us: 100.0 * (1.0 + f64::from(at) / 3_600.0),
            delay_us: 1.0,
        };
        let seconds_of_soak = (0..=seconds).map(second).collect();
        let figures = Figures { seconds_of_soak, ..Figures::default() };
        let run = Run { pair: 0, turn: 0, outcome: RunOutcome::Done(Box::new(figures)) };
        Cell { runs: vec![run], ..Cell::default() }
    }

    #[test]
    fn slopes_are_judged_from_a_minimum_of_time_on() {
        let check = |seconds, expected: [Judgement; 2]| {
            let found = trends(&soak(seconds));
            assert_eq!([found[0].judgement, found[2].judgement], expected, "{seconds}");
        };
        check(3, [Judgement::TooFew; 2]);
        check(599, [Judgement::TooShort; 2]);
        check(600, [Judgement::Grows, Judgement::Flat]);
        assert!(trends(&Cell::default()).is_empty());
    }

    #[test]
    fn a_sentence_says_the_slope_and_what_it_means() {
        let found = trends(&soak(600));
        let sentence = found[0].sentence().replace('\u{a0}', " ");
        assert_eq!(sentence, "The processing time: 100 µs per hour ± 0 s; GROWS.");
        assert!(trends(&soak(2))[0].sentence().ends_with("too few samples."));
    }

    #[test]
    fn bins_gather_seconds() {
        let points: Vec<(f64, f64)> = (0..120).map(|at| (f64::from(at), 1.0)).collect();
        assert_eq!((bins(&points).len(), bins(&points)[0]), (60, (0.5, 1.0)));
        assert_eq!(bins(&points[..7]).len(), 7);
    }
}
