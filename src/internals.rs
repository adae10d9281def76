//! The inside of the engine, for its own tests, benches, fuzz targets and program: no part of the interface, and hidden in
//! its documentation. A name that none of them uses does not belong here. Nothing in the engine reads this file.

#![allow(missing_docs, reason = "each name is documented where it is defined")]

/// The crash tests fill small segments, and look at what a life leaves in them.
pub use crate::context::internals::{Looked, chunk_records, keep_state_in, look};
/// They feed sources without sockets, and know when the log has what they fed.
pub use crate::context::internals::{memory_budget, offer, receivers, sync_log};
/// The pages are looked at in a browser.
pub use crate::lab::page::of_json;

pub mod blocks {
    pub use crate::blocks::{Acknowledge, Block, BlockId, Range, Receipt};
    pub mod manager {
        pub use crate::blocks::manager::StoredBlock;
    }
}
pub mod cli {
    pub use crate::cli::{Cli, Log, complain};
}
pub mod config {
    pub use crate::config::log_level::{LOG_LEVELS, LogLevel};
    pub use crate::config::pipeline::{Http, Pipeline};
    pub use crate::settings::tree::{Given, Setting};
    pub use crate::sink::options::SinkKind;
    pub use crate::source::options::Source;
}
pub mod dashboard {
    pub use crate::dashboard::{HttpOptions, HttpServer, Starting};
    pub mod request {
        pub use crate::dashboard::request::{Parsed, parse};
    }
}
pub mod exec {
    pub use crate::exec::run;
    pub mod shuffle {
        pub mod word_table {
            pub use crate::exec::shuffle::word_table::WordTable;
        }
    }
    pub mod worker_pool {
        pub use crate::exec::worker_pool::WorkerPool;
    }
}
pub mod framing {
    pub use crate::framing::{FRAMINGS, Found, Framing, Owed, Splitter};
}
pub mod io {
    pub use crate::source::io::{
        Closed, Disposition, Flow, Handler, HandlerFactory, IO_MODELS, IoDriver, IoModel, Options,
        Peer, Remote, Row, TURN_BYTES, Waker, probe, start,
    };
}
pub mod lab {
    pub mod baseline {
        pub use crate::lab::baseline::{LineCount, READ_BYTES};
    }
    pub mod machine {
        pub use crate::lab::machine::{fact, facts};
    }
    pub mod process {
        pub use crate::lab::process::{Heard, Lines, Process};
    }
    pub mod sample {
        pub use crate::lab::sample::{cpu_of, figure, own_cpu};
    }
    pub mod stats {
        pub use crate::lab::stats::{Summary, alternate, alternating, median, quantile, ratios};
    }
}
pub mod load {
    pub use crate::load::{Event, Framing, Limit, Load, LoadOptions, Target, WINDOW, WORDS, start};
}
pub mod memory {
    pub mod budget {
        pub use crate::memory::budget::MemoryBudget;
    }
    pub mod buffer_pool {
        pub use crate::memory::buffer_pool::{BUFFER_BYTES, Buffer, Pool};
    }
}
pub mod owner {
    pub use crate::owner::{BatchId, OutputMark, Owner};
}
pub mod settings {
    pub mod units {
        pub use crate::settings::units::as_f64;
    }
}
pub mod sink {
    pub use crate::sink::SINKS;
}
pub mod source {
    pub use crate::source::SOURCES;
}
pub mod storage {
    pub use crate::storage::{Directory, Fault, MemoryStorage, Storage};
}
pub mod stream {
    pub use crate::stream::{BatchInput, Graph, GraphOptions, Output};
    pub mod jobs {
        pub use crate::stream::jobs::{JOBS, JobKind, JobOptions, JobOutput, WordCount};
    }
}
pub mod sync {
    pub use crate::sync::{
        Arc, AtomicBool, AtomicU64, Condvar, Mailbox, Mutex, MutexGuard, Ordering, Poison, Signal,
        StopToken,
    };
    pub mod thread {
        pub use crate::sync::thread::{Thread, spawn};
    }
}
pub mod time {
    pub use crate::time::tighten_timer_slack;
    pub use crate::time::timer::{RecurringTimer, Schedule, Ticks};
}
pub mod wal {
    pub use crate::wal::{
        Known, LogOptions, Place, Position, Record, WriteAheadLog, replay, survey, survey_with,
    };
    pub mod checkpoint_file {
        pub use crate::wal::checkpoint_file::Checkpoint;
    }
}
