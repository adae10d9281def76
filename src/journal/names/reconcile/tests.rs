//! Tables: the names in the log, those of the program, the user's entries, and the result.

use super::super::tests::changes;
use super::*;

const NEXT: u64 = 50;
const BEGINS: Begins = Begins { states: 40, others: NEXT };

/// `KIND:NAME`, `!` before it if it was retired, `#` in it if it has no name of its own, `=WHAT` behind it.
fn known(words: &str) -> Inventory<Known> {
    let mut inventory = Inventory::<Known>::default();
    for word in words.split_whitespace() {
        let (retired, word) = match word.strip_prefix('!') {
            Some(word) => (true, word),
            None => (false, word),
        };
        let (StateName { kind, name }, what) = named(word);
        let generated = name.contains('#');
        let known = Known { name, what, generated, retired, ..Known::default() };
        inventory.of_mut(kind).push(known);
    }
    inventory
}

fn program(words: &str) -> Inventory<Wanted> {
    let mut inventory = Inventory::<Wanted>::default();
    for word in words.split_whitespace() {
        let (StateName { kind, name }, what) = named(word);
        let generated = name.contains('#');
        inventory.of_mut(kind).push(Wanted { name, what, generated });
    }
    inventory
}

fn named(word: &str) -> (StateName, String) {
    let (name, what) = word.split_once('=').unwrap_or((word, ""));
    (StateName::parse(name).expect("a good name"), what.to_owned())
}

/// Everything holds something except things called `empty`.
fn sorted(
    found: &str,
    wanted: &str,
    said: &str,
) -> Result<(Reconciled, Inventory<Wanted>), Refusal> {
    let (known, program) = (known(found), program(wanted));
    let names = known.clone();
    let mut holds = |kind: NameKind, number: u32| {
        let at = usize::try_from(number).expect("small");
        let name = &names.of(kind)[at].name;
        (!name.starts_with("empty")).then(|| "3 records".to_owned())
    };
    reconcile(&known, &program, &changes(said), BEGINS, &mut holds)
        .map(|reconciled| (reconciled, program))
}

/// Expects the number of each thing of the program, `+` if it is new; then the retired and renamed ones.
fn check(found: &str, wanted: &str, said: &str, expected: &str) {
    let (reconciled, program) = match sorted(found, wanted, said) {
        Ok(sorted) => sorted,
        Err(refusal) => panic!("{found} | {wanted} | {said}: {}", refusal.into_error("DIR")),
    };
    let mut words = Vec::new();
    for kind in NameKind::ALL {
        for (wanted, number) in program.of(kind).iter().zip(reconciled.numbers.of(kind)) {
            let name = StateName::new(kind, wanted.name.clone());
            let known = &reconciled.known.of(kind)[usize::try_from(*number).expect("small")];
            assert!(known.name == wanted.name && !known.retired, "{found} | {wanted:?}");
            let new = reconciled.new.contains(&name);
            let first = if kind == NameKind::State { BEGINS.states } else { BEGINS.others };
            assert_eq!(known.from, if new { first } else { 0 });
            words.push(format!("{}{number}", if new { "+" } else { "" }));
        }
    }
    words.extend(reconciled.retired.iter().map(|(name, number)| format!("-{name}@{number}")));
    words.extend(reconciled.renamed.iter().map(|Renamed { new, old }| format!("{new}<{old}")));
    assert_eq!(words.join(" "), expected, "{found} | {wanted} | {said}");
    // The same start again: every entry has been carried out, and is skipped.
    let again = reconcile(&reconciled.known, &program, &changes(said), BEGINS, &mut |_, _| {
        Some("something".to_owned())
    });
    let again = again.unwrap_or_else(|refusal| panic!("{said}: {}", refusal.into_error("DIR")));
    assert_eq!(again.numbers, reconciled.numbers, "{found} | {wanted} | {said}");
    assert_eq!((again.new, again.retired, again.renamed), (vec![], vec![], vec![]));
}

#[test]
fn what_goes_on_and_what_is_new() {
    check("", "source:a state:s sink:o job:j", "", "+0 +0 +0 +0");
    check("source:a state:s sink:o job:j", "source:a state:s sink:o job:j", "", "0 0 0 0");
    check("source:a source:b", "source:b source:a", "", "1 0");
    check("source:a", "source:b source:a", "", "+1 0");
    check("state:s", "state:s state:t", "", "0 +1");
    // The same name in two kinds is two things.
    check("source:x", "source:x job:x", "", "0 +0");
}

#[test]
fn what_is_given_up_never_comes_back() {
    check("source:a source:b", "source:b", "source:a", "1 -source:a@0");
    check(
        "source:a state:s sink:o job:j",
        "",
        "source:a state:s sink:o job:j",
        "-source:a@0 -state:s@0 -sink:o@0 -job:j@0",
    );
    // Gone already, or never there.
    check("!source:a source:b", "source:b", "source:a source:c", "1");
    // A name that comes back is a new thing.
    check("!source:a source:b", "source:b source:a", "", "1 +2");
    check("!state:s !state:s", "state:s", "", "+2");
}

#[test]
fn what_is_carried_over_keeps_its_number() {
    check("source:a source:b", "source:c source:b", "source:c=source:a", "0 1 source:c<source:a");
    check("state:s=u64", "state:t=u64", "state:t=state:s", "0 state:t<state:s");
    // The old name is free.
    check("source:b", "source:b source:a", "", "0 +1");
    // Gone already: another run has done it, or it was never there.
    check("source:c", "source:c", "source:c=source:a", "0");
    check("", "source:c", "source:c=source:a", "+0");
    check("!source:a source:c", "source:c", "source:c=source:a", "1");
}

#[test]
fn a_rename_takes_the_place_of_what_holds_nothing() {
    let (reconciled, _) = sorted("source:empty source:a", "source:empty", "source:empty=source:a")
        .expect("nothing is lost");
    assert_eq!(reconciled.numbers.sources, [1]);
    assert!(reconciled.known.sources[0].retired);
}

#[test]
fn what_holds_nothing_may_be_left_out_for_a_while() {
    let (reconciled, _) = sorted("source:empty source:a", "source:a", "").expect("nothing is lost");
    assert_eq!(reconciled.numbers.sources, [1]);
    assert!(!reconciled.known.sources[0].retired, "it may come back");
}

#[test]
fn names_of_before_are_known_with_their_batches() {
    let (reconciled, _) = sorted("job:a", "job:b", "job:b=job:a").expect("good");
    let earlier = Earlier { name: "a".to_owned(), below: NEXT };
    assert_eq!(reconciled.known.jobs[0].earlier, [earlier]);
}

/// The lines of the refusal, and its exit code.
fn check_refused(found: &str, wanted: &str, said: &str, code: u8, expected: &[&str]) {
    let refusal = sorted(found, wanted, said).expect_err("refused");
    let err = refusal.into_error("DIR");
    let text = err.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        (lines.as_slice(), err.exit_code()),
        (expected, code),
        "{found} | {wanted} | {said}"
    );
}

const SAY: &str = "say what becomes of it, in the pipeline file, by `--set`, or with `Config::retire` and `Config::rename`:";

#[test]
fn what_is_not_named_is_refused_with_the_line_to_write() {
    check_refused(
        "source:a",
        "source:b",
        "",
        1,
        &[
            "DIR holds what this pipeline does not name:",
            "  source `a`: 3 records",
            SAY,
            "  retired = [\"source:a\"]    to give it up",
            "  renamed = { \"source:b\" = \"source:a\" }    to carry it over",
        ],
    );
    // Nothing tells which of two new ones it is; every missing one is named at once.
    check_refused(
        "source:a state:s=u64 sink:empty sink:o job:j",
        "source:b source:c job:k",
        "",
        1,
        &[
            "DIR holds what this pipeline does not name:",
            "  source `a`: 3 records",
            "  state `s`: 3 records (u64)",
            "  sink `o`: 3 records",
            "  job `j`: 3 records",
            SAY,
            "  retired = [\"source:a\", \"state:s\", \"sink:o\", \"job:j\"]    to give it up",
            "  renamed = { \"source:NEW\" = \"source:a\", \"state:NEW\" = \"state:s\", \"sink:NEW\" = \"sink:o\", \
             \"job:k\" = \"job:j\" }    to carry it over",
        ],
    );
    // One of two is decided.
    let refusal = sorted("source:a source:b", "", "source:a").expect_err("refused");
    assert_eq!(refusal.missing, [(StateName::new(NameKind::Source, "b"), "3 records".to_owned())]);
}

#[test]
fn another_thing_under_the_same_name_is_refused() {
    let text = "  state `s` was found with u64, and the program wants String; it holds 3 records: give the state of this \
        program another name, and write `retired = [\"state:s\"]`";
    let head = "DIR holds something else under the same name:";
    check_refused("state:s=u64", "state:s=String", "", 1, &[head, text]);
    check_refused("state:r=u64", "state:s=String", "state:s=state:r", 1, &[head, text]);
    let text = "  source `in` was found with files, and the program wants socket; it holds 3 records: give the source of \
        this program another name, and write `retired = [\"source:in\"]`";
    check_refused("source:in=files", "source:in=socket", "", 1, &[head, text]);
    // An empty thing may become anything, and nobody knows the things in a log of an earlier version.
    check("source:empty=files", "source:empty=socket", "", "0");
    check("source:in", "source:in=socket", "", "0");
    // A sink writes to another place from now on.
    check("sink:o=file:x", "sink:o=file:y", "", "0");
}

#[test]
fn a_rename_onto_what_is_known_is_a_mistake() {
    check_refused(
        "source:a source:b",
        "source:b",
        "source:b=source:a",
        78,
        &[
            "error: `\"source:b\" = \"source:a\"`: the state directory knows `source:b` as well, with 3 records",
            "  = help: give up one of both: take the entry out and write `retired = [\"source:a\"]`, or give the source \
             another name and write `retired = [\"source:b\"]` too",
        ],
    );
    let refusal = sorted("source:a", "source:a", "source:a").expect_err("refused");
    assert_eq!(refusal.into_error("DIR").exit_code(), 78);
}

#[test]
fn things_without_names_are_found_by_their_places() {
    check("state:m#0 state:m#1", "state:m#0 state:m#1", "", "0 1");
    check("state:m#0 state:m#1", "state:m#0", "state:m#1", "0 -state:m#1@1");
    check("", "state:m#0 state:m#1", "", "+0 +1");
    // A new one with a name is no danger, and names can be given later.
    check("state:m#0", "state:m#0 state:new", "", "0 +1");
    check(
        "state:m#0 state:m#1",
        "state:a state:b",
        "state:a=state:m#0 state:b=state:m#1",
        "0 1 state:a<state:m#0 state:b<state:m#1",
    );
    check("job:empty#0", "job:empty#0 job:empty#1", "", "0 +1");
    let moved =
        |found: &str, wanted: &str| sorted(found, wanted, "").expect_err("refused").moved.len();
    assert_eq!(moved("state:m#0", "state:m#0 state:m#1"), 1);
    assert_eq!(moved("state:m#0 state:m#1", "state:m#1 state:m#2"), 2);
    assert_eq!(moved("state:m#0 state:m#1", "state:m#0"), 1);
    assert_eq!(moved("state:m#0", ""), 0);
    assert_eq!(moved("state:m#0", "state:a"), 0);
}
