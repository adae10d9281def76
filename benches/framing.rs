//! The cost of cutting a piece into records: the line splitter over pieces of 64 KiB beside the least that any splitter
//! must do, which is to look at every byte once, and the length framings, which need not even do that.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidemill::internals::framing::{FRAMINGS, Found, Framing};

const PIECE_BYTES: usize = 64 * 1024;
const RECORD_BYTES_MAX: usize = 1 << 20;

/// A piece filled with whole records of `len` bytes, and how many.
fn piece(framing: Framing, len: usize) -> (Vec<u8>, u64) {
    let body = vec![b'x'; len];
    let frame = match framing {
        Framing::Lines => [&body[1..], b"\n"].concat(),
        Framing::OctetCounted | Framing::Syslog => [format!("{len} ").as_bytes(), &body].concat(),
        Framing::Relp => [format!("7 syslog {len} ").as_bytes(), &body, b"\n"].concat(),
        Framing::U32 => {
            [&u32::try_from(len).expect("records are short").to_be_bytes()[..], &body].concat()
        }
    };
    let records = PIECE_BYTES / frame.len();
    (frame.repeat(records), records as u64)
}

/// Number of line feeds: a sum of bytes in chunks that do not overflow it, which the compiler vectorises.
fn count_in_lanes(bytes: &[u8]) -> u64 {
    bytes
        .chunks(255)
        .map(|chunk| u64::from(chunk.iter().map(|&byte| u8::from(byte == b'\n')).sum::<u8>()))
        .sum()
}

fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    group.sample_size(20).warm_up_time(std::time::Duration::from_millis(200));
    group.measurement_time(std::time::Duration::from_millis(500));
    group.throughput(Throughput::Bytes(PIECE_BYTES as u64));
    for len in [10, 100, 1024] {
        for framing in FRAMINGS.iter().map(|row| row.framing) {
            let (piece, records) = piece(framing, len);
            let (mut splitter, mut found) = (framing.splitter(RECORD_BYTES_MAX), Found::default());
            if framing.acknowledges() {
                let open = b"1 open 30 relp_version=0\ncommands=syslog\n";
                splitter.feed(open, &mut found).expect("good offers");
            }
            let mut feed = || {
                found.clear();
                splitter.feed(black_box(&piece), &mut found).expect("the piece is well-formed");
                found.records
            };
            assert_eq!(feed(), records);
            group.bench_function(BenchmarkId::new(framing.name(), len), |bencher| {
                bencher.iter(&mut feed)
            });
        }
        let (piece, records) = piece(Framing::Lines, len);
        for (name, count) in [
            ("baseline_memchr", count_with_memchr as fn(&[u8]) -> u64),
            ("baseline_lanes", count_in_lanes),
        ] {
            assert_eq!(count(&piece), records);
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| count(black_box(&piece)))
            });
        }
    }
    group.finish();
}

fn count_with_memchr(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

criterion_group!(benches, split);
criterion_main!(benches);
