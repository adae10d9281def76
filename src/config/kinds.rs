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

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use crate::config::Pipeline;
    use crate::settings::key::Key;
    use crate::sink::SINKS;
    use crate::source::SOURCES;

    const SOURCE: &str = "[source.NAME.generate]\nrate = 1\n";
    const SINK: &str = "[sink.NAME.null]\n";

    /// What is wrong with a pipeline of these parts, if anything is.
    fn errors(source: &str, sink: &str) -> String {
        let job = "[job.j]\nfrom = ['NAME']\nto = ['NAME']\ncount = {}\n";
        let read = Pipeline::parse(&format!("{source}\n{sink}\n{job}"), "p.toml", &|_| None);
        read.err().map(|err| err.to_string()).unwrap_or_default()
    }

    /// A reader tells the keys that it asked for where one is unknown.
    fn check_keys(keys: &[Key], shown: &str) {
        let keys: Vec<_> = keys.iter().map(|key| format!("`{}`", key.name)).collect();
        let expected = match keys.is_empty() {
            true => "there are no keys here".to_owned(),
            false => format!("known keys: {}", keys.join(", ")),
        };
        assert!(shown.lines().any(|line| line.ends_with(&expected)), "{expected}\n{shown}");
    }

    #[test]
    fn rows_of_sinks_say_what_their_readers_do() {
        for row in SINKS {
            let wrong = format!("[sink.NAME.{}]\nzzzzzzzzzzzzzzzz = 1", row.name);
            check_keys(row.keys, &errors(SOURCE, &wrong));
            let shown = errors(SOURCE, row.example);
            let is_absent = shown.contains("this program has no sink");
            assert!(
                shown.is_empty() || is_absent && shown.matches("error:").count() == 1,
                "{shown}"
            );
        }
    }

    #[test]
    fn rows_of_sources_say_what_their_readers_do() {
        for row in SOURCES {
            let wrong = format!("[source.NAME.{}]\nzzzzzzzzzzzzzzzz = 1", row.name);
            check_keys(row.keys, &errors(&wrong, SINK));
            assert_eq!(errors(row.example, SINK), "", "{}", row.name);
        }
    }
}
