//! The command line: what people type, and what it does. Runs on the main thread; everything else lies below it.

pub mod args;
mod flags;
pub mod validate;
