//! Sources that read sockets: the supervisor dials or listens, a session splits what its connection read, and what is owed to a
//! peer is acknowledged. Reading itself is [`io`](super::io)'s. Knows no blocks in the store and no batches.

pub(crate) mod acks;
pub(crate) mod dialer;
pub(crate) mod oversized;
pub(crate) mod session;
pub(crate) mod supervisor;
pub(crate) mod unfinished;
