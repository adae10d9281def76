//! The seam between the settings of a sink and the sink: a kind of sink is a row ([`SinkRow`]) whose `read` makes its
//! options of a section, and the options ([`SinkOptions`]) say where they write and open the sink. Whoever configures, checks,
//! lists or builds sinks knows this and the table of rows, and no kind. Main thread; knows no kind itself.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::settings::diagnostics::Problem;
use crate::settings::key::Key;
use crate::settings::options::{AnyOptions, SameOptions};
use crate::settings::section::Section;
use crate::storage::Access;
use crate::sync::Arc;

use super::{SharedSink, Writer};

/// A kind of sink: a row of [`SINKS`](super::SINKS).
#[derive(Debug)]
pub struct SinkRow {
    /// The name in pipeline files.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The keys of its table, in the order in which they are read.
    pub keys: &'static [Key],
    /// A table of it, as it stands in a pipeline file.
    pub example: &'static str,
    /// The ways to name it on the command line, in `--to`.
    pub short_forms: &'static [ShortForm],
    /// Reads `[sink.NAME.KIND]`; none if it is wrong, which is a problem of the section by then.
    pub(crate) read: fn(&mut Section<'_>) -> Option<SinkKind>,
}

/// A way to name a sink on the command line: a word such as `null`, or `file://` and a value.
#[derive(Debug)]
pub struct ShortForm {
    /// The word, or the beginning before the value.
    pub begins: &'static str,
    /// The value behind the beginning, for people: `DIR`. Empty for a word.
    pub value: &'static str,
    /// An addition to the value that may be left out, for people: `?table=NAME`.
    pub more: &'static str,
    /// The keys that a value sets. None: the table of the kind stays empty.
    pub(crate) settings: fn(&str) -> Vec<KeyText>,
}

/// A key of a sink and the text that it is set to.
#[derive(Debug)]
pub struct KeyText {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub text: String,
}

impl KeyText {
    pub(super) fn new(key: &'static str, text: &str) -> Self {
        KeyText { key, text: text.to_owned() }
    }
}

impl ShortForm {
    /// The value behind the beginning, if this form was typed; empty for a word.
    pub(crate) fn value_of<'a>(&self, typed: &'a str) -> Option<&'a str> {
        let rest = typed.strip_prefix(self.begins)?;
        (rest.is_empty() || !self.value.is_empty()).then_some(rest)
    }
}

/// The options of one sink, as its own file reads them.
pub trait SinkOptions: SameOptions + fmt::Debug + Send + Sync {
    /// The row of its kind in [`SINKS`](super::SINKS).
    fn row(&self) -> &'static SinkRow;

    /// Opens the sink, or looks at what a start would open.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn open(&self, opening: &Opening<'_>) -> Result<SharedSink>;

    /// A few words for people: `files in out`.
    fn summary(&self) -> String;

    /// The place that no other part of a pipeline may write to, if there is one.
    fn destination(&self) -> Option<Destination<'_>> {
        None
    }

    /// The reason why a start would be refused as things are now on this machine, if that can be seen without opening anything.
    fn in_the_way(&self) -> Option<String> {
        None
    }

    /// True if the rows go to standard output, which may be closed.
    fn is_standard_output(&self) -> bool {
        false
    }
}

/// The surroundings that a sink is opened in, beside its options.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The writer of consoles.
    pub(crate) console: &'a Writer,
    /// A start that only looks makes, locks and changes nothing.
    pub(crate) access: Access,
}

/// A place that a sink writes to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The key that gave the path.
    pub(crate) key: &'static str,
    pub(crate) path: &'a Path,
    pub(crate) holds: Holds<'a>,
}

/// The contents of a place that a sink writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds<'a> {
    /// A directory of files with this extension. It is locked while it is written to.
    Files {
        /// The extension, without its dot.
        end: &'static str,
    },
    /// A database with this table.
    Table(&'a str),
}

impl Destination<'_> {
    /// True if a start finds the place and need not make it.
    pub(crate) fn is_there(&self) -> bool {
        match self.holds {
            Holds::Files { .. } => self.path.is_dir(),
            Holds::Table(_) => self.path.exists(),
        }
    }
}

/// The options of a sink of any kind, such as [`FileOptions`](super::FileOptions).
pub type SinkKind = AnyOptions<dyn SinkOptions>;

impl<T: SinkOptions> From<T> for SinkKind {
    fn from(options: T) -> Self {
        AnyOptions::new(Arc::new(options))
    }
}

/// The meaning of output that is there already and is not of this state directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// The start is refused. The output of this state directory is continued. Without a `state_dir` a batch that is there
    /// already is an error that names it.
    #[default]
    Refuse,
    /// New output is added to it, and rows may be there twice.
    Append,
}

/// The key `existing`.
pub(super) const EXISTING: Key = Key {
    name: "existing",
    takes: "`refuse` or `append`",
    default: "refuse",
    about: "with output of another `state_dir` the start is refused, or new output is added",
};

pub(super) fn read_existing(section: &mut Section<'_>) -> Existing {
    let choices = [("refuse", Existing::Refuse), ("append", Existing::Append)];
    let found = section.choice("existing", "way with existing output", &choices);
    found.map(|found| found.value).unwrap_or_default()
}

/// The key `time`.
pub(super) const TIME: Key = Key {
    name: "time",
    takes: "`true` or `false`",
    default: "false",
    about: "each row of JSON has the time of its batch",
};

/// JSON alone has a place for the time in each row.
pub(super) fn read_time(section: &mut Section<'_>, is_json: bool) -> bool {
    let time = section.truth("time").unwrap_or_default();
    if time && !is_json {
        let title = "`time` is for `format = \"json\"`: rows of the others have no place for it";
        section.problems.add(Problem::new(&section.key_at("time"), title).hint("leave it out"));
    }
    time
}

/// The path of a sink that needs one; `example` says of what.
pub(super) fn read_path(section: &mut Section<'_>, example: &str) -> Option<PathBuf> {
    let path = section.path("path");
    if !section.has("path") {
        let title = format!("{} needs a `path`", section.what());
        section.problems.add(Problem::new(&section.at, title).hint(example));
    }
    path
}
