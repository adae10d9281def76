//! A stop takes the rest of removed files that are open.

use super::*;

/// The records that the batches of a stop take, and the bytes of removed files that are left then.
fn stop(rig: &Rig) -> (Vec<String>, u64) {
    let mut records = Vec::new();
    while let Some(plan) = rig.source.plan_perishing(Time::from_millis(0)).expect("planned") {
        records.extend(rig.read(&plan).expect("readable").0);
        rig.source.committed(&plan);
    }
    (records, rig.source.perishes())
}

#[test]
fn a_stop_takes_the_rest_of_removed_files() {
    let check = |before: &[u8], more: &[u8], removed: bool, expected: &[&str], perishes: u64| {
        let tree = Tree::default();
        let rig = Rig::new(&tree, |source| source.batch_bytes_max(4), false);
        tree.put("a", before);
        tree.put("stays", b"x\ny");
        while !rig.batch().is_empty() {}
        tree.append("a", more);
        tree.append("stays", b"z\n");
        if removed {
            tree.remove("a");
        }
        assert_eq!(rig.source.perishes(), perishes, "{before:?} {more:?}");
        let expected = expected.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(stop(&rig), (expected, 0), "{before:?} {more:?}");
    };
    check(b"one\n", b"", true, &[], 0);
    check(b"one\n", b"two\nthree\n", true, &["two", "three"], 10);
    check(b"one\n", b"two\nthree\n", false, &[], 0);
    check(b"one\nTAIL", b"", true, &["TAIL"], 4);
    check(b"one\nTAIL", b"", false, &[], 0);
    check(b"TAIL", b"", true, &["TAIL"], 4);
    check(b"one\nTA", b"IL\nx", true, &["TAIL", "x"], 6);
    check(b"\x1F\x8B\x08\0", b"", true, &[], 0);
}

#[test]
fn a_stop_takes_what_a_network_file_system_keeps_for_its_readers() {
    let check = |to: &str, expected: &[&str], perishes: u64| {
        let tree = Tree::default();
        let rig = Rig::new(&tree, same, false);
        tree.put("a", b"one\n");
        assert_eq!(rig.batch(), ["one"]);
        tree.append("a", b"two\nTAIL");
        tree.rename("a", to);
        assert_eq!(rig.source.perishes(), perishes, "{to}");
        let expected = expected.iter().map(|r| (*r).to_owned()).collect();
        assert_eq!(stop(&rig), (expected, 0), "{to}");
    };
    check(".nfs0000000000000001", &["two", "TAIL"], 8);
    check(".fuse_hidden00000001", &["two", "TAIL"], 8);
    check("a.1", &[], 0);
}

#[test]
fn what_a_stop_cannot_take_of_removed_files_is_known() {
    let tree = Tree::default();
    let rig = Rig::new(&tree, same, false);
    tree.put("a", b"one\n");
    assert_eq!(rig.batch(), ["one"]);
    tree.append("a", b"two\n");
    tree.remove("a");
    tree.fail_next();
    assert_eq!(stop(&rig), (vec![], 4));
    assert_eq!(rig.notes(), ["a: it cannot be read: a bad sector"]);
}
