//! States by key: updates, calls record by record, time-outs, misuse, limits and names.

use tidemill::stream::{State, StateCounts, StateSpec, WhenFull};
use tidemill::{DStream, StreamingContext, Time};

use crate::{SECOND, check, context, queue, seconds};

/// A running sum of a key's values; the key goes when the sum is zero.
fn update_sum(_: &String, values: &[i32], sum: Option<&i32>) -> Option<i32> {
    let sum = sum.unwrap_or(&0) + values.iter().sum::<i32>();
    (sum != 0).then_some(sum)
}

pub fn pair(key: &str, value: i32) -> (String, i32) {
    (key.to_owned(), value)
}

#[test]
fn every_known_key_is_updated_in_each_batch() {
    let input: &[&[(String, i32)]] =
        &[&[pair("a", 1), pair("b", 2)], &[], &[pair("a", -1), pair("c", 5), pair("c", 1)]];
    check(
        input,
        |_, s| s.update_state_by_key(update_sum),
        &[
            Some(&[pair("a", 1), pair("b", 2)]),
            Some(&[pair("a", 1), pair("b", 2)]),
            Some(&[pair("b", 2), pair("c", 6)]),
        ],
    );
    let calls = |_: &StreamingContext, s: DStream<(String, i32)>| {
        s.update_state_by_key(|_, values: &[i32], calls: Option<&Vec<i32>>| {
            let mut calls = calls.cloned().unwrap_or_default();
            calls.push(values.iter().sum());
            (values != [9]).then_some(calls)
        })
    };
    let row = |calls: &[i32]| ("k".to_owned(), calls.to_vec());
    check(
        &[&[pair("k", 1), pair("k", 2)], &[], &[pair("k", 9)], &[], &[pair("k", 4)]],
        calls,
        &[Some(&[row(&[3])]), Some(&[row(&[3, 0])]), Some(&[]), Some(&[]), Some(&[row(&[4])])],
    );
}

#[test]
fn updates_have_states_before_the_first_batch_and_the_time_of_theirs() {
    let second = |time: Time| i32::try_from(time.as_millis() / 1_000).expect("it is early");
    let update = move |time: Time, _: &String, values: &[i32], sum: Option<&i32>| {
        let sum = sum.unwrap_or(&0) + values.iter().sum::<i32>() * second(time);
        (sum != 0).then_some(sum)
    };
    let input: &[&[(String, i32)]] =
        &[&[pair("a", 1)], &[pair("a", 1), pair("c", -4)], &[pair("c", 1)]];
    check(
        input,
        |_, s| s.update_state_by_key_with([], update),
        &[
            Some(&[pair("a", 1)]),
            Some(&[pair("a", 3), pair("c", -8)]),
            Some(&[pair("a", 3), pair("c", -5)]),
        ],
    );
    let initial = [pair("c", 9), pair("b", 7), pair("c", 8), pair("zero", 0)];
    check(
        input,
        |_, s| s.update_state_by_key_with(initial, update),
        &[
            Some(&[pair("a", 1), pair("b", 7), pair("c", 8)]),
            Some(&[pair("a", 3), pair("b", 7)]),
            Some(&[pair("a", 3), pair("b", 7), pair("c", 3)]),
        ],
    );
}

/// A state in a call: the key, the value, true if the key exists, true if it times out.
type Call = (String, Option<i32>, bool, bool);

pub fn calls(
    spec: StateSpec<String, i32>,
) -> impl Fn(&StreamingContext, DStream<(String, i32)>) -> DStream<Call> {
    move |_, s| {
        let f = |_: Time, key: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
            let call = (key.clone(), value.copied(), state.exists(), state.is_timing_out());
            match value {
                Some(0) => state.remove(),
                Some(value) => state.update(state.get().unwrap_or(&0) + value),
                None => assert!(state.get().is_some(), "a key that times out is known"),
            }
            Some(call)
        };
        s.map_with_state(spec.clone(), f).into()
    }
}

fn call(key: &str, value: Option<i32>, exists: bool) -> Call {
    (key.to_owned(), value, exists, value.is_none())
}

#[test]
fn touched_keys_are_mapped_record_by_record() {
    check(
        &[&[pair("a", 1), pair("a", 2)], &[], &[pair("a", 0), pair("a", 3), pair("b", 1)]],
        calls(StateSpec::new()),
        &[
            Some(&[call("a", Some(1), false), call("a", Some(2), true)]),
            Some(&[]),
            Some(&[call("a", Some(0), true), call("a", Some(3), false), call("b", Some(1), false)]),
        ],
    );
    let initial = StateSpec::new().initial([pair("a", 7), pair("z", 1), pair("z", 2)]);
    check(
        &[&[pair("a", 1)]],
        |_, s| {
            let f = |_: Time, _: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
                state.update(state.get()? + value?);
                None::<()>
            };
            s.map_with_state(initial, f).snapshots()
        },
        &[Some(&[pair("a", 8), pair("z", 2)])],
    );
}

#[test]
fn a_key_times_out_in_the_first_batch_in_which_it_was_idle_for_too_long() {
    let spec = StateSpec::new().timeout(seconds(2));
    let last = call("a", None, true);
    check(
        &[&[pair("a", 1)], &[], &[], &[], &[], &[pair("a", 1)]],
        calls(spec.clone()),
        &[
            Some(&[call("a", Some(1), false)]),
            Some(&[]),
            Some(&[]),
            Some(std::slice::from_ref(&last)),
            Some(&[]),
            Some(&[call("a", Some(1), false)]),
        ],
    );
    // A record in that very batch keeps the key alive, even one that does not change the state.
    check(
        &[&[pair("a", 1)], &[], &[], &[pair("a", 1)], &[], &[], &[]],
        calls(spec.clone().initial([pair("i", 1)])),
        &[
            Some(&[call("a", Some(1), false)]),
            Some(&[]),
            Some(&[call("i", None, true)]),
            Some(&[call("a", Some(1), true)]),
            Some(&[]),
            Some(&[]),
            Some(&[last]),
        ],
    );
}

#[test]
fn a_call_says_what_it_did_to_the_state() {
    // The value 1 updates, 2 removes, 3 does both; the row says: value, updated, removed, exists.
    let f = |_: Time, _: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
        let before = (state.updated(), state.removed());
        assert_eq!(before, (false, false), "each call begins anew");
        let value = *value.unwrap_or(&9);
        if [1, 3].contains(&value) {
            state.update(value);
            assert!(state.updated() && !state.removed());
        }
        if [2, 3].contains(&value) {
            state.remove();
        }
        Some((value, state.updated(), state.removed(), state.exists()))
    };
    let values = |values: &[i32]| values.iter().map(|value| pair("a", *value)).collect::<Vec<_>>();
    check(
        &[&values(&[0, 1, 0]), &values(&[2]), &values(&[3, 1, 1]), &[], &[]],
        |_, s| s.map_with_state(StateSpec::new().timeout(SECOND), f).into(),
        &[
            Some(&[(0, false, false, false), (1, true, false, true), (0, false, false, true)]),
            Some(&[(2, false, true, false)]),
            Some(&[(3, false, true, false), (1, true, false, true), (1, true, false, true)]),
            Some(&[]),
            Some(&[(9, false, false, true)]),
        ],
    );
}

#[test]
fn the_changes_of_a_batch_are_the_keys_that_it_set_or_forgot() {
    // 0 removes, 9 only looks.
    let f = |_: Time, _: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
        match value {
            Some(0) => state.remove(),
            Some(9) | None => {}
            Some(value) => state.update(*value),
        }
        None::<()>
    };
    let set = |key: &str, value: i32| (key.to_owned(), Some(value));
    let gone = |key: &str| (key.to_owned(), None::<i32>);
    let spec = StateSpec::new().initial([pair("i", 5)]);
    check(
        &[
            &[pair("a", 1), pair("a", 2), pair("b", 1), pair("i", 9)],
            &[pair("a", 2), pair("b", 9)],
            // A key that comes and goes within a batch was never there; one that goes and comes is set.
            &[pair("new", 1), pair("new", 0), pair("a", 0), pair("a", 7), pair("b", 0)],
            &[],
        ],
        |_, s| s.map_with_state(spec, f).changes(),
        &[
            Some(&[set("a", 2), set("b", 1)]),
            Some(&[set("a", 2)]),
            Some(&[set("a", 7), gone("b")]),
            Some(&[]),
        ],
    );
    // Keys that time out, and keys that make room.
    let spec = StateSpec::new().timeout(SECOND).keys_max(1, WhenFull::ExpireOldest);
    check(
        &[&[pair("a", 1)], &[pair("b", 1)], &[], &[]],
        |_, s| s.map_with_state(spec, f).changes(),
        &[Some(&[set("a", 1)]), Some(&[set("b", 1), gone("a")]), Some(&[]), Some(&[gone("b")])],
    );
}

/// The error of the first batch.
fn failure(
    spec: StateSpec<String, i32>,
    input: &[(String, i32)],
    f: impl Fn(&mut State<'_, i32>) + Send + Sync + 'static,
) -> String {
    let ctx = context();
    let f = move |_: Time, _: &String, _: Option<&i32>, state: &mut State<'_, i32>| {
        f(state);
        None::<()>
    };
    queue(&ctx, &[input]).map_with_state(spec, f).collect();
    ctx.run_batches(5).expect_err("the batch fails").to_string()
}

#[test]
fn a_state_that_is_misused_fails_the_batch() {
    let first =
        "batch 1000 ms of job `collect#0` failed after 4 attempts: map_with_state: a state was ";
    let new = || StateSpec::new();
    let one = [pair("a", 1)];
    let update_after_remove = |state: &mut State<'_, i32>| {
        state.remove();
        state.update(1);
    };
    assert_eq!(
        failure(new(), &one, update_after_remove),
        format!("{first}updated after it was removed")
    );
    let remove_twice = |state: &mut State<'_, i32>| {
        state.remove();
        state.remove();
    };
    assert_eq!(failure(new(), &one, remove_twice), format!("{first}removed twice"));
    let old = || StateSpec::new().initial([pair("a", 1)]).timeout(SECOND);
    let late =
        "batch 2000 ms of job `collect#0` failed after 4 attempts: map_with_state: a state was ";
    assert_eq!(
        failure(old(), &[], |state| state.update(1)),
        format!("{late}updated while it timed out")
    );
    assert_eq!(
        failure(old(), &[], |state| state.remove()),
        format!("{late}removed while it timed out")
    );
}

#[test]
fn the_highest_limit_of_keys_is_none() {
    for policy in [WhenFull::Fail, WhenFull::DropNew, WhenFull::ExpireOldest] {
        let ctx = context();
        let stream = queue(&ctx, &[&[pair("a", 1), pair("b", 1)], &[pair("a", 0), pair("c", 1)]]);
        let spec = StateSpec::new().keys_max(u64::MAX, policy);
        let f = |_: Time, _: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
            match value {
                Some(0) => state.remove(),
                Some(value) => state.update(*value),
                None => {}
            }
            None::<()>
        };
        let mapped = stream.map_with_state(spec, f);
        let _out = mapped.collect();
        ctx.run_batches(2).expect("no key is too many");
        assert_eq!(mapped.counts(), StateCounts { keys: 2, ..StateCounts::default() });
    }
}

#[test]
fn the_number_of_keys_is_limited() {
    let keys =
        |names: &str| names.chars().map(|name| pair(&name.to_string(), 1)).collect::<Vec<_>>();
    let limited = |policy, input: &[&str]| {
        let ctx = context();
        let input: Vec<Vec<_>> = input.iter().map(|names| keys(names)).collect();
        let spec = StateSpec::new().keys_max(3, policy);
        let f = |_: Time, key: &String, value: Option<&i32>, state: &mut State<'_, i32>| {
            value.into_iter().for_each(|value| state.update(state.get().unwrap_or(&0) + value));
            Some((key.clone(), state.is_timing_out()))
        };
        let stream = queue(&ctx, &input.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mapped = stream.map_with_state(spec, f);
        let (out, all) = (mapped.collect(), mapped.snapshots().collect());
        let ran = ctx.run_batches(input.len() as u64).map_err(|err| err.to_string());
        let last = |rows: Vec<(Time, Vec<(String, i32)>)>| {
            let mut keys: Vec<String> =
                rows.last().cloned().unwrap_or_default().1.into_iter().map(|row| row.0).collect();
            keys.sort();
            keys.concat()
        };
        let out = out.rows().last().cloned().unwrap_or_default().1;
        ran.map(|()| (last(all.rows()), out, mapped.counts()))
    };
    let counts =
        |keys, dropped, expired| StateCounts { keys, dropped, expired, ..StateCounts::default() };
    assert_eq!(limited(WhenFull::Fail, &["abc", "ab"]).unwrap().2, counts(3, 0, 0));
    let error = limited(WhenFull::Fail, &["abc", "d"]).unwrap_err();
    assert!(error.ends_with("map_with_state: more keys than keys_max = 3 allows"), "{error}");

    let (known, out, counted) = limited(WhenFull::DropNew, &["ab", "cde", "axy"]).unwrap();
    assert!(known.starts_with("ab") && known.len() == 3, "{known}");
    assert_eq!((out, counted), (vec![("a".to_owned(), false)], counts(3, 4, 0)));

    let (known, out, counted) = limited(WhenFull::ExpireOldest, &["ab", "c", "a", "d"]).unwrap();
    assert_eq!((known.as_str(), counted), ("acd", counts(3, 0, 1)));
    let mut out = out;
    out.sort();
    assert_eq!(out, [("b".to_owned(), true), ("d".to_owned(), false)]);
    let error = limited(WhenFull::ExpireOldest, &["abcd"]).unwrap_err();
    assert!(error.ends_with("more keys in one batch than keys_max = 3 allows"), "{error}");
}

/// What `map_with_state` and `remember` return is a stream for everything that takes one.
#[test]
fn a_stream_with_a_state_or_a_memory_goes_where_a_stream_goes() {
    fn by_reference(stream: &DStream<(String, i32)>) -> DStream<i32> {
        stream.map(|(_, value)| *value)
    }
    fn by_value(stream: impl Into<DStream<(String, i32)>>) -> DStream<i32> {
        by_reference(&stream.into())
    }
    let ctx = context();
    let stream = queue(&ctx, &[&[pair("a", 1)], &[pair("a", 2)]]);
    let keep = |_: Time, key: &String, value: Option<&i32>, _: &mut State<'_, i32>| {
        Some((key.clone(), *value?))
    };
    let mapped = stream.map_with_state(StateSpec::new(), keep).named("mapped");
    let kept = stream.remember(seconds(5));
    let plain: DStream<(String, i32)> = mapped.clone().into();
    let firsts = |pairs: DStream<(String, (i32, i32))>| pairs.map(|(_, (left, _))| *left);
    let taken = [
        by_reference(&mapped),
        by_reference(&kept),
        by_value(&mapped),
        by_value(mapped.clone()),
        by_value(&kept),
        by_value(kept.clone()),
        by_value(&stream),
        by_value(plain.clone()),
    ];
    let one: Vec<_> = taken.iter().map(DStream::collect).collect();
    let joined = [
        firsts(stream.join(&mapped)),
        firsts(stream.join(&kept)),
        firsts(mapped.join(&kept)),
        firsts(kept.join(&mapped)),
        stream.left_outer_join(&mapped).map(|(_, (left, _))| *left),
        stream.right_outer_join(&mapped).map(|(_, (_, right))| *right),
        stream.full_outer_join(&kept).map(|(_, (left, _))| left.unwrap_or(0)),
        stream.cogroup(&mapped).map(|(_, (left, right))| left[0].max(right[0])),
    ];
    let joined: Vec<_> = joined.iter().map(DStream::collect).collect();
    let two = [
        by_reference(&stream.union(&mapped)).collect(),
        by_reference(&mapped.union(&kept)).collect(),
        by_reference(&kept.union(&plain)).collect(),
        by_reference(&plain.transform_with(&kept, |_, left, right| left.union(&right))).collect(),
    ];
    ctx.run_batches(2).expect("the batches succeed");
    let rows = |second: u64, rows: &[i32]| (Time::from_millis(second * 1_000), rows.to_vec());
    for collected in one.iter().chain(&joined) {
        assert_eq!(collected.rows(), [rows(1, &[1]), rows(2, &[2])]);
    }
    for collected in two {
        assert_eq!(collected.rows(), [rows(1, &[1, 1]), rows(2, &[2, 2])]);
    }
}

#[test]
fn states_have_names() {
    let ctx = context();
    let stream = queue::<(u32, u32)>(&ctx, &[]);
    let spec = StateSpec::<u32, u32>::new;
    let _first = stream.map_with_state(spec(), |_, _, _, _| None::<()>).named("counts");
    stream.map_with_state(spec(), |_, _, _, _| None::<()>).named("counts").collect();
    stream.update_state_by_key_with([(1, 2)], |_, _, _, _| Some(1)).named("sums").collect();
    stream.update_state_by_key(|_, _, _| Some(1)).named("sums").collect();
    let error = ctx.start().map(drop).unwrap_err().to_string();
    assert_eq!(
        error,
        "two operators with state are called `counts`\ntwo operators with state are called `sums`"
    );
}
