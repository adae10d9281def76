//! What the fuzz targets share: input bytes decide the limit and the chopping, the rest is the stream.
//!
//! ```text
//! max (1 byte, 255 = no limit) | pieces (1 byte, modulo 8) | that many piece lengths (1 byte each) | stream
//! ```
//! A find becomes a named unit test beside the splitter.

use tidemill::framing::{Found, Framing, Splitter};

#[path = "../../src/framing/reference.rs"]
pub mod reference;

/// Compares a framing's splitter with its reference.
pub fn compare(framing: Framing, input: &[u8]) {
    let [max, pieces, rest @ ..] = input else { return };
    let Some((lengths, stream)) = rest.split_at_checked(usize::from(pieces % 8)) else { return };
    let max = if *max == u8::MAX { usize::MAX } else { usize::from(*max) };
    let found = reference::run(framing, reference::chop(stream, lengths), max);
    assert_eq!(found, reference::reference(framing, stream, max));
}
