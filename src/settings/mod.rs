//! Settings with their places: a table of a pipeline is read key by key, and everything wrong is shown with file, line and
//! remedy. Knows no key. Main thread.

pub(crate) mod diagnostics;
pub mod key;
pub mod options;
pub(crate) mod pattern;
pub(crate) mod section;
pub(crate) mod suggest;
pub(crate) mod tree;
pub mod units;
