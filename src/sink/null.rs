//! `Null`: drops the rows; for measurements. Runs on the worker that finishes a job.

use super::{BatchMeta, CommitKey, Rows, Sink};
use crate::error::Result;

/// A sink that takes everything and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

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
