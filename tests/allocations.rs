//! A word count written in the natural way allocates nothing for each record: it looks words up in place and copies each
//! when a batch first sees it. A counting allocator watches all threads.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidemill::testing::ManualClock;
use tidemill::{Config, Interval, StreamingContext};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FEW: usize = 1_000;
const MANY: usize = 20_000;
const WORDS_OF_A_LINE: usize = 5;
const VOCABULARY: usize = 700;
const WORKERS: usize = 2;

/// Lines over the vocabulary.
fn lines(count: usize) -> Vec<String> {
    let word = |number: usize| format!("word{}", number * 31 % VOCABULARY);
    let line = |line: usize| (0..WORDS_OF_A_LINE).map(|n| word(line * 5 + n)).collect::<Vec<_>>();
    (0..count).map(|number| line(number).join(" ")).collect()
}

#[test]
fn a_word_count_allocates_nothing_for_each_record() {
    let batches = [MANY, MANY, MANY, FEW, MANY, FEW, MANY, FEW, MANY];
    let config = Config::new("allocations").batch_interval(Interval::secs(1)).workers(WORKERS);
    let ctx = StreamingContext::with_clock(config, ManualClock::new()).expect("a context");
    let queue = batches.iter().map(|count| Some(lines(*count))).collect();
    ctx.queue_stream(queue, 4)
        .flat_map(|line: &String, out| out.extend(line.split_whitespace()))
        .count_by_value()
        .foreach_batch(|_, counts| {
            let mut words = 0;
            counts.for_each(|(_, count)| words += count);
            assert!(words % WORDS_OF_A_LINE as u64 == 0 && words > 0);
            Ok(())
        });
    let (mut few, mut many) = (usize::MAX, usize::MAX);
    for (number, count) in batches.iter().enumerate() {
        let region = Region::new(ALLOCATOR);
        ctx.run_batches(1).expect("the batch succeeds");
        let allocations = region.change().allocations;
        match *count {
            // The tables have reached their size.
            _ if number < 3 => {}
            FEW => few = few.min(allocations),
            _ => many = many.min(allocations),
        }
    }
    let words = (MANY - FEW) * WORDS_OF_A_LINE;
    // A worker copies a word when it first sees it in a batch; the system decides which workers take part.
    let copies = VOCABULARY * (WORKERS - 1);
    assert!(
        many < few + copies + 100,
        "{words} words more took {many} allocations instead of {few}"
    );
}
