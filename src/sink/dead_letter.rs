//! Dead letters: the input of a batch that failed for good, kept where a `files` source can read it back.
//!
//! ```text
//! DIRECTORY/PIPELINE-TIME-SOURCE.records      the records as they were received, with their terminators or headers
//! ```
//! A file is written aside (its name starts with `.`), synced and renamed, so a whole one is all there. Runs on a
//! worker; knows nothing of jobs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::StoredBlock;
use crate::sync::Arc;
use crate::time::Time;

/// The input of one batch from one source.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The batch's time.
    pub time: Time,
    /// The source's name.
    pub source: &'a str,
    /// Its blocks, in the order in which they were received.
    pub blocks: &'a [Arc<StoredBlock>],
}

/// Where dead letters go.
pub trait DeadLetters: Send + Sync {
    /// Keeps a letter for good and says where.
    ///
    /// # Errors
    /// If it cannot be kept: then the stream must stop, for going on would lose the records.
    fn keep(&self, letter: &DeadLetter<'_>) -> Result<String>;
}

/// Dead letters as files of a directory, which is made when it is first needed.
#[derive(Clone, Debug)]
pub struct DeadLetterFiles {
    directory: PathBuf,
}

impl DeadLetterFiles {
    /// Keeps letters in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        DeadLetterFiles { directory: directory.into() }
    }

    fn write(&self, letter: &DeadLetter<'_>) -> Result<PathBuf, Failure> {
        fs::create_dir_all(&self.directory)?;
        let name = format!(
            "{}-{}-{}",
            plain(letter.pipeline),
            letter.time.as_millis(),
            plain(letter.source)
        );
        let aside = self.directory.join(format!(".{name}.open"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&aside)?;
        for block in letter.blocks {
            let mut written = Ok(());
            block.for_each_range(|range| {
                if written.is_ok() {
                    written = file.write_all(range);
                }
            })?;
            written?;
        }
        file.sync_all()?;
        let path = unused(&self.directory, &name);
        fs::rename(&aside, &path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(path)
    }
}

impl DeadLetters for DeadLetterFiles {
    fn keep(&self, letter: &DeadLetter<'_>) -> Result<String> {
        let written = self.write(letter);
        written.map(|path| path.display().to_string()).map_err(|failure| {
            let what = format!("cannot write a dead letter to {}", self.directory.display());
            match failure {
                Failure::Io(err) => Error::io(what, err),
                Failure::Input(err) => Error::Failed(format!("{what}: {err}")),
            }
        })
    }
}

/// Why a letter is not kept.
enum Failure {
    /// It cannot be written.
    Io(io::Error),
    /// Its records are not in memory and cannot be read back.
    Input(Error),
}

impl From<io::Error> for Failure {
    fn from(err: io::Error) -> Self {
        Failure::Io(err)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Failure::Input(err)
    }
}

/// Names come from programs too: what could leave the directory is replaced.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    name.chars().map(plain).collect()
}

/// A letter never replaces another one, also when a batch time comes again after a restart.
fn unused(directory: &Path, name: &str) -> PathBuf {
    let names = std::iter::once(format!("{name}.records"));
    let mut names = names.chain((1_u64..).map(|again| format!("{name}-again{again}.records")));
    let path = names.find_map(|name| Some(directory.join(name)).filter(|path| !path.exists()));
    path.expect("there are more numbers than files")
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::block::{Block, BlockId, Range};
    use crate::framing::Framing;

    fn block(number: u64, bytes: &'static [u8]) -> Arc<StoredBlock> {
        let range = Range::new(Bytes::from_static(bytes), 1);
        let block = Block::new(BlockId { source: 0, number }, Framing::Lines, vec![range]);
        StoredBlock::new(Arc::new(block))
    }

    #[test]
    fn records_are_kept_as_they_came_and_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let letters = DeadLetterFiles::new(dir.path().join("dead/letters"));
        let blocks = [block(0, b"a\nb\r\n"), block(1, b"\xff\n")];
        let time = Time::from_millis(5_000);
        let letter = DeadLetter { pipeline: "p", time, source: "../in", blocks: &blocks };
        let first = letters.keep(&letter).expect("written");
        let second = letters.keep(&letter).expect("written");
        assert!(first.ends_with("dead/letters/p-5000-___in.records"), "{first}");
        assert!(second.ends_with("p-5000-___in-again1.records"), "{second}");
        for path in [first, second] {
            assert_eq!(fs::read(path).expect("there"), b"a\nb\r\n\xff\n");
        }
        let files = fs::read_dir(dir.path().join("dead/letters")).expect("there").count();
        assert_eq!(files, 2, "nothing is left aside");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let taken = dir.path().join("taken");
        fs::write(&taken, "").expect("written");
        let letter = DeadLetter { pipeline: "p", time: Time::default(), source: "s", blocks: &[] };
        let err = DeadLetterFiles::new(&taken).keep(&letter).expect_err("no directory");
        assert!(err.to_string().contains("taken"), "{err}");
    }
}
