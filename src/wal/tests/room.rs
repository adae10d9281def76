//! The log on a full disk: the use of spares, the reserve that input leaves, and the need of a start.

use super::super::room::mebibytes;
use super::super::{Lane, LogOptions, NotLogged, WriteAheadLog};
use super::{Failure, Record, open, open_with, options};
use crate::error::Result;
use crate::storage::{MemoryStorage, Storage};
use crate::sync::{Arc, Mutex, Poison};

/// Blocks of a small disk, in bytes.
const BLOCK: u64 = 64;

/// The most bytes of the list of segments on it, with the file aside: less than a segment.
const LIST_BYTES: u64 = 8 * BLOCK;

/// A disk with this many bytes beside the list of segments.
fn small(bytes: u64) -> MemoryStorage {
    let disk = MemoryStorage::new(0);
    disk.set_capacity(bytes + LIST_BYTES, BLOCK);
    disk
}

/// A record that fills most of a segment of 512 bytes.
fn large() -> bytes::Bytes {
    bytes::Bytes::from_static(&[7; 300])
}

/// Two spares lie on a full disk, one of them with this length instead of its own. A start continues with the other.
fn check_spare(length: usize) -> Result<(), String> {
    let disk = small(1_400);
    drop(open(&disk, 1, 1).map_err(|err| err.to_string())?);
    disk.set_bytes("spare-000000000001.seg", &[0; 512]);
    disk.set_bytes("spare-000000000002.seg", &vec![0; length]);
    disk.take_outside(u64::MAX);
    // Both may be kept.
    let options = LogOptions { spares_max: 2, ..options(1) };
    let (mut writer, _, _) = open_with(&disk, options, 1).map_err(|err| err.to_string())?;
    // The room that the start gave back does not make the other one whole: it is less than a segment, enough for the list.
    let free = disk.volume().map_err(|err| err.to_string())?.free;
    disk.take_outside(free.saturating_sub(512 - BLOCK));
    let written = writer.commit(&[&Record::from(large())], &mut |_| ());
    match written {
        Ok(()) => Ok(()),
        Err(Failure::Retry(err) | Failure::Fatal(err)) => Err(format!("{length} bytes: {err}")),
    }
}

#[test]
fn a_whole_spare_is_used_though_one_that_is_not_lies_beside_it() {
    for length in [0, 1, 511] {
        check_spare(length).unwrap_or_else(|what| panic!("{what}"));
    }
}

#[cfg(tidemill_planted)]
mod planted {
    use super::*;
    use crate::sync::planted::{Planted, with};

    #[test]
    fn a_spare_that_is_tried_for_ever_is_found() {
        with(Planted::SpareTriedForEver, || check_spare(0)).expect_err("found");
    }
}

#[test]
fn spares_of_another_size_are_cut_and_others_removed() {
    let disk = small(4_096);
    for (number, length) in [(1, 2_000), (2, 100), (3, 512)] {
        disk.set_bytes(&format!("spare-{number:012}.seg"), &vec![1; length]);
    }
    let (writer, _, _) = open(&disk, 1, 1).expect("opened");
    let size = |name: &str| disk.bytes(name).map(|bytes| bytes.len());
    let names = disk.list().expect("listed");
    let names: Vec<String> = names.into_iter().filter(|name| name.starts_with("spare")).collect();
    assert_eq!((writer.spares.len(), names.len()), (1, 1), "as many as are kept: {names:?}");
    assert_eq!(size(&names[0]), Some(512));
}

/// A refused preallocation leaves nothing, even if a kill in the middle left a part.
#[test]
fn a_refused_preallocation_leaves_nothing_behind() {
    for keeps_parts in [false, true] {
        let disk = small(600);
        disk.keep_parts(keeps_parts);
        let (mut writer, _, _) = open(&disk, 1, 1).expect("opened");
        writer.spares.fill(&disk, 1).expect("room for one");
        let used = disk.used();
        for _ in 0..3 {
            writer.spares.fill(&disk, 2).expect_err("no room for two");
            assert_eq!(disk.used(), used);
        }
        writer.commit(&[&Record::from(large())], &mut |_| ()).map_err(|_| "refused").expect("room");
    }
}

/// A log with two segments of reserve on a disk that has room for this many.
fn start(segments: u64) -> (WriteAheadLog, MemoryStorage) {
    let disk = small(segments * 512);
    let options = LogOptions { reserve: 2, spares_max: 0, ..options(1) };
    let storage = Arc::new(disk.clone());
    let opened = WriteAheadLog::open(storage, options, 1, &Poison::new(), &mut |_, _| Ok(()));
    (opened.expect("room").0, disk)
}

/// Returns true if the log takes a large record of input.
fn input(log: &WriteAheadLog) -> bool {
    take(log, Lane { lane: 0, number: 0 }, large())
}

fn take(log: &WriteAheadLog, at: Lane, record: bytes::Bytes) -> bool {
    let outcome = Arc::new(Mutex::new(None));
    let (told, done) = (Arc::clone(&outcome), crate::sync::Signal::new());
    let raised = done.clone();
    log.append_input(at, record, move |result| {
        *told.lock() = Some(result);
        raised.raise();
    })
    .expect("open");
    done.wait();
    let outcome = outcome.lock().take().expect("told");
    match outcome {
        Ok(_) => true,
        Err(NotLogged::Retry(_)) => false,
        Err(NotLogged::Failed(reason)) => panic!("{reason}"),
    }
}

#[test]
fn input_leaves_the_reserve_and_all_else_uses_it() {
    let (log, disk) = start(5);
    let told = Arc::new(Mutex::new(0));
    let count = Arc::clone(&told);
    log.on_shortage(move || *count.lock() += 1);
    let taken = (0..10).take_while(|_| input(&log)).count();
    assert_eq!((taken, log.segments().len()), (3, 3));
    assert!(disk.volume().expect("told").free < 512, "all five segments are taken");
    assert!(!input(&log), "it stays refused");
    assert!(log.shortage().expect("short").contains("a spare segment in memory"), "why");
    assert_eq!(*told.lock(), 1, "once for each time that it begins");
    // Two segments are left for the rest.
    log.append_and_wait(large()).expect("the first of the reserve");
    log.append_and_wait(large()).expect("the second");
    assert!(matches!(log.append_and_wait(large()), Err(NotLogged::Retry(_))));
    assert!(!input(&log));
    log.release(3);
    log.append_and_wait(bytes::Bytes::from_static(b"x")).expect("room again");
    assert!(!input(&log), "the reserve is not whole yet");
    log.release(99);
    log.append_and_wait(bytes::Bytes::from_static(b"x")).expect("room again");
    assert_eq!((log.shortage(), input(&log)), (None, true));
}

/// A short record would find room where a long one before it found none.
#[test]
fn what_follows_refused_input_of_its_source_waits_for_it() {
    let (log, _) = start(3);
    let at = |lane, number| Lane { lane, number };
    let short = || bytes::Bytes::from_static(b"x");
    let begin = bytes::Bytes::from_static(&[7; 100]);
    assert!(take(&log, at(1, 1), begin) && !take(&log, at(1, 2), large()));
    assert!(!take(&log, at(1, 3), short()), "it follows");
    assert!(take(&log, at(2, 3), short()), "another source knows nothing of it");
    assert!(take(&log, at(1, 2), short()), "it is shorter now");
    assert!(take(&log, at(1, 3), short()), "nothing is before it");
}

/// Appends a group of input and other records, and expects these to be durable.
fn check_group(kept_bytes: u64, expected: [(bool, bool); 4]) {
    let (log, _) = start(3);
    let (written, all_are_there) = (crate::sync::Signal::new(), crate::sync::Signal::new());
    let (told, wait) = (written.clone(), all_are_there.clone());
    log.append(bytes::Bytes::from_static(b"x"), move |_| {
        told.raise();
        wait.wait();
    })
    .expect("open");
    written.wait();
    log.keep_room(kept_bytes);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for (number, (is_input, _)) in (0..).zip(expected) {
        let outcomes = Arc::clone(&outcomes);
        let told = move |result: Result<_, NotLogged>| {
            outcomes.lock().push((is_input, result.is_ok()));
        };
        let record = bytes::Bytes::from_static(&[1; 40]);
        match is_input {
            true => log.append_input(Lane { lane: 7, number }, record, told).expect("open"),
            false => log.append(record, told).expect("open"),
        }
    }
    all_are_there.raise();
    log.append_and_wait(bytes::Bytes::from_static(b"y")).expect("written");
    assert_eq!(outcomes.lock()[..], expected, "{kept_bytes}");
}

#[test]
fn input_is_given_back_from_a_group_and_the_rest_of_it_is_written() {
    check_group(0, [(true, true), (false, true), (true, true), (false, true)]);
    check_group(1, [(true, false), (true, false), (false, true), (false, true)]);
}

#[test]
fn more_room_is_kept_when_it_is_asked_for() {
    let (log, _) = start(6);
    log.keep_room(513);
    let taken = (0..10).take_while(|_| input(&log)).count();
    assert_eq!(taken, 2, "of six segments two and two are kept");
    log.keep_room(0);
    assert_eq!((0..10).take_while(|_| input(&log)).count(), 2);
}

/// Starts on this disk, and expects this refusal.
fn check_start(disk: &MemoryStorage, expected: Option<&str>) {
    let options = LogOptions { reserve: 2, segment_bytes: 2 << 20, ..options(1) };
    let storage = Arc::new(disk.clone());
    let opened = WriteAheadLog::open(storage, options, 1, &Poison::new(), &mut |_, _| Ok(()));
    let refused = opened.map(|_| ()).err().map(|err| err.to_string());
    match (&refused, expected) {
        (Some(said), Some(words)) => assert!(said.contains(words), "{said}"),
        (None, None) => {}
        _ => panic!("{refused:?}, not {expected:?}"),
    }
}

#[test]
fn a_first_start_without_room_says_how_much_is_needed() {
    check_start(&small(1 << 20), Some("6 MiB more must be free in memory"));
    check_start(&small(5 << 20), Some("2 MiB more must be free in memory"));
    check_start(&small(6 << 20), None);
    assert_eq!((mebibytes(1), mebibytes(1 << 20), mebibytes((1 << 20) + 1)).0, "1 MiB");
}

#[test]
fn a_later_start_needs_one_segment_and_finds_it_among_its_own() {
    let disk = small(7 << 20);
    check_start(&disk, None);
    // It was never written to: a segment makes it one that has begun.
    let options = LogOptions { reserve: 2, segment_bytes: 2 << 20, ..options(1) };
    let shared: Arc<dyn Storage> = Arc::new(disk.clone());
    let opened = WriteAheadLog::open(shared, options, 1, &Poison::new(), &mut |_, _| Ok(()));
    let (log, _) = opened.expect("room");
    log.append_and_wait(large()).expect("durable");
    drop(log);
    let disk = disk.after_kill();
    disk.take_outside(u64::MAX);
    check_start(&disk, None);
    for number in 0..9 {
        disk.lose(&format!("spare-{number:012}.seg"));
    }
    disk.take_outside(u64::MAX);
    check_start(&disk, Some("2 MiB more must be free in memory"));
}
