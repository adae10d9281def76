//! R3: the log cut at every byte, every bit flipped, segments swapped and missing; and what `inspect` and its cut say.

use super::super::cut::{cut, survey};
use super::super::format::segment_name;
use super::super::writer::Record;
use super::{MemoryStorage, Records, open};
use crate::error::Result;

/// A log of three segments, written over the files of released ones; and the records from `first` on.
fn sample() -> (MemoryStorage, u64, Records) {
    let disk = MemoryStorage::new(3);
    let (mut writer, _, _) = open(&disk, 5, 1).expect("an empty log");
    let mut records = Vec::new();
    for index in 0_u8..24 {
        let bodies = [vec![index; 30], vec![0; usize::from(index % 3) * 9], vec![index; 60]];
        let group: Vec<Record> =
            bodies.iter().map(|body| Record::new(vec![body.clone().into()])).collect();
        let group: Vec<&Record> = group.iter().collect();
        let mut durable =
            |positions: Vec<_>| records.extend(positions.into_iter().zip(bodies.clone()));
        writer.commit(&group, &mut durable).expect("written");
        if index < 14 {
            let newest = records.last().map_or(1, |(at, _): &(super::Position, _)| at.segment);
            writer.release(newest).expect("released");
        }
    }
    let live: Vec<u64> = writer.files.lock().keys().copied().collect();
    let first = live[0];
    records.retain(|(at, _)| at.segment >= first);
    assert!(live.len() >= 3, "{live:?}");
    (disk, first, records)
}

fn newest(records: &Records) -> u64 {
    records.last().expect("not empty").0.segment
}

/// A damaged log: an exact prefix, with a word about the rest, or a loud error. In a segment that is not the newest
/// a shorter prefix is never quiet.
fn expect_prefix_or_loud(
    disk: &MemoryStorage,
    first: u64,
    all: &Records,
    touched: u64,
) -> Result<(), String> {
    match open(disk, 6, first) {
        Ok((_, recovered, found)) => {
            if !all.starts_with(&found) {
                return Err("what was handed out is no prefix".to_owned());
            }
            let whole = found.len() == all.len();
            if !whole && touched != newest(all) {
                return Err("records of an older segment are missing without a word".to_owned());
            }
            if !whole && recovered.torn.is_none() {
                return Err("the tail is missing without a word".to_owned());
            }
            Ok(())
        }
        Err(err) => {
            let text = err.to_string();
            let named = text.contains("segment ") && text.contains(" at offset ");
            if named { Ok(()) } else { Err(format!("the error names no place: {text}")) }
        }
    }
}

fn flips() -> Result<(), String> {
    let (disk, first, all) = sample();
    for segment in first..=newest(&all) {
        let name = segment_name(segment);
        let good = disk.bytes(&name).expect("there");
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let disk = disk.after_kill();
            disk.set_bytes(&name, &bytes);
            expect_prefix_or_loud(&disk, first, &all, segment)
                .map_err(|what| format!("segment {segment}, bit {bit}: {what}"))?;
        }
    }
    Ok(())
}

#[test]
fn r3_every_flip_leaves_a_prefix_or_is_loud() {
    flips().unwrap_or_else(|what| panic!("{what}"));
}

#[cfg(tidemill_planted)]
#[test]
fn r3_finds_what_is_planted() {
    use crate::sync::planted::{Planted, with};
    with(Planted::IgnoreCrc, flips).expect_err("IgnoreCrc is found");
}

#[test]
fn r3_every_cut_leaves_a_prefix_or_is_loud() {
    let (disk, first, all) = sample();
    for segment in first..=newest(&all) {
        let name = segment_name(segment);
        let good = disk.bytes(&name).expect("there");
        for len in 0..good.len() {
            let disk = disk.after_kill();
            disk.set_bytes(&name, &good[..len]);
            let Ok((_, _, found)) = open(&disk, 6, first) else { continue };
            assert!(all.starts_with(&found), "segment {segment} cut to {len}");
            let whole = found.len() == all.len();
            assert!(whole || segment == newest(&all), "segment {segment} cut to {len} quietly");
        }
    }
}

#[test]
fn r3_swapped_and_missing_segments_are_loud() {
    let (disk, first, all) = sample();
    let ids: Vec<u64> = (first..=newest(&all)).collect();
    for (at, one) in ids.iter().enumerate() {
        for other in &ids[at + 1..] {
            let swapped = disk.after_kill();
            let (a, b) = (segment_name(*one), segment_name(*other));
            swapped.set_bytes(&a, &disk.bytes(&b).expect("there"));
            swapped.set_bytes(&b, &disk.bytes(&a).expect("there"));
            let err = open(&swapped, 6, first).expect_err("swapped").to_string();
            assert!(err.contains(&format!("the file is segment {other}")), "{err}");
        }
        let without = disk.after_kill();
        without.lose(&segment_name(*one));
        match open(&without, 6, first) {
            Ok((_, _, found)) => assert!(*one == newest(&all) && all.starts_with(&found)),
            Err(err) => assert!(err.to_string().contains("missing"), "{err}"),
        }
    }
    let err = open(&MemoryStorage::new(0), 6, 4).expect_err("all are gone").to_string();
    assert_eq!(
        err,
        "the log is damaged: segment 4 (wal-000000000004.seg) at offset 0: the file is missing in memory"
    );
}

#[test]
fn the_error_names_the_place() {
    let (disk, first, all) = sample();
    let name = segment_name(first);
    let mut bytes = disk.bytes(&name).expect("there");
    bytes[64 + 40 + 8] ^= 1;
    disk.set_bytes(&name, &bytes);
    let err = open(&disk, 6, first).expect_err("damaged").to_string();
    let start = format!("the log is damaged: segment {first} ({name}) at offset 64: group ");
    assert!(err.starts_with(&start) && err.contains("record 0 at offset 104 is damaged"), "{err}");
    assert!(err.contains("`tidemill inspect memory`"), "{err}");
    let reports = survey(&disk).expect("read");
    assert_eq!(reports.len() as u64, newest(&all) - first + 1);
    assert!(!reports[0].is_tail && reports[0].problem.is_some(), "{:?}", reports[0]);
    assert!(reports[1..].iter().all(|report| report.problem.is_none()), "{reports:?}");
}

#[test]
fn a_cut_at_a_named_place_lets_the_log_start_again() {
    let (disk, first, all) = sample();
    let reports = survey(&disk).expect("read");
    let records: u64 = reports.iter().map(|report| report.records).sum();
    assert_eq!(records, all.len() as u64);
    let second = &reports[1];
    let err = cut(&disk, second.segment, second.end - 8).expect_err("in a group").to_string();
    assert!(err.contains("no group begins there; the nearest place before it is"), "{err}");
    cut(&disk, second.segment, second.end).expect("cut");
    let disk = disk.after_power_cut(1);
    let (_, recovered, found) = open(&disk, 6, first).expect("starts");
    assert_eq!(recovered.torn, None);
    assert_eq!(
        found,
        all.iter().filter(|(at, _)| at.segment <= second.segment).cloned().collect::<Records>()
    );
}

#[test]
fn a_torn_tail_is_cut_and_said_once() {
    let (disk, first, all) = sample();
    let name = segment_name(newest(&all));
    let last = all.last().expect("not empty").0;
    let mut bytes = disk.bytes(&name).expect("there");
    bytes[usize::try_from(last.offset).expect("small") + 10] ^= 1;
    disk.set_bytes(&name, &bytes);
    let report = survey(&disk).expect("read").pop().expect("segments");
    assert!(report.is_tail && report.problem.is_some(), "{report:?}");
    let (_, recovered, found) = open(&disk, 6, first).expect("starts");
    let torn = recovered.torn.expect("said");
    assert_eq!((torn.segment, found.len()), (last.segment, all.len() - 3));
    assert_eq!(torn.offset, report.end);
    let (_, recovered, again) = open(&disk, 7, first).expect("starts");
    assert_eq!((recovered.torn, again), (None, found));
}
