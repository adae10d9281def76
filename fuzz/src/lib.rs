//! The shared part of the fuzz targets: input bytes decide the limit and the chopping, the rest is the stream.
//!
//! ```text
//! max (1 byte, 255 = no limit) | pieces (1 byte, modulo 8) | that many piece lengths (1 byte each) | stream
//! ```
//! A find becomes a named unit test beside the code.

use std::sync::Arc;

use tidemill::internals::framing::{Found, Framing, Owed, Splitter};
use tidemill::internals::storage::{MemoryStorage, Storage};
use tidemill::internals::sync::Poison;
use tidemill::internals::wal::checkpoint_file::Checkpoint;
use tidemill::internals::wal::{LogOptions, Record, WriteAheadLog, replay, survey};

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

const LOG: LogOptions = LogOptions {
    segment_bytes: 1024,
    group_bytes_max: 512,
    pending_bytes_max: 1024,
    reserve: 0,
    spares_max: 1,
    salt: 7,
};

/// Writes a log, changes its bytes, and checks that a start hands out a prefix of what was written.
///
/// ```text
/// records (1 byte, modulo 32) | that many lengths (1 byte each) | changes of 4 bytes: file, offset (2, LE), xor
/// ```
/// The files are the segments and their list. An xor of 0 cuts the file at the offset.
pub fn damaged_log(input: &[u8]) {
    let [count, rest @ ..] = input else { return };
    let Some((lengths, changes)) = rest.split_at_checked(usize::from(count % 32)) else { return };
    let disk = MemoryStorage::new(0);
    let written = write_log(&disk, lengths);
    let names: Vec<String> = disk.list().expect("in memory");
    let segments = names.iter().filter(|name| name.starts_with("wal-"));
    let list = "segments".to_owned();
    let files: Vec<&String> = segments.chain([&list]).collect();
    for change in changes.chunks_exact(4) {
        let Some(name) = files.get(usize::from(change[0])) else { continue };
        let mut bytes = disk.bytes(name).expect("listed");
        let offset = usize::from(u16::from_le_bytes([change[1], change[2]]));
        match (change[3], bytes.get_mut(offset)) {
            (_, None) => {}
            (0, Some(_)) => bytes.truncate(offset),
            (xor, Some(byte)) => *byte ^= xor,
        }
        disk.set_bytes(name, &bytes);
    }
    read_log(&disk, Some(&written));
}

/// Opens a log whose first segment is these bytes.
pub fn any_log(input: &[u8]) {
    let disk = MemoryStorage::new(0);
    disk.set_bytes("wal-000000000001.seg", input);
    read_log(&disk, None);
}

fn write_log(disk: &MemoryStorage, lengths: &[u8]) -> Vec<Vec<u8>> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let (log, _) = WriteAheadLog::open(storage, LOG, 1, &Poison::new(), &mut |_, _| Ok(()))
        .expect("an empty log");
    let bodies = lengths.iter().enumerate().map(|(index, length)| {
        let byte = u8::try_from(index).expect("fewer than 32");
        let body = vec![byte; usize::from(*length)];
        log.append_and_wait(Record::new(vec![body.clone().into()])).expect("durable");
        body
    });
    bodies.collect()
}

fn read_log(disk: &MemoryStorage, written: Option<&[Vec<u8>]>) {
    let survey = survey(disk, 1);
    let mut found = Vec::new();
    let opened = replay(Arc::new(disk.clone()), LOG, 1, &mut |_, bytes| {
        found.push(bytes.to_vec());
        Ok(())
    });
    if let Some(written) = written {
        assert!(written.starts_with(&found), "{found:?} of {written:?}");
    }
    let good = survey.is_ok_and(|survey| survey.refusals.is_empty());
    assert_eq!(good, opened.is_ok(), "what `inspect` says is what a start does");
}

/// Reads any bytes as a checkpoint; one that can be read must be written back the same.
pub fn checkpoint(input: &[u8]) {
    if let Ok(found) = Checkpoint::decode(input) {
        let names: Vec<_> = found.sections().collect();
        assert!(names.iter().map(|(_, length)| length).sum::<usize>() <= input.len());
    }
}
