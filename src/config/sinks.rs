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

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::config::Pipeline;

    const REST: &str =
        "[source.in.generate]\nrate = 1\n[job.j]\nfrom = ['in']\nto = ['NAME']\ncount = {}\n";

    fn errors(sink: &str) -> String {
        let read = Pipeline::parse(&format!("{sink}\n{REST}"), "p.toml", &|_| None);
        read.err().map(|err| err.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_row_has_the_keys_that_its_reader_asks_for() {
        for row in SINKS {
            let shown = errors(&format!("[sink.NAME.{}]\nzzzzzzzzzzzzzzzz = 1", row.name));
            let keys: Vec<_> = row.keys.iter().map(|key| format!("`{}`", key.name)).collect();
            let expected = match keys.is_empty() {
                true => "there are no keys here".to_owned(),
                false => format!("known keys: {}", keys.join(", ")),
            };
            assert!(shown.lines().any(|line| line.ends_with(&expected)), "{expected}\n{shown}");
        }
    }

    #[test]
    fn a_row_has_an_example_that_is_good() {
        let absent = "this program has no sink";
        for row in SINKS {
            let shown = errors(row.example);
            let is_good = shown.is_empty()
                || (shown.contains(absent) && shown.matches("error:").count() == 1);
            assert!(is_good, "{shown}");
        }
    }
}
