//! The job `lines`: the records as they are. Runs on the workers.

use super::{JobKind, JobOptions, JobOutput, JobRow, Window};
use crate::stream::DStream;

pub(super) const ROW: JobRow = JobRow {
    name: "lines",
    about: "The records themselves.",
    keys: &[],
    example: "lines = {}",
    value: None,
    read: |_| Some(JobKind::from(Lines)),
};

/// The options of `lines`: it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines;

impl JobOptions for Lines {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        match output.window {
            None => output.save(records),
            Some(Window { length, slide }) => output.save(&records.window(length, slide)),
        }
    }
}
