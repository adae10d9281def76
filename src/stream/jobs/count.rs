//! The job `count`: one row with the number of records. Runs on the workers.

use super::{JobKind, JobOptions, JobOutput, JobRow, Window};
use crate::stream::DStream;

pub(super) const ROW: JobRow = JobRow {
    name: "count",
    about: "One row with the number of records.",
    keys: &[],
    example: "count = {}",
    value: None,
    read: |_| Some(JobKind::from(Count)),
};

/// The options of `count`: it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count;

impl JobOptions for Count {
    fn row(&self) -> &'static JobRow {
        &ROW
    }

    fn attach(&self, records: &DStream<[u8]>, output: JobOutput<'_>) {
        let rows = match output.window {
            None => records.count(),
            Some(Window { length, slide }) => records.count_by_window(length, slide),
        };
        output.save(&rows);
    }
}
