//! Over-long records of RELP: shortens such a frame from its header to its end, or puts it aside part by part. Runs on the
//! io threads; it does not know where the next frame begins in a piece, nor who keeps the parts that are put aside.

use super::frame::{Head, check_trailer};
use super::{RelpSplitter, State};
use crate::framing::{AsidePart, Found, Malformed, Overlong, Owed};

/// The rest of an over-long frame, in bytes of its data.
#[derive(Clone, Copy)]
pub(super) struct Shortening {
    txnr: u32,
    keep: usize,
    skip: usize,
}

impl RelpSplitter {
    /// Begins an over-long frame; the stream stands after its header.
    pub(super) fn begin_overlong(&mut self, head: &Head<'_>, header: &[u8], found: &mut Found) {
        let Head { txnr, body, .. } = *head;
        self.carry.clear();
        if self.overlong == Overlong::PutAside {
            found.aside.push(AsidePart { bytes: header.to_vec(), is_last: false });
            self.state = State::PuttingAside { txnr, missing: body as usize };
            return;
        }
        self.carry.push(format!("{txnr} truncated {} ", self.carry.max()).as_bytes());
        let skip = body as usize - self.carry.max();
        self.state = State::Shortening(Shortening { txnr, keep: self.carry.max(), skip });
    }

    /// Continues an over-long frame. Returns the start of the next frame once this one has ended.
    pub(super) fn go_on_overlong(
        &mut self,
        rest: &[u8],
        found: &mut Found,
    ) -> Result<Option<usize>, Malformed> {
        let State::PuttingAside { txnr, missing } = self.state else {
            return self.go_on_shortening(rest, found);
        };
        let data = missing.min(rest.len());
        let trailer = rest.get(data);
        trailer.map_or(Ok(()), |trailer| check_trailer(std::slice::from_ref(trailer)))?;
        let len = data + usize::from(trailer.is_some());
        found.aside.push(AsidePart { bytes: rest[..len].to_vec(), is_last: trailer.is_some() });
        if trailer.is_none() {
            self.state = State::PuttingAside { txnr, missing: missing - data };
            return Ok(None);
        }
        self.state = State::Reading;
        found.overlong += 1;
        found.owed.push(Owed::Aside(txnr));
        Ok(Some(len))
    }

    /// Keeps the beginning of an over-long frame and skips the rest. At its end the shortened frame is carried, whole, and
    /// the start of the next frame is returned.
    fn go_on_shortening(
        &mut self,
        rest: &[u8],
        found: &mut Found,
    ) -> Result<Option<usize>, Malformed> {
        let State::Shortening(Shortening { txnr, keep, skip }) = self.state else {
            return Ok(None);
        };
        let kept = keep.min(rest.len());
        self.carry.push(&rest[..kept]);
        let skipped = skip.min(rest.len() - kept);
        let missing = Shortening { txnr, keep: keep - kept, skip: skip - skipped };
        self.state = State::Shortening(missing);
        let Some(trailer) = rest.get(kept + skipped).filter(|_| missing.skip == 0) else {
            return Ok(None);
        };
        check_trailer(std::slice::from_ref(trailer))?;
        self.carry.push(b"\n");
        self.state = State::Reading;
        found.overlong += 1;
        found.owe_record(txnr);
        Ok(Some(kept + skipped + 1))
    }
}
