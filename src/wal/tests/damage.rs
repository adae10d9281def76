//! R3: the log cut at every byte, every bit flipped, files swapped, missing and restored from older copies; the verdict of
//! `inspect`, which is that of a start; and the ways out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::LogOptions;
use super::super::examine::Known;
use super::super::format::{Place, segment_name};
use super::{MemoryStorage, Records, open, open_with, options};
use crate::error::Result;
use crate::storage::Storage;
use crate::sync::Arc;
use crate::wal::repair::{Survey, give_up, survey, survey_with};
use crate::wal::segment_list::{LIST, SegmentList};
use crate::wal::segment_writer::Record;

/// A log of several segments, written over the files of released ones.
struct Sample {
    disk: MemoryStorage,
    first: u64,
    /// The records from `first` on.
    all: Records,
    /// Every content that each file has had, after each group.
    copies: BTreeMap<String, Vec<Vec<u8>>>,
}

/// `closed`: it was stopped in order, after a group more than the list knew of.
fn sample(salt: u64, closed: bool) -> Sample {
    let disk = MemoryStorage::new(3);
    let (mut writer, _, _) = open(&disk, salt, 1).expect("an empty log");
    let mut records = Vec::new();
    let mut copies: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
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
        for name in disk.list().expect("listed") {
            let bytes = disk.bytes(&name).expect("there");
            copies.entry(name).or_default().push(bytes);
        }
    }
    let live: Vec<u64> = writer.files.lock().keys().copied().collect();
    let first = live[0];
    if closed {
        writer.close().expect("closed");
    }
    records.retain(|(at, _)| at.segment >= first);
    assert!(live.len() >= 3, "{live:?}");
    Sample { disk, first, all: records, copies }
}

impl Sample {
    fn newest(&self) -> u64 {
        self.all.last().expect("not empty").0.segment
    }

    fn segments(&self) -> std::ops::RangeInclusive<u64> {
        self.first..=self.newest()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.disk.bytes(name).expect("there")
    }

    /// Number of records that the list on the undamaged disk knows to be synced.
    fn listed(&self) -> usize {
        let list = SegmentList::read(&self.disk).expect("read").expect("there").expect("good");
        let is_listed = |at: &super::Position| {
            list.get(at.segment).is_some_and(|listed| at.offset < listed.end)
        };
        self.all.iter().take_while(|(at, _)| is_listed(at)).count()
    }

    /// Checks a damaged log with an intact list: a start hands out a prefix with all that the list knows, and reports the
    /// rest, or is refused. `inspect` says the same, and its offer gets out of it.
    fn check(&self, disk: &MemoryStorage) -> Result<(), String> {
        self.check_end(disk, false)?;
        match survey(disk, self.first).is_ok_and(|survey| survey.refusals.is_empty()) {
            true => Ok(()),
            false => self.check_way_out(&disk.after_kill(), true),
        }
    }

    /// The same without the way out. `between_groups`: the newest segment may end between two groups after those that the
    /// list knows, which nobody can tell.
    fn check_end(&self, disk: &MemoryStorage, between_groups: bool) -> Result<(), String> {
        let survey = survey(disk, self.first).map_err(|err| err.to_string())?;
        let looked = disk.after_kill();
        match open(&looked, 6, self.first) {
            Ok((_, recovered, found)) => {
                expect(self.all.starts_with(&found), "what was handed out is no prefix")?;
                expect(survey.refusals.is_empty(), "inspect refuses what a start takes")?;
                expect(found.len() >= self.listed(), "records that the list knows are missing")?;
                let whole = found.len() == self.all.len();
                let said = recovered.torn.is_some();
                expect(whole || said || between_groups, "the tail is missing without a word")
            }
            Err(err) => {
                let text = err.to_string();
                expect(survey.refusals.first() == Some(&text), "inspect says something else")?;
                let named = text.contains("--accept-loss") && text.starts_with("the log ");
                expect(named, &format!("the error names no way out: {text}"))
            }
        }
    }

    /// A refused log can be started again with a prefix, once its loss is accepted, also where the power fails meanwhile.
    fn check_way_out(&self, disk: &MemoryStorage, is_known: bool) -> Result<(), String> {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        give_up(&storage, Known::from(self.first), None).map_err(|err| err.to_string())?;
        let disk = disk.after_power_cut(1);
        let survey = survey(&disk, self.first).map_err(|err| err.to_string())?;
        expect(survey.refusals.is_empty(), &format!("still refused: {:?}", survey.refusals))?;
        let opened = open(&disk, 6, self.first).map_err(|err| format!("no start: {err}"));
        let (mut writer, recovered, found) = opened?;
        expect(!is_known || self.all.starts_with(&found), "what was handed out is no prefix")?;
        expect(recovered.torn.is_none(), "something is torn")?;
        // It continues after a gap, and the next start finds it in order.
        let record = Record::from(bytes::Bytes::from_static(b"more"));
        writer.commit(&[&record], &mut |_| ()).map_err(|_| "it cannot be written".to_owned())?;
        let (_, _, again) =
            open(&disk.after_power_cut(2), 7, self.first).map_err(|err| err.to_string())?;
        expect(again.len() == found.len() + 1, "the record behind the gap is lost")
    }
}

fn expect(is_so: bool, otherwise: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn flips() -> Result<(), String> {
    for closed in [false, true] {
        let sample = sample(5, closed);
        for segment in sample.segments() {
            let name = segment_name(segment);
            let good = sample.bytes(&name);
            for bit in (usize::from(closed)..good.len() * 8).step_by(1 + usize::from(closed) * 6) {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let disk = sample.disk.after_kill();
                disk.set_bytes(&name, &bytes);
                let checked = match bit % 61 {
                    0 => sample.check(&disk),
                    _ => sample.check_end(&disk, false),
                };
                checked.map_err(|what| format!("segment {segment}, bit {bit}: {what}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn r3_every_flip_leaves_a_prefix_or_is_loud() {
    flips().unwrap_or_else(|what| panic!("{what}"));
}

fn cuts() -> Result<(), String> {
    for closed in [false, true] {
        let sample = sample(5, closed);
        for segment in sample.segments() {
            let name = segment_name(segment);
            let good = sample.bytes(&name);
            for len in 0..good.len() {
                let disk = sample.disk.after_kill();
                disk.set_bytes(&name, &good[..len]);
                let checked = sample.check_end(&disk, true).and_then(|()| match len % 7 {
                    0 => sample.check_way_out(&disk, true),
                    _ => Ok(()),
                });
                checked.map_err(|what| format!("segment {segment} cut to {len}: {what}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn r3_every_cut_leaves_a_prefix_or_is_loud() {
    cuts().unwrap_or_else(|what| panic!("{what}"));
}

/// Every set of segments that may be missing.
fn missing() -> Result<(), String> {
    for closed in [false, true] {
        let sample = sample(5, closed);
        let ids: Vec<u64> = sample.segments().collect();
        for set in 1_u32..1 << ids.len() {
            let disk = sample.disk.after_kill();
            let lost: Vec<u64> =
                (0..).zip(&ids).filter(|(at, _)| set & 1 << at != 0).map(|(_, id)| *id).collect();
            lost.iter().for_each(|id| disk.lose(&segment_name(*id)));
            expect(open(&disk.after_kill(), 6, sample.first).is_err(), "started without them")
                .and_then(|()| sample.check(&disk))
                .map_err(|what| format!("{lost:?} are missing: {what}"))?;
        }
    }
    Ok(())
}

#[test]
fn r3_missing_segments_are_loud_also_the_newest() {
    missing().unwrap_or_else(|what| panic!("{what}"));
}

#[cfg(tidemill_planted)]
#[test]
fn r3_finds_what_is_planted() {
    use crate::sync::planted::{Planted, with};
    with(Planted::IgnoreCrc, flips).expect_err("IgnoreCrc is found");
    for check in [missing, cuts, flips] {
        with(Planted::AcceptsMissingNewest, check).expect_err("AcceptsMissingNewest is found");
    }
}

#[test]
fn r3_segments_in_each_others_place_are_loud() {
    let (sample, other) = (sample(5, false), sample(8, false));
    let ids: Vec<u64> = sample.segments().collect();
    for (at, one) in ids.iter().enumerate() {
        for another in &ids[at + 1..] {
            let disk = sample.disk.after_kill();
            let (a, b) = (segment_name(*one), segment_name(*another));
            disk.set_bytes(&a, &sample.bytes(&b));
            disk.set_bytes(&b, &sample.bytes(&a));
            let err = open(&disk.after_kill(), 6, sample.first).expect_err("swapped").to_string();
            assert!(err.contains(&format!("the file is segment {another}")), "{err}");
            sample.check(&disk).expect("the way out");
        }
        // The same segment of another log, which has the same groups and another salt.
        let disk = sample.disk.after_kill();
        disk.set_bytes(&segment_name(*one), &other.bytes(&segment_name(*one)));
        let err = open(&disk.after_kill(), 6, sample.first).expect_err("swapped").to_string();
        assert!(
            err.contains("a segment of another log, not the one that the list `segments` names"),
            "{err}"
        );
        sample.check(&disk).expect("the way out");
    }
    let disk = sample.disk.after_kill();
    disk.set_bytes(LIST, &other.bytes(LIST));
    let err = open(&disk, 6, sample.first).expect_err("another log's list").to_string();
    assert!(err.contains("the list `segments` is that of another log"), "{err}");
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    give_up(&storage, Known::from(sample.first), None).expect("accepted");
    assert_eq!(open(&disk, 6, sample.first).expect("starts").2, sample.all, "nothing is lost");
}

#[test]
fn r3_a_list_that_is_damaged_or_missing_is_loud_and_nothing_is_lost_without_it() {
    for closed in [false, true] {
        let sample = sample(5, closed);
        let good = sample.bytes(LIST);
        let check = |bytes: Option<&[u8]>, says: &str| {
            let disk = sample.disk.after_kill();
            bytes.map_or_else(|| disk.lose(LIST), |bytes| disk.set_bytes(LIST, bytes));
            let err = open(&disk.after_kill(), 6, sample.first).expect_err("refused").to_string();
            assert!(err.contains(says), "{err}");
            let survey = survey(&disk, sample.first).expect("read");
            assert_eq!(survey.refusals.first(), Some(&err));
            let storage: Arc<dyn Storage> = Arc::new(disk.clone());
            let given_up = give_up(&storage, Known::from(sample.first), None).expect("accepted");
            assert_eq!((given_up.records, given_up.groups_missing), (0, 0));
            let (_, _, found) = open(&disk, 6, sample.first).expect("starts");
            assert_eq!(found, sample.all);
        };
        check(None, "the list `segments` is missing: the newest segment that is there");
        (0..good.len()).for_each(|len| check(Some(&good[..len]), "the list `segments`: "));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            check(Some(&bytes), "the list `segments`: ");
        }
    }
}

#[test]
fn r3_an_older_copy_of_a_file_is_loud_or_does_no_harm() {
    for closed in [false, true] {
        let sample = sample(5, closed);
        for (name, copies) in &sample.copies {
            for copy in copies {
                let disk = sample.disk.after_kill();
                disk.set_bytes(name, copy);
                if name != LIST {
                    let checked = sample.check_end(&disk, true);
                    checked.unwrap_or_else(|what| panic!("{name}: {what}"));
                    continue;
                }
                // All segments are there: a list that does not know them is refused, and nothing is given up.
                let survey = survey(&disk, sample.first).expect("read");
                let opened = open(&disk.after_kill(), 6, sample.first);
                assert_eq!(opened.is_ok(), survey.refusals.is_empty(), "{survey:?}");
                if let Err(err) = opened {
                    assert!(err.to_string().contains("is an older list"), "{err}");
                    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
                    let known = Known::from(sample.first);
                    give_up(&storage, known, None).expect("accepted");
                }
                let (_, _, found) = open(&disk, 6, sample.first).expect("starts");
                assert_eq!(found, sample.all);
            }
        }
    }
}

/// Damage to a file.
#[derive(Clone, Debug)]
enum Harm {
    Lost(usize),
    Cut(usize, usize),
    Flip(usize, usize),
    /// An older copy.
    Older(usize, usize),
    /// The file of another log.
    Foreign(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<usize>;
    prop_oneof![
        at().prop_map(Harm::Lost),
        (at(), at()).prop_map(|(file, len)| Harm::Cut(file, len)),
        (at(), at()).prop_map(|(file, bit)| Harm::Flip(file, bit)),
        (at(), at()).prop_map(|(file, copy)| Harm::Older(file, copy)),
        at().prop_map(Harm::Foreign),
    ]
}

impl Harm {
    /// Damages one of these files.
    fn strike(&self, disk: &MemoryStorage, names: &[String], samples: [&Sample; 2]) {
        let (Harm::Lost(file)
        | Harm::Cut(file, _)
        | Harm::Flip(file, _)
        | Harm::Older(file, _)
        | Harm::Foreign(file)) = self;
        let name = &names[file % names.len()];
        let bytes = disk.bytes(name).unwrap_or_default();
        match self {
            Harm::Lost(_) => disk.lose(name),
            _ if bytes.is_empty() => {}
            Harm::Cut(_, len) => disk.set_bytes(name, &bytes[..len % bytes.len()]),
            Harm::Flip(_, bit) => {
                let mut bytes = bytes;
                let at = bit / 8 % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
                disk.set_bytes(name, &bytes);
            }
            Harm::Older(_, copy) => {
                let copies = &samples[0].copies[name];
                disk.set_bytes(name, &copies[copy % copies.len()]);
            }
            Harm::Foreign(_) => {
                disk.set_bytes(name, &samples[1].disk.bytes(name).unwrap_or_default());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// Damages several files at once, the list too: `inspect` agrees with a start, the records handed out are a prefix, and
    /// accepting the loss leads to a start.
    #[test]
    fn r3_what_inspect_says_is_what_a_start_does(
        closed in any::<bool>(),
        harms in prop::collection::vec(harm(), 0..4),
    ) {
        let (sample, other) = (sample(5, closed), sample(8, closed));
        let disk = sample.disk.after_kill();
        let mut names: Vec<String> = sample.segments().map(segment_name).collect();
        names.push(LIST.to_owned());
        harms.iter().for_each(|harm| harm.strike(&disk, &names, [&sample, &other]));
        let survey = survey(&disk, sample.first).expect("read");
        // Without its list nothing distinguishes a log from another one.
        let is_known = disk.bytes(LIST) == sample.disk.bytes(LIST)
            || !harms.iter().any(|harm| matches!(harm, Harm::Foreign(_)));
        match open(&disk.after_kill(), 6, sample.first) {
            Ok((_, _, found)) => {
                prop_assert_eq!(survey.refusals, Vec::<String>::new());
                prop_assert!(!is_known || sample.all.starts_with(&found));
            }
            Err(err) => {
                prop_assert_eq!(survey.refusals.first(), Some(&err.to_string()));
                prop_assert_eq!(sample.check_way_out(&disk, is_known), Ok(()));
            }
        }
    }
}

#[test]
fn all_segments_and_the_list_are_gone() {
    let disk = MemoryStorage::new(0);
    let known = Known { checkpoint: 9, newest_file: 9, ..Known::from(1) };
    let refusals = |known: Known| survey(&disk, known).expect("read").refusals;
    assert_eq!(refusals(Known::from(1)), Vec::<String>::new(), "nothing was ever here");
    let refused = refusals(known).concat();
    assert!(refused.contains("and so is segment 1 (wal-000000000001.seg); checkpoint 9 needs it"));
    let err = open(&disk, 6, 4).expect_err("all are gone").to_string();
    let what = "the log in memory is damaged: the list `segments` is missing, and so is segment 4 \
        (wal-000000000004.seg); `tidemill inspect memory` says what is there, ";
    assert!(err.starts_with(what), "{err}");
}

#[test]
fn the_error_names_the_place() {
    let Sample { disk, first, all, .. } = sample(5, false);
    let name = segment_name(first);
    let mut bytes = disk.bytes(&name).expect("there");
    bytes[64 + 64 + 8] ^= 1;
    disk.set_bytes(&name, &bytes);
    let err = open(&disk, 6, first).expect_err("damaged").to_string();
    let start = format!("the log is damaged: segment {first} ({name}) at offset 64: group");
    assert!(err.starts_with(&start) && err.contains("record 0 at offset 128 is damaged"), "{err}");
    assert!(err.contains("`tidemill inspect memory --accept-loss` gives it up"), "{err}");
    let Survey { segments, .. } = survey(&disk, first).expect("read");
    assert_eq!(segments.len() as u64, all.last().expect("not empty").0.segment - first + 1);
    assert!(!segments[0].is_tail && segments[0].problem.is_some(), "{:?}", segments[0]);
    assert!(segments[1..].iter().all(|report| report.problem.is_none()), "{segments:?}");
}

#[test]
fn a_cut_at_a_named_place_lets_the_log_start_again() {
    let Sample { disk, first, all, .. } = sample(5, false);
    let Survey { segments, .. } = survey(&disk, first).expect("read");
    let records: u64 = segments.iter().map(|report| report.records).sum();
    assert_eq!(records, all.len() as u64);
    let second = &segments[1];
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let at = |offset: u64| Some(Place { segment: second.segment, offset });
    let cut = |offset: u64| give_up(&storage, Known::from(first), at(offset));
    let err = cut(second.end - 8).expect_err("in a group").to_string();
    assert!(err.contains("no group begins there; the nearest place before it is"), "{err}");
    let given_up = cut(second.end).expect("cut");
    let disk = disk.after_power_cut(1);
    let (_, recovered, found) = open(&disk, 6, first).expect("starts");
    assert_eq!(recovered.torn, None);
    let expected: Records =
        all.iter().filter(|(at, _)| at.segment <= second.segment).cloned().collect();
    assert_eq!(given_up.records, (all.len() - expected.len()) as u64);
    assert_eq!(found, expected);
}

#[test]
fn a_torn_tail_is_cut_and_said_once() {
    let Sample { disk, first, all, .. } = sample(5, false);
    let last = all.last().expect("not empty").0;
    let name = segment_name(last.segment);
    let mut bytes = disk.bytes(&name).expect("there");
    bytes[usize::try_from(last.offset).expect("small") + 10] ^= 1;
    disk.set_bytes(&name, &bytes);
    let report = survey(&disk, first).expect("read").segments.pop().expect("segments");
    assert!(report.is_tail && report.problem.is_some(), "{report:?}");
    let (_, recovered, found) = open(&disk, 6, first).expect("starts");
    let torn = recovered.torn.expect("said");
    assert_eq!((torn.segment, found.len()), (last.segment, all.len() - 3));
    assert_eq!(torn.offset, report.end);
    let (_, recovered, again) = open(&disk, 7, first).expect("starts");
    assert_eq!((recovered.torn, again), (None, found));
}

/// A look reads ahead; groups that come meanwhile lie partly in what it has read as empty room, and partly after it.
#[test]
fn a_log_that_is_written_during_a_look_is_not_damaged() {
    let disk = MemoryStorage::new(1);
    let large = LogOptions { segment_bytes: 8 << 20, ..options(1) };
    let (mut writer, ..) = open_with(&disk, large, 1).expect("an empty log");
    let mut commit = |bytes: usize| {
        let record = Record::new(vec![vec![7; bytes].into()]);
        writer.commit(&[&record], &mut |_| ()).expect("written");
    };
    commit(10);
    let (mut seen, mut left) = (0, 3);
    let mut visit = |_, _: &[u8]| {
        seen += 1;
        (0..std::mem::take(&mut left)).for_each(|_| commit(700 << 10));
        Ok(())
    };
    let looked = survey_with(&disk, Known::from(1), &mut visit, &mut |_, _| ()).expect("read");
    assert_eq!((looked.refusals, looked.segments[0].records, seen), (Vec::new(), 4, 4));
}
