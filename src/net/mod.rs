//! What every part with sockets needs of the system before it reads or writes: names, listeners, file descriptors.
//!
//! A name stands for several addresses: [`listen`] binds all that the machine has, and [`lookup`] asks for them on a thread that
//! may be left behind, since nothing ends a question to a name server that does not answer. [`descriptors`] says how many
//! connections fit. It knows no source, no server and no records.

pub(crate) mod descriptors;
pub(crate) mod listen;
pub(crate) mod lookup;
