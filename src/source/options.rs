//! The sources of pipeline files: a kind of source is a row of [`SOURCES`], whose file has its one option struct and reads it.
//! Whoever configures or lists sources reads the table. Main thread; plain data, opens nothing.

mod files;
mod generate;
mod socket;

use crate::framing::{FRAMINGS, Framing};
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::section::Section;
use crate::source::io::{IO_MODELS, IoModel};

pub use files::FilesOptions;
pub use generate::GenerateSource;
pub use socket::{Ack, RateLimits, SocketSource};

/// The longest record by default, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

/// The longest line that is generated, and the longest record that is accepted, in bytes.
const RECORD_BYTES_LIMIT: usize = 1 << 30;

/// A kind of source.
#[derive(Debug)]
pub struct SourceRow {
    /// The name in pipeline files.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The keys of its section, in the order in which they are read.
    pub keys: &'static [Key],
    /// A section of it, as it stands in a pipeline file.
    pub example: &'static str,
    /// Reads `[source.NAME.KIND]`; none if it is wrong, which is a problem of the section by then.
    pub(crate) read: fn(&mut Section<'_>) -> Option<Source>,
}

/// Every kind of source of pipeline files.
pub const SOURCES: &[SourceRow] = &[socket::ROW, generate::ROW, files::ROW];

/// The origin of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// TCP peers.
    Socket(SocketSource),
    /// The embedded data server, dialled like any other.
    Generate(GenerateSource),
    /// Files of a directory.
    Files(FilesOptions),
}

const IO_MODEL: Key = Key {
    name: "io_model",
    takes: "an io model",
    default: "nio",
    about: "The way sockets are read.",
};

const FRAMING: Key = Key {
    name: "framing",
    takes: "a framing",
    default: "lines",
    about: "The way bytes are cut into records.",
};

const RECORD_BYTES: Key = Key {
    name: "record_bytes_max",
    takes: "1B to 1GiB",
    default: "1MiB",
    about: "A longer record is dropped and counted.",
};

fn read_io_model(section: &mut Section<'_>) -> IoModel {
    let choices: Vec<_> = IO_MODELS.iter().map(|row| (row.name, row.model)).collect();
    section.choice("io_model", "io model", &choices).map_or(IoModel::Nio, |found| found.value)
}

fn read_framing(section: &mut Section<'_>) -> Framing {
    let choices: Vec<_> = FRAMINGS.iter().map(|row| (row.name, row.framing)).collect();
    section.choice("framing", "framing", &choices).map_or(Framing::Lines, |found| found.value)
}

fn read_record_bytes(section: &mut Section<'_>) -> usize {
    let Some(found) = section.bytes("record_bytes_max") else { return RECORD_BYTES_MAX };
    match usize::try_from(found.value).ok().filter(|b| (1..=RECORD_BYTES_LIMIT).contains(b)) {
        Some(bytes) => bytes,
        None => {
            let problem = Problem::new(&found.at, "`record_bytes_max` must be 1B to 1GiB");
            section.problems.add(problem.label("out of range"));
            RECORD_BYTES_MAX
        }
    }
}
