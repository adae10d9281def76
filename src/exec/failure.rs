//! `Failure`: the reason why an attempt at a batch failed; `fail_task` ends a task without a panic. Knows no plans.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::resume_unwind;

use crate::error::{Error, awaited};
use crate::sync::thread::panic_text;

/// The reason why an attempt at a batch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed, and may fail again.
    Failed(String),
    /// A sink's disk is full. That is no fault of the batch: it waits for room.
    NoRoom(String),
    /// The reader of a sink is gone for good, and every other sink of the job has the rows. It is not tried again.
    Closed(String),
    /// A sink is away for a reason that can pass: the batch is tried again for a while before that counts as a failure.
    Away(Away),
}

/// A sink that takes no rows now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// The sink's name; empty if it has none.
    pub sink: String,
    /// The error, and its place.
    pub cause: String,
    /// The condition for success, in words.
    pub needs: &'static str,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Failed(text)
    }
}

impl Failure {
    /// Classifies a sink's error.
    pub fn of_sink(err: &Error) -> Self {
        match err {
            Error::Io { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Failure::NoRoom(err.to_string())
            }
            _ => match err.of_system().and_then(awaited) {
                Some(needs) => {
                    Failure::Away(Away { sink: String::new(), cause: err.to_string(), needs })
                }
                None => Failure::Failed(err.to_string()),
            },
        }
    }

    /// The same failure with the sink's name, and with where it writes (as `KIND:PLACE`) if it does not say that itself.
    pub fn at(mut self, name: Option<&str>, place: Option<String>) -> Self {
        if let Failure::Away(away) = &mut self {
            name.unwrap_or_default().clone_into(&mut away.sink);
            let place = place.as_deref().and_then(|place| place.split_once(':'));
            if let Some((_, place)) = place.filter(|(_, place)| !away.cause.contains(place)) {
                away.cause = format!("{place}: {}", away.cause);
            }
        }
        self
    }

    /// The reason, in words.
    pub fn cause(&self) -> &str {
        match self {
            Failure::Failed(cause) | Failure::NoRoom(cause) | Failure::Closed(cause) => cause,
            Failure::Away(away) => &away.cause,
        }
    }
}

/// Ends the task that runs now, and the attempt at its batch, for a reason that is not a panic. A partition is iterated
/// from within the closures of users, which have no way to hand an error on: so this unwinds, past the panic hook.
pub fn fail_task(why: String) -> ! {
    resume_unwind(Box::new(TaskFailed(why)))
}

/// The payload that [`fail_task`] unwinds with.
struct TaskFailed(String);

/// The reason of work that unwound.
pub fn failure_text(unwound: &(dyn Any + Send)) -> String {
    unwound_text(unwound, "")
}

/// The reason of a task that unwound; names its stage and partition if it panicked.
pub(super) fn task_failure_text(
    unwound: &(dyn Any + Send),
    stage: &str,
    partition: usize,
) -> String {
    unwound_text(unwound, &format!(" in `{stage}` of partition {partition}"))
}

fn unwound_text(unwound: &(dyn Any + Send), place: &str) -> String {
    match unwound.downcast_ref::<TaskFailed>() {
        Some(TaskFailed(why)) => why.clone(),
        None => format!("panicked{place}: {}", panic_text(unwound)),
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::io;

    use super::*;

    /// `expected`: `room`, the condition for success, or nothing for an error that does not pass.
    fn check(source: impl Into<io::Error>, expected: &str) {
        let source = source.into();
        let shown = format!("{source:?}");
        let found = match Failure::of_sink(&Error::io("cannot write", source)) {
            Failure::Failed(_) => "",
            Failure::NoRoom(_) => "room",
            Failure::Closed(_) => "closed",
            Failure::Away(away) => away.needs,
        };
        assert_eq!(found, expected, "{shown}");
    }

    #[test]
    fn what_can_pass_is_told_by_its_kind() {
        let errno = io::Error::from_raw_os_error;
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            check(kind, "room");
        }
        for kind in [
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionReset,
            ErrorKind::NotConnected,
            ErrorKind::BrokenPipe,
            ErrorKind::TimedOut,
            ErrorKind::UnexpectedEof,
            ErrorKind::HostUnreachable,
        ] {
            check(kind, "its server must be there");
        }
        check(ErrorKind::ResourceBusy, "whoever holds it must let it go");
        check(errno(16), "whoever holds it must let it go");
        check(ErrorKind::NotFound, "its directory must be there");
        check(errno(116), "its file system must be mounted again");
        check(errno(5), "its disk must work");
        check(errno(24), "more open files must be allowed");
        for kind in [
            ErrorKind::PermissionDenied,
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::AlreadyExists,
            ErrorKind::InvalidData,
            ErrorKind::InvalidInput,
            ErrorKind::NotADirectory,
            ErrorKind::Unsupported,
            ErrorKind::Other,
        ] {
            check(kind, "");
        }
        let failed = Failure::of_sink(&Error::Failed("three columns".to_owned()));
        assert_eq!(failed, Failure::Failed("three columns".to_owned()));
    }

    #[test]
    fn a_sink_that_is_away_says_where() {
        let check = |place: Option<&str>, expected: &str| {
            let err = Error::io("cannot write to /out", ErrorKind::NotFound.into());
            let found = Failure::of_sink(&err).at(Some("s"), place.map(str::to_owned));
            let Failure::Away(Away { sink, cause, .. }) = &found else { panic!("{found:?}") };
            assert_eq!((sink.as_str(), cause.as_str()), ("s", expected));
        };
        check(None, "cannot write to /out: entity not found");
        check(Some("file:/out"), "cannot write to /out: entity not found");
        check(Some("kafka:host:1"), "host:1: cannot write to /out: entity not found");
    }
}
