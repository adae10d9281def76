//! Memory of records: pooled receive buffers that are frozen to shared ranges, and the budget that bounds all of it. Knows
//! nothing of what the bytes mean. Any thread may call it.
//!
#![doc = include_str!("design.md")]

pub mod budget;
pub mod buffer_pool;
