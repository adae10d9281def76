//! Replies: sent in order; a connection stays open or ends according to the replies that are due.

use std::io::Read;
use std::net::Shutdown;

use tidemill::internals::io::Disposition;

use crate::rig::{PLENTY, each};

#[test]
fn replies_are_flushed_in_order() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(7);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..200u8 {
                    rig.world.reply(&peer, &[at; 1000]);
                }
            });
            let mut got = vec![0; 200_000];
            (&peer.stream).read_exact(&mut got).expect("replies");
            for (at, chunk) in (0..200u8).zip(got.chunks(1000)) {
                assert!(chunk.iter().all(|byte| *byte == at), "reply {at}");
            }
        });
    });
}

#[test]
fn a_peer_that_does_not_read_its_replies_is_not_read_from() {
    each(PLENTY, |rig| {
        let (mut deaf, mut other) = (rig.peer(1), rig.peer(2));
        deaf.send(1);
        other.send(1);
        rig.world.until_len(&deaf, 1);
        rig.world.until_len(&other, 1);
        let replies = 24 << 20;
        rig.world.reply(&deaf, &vec![b'r'; replies]);
        rig.world.until("the replies are fetched", |state| state.seen[&deaf.address].fetched == 1);
        deaf.fill(32 << 20);
        for _ in 0..10 {
            other.send(300_000);
            rig.world.until_len(&other, other.sent);
            rig.world.reply(&other, b"ok");
            other.stream.read_exact(&mut [0; 2]).expect("a reply");
        }
        let len = rig.world.lock().seen[&deaf.address].len;
        assert!(len <= 1 + rig.row.in_flight_max as u64, "{len} bytes, and replies unsent");
        let mut got = vec![0; replies];
        deaf.stream.read_exact(&mut got).expect("all replies");
        assert!(got.iter().all(|byte| *byte == b'r'));
        rig.world.until_len(&deaf, deaf.sent);
    });
}

#[test]
fn replies_that_wait_at_a_half_close_are_sent() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(1);
        rig.world.until_len(&peer, 1);
        let replies = 24 << 20;
        rig.world.reply(&peer, &vec![b'r'; replies]);
        rig.world.until("the replies are fetched", |state| state.seen[&peer.address].fetched == 1);
        peer.send(1_000);
        peer.stream.shutdown(Shutdown::Write).expect("connected");
        let mut got = Vec::new();
        peer.stream.read_to_end(&mut got).expect("all replies, then an orderly end");
        assert_eq!(got.len(), replies);
        assert_eq!(rig.world.until_closed(&peer), "end");
        assert_eq!(rig.world.lock().seen[&peer.address].len, peer.sent);
    });
}

#[test]
fn a_session_that_owes_is_kept_behind_the_half_close_of_its_peer() {
    each(PLENTY, |rig| {
        let (mut peer, mut other) = (rig.peer(1), rig.peer(2));
        peer.send(10);
        rig.world.until_len(&peer, 10);
        rig.world.set_disposition(&peer, Disposition::RepliesDue);
        peer.stream.shutdown(Shutdown::Write).expect("connected");
        rig.world.reply(&peer, b"a");
        peer.stream.read_exact(&mut [0]).expect("the first reply");
        // The end may be noticed before the bytes of another peer are read.
        if rig.row.name != "bio" && rig.row.name != "pool" {
            other.send(100);
            rig.world.until_len(&other, 100);
        }
        assert!(rig.world.lock().seen[&peer.address].closed.is_empty());
        rig.world.reply_as(&peer, Disposition::Open, b"b");
        let mut got = Vec::new();
        peer.stream.read_to_end(&mut got).expect("the second reply and the end");
        assert_eq!(got, b"b");
        assert_eq!(rig.world.until_closed(&peer), "end");
    });
}

/// A session becomes held with the bytes that it has received; its peer continues to send, and closes.
#[test]
fn a_session_that_is_held_is_not_read_until_it_is_asked_for_and_others_are() {
    each(PLENTY, |rig| {
        let (mut held, mut other) = (rig.peer(1), rig.peer(2));
        rig.world.tell(|state| state.hold_at = Some((held.address, 10)));
        held.send(10);
        rig.world.until_len(&held, 10);
        held.send(64 << 10);
        held.stream.shutdown(Shutdown::Write).expect("connected");
        for _ in 0..3 {
            let before = other.sent;
            other.send(1_000);
            rig.world.until_len(&other, before + 1_000);
        }
        // Bytes that were in flight may have arrived.
        let most = 10 + rig.row.in_flight_max as u64;
        let len = rig.world.lock().seen[&held.address].len;
        assert!(len <= most, "{len} bytes were read, {most} at most were in flight");
        assert!(rig.world.lock().seen[&held.address].closed.is_empty());
        rig.world.reply_as(&held, Disposition::Open, b"r");
        rig.world.until_len(&held, held.sent);
        let mut got = Vec::new();
        held.stream.read_to_end(&mut got).expect("the reply and the end");
        assert_eq!(got, b"r");
        assert_eq!(rig.world.until_closed(&held), "end");
    });
}

#[test]
fn a_session_that_is_over_is_closed_behind_its_replies() {
    each(PLENTY, |rig| {
        let mut peer = rig.peer(1);
        peer.send(10);
        rig.world.until_len(&peer, 10);
        rig.world.reply_as(&peer, Disposition::Closing, &vec![b'r'; 1 << 20]);
        let mut got = Vec::new();
        peer.stream.read_to_end(&mut got).expect("the reply and the end");
        assert_eq!(got.len(), 1 << 20);
        assert_eq!(rig.world.until_closed(&peer), "end");
    });
}

#[test]
fn a_session_that_is_over_with_nothing_to_send_is_closed() {
    each(PLENTY, |rig| {
        let (mut peer, mut unread) = (rig.peer(1), rig.peer(2));
        for peer in [&mut peer, &mut unread] {
            peer.send(10);
            rig.world.until_len(peer, 10);
        }
        rig.world.reply_as(&peer, Disposition::Closing, b"");
        assert!(peer.sees_a_close());
        assert_eq!(rig.world.until_closed(&peer), "end");
        // The same for one that is not read from now and has sent more.
        rig.world.set_paused(true);
        unread.send(10);
        rig.world.reply_as(&unread, Disposition::Closing, b"");
        assert_eq!(rig.world.until_closed(&unread), "end");
        assert!(unread.sees_a_close());
        rig.world.set_paused(false);
    });
}

#[test]
fn a_session_that_refuses_is_closed_once_after_its_replies() {
    each(PLENTY, |rig| {
        let (mut good, mut bad) = (rig.peer(1), rig.peer(2));
        good.send(10);
        bad.send(10);
        rig.world.until_len(&good, 10);
        rig.world.until_len(&bad, 10);
        rig.world.tell(|state| {
            state.refuse_beyond = Some(10);
            let seen = state.seen.get_mut(&bad.address).expect("open");
            seen.outbox = b"no".to_vec();
        });
        bad.send(5);
        assert_eq!(rig.world.until_closed(&bad), "refused");
        let mut got = Vec::new();
        bad.stream.read_to_end(&mut got).expect("the reply and the end");
        assert_eq!(got, b"no");
        rig.world.tell(|state| state.refuse_beyond = None);
        good.send(10);
        rig.world.until_len(&good, 20);
    });
}
