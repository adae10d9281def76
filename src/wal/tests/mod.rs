//! The log against power cuts, faults and damage (R2, R3, R4), on the memory storage, without threads.
//!
//! `TIDEMILL_SEED=n` replays one seed, `TIDEMILL_SEEDS=n` runs that many.

mod damage;
mod room;
mod seeds;
mod threads;

use super::LogOptions;
use super::format::Position;
use super::recovery::{Recovered, recover};
use super::segment_reader::Segment;
use super::segment_writer::{Failure, Record, Writer};
use crate::error::Result;
use crate::storage::{Fault, MemoryStorage, Storage};
use crate::sync::Arc;

pub(crate) use seeds::{env_seed, seeds};

/// Numbers that a seed determines.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(crate) fn size(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }
}

pub(super) fn options(salt: u64) -> LogOptions {
    LogOptions {
        segment_bytes: 512,
        group_bytes_max: 200,
        pending_bytes_max: 400,
        reserve: 0,
        spares_max: 1,
        salt,
    }
}

pub(super) type Records = Vec<(Position, Vec<u8>)>;

/// Opens the log and collects its records.
pub(super) fn open(
    disk: &MemoryStorage,
    salt: u64,
    first: u64,
) -> Result<(Writer, Recovered, Records)> {
    open_with(disk, options(salt), first)
}

/// The same with other options.
pub(super) fn open_with(
    disk: &MemoryStorage,
    options: LogOptions,
    first: u64,
) -> Result<(Writer, Recovered, Records)> {
    let mut records = Vec::new();
    let mut visit = |at: Position, bytes: &[u8]| {
        records.push((at, bytes.to_vec()));
        Ok(())
    };
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (writer, recovered) = recover(storage, options, first.into(), &mut visit)?;
    Ok((writer, recovered, records))
}

/// The expected content of the log.
#[derive(Default)]
struct Model {
    /// Records that were acknowledged, or handed out by a start that succeeded, in order.
    known: Records,
    /// Records that were written, and are neither acknowledged nor known to be lost.
    maybe: Vec<Vec<u8>>,
    /// The oldest segment that is needed.
    first: u64,
}

impl Model {
    /// Compares the records of a start, and takes them for known.
    fn compare(&mut self, found: Records) -> Result<(), String> {
        let start = self.known.iter().take_while(|(at, _)| at.segment < self.first).count();
        let wanted = &self.known[start..];
        if found.len() < wanted.len() {
            return Err(format!(
                "{} of {} acknowledged records are there",
                found.len(),
                wanted.len()
            ));
        }
        let (old, new) = found.split_at(wanted.len());
        if let Some(index) = old.iter().zip(wanted).position(|(found, wanted)| found != wanted) {
            return Err(format!(
                "record {index} is {:?} and must be {:?}",
                old[index], wanted[index]
            ));
        }
        if new.len() > self.maybe.len() {
            return Err(format!("{} records were invented", new.len() - self.maybe.len()));
        }
        if let Some(index) =
            new.iter().zip(&self.maybe).position(|(found, tried)| found.1 != *tried)
        {
            return Err(format!(
                "an unacknowledged record {index} has other bytes: {:?}",
                new[index]
            ));
        }
        self.known.extend(new.iter().cloned());
        self.maybe.clear();
        Ok(())
    }

    /// Opens the disk, which must succeed, and compares.
    fn expect(&mut self, disk: &MemoryStorage, salt: u64) -> Result<(), String> {
        let (_, _, found) =
            open(disk, salt, self.first).map_err(|err| format!("no start: {err}"))?;
        self.compare(found)
    }

    /// One life of a process: opens the log and writes groups until all is done or a call fails for good.
    fn live(&mut self, disk: &MemoryStorage, seed: u64, groups: u64) -> Result<(), String> {
        let Ok((mut writer, _, found)) = open(disk, seed, self.first) else { return Ok(()) };
        self.compare(found)?;
        let mut random = Random(seed);
        for _ in 0..groups {
            if !self.write_group(&mut writer, &mut random) {
                return Ok(());
            }
            self.read_back(&writer, &mut random)?;
            if random.below(3) == 0 {
                let newest = self.known.last().map_or(1, |(at, _)| at.segment);
                self.first = self.first.max(newest - random.below(2).min(newest - 1));
                if writer.release(self.first).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes a group, and again if it was refused; false once the log has ended.
    fn write_group(&mut self, writer: &mut Writer, random: &mut Random) -> bool {
        let bodies: Vec<Vec<u8>> = (0..=random.below(3))
            .map(|_| {
                let byte = u8::try_from(random.below(256)).expect("a byte");
                vec![byte; random.size(60)]
            })
            .collect();
        let records: Vec<Record> = bodies
            .iter()
            .map(|body| {
                let (left, right) = body.split_at(body.len() / 2);
                Record::new(vec![left.to_vec().into(), right.to_vec().into()])
            })
            .collect();
        let records: Vec<&Record> = records.iter().collect();
        self.maybe.clone_from(&bodies);
        for _ in 0..3 {
            let mut durable = |positions: Vec<Position>| {
                self.maybe.clear();
                self.known.extend(positions.into_iter().zip(bodies.iter().cloned()));
            };
            match writer.commit(&records, &mut durable) {
                Ok(()) => return true,
                Err(Failure::Retry(_)) => {}
                Err(Failure::Fatal(_)) => return false,
            }
        }
        // After giving up, the fate of the group is unknown.
        false
    }

    /// A record that is needed can be read where it was said to be.
    fn read_back(&self, writer: &Writer, random: &mut Random) -> Result<(), String> {
        let (at, wanted) = &self.known[random.size(self.known.len())];
        if at.segment < self.first {
            return Ok(());
        }
        let file = writer.files.lock().get(&at.segment).cloned();
        let file = file.ok_or(format!("segment {} was let go", at.segment))?;
        match Segment::read(file.as_ref(), writer.storage.as_ref(), *at) {
            Ok(found) if found == *wanted => Ok(()),
            Ok(found) => Err(format!("{at} holds {found:?}, not {wanted:?}")),
            // The disk may be failing by plan.
            Err(_) => Ok(()),
        }
    }
}

/// Several lives on one disk, each ended by a power cut or a kill at a random call.
fn lives(seed: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let mut disk = MemoryStorage::new(seed);
    let mut model = Model::default();
    for life in 0..3 {
        let salt = seed.wrapping_mul(31).wrapping_add(life);
        disk.fail(1 + random.below(70), Fault::PowerCut);
        model.live(&disk, salt, 12)?;
        disk = match random.below(4) {
            0 => disk.after_kill(),
            _ => disk.after_power_cut(random.below(1 << 31)),
        };
    }
    model.expect(&disk, seed)?;
    // What a start has handed out is durable.
    model.expect(&disk.after_power_cut(seed), seed)
}

fn power_cuts(mut seeds: impl Iterator<Item = u64>) -> Result<(), String> {
    seeds.try_for_each(|seed| lives(seed).map_err(|what| format!("TIDEMILL_SEED={seed}: {what}")))
}

#[test]
fn r2_nothing_acknowledged_is_lost_and_nothing_is_invented() {
    power_cuts(seeds(3_000)).unwrap_or_else(|what| panic!("{what}"));
}

/// Every call fails once with `fault`, and the process is killed, or the power cut, afterwards.
fn each_call(fault: Fault, seed: u64) -> Result<(), String> {
    for call in 1.. {
        let disk = MemoryStorage::new(seed);
        disk.fail(call, fault);
        let check = |cut: bool| {
            let disk = MemoryStorage::new(seed);
            disk.fail(call, fault);
            let mut model = Model::default();
            model.live(&disk, seed, 12)?;
            let disk = if cut { disk.after_power_cut(seed + call) } else { disk.after_kill() };
            model.live(&disk, seed + 1, 3)?;
            model.expect(&disk.after_power_cut(seed), seed + 2)?;
            Ok(disk.calls())
        };
        let context =
            |what: String| format!("TIDEMILL_SEED={seed}: {fault:?} at call {call}: {what}");
        check(true).map_err(context)?;
        check(false).map_err(context)?;
        Model::default().live(&disk, seed, 12)?;
        if disk.calls() < call {
            break;
        }
    }
    Ok(())
}

const FAULTS: [Fault; 4] = [Fault::Broken, Fault::Full, Fault::Interrupted, Fault::Short];

fn faults(seeds: std::ops::Range<u64>) -> Result<(), String> {
    seeds
        .into_iter()
        .try_for_each(|seed| FAULTS.iter().try_for_each(|fault| each_call(*fault, seed)))
}

#[test]
fn r4_each_call_fails_once_and_nothing_acknowledged_is_lost() {
    faults(seeds(3)).unwrap_or_else(|what| panic!("{what}"));
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = MemoryStorage::new(0);
    let (mut writer, _, _) = open(&disk, 1, 1).expect("an empty log");
    let record = Record::from(bytes::Bytes::from_static(&[7; 100]));
    let mut durable = 0;
    for round in 0..20 {
        disk.set_full(round % 3 == 1);
        match writer.commit(&[&record], &mut |positions| durable += positions.len()) {
            Ok(()) => assert_ne!(round % 3, 1),
            Err(failure) => assert!(round % 3 == 1 && matches!(failure, Failure::Retry(_))),
        }
    }
    assert_eq!((durable, open(&disk.after_power_cut(0), 2, 1).expect("opened").2.len()), (13, 13));
}

#[cfg(tidemill_planted)]
mod planted {
    use super::*;
    use crate::sync::planted::{Planted, with};

    #[test]
    fn r2_finds_what_is_planted() {
        for defect in [
            Planted::SkipSync,
            Planted::AckBeforeSync,
            Planted::RenameBeforeSync,
            Planted::IgnoreCrc,
        ] {
            with(defect, || power_cuts(0..3_000)).expect_err(&format!("{defect:?} is found"));
        }
    }

    #[test]
    fn r4_finds_what_is_planted() {
        for defect in [Planted::SkipSync, Planted::AckBeforeSync] {
            with(defect, || faults(0..3)).expect_err(&format!("{defect:?} is found"));
        }
    }
}
