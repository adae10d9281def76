//! Which files are the same: links, copies, files that were cut, moved, removed or replaced, compressed ones.

use super::catalog::Known;
use super::*;

/// Runs `steps` with both kinds of file systems: those that know when a file was made, and others.
fn with_and_without_births(steps: impl Fn(Tree)) {
    for unborn in [false, true] {
        let tree = Tree::default();
        tree.0.lock().unborn = unborn;
        steps(tree);
    }
}

#[test]
fn a_copy_that_took_the_place_of_a_file_is_passed_over() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("a", b"1\n");
    assert_eq!(rig.batch(), ["1"]);
    let changed = tree.changed("a", None);
    // The same name, size, time of change and bytes under another identity, at once and after it was removed for a while.
    for absent in [false, true] {
        if absent {
            tree.remove("a");
            rig.wait(60);
            assert_eq!(rig.batch(), [""; 0]);
        }
        tree.put("a", b"1\n");
        tree.changed("a", Some(changed));
        assert_eq!(rig.batch(), [""; 0]);
    }
    let why = "a: one of this name, size and time was read before";
    assert_eq!(rig.notes(), [why, why], "once for each time it came");
    tree.put("a", b"1\n");
    assert_eq!(rig.batch(), ["1"], "changed later: another file");
    tree.put("a", b"2\n");
    tree.changed("a", Some(changed));
    assert_eq!(rig.batch(), ["2"], "it has other bytes");
    assert_eq!(rig.notes(), [""; 0]);
}

#[test]
fn a_file_is_read_once_however_many_names_it_has() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("m", b"1\n");
    tree.link("m", "a-symbolic", true);
    tree.link("m", "z-hard", false);
    tree.link("m", ".hidden", false);
    tree.put("equal", b"1\n");
    assert_eq!(rig.batch(), ["1", "1"], "equal text in two files stays two files");
    tree.append("m", b"2\n");
    assert_eq!(rig.batch(), ["2"]);
    tree.remove("m");
    tree.append("z-hard", b"3\n");
    assert_eq!(rig.batch(), ["3"], "under its other name");
    assert_eq!(
        rig.notes(),
        [
            ".hidden: its name starts with `.`",
            "a-symbolic: it is the file `m`, which is read once",
            "z-hard: it is the file `m`, which is read once",
            "a-symbolic: it is the file `z-hard`, which is read once",
        ]
    );
}

#[test]
fn links_are_followed_unless_they_are_not_to_be() {
    let tree = Tree::default();
    tree.put("m", b"1\n");
    tree.link("m", "to", true);
    tree.remove("m");
    let rig = Rig::new(&tree, same, false);
    assert_eq!(rig.batch(), ["1"], "it leads out of the directory");
    let rig = Rig::new(&tree, |source| source.follow_links(false), false);
    assert_eq!(
        (rig.batch(), rig.notes()),
        (vec![], vec!["to: it is a link (`follow_links = false`)".to_owned()])
    );
}

#[test]
fn a_file_that_was_cut_is_read_from_its_start() {
    with_and_without_births(|tree| {
        let rig = Rig::new(&tree, same, false);
        tree.put("log", b"old\nold\nha");
        assert_eq!(rig.batch(), ["old", "old"]);
        tree.cut("log", 0);
        tree.append("log", b"new\n");
        assert_eq!((rig.batch(), rig.lost()), (vec!["new".to_owned()], 2));
        let cut = "log: it was cut to 4 bytes after 8 were read: read from its start; 2 bytes that were not read are lost";
        assert_eq!(rig.notes(), [cut]);
        // Cut and grown again beyond what was read, between two looks.
        tree.cut("log", 0);
        tree.append("log", b"a longer line than before\nand half of one");
        assert_eq!((rig.batch(), rig.lost()), (vec!["a longer line than before".to_owned()], 0));
        let other = "it is another file, or was cut and has grown again, since 4 bytes were read: read from its start";
        assert_eq!(rig.notes(), [format!("log: {other}")]);
        tree.cut("log", 30);
        assert_eq!((rig.batch(), rig.lost()), (vec![], 11));
        let unread = "log: it was cut to 30 bytes: 11 bytes that were not read are lost";
        assert_eq!(rig.notes(), [unread]);
    });
}

#[test]
fn a_file_that_is_cut_and_grows_behind_the_same_title_is_found_out() {
    with_and_without_births(|tree| {
        let title = format!("# {}\n", "a title of more than a fingerprint ".repeat(10));
        let rig = Rig::new(&tree, same, false);
        tree.put("log", format!("{title}1\n2\n3\n").as_bytes());
        assert_eq!(rig.batch()[1..], ["1", "2", "3"]);
        tree.cut("log", 0);
        tree.append("log", format!("{title}4\n5\n6\n7\n").as_bytes());
        assert_eq!(rig.batch()[1..], ["4", "5", "6", "7"]);
    });
}

#[test]
fn an_inode_that_is_used_again_is_another_file() {
    with_and_without_births(|tree| {
        let rig = Rig::new(&tree, |source| source.open_files_max(0), false);
        tree.put("a", b"1\n2\nhalf");
        assert_eq!(rig.batch(), ["1", "2"]);
        // A batch keeps its files open until the next one is planned.
        assert_eq!(rig.batch(), [""; 0]);
        let inode = tree.0.lock().node("a").inode;
        tree.remove("a");
        tree.put("b", b"3\n4\n5\n");
        assert_eq!(tree.0.lock().node("b").inode, inode, "the test is about this");
        assert_eq!((rig.batch(), rig.lost()), (["3", "4", "5"].map(str::to_owned).to_vec(), 4));
        assert_eq!(rig.notes().len(), 1);
    });
}

#[cfg(tidemill_planted)]
#[test]
fn planted_identities_are_found_out() {
    use crate::sync::planted::{Planted, with};
    let check = |defect, test: fn()| {
        let outcome = std::panic::catch_unwind(|| with(defect, test));
        assert!(outcome.is_err(), "{defect:?}");
    };
    check(Planted::IdentityIsInode, an_inode_that_is_used_again_is_another_file);
    check(Planted::IdentityIsInode, a_file_that_was_cut_is_read_from_its_start);
    check(Planted::LinkIsReadTwice, a_file_is_read_once_however_many_names_it_has);
}

#[test]
fn a_removed_file_is_read_to_its_end_and_then_closed() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("log", b"1\n");
    assert_eq!(rig.batch(), ["1"]);
    let node = tree.0.lock().node("log");
    tree.remove("log");
    let held = || rig.start.counters.removed_files_bytes.value();
    assert_eq!((rig.batch(), held()), (vec![], 2));
    // Whoever has it open writes on.
    let append = |text: &[u8]| {
        let mut inner = node.inner.lock();
        inner.bytes.extend_from_slice(text);
        inner.changed += 1;
    };
    append(b"2\n3\nha");
    assert_eq!((rig.batch(), held()), (vec!["2".to_owned(), "3".to_owned()], 8));
    rig.wait(59);
    assert_eq!((rig.batch(), rig.open()), (vec![], 1));
    append(b"lf");
    assert_eq!(rig.batch(), [""; 0]);
    rig.wait(60);
    assert_eq!(rig.batch(), ["half"], "its end completes its last line");
    assert_eq!(rig.batch(), [""; 0]);
    assert_eq!((rig.open(), held(), rig.lost(), rig.notes()), (0, 0, 0, vec![]));
    assert_eq!(rig.plan(), None, "it is forgotten");
}

#[test]
fn a_file_that_a_network_file_system_keeps_for_its_readers_is_a_removed_one() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("log", b"1\nhalf");
    assert_eq!(rig.batch(), ["1"]);
    tree.rename("log", ".nfs0000000000000001");
    assert_eq!(rig.batch(), [""; 0]);
    rig.wait(60);
    assert_eq!((rig.batch(), rig.batch()), (vec!["half".to_owned()], vec![]));
    assert_eq!((rig.open(), rig.notes()), (0, vec![]));
}

#[test]
fn a_moved_file_is_read_on_and_known_when_it_comes_back() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, |source| source.include(&["*.log"]).expect("a glob"), false);
    tree.put("a.log", b"1\n");
    assert_eq!(rig.batch(), ["1"]);
    // Rotated to a name that is not read: what was begun is read on.
    tree.rename("a.log", "a.log.1");
    tree.append("a.log.1", b"2\n");
    tree.put("b.log.1", b"no\n");
    assert_eq!(rig.batch(), ["2"]);
    tree.move_away("a.log.1");
    assert_eq!((rig.batch(), rig.open()), (vec![], 1));
    rig.wait(60);
    assert_eq!((rig.batch(), rig.open()), (vec![], 0));
    tree.move_back("a.log.1");
    tree.append("a.log.1", b"3\n");
    assert_eq!(rig.batch(), ["3"], "not from its start");
    assert_eq!((rig.lost(), rig.notes()), (0, vec![]));
}

#[test]
fn the_newest_files_stay_open_and_what_is_lost_of_others_is_told() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, |source| source.open_files_max(2), false);
    for name in ["a", "b", "c"] {
        tree.put(name, b"1\nhalf");
    }
    assert_eq!((rig.batch().len(), rig.open()), (3, 2));
    for name in ["a", "b", "c"] {
        tree.remove(name);
    }
    assert_eq!((rig.batch(), rig.open(), rig.lost()), (vec![], 2, 4));
    assert_eq!(rig.notes(), ["a: it is gone with 4 bytes unread"]);
    rig.wait(60);
    assert_eq!(rig.batch(), ["half", "half"]);
}

#[test]
fn a_directory_of_many_files_costs_nothing_while_they_stay_as_they_are() {
    let tree = Tree::default();
    for number in 0..2_000 {
        tree.put(&format!("{number:04}"), b"1\n");
    }
    for number in 0..1_000 {
        tree.put(&format!("{number:04}.gz"), b"\x1F\x8B\x08");
    }
    let rig = Rig::new(&tree, same, false);
    let batches: Vec<usize> = (0..4).map(|_| rig.batch().len()).collect();
    assert_eq!(batches.iter().sum::<usize>(), 2_000);
    let notes = rig.notes();
    assert_eq!(
        notes,
        [
            "0000.gz: its name is like `*.gz` (to read it, name it in `include`) (and so it is with 999 more files)"
        ]
    );
    let costs = || (tree.opens(), tree.reads());
    let before = costs();
    assert_eq!((rig.batch(), costs()), (vec![], before));
    tree.append("0007", b"2\n");
    assert_eq!(rig.batch(), ["2"]);
    let (opens, reads) = costs();
    assert!(
        opens <= before.0 + 2 && reads <= before.1 + 20,
        "{} {}",
        opens - before.0,
        reads - before.1
    );
}

#[test]
fn a_compressed_file_is_passed_over_whatever_it_is_called() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("old", b"\x1F\x8B\x08\0\n\n\n");
    tree.put("text", b"1\n");
    assert_eq!(rig.batch(), ["1"]);
    assert_eq!(rig.notes(), ["old: it is compressed (gzip), and is not read"]);
    let reads = tree.reads();
    assert_eq!((rig.batch(), tree.reads()), (vec![], reads));
    tree.append("old", b"\n\n");
    assert_eq!((rig.batch(), rig.notes()), (vec![], vec![]), "it was said");
    tree.remove("old");
    assert_eq!((rig.batch(), rig.lost(), rig.notes()), (vec![], 0, vec![]));
}

#[test]
fn what_was_known_and_never_planned_is_told_after_a_start() {
    let tree = Tree::default();
    tree.put("b", b"1\nhalf");
    tree.put("a", &b"1\n".repeat(100));
    let limits = |source: FilesSource| source.record_bytes_max(8).batch_bytes_max(20);
    let rig = Rig::new(&tree, limits, false);
    assert!(rig.batch().len() > 5);
    let position = rig.source.snapshot();
    drop(rig);
    let again = |gone: bool| {
        let rig = Rig::new(&tree, limits, false);
        rig.source.restore(&position).expect("a position");
        rig.source.start(&rig.start).expect("there");
        let lost = rig.source.lost_unplanned().expect("asked");
        let sum: u64 = lost.iter().map(Lost::amount).sum();
        assert_eq!((lost.len(), sum > 100), (usize::from(gone), gone), "{lost:?}");
        rig
    };
    again(false);
    tree.remove("a");
    tree.remove("b");
    let rig = again(true);
    assert_eq!(rig.batch(), [""; 0]);
    assert_eq!(rig.lost(), 4, "the start told of the other one");
    assert_eq!(rig.notes(), ["b: it is gone with 4 bytes unread"], "half a line is no record");
}

#[test]
fn a_file_that_moves_between_listing_and_opening_is_looked_for_again() {
    let check = |happens: fn(&Tree), expected: &[&str]| {
        let tree = Tree::default();
        let rig = Rig::new(&tree, |source| source.open_files_max(0), false);
        tree.put("a", b"1\n");
        tree.before_the_next_open(happens);
        let records = [rig.batch(), rig.batch()].concat();
        let warned = rig.notes().into_iter().filter(|note| note.contains("cannot be read"));
        assert_eq!((records.concat(), warned.count()), (expected.concat(), 0));
    };
    check(|tree| tree.remove("a"), &[]);
    check(|tree| tree.rename("a", "a.1"), &["1"]);
    let rotates = |tree: &Tree| {
        tree.rename("a", "a.1");
        tree.put("a", b"2\n");
    };
    check(rotates, &["1", "2"]);
}

#[test]
fn a_file_whose_name_cannot_be_looked_at_is_not_forgotten() {
    let known = Known::new(
        b"a",
        Stat { id: FileId { device: 1, inode: 1 }, born: None, size: 4, changed: 1 },
    );
    let seen = Catalog { files: HashMap::from([(known.stat.id, known)]), ..Catalog::default() };
    let look = |exclude: &[&str], follow_links: bool, what: What| {
        let entries = [Entry { name: b"a".to_vec(), is_link: true, what }];
        let (mut looked, mut open, mut notes) =
            (HashMap::new(), OpenFiles::new(1), Notes::default());
        let mut select = Select::default();
        select.exclude(exclude).expect("globs");
        let look = Look {
            tree: &Tree::default(),
            select: &select,
            follow_links,
            seen: &seen,
            looked: &mut looked,
            open: &mut open,
            notes: &mut notes,
            present: None,
            told: &HashSet::new(),
            now: ManualClock::new().now(),
            former: None,
            found: Found::default(),
        };
        let gone = look.take(&entries).gone.len();
        let said: String = notes.take(&entries).into_iter().map(|note| note.why).collect();
        (gone, said)
    };
    let away = || What::Unreadable("it is away".to_owned());
    let check = |exclude: &[&str], follow_links, what, gone: usize, said: &str| {
        assert_eq!(look(exclude, follow_links, what), (gone, said.to_owned()), "{exclude:?}");
    };
    check(&[], true, away(), 0, "it is away");
    check(&["a"], true, away(), 0, "");
    check(
        &[],
        false,
        away(),
        1,
        "it is a link (`follow_links = false`)it is gone with 4 bytes unread",
    );
    check(&["a"], true, What::Other, 1, "it is gone with 4 bytes unread");
}
