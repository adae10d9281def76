//! Medians and spreads, the order in which sides take turns, and the histogram format that the HdrHistogram plotter reads.
//! Pure; any thread.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::settings::units::as_f64;

/// Nanoseconds of a millisecond: values are shown in milliseconds.
const MILLI: f64 = 1e6;

/// Steps for each halving of the distance to 100 % in the percentile lines.
const TICKS_PER_HALF: u32 = 5;

/// The spread of several repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The middle value; of an even number of values the mean of the middle two.
    pub median: f64,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
    /// A quarter of the values lies at or below this.
    pub low: f64,
    /// A quarter of the values lies at or above this.
    pub high: f64,
}

impl Summary {
    /// The summary of no values.
    pub const EMPTY: Summary =
        Summary { median: f64::NAN, min: f64::NAN, max: f64::NAN, low: f64::NAN, high: f64::NAN };

    /// The summary of these values; `None` of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        let (low, high) = (nearest(&values, 0.25), nearest(&values, 0.75));
        Some(Summary { median, min, max, low, high })
    }

    /// Largest minus smallest value, in percent of the median.
    pub(crate) fn spread_percent(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / self.median * 100.0 }
    }
}

/// The median of these values; NaN of no values.
pub fn median(values: &[f64]) -> f64 {
    Summary::of(values.iter().copied()).unwrap_or(Summary::EMPTY).median
}

/// The value at this part of the sorted values: the nearest rank, no value between two. NaN of no values.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    nearest(&sorted, part)
}

fn nearest(sorted: &[f64], part: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position")]
    let at = (part * as_f64(sorted.len().saturating_sub(1) as u64)).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The ratio of each value to that of the same pair in `beside`.
pub fn ratios(values: &[f64], beside: &[f64]) -> Vec<f64> {
    values.iter().zip(beside).map(|(value, beside)| value / beside).collect()
}

/// The sides of a round in their order: every other round goes backwards, so that no side always finds the warmer or the
/// cooler machine.
pub fn alternating(round: usize, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |turn| if round.is_multiple_of(2) { turn } else { sides - 1 - turn })
}

/// Runs every side once in each round, in [alternating] order. Returns what each side gave, by round.
///
/// # Errors
/// The first that a run returns.
pub fn alternate<const SIDES: usize, T, E>(
    rounds: usize,
    mut run: impl FnMut(usize) -> Result<T, E>,
) -> Result<[Vec<T>; SIDES], E> {
    let mut sides = [const { Vec::new() }; SIDES];
    for round in 0..rounds {
        for side in alternating(round, SIDES) {
            sides[side].push(run(side)?);
        }
    }
    Ok(sides)
}

/// A quantile in milliseconds.
pub(crate) fn millis_at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    as_f64(histogram.value_at_quantile(quantile)) / MILLI
}

/// The histogram, recorded in nanoseconds, as a percentile distribution in milliseconds.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut seen = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        seen += step.count_since_last_iteration();
        let (value, quantile) =
            (as_f64(step.value_iterated_to()) / MILLI, step.quantile_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:2.12} {seen:10}");
        let _ = if quantile < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text)
        };
    }
    let (mean, deviation) = (histogram.mean() / MILLI, histogram.stdev() / MILLI);
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let (max, count) = (as_f64(histogram.max()) / MILLI, histogram.len());
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    let (buckets, subs) = (histogram.buckets(), histogram.distinct_values());
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {subs:12}]");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        let check = |values: &[f64], expected: Option<(f64, f64, f64)>| {
            let summary = Summary::of(values.iter().copied());
            assert_eq!(summary.map(|s| (s.median, s.min, s.max)), expected, "{values:?}");
        };
        check(&[], None);
        check(&[2.0], Some((2.0, 2.0, 2.0)));
        check(&[3.0, 1.0], Some((2.0, 1.0, 3.0)));
        check(&[9.0, 1.0, 2.0], Some((2.0, 1.0, 9.0)));
        check(&[4.0, 1.0, 3.0, 2.0], Some((2.5, 1.0, 4.0)));
        let spread =
            |values: &[f64]| Summary::of(values.iter().copied()).map(|it| it.spread_percent());
        assert_eq!(spread(&[1.0, 2.0, 4.0]), Some(150.0));
        assert_eq!(spread(&[0.0]), Some(0.0));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quantiles_are_values_that_came() {
        let values = [30.0, 10.0, 20.0, 40.0, 50.0];
        let check = |part, expected| assert_eq!(quantile(&values, part), expected, "{part}");
        check(0.0, 10.0);
        check(0.25, 20.0);
        check(0.3, 20.0);
        check(0.4, 30.0);
        check(1.0, 50.0);
        let summary = Summary::of(values).expect("values");
        assert_eq!((summary.low, summary.high), (20.0, 40.0));
    }

    #[test]
    fn sides_take_turns() {
        let order = |round, sides| alternating(round, sides).collect::<Vec<_>>();
        assert_eq!(
            (order(0, 3), order(1, 3), order(2, 1)),
            (vec![0, 1, 2], vec![2, 1, 0], vec![0])
        );
        let mut runs = Vec::new();
        let sides: Result<[Vec<usize>; 2], ()> = alternate(2, |side| {
            runs.push(side);
            Ok(runs.len())
        });
        assert_eq!(sides, Ok([vec![1, 4], vec![2, 3]]));
        assert_eq!(
            alternate::<2, (), _>(3, |side| if side == 1 { Err(side) } else { Ok(()) }),
            Err(1)
        );
    }

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits");
        values.into_iter().for_each(|value| histogram.record(value).expect("it grows"));
        histogram
    }

    /// The points that the plotter's page reads of a file: of the lines with four words that are numbers, the first and the last.
    fn plotted(text: &str) -> Vec<(f64, f64)> {
        let row = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [value, _, _, one_in] => Some((one_in.parse().ok()?, value.parse().ok()?)),
            _ => None,
        };
        text.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
    }

    /// The lines of a file with at least three numbers.
    fn parse(text: &str) -> Vec<(f64, f64, u64)> {
        let row = |line: &str| {
            let mut words = line.split_whitespace();
            let mut next = || words.next();
            Some((next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?))
        };
        text.lines().filter(|line| !line.starts_with('#')).filter_map(row).collect()
    }

    #[test]
    fn an_hgrm_file_reads_back() {
        let histogram = histogram((1..=10_000).map(|n| n * 1_000_000));
        let text = hgrm(&histogram);
        let rows = parse(&text);
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
        assert_eq!(rows.first().map(|row| row.1), Some(0.0));
        let last = rows.last().expect("rows");
        assert_eq!((last.1, last.2), (1.0, 10_000));
        assert!(rows.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].1 <= two[1].1));
        let median = rows.iter().find(|row| row.1 >= 0.5).expect("a median").0;
        assert!((median - 5_000.0).abs() < 10.0, "{median}");
        assert!(rows.iter().any(|row| row.1 > 0.999_9 && row.1 < 1.0), "up to 99.99 %:\n{text}");
        assert!(text.contains("Total count    =        10000]"), "{text}");
        let plotted = plotted(&text);
        assert_eq!(plotted.len(), rows.len() - 1, "all but the line of 100 %");
        let (one_in, value) = *plotted.last().expect("points");
        assert!(one_in >= 1e4 && (value - 10_000.0).abs() < 10.0, "{one_in} {value}");
    }

    #[test]
    fn an_empty_histogram_is_a_file_too() {
        assert!(hgrm(&histogram([])).contains("Total count    =            0]"));
    }
}
