//! The job `grep`: the records that match. Runs on the workers.

use super::{FlagValue, JobKind, JobOptions, JobOutput, JobRow, Window, matching};
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::pattern::Pattern;
use crate::settings::section::Section;
use crate::settings::tree::Given;
use crate::stream::DStream;

pub(super) const ROW: JobRow = JobRow {
    name: "grep",
    about: "The records that match.",
    keys: &[Key {
        name: "pattern",
        takes: "a regular expression",
        default: "",
        about: "Records that match it are rows.",
    }],
    example: "grep = { pattern = \"error\" }",
    value: Some(FlagValue { key: "pattern", shown: "REGEX", required: true, given: Given::Text }),
    read: |section| Some(JobKind::from(read(section)?)),
};

/// The options of `grep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grep {
    /// Records that match it are rows.
    pub pattern: Pattern,
}

fn read(section: &mut Section<'_>) -> Option<Grep> {
    if !section.has("pattern") {
        let problem = Problem::new(&section.at, "`grep` needs a `pattern`");
        section.problems.add(problem.hint(format!("write `{}`", ROW.example)));
    }
    section.pattern("pattern").map(|found| Grep { pattern: found.value })
}

impl JobOptions for Grep {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        let matches = matching(records, &self.pattern);
        match output.window {
            None => output.save(&matches),
            Some(Window { length, slide }) => output.save(&matches.window(length, slide)),
        }
    }
}
