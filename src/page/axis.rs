//! Axes: the range of values, the places of ticks and their texts. Pure; any thread.

use super::unit::{Unit, number};

/// The way that values are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// Evenly, with zero among them.
    FromZero,
    /// Evenly, from the least to the greatest.
    Even,
    /// By their logarithm; only values above zero.
    Log,
    /// Shares as one in that many, by their logarithm, with percentiles at the ticks.
    Percentiles,
}

/// From the least to the greatest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Span {
    /// The span of these values; `None` if no one is a number.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Span> {
        values.into_iter().filter(|value| value.is_finite()).fold(
            None,
            |span: Option<Span>, value| {
                let Span { low, high } = span.unwrap_or(Span { low: value, high: value });
                Some(Span { low: low.min(value), high: high.max(value) })
            },
        )
    }
}

/// An axis as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) spacing: Spacing,
    /// The values that are shown at least, so that plots beside each other have the same axis.
    pub(crate) with: Option<Span>,
}

/// A place on an axis, from 0 to 1, and its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) text: String,
}

/// An axis that fits its values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    span: Span,
    log: bool,
    pub(super) ticks: Vec<Tick>,
    /// The name with the unit.
    pub(super) title: String,
}

impl Axis {
    pub(crate) fn new(name: &str, unit: Unit, spacing: Spacing) -> Axis {
        Axis { name: name.to_owned(), unit, spacing, with: None }
    }

    /// A scale for these values.
    pub(super) fn scale(&self, values: impl IntoIterator<Item = f64>) -> Scale {
        let with = self.with.iter().flat_map(|span| [span.low, span.high]);
        let positive = matches!(self.spacing, Spacing::Log | Spacing::Percentiles);
        let values = values.into_iter().chain(with).filter(|value| !positive || *value > 0.0);
        let span = Span::of(values).unwrap_or(Span { low: 0.0, high: 1.0 });
        match self.spacing {
            Spacing::FromZero => {
                self.even(Span { low: span.low.min(0.0), high: span.high.max(0.0) })
            }
            Spacing::Even => self.even(span),
            Spacing::Log => self.log(span),
            Spacing::Percentiles => self.percentiles(span),
        }
    }

    fn even(&self, span: Span) -> Scale {
        let span = if span.high > span.low {
            span
        } else {
            Span { low: span.low, high: span.low + span.low.abs().max(1e-9) }
        };
        let prefixed = self.unit.prefixed(span.high.abs().max(span.low.abs()));
        let step = step((span.high - span.low) / prefixed.size / 4.0);
        let first = (span.low / prefixed.size / step).floor();
        let last = (span.high / prefixed.size / step).ceil();
        let at = |tick: f64| tick * step * prefixed.size;
        let span = Span { low: at(first), high: at(last) };
        let mut ticks = Vec::new();
        let mut tick = first;
        while tick <= last {
            let text = trimmed(tick * step);
            ticks.push(Tick { at: (at(tick) - span.low) / (span.high - span.low), text });
            tick += 1.0;
        }
        let unit = &prefixed.name;
        let title =
            if unit.is_empty() { self.name.clone() } else { format!("{} ({unit})", self.name) };
        Scale { span, log: false, ticks, title }
    }

    fn log(&self, span: Span) -> Scale {
        let low = 10_f64.powf(span.low.max(1e-12).log10().floor());
        let high = 10_f64.powf(span.high.max(1e-12).log10().ceil()).max(low * 10.0);
        let decades = (high / low).log10().round();
        let mut ticks = Vec::new();
        let mut decade = 0.0;
        while decade <= decades {
            let value = low * 10_f64.powf(decade);
            ticks.push(Tick { at: decade / decades, text: self.unit.shown_round(value) });
            decade += 1.0;
        }
        Scale { span: Span { low, high }, log: true, ticks, title: self.name.clone() }
    }

    fn percentiles(&self, span: Span) -> Scale {
        let span = Span { low: 1.0, high: span.high.max(10.0) };
        let mut scale = Scale { span, log: true, ticks: Vec::new(), title: self.name.clone() };
        let mut one_in = 1.0;
        while one_in <= span.high * 1.000_1 {
            let text = percentile(one_in);
            scale.ticks.push(Tick { at: scale.place(one_in), text });
            one_in *= if one_in < 2.0 {
                2.0
            } else if one_in < 10.0 {
                5.0
            } else {
                10.0
            };
        }
        scale
    }
}

impl Scale {
    /// The place of a value, 0 to 1 within the axis and beyond that outside of it.
    pub(super) fn place(&self, value: f64) -> f64 {
        let Span { low, high } = self.span;
        if self.log {
            (value.max(1e-12) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        }
    }
}

/// The percentile above which one value in this many lies.
pub(crate) fn percentile(one_in: f64) -> String {
    format!("{}\u{a0}%", trimmed(100.0 - 100.0 / one_in))
}

/// The next of 1, 2, 2.5, 5, 10, 20, ... from this value on.
fn step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.max(1e-12).log10().floor());
    let fits = [1.0, 2.0, 2.5, 5.0].into_iter().find(|step| step * decade >= least * 0.999_999);
    fits.unwrap_or(10.0) * decade
}

/// A number without the noise of floating point.
fn trimmed(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.abs() >= 0.01 || rounded == 0.0 {
        format!("{rounded}").replacen('-', "−", 1)
    } else {
        number(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(axis: &Axis, values: &[f64]) -> Vec<String> {
        let ticks = axis.scale(values.iter().copied()).ticks;
        ticks.into_iter().map(|tick| tick.text.replace('\u{a0}', " ")).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let check = |unit, spacing, values: &[f64], expected: &[&str]| {
            assert_eq!(texts(&Axis::new("x", unit, spacing), values), expected, "{values:?}");
        };
        check(Unit::large("B/s"), Spacing::FromZero, &[412e6], &["0", "200", "400", "600"]);
        check(Unit::SECONDS, Spacing::FromZero, &[0.001, 0.002], &["0", "0.5", "1", "1.5", "2"]);
        check(Unit::SECONDS, Spacing::FromZero, &[-0.001, 0.003], &["−1", "0", "1", "2", "3"]);
        check(Unit::plain(""), Spacing::Even, &[0.9, 1.1], &["0.9", "0.95", "1", "1.05", "1.1"]);
        check(Unit::plain(""), Spacing::Even, &[5.0], &["4", "6", "8", "10"]);
        check(Unit::SECONDS, Spacing::Log, &[2e-5, 3e-3], &["10 µs", "100 µs", "1 ms", "10 ms"]);
        check(Unit::plain(""), Spacing::Log, &[1.0, 1.0], &["1", "10"]);
        check(
            Unit::plain(""),
            Spacing::Percentiles,
            &[1.0, 1e4],
            &["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"],
        );
        check(Unit::plain(""), Spacing::FromZero, &[], &["0", "0.25", "0.5", "0.75", "1"]);
    }

    #[test]
    fn the_title_has_the_unit_of_the_ticks() {
        let axis = Axis::new("rate", Unit::large("B/s"), Spacing::FromZero);
        assert_eq!(axis.scale([4.1e6]).title, "rate (MB/s)");
    }

    proptest! {
        #[test]
        fn every_value_lies_on_its_axis(values in prop::collection::vec(-1e12_f64..1e12, 1..9), log in any::<bool>()) {
            let spacing = if log { Spacing::Log } else { Spacing::FromZero };
            let scale = Axis::new("x", Unit::large("B"), spacing).scale(values.iter().copied());
            prop_assert!(scale.ticks.len() < 40);
            for value in values.into_iter().filter(|value| !log || *value > 0.0) {
                let place = scale.place(value);
                prop_assert!((-1e-6..=1.000_001).contains(&place), "{value}: {place}");
            }
        }
    }
}
