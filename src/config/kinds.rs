//! The one kind of a source or sink: `[sink.NAME.KIND]` names a row of a table by its key. Main thread; knows no kind.

use crate::settings::diagnostics::Problem;
use crate::settings::section::Section;
use crate::wording::either;

/// The part of a pipeline that has a kind.
pub(super) struct Holder<'a> {
    /// Its word in messages: `sink`.
    pub(super) name: &'a str,
    /// The names of the kinds, in the order of the table.
    pub(super) kinds: &'a [&'static str],
}

/// The kind that was given.
pub(super) struct GivenKind<'a> {
    /// Its place in the table.
    pub(super) row: usize,
    pub(super) section: Section<'a>,
}

/// Reads the table of a part; none if it has no kind, or more than one.
pub(super) fn read_kind<'a>(mut section: Section<'a>, holder: Holder<'_>) -> Option<GivenKind<'a>> {
    let Holder { name, kinds } = holder;
    let mut given = Vec::new();
    for (row, kind) in kinds.iter().enumerate() {
        let found = section.table(kind, &format!("a `{kind}` {name}"));
        given.extend(found.map(|section| GivenKind { row, section }));
    }
    let (problems, at, is_empty) = (section.problems, section.at.clone(), section.is_empty());
    section.of_kinds().finish();
    if given.len() > 1 {
        let title = format!("a {name} has one kind");
        problems.add(Problem::new(&at, title).label("more than one kind"));
        return None;
    }
    if is_empty {
        let problem = Problem::new(&at, format!("a {name} needs a kind")).label("no kind");
        problems.add(problem.hint(format!("write {}", listed(name, kinds))));
    }
    given.pop()
}

/// `[sink.NAME.a]`, `.b` or `.c`.
fn listed(name: &str, kinds: &[&str]) -> String {
    let shown = kinds.iter().enumerate().map(|(number, kind)| match number {
        0 => format!("`[{name}.NAME.{kind}]`"),
        _ => format!("`.{kind}`"),
    });
    either(&shown.collect::<Vec<_>>())
}
