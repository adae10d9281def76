//! `Reload`: SIGHUP reads the pipeline file again. If all of it is good, rates, the log level and the number of workers
//! follow it; other changes are named as needing a restart. A file that is wrong changes nothing. Runs on the thread
//! `reload`.

use serde_json::json;

use crate::config::{Pipeline, Source};
use crate::context::Adjuster;
use crate::error::Result;

use super::messages::Messages;

/// The keys of a source that follow the file.
const RATES: [&str; 4] = ["rate_max", "rate_min", "initial_rate", "backpressure"];

/// See the module.
pub(super) struct Reload {
    /// The pipeline that the stream was started with; what follows the file is kept up to date in it.
    running: Pipeline,
    read: Box<dyn Fn() -> Result<Pipeline> + Send>,
    /// True if the command line decides the log level.
    level_is_given: bool,
    messages: Messages,
}

/// The changes that a new version of the file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    workers: bool,
    log_level: bool,
    /// Sources whose rates changed.
    rates: Vec<String>,
    /// Keys that need a restart.
    others: Vec<String>,
}

/// Sorts the keys that changed.
fn sort(keys: &[String]) -> Changes {
    let mut changes = Changes::default();
    for key in keys {
        let path: Vec<&str> = key.split('.').collect();
        match path.as_slice() {
            ["workers"] => changes.workers = true,
            ["log_level"] => changes.log_level = true,
            ["source", name, _, rate] if RATES.contains(rate) => {
                if !changes.rates.iter().any(|other| other == name) {
                    changes.rates.push((*name).to_owned());
                }
            }
            _ => changes.others.push(key.clone()),
        }
    }
    changes
}

impl Reload {
    /// `read` reads the pipeline as the start did; `level_is_given` if the command line decides the log level.
    pub(super) fn new(
        running: Pipeline,
        read: impl Fn() -> Result<Pipeline> + Send + 'static,
        level_is_given: bool,
        messages: Messages,
    ) -> Self {
        Reload { running, read: Box::new(read), level_is_given, messages }
    }

    /// Reads the file and applies what may be.
    pub(super) fn run(&mut self, adjuster: &Adjuster) {
        match (self.read)() {
            Ok(pipeline) => {
                // A level that leaves messages out comes into force behind this one.
                let log = self.messages.0.clone();
                let level = if self.level_is_given { log.level() } else { pipeline.log_level };
                log.set_level(level.max(log.level()));
                let text = format!("reloaded: {}", self.apply(pipeline, adjuster));
                self.messages.say("reloaded", &text, json!({"good": true}));
                log.set_level(level);
                adjuster.reloaded(true, &text);
            }
            Err(err) => {
                let text = format!("not reloaded, nothing was changed: {err}");
                self.messages.warning("reloaded", &text, json!({"good": false}));
                adjuster.reloaded(false, &text);
            }
        }
    }

    /// Applies the new file; what was done in words.
    fn apply(&mut self, new: Pipeline, adjuster: &Adjuster) -> String {
        let changes = sort(&self.running.given.changed(&new.given));
        let mut said = Vec::new();
        if changes.log_level {
            said.push(match self.level_is_given {
                true => "log_level stays: --log-level was given".to_owned(),
                false => format!("log_level is {}", new.log_level.name()),
            });
        }
        if changes.workers {
            let workers = new.resolved().workers;
            match adjuster.set_workers(workers) {
                Ok(()) => said.push(format!("workers is {workers}")),
                Err(err) => said.push(format!("workers stays: {err}")),
            }
        }
        for name in &changes.rates {
            let source = new.sources.iter().find(|(other, _)| other == name);
            let Some((_, Source::Socket(source))) = source else { continue };
            match adjuster.set_rate(name, source.rate) {
                Ok(()) => said.push(format!("source `{name}`: its rates follow the file")),
                Err(why) => said.push(format!("source `{name}`: its rates need a restart: {why}")),
            }
        }
        if !changes.others.is_empty() {
            said.push(format!("needs a restart: {}", changes.others.join(", ")));
        }
        // What was not applied differs from the file until the restart, and is named again by the next reload.
        if changes.others.is_empty() {
            self.running = new;
        } else {
            self.running.given =
                self.running.given.with(&new.given, |key| !changes.others.contains(key));
        }
        if said.is_empty() { "nothing has changed".to_owned() } else { said.join("; ") }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    #[test]
    fn changes_are_sorted() {
        let check = |keys: &[&str], expected: Changes| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(sort(&keys), expected, "{keys:?}");
        };
        let text = |text: &str| text.to_owned();
        check(&["workers"], Changes { workers: true, ..Changes::default() });
        check(&["log_level"], Changes { log_level: true, ..Changes::default() });
        check(
            &["source.a.socket.rate_max", "source.a.socket.rate_min", "source.b.socket.listen"],
            Changes {
                rates: vec![text("a")],
                others: vec![text("source.b.socket.listen")],
                ..Changes::default()
            },
        );
        // A name is no key.
        check(
            &["job.workers"],
            Changes { others: vec![text("job.workers")], ..Changes::default() },
        );
    }
}
