//! Counts the system calls of this process: the kernel's tracepoint `raw_syscalls/sys_enter`, which only those may count
//! who may trace. The counters of `/proc/PID/io` would miss recv(2), epoll_wait(2) and io_uring_enter(2). Any thread.

use std::fs;

use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

/// The files with the tracepoint's number, by the mount point of the tracing file system.
const NUMBERS: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// A count that goes on.
pub(super) struct Calls(Counter);

impl Calls {
    /// Counts the calls of this thread, and of all threads that it and those start from now on.
    ///
    /// # Errors
    /// Why the kernel does not let this process count, in one line.
    pub(super) fn start() -> Result<Calls, String> {
        let number =
            NUMBERS.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        let number =
            number.ok_or("system calls: no tracing file system can be read (tracefs, as root)")?;
        let refused = |err| format!("system calls: perf_event_open: {err} (it takes CAP_PERFMON)");
        let mut builder = Builder::new(Tracepoint::with_id(number));
        let mut counter = builder.inherit(true).include_kernel().build().map_err(refused)?;
        counter.enable().map_err(refused)?;
        Ok(Calls(counter))
    }

    /// Number of calls so far.
    pub(super) fn so_far(&mut self) -> Option<u64> {
        self.0.read().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Poison, thread};

    #[test]
    fn calls_of_threads_are_counted_too() {
        let mut calls = match Calls::start() {
            Ok(calls) => calls,
            // Not permitted here: then the reason is what a report says.
            Err(why) => return assert!(why.starts_with("system calls: "), "{why}"),
        };
        let before = calls.so_far().expect("it was opened");
        let body = || (0..500).for_each(|_| drop(fs::metadata("/")));
        thread::spawn("caller", &Poison::new(), body).expect("a thread").join();
        let made = calls.so_far().expect("it was opened") - before;
        assert!((500..5_000).contains(&made), "{made}");
    }
}
