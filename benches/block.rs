//! Building a block: pieces of 64 KiB are split, frozen without a copy, and gathered into one block with its records
//! counted. Beside it a plain loop that counts the same lines and copies the same bytes into one vector.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidemill::internals::blocks::{Block, BlockId, Range};
use tidemill::internals::framing::{Found, Framing};
use tidemill::internals::memory::budget::MemoryBudget;
use tidemill::internals::memory::buffer_pool::{BUFFER_BYTES, Pool};
use tidemill::internals::sync::Arc;

/// Pieces of one block: 8 MiB, the size at which a block is cut early.
const PIECES: usize = 128;

const LINE: usize = 100;

/// One buffer of lines, with a line cut off at its end.
fn piece() -> Vec<u8> {
    (0..BUFFER_BYTES).map(|at| if at % LINE == LINE - 1 { b'\n' } else { b'x' }).collect()
}

fn build(pool: &Arc<Pool>, piece: &[u8]) -> Block {
    let mut splitter = Framing::Lines.splitter(1 << 20);
    let (mut found, mut ranges) = (Found::default(), Vec::new());
    let mut buffer = pool.buffer();
    for _ in 0..PIECES {
        // Stands for the read: one copy into the buffer.
        buffer.space()[..piece.len()].copy_from_slice(piece);
        found.clear();
        splitter.feed(buffer.filled(piece.len()), &mut found).expect("lines are never malformed");
        if !found.joined.is_empty() {
            ranges.push(Range::new(Bytes::copy_from_slice(&found.joined), 1));
        }
        let frozen = buffer.freeze(piece.len());
        for (range, records) in found.ranges.iter().zip(&found.range_records) {
            ranges.push(Range::new(frozen.slice(range.clone()), *records));
        }
    }
    Block::new(BlockId { source: 0, number: 0 }, Framing::Lines, ranges)
}

fn plain_loop(piece: &[u8], all: &mut Vec<u8>) -> u64 {
    all.clear();
    let mut lines = 0;
    for _ in 0..PIECES {
        all.extend_from_slice(piece);
        lines += memchr::memchr_iter(b'\n', piece).count() as u64;
    }
    lines
}

fn block_building(criterion: &mut Criterion) {
    let (piece, pool) = (piece(), Pool::new(MemoryBudget::new(1 << 30)));
    let lines = plain_loop(&piece, &mut Vec::new());
    assert_eq!(build(&pool, &piece).info.records, lines);
    let mut group = criterion.benchmark_group("block building");
    group.sample_size(20).throughput(Throughput::Bytes((PIECES * piece.len()) as u64));
    group.bench_function("split, freeze, seal", |bench| {
        bench.iter(|| assert_eq!(build(&pool, black_box(&piece)).info.records, lines));
    });
    let mut all = Vec::with_capacity(PIECES * piece.len());
    group.bench_function("baseline plain loop", |bench| {
        bench.iter(|| assert_eq!(plain_loop(black_box(&piece), &mut all), lines));
    });
    group.finish();
}

criterion_group!(benches, block_building);
criterion_main!(benches);
