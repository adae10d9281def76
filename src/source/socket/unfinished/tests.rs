//! Unfinished records through whole handlers: who is given up, what becomes of the record, and that the count is true; without
//! sockets.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::framing::Framing;
use crate::source::io::{Closed, Disposition, Flow, Handler};
use crate::source::socket::acks::Acks;
use crate::source::socket::oversized::{OversizedOptions, OversizedStore, OversizedThread};
use crate::source::socket::session::Session;
use crate::source::tests::{Given, Path, path_of};
use crate::storage::Directory;
use crate::sync::Poison;
use crate::time::{Clock, ManualClock};

const KIB: usize = 1 << 10;

/// The longest record, and what unfinished ones may take.
const RECORD: usize = 32 * KIB;
const BOUND: usize = 64 * KIB;

fn path(framing: Framing, asides: Option<Arc<OversizedStore>>) -> Path {
    path_of(Given {
        framing,
        record_bytes_max: RECORD,
        block_bytes_max: 8 << 20,
        store_bytes_max: 1 << 30,
        connections_max: PEERS + 1,
        unfinished_bytes_max: BOUND,
        asides,
    })
}

/// The owner of a connection on this machine.
fn owner(counters: &Arc<ReceiverCounters>, way: Way) -> Arc<Owner> {
    let peer = ([127, 0, 0, 1], 1).into();
    Owner::new(OwnerOptions { source: "in", peer, counters, way, remote: None })
}

/// The begin and the end of a record of `RECORD` bytes in a framing that acknowledges nothing.
fn record(framing: Framing, fill: u8) -> Vec<u8> {
    let body = vec![fill; RECORD];
    match framing {
        Framing::Lines => [&body[..], b"\n"].concat(),
        Framing::U32 => [&[0, 0, 0x80, 0], &body[..]].concat(),
        Framing::OctetCounted | Framing::Syslog => [b"32768 ", &body[..]].concat(),
        Framing::Relp => unreachable!("it has tests of its own"),
    }
}

/// Four peers begin records that are too much together; the oldest is given up, the others end theirs.
fn check_dropped(framing: Framing) {
    let mut path = path(framing, None);
    let mut peers: Vec<(Session, Vec<u8>)> =
        (b'a'..b'e').map(|fill| (path.open(), record(framing, fill))).collect();
    for (session, record) in &mut peers {
        assert_eq!(path.feed(session, &record[..20 * KIB]), Flow::Continue);
    }
    // They are counted with their memory, which is at most one record.
    let unfinished = path.account.unfinished();
    assert!((3 * 20 * KIB..=BOUND).contains(&unfinished), "{framing:?}: {unfinished}");
    // The source counts what has come of them, without the one that was given up.
    assert_eq!(path.counters.unfinished_bytes.value(), 3 * 20 * KIB as u64, "{framing:?}");
    assert_eq!((path.counters.given_up.value(), path.counters.overlong.value()), (1, 1));
    for (session, record) in &mut peers {
        assert_eq!(path.feed(session, &record[20 * KIB..]), Flow::Continue);
        // The next one of the same connection is as good as any.
        assert_eq!(path.feed(session, &record[..]), Flow::Continue);
    }
    assert_eq!((path.account.unfinished(), path.counters.unfinished_bytes.value()), (0, 0));
    peers.into_iter().for_each(|(session, _)| path.handler.closed(session, Closed::End));
    let records: Vec<u8> = path.finish().iter().map(|record| record[0]).collect();
    assert_eq!(records, b"abbccdd", "{framing:?}");
}

#[test]
fn beyond_the_bound_the_oldest_long_record_is_dropped_up_to_its_end() {
    for framing in [Framing::Lines, Framing::U32, Framing::OctetCounted, Framing::Syslog] {
        check_dropped(framing);
    }
}

#[test]
fn a_connection_that_ends_with_a_record_that_was_given_up_leaves_nothing() {
    let check = |how: Closed, unfinished: u64, records: usize| {
        let mut path = path(Framing::Lines, None);
        let mut peers: Vec<Session> = (0..4).map(|_| path.open()).collect();
        for session in &mut peers {
            path.feed(session, &[b'x'; 20 * KIB]);
        }
        let last = peers.pop().expect("four");
        let first = peers.remove(0);
        path.handler.closed(first, how);
        path.handler.closed(last, Closed::Stopped);
        peers.into_iter().for_each(|session| path.handler.closed(session, Closed::End));
        assert_eq!(path.account.unfinished(), 0);
        assert_eq!(path.counters.unfinished_bytes.value(), unfinished);
        assert_eq!(path.finish().len(), records);
    };
    let kept = 20 * KIB as u64;
    check(Closed::End, kept, 2);
    check(Closed::Stopped, kept, 2);
    check(Closed::Reset(std::io::ErrorKind::ConnectionReset.into()), kept, 2);
}

#[test]
fn a_record_that_a_broken_connection_cut_is_kept_and_counted() {
    let check = |framing: Framing, sent: &[u8], how: Closed, expected: (usize, u64, u64)| {
        let shown = format!("{framing:?} {how:?}: {:?}", String::from_utf8_lossy(sent));
        let mut path = path(framing, None);
        let mut session = path.open();
        path.feed(&mut session, sent);
        path.handler.closed(session, how);
        let (broken_off, cut_off) =
            (path.counters.broken_off.value(), path.counters.cut_off.value());
        assert_eq!((path.finish().len(), broken_off, cut_off), expected, "{shown}");
    };
    let reset = || Closed::Reset(std::io::ErrorKind::ConnectionReset.into());
    check(Framing::Lines, b"full\npart", reset(), (2, 1, 0));
    check(Framing::Lines, b"full\npart", Closed::End, (2, 0, 0));
    check(Framing::Lines, b"full\nfull\n", reset(), (2, 0, 0));
    check(Framing::Lines, b"", reset(), (0, 0, 0));
    // Half a frame is dropped, however its connection ended.
    check(Framing::OctetCounted, b"1 a4 12", reset(), (1, 0, 1));
}

#[test]
fn a_record_of_the_longest_kind_always_fits() {
    // Short ones of many connections take all there is.
    let mut path = path(Framing::Lines, None);
    let mut short: Vec<Session> = (0..100).map(|_| path.open()).collect();
    for session in &mut short {
        path.feed(session, &[b'x'; 900]);
    }
    let small = path.account.unfinished();
    assert!(small > BOUND, "{small}");
    let mut long = path.open();
    path.feed(&mut long, &[b'y'; RECORD]);
    path.feed(&mut long, b"\n");
    assert_eq!((path.counters.given_up.value(), path.counters.records.value()), (0, 1));
    assert_eq!(path.account.unfinished(), small);
}

#[test]
fn memory_is_given_back_once_a_record_has_ended() {
    let mut path = path(Framing::Lines, None);
    let mut session = path.open();
    path.feed(&mut session, &[b'x'; 10 * KIB]);
    assert!(path.account.unfinished() >= 10 * KIB);
    path.feed(&mut session, b"\nshort");
    assert!(path.account.unfinished() <= KIB, "{}", path.account.unfinished());
    path.handler.closed(session, Closed::End);
    assert_eq!(path.account.unfinished(), 0);
}

/// The first frame of a RELP peer.
const OPEN: &[u8] = b"1 open 30 relp_version=0\ncommands=syslog\n";

fn relp(path: &mut Path) -> Session {
    let mut session = path.open();
    assert_eq!(path.feed(&mut session, OPEN), Flow::Continue);
    session
}

fn frame(number: usize) -> Vec<u8> {
    [format!("{number} syslog {RECORD} ").as_bytes(), &[b'x'; RECORD], b"\n"].concat()
}

#[test]
fn a_record_that_would_be_acknowledged_is_not_dropped_its_connection_is_closed() {
    let mut path = path(Framing::Relp, None);
    let mut peers: Vec<Session> = (0..4).map(|_| relp(&mut path)).collect();
    for session in &mut peers {
        path.handler.replies(session, &mut Vec::new());
        assert_eq!(path.feed(session, &frame(2)[..20 * KIB]), Flow::Continue);
    }
    let dispositions: Vec<Disposition> =
        peers.iter().map(|peer| path.handler.disposition(peer)).collect();
    assert_eq!(
        dispositions,
        [Disposition::Closing, Disposition::Open, Disposition::Open, Disposition::Open]
    );
    assert_eq!((path.counters.given_up.value(), path.counters.overlong.value()), (1, 0));
    // What it still sends is not looked at.
    let flow = path.feed(&mut peers[0], &frame(2)[20 * KIB..]);
    assert!(matches!(flow, Flow::Close(why) if why.contains("unfinished_bytes_max")));
    assert_eq!(path.feed(&mut peers[1], &frame(2)[20 * KIB..]), Flow::Continue);
    assert_eq!(path.counters.records.value(), 1);
    peers.into_iter().for_each(|session| path.handler.closed(session, Closed::End));
    assert_eq!((path.account.unfinished(), path.finish().len()), (0, 1));
}

fn asides_in(directory: &std::path::Path) -> Arc<OversizedStore> {
    let options = OversizedOptions {
        source: "in".to_owned(),
        account: MemoryBudget::new(1 << 20),
        counters: Arc::default(),
        conditions: EventBus::new().conditions().clone(),
        clock: Arc::new(ManualClock::new()),
        poison: Poison::new(),
    };
    let storage = Directory::open(directory).expect("a directory");
    OversizedStore::open(Arc::new(storage), options).expect("opened")
}

fn keeper(
    directory: &std::path::Path,
    path: impl FnOnce(Option<Arc<OversizedStore>>) -> Path,
) -> (OversizedThread, Path) {
    let keeper = asides_in(directory).start("rx0-aside").expect("a thread");
    let path = path(Some(keeper.asides()));
    (keeper, path)
}

#[test]
fn a_record_that_would_be_acknowledged_is_put_aside_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (keeper, mut path) = keeper(dir.path(), |asides| path(Framing::Relp, asides));
    let mut peers: Vec<Session> = (0..4).map(|_| relp(&mut path)).collect();
    for session in &mut peers {
        path.handler.replies(session, &mut Vec::new());
        assert_eq!(path.feed(session, &frame(2)[..20 * KIB]), Flow::Continue);
    }
    assert_eq!(path.counters.given_up.value(), 1);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for session in &mut peers {
        assert_eq!(path.feed(session, &frame(2)[20 * KIB..]), Flow::Continue);
        assert_eq!(path.feed(session, b"3 syslog 1 y\n"), Flow::Continue);
    }
    path.handler.finish();
    keeper.stop().expect("the thread").join();
    for session in &mut peers {
        answers.push(Vec::new());
        path.handler.replies(session, answers.last_mut().expect("one"));
    }
    let both = b"2 rsp 6 200 OK\n3 rsp 6 200 OK\n";
    assert!(answers.iter().all(|answer| answer == both), "{answers:?}");
    let file = std::fs::read(dir.path().join("in-0.records")).expect("it is kept");
    assert!(file == frame(2), "the record is there as it was sent");
    peers.into_iter().for_each(|session| path.handler.closed(session, Closed::End));
    assert_eq!((path.account.unfinished(), path.finish().len()), (0, 7));
}

#[test]
fn nobody_writes_to_the_disk_of_another_source() {
    let dir = tempfile::tempdir().expect("a directory");
    let asides = asides_in(dir.path());
    let sources = Sources { record_bytes_max: RECORD, connections_max: 1 };
    let account = MemoryBudget::new(1 << 20);
    let unfinished = Unfinished::new(BOUND, sources, &account, &EventBus::new());
    let owner = |way| owner(&Arc::default(), way);
    let putting = || Way::PutAside(Acks::new(Remote::nobody()).putting(&asides));
    let aside: Vec<_> = (0..4).map(|_| owner(putting())).collect();
    let places: Vec<Place> =
        aside.iter().map(|owner| unfinished.park(None, owner, vec![b'x'; 16 * KIB])).collect();
    // Two plain ones make two of them go: the one is to be written by its own source's thread, which does not run yet, and
    // the next is more than may wait.
    let plain: Vec<_> = (0..2).map(|_| owner(Way::Drop)).collect();
    let fill = |plain: &[Arc<Owner>]| {
        for owner in plain {
            unfinished.park(None, owner, vec![b'y'; 16 * KIB]);
        }
    };
    fill(&plain);
    let names =
        std::fs::read_dir(dir.path()).expect("there").map(|it| it.expect("listed").file_name());
    assert_eq!(names.collect::<Vec<_>>(), [".in.lock"], "nobody wrote");
    assert!(!aside[0].is_closing() && !aside[1].is_closing());
    assert_eq!(account.unfinished(), BOUND + 32 * KIB, "what waits to be written is counted");
    fill(&plain);
    assert!(aside[2].is_closing() && aside[3].is_closing());
    let keeper = asides.start("rx0-aside").expect("a thread");
    for at in 0..2 {
        let given_up = unfinished.take(places[at], &aside[at]).expect_err("it was given up");
        assert!(matches!(given_up.how, How::Overlong), "{at}");
    }
    keeper.stop().expect("the thread").join();
    assert_eq!(account.unfinished(), BOUND);
}

/// A step of a peer: it sends so many bytes and then, perhaps, the end of its record.
type Step = (usize, usize, bool);

const PEERS: usize = 8;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Whatever peers send: the bound holds but for one piece, what the counters say is what is missing, and a peer whose
    /// records are short loses none.
    #[test]
    fn the_bound_holds_and_what_is_missing_is_counted(
        steps in prop::collection::vec((0..PEERS, 1..12 * KIB, any::<bool>()), 1..120),
    ) {
        let mut path = path(Framing::Lines, None);
        let mut peers: Vec<Session> = (0..PEERS).map(|_| path.open()).collect();
        let (mut short, mut ended, mut open) = (path.open(), 0, [0; PEERS]);
        let steps: Vec<Step> = steps;
        for (peer, bytes, ends) in steps {
            let bytes = bytes.min(RECORD - open[peer]);
            path.feed(&mut peers[peer], &vec![b'x'; bytes]);
            open[peer] += bytes;
            prop_assert!(path.account.unfinished() <= BOUND + FRAME_BYTES, "{}", path.account.unfinished());
            if ends {
                path.feed(&mut peers[peer], b"\n");
                (ended, open[peer]) = (ended + 1, 0);
            }
            path.feed(&mut short, b"a shor");
            path.feed(&mut short, b"t one\n");
        }
        let tails = open.iter().filter(|bytes| **bytes > 0).count() as u64;
        peers.into_iter().for_each(|session| path.handler.closed(session, Closed::End));
        path.handler.closed(short, Closed::End);
        prop_assert_eq!(path.account.unfinished(), 0);
        let (given_up, records) = (path.counters.given_up.value(), path.counters.records.value());
        let (sent, overlong) = (path.counters.overlong.value() + records, path.counters.overlong.value());
        prop_assert_eq!(given_up, overlong);
        let lines = path.finish();
        let of_short = lines.iter().filter(|line| line.starts_with(b"a short one")).count();
        prop_assert_eq!(of_short as u64 + ended + tails, sent);
    }
}

#[test]
fn small_records_take_at_most_half_however_many_there_are() {
    let check = |bytes_max: usize, connections_max: usize, expected: usize| {
        assert_eq!(
            threshold(bytes_max, connections_max),
            expected,
            "{bytes_max} {connections_max}"
        );
    };
    check(1 << 30, 10_000, SMALL_MAX);
    check(16 << 20, 10_000, 838);
    check(16 << 20, 1_000, SMALL_MAX);
    check(1 << 20, 10_000, SMALL_MIN);
    check(1 << 20, 0, SMALL_MAX);
}

#[test]
fn the_bound_is_a_condition_from_the_first_loss_until_a_quarter_is_free() {
    let clock = ManualClock::new();
    let events = EventBus::with_clock(Arc::new(clock.clone()) as Arc<dyn Clock>);
    let sources = Sources { record_bytes_max: KIB, connections_max: 1 };
    let unfinished = Unfinished::new(BOUND, sources, &MemoryBudget::new(1 << 20), &events);
    let owner = || owner(&Arc::default(), Way::Drop);
    let owners: Vec<_> = (0..5).map(|_| owner()).collect();
    let lasting = || {
        let lasting = events.conditions().lasting().into_iter();
        lasting.map(|condition| condition.text()).collect::<Vec<_>>()
    };
    let park = |owner: &Arc<Owner>| unfinished.park(None, owner, vec![0; 16 * KIB]);
    let mut places: Vec<Place> = owners[..4].iter().map(park).collect();
    assert_eq!(lasting(), [""; 0], "it is full, and nobody had to give way");
    places.push(park(&owners[4]));
    assert_eq!(
        lasting(),
        [
            "source `in`: records that have begun and not ended take all of unfinished_bytes_max = 64.00 KiB; the oldest \
          long ones are given up; raise it, or lower connections_max or record_bytes_max"
        ]
    );
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(lasting().len(), 1, "it is as full as before");
    assert!(unfinished.take(places[0], &owners[0]).is_err());
    for at in [1, 2] {
        assert!(unfinished.take(places[at], &owners[at]).is_ok());
        unfinished.leave(places[at]);
    }
    clock.advance(Duration::from_secs(11));
    assert_eq!(lasting(), [""; 0]);
}
