//! Graphs driven by hand.
