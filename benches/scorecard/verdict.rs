//! Medians, spreads, and what they mean beside a row's targets; prints each line and keeps every figure for a file.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::Outcome;

/// What a row asks for.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A ratio or rate: the more the better.
    AtLeast { pass: f64, goal: f64 },
    /// A time or size: the less the better.
    AtMost { pass: f64, goal: f64 },
    /// Shown beside, not judged.
    Shown,
}

/// Middle, quarters and ends of some figures.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub quarters: (f64, f64),
    pub ends: (f64, f64),
}

impl Spread {
    /// Of at least one figure; NaN of none.
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = sorted.len().saturating_sub(1);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a position in a short list"
            )]
            let index = (part * last as f64).round() as usize;
            sorted.get(index).copied().unwrap_or(f64::NAN)
        };
        Spread { median: at(0.5), quarters: (at(0.25), at(0.75)), ends: (at(0.0), at(1.0)) }
    }
}

/// The lines of a run.
pub struct Sheet {
    rows: Vec<Value>,
    smoke: bool,
}

impl Sheet {
    pub fn new(smoke: bool) -> Self {
        Sheet { rows: Vec::new(), smoke }
    }

    /// Prints a text.
    pub fn say(&mut self, text: &str) -> Outcome<()> {
        writeln!(std::io::stdout(), "{text}")?;
        self.rows.push(json!({"text": text}));
        Ok(())
    }

    /// Prints and judges a line: name, figures, unit, target.
    pub fn judge(
        &mut self,
        (name, unit): (&str, &str),
        figures: &[f64],
        target: Target,
    ) -> Outcome<()> {
        let spread = Spread::of(figures);
        let verdict = if self.smoke { "" } else { target.verdict(spread) };
        let wanted = match target {
            Target::AtLeast { pass, goal } => format!("  (pass >= {pass}, goal >= {goal})"),
            Target::AtMost { pass, goal } => format!("  (pass <= {pass}, goal <= {goal})"),
            Target::Shown => String::new(),
        };
        let digits = if spread.median.abs() < 10.0 { 3 } else { 1 };
        let text = format!(
            "  {name:<58} {:>9.digits$} {unit:<10} [{:.digits$} .. {:.digits$}] {verdict}{wanted}",
            spread.median, spread.ends.0, spread.ends.1,
        );
        writeln!(std::io::stdout(), "{}", text.trim_end())?;
        self.rows.push(json!({
            "name": name, "unit": unit, "median": spread.median, "verdict": verdict,
            "quarters": [spread.quarters.0, spread.quarters.1],
            "ends": [spread.ends.0, spread.ends.1], "figures": figures,
        }));
        Ok(())
    }

    /// Writes everything as JSON.
    pub fn save(&self, file: &Path) -> Outcome<()> {
        std::fs::write(file, serde_json::to_string_pretty(&self.rows)?)?;
        Ok(())
    }
}

impl Target {
    /// Inconclusive if the middle half of the figures lies on both sides of what passes.
    fn verdict(self, spread: Spread) -> &'static str {
        let sign = match self {
            Target::AtLeast { .. } => 1.0,
            Target::AtMost { .. } => -1.0,
            Target::Shown => return "",
        };
        let (Target::AtLeast { pass, goal } | Target::AtMost { pass, goal }) = self else {
            return "";
        };
        let reaches = |figure: f64, bound: f64| sign * figure >= sign * bound;
        let (low, high) = spread.quarters;
        if reaches(low, pass) != reaches(high, pass) {
            "INCONCLUSIVE"
        } else if reaches(spread.median, goal) {
            "GOAL"
        } else if reaches(spread.median, pass) {
            "PASS"
        } else {
            "MISSED"
        }
    }
}
