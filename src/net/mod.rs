//! Everything that a part with sockets needs from the system before it reads or writes: names, listeners, file descriptors.
//!
//! A name stands for several addresses. [`listen`] binds all that the machine has. [`lookup`] asks for them on a thread
//! that may be left behind, since nothing ends a query to a name server that does not answer. [`descriptors`] computes how
//! many connections fit. This room knows no source, no server and no records.

pub(crate) mod descriptors;
pub(crate) mod listen;
pub(crate) mod lookup;
