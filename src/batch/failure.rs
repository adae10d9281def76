//! Why an attempt at a batch came to nothing, and how a task ends for a reason that is not a panic. Knows no plans.

use std::any::Any;
use std::io::ErrorKind;
use std::panic::resume_unwind;

use crate::error::Error;
use crate::sync::thread::panic_text;

/// Why an attempt at a batch came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed, and may fail again.
    Failed(String),
    /// A sink's disk is full. That is no fault of the batch: it waits for room.
    NoRoom(String),
    /// The reader of a sink is gone for good, and every other sink of the job has the rows. It is not tried again.
    Closed(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::Failed(text)
    }
}

impl Failure {
    /// What an error of a sink means for the batch.
    pub fn of_sink(err: &Error) -> Self {
        match err {
            Error::Io { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                Failure::NoRoom(err.to_string())
            }
            _ => Failure::Failed(err.to_string()),
        }
    }
}

/// Ends the task that runs now, and the attempt at its batch, for a reason that is not a panic. A partition is iterated
/// from within the closures of users, which have no way to hand an error on: so this unwinds, past the panic hook.
pub fn fail_task(why: String) -> ! {
    resume_unwind(Box::new(TaskFailed(why)))
}

/// What [`fail_task`] unwinds with.
struct TaskFailed(String);

/// Why a task ended that unwound.
pub fn failure_text(unwound: &(dyn Any + Send)) -> String {
    match unwound.downcast_ref::<TaskFailed>() {
        Some(TaskFailed(why)) => why.clone(),
        None => format!("panicked: {}", panic_text(unwound)),
    }
}
