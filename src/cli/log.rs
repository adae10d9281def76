//! `Log`: the lines that `tidemill run` writes on standard error, each with its time and level, as text or as JSON.
//!
//! ```text
//! 2026-11-29T20:51:31.042Z INFO source `in`: listening on 127.0.0.1:5514
//! {"time":"2026-11-29T20:51:31.042Z","level":"info","event":"listening","message":"source `in`: …","source":"in",…}
//! ```
//! Names and bytes of peers and files are part of texts, so control characters are escaped: nobody else begins a line,
//! or moves the cursor. Any thread writes. It does not know what is worth a line.

use std::time::UNIX_EPOCH;

use serde_json::{Map, Value, json};

use crate::config::LogLevel;
use crate::error::Error;
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, SystemClock};
use crate::words::{escaped, escaped_json};

use super::args::{LogFormat, RunArgs};
use super::say;

/// See the module. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    /// A reload may change it while others write.
    level: Arc<Mutex<LogLevel>>,
    quiet: bool,
    format: LogFormat,
    clock: Arc<dyn Clock>,
}

impl Log {
    /// The log that the options of `run` ask for. `--quiet` leaves out what is neither a warning nor an error.
    pub(super) fn of(args: &RunArgs) -> Log {
        let log = Log {
            level: Arc::default(),
            quiet: args.quiet,
            format: args.log_format,
            clock: SystemClock::new(),
        };
        log.set_level(args.log_level.unwrap_or_default());
        log
    }

    /// What is written now.
    pub(super) fn level(&self) -> LogLevel {
        *self.level.lock()
    }

    /// What is written from here on.
    pub(super) fn set_level(&self, level: LogLevel) {
        *self.level.lock() = if self.quiet { level.min(LogLevel::Warn) } else { level };
    }

    /// Writes a line, unless the level leaves it out. A text of several lines is several lines.
    pub(super) fn write(&self, level: LogLevel, event: &str, text: &str, facts: Value) {
        if level > *self.level.lock() {
            return;
        }
        let time = humantime::format_rfc3339_millis(UNIX_EPOCH + self.clock.wall()).to_string();
        match self.format {
            LogFormat::Text => {
                for line in text.lines() {
                    say(&format!("{time} {} {}", level.name().to_ascii_uppercase(), escaped(line)));
                }
            }
            LogFormat::Json => {
                let mut line = Map::new();
                for (key, value) in [
                    ("time", time.as_str()),
                    ("level", level.name()),
                    ("event", event),
                    ("message", text),
                ] {
                    line.insert(key.to_owned(), value.into());
                }
                if let Value::Object(facts) = facts {
                    line.extend(facts);
                }
                say(&escaped_json(&Value::Object(line).to_string()));
            }
        }
    }

    /// Writes why the program ends. Texts about files and options have their own layout, with a caret.
    pub fn error(&self, err: &Error) {
        match (self.format, err) {
            (LogFormat::Text, Error::Config(text) | Error::Usage(text))
                if text.starts_with("error") =>
            {
                say(text)
            }
            (_, err) => {
                let facts = json!({"exit_code": err.exit_code()});
                self.write(LogLevel::Error, "error", &err.to_string(), facts);
            }
        }
    }
}
