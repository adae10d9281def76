//! The source `files`: the files of a directory. Its options, of which [`FilesSource`] is made.

use std::path::PathBuf;

use crate::framing::Framing;
use crate::settings::diagnostics::{Problem, Problems};
use crate::settings::key::Key;
use crate::settings::section::{Found, Section};
use crate::source::direct::OnLost;
use crate::source::direct::files::{BATCH_BYTES_MAX, FilesSource, OPEN_FILES_MAX, select};

use super::{FRAMING, RECORD_BYTES, Source, SourceRow, read_framing, read_record_bytes};

/// Its row.
pub(super) const ROW: SourceRow = SourceRow {
    name: "files",
    about: "The records of the files of a directory.",
    keys: &[
        Key { name: "directory", takes: "a path", default: "", about: "The directory." },
        FRAMING,
        RECORD_BYTES,
        Key {
            name: "batch_bytes_max",
            takes: "a size",
            default: "256MiB",
            about: "About the most bytes of a batch.",
        },
        Key {
            name: "on_lost",
            takes: "`stop` or `skip`",
            default: "stop",
            about: "With lost input the stream stops, or goes on without it.",
        },
        Key {
            name: "include",
            takes: "a list of globs",
            default: "all",
            about: "The names that are read.",
        },
        Key {
            name: "exclude",
            takes: "a list of globs",
            default: "temporary and compressed files",
            about: "The names that are passed over.",
        },
        Key {
            name: "follow_links",
            takes: "`true` or `false`",
            default: "true",
            about: "What symbolic links lead to is read.",
        },
        Key {
            name: "unescape",
            takes: "`true` or `false`",
            default: "false",
            about: "Line feeds are escaped in the lines.",
        },
        Key {
            name: "open_files_max",
            takes: "0 to 100000",
            default: "256",
            about: "Files that stay open from batch to batch.",
        },
    ],
    example: "[source.NAME.files]\ndirectory = \"in\"",
    read,
};

/// Records from the files of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOptions {
    /// The directory.
    pub directory: PathBuf,
    /// The way bytes are cut into records; lines by default.
    pub framing: Framing,
    /// A longer record is dropped and counted; 1 MiB by default.
    pub record_bytes_max: usize,
    /// About the most bytes of a batch; 256 MiB by default.
    pub batch_bytes_max: u64,
    /// The reaction to lost input that was never processed; the stream stops by default.
    pub on_lost: OnLost,
    /// Globs of the names that are read, which the default `exclude` is not for; all if none are given.
    pub include: Option<Vec<String>>,
    /// Globs of the names that are passed over; [`EXCLUDED`](crate::source::EXCLUDED) if none are given.
    pub exclude: Option<Vec<String>>,
    /// Files that symbolic links lead to are read; true by default.
    pub follow_links: bool,
    /// Line feeds are escaped in the lines; false by default.
    pub unescape: bool,
    /// Files that stay open from batch to batch; 256 by default.
    pub open_files_max: usize,
}

impl From<&FilesOptions> for FilesSource {
    fn from(source: &FilesOptions) -> Self {
        let mut files = FilesSource::new(&source.directory)
            .framing(source.framing)
            .record_bytes_max(source.record_bytes_max)
            .batch_bytes_max(source.batch_bytes_max)
            .on_lost(source.on_lost)
            .follow_links(source.follow_links)
            .unescape(source.unescape)
            .open_files_max(source.open_files_max);
        // A pipeline file whose globs are none is refused before.
        if let Some(globs) = &source.include {
            files = files.include(globs).expect("globs");
        }
        if let Some(globs) = &source.exclude {
            files = files.exclude(globs).expect("globs");
        }
        files
    }
}

fn read(section: &mut Section<'_>) -> Option<Source> {
    let directory = section.path("directory");
    if !section.has("directory") {
        section.problems.add(Problem::new(&section.at, "a `files` source needs a `directory`"));
    }
    let source = FilesOptions {
        directory: directory.clone().unwrap_or_default(),
        framing: read_framing(section),
        record_bytes_max: read_record_bytes(section),
        batch_bytes_max: read_batch_bytes(section),
        on_lost: read_on_lost(section),
        include: section.texts("include").map(|globs| read_globs(globs, section.problems)),
        exclude: section.texts_or_none("exclude").map(|globs| read_globs(globs, section.problems)),
        follow_links: section.truth("follow_links").unwrap_or(true),
        unescape: section.truth("unescape").unwrap_or(false),
        open_files_max: section
            .number("open_files_max", 0..=100_000)
            .map_or(OPEN_FILES_MAX, |found| found.value),
    };
    if source.unescape && !source.framing.is_lines() {
        let title = format!("`unescape` is for lines: `{}` needs none", source.framing.name());
        section.problems.add(Problem::new(&section.at_of("unescape"), title));
    }
    if source.framing.acknowledges() {
        let title = "`relp` is a dialogue with a peer: files have none";
        section.problems.add(Problem::new(&section.at_of("framing"), title));
    }
    directory.map(|_| Source::Files(source))
}

fn read_globs(globs: Vec<Found<String>>, problems: &Problems) -> Vec<String> {
    for glob in &globs {
        if let Err(why) = select::parse(&glob.value) {
            let problem = Problem::new(&glob.at, format!("`{}` is no glob", glob.value));
            problems.add(problem.label(why));
        }
    }
    globs.into_iter().map(|glob| glob.value).collect()
}

fn read_on_lost(section: &mut Section<'_>) -> OnLost {
    let ways = [("stop", OnLost::Stop), ("skip", OnLost::Skip)];
    section.choice("on_lost", "way to lose input", &ways).map_or(OnLost::Stop, |found| found.value)
}

fn read_batch_bytes(section: &mut Section<'_>) -> u64 {
    let Some(found) = section.bytes("batch_bytes_max") else { return BATCH_BYTES_MAX };
    if found.value == 0 {
        let problem = Problem::new(&found.at, "`batch_bytes_max` must be at least 1B");
        section.problems.add(problem.label("out of range"));
    }
    found.value
}
