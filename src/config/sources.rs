//! Sources of a pipeline: the kind is looked up in the table of sources, whose row reads the options. Knows no kind.

use crate::settings::section::Section;
use crate::source::{SOURCES, Source};

use super::kinds::{Holder, read_kind};

/// Reads `[source.NAME]`; none if it is wrong.
pub(super) fn read(section: Section<'_>) -> Option<Source> {
    let names: Vec<_> = SOURCES.iter().map(|row| row.name).collect();
    let mut found = read_kind(section, Holder { name: "source", kinds: &names })?;
    let source = (SOURCES[found.row].read)(&mut found.section);
    found.section.finish();
    source
}
