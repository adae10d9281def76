//! Medians, spreads, and what they mean beside a row's targets; prints each line and keeps every figure for a file.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tidemill::internals::lab::stats::Summary;

use crate::Outcome;

/// The demand of a row.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A ratio or rate: the more the better.
    AtLeast { pass: f64, goal: f64 },
    /// A time or size: the less the better.
    AtMost { pass: f64, goal: f64 },
    /// Shown beside, not judged.
    Shown,
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

    /// A line of this name, whose figures have this unit.
    pub fn line<'a>(&'a mut self, name: &'a str, unit: &'a str) -> Line<'a> {
        Line { sheet: self, name, unit }
    }

    /// Writes everything as JSON.
    pub fn save(&self, file: &Path) -> Outcome<()> {
        std::fs::write(file, serde_json::to_string_pretty(&self.rows)?)?;
        Ok(())
    }
}

/// A line that waits for its figures.
#[must_use]
pub struct Line<'a> {
    sheet: &'a mut Sheet,
    name: &'a str,
    unit: &'a str,
}

impl Line<'_> {
    /// Prints figures that are not judged.
    pub fn show(self, figures: &[f64]) -> Outcome<()> {
        self.judge(figures, Target::Shown)
    }

    /// Prints and judges figures.
    pub fn judge(self, figures: &[f64], target: Target) -> Outcome<()> {
        let Line { sheet, name, unit } = self;
        let summary = Summary::of(figures.iter().copied()).unwrap_or(Summary::EMPTY);
        let Summary { median, min, max, low, high } = summary;
        let verdict = if sheet.smoke { "" } else { target.verdict(summary) };
        let wanted = match target {
            Target::AtLeast { pass, goal } => format!("  (pass >= {pass}, goal >= {goal})"),
            Target::AtMost { pass, goal } => format!("  (pass <= {pass}, goal <= {goal})"),
            Target::Shown => String::new(),
        };
        let digits = if median.abs() < 10.0 { 3 } else { 1 };
        let text = format!(
            "  {name:<58} {median:>9.digits$} {unit:<10} [{min:.digits$} .. {max:.digits$}] {verdict}{wanted}",
        );
        writeln!(std::io::stdout(), "{}", text.trim_end())?;
        sheet.rows.push(json!({
            "name": name, "unit": unit, "median": median, "verdict": verdict,
            "quarters": [low, high], "ends": [min, max], "figures": figures,
        }));
        Ok(())
    }
}

impl Target {
    /// Inconclusive if the middle half of the figures lies on both sides of what passes.
    fn verdict(self, summary: Summary) -> &'static str {
        let sign = match self {
            Target::AtLeast { .. } => 1.0,
            Target::AtMost { .. } => -1.0,
            Target::Shown => return "",
        };
        let (Target::AtLeast { pass, goal } | Target::AtMost { pass, goal }) = self else {
            return "";
        };
        let reaches = |figure: f64, bound: f64| sign * figure >= sign * bound;
        if reaches(summary.low, pass) != reaches(summary.high, pass) {
            "INCONCLUSIVE"
        } else if reaches(summary.median, goal) {
            "GOAL"
        } else if reaches(summary.median, pass) {
            "PASS"
        } else {
            "MISSED"
        }
    }
}
