//! The jobs that a pipeline file can name, each over a batch and over windows.

use super::*;
use crate::settings::pattern::Pattern;
use crate::stream::jobs::distinct::Distinct;
use crate::stream::jobs::grep::Grep;
use crate::stream::jobs::latency::Latency;
use crate::stream::jobs::lines::Lines;
use crate::stream::jobs::topk::TopK;
use crate::stream::jobs::{Count, JobOptions, JobOutput, Window, WordCount, matching};

/// The rows of a built-in job over blocks of lines, as `word count` texts.
fn builtin(job: &dyn JobOptions, filter: Option<&str>, blocks: &[&[&[u8]]]) -> Vec<String> {
    let (rig, memory) = (Rig::new(2), Memory::new());
    let (stream, handle) = (rig.graph.blocks(0, "in"), memory.handle());
    let records = filter.map_or_else(|| stream.clone(), |text| matching(&stream, &pattern(text)));
    job.attach(&records, JobOutput::of_batches("job", vec![SharedSink::new(memory)]));
    rig.run(&rig.input(0, blocks.iter().map(|ranges| block(ranges)).collect()))
        .expect("the batch succeeds");
    let text = |cell: &OwnedCell| match cell {
        OwnedCell::Text(text) => text.clone(),
        other => format!("{other:?}"),
    };
    let row = |cells: &Vec<OwnedCell>| cells.iter().map(text).collect::<Vec<_>>().join(" ");
    handle.rows()[0].1.iter().map(row).collect()
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).expect("a pattern")
}

#[test]
fn builtin_jobs() {
    let blocks: &[&[&[u8]]] = &[&[b"b a\nc  c\r\n", b"\n"], &[b"a b z\n"]];
    let grep = |text| Grep { pattern: pattern(text) };
    let topk =
        |n, field, separator: Option<&str>| TopK { n, field, separator: separator.map(Into::into) };
    assert_eq!(builtin(&Count, None, blocks), ["U64(4)"]);
    assert_eq!(builtin(&Count, Some("a"), blocks), ["U64(2)"]);
    assert_eq!(builtin(&Count, None, &[]), ["U64(0)"]);
    assert_eq!(builtin(&Lines, None, blocks), ["b a", "c  c", "", "a b z"]);
    assert_eq!(builtin(&grep("^a|^c"), None, blocks), ["c  c", "a b z"]);
    assert_eq!(builtin(&grep("z"), Some("a"), blocks), ["a b z"]);
    assert_eq!(builtin(&WordCount, None, blocks), ["a U64(2)", "b U64(2)", "c U64(2)", "z U64(1)"]);
    assert_eq!(builtin(&WordCount, Some("a"), blocks), ["a U64(2)", "b U64(2)", "z U64(1)"]);
    assert_eq!(builtin(&WordCount, None, &[]), [""; 0]);
    let stamped: &[&[&[u8]]] = &[&[b"0 a\n0 b\nc\n"]];
    let zeros =
        ["p50_us U64(0)", "p95_us U64(0)", "p99_us U64(0)", "p99.9_us U64(0)", "max_us U64(0)"];
    assert_eq!(builtin(&Latency, Some("^0"), stamped), zeros);
    assert_eq!(builtin(&Latency, None, stamped)[5..], ["unstamped U64(1)"]);
    assert_eq!(builtin(&Latency, None, &[]), [""; 0]);
    let twice: &[&[&[u8]]] = &[&[b"b a\nc  c\r\n", b"\n"], &[b"a b z\nb a\n\n"], &[b"b a\n"]];
    assert_eq!(builtin(&Distinct, None, twice), ["", "a b z", "b a", "c  c"]);
    assert_eq!(builtin(&Distinct, Some("a"), twice), ["a b z", "b a"]);
    assert_eq!(builtin(&Distinct, Some("none"), twice), [""; 0]);
    assert_eq!(builtin(&Distinct, None, &[]), [""; 0]);
    assert_eq!(builtin(&topk(2, None, None), None, blocks), ["a U64(2)", "b U64(2)"]);
    assert_eq!(
        builtin(&topk(9, Some(2), None), None, blocks),
        ["a U64(1)", "b U64(1)", "c U64(1)"]
    );
    assert_eq!(builtin(&topk(9, Some(3), None), None, blocks), ["z U64(1)"]);
    assert_eq!(builtin(&topk(9, Some(2), Some(" ")), None, blocks), ["a U64(1)", "b U64(1)"]);
    assert_eq!(
        builtin(&topk(9, Some(2), Some("::")), None, &[&[b"x::y::z\nx\nq::\n"]]),
        ["y U64(1)"]
    );
}

/// A sink to which only the first rows of a batch make a difference.
struct Few(usize, Memory);

impl Sink for Few {
    fn rows_max(&self) -> usize {
        self.0
    }

    fn committed(&mut self, key: &CommitKey) -> crate::error::Result<bool> {
        self.1.committed(key)
    }

    fn write(
        &mut self,
        key: &CommitKey,
        meta: &BatchMeta,
        rows: &Rows,
    ) -> crate::error::Result<()> {
        self.1.write(key, meta, rows)
    }

    fn commit(&mut self, key: &CommitKey) -> crate::error::Result<()> {
        self.1.commit(key)
    }
}

/// The rows of a built-in job over a window of three seconds every two, for the batches at the given seconds, in a sink
/// that looks at this many of them.
fn builtin_window(
    job: &dyn JobOptions,
    rows_max: usize,
    batches: &[(u64, &[u8])],
) -> Vec<(u64, Vec<String>)> {
    let (rig, memory) = (Rig::new(2), Memory::new());
    let (stream, handle) = (rig.graph.blocks(0, "in"), memory.handle());
    let window = Some(Window { length: Interval::secs(3), slide: Interval::secs(2) });
    let sinks = vec![SharedSink::new(Few(rows_max, memory))];
    job.attach(&stream, JobOutput { name: "job", window, sinks });
    rig.graph.begin(Time::from_millis(1_000));
    for (second, text) in batches {
        let input = rig.input(second - 1, vec![block(&[text])]);
        rig.run(&input).expect("the batch succeeds");
        rig.commit();
    }
    let text = |cell: &OwnedCell| match cell {
        OwnedCell::Text(text) => text.clone(),
        OwnedCell::U64(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let row = |cells: &Vec<OwnedCell>| cells.iter().map(text).collect::<Vec<_>>().join(" ");
    let rows = handle.rows();
    rows.iter()
        .map(|(time, rows)| (time.as_millis() / 1_000, rows.iter().map(row).collect()))
        .collect()
}

#[test]
fn builtin_jobs_over_windows() {
    let check = |job: &dyn JobOptions, batches: &[(u64, &[u8])], expected: &[(u64, &[&str])]| {
        let found = builtin_window(job, usize::MAX, batches);
        let found: Vec<(u64, Vec<&str>)> = found
            .iter()
            .map(|(at, rows)| (*at, rows.iter().map(String::as_str).collect()))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(at, rows)| (*at, rows.to_vec())).collect();
        assert_eq!(found, expected, "{job:?}");
    };
    let batches: &[(u64, &[u8])] =
        &[(1, b"a b\n"), (2, b"b\n"), (3, b"c b\n"), (4, b""), (5, b"d\n"), (6, b"")];
    check(&Count, batches, &[(2, &["2"]), (4, &["2"]), (6, &["1"])]);
    check(&Lines, batches, &[(2, &["a b", "b"]), (4, &["b", "c b"]), (6, &["d"])]);
    let grep = Grep { pattern: pattern("b") };
    check(&grep, batches, &[(2, &["a b", "b"]), (4, &["b", "c b"]), (6, &[])]);
    let words: &[(u64, &[&str])] = &[(2, &["b 2", "a 1"]), (4, &["b 2", "c 1"]), (6, &["d 1"])];
    check(&WordCount, batches, words);
    let top = TopK { n: 1, field: None, separator: None };
    check(&top, batches, &[(2, &["b 2"]), (4, &["b 2"]), (6, &["d 1"])]);
    let field = TopK { n: 9, field: Some(2), separator: None };
    check(&field, batches, &[(2, &["b 1"]), (4, &["b 1"]), (6, &[])]);
    // The `b` of the first two batches leaves before the one of the third; an empty record is a record.
    check(&Distinct, batches, &[(2, &["a b", "b"]), (4, &["b", "c b"]), (6, &["d"])]);
    let again: &[(u64, &[u8])] =
        &[(1, b"b\n\na\nb\n"), (2, b"b\n"), (3, b"b\n"), (4, b""), (5, b"a\n"), (6, b""), (8, b"")];
    check(&Distinct, again, &[(2, &["", "a", "b"]), (4, &["b"]), (6, &["a"]), (8, &[])]);
    let zeros = ["p50_us 0", "p95_us 0", "p99_us 0", "p99.9_us 0", "max_us 0"];
    let stamped: &[(u64, &[u8])] = &[(1, b"0 a\n"), (2, b""), (4, b"x\n"), (6, b"")];
    check(&Latency, stamped, &[(2, &zeros), (4, &["unstamped 1"]), (6, &["unstamped 1"])]);

    // The ticks at 2 s and 3 s were missed: a window is a length of time, and the slide that fell due is made up for.
    let missed: &[(u64, &[u8])] = &[(1, b"a\n"), (3, b"b\nb\n"), (4, b"c\n"), (9, b"d\n")];
    check(&Count, missed, &[(3, &["3"]), (4, &["3"]), (9, &["1"])]);
}

#[test]
fn a_wordcount_over_a_window_ranks_the_rows_that_its_sinks_look_at() {
    let batches: &[(u64, &[u8])] = &[(1, b"b a\nd c a\n"), (2, b"c b e c\n"), (4, b"e\n")];
    let all: [&[&str]; 2] = [&["c 3", "a 2", "b 2", "d 1", "e 1"], &["c 2", "e 2", "b 1"]];
    for rows_max in [0, 1, 2, 3, 4, 5, 6, usize::MAX] {
        let found = builtin_window(&WordCount, rows_max, batches);
        let first = |rows: &[&str]| rows[..rows_max.min(rows.len())].join(",");
        let found: Vec<_> = found.iter().map(|(at, rows)| (*at, rows.join(","))).collect();
        assert_eq!(found, [(2, first(all[0])), (4, first(all[1]))], "{rows_max}");
    }
}

#[test]
fn distinct_records_are_bytes() {
    let rig = Rig::new(2);
    let stream = rig.graph.blocks(0, "in");
    let (batches, windows) = (stream.distinct().collect(), Memory::new());
    let rows = windows.handle();
    let window = Some(Window { length: Interval::secs(2), slide: Interval::secs(1) });
    let sinks = vec![SharedSink::new(windows)];
    Distinct.attach(&stream, JobOutput { name: "job", window, sinks });
    rig.graph.begin(Time::from_millis(1_000));
    let input =
        rig.input(0, vec![block(&[b"\xFF\n\xC3\n\xFE\xFF\n"]), block(&[b"\xC3\nz\n\xFF\n"])]);
    rig.run(&input).expect("the batch succeeds");
    let expected: [&[u8]; 4] = [b"z", b"\xC3", b"\xFE\xFF", b"\xFF"];
    assert_eq!(batches.rows()[0].1, expected);
    // As text the last three are replacements, and still three rows.
    let lossy = expected.map(|record| String::from_utf8_lossy(record).into_owned());
    let lossy: Vec<_> = lossy.into_iter().map(|text| vec![OwnedCell::Text(text)]).collect();
    assert_eq!(rows.rows()[0].1, lossy);
}

/// What a window of distinct records keeps after this batch, in bytes.
fn distinct_bytes(batch: &[u8]) -> u64 {
    let rig = Rig::new(2);
    let window = Some(Window { length: Interval::secs(3), slide: Interval::secs(1) });
    let output = JobOutput { window, ..JobOutput::of_batches("job", vec![]) };
    Distinct.attach(&rig.graph.blocks(0, "in"), output);
    rig.graph.begin(Time::from_millis(1_000));
    let input = rig.input(0, vec![block(&[batch])]);
    rig.run(&input).expect("the batch succeeds");
    rig.commit();
    rig.graph.kept_parts().iter().map(|part| part.bytes).sum()
}

#[test]
fn a_window_of_distinct_records_keeps_each_once() {
    let (once, often) = (distinct_bytes(b"a\nbb\n"), distinct_bytes(&b"bb\na\n".repeat(10_000)));
    assert!(once > 0);
    assert_eq!(once, often);
}

#[test]
fn words_of_framed_records_do_not_see_the_headers() {
    let rig = Rig::new(2);
    let collected = rig.graph.blocks(0, "in").wordcount().collect();
    let bytes = Bytes::from_static(b"3 a b4 c\nb ");
    let range = Range::new(bytes, 2);
    let id = BlockId { source: 0, number: 0 };
    let framed = Arc::new(Block::new(id, Framing::OctetCounted, vec![range]));
    rig.run(&rig.input(0, vec![framed])).unwrap();
    let row = |word: &str, count| (word.as_bytes().to_vec(), count);
    assert_eq!(collected.rows()[0].1, [row("b", 2), row("a", 1), row("c", 1)]);
}
