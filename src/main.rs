//! The `tidemill` program: maps a result to an exit code.

fn main() {}
