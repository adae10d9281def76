//! The standard descriptors that a program is started with: one that was closed takes what is written and keeps nothing.
//!
//! The runtime opens `/dev/null` in the place of a closed descriptor before `main`, for reading and writing, and no write
//! to it fails. A shell opens `> /dev/null` for writing only: that is a wish, and stays one. Other programs open it both ways
//! for those that they start, which looks as a closed one does; rows go nowhere in either case.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fstat};
use serde_json::json;

use crate::config::Pipeline;
use crate::error::{Error, Result};

use super::messages::Messages;

/// The advice.
const REMEDY: &str = "give it a file, a pipe or `>/dev/null`, or write the rows to another sink";

/// Standard output takes the rows of consoles: a pipeline whose rows all go there must not run where it is closed, and of
/// another one it is said.
///
/// # Errors
/// If every job writes to consoles only, and standard output is closed.
pub(super) fn expect_output(pipeline: &Pipeline, messages: &Messages) -> Result<()> {
    if !is_closed(io::stdout()) {
        return Ok(());
    }
    match consoles(pipeline) {
        (names, _) if names.is_empty() => Ok(()),
        (names, true) => Err(Error::Failed(format!(
            "standard output is closed, so the rows of {names} would be lost: {REMEDY}"
        ))),
        (names, false) => {
            let text = format!("standard output is closed: the rows of {names} are lost; {REMEDY}");
            messages.warning("output_closed", &text, json!({}));
            Ok(())
        }
    }
}

/// The consoles that jobs write to, in words, and whether they are the only sinks that jobs write to.
fn consoles(pipeline: &Pipeline) -> (String, bool) {
    let is_console = |name: &String| {
        let sink = pipeline.sinks.iter().find(|(known, _)| known == name);
        sink.is_some_and(|(_, sink)| sink.is_standard_output())
    };
    let used = |name: &String| pipeline.jobs.iter().any(|(_, job)| job.to.contains(name));
    let names = pipeline.sinks.iter().map(|(name, _)| name);
    let names = names.filter(|name| is_console(name) && used(name));
    let names: Vec<String> = names.map(|name| format!("sink `{name}`")).collect();
    let only = pipeline.jobs.iter().flat_map(|(_, job)| &job.to).all(is_console);
    (names.join(", "), only)
}

/// True if what is written to a descriptor reaches nobody: it was closed, or is a pipe whose reader is gone.
pub(super) fn takes_nothing(descriptor: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&descriptor, PollFlags::OUT)];
    let is_gone = poll(&mut asked, Some(&Timespec::default())).is_ok()
        && asked[0].revents().contains(PollFlags::ERR);
    is_gone || is_closed(descriptor)
}

/// True if a descriptor was closed when the program was started, as far as that can be seen.
fn is_closed(descriptor: impl AsFd) -> bool {
    let null = fs::metadata("/dev/null").map(|null| (null.dev(), null.ino()));
    let found = fstat(&descriptor);
    let is_null = found.is_ok_and(|it| null.is_ok_and(|null| null == (it.st_dev, it.st_ino)));
    let both_ways = |flags: OFlags| flags & OFlags::ACCMODE == OFlags::RDWR;
    is_null && fcntl_getfl(&descriptor).is_ok_and(both_ways)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn only_a_null_device_that_is_open_both_ways_counts_as_closed() {
        let check = |path: &str, read: bool, write: bool, expected: bool| {
            let file = OpenOptions::new().read(read).write(write).open(path).expect("opened");
            assert_eq!(is_closed(file), expected, "{path} {read} {write}");
        };
        check("/dev/null", true, true, true);
        check("/dev/null", false, true, false);
        check("/dev/null", true, false, false);
        check("/dev/zero", true, true, false);
        assert!(!is_closed(tempfile::tempfile().expect("a file")));
        let (reader, writer) = io::pipe().expect("a pipe");
        assert!(!is_closed(&writer) && !takes_nothing(&writer));
        drop(reader);
        assert!(takes_nothing(&writer));
    }
}
