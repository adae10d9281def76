//! Words per second of the word table beside a plain tuned loop.
//!
//! The text is Zipf(1.0) over 10,000 words, as the embedded data server sends it. The baseline is what a careful
//! programmer writes with a hash map and the same hash function; both results are compared before anything is timed.

mod zipf;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foldhash::fast::FixedState;

use tidemill::internals::exec::shuffle::word_table::WordTable;

use crate::zipf::zipf_text;

const WORDS: usize = 2_000_000;

fn plain<'a>(text: &'a [u8], counts: &mut HashMap<&'a [u8], u64, FixedState>) {
    let mut start = 0;
    for (at, byte) in text.iter().enumerate() {
        if byte.is_ascii_whitespace() {
            if start < at {
                *counts.entry(&text[start..at]).or_default() += 1;
            }
            start = at + 1;
        }
    }
}

fn table(c: &mut Criterion) {
    let text = zipf_text(WORDS);
    let (mut words, mut counts) =
        (WordTable::new(1), HashMap::with_hasher(FixedState::with_seed(1)));
    words.count_words(&text);
    plain(&text, &mut counts);
    assert_eq!(words.len(), counts.len());
    let same = |ranked| words.read(&ranked, |word, count| counts[word] == count);
    assert!(words.sorted(usize::MAX).into_iter().all(same));

    let mut group = c.benchmark_group("zipf words");
    group.throughput(Throughput::Elements(WORDS as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.bench_function("table", |b| {
        b.iter(|| {
            words.clear();
            words.count_words(black_box(&text));
            words.len()
        });
    });
    group.bench_function("plain loop", |b| {
        b.iter(|| {
            counts.clear();
            plain(black_box(&text), &mut counts);
            counts.len()
        });
    });
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
