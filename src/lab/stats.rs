//! Medians and spreads, and the histogram format that the HdrHistogram plotter reads. Pure.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Nanoseconds of a millisecond: values are shown in milliseconds.
const MILLI: f64 = 1e6;

/// Steps for each halving of the distance to 100 % in the percentile lines.
const TICKS_PER_HALF: u32 = 5;

/// What several repeats gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// The summary of these values; none of no values. The median of an even number is the mean of the middle two.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[half]
        } else {
            f64::midpoint(values[half - 1], values[half])
        };
        Some(Summary { median, min, max })
    }

    /// Largest minus smallest value, in percent of the median.
    pub(crate) fn spread_percent(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / self.median * 100.0 }
    }
}

/// A number for arithmetic that is shown with a few digits.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// A quantile in milliseconds.
pub(crate) fn millis_at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    float(histogram.value_at_quantile(quantile)) / MILLI
}

/// A point of the percentile curve: how many values lie above, as one in so many, and the value in milliseconds.
pub(crate) fn curve(histogram: &Histogram<u64>, one_in_max: f64) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut one_in = 1.0_f64;
    while one_in <= one_in_max * 1.000_001 {
        points.push((one_in, millis_at(histogram, 1.0 - 1.0 / one_in)));
        one_in *= 10_f64.powf(0.05);
    }
    points
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
            (float(step.value_iterated_to()) / MILLI, step.quantile_iterated_to());
        let _ = write!(text, "{value:12.3} {quantile:2.12} {seen:10}");
        let _ = if quantile < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text)
        };
    }
    let (mean, deviation) = (histogram.mean() / MILLI, histogram.stdev() / MILLI);
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let (max, count) = (float(histogram.max()) / MILLI, histogram.len());
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
        assert_eq!(Summary { median: 2.0, min: 1.0, max: 4.0 }.spread_percent(), 150.0);
        assert_eq!(Summary { median: 0.0, min: 0.0, max: 0.0 }.spread_percent(), 0.0);
    }

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits");
        values.into_iter().for_each(|value| histogram.record(value).expect("it grows"));
        histogram
    }

    /// What the plotter's page reads of a file: of the lines with four words that are numbers, the first and the last.
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

    #[test]
    fn a_curve_ends_where_it_should() {
        let points = curve(&histogram((1..=100_000).map(|n| n * 1_000)), 1e4);
        assert_eq!(points.first().map(|point| point.0), Some(1.0));
        let last = points.last().expect("points");
        assert!((last.0 - 1e4).abs() < 1.0 && (last.1 - 99.99).abs() < 0.2, "{last:?}");
    }
}
