//! The messages of `tidemill run` on standard error: a line for each event that an operator acts on, and the report at the
//! end, as text or as JSON. Called by the main thread and by the thread `events`; it decides nothing.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};

use crate::config::LogLevel;
use crate::context::{Report, SourceReport};
use crate::metrics::{Condition, Event};
use crate::wording::{by_number, count, grouped};

use super::log::Log;

/// Bytes of a log from one line about the recovery to the next.
const RECOVERED_BYTES_A_LINE: u64 = 256 << 20;

/// Bytes of a log from one event to the next.
const RECOVERED_BYTES_A_STEP: u64 = 16 << 20;

/// Writes events to standard error.
#[derive(Clone)]
pub(super) struct Messages(pub(super) Log);

impl Messages {
    pub(super) fn say(&self, event: &str, text: &str, facts: Value) {
        self.0.write(LogLevel::Info, event, text, facts);
    }

    pub(super) fn warn(&self, text: &str) {
        self.warning("warning", text, json!({}));
    }

    pub(super) fn warning(&self, event: &str, text: &str, facts: Value) {
        self.0.write(LogLevel::Warn, event, text, facts);
    }

    /// One line for each connection is for those who look for a fault.
    fn debug(&self, event: &str, text: &str, facts: Value) {
        self.0.write(LogLevel::Debug, event, text, facts);
    }

    /// A line for each event that an operator acts on; batches speak through the sinks.
    pub(super) fn event(&self, event: &Event) {
        match event {
            Event::IoModelFallback { source, wanted, used, why } => {
                let text = format!("source `{source}`: io model {used} instead of {wanted}: {why}");
                self.warning(
                    "io_model_fallback",
                    &text,
                    json!({"source": source, "wanted": wanted, "used": used}),
                );
            }
            Event::ReceiverError { source, error } => {
                let text = format!("source `{source}`: {error}");
                self.warning("receiver_error", &text, json!({"source": source}));
            }
            Event::SourceEnded { source, error } => {
                let how = error.as_ref().map_or(String::new(), |error| format!(": {error}"));
                let text = format!("source `{source}`: ended{how}");
                self.say("source_ended", &text, json!({"source": source, "error": error}));
            }
            Event::Tallied { tally } => {
                let facts = json!({
                    "source": tally.source,
                    "count": tally.count,
                    "newest": tally.newest,
                });
                self.warning(tally.kind.name(), &tally.text(), facts);
            }
            Event::ConditionBegan { condition } => {
                self.condition("condition_began", condition, &condition.text(), None);
            }
            Event::ConditionLasts { condition, lasted } => {
                let text = format!("{} (for {})", condition.text(), seconds(*lasted));
                self.condition("condition_lasts", condition, &text, Some(*lasted));
            }
            Event::ConditionEnded { condition, lasted } => {
                let text = format!("{}, after {}", condition.over_text(), seconds(*lasted));
                self.condition("condition_ended", condition, &text, Some(*lasted));
            }
            _ => self.event_of_files(event),
        }
    }

    /// Files, and input that is read again.
    fn event_of_files(&self, event: &Event) {
        match event {
            Event::FileSkipped { source, file, why } => {
                let text = format!("source `{source}`: file `{file}`: {why}");
                let facts = json!({"source": source, "file": file, "why": why});
                self.warning("file_skipped", &text, facts);
            }
            Event::InputLost { source, ranges, bytes, records, what, processed } => {
                let then = match processed {
                    true => "it was processed before; windows that reach back to it are incomplete",
                    false => "it was never processed and is given up",
                };
                let text = format!("source `{source}`: input is lost: {what}; {then}");
                let facts = json!({
                    "source": source, "ranges": ranges, "bytes": bytes, "records": records, "processed": processed,
                });
                self.warning("input_lost", &text, facts);
            }
            _ => self.event_of_connections(event),
        }
    }

    /// Listeners and connections.
    fn event_of_connections(&self, event: &Event) {
        match event {
            Event::Listening { source, address } => {
                let text = format!("source `{source}`: listening on {address}");
                self.say("listening", &text, json!({"source": source, "address": address}));
            }
            Event::AddressLeftOut { source, address, why } => {
                let text = format!(
                    "source `{source}`: not listening on {address}, which this machine does not have ({why})"
                );
                let facts = json!({"source": source, "address": address, "why": why});
                self.warning("address_left_out", &text, facts);
            }
            Event::ConnectionsLimited { source, wanted, allowed, descriptors } => {
                let text = format!(
                    "source `{source}`: connections_max = {wanted} does not fit into {descriptors} open files \
                     (RLIMIT_NOFILE): {} at once; raise the limit (`ulimit -Hn`, LimitNOFILE=) or \
                     lower connections_max",
                    count(*allowed, "connection")
                );
                let facts = json!({"source": source, "wanted": wanted, "allowed": allowed, "limit": descriptors});
                self.warning("connections_limited", &text, facts);
            }
            Event::Connected { source, peer } => {
                let text = format!("source `{source}`: connected to {peer}");
                self.debug("connected", &text, json!({"source": source, "peer": peer}));
            }
            Event::Disconnected { source, peer, why } => {
                let text = format!("source `{source}`: connection to {peer} {why}");
                self.debug(
                    "disconnected",
                    &text,
                    json!({"source": source, "peer": peer, "why": why}),
                );
            }
            Event::Retrying { source, address, attempt, wait, why } => {
                let text = format!(
                    "source `{source}`: {address}: {why}; attempt {attempt}, the next in {}",
                    seconds(*wait)
                );
                // The condition and the tally say it to everybody.
                let facts = json!({
                    "source": source,
                    "address": address,
                    "attempt": attempt,
                    "wait_ms": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                });
                self.debug("retrying", &text, facts);
            }
            _ => self.event_of_sinks(event),
        }
    }

    /// A line about a condition.
    fn condition(&self, event: &str, condition: &Condition, text: &str, lasted: Option<Duration>) {
        let mut facts = json!({
            "kind": condition.kind.name(),
            "subject": condition.subject,
            "cause": condition.cause,
            "needs": condition.needs,
        });
        if let Some(lasted) = lasted {
            facts["seconds"] = json!(lasted.as_secs_f64());
        }
        match event {
            "condition_ended" => self.say(event, text, facts),
            _ => self.warning(event, text, facts),
        }
    }

    /// Events of sinks.
    fn event_of_sinks(&self, event: &Event) {
        match event {
            Event::SinkNote { sink, text } => {
                let line = format!("sink `{sink}`: {text}");
                self.say("sink_note", &line, json!({"sink": sink, "note": text}));
            }
            Event::SinkClosed { sink, why, ends_run } => {
                let sink = if sink.is_empty() { "output" } else { sink };
                let (level, then) = match ends_run {
                    true => (LogLevel::Info, "no other sink takes rows, so the run ends"),
                    false => (LogLevel::Warn, "it gets no more rows; the other sinks continue"),
                };
                let text = format!("sink `{sink}` is closed: {why}; {then}");
                let facts = json!({"sink": sink, "why": why, "ends_run": ends_run});
                self.0.write(level, "sink_closed", &text, facts);
            }
            Event::SinkWarning { sink, text } => {
                let line = format!("sink `{sink}`: {text}");
                self.warning("sink_warning", &line, json!({"sink": sink, "text": text}));
            }
            _ => self.event_of_batches(event),
        }
    }

    /// Blocks and batches.
    fn event_of_batches(&self, event: &Event) {
        match event {
            Event::Spilling { directory } => {
                let text = format!("the store is nearly full: blocks leave memory for {directory}");
                self.say("spilling", &text, json!({"directory": directory}));
            }
            Event::JobRetried { time, job, attempt, cause } => {
                self.warn(&format!("job `{job}`: batch {time}, attempt {attempt} failed: {cause}"));
            }
            Event::JobGivenUp { time, job, attempts, cause } => {
                self.warn(&format!(
                    "job `{job}`: batch {time} given up after {}: {cause}",
                    count(*attempts, "attempt")
                ));
            }
            Event::BatchPutAside { time, records, places } => {
                let what = match places.is_empty() {
                    true => "it had no records, so nothing was put aside".to_owned(),
                    false => format!(
                        "its {} {} put aside in {}",
                        count(*records, "record"),
                        by_number(*records, "was", "were"),
                        places.join(", ")
                    ),
                };
                self.warn(&format!("batch {time}: {what}"));
            }
            Event::DeadLetterUnfinished { file, bytes } => {
                let text = format!(
                    "{file} ({}) is an unfinished dead letter of a run that was killed: with a `state_dir` its batch runs again, \
                     so look at it and remove it, unless another process writes it now",
                    HumanBytes(*bytes)
                );
                let facts = json!({"file": file, "bytes": bytes});
                self.warning("dead_letter_unfinished", &text, facts);
            }
            Event::OverlongUnfinished { source, file, bytes } => {
                let text = format!(
                    "source `{source}`: {file} ({}) was removed: it held the beginning of an over-long record that an earlier run \
                     was putting aside when it was cut off; the record was not acknowledged, so its sender sends it again",
                    HumanBytes(*bytes)
                );
                let facts =
                    json!({"source": source, "file": file, "bytes": bytes, "removed": true});
                self.warning("dead_letter_unfinished", &text, facts);
            }
            _ => self.event_of_state(event),
        }
    }

    /// The state at a start and at a stop.
    fn event_of_state(&self, event: &Event) {
        match event {
            Event::Recovering { bytes } => {
                let text = format!("state: read {} of the log so far", HumanBytes(*bytes));
                let level = if is_worth_a_line(*bytes) { LogLevel::Info } else { LogLevel::Debug };
                self.0.write(level, "recovering", &text, json!({"bytes": bytes}));
            }
            Event::Recovered { segments, bytes, batches, records, torn } => {
                let facts = json!({"segments": segments, "bytes": bytes, "batches": batches, "records": records});
                let torn = torn.as_ref().map(|(segment, offset, what)| {
                    format!("; the unfinished end of segment {segment} was cut off at byte {offset} ({what})")
                });
                let text = format!(
                    "state: recovered {} with {}: {} {} again, {} {} for the first batch{}",
                    count(*segments, "segment"),
                    HumanBytes(*bytes),
                    grouped(*batches, "batch"),
                    by_number(*batches, "runs", "run"),
                    grouped(*records, "record"),
                    by_number(*records, "waits", "wait"),
                    torn.unwrap_or_default()
                );
                self.say("recovered", &text, facts);
            }
            Event::StateMended { text } => {
                self.warning("state_mended", &format!("state: {text}"), json!({"text": text}));
            }
            Event::CheckpointDamaged { file, what } => {
                self.warn(&format!(
                    "state: {file} is damaged ({what}); an older checkpoint is used"
                ));
            }
            _ => self.event_of_names(event),
        }
    }

    /// Names that an earlier run had, or did not have.
    fn event_of_names(&self, event: &Event) {
        match event {
            Event::NameRetired { name, held } => {
                let facts = json!({"name": name, "held": held});
                let name = named(name);
                let (level, text) = match held {
                    Some(held) => {
                        (LogLevel::Warn, format!("state: {name} is retired, given up: {held}"))
                    }
                    None => {
                        (LogLevel::Info, format!("state: {name} is retired, nothing is given up"))
                    }
                };
                self.0.write(level, "name_retired", &text, facts);
            }
            Event::NameCarriedOver { new, old } => {
                let text = format!("state: {} is now called {}", named(old), named(new));
                self.say("name_carried_over", &text, json!({"name": new, "old": old}));
            }
            Event::NameIsNew { name } => {
                let how = match name.split_once(':') {
                    Some(("state", _)) => ": it starts empty",
                    Some(("job", _)) => ": it begins with the first new batch",
                    _ => "",
                };
                let text = format!("state: {} is new{how}", named(name));
                self.say("name_is_new", &text, json!({"name": name}));
            }
            // Conditions say the rest: a full store, a spill that fails, a job that waits for room.
            _ => {}
        }
    }

    pub(super) fn report(&self, report: &Report) {
        let facts = json!({
            "batches": report.batches,
            "records": report.records,
            "dead_letters": report.dead_letters,
            "seconds": report.elapsed.as_secs_f64(),
            "left": report.left,
            "beyond_limit": report.beyond_limit,
            "not_due": report.not_due,
            "windows_kept": report.windows_kept,
        });
        self.say("report", &report_text(report), facts);
        for source in &report.sources {
            let counters: HashMap<&str, u64> = source.counters.iter().copied().collect();
            self.say(
                "source_report",
                &source_text(source),
                json!({"source": source.name, "counters": counters}),
            );
        }
    }
}

/// The progress of a recovery is an event often, and gets a line only now and then.
fn is_worth_a_line(bytes: u64) -> bool {
    bytes % RECOVERED_BYTES_A_LINE < RECOVERED_BYTES_A_STEP
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn report_text(report: &Report) -> String {
    let (batches, records) = (grouped(report.batches, "batch"), grouped(report.records, "record"));
    let left = match (report.left.as_slice(), report.beyond_limit, report.not_due) {
        ([], 0, 0) => "nothing was left".to_owned(),
        ([], 0, records) => in_windows(records, report.windows_kept),
        ([], beyond, _) => {
            format!("{} came after the last batch asked for", grouped(beyond, "record"))
        }
        (left, ..) => format!("left: {}", left.join("; ")),
    };
    let dead = match report.dead_letters {
        0 => String::new(),
        dead => format!(" ({} of them put aside)", HumanCount(dead)),
    };
    format!("stopped after {}: {records} in {batches}{dead}; {left}", seconds(report.elapsed))
}

/// Records that no window has shown, for the first that has them ends later.
fn in_windows(records: u64, kept: bool) -> String {
    let (what, were) = (grouped(records, "record"), by_number(records, "was", "were"));
    let after = if kept { "kept in the state_dir" } else { "lost: there is no state_dir" };
    format!("{what} {were} in no window that was due ({after})")
}

/// `KIND:NAME` for people.
fn named(name: &str) -> String {
    name.split_once(':').map_or_else(|| name.to_owned(), |(kind, name)| format!("{kind} `{name}`"))
}

/// One line with what a source read, and what is out of the ordinary.
fn source_text(source: &SourceReport) -> String {
    let number = |name| source.counter(name);
    let (records, bytes) = (grouped(number("records"), "record"), HumanBytes(number("bytes")));
    let mut text = format!("source `{}`: {records}, {bytes}", source.name);
    if let Some(io_model) = source.io_model {
        let connections = grouped(number("opened"), "connection");
        text.push_str(&format!(" over {connections}, io model {io_model}"));
    }
    let tries = if source.io_model.is_some() { ("dial", " failed") } else { ("restart", "") };
    let odd = [
        ("overlong", ("over-long record", " dropped")),
        ("truncated", ("over-long record", " shortened")),
        ("put_aside", ("over-long record", " put aside")),
        ("cut_off", ("unfinished record", " dropped")),
        ("broken_off", ("record", " cut off by a broken connection")),
        ("given_up", ("unfinished record", " given up")),
        ("malformed", ("connection", " closed for a malformed frame")),
        ("resets", ("connection", " broken")),
        ("refused", ("peer", " turned away")),
        ("retries", tries),
        ("errors", ("error", " reported")),
        ("skipped", ("note", " about files")),
        ("unfinished_bytes", ("byte", " of unfinished records")),
    ];
    for (name, (noun, rest)) in odd {
        if number(name) > 0 {
            text.push_str(&format!(", {}{rest}", grouped(number(name), noun)));
        }
    }
    text
}
