//! The negative controls: each defect is found, and reported as what it is.

use crate::bytes::{ATTACKS, r8, r8_almost_whole};
use crate::floods::{r7_connection_limit, r7_few_descriptors};
use crate::{Case, Found, ONE_AT_A_TIME, SHORT, cases};

/// A defect, the model in which it is planted, the case that must find it, and a part of the report.
struct Control(&'static str, &'static str, fn(Case) -> Found, &'static str);

fn r8_lines(case: Case) -> Found {
    r8(case, &ATTACKS[0])
}

fn r8_counted(case: Case) -> Found {
    r8(case, &ATTACKS[1])
}

fn check(controls: &[Control]) {
    let _alone = ONE_AT_A_TIME.lock();
    let offered: Vec<&str> = cases().map(|case| case.model).collect();
    for Control(defect, model, row, says) in controls {
        if offered.contains(model) {
            let case = Case { model, planted: Some(defect), patience: SHORT };
            let found = row(case).err().unwrap_or_default();
            assert!(found.contains(says), "{defect} in {model} was taken for: `{found}`");
        }
    }
}

#[test]
fn r7_finds_what_is_planted() {
    let (limit, few) = (r7_connection_limit, r7_few_descriptors);
    check(&[
        Control("ConnectionLimitOff", "nio", limit, "connection limit: 60 were taken"),
        Control("ConnectionLimitOff", "aio", limit, "connection limit: 60 were taken"),
        Control("SeatIsLost", "reactors", limit, "places cannot be had again"),
        Control("DescriptorLeak", "bio", limit, "descriptors and threads"),
        Control("DescriptorLeak", "pool", limit, "descriptors and threads"),
        Control("DescriptorLeak", "nio", few, "descriptors and threads"),
        Control("DescriptorLeak", "aio", limit, "descriptors and threads"),
        Control("ThreadLingers", "bio", limit, "descriptors and threads"),
        Control("RefusedUncounted", "nio", few, "refused"),
        Control("HonestStarved", "nio", limit, "never"),
        Control("HonestStarved", "pool", limit, "never"),
    ]);
}

#[test]
fn r8_finds_what_is_planted() {
    check(&[
        Control("RecordLimitOff", "nio", r8_lines, "memory: "),
        Control("RecordLimitOff", "bio", r8_lines, "memory: "),
        Control("RecordLimitOff", "nio", r8_counted, "memory: "),
        Control("UnfinishedUncounted", "nio", r8_almost_whole, "memory: "),
        Control("UnfinishedUncounted", "bio", r8_almost_whole, "memory: "),
        Control("HonestStarved", "nio", r8_counted, "not read"),
    ]);
}
