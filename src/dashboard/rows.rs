//! The rows of the table of all figures: of the stream and its process, and of each source.

use std::time::Duration;

use super::row::Origin::{Always, Build, Counter, Many, Process, Source, Starting, Stream, Times};
use super::row::{Kind, Row, counter, gauge, histogram, old};
use crate::context::ReceiverStatus;

/// Of the stream, its log and its process.
pub(super) const STREAM: &[Row] = &[
    Row::new(
        Kind::Info,
        "tidemill_build",
        "The version of the program, and the compiler that built it.",
        Build,
    )
    .by(&["version", "rustc"])
    .not_in_json(),
    gauge(
        "tidemill_ready",
        "Whether the stream works, as /readyz says.",
        Always(|look| look.is_ready().into()),
    ),
    gauge(
        "tidemill_recovery_read_bytes",
        "Bytes of an earlier run's log that the start has read; only while it starts.",
        Starting(|it| it.read_bytes.into()),
    ),
    gauge(
        "tidemill_recovery_bytes",
        "Bytes of an earlier run's log in all, at most; only while it starts.",
        Starting(|it| it.log_bytes.into()),
    ),
    counter(
        "tidemill_batches",
        "Batches that are done: their jobs succeeded, or their input was put aside.",
        Stream(|it| Some(it.done.batches.into())),
    ),
    counter(
        "tidemill_records",
        "Records of the batches that are done.",
        Stream(|it| Some(it.done.records.into())),
    ),
    counter(
        "tidemill_dead_letter_batches",
        "Batches whose input was put aside as a dead letter.",
        Stream(|it| Some(it.done.dead_letters.into())),
    ),
    counter(
        "tidemill_dead_letter_records",
        "Records of the batches that were put aside.",
        Stream(|it| Some(it.done.dead_records.into())),
    ),
    gauge(
        "tidemill_batches_waiting",
        "Batches that are planned and not done.",
        Stream(|it| Some(it.done.batches_waiting.into())),
    ),
    gauge(
        "tidemill_records_waiting",
        "Records of the batches that are planned and not done.",
        Stream(|it| Some(it.done.records_waiting.into())),
    ),
    gauge(
        "tidemill_store_bytes",
        "Memory between the sockets and the end of a batch, results included.",
        Stream(|it| Some(it.memory.used.into())),
    ),
    gauge(
        "tidemill_store_bytes_max",
        "The bound of tidemill_store_bytes, at which reading stops.",
        Stream(|it| Some(it.memory.bound.into())),
    ),
    gauge(
        "tidemill_results_bytes",
        "The part of tidemill_store_bytes that batches have made and sinks do not have yet, about.",
        Stream(|it| Some(it.memory.results.into())),
    ),
    gauge(
        "tidemill_results_expected_bytes",
        "Memory that reading leaves free for the results of the next batch.",
        Stream(|it| Some(it.memory.expected.into())),
    ),
    gauge(
        "tidemill_unfinished_bytes",
        "Memory allocated for records that have begun and not ended; not part of tidemill_store_bytes.",
        Stream(|it| Some(it.memory.unfinished.into())),
    ),
    gauge(
        "tidemill_unfinished_bytes_max",
        "The bound of tidemill_unfinished_bytes, at which one of those records is given up.",
        Stream(|it| Some(it.memory.unfinished_bound.into())),
    ),
    gauge(
        "tidemill_free_buffer_bytes",
        "Memory of free buffers that are kept to be used again; not part of tidemill_store_bytes.",
        Stream(|it| Some(it.memory.free.into())),
    ),
    gauge(
        "tidemill_kept_bytes",
        "What windows and states keep from batch to batch, about; not part of tidemill_store_bytes.",
        Stream(|it| Some(it.memory.kept.into())),
    ),
    gauge(
        "tidemill_kept_bytes_max",
        "The bound of tidemill_kept_bytes, at which the stream stops; not there without one.",
        Stream(|it| it.config().kept_bytes_max.map(Into::into)),
    ),
    gauge(
        "tidemill_kept_part_bytes",
        "What one window or state keeps from batch to batch, about.",
        Many(|it, take| {
            it.kept().iter().for_each(|part| take(&[part.kind(), &part.name], part.bytes.into()))
        }),
    )
    .by(&["kind", "name"])
    .not_in_json(),
    counter(
        "tidemill_spilled_bytes",
        "Bytes of records that left memory for the log or for files.",
        Stream(|it| Some(it.memory.spilled.bytes_total.into())),
    )
    .json_as("spilled_bytes_total"),
    gauge(
        "tidemill_spilled_now_bytes",
        "Bytes of records that are out of memory now.",
        Stream(|it| Some(it.memory.spilled.bytes.into())),
    ),
    old(
        "",
        "The earlier name of spilled_now_bytes.",
        Stream(|it| Some(it.memory.spilled.bytes.into())),
    )
    .json_as("spilled_bytes"),
    gauge(
        "tidemill_spilled_blocks",
        "Blocks that are out of memory now.",
        Stream(|it| Some(it.memory.spilled.blocks.into())),
    ),
    gauge(
        "tidemill_spill_file_bytes",
        "Bytes of the files to which blocks were written.",
        Stream(|it| Some(it.memory.spilled.file_bytes.into())),
    ),
    counter(
        "tidemill_spill_failures",
        "Times that blocks could not leave memory.",
        Stream(|it| Some(it.memory.spilled.failures.into())),
    ),
    counter(
        "tidemill_events_dropped",
        "Events that were dropped because a listener was too slow.",
        Stream(|it| Some(it.events_dropped().into())),
    ),
    gauge(
        "tidemill_reload_generation",
        "How often SIGHUP applied the pipeline file since the start.",
        Stream(|it| Some(it.reloaded.generation.into())),
    ),
    gauge(
        "tidemill_reload_success",
        "Whether the last reload of the pipeline file was good, or there was none.",
        Stream(|it| Some((!it.reloaded.failed).into())),
    ),
    gauge(
        "tidemill_condition",
        "1 for each thing that holds the stream up now.",
        Many(|it, take| {
            it.conditions().iter().for_each(|condition| {
                take(&[condition.kind.name(), &condition.subject], 1_u64.into())
            })
        }),
    )
    .by(&["kind", "subject"])
    .not_in_json(),
    counter(
        "tidemill_conditions_begun",
        "How often something of each kind began to hold the stream up.",
        Many(|it, take| {
            it.conditions_begun()
                .iter()
                .for_each(|(kind, count)| take(&[kind.name()], (*count).into()))
        }),
    )
    .by(&["kind"])
    .not_in_json(),
    histogram(
        "tidemill_tick_lateness_seconds",
        "How late the ticks of each timer were.",
        Times(|it| it.ticks()),
    )
    .by(&["timer"]),
    histogram(
        "tidemill_batch_stage_seconds",
        "How long each stage of a batch took, from the end of the one before it.",
        Times(|it| it.stages()),
    )
    .by(&["stage"]),
    counter(
        "tidemill_log_groups",
        "Groups of records that the log made durable, each with one sync of its segment.",
        Stream(|it| Some(it.log?.log.groups.into())),
    ),
    counter(
        "tidemill_log_syncs",
        "Syncs of the log's files and its directory: of groups, segments and the list of segments.",
        Stream(|it| Some(it.log?.log.syncs.into())),
    ),
    counter(
        "tidemill_log_records",
        "Records of the log that became durable: chunks of input, plans, commits and others.",
        Stream(|it| Some(it.log?.log.records.into())),
    ),
    counter(
        "tidemill_log_bytes",
        "Bytes of the log's records that became durable, without headers.",
        Stream(|it| Some(it.log?.log.bytes.into())),
    ),
    counter(
        "tidemill_log_refused_groups",
        "Groups that the log could not write, in part at least, and gave back to be tried again.",
        Stream(|it| Some(it.log?.log.refused.into())),
    ),
    gauge(
        "tidemill_log_segments",
        "Segments of the log that are there now.",
        Stream(|it| Some(it.log?.log.segments.into())),
    ),
    counter(
        "tidemill_log_released_segments",
        "Segments of the log that were freed.",
        Stream(|it| Some(it.log?.log.released.into())),
    ),
    counter(
        "tidemill_checkpoints",
        "Checkpoints that were written.",
        Stream(|it| Some(it.log?.checkpoints.into())),
    ),
    gauge(
        "tidemill_checkpoint_age_seconds",
        "Time since the newest checkpoint of this run was written, or since its start before the first.",
        Stream(|it| Some(it.log?.checkpoint_age.into())),
    ),
    counter(
        "process_cpu_seconds",
        "Processor time of the process, in the program and in the system.",
        Process(|it| it.cpu.map(Into::into)),
    ),
    gauge(
        "process_open_fds",
        "File descriptors that are open.",
        Process(|it| it.open_fds.map(Into::into)),
    ),
    gauge(
        "process_max_fds",
        "How many file descriptors may be open; not there without a limit.",
        Process(|it| it.max_fds.map(Into::into)),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory of the process.",
        Process(|it| it.resident_bytes.map(Into::into)),
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Mapped memory of the process.",
        Process(|it| it.virtual_bytes.map(Into::into)),
    ),
    gauge(
        "process_start_time_seconds",
        "When the process started, since the Unix epoch.",
        Process(|it| it.started.map(Into::into)),
    ),
];

/// Of each source.
pub(super) const RECEIVER: &[Row] = &[
    counter(
        "tidemill_receiver_records",
        "Whole records that a source handed over.",
        Counter("records"),
    ),
    counter("tidemill_receiver_bytes", "Bytes that a source read.", Counter("bytes")),
    counter(
        "tidemill_receiver_overlong",
        "Records dropped because they were longer than record_bytes_max, or unfinished beyond unfinished_bytes_max.",
        Counter("overlong"),
    ),
    counter(
        "tidemill_receiver_given_up",
        "Unfinished records that were given up because all of them took more than unfinished_bytes_max.",
        Counter("given_up"),
    ),
    counter(
        "tidemill_receiver_truncated",
        "Records of which only the first record_bytes_max bytes were kept, in framings that acknowledge.",
        Counter("truncated"),
    ),
    counter(
        "tidemill_receiver_cut_off",
        "Records dropped because their peer closed in the middle of a frame.",
        Counter("cut_off"),
    ),
    counter(
        "tidemill_receiver_broken_off",
        "Records that a broken connection cut, kept as far as they came.",
        Counter("broken_off"),
    ),
    counter(
        "tidemill_receiver_repeats",
        "Records that came before and were left out, where the sender's identity is known.",
        Counter("repeats"),
    ),
    counter(
        "tidemill_receiver_put_aside",
        "Over-long records that were put aside whole, in framings that acknowledge.",
        Counter("put_aside"),
    ),
    counter(
        "tidemill_receiver_malformed",
        "Connections closed because a frame could not be understood.",
        Counter("malformed"),
    ),
    counter(
        "tidemill_receiver_opened",
        "Connections that were made, by either side.",
        Counter("opened"),
    ),
    gauge(
        "tidemill_receiver_open",
        "Connections that are open; 1 for a source without connections.",
        Counter("open"),
    ),
    counter(
        "tidemill_receiver_resets",
        "Connections that ended with an error of the network.",
        Counter("resets"),
    ),
    counter(
        "tidemill_receiver_refused",
        "Peers turned away at the limit of connections or of file descriptors.",
        Counter("refused"),
    ),
    gauge(
        "tidemill_receiver_waiting",
        "Accepted connections that wait unread for a thread; only in the io model pool.",
        Counter("waiting"),
    ),
    old(
        "tidemill_receiver_waiting_total",
        "The earlier name of tidemill_receiver_waiting.",
        Counter("waiting"),
    ),
    gauge(
        "tidemill_receiver_waited_max_seconds",
        "The longest that an accepted connection waited for a thread since the start; only in the io model pool.",
        Source(|it| Some(waited_max(it).into())),
    ),
    old(
        "tidemill_receiver_waited_us_max_total",
        "The earlier name of tidemill_receiver_waited_max_seconds, in microseconds.",
        Counter("waited_us_max"),
    )
    .json_as("waited_us_max"),
    counter(
        "tidemill_receiver_accept_waits",
        "Times that accepting had to wait because the system refused it, mostly for want of file descriptors.",
        Counter("accept_waits"),
    ),
    counter(
        "tidemill_receiver_retries",
        "Dial attempts that failed, or restarts of a receiver.",
        Counter("retries"),
    ),
    counter(
        "tidemill_receiver_pauses",
        "Times that reading stopped because the store or the queue was full.",
        Counter("pauses"),
    ),
    counter(
        "tidemill_receiver_errors",
        "Errors that a receiver reported, and ticks at which a source could not be asked.",
        Counter("errors"),
    ),
    counter(
        "tidemill_receiver_skipped",
        "Files, or parts of files, that are not read, and other things of note about files.",
        Counter("skipped"),
    ),
    counter(
        "tidemill_receiver_lost_bytes",
        "Bytes of input that was gone before it was processed.",
        Counter("lost_bytes"),
    ),
    gauge(
        "tidemill_receiver_removed_files_bytes",
        "Bytes of removed files that are still open to be read to their ends.",
        Counter("removed_files_bytes"),
    ),
    counter(
        "tidemill_receiver_lost_for_windows_bytes",
        "Bytes of processed input that was gone when windows would have read it again.",
        Counter("lost_for_windows_bytes"),
    ),
    gauge(
        "tidemill_receiver_unfinished_bytes",
        "Bytes that have come of records that have begun and not ended; after a stop, those that it threw away.",
        Counter("unfinished_bytes"),
    ),
    old(
        "tidemill_receiver_unfinished_bytes_total",
        "The earlier name of tidemill_receiver_unfinished_bytes, which said only what a stop threw away.",
        Counter("unfinished_bytes"),
    ),
    gauge(
        "tidemill_receiver_paused",
        "1 for each source that is not read, with what it waits for.",
        Source(|it| it.paused_by.map(|_| 1_u64.into())),
    )
    .by(&["source", "by"])
    .not_in_json(),
    gauge(
        "tidemill_receiver_rate",
        "The rate limit in force, in records per second; not there without one.",
        Source(|it| it.rate.map(Into::into)),
    )
    .by(&["source"]),
];

/// The longest wait for a thread.
fn waited_max(receiver: &ReceiverStatus) -> Duration {
    Duration::from_micros(receiver.counter("waited_us_max"))
}
