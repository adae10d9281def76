//! AIO on a system without io_uring: the probe fails. The twin of `aio`.

use crate::error::{Error, Result};

use super::{HandlerFactory, IoDriver, Options};

/// Nothing is ever in flight.
pub(super) const IN_FLIGHT_MAX: usize = 0;

const WHY: &str = "io_uring cannot be used: only Linux has it";

pub(super) fn probe() -> Result<(), String> {
    Err(WHY.to_owned())
}

pub(super) fn start<H: HandlerFactory>(_host: H, _options: Options) -> Result<Box<dyn IoDriver>> {
    Err(Error::io(WHY, std::io::ErrorKind::Unsupported.into()))
}
