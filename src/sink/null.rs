//! `Null`: drops the rows; for measurements. Runs on the worker that finishes a job.

use super::options::{Opening, ShortForm, SinkKind, SinkOptions, SinkRow};
use super::{BatchMeta, CommitKey, Rows, SharedSink, Sink};
use crate::error::Result;
use crate::settings::section::Section;

/// Its row.
pub(super) const ROW: SinkRow = SinkRow {
    name: "null",
    about: "drops the rows, for measurements",
    keys: &[],
    example: "[sink.NAME.null]",
    short_forms: &[ShortForm { begins: "null", value: "", more: "", settings: |_| Vec::new() }],
    read,
};

/// A sink that takes everything and keeps nothing, for measurements. It has no options.
///
/// ```
/// use tidemill::{Config, StreamingContext, sink::Null, testing::ManualClock};
///
/// let ctx = StreamingContext::with_clock(Config::new("doc"), ManualClock::new())?;
/// ctx.queue_stream(vec![Some(vec![1, 2])], 1).count().save(Null);
/// ctx.run_batches(1)?;
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Null;

fn read(_section: &mut Section<'_>) -> Option<SinkKind> {
    Some(Null.into())
}

impl SinkOptions for Null {
    fn row(&self) -> &'static SinkRow {
        &ROW
    }

    fn open(&self, _opening: &Opening<'_>) -> Result<SharedSink> {
        Ok(SharedSink::new(*self))
    }

    fn summary(&self) -> String {
        "null".to_owned()
    }
}

impl Sink for Null {
    fn rows_max(&self) -> usize {
        0
    }

    fn committed(&mut self, _key: &CommitKey) -> Result<bool> {
        Ok(false)
    }

    fn write(&mut self, _key: &CommitKey, _meta: &BatchMeta, _rows: &Rows) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self, _key: &CommitKey) -> Result<()> {
        Ok(())
    }
}
