//! `retired` and `renamed`: the changes of names that the state directory knows and the file no longer has. Main thread; it does
//! not look into the state directory.

use crate::config::{Config, NameChanges, NameKind, Renamed, StateName};
use crate::journal::EntryAt;
use crate::settings::diagnostics::{At, Problem, Problems};
use crate::settings::section::{Found, Section, TextEntry};
use crate::settings::suggest;
use crate::sink::SinkKind;
use crate::source::Source;
use crate::stream::identity_state;

use super::links::Names;

/// Both keys, with the place of each entry.
pub(super) struct Changes {
    changes: NameChanges,
    retired_at: Vec<At>,
    renamed_at: Vec<At>,
    /// The place of each key.
    keys_at: Vec<(&'static str, At)>,
}

impl Changes {
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        let keys_at = ["retired", "renamed"].into_iter().filter(|key| root.has(key));
        let keys_at = keys_at.map(|key| (key, root.key_at(key))).collect();
        let mut read = Changes {
            changes: NameChanges::default(),
            retired_at: Vec::new(),
            renamed_at: Vec::new(),
            keys_at,
        };
        for found in root.texts_or_none("retired").unwrap_or_default() {
            if let Some(name) = name("retired", &found, root.problems) {
                read.changes.retired.push(name);
                read.retired_at.push(found.at);
            }
        }
        for TextEntry { key, value } in root.text_table("renamed") {
            let (new, old) =
                (name("renamed", &key, root.problems), name("renamed", &value, root.problems));
            if let (Some(new), Some(old)) = (new, old) {
                read.changes.renamed.push(Renamed { new, old });
                read.renamed_at.push(key.at);
            }
        }
        read
    }

    /// A problem for each entry that does not fit the names of the file. States beside those of `identity` are checked at
    /// the start, when they are there.
    pub(super) fn check(
        &self,
        sources: &Names<Source>,
        sinks: &Names<SinkKind>,
        jobs: &[String],
        problems: &Problems,
    ) {
        let sources_named: Vec<&str> = sources.all().map(|(name, _)| name).collect();
        let identified = sources.all().filter(|(_, source)| {
            matches!(source, Some(Source::Socket(socket)) if socket.identity.is_some())
        });
        let states: Vec<String> = identified.map(|(name, _)| identity_state(name)).collect();
        let sinks: Vec<&str> = sinks.all().map(|(name, _)| name).collect();
        for kind in NameKind::ALL {
            let used: Vec<&str> = match kind {
                NameKind::Source => sources_named.clone(),
                NameKind::State => states.iter().map(String::as_str).collect(),
                NameKind::Sink => sinks.clone(),
                NameKind::Job => jobs.iter().map(String::as_str).collect(),
            };
            for wrong in self.changes.check(kind, &used) {
                let (at, new) = match wrong.at {
                    EntryAt::Retired(at) => (&self.retired_at[at], None),
                    EntryAt::Renamed(at) => {
                        (&self.renamed_at[at], Some(&self.changes.renamed[at].new))
                    }
                };
                // A slip of the finger in the new name is more likely than the two in a wrong order.
                let near = new.filter(|new| !used.contains(&new.name.as_str()));
                let near = near.and_then(|new| suggest::nearest(&new.name, used.iter().copied()));
                let hint = near.map_or(wrong.hint, |near| format!("did you mean `{near}`?"));
                problems.add(Problem::new(at, wrong.title).hint(hint));
            }
        }
    }

    /// Without a state directory nothing is known by name.
    pub(super) fn warn_without_state(&self, problems: &Problems) {
        for (key, at) in &self.keys_at {
            let title = format!("`{key}` has no effect without `state_dir`");
            problems.add(Problem::warning(at, title));
        }
    }

    pub(super) fn into_config(self, config: Config) -> Config {
        let NameChanges { retired, renamed } = self.changes;
        let config = retired.iter().fold(config, |config, name| config.retire(name.to_string()));
        renamed.iter().fold(config, |config, Renamed { new, old }| {
            config.rename(new.to_string(), old.to_string())
        })
    }
}

fn name(key: &str, found: &Found<String>, problems: &Problems) -> Option<StateName> {
    match StateName::parse(&found.value) {
        Ok(name) => Some(name),
        Err(why) => {
            let title = format!("`{}` in `{key}` is no name", found.value);
            let (label, hint) = why.split_once(": ").unwrap_or((&why, ""));
            problems.add(Problem::new(&found.at, title).label(label).hint(hint));
            None
        }
    }
}
