//! Sinks of a pipeline: the kind is looked up in the table of sinks, whose row reads the options. Knows no kind.

use crate::settings::section::Section;
use crate::sink::{SINKS, SinkKind};

use super::kinds::{Holder, read_kind};

/// Reads `[sink.NAME]`; none if it is wrong.
pub(super) fn read(section: Section<'_>) -> Option<SinkKind> {
    let names: Vec<_> = SINKS.iter().map(|row| row.name).collect();
    let mut found = read_kind(section, Holder { name: "sink", kinds: &names })?;
    let kind = (SINKS[found.row].read)(&mut found.section);
    found.section.finish();
    kind
}
