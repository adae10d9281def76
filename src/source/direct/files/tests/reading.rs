//! Reading files, and reading a plan whose file changes under it.

use proptest::prelude::*;

use super::*;

#[test]
fn new_files_are_read_once_in_the_order_of_their_changes() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    assert_eq!(rig.plan(), None);
    tree.put("b", b"1\n2\n");
    tree.put("a", b"3\n");
    assert_eq!(rig.batch(), ["1", "2", "3"]);
    assert_eq!(rig.plan(), None);
    tree.put(".c.open", b"4\n");
    assert_eq!(rig.batch(), [""; 0]);
    tree.rename(".c.open", "c");
    assert_eq!(rig.batch(), ["4"]);
    assert_eq!(rig.notes(), [".c.open: its name starts with `.`"]);
}

#[test]
fn a_growing_file_is_read_on_up_to_its_last_whole_line() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("log", b"a\nb");
    assert_eq!(rig.batch(), ["a"]);
    let (reads, opens) = (tree.reads(), tree.opens());
    assert_eq!(rig.batch(), [""; 0]);
    assert_eq!(rig.batch(), [""; 0]);
    let more = (tree.reads() - reads, tree.opens() - opens);
    assert_eq!(more, (0, 0), "a file that did not change is neither read nor opened again");
    tree.append("log", b"c\n\nd\n");
    tree.rename("log", "log.1");
    tree.put("log", b"e\n");
    assert_eq!(rig.batch(), ["bc", "", "d", "e"], "the rotated one is the same, the other new");
    tree.append("log.1", b"f\n");
    assert_eq!(rig.batch(), ["f"]);
    assert_eq!(rig.notes(), [""; 0]);
}

#[test]
fn what_is_passed_over_is_said_once() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    for name in ["x.tmp", "x.part", "x.partial", "x.swp", "x~", ".x", "x.log"] {
        tree.put(name, b"1\n");
    }
    assert_eq!(rig.batch(), ["1"]);
    let temporary = ["x.part", "x.partial", "x.swp", "x.tmp", "x~"].map(|name| {
        format!("{name}: its name is like `*{}` (to read it, name it in `include`)", &name[1..])
    });
    let mut expected = vec![".x: its name starts with `.`".to_owned()];
    expected.extend(temporary);
    assert_eq!(rig.notes(), expected);
    assert_eq!((rig.batch(), rig.notes()), (vec![], vec![]));
}

#[test]
fn a_batch_is_bounded_and_every_file_has_its_turn() {
    let tree = Tree::default();
    let record = vec![b'x'; 1 << 20];
    let big = [record.as_slice(), b"\n"].concat().repeat(12);
    tree.put("big", &big);
    tree.put("small", b"1\n");
    let rig = Rig::new(&tree, |source| source.batch_bytes_max(6 << 20), false);
    let plan = rig.plan().expect("there are files");
    let (records, partitions) = rig.read(&plan).expect("readable");
    assert!(records.contains(&"1".to_owned()), "the big file does not hold up the small one");
    assert!((3..=8).contains(&records.len()) && partitions >= 2, "{} {partitions}", records.len());
    let mut all = records.len();
    while let Some(plan) = rig.plan() {
        all += rig.read(&plan).expect("readable").0.len();
    }
    assert_eq!(all, 13);
}

#[test]
fn a_run_to_the_end_takes_what_was_there_at_its_start() {
    let tree = Tree::default();
    tree.put("a", b"1\n2");
    tree.put("empty", b"");
    let rig = Rig::new(&tree, same, true);
    assert!(rig.source.is_ending(), "it is so little that it needs no tick");
    tree.put("late", b"4\n");
    tree.append("a", b"3\n");
    assert_eq!(rig.batch(), ["1", "2"], "the last line ends where the file ended");
    assert_eq!(rig.plan(), None);
    assert!(rig.source.is_ending());
}

#[test]
fn over_long_lines_are_dropped_wherever_they_end() {
    let check = |bytes: &[u8], until_eof: bool, expected: &[&str], overlong: u64| {
        let tree = Tree::default();
        tree.put("f", bytes);
        let limits = |source: FilesSource| source.record_bytes_max(3).batch_bytes_max(8);
        let rig = Rig::new(&tree, limits, until_eof);
        let mut found = Vec::new();
        for _ in 0..20 {
            found.extend(rig.batch());
        }
        let counted = rig.start.counters.overlong.value();
        assert_eq!(
            (found, counted),
            (expected.iter().map(|r| (*r).to_owned()).collect(), overlong)
        );
        if overlong > 0 {
            let told = rig.tallies.recv().expect("told");
            assert!(told.ends_with("of file `f` (record_bytes_max = 3), dropped"), "{told}");
        }
    };
    let long = "y".repeat(100);
    check(b"abc\nabcd\nef\n", false, &["abc", "ef"], 1);
    check(format!("a\n{long}\nb\n").as_bytes(), false, &["a", "b"], 1);
    check(format!("{long}\n{long}\nb").as_bytes(), true, &["b"], 2);
    check(format!("a\n{long}").as_bytes(), true, &["a"], 1);
    check(format!("a\n{long}").as_bytes(), false, &["a"], 1);
    check(b"\n\nabc", true, &["", "", "abc"], 0);
}

#[test]
fn a_malformed_frame_ends_a_file_and_no_other() {
    let tree = Tree::default();
    tree.put("bad", b"1 a1 bxyz");
    tree.put("good", b"2 cd");
    let rig = Rig::new(&tree, |source| source.framing(Framing::OctetCounted), false);
    let mut records = [rig.batch(), rig.batch(), rig.batch()].concat();
    records.sort();
    assert_eq!(records, ["a", "b", "cd"]);
    tree.append("bad", b"1 z");
    assert_eq!(rig.batch(), [""; 0]);
    assert_eq!(
        rig.notes(),
        ["bad: the frame at byte 6 is malformed: the rest, up to byte 9, is not read"]
    );
}

#[test]
fn a_plan_is_read_whatever_becomes_of_its_file() {
    let tree = Tree::default();
    tree.put("a", b"1\n2\n");
    let rig = Rig::new(&tree, same, false);
    let plan = rig.plan().expect("a file");
    tree.rename("a", "b");
    assert_eq!(rig.read(&plan).expect("open").0, ["1", "2"]);
    // A restart: the same plan, the file under another name.
    let again = Rig::new(&tree, same, false);
    assert_eq!(again.read(&plan).expect("found by its identity").0, ["1", "2"]);
    tree.remove("b");
    assert_eq!(rig.read(&plan).expect("still open").0, ["1", "2"]);
    let text = again.read(&plan).expect_err("gone").to_string();
    let place = "source `f`: bytes 0 to 4 of file `a` cannot be read: it is gone";
    assert_eq!(text, place);
}

#[test]
fn what_is_lost_is_known_without_reading_and_skipped_where_that_is_allowed() {
    let tree = Tree::default();
    for name in ["a", "b", "c", "d"] {
        tree.put(name, b"1\n2\n");
    }
    let rig = Rig::new(&tree, same, false);
    let plan = rig.plan().expect("files");
    tree.append("d", b"3\n");
    let again = Rig::new(&tree, same, false);
    let other = again.plan().expect("files");
    assert_eq!(again.source.lost(&[&plan, &other]).expect("asked"), [vec![], vec![]]);
    tree.remove("a");
    tree.cut("b", 3);
    tree.rename("c", "e");
    let lost = again.source.lost(&[&plan, &other]).expect("asked");
    let text = |lost: &Vec<Lost>| lost.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = [
        "bytes 0 to 4 of file `a` cannot be read: it is gone",
        "bytes 0 to 4 of file `b` cannot be read: it ends at byte 3 now",
    ];
    assert_eq!(
        (text(&lost[0]), text(&lost[1])),
        (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec())
    );
    // What a task is told is the same; the files of its own plan are still open.
    let later = Rig::new(&tree, same, false);
    let read = |rig: &Rig| {
        let (mut records, mut lost) = (0, Vec::new());
        for partition in rig.source.read(&plan).expect("a plan") {
            let mut take = |range: Lost| {
                lost.push(range.to_string());
                Ok(())
            };
            partition.for_each_range(&mut |_, count| records += count, &mut take).expect("skipped");
        }
        (records, lost)
    };
    assert_eq!(read(&later), (4, expected.map(str::to_owned).to_vec()));
    assert_eq!(read(&rig), (6, vec![expected[1].to_owned()]));
}

#[test]
fn batches_keep_their_files_open_and_no_more_than_they_may() {
    let tree = Tree::default();
    for number in 0..30 {
        tree.put(&format!("{number:02}"), b"1\n");
    }
    let limits = |source| FilesSource { held_max: 10, open_files_max: 0, ..source };
    let rig = Rig::new(&tree, limits, false);
    let held = || {
        let state = rig.source.state.lock();
        state.started.as_ref().expect("started").reading.held.load(crate::sync::Ordering::SeqCst)
    };
    let plan = rig.plan().expect("files");
    let partitions = rig.source.read(&plan).expect("a plan");
    for number in 0..30 {
        tree.remove(&format!("{number:02}"));
        tree.put(&format!("{number:02}"), b"2\n");
    }
    assert_eq!(held(), 10);
    assert_eq!(rig.plan().map(|plan| rig.read(&plan).expect("readable").0.len()), Some(0));
    let mut records = 0;
    for partition in &partitions {
        let mut refuse = |lost: Lost| panic!("{lost}");
        partition.for_each_range(&mut |_, count| records += count, &mut refuse).expect("open");
    }
    assert_eq!(records, 10);
    drop(partitions);
    assert_eq!(held(), 0);
    assert_eq!(rig.batch(), ["2"; 10]);
}

#[test]
fn bytes_that_are_not_there_any_more_fail_the_batch() {
    let tree = Tree::default();
    tree.put("a", b"1\n2\n");
    let rig = Rig::new(&tree, same, false);
    let plan = rig.plan().expect("a file");
    tree.cut("a", 3);
    let text = rig.read(&plan).expect_err("cut").to_string();
    assert!(text.contains("`a` cannot be read: it ends at byte 3 now"), "{text}");
    tree.append("a", b"xyz\n");
    let text = rig.read(&plan).expect_err("changed").to_string();
    assert!(text.contains("it was changed since it was planned"), "{text}");
}

#[test]
fn a_read_that_fails_is_an_error_and_the_next_one_may_work() {
    let tree = Tree::default();
    tree.put("a", b"1\n2\n");
    let rig = Rig::new(&tree, same, false);
    let plan = rig.plan().expect("a file");
    tree.fail_next();
    assert!(rig.read(&plan).expect_err("broken").to_string().contains("a bad sector"));
    assert_eq!(rig.read(&plan).expect("whole again").0, ["1", "2"]);
    // While it is planned, the file is left for the next tick.
    tree.append("a", b"3\n");
    tree.fail_next();
    assert_eq!(rig.plan(), None);
    assert_eq!(rig.notes(), ["a: it cannot be read: a bad sector"]);
    assert_eq!(rig.batch(), ["3"]);
}

#[test]
fn a_directory_that_cannot_be_listed_is_an_error_with_a_remedy() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    let check = |kind, hint: &str| {
        tree.0.lock().broken = Some(kind);
        let text = rig.source.plan(Time::from_millis(0)).expect_err("broken").to_string();
        let start = rig.source.start(&rig.start).expect_err("broken").to_string();
        assert!(text.starts_with("cannot list the directory in") && text.contains(hint), "{text}");
        assert_eq!(text, start);
    };
    check(io::ErrorKind::NotFound, "make it");
    check(io::ErrorKind::PermissionDenied, "chmod");
    check(io::ErrorKind::NotADirectory, "must name a directory");
    rig.tree.0.lock().broken = None;
    tree.put("a", b"1\n");
    assert_eq!(rig.batch(), ["1"]);
}

#[test]
fn bytes_of_something_else_are_refused() {
    let rig = Rig::new(&Tree::default(), same, false);
    for bytes in [&b"\xff\xff\xff\xff\xff"[..], b"", b"\x05"] {
        assert!(rig.source.read(bytes).is_err() && rig.source.planned(bytes).is_err());
        assert!(rig.source.restore(bytes).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// Wherever pieces are cut: the records of a file are those of its framing's reference, in order.
    #[test]
    fn pieces_hold_whole_records(
        framing in prop::sample::select(vec![Framing::Lines, Framing::OctetCounted, Framing::Syslog, Framing::U32]),
        lengths in prop::collection::vec(0..40usize, 0..40),
        max in 1..30usize,
        batch in 1..100u64,
    ) {
        let record = |length: &usize| "<".to_owned() + &"x".repeat(*length);
        let frame = |record: String| match framing {
            Framing::Lines => (record + "\n").into_bytes(),
            Framing::Syslog if record.len().is_multiple_of(2) => (record + "\n").into_bytes(),
            Framing::U32 => [&u32::try_from(record.len()).expect("short").to_be_bytes()[..], record.as_bytes()].concat(),
            _ => format!("{} {record}", record.len()).into_bytes(),
        };
        let records: Vec<String> = lengths.iter().map(record).collect();
        let tree = Tree::default();
        tree.put("f", &records.iter().cloned().flat_map(frame).collect::<Vec<u8>>());
        let rig = Rig::new(&tree, |source| source.framing(framing).record_bytes_max(max).batch_bytes_max(batch), false);
        let mut found = Vec::new();
        for _ in 0..200 {
            found.extend(rig.batch());
        }
        let expected: Vec<String> = records.iter().filter(|record| record.len() <= max).cloned().collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(rig.start.counters.overlong.value(), records.iter().filter(|record| record.len() > max).count() as u64);
    }
}
