//! Does a figure grow? A line of least squares through the means of its bins, with its interval of confidence. Pure.
//!
//! ```text
//! samples ─▶ warm-up dropped ─▶ means of bins ─▶ least squares ─▶ slope per hour ± 95 % ─▶ judgement
//! ```
//! Neighbouring seconds resemble each other, which would make an interval look narrower than it is: so the line goes
//! through the means of at most [`BINS`] bins.

use std::fmt::Write as _;
use std::time::Duration;

use crate::settings::units::as_f64;

/// The part of the run that is left out: caches fill, pools find their size.
const WARM_UP: f64 = 0.1;

/// Points that the line goes through.
const BINS: usize = 60;

/// The least points with which an interval says anything.
const BINS_MIN: usize = 5;

/// A figure of a run, second by second.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Seconds from the start, with their values.
    pub(super) points: Vec<(f64, f64)>,
    pub(super) allowed: Allowed,
}

/// The slope per hour that passes.
pub(super) enum Allowed {
    /// In percent of the mean.
    Percent(f64),
    /// In the unit of the values.
    Units(f64),
}

/// A line of text for each series of a run of this length.
pub(super) fn table(series: Vec<Series>, length: Duration) -> String {
    let mut text = format!(
        "{:<22} {:>12} {:>14} {:>14}   {}\n",
        "of the receiver", "mean", "slope per hour", "± 95 %", "judgement"
    );
    for Series { name, points, allowed } in series {
        let (from, to) = (length.as_secs_f64() * WARM_UP, length.as_secs_f64());
        let kept: Vec<(f64, f64)> =
            points.into_iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let Some(line) = Line::through(&bins(&kept)) else {
            let _ = writeln!(text, "{name:<22} too few samples");
            continue;
        };
        let Line { mean, slope, error } = line;
        let (slope, error) = (slope * 3_600.0, error * 3_600.0);
        let judged = judge(&allowed, mean, slope, error);
        let _ = writeln!(text, "{name:<22} {mean:>12.1} {slope:>+14.2} {error:>14.2}   {judged}");
    }
    text
}

fn judge(allowed: &Allowed, mean: f64, slope: f64, error: f64) -> &'static str {
    let bound = match allowed {
        Allowed::Percent(percent) => mean * percent / 100.0,
        Allowed::Units(units) => *units,
    };
    if slope.abs() + error <= bound {
        "flat: within the bound"
    } else if slope.abs() <= error {
        "not distinguishable from 0"
    } else if slope.abs() <= bound {
        "within the bound"
    } else if slope < 0.0 {
        "falls"
    } else {
        "GROWS"
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
struct Line {
    mean: f64,
    slope: f64,
    /// Half of the slope's interval of 95 % confidence.
    error: f64,
}

impl Line {
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
        let check = |slope, error, expected| {
            assert_eq!(judge(&Allowed::Percent(1.0), 1_000.0, slope, error), expected);
        };
        check(1.0, 2.0, "flat: within the bound");
        check(50.0, 60.0, "not distinguishable from 0");
        check(9.0, 2.0, "within the bound");
        check(50.0, 2.0, "GROWS");
        check(-50.0, 2.0, "falls");
        assert_eq!(judge(&Allowed::Units(0.0), 9.0, 0.0, 0.0), "flat: within the bound");
    }

    #[test]
    fn bins_gather_seconds() {
        let points: Vec<(f64, f64)> = (0..120).map(|at| (f64::from(at), 1.0)).collect();
        assert_eq!((bins(&points).len(), bins(&points)[0]), (60, (0.5, 1.0)));
        assert_eq!(bins(&points[..7]).len(), 7);
    }
}
