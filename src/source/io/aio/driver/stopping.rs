//! The stop of the loop of AIO: it hands over what was read, sends the replies that are due, and closes every connection. Runs on
//! the thread `rxN-io-0`; it does not know why the receiver stops.

use io_uring::{cqueue, opcode};

use super::{Connection, Loop, Receiving, Sender};
use crate::source::io::aio::key::{Key, Kind};
use crate::source::io::inbox::Stage;
use crate::source::io::{Closed, Flow, Handler};

impl<L: Handler> Loop<L> {
    /// Stops: hands over what was read, and ends everything else.
    pub(super) fn end(mut self, mut completions: Vec<cqueue::Entry>) {
        self.acceptor = None;
        // If it fails, dropping the ring takes care of the buffers.
        let _ = self.ring.cancel_all();
        // Two rounds: the first may find the queue full.
        for _ in 0..2 {
            self.ring.push(opcode::Nop::new().build(), Key::plain(Kind::Ignored));
            self.ring.wait();
            self.ring.completions(&mut completions);
            for completion in &completions {
                self.complete_last(completion);
            }
        }
        self.handler.finish();
        self.stopped = true;
        self.await_wake();
        for place in &mut self.places {
            if let Some(connection) = &mut place.connection {
                // Every request was ended.
                (connection.receiving, connection.awaits_room) = (Receiving::No, false);
            }
        }
        loop {
            // Drain the inbox first: the message that stopped reading may be the last one we are sent.
            let stage = self.take_posted();
            self.leave_all(stage);
            if self.places.iter().all(|place| place.connection.is_none()) {
                break;
            }
            self.ring.wait();
            self.ring.completions(&mut completions);
            for completion in &completions {
                self.complete(completion);
            }
        }
        self.handler.finish();
    }

    /// Closes every connection that is not kept for its replies.
    fn leave_all(&mut self, stage: Stage) {
        for index in 0..self.places.len() {
            let generation = self.places[index].generation;
            let index = u32::try_from(index).expect("indices are made from such");
            self.leave(Key { kind: Kind::Receive, generation, index }, stage);
        }
    }

    fn leave(&mut self, key: Key, stage: Stage) {
        self.reply(key);
        let Some(place) = self.places.get_mut(key.index as usize) else { return };
        let known = place.generation == key.generation;
        let Some(connection) = place.connection.as_mut().filter(|_| known) else { return };
        let Connection { replies, session, stream, .. } = connection;
        if !replies.are_settled(self.handler.disposition(session)) && stage < Stage::Closing {
            return;
        }
        replies.farewell(&mut self.handler, session, &mut Sender(stream));
        self.close(key, Closed::Stopped);
    }

    fn complete_last(&mut self, completion: &cqueue::Entry) {
        let key = Key::decode(completion.user_data());
        let id = cqueue::buffer_select(completion.flags()).filter(|_| key.kind == Kind::Receive);
        let len = usize::try_from(completion.result()).unwrap_or(0);
        if let Some(id) = id.filter(|_| len > 0)
            && let Flow::Close(why) = self.hand_over(key, id, len)
        {
            self.close(key, Closed::Refused(why));
        }
    }
}
