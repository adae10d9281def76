//! The checkpoint against power cuts, faults and damage, on the memory storage.

use super::{Checkpoint, Checkpoints, Loaded, ROOM_BYTES, file_name, survey};
use crate::storage::{Fault, MemoryStorage, Storage};
use crate::sync::Arc;
use crate::wal::NotLogged;
use crate::wal::tests::{env_seed, seeds};

const WRITES: u64 = 5;
const KEEP: usize = 2;

fn sample(value: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::new();
    checkpoint.put("value", &value).expect("a number");
    checkpoint.put_bytes("state", vec![u8::try_from(value).expect("small"); 200]);
    checkpoint
}

fn open(disk: &MemoryStorage) -> crate::error::Result<(Checkpoints, Loaded)> {
    Checkpoints::open(Arc::new(disk.clone()) as Arc<dyn Storage>, KEEP)
}

fn value(checkpoint: &Checkpoint) -> u64 {
    let value = checkpoint.get("value").expect("a number").expect("there");
    assert_eq!(checkpoint.bytes("state"), sample(value).bytes("state"));
    value
}

/// Writes until all is written or a call fails; returns the value of the last one that was acknowledged.
fn write_all(disk: &MemoryStorage) -> u64 {
    let mut acknowledged = 0;
    let Ok((mut checkpoints, _)) = open(disk) else { return 0 };
    for value in 1..=WRITES {
        match checkpoints.write(&mut sample(value)) {
            Ok(number) => {
                assert_eq!(number, value);
                acknowledged = value;
            }
            Err(_) => break,
        }
    }
    acknowledged
}

/// Checks a disk on which `acknowledged` is durable.
fn expect_kept(disk: &MemoryStorage, acknowledged: u64) -> Result<(), String> {
    let (mut checkpoints, loaded) = open(disk).map_err(|err| err.to_string())?;
    if !loaded.damaged.is_empty() {
        return Err(format!("a crash left a damaged checkpoint: {:?}", loaded.damaged));
    }
    let found = loaded.newest.as_ref().map_or(0, value);
    if found < acknowledged || found > acknowledged + 1 {
        return Err(format!("{acknowledged} was acknowledged, {found} is there"));
    }
    let next = checkpoints.write(&mut sample(99)).map_err(|err| err.to_string())?;
    if next <= found {
        return Err(format!("number {next} was used before"));
    }
    Ok(())
}

fn power_cuts(seeds: impl Iterator<Item = u64>) -> Result<(), String> {
    let whole = MemoryStorage::new(0);
    write_all(&whole);
    let calls = whole.calls();
    for seed in seeds {
        for call in 1..=calls {
            let disk = MemoryStorage::new(seed);
            disk.fail(call, Fault::PowerCut);
            let acknowledged = write_all(&disk);
            expect_kept(&disk.after_power_cut(seed), acknowledged).map_err(|what| {
                format!("TIDEMILL_SEED={seed}, power cut at call {call}: {what}")
            })?;
        }
    }
    Ok(())
}

#[test]
fn r2_a_power_cut_leaves_the_last_one_that_was_acknowledged_or_the_next() {
    power_cuts(seeds(20)).expect("nothing is lost");
}

#[cfg(tidemill_planted)]
#[test]
fn r2_finds_what_is_planted() {
    use crate::sync::planted::{Planted, with};
    for defect in [Planted::SkipSync, Planted::RenameBeforeSync] {
        with(defect, || power_cuts(0..20)).expect_err(&format!("{defect:?} is found"));
    }
}

#[test]
fn r4_each_call_fails_once() {
    let seed = env_seed().unwrap_or(1);
    for fault in [Fault::Broken, Fault::Full, Fault::Interrupted, Fault::Short] {
        let mut call = 0;
        loop {
            call += 1;
            let disk = MemoryStorage::new(seed);
            disk.fail(call, fault);
            let acknowledged = write_all(&disk);
            for disk in [disk.after_kill(), disk.after_power_cut(seed + call)] {
                let kept = expect_kept(&disk, acknowledged);
                kept.unwrap_or_else(|what| panic!("{fault:?} at call {call}, seed {seed}: {what}"));
            }
            if disk.calls() < call {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_can_be_tried_again_and_a_failed_sync_can_not() {
    let disk = MemoryStorage::new(7);
    let (mut checkpoints, _) = open(&disk).expect("an empty directory");
    disk.set_full(true);
    let refused = checkpoints.write(&mut sample(1)).expect_err("full");
    assert!(matches!(refused, NotLogged::Retry(_)), "{refused:?}");
    disk.set_full(false);
    assert_eq!(checkpoints.write(&mut sample(1)), Ok(1));
    // Create, write, cut, room for the next, then the sync.
    disk.fail(disk.calls() + 5, Fault::Broken);
    let failed = checkpoints.write(&mut sample(2)).expect_err("the sync fails");
    assert!(matches!(failed, NotLogged::Failed(_)), "{failed:?}");
    assert_eq!(checkpoints.write(&mut sample(2)), Err(failed));
}

#[test]
fn with_its_room_kept_a_checkpoint_is_written_on_a_full_disk() {
    let disk = MemoryStorage::new(0);
    disk.set_capacity(3 * ROOM_BYTES, 4096);
    let (mut checkpoints, _) = open(&disk).expect("an empty directory");
    checkpoints.keep_room().expect("room");
    assert_eq!((disk.used(), checkpoints.room()), (3 * ROOM_BYTES, 3 * ROOM_BYTES));
    for number in 1..=5 {
        assert_eq!(checkpoints.write(&mut sample(number)), Ok(number));
    }
    drop(checkpoints);
    // A start on the full disk as well.
    let (mut checkpoints, loaded) = open(&disk.after_kill()).expect("opened");
    assert_eq!(loaded.newest.as_ref().map(value), Some(5));
    checkpoints.keep_room().expect("it is there");
    assert_eq!(checkpoints.write(&mut sample(6)), Ok(6));
    let disk = MemoryStorage::new(0);
    disk.set_capacity(2 * ROOM_BYTES, 4096);
    open(&disk).expect("opened").0.keep_room().expect_err("no room for three");
}

#[test]
fn the_last_few_are_kept_and_the_newest_valid_one_wins() {
    let disk = MemoryStorage::new(0);
    assert_eq!(write_all(&disk), WRITES);
    let names = disk.list().expect("listed");
    let kept = [file_name(WRITES - 1), file_name(WRITES), "checkpoint.aside".to_owned()];
    assert_eq!(names, kept, "the next one is written over an old one");
    let mut bytes = disk.bytes(&file_name(WRITES)).expect("there");
    *bytes.last_mut().expect("not empty") ^= 1;
    disk.set_bytes(&file_name(WRITES), &bytes);
    let (mut checkpoints, loaded) = open(&disk).expect("opened");
    assert_eq!(loaded.newest.as_ref().map(value), Some(WRITES - 1));
    assert_eq!(loaded.damaged[0].what, "the checksum of section `value` does not match");
    assert_eq!(checkpoints.write(&mut sample(9)), Ok(WRITES + 1), "a number is used once");
}

/// Every flip and every cut of a file is found.
fn damage() -> Result<(), String> {
    let disk = MemoryStorage::new(0);
    write_all(&disk);
    let name = file_name(WRITES);
    let good = disk.bytes(&name).expect("there");
    let check = |bytes: &[u8], what: String| {
        disk.set_bytes(&name, bytes);
        let (_, loaded) = open(&disk).map_err(|err| err.to_string())?;
        let found = loaded.newest.and_then(|found| found.get::<u64>("value").ok().flatten());
        match found == Some(WRITES - 1) && loaded.damaged.len() == 1 {
            true => Ok(()),
            false => Err(format!("{what}: {found:?}")),
        }
    };
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        check(&bytes, format!("bit {bit}"))?;
    }
    (0..good.len()).try_for_each(|len| check(&good[..len], format!("cut to {len}")))
}

#[test]
fn r3_every_flip_and_every_cut_is_found() {
    damage().expect("found");
}

#[cfg(tidemill_planted)]
#[test]
fn r3_finds_what_is_planted() {
    use crate::sync::planted::{Planted, with};
    with(Planted::IgnoreCrc, damage).expect_err("IgnoreCrc is found");
}

#[test]
fn a_file_under_another_number_is_refused() {
    let disk = MemoryStorage::new(0);
    write_all(&disk);
    let older = disk.bytes(&file_name(WRITES - 1)).expect("there");
    disk.set_bytes(&file_name(WRITES), &older);
    let found = survey(&disk).expect("read");
    assert_eq!(found[1].1, Err(format!("the file is checkpoint {}", WRITES - 1)));
}

#[test]
fn a_section_that_is_something_else_is_an_error() {
    let checkpoint = sample(3);
    assert_eq!(checkpoint.get::<u64>("other").expect("fine"), None);
    let err = checkpoint.get::<String>("value").expect_err("a number is no text");
    assert!(err.to_string().starts_with("section `value` of checkpoint 0 is not what"), "{err}");
}

#[test]
fn a_close_finds_what_was_done_to_the_newest_checkpoint() {
    let check = |harm: &dyn Fn(&MemoryStorage, &str), expected: Option<&str>| {
        let disk = MemoryStorage::new(0);
        let (mut checkpoints, _) = open(&disk).expect("an empty directory");
        checkpoints.close().expect("nothing was written");
        for number in 1..=3 {
            checkpoints.write(&mut sample(number)).expect("room");
        }
        harm(&disk, &file_name(3));
        let found = checkpoints.close().map_err(|err| err.to_string());
        match (found, expected) {
            (Ok(()), None) => {}
            (Err(text), Some(words)) => {
                let told = format!("{} in memory was touched while it was in use: ", file_name(3));
                assert!(text.starts_with(&told) && text.contains(words), "{text}");
                assert!(text.contains("`tidemill inspect memory`"), "{text}");
                // The next one takes its place.
                checkpoints.write(&mut sample(4)).expect("room");
                checkpoints.close().expect("it is there");
            }
            other => panic!("{other:?}"),
        }
    };
    check(&|_, _| (), None);
    check(&|disk, _| disk.lose(&file_name(2)), None);
    check(&|disk, name| disk.lose(name), Some("it is not there any more"));
    let cut = |disk: &MemoryStorage, name: &str| {
        disk.open(name).and_then(|file| file.truncate(9)).expect("cut");
    };
    check(&cut, Some("it is 9 bytes long and was "));
    check(&|disk, name| disk.set_bytes(name, b"x"), Some("another file has its name"));
}
