//! Receivers: what brings records in. Knows no jobs and no sinks.

pub mod io;
