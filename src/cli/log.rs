//! `Log`: the lines that `tidemill run` writes on standard error, each with its time and level, as text or as JSON.
//!
//! ```text
//! 2026-11-29T20:51:31.042Z INFO source `in`: listening on 127.0.0.1:5514
//! {"time":"2026-11-29T20:51:31.042Z","level":"info","event":"listening","message":"source `in`: …","source":"in",…}
//! ```
//! Names and bytes of peers and files are part of texts, so control characters are escaped: nobody else begins a line,
//! or moves the cursor. Any thread writes, and none waits for who reads:
//! the lines are queued, see [`Lines`]. It does not know what is worth a line.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::config::LogLevel;
use crate::error::Error;
use crate::sync::thread::panic_text;
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, SystemClock};
use crate::wording::{by_number, count, escaped, escaped_json, escaped_lines};

use super::args::{LogFormat, RunArgs};
use super::lines::Lines;

/// See the module. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    /// A reload may change it while others write.
    level: Arc<Mutex<LogLevel>>,
    quiet: bool,
    format: LogFormat,
    clock: Arc<dyn Clock>,
    lines: &'static Lines,
}

impl Log {
    /// The log that the options of `run` ask for. `--quiet` leaves out what is neither a warning nor an error.
    pub(super) fn of(args: &RunArgs) -> Log {
        let log = Log {
            level: Arc::default(),
            quiet: args.quiet,
            format: args.log_format,
            clock: SystemClock::new(),
            lines: Lines::stderr(),
        };
        log.set_level(args.log_level.unwrap_or_default());
        log
    }

    /// The level that is written now.
    pub(super) fn level(&self) -> LogLevel {
        *self.level.lock()
    }

    /// Sets the level that is written from here on.
    pub(super) fn set_level(&self, level: LogLevel) {
        *self.level.lock() = if self.quiet { level.min(LogLevel::Warn) } else { level };
    }

    /// Writes a line, unless the level leaves it out. A text of several lines is several lines.
    pub(super) fn write(&self, level: LogLevel, event: &str, text: &str, facts: Value) {
        if level > *self.level.lock() {
            return;
        }
        match self.format {
            LogFormat::Text => {
                text.lines().for_each(|line| self.put(self.line(level, event, line, facts.clone())))
            }
            LogFormat::Json => self.put(self.line(level, event, text, facts)),
        }
    }

    /// A line as it is written.
    fn line(&self, level: LogLevel, event: &str, text: &str, facts: Value) -> String {
        let time = humantime::format_rfc3339_millis(UNIX_EPOCH + self.clock.wall()).to_string();
        match self.format {
            LogFormat::Text => {
                format!("{time} {} {}", level.name().to_ascii_uppercase(), escaped(text))
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
                escaped_json(&Value::Object(line).to_string())
            }
        }
    }

    /// Writes why the program ends. Texts about files and options have their own layout, with a caret.
    pub fn error(&self, err: &Error) {
        match (self.format, err) {
            (LogFormat::Text, Error::Config(text) | Error::Usage(text))
                if text.starts_with("error") =>
            {
                self.put(escaped_lines(text));
            }
            (_, err) => {
                let facts = json!({"exit_code": err.exit_code()});
                self.write(LogLevel::Error, "error", &err.to_string(), facts);
            }
        }
    }

    /// From now on a panic of any thread is a line of this log, in its order: what the runtime writes by itself would wait for
    /// who reads standard error, and hold the thread.
    pub fn tell_panics(&self) {
        let log = self.clone();
        std::panic::set_hook(Box::new(move |panic| log.panicked(panic)));
    }

    fn panicked(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let place = panic.location().map_or(String::new(), |place| format!(" at {place}"));
        let mut text = format!("thread `{name}` panicked{place}: {}", panic_text(panic.payload()));
        // As RUST_BACKTRACE says.
        let calls = Backtrace::capture();
        if calls.status() == BacktraceStatus::Captured {
            text.push_str(&format!("\n{calls}"));
        }
        self.write(LogLevel::Error, "panic", &text, json!({"thread": name}));
    }

    fn put(&self, line: String) {
        self.lines.push(line, |dropped| self.dropped(dropped));
    }

    /// The line about those that nobody read in time.
    fn dropped(&self, dropped: u64) -> String {
        let (messages, were) = (count(dropped, "message"), by_number(dropped, "was", "were"));
        let text = format!("{messages} {were} dropped: standard error was not read");
        self.line(LogLevel::Warn, "messages_dropped", &text, json!({"count": dropped}))
    }

    /// The program ends within this time, even if nobody reads.
    pub(super) fn end_within(&self, time: Duration) {
        self.lines.end_within(time);
    }

    /// Waits until all is written, at most this long.
    pub(super) fn written_within(&self, time: Duration) {
        self.lines.written_within(time);
    }

    /// Waits until all is written, at most until what a stop may take is over: the last call before the program ends.
    pub fn finish(&self) {
        self.lines.finish(|dropped| self.dropped(dropped));
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::sync::{Poison, thread};
    use crate::time::ManualClock;

    #[test]
    fn a_panic_is_a_line_in_its_order() {
        let check = |format: LogFormat, expected: &[&str]| {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            let lines = Box::leak(Box::new(Lines::new(writer, SystemClock::new())));
            let clock = Arc::new(ManualClock::new());
            let log = Log { level: Arc::default(), quiet: false, format, clock, lines };
            let (ours, others) = (log.clone(), std::panic::take_hook());
            std::panic::set_hook(Box::new(move |panic| match std::thread::current().name() {
                Some("falls") => ours.panicked(panic),
                _ => others(panic),
            }));
            let poison = Poison::new();
            log.write(LogLevel::Info, "first", "first", json!({}));
            let falls = thread::spawn("falls", &poison, || panic!("oh\nno")).expect("a thread");
            falls.join();
            log.write(LogLevel::Info, "last", "last", json!({}));
            assert_eq!(poison.reason().as_deref(), Some("thread `falls` panicked: oh\nno"));
            let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
            for part in expected {
                let line = lines.next().expect("a line");
                assert!(line.contains(part), "{line}");
            }
        };
        let text = ["INFO first", "ERROR thread `falls` panicked at src/cli/log.rs:"];
        check(LogFormat::Text, &text);
        let panic =
            "\"event\":\"panic\",\"level\":\"error\",\"message\":\"thread `falls` panicked at src/";
        check(LogFormat::Json, &["\"first\"", panic, "\"last\""]);
    }
}
