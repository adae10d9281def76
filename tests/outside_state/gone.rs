//! Output that is gone while nothing runs, or is from another moment: a start reports the missing parts and the remedy.

use crate::owners::Step::{
    Absent, CopyAll, Cut, Expect, Inspect, Keys, Lose, MakeEmpty, Move, MoveAsSaid, Name, Refused,
    Remove, Run, Said, Sink,
};
use crate::owners::{APPEND, ROLL, Step, check};

/// The message of a start if two commits are gone, with the ways out.
const GONE: &[&str] = &[
    "out holds nothing of the state directory s (identity ",
    "which made 2 commits there: the directory was removed, moved away or emptied",
    "Put the output back, hidden files too.",
    "give the sink another directory, or set `existing = \"append\"`",
];

const WITHOUT: &str = "out: 2 commits of this state directory are not there any more";

/// Two commits, this deed, and a start that is refused; then the rest.
fn check_gone(deed: &[Step], rest: &[Step]) {
    for sink in ["", ROLL] {
        let steps = [Run("s", "out", &["one"]), Run("s", "out", &["two"])];
        let refused = [Refused("s", "out", GONE), Refused("s", "out", GONE)];
        check(sink, &[&steps, deed, &refused, rest].concat());
    }
}

#[test]
fn a_directory_that_is_gone_is_missed_until_it_is_back() {
    let back = [
        Absent("out"),
        Move("away", "out"),
        Run("s", "out", &["three"]),
        Expect(&["out"], &["one", "three", "two"]),
    ];
    check_gone(&[Move("out", "away")], &back);
}

#[test]
fn a_directory_that_is_gone_is_gone_on_without() {
    let elsewhere = [
        Run("s", "out2", &["three"]),
        Said(&[
            "out before, and writes to ",
            "out: it is not there, so nothing of it was finished",
        ]),
        Expect(&["out2"], &["three"]),
        // The missing parts are reported once more when the sink comes back.
        Run("s", "out", &["four"]),
        Said(&[WITHOUT]),
        Run("s", "out", &["five"]),
        Expect(&["out"], &["five", "four"]),
    ];
    check_gone(&[Remove("out")], &elsewhere);
    // An empty directory in its place has the same effect.
    let appended = [
        Sink(APPEND),
        Run("s", "out", &[]),
        Said(&[WITHOUT]),
        // The loss is known from now on, even if no batch came.
        Sink(""),
        Run("s", "out", &["three"]),
        Expect(&["out"], &["three"]),
    ];
    check_gone(&[Remove("out"), MakeEmpty("out")], &appended);
}

#[test]
fn a_directory_that_is_gone_is_the_same_by_another_path() {
    for path in ["s/../out", "in/../out", "in/it/../../out"] {
        let refused = Refused("s", path, &GONE[1..]);
        check_gone(&[Remove("out")], &[refused, Absent("out"), Absent("in")]);
        let there = [Run("s", path, &["three"]), Expect(&["out"], &["one", "three", "two"])];
        check("", &[&[Run("s", "out", &["one"]), Run("s", "out", &["two"])], &there[..]].concat());
    }
}

#[test]
fn a_copy_from_before_the_output_was_gone_is_an_older_one() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                CopyAll("out", "copy"),
                Remove("out"),
                Sink(APPEND),
                Run("s", "out", &["two"]),
                Sink(sink),
                Run("s", "out", &["three"]),
                CopyAll("out", "last"),
                CopyAll("copy", "out"),
                Refused(
                    "s",
                    "out",
                    &["is older than what it wrote there last, with 2 commits", "an older copy"],
                ),
                CopyAll("last", "out"),
                Run("s", "out", &["four"]),
                Expect(&["out"], &["four", "three", "two"]),
            ],
        );
    }
}

#[test]
fn as_many_commits_as_there_were_are_not_the_same_ones() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                CopyAll("out", "copy"),
                Run("s", "out", &["two"]),
                CopyAll("out", "other"),
                CopyAll("copy", "out"),
                Refused("s", "out", &["out holds 1 commit of", "which made 2 there"]),
                Sink(APPEND),
                Run("s", "out", &["three"]),
                Sink(sink),
                Run("s", "out", &[]),
                CopyAll("other", "out"),
                Refused(
                    "s",
                    "out",
                    &[
                        "out does not hold batch ",
                        "of job `lines`, the newest commit of",
                        "an older copy",
                    ],
                ),
            ],
        );
    }
}

#[test]
fn a_sink_may_move_with_its_directory_and_back() {
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                Move("out", "other"),
                Run("s", "other", &["two"]),
                Said(&["out before, and writes to "]),
                Move("other", "out"),
                Refused("s", "other", &["other holds nothing of", "made 2 commits there"]),
                Run("s", "out", &["three"]),
                Expect(&["out"], &["one", "three", "two"]),
            ],
        );
    }
}

#[test]
fn a_loss_that_is_accepted_says_what_outputs_need() {
    const APPENDED: &str = "has `existing = \"append\"`, or another place";
    for sink in ["", ROLL] {
        check(
            sink,
            &[
                Run("s", "out", &["one"]),
                Run("s", "out", &["two"]),
                Lose("s", "checkpoint-"),
                Lose("s", "wal-000000000002"),
                Inspect(&["s", "--accept-loss"], &["given up: ", APPENDED]),
                Refused("s", "out", &["knows nothing of", "`inspect --accept-loss`", "\"append\""]),
                Sink(APPEND),
                Run("s", "out", &["three"]),
                Expect(&["out"], &["one", "three", "two"]),
            ],
        );
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_that_is_gone_or_empty_is_missed() {
    use crate::owners::Step::{Copy, Rows};

    const TABLE: &str = "table = 'rows'";
    const TABLE_APPEND: &str = "table = 'rows'\nexisting = 'append'";
    const REFUSED: Step = Refused(
        "s",
        "a.db",
        &[
            "the table `rows` in a.db holds nothing of the state directory s",
            "which made 2 commits there: the database was removed, moved away or emptied",
            "Put the output back.",
            "another table or database, or set `existing = \"append\"`",
        ],
    );
    let begun = [Run("s", "a.db", &["one"]), Run("s", "a.db", &["two"]), Copy("a.db", "copy")];
    let three = Run("s", "a.db", &["three"]);
    let back = [REFUSED, Copy("copy", "a.db"), three, Rows("a.db", &["one", "three", "two"])];
    let without = [REFUSED, Sink(TABLE_APPEND), three, Sink(TABLE), three];
    let elsewhere = [REFUSED, Run("s", "b.db", &["three"]), Rows("b.db", &["three"])];
    let deeds: [&[Step]; 2] = [&[Remove("a.db"), REFUSED, Absent("a.db")], &[MakeEmpty("a.db")]];
    for deed in deeds {
        for rest in [&back[..], &without, &elsewhere] {
            check(TABLE, &[&begun, deed, rest].concat());
        }
    }
}

/// The message of a start if the ledger is cut.
const DAMAGED: &[&str] = &[
    ".ledger is damaged: it is cut off. It says which batches are committed there.",
    "Put a good copy of it back. To go on without it: mv ",
    "give the sink another directory, or set `existing = \"append\"`",
];

#[test]
fn a_damaged_ledger_has_ways_out() {
    let begun = [
        Run("s", "out", &["one"]),
        CopyAll("out", "copy"),
        Cut("out", ".ledger"),
        Refused("s", "out", DAMAGED),
    ];
    let all = Expect(&["out", "other"], &["one", "two"]);
    let back = [CopyAll("copy", "out"), Run("s", "out", &["two"]), all];
    let elsewhere = [
        Refused("s", "other", DAMAGED),
        MoveAsSaid,
        Run("s", "other", &["two"]),
        Run("s", "other", &[]),
        all,
    ];
    let beside = [MoveAsSaid, Sink(APPEND), Run("s", "out", &["two"]), Run("s", "out", &[]), all];
    let beside_rolled = [
        MoveAsSaid,
        Sink("existing = 'append'\nroll = { bytes = '1MiB' }"),
        Run("s", "out", &["two"]),
        all,
    ];
    let retired = [
        Name("new"),
        Keys("retired = ['sink:out']"),
        Refused("s", "other", DAMAGED),
        MoveAsSaid,
        Run("s", "other", &["two"]),
        all,
    ];
    for sink in ["", ROLL] {
        for rest in [&back[..], &elsewhere, &beside, &beside_rolled, &retired] {
            check(sink, &[&begun, rest].concat());
        }
    }
}
