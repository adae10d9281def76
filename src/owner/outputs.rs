//! A state directory's memory of its outputs: the place of each, its number of commits and the newest one; and the
//! expectations that a start derives from it.
//!
//! ```text
//! place ─▶ the output that was written to last there ─▶ at the next start that place holds this output, with all of it
//!            nothing of it is there ─▶ gone            another one, or the newest commit is not in it ─▶ an older copy
//! ```
//! A place that no sink of the start before wrote to may be empty: somebody gave the sink another place. Pure.

use serde::{Deserialize, Serialize};

use super::{OutputMark, Owner, PlanDigest, Written};
use crate::wording::{by_number, count};

/// The most outputs that a state directory remembers.
const OUTPUTS_MAX: usize = 64;

/// The newest commit of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    /// The job's name.
    pub(crate) job: String,
    /// The partition of the output.
    pub(crate) part: u32,
    /// The batch's time, in milliseconds.
    pub(crate) time: u64,
    /// The start that planned it.
    pub(crate) run: u64,
    pub(crate) digest: PlanDigest,
}

impl Newest {
    /// True if `key` is an output's memory of this batch.
    pub(crate) fn is(&self, key: &Written) -> bool {
        (self.time, self.run, self.digest) == (key.time, key.run, key.digest)
    }
}

/// A state directory's memory of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) mark: OutputMark,
    /// Its place, as the sink names it; empty if it was recorded before places were.
    pub(crate) place: String,
    /// `None` if unknown.
    pub(crate) newest: Option<Newest>,
}

impl Output {
    /// Adds newer knowledge, and forgets the outputs that were not written to for the longest time.
    pub(crate) fn merge(known: &mut Vec<Output>, newer: &[Output]) {
        for output in newer {
            known.retain(|other| other.mark.output != output.mark.output);
            known.push(output.clone());
        }
        let excess = known.len().saturating_sub(OUTPUTS_MAX);
        known.drain(..excess);
    }

    /// The same for marks that were recorded before places were.
    pub(crate) fn merge_marks(known: &mut Vec<Output>, newer: &[OutputMark]) {
        for mark in newer {
            let at = known.iter().position(|other| other.mark.output == mark.output);
            let mut output = at.map_or_else(Output::default, |at| known.remove(at));
            let commits = mark.commits.max(output.mark.commits);
            output.mark = OutputMark { commits, ..*mark };
            Output::merge(known, &[output]);
        }
    }
}

/// The expectations of a start in a place that one of its sinks writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) place: String,
    /// The output that was written to last in that place.
    pub(crate) last: OutputMark,
    /// Another output that may be there: the sink wrote to it in another place, and somebody may have moved both.
    pub(crate) moved: Option<u64>,
    /// True if the start before wrote there, and a sink that did so has not moved.
    pub(crate) is_due: bool,
}

/// The missing part of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// All of it, which was this many commits.
    All(u64),
    /// Some of it: the first number of commits is there, of the second.
    Commits(u64, u64),
    /// The newest commit: another copy continued.
    Newest(Newest),
    /// The output that was there last, which had this many commits: an older one is there.
    Last(u64),
}

/// The words for a place in a refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceWords<'a> {
    /// The place, as its sink calls it.
    pub(crate) title: &'a str,
    /// The noun for the place.
    pub(crate) thing: &'a str,
    /// Another possible cause, as the end of a clause; empty if there is none.
    pub(crate) hidden: &'a str,
}

impl Owner {
    fn expected(&self, place: Option<&str>) -> Option<&Expected> {
        let mut expected = self.expected.iter();
        expected.find(|it| Some(it.place.as_str()) == place && it.last.commits > 0)
    }

    /// The missing part of the output in a place. `found` is the progress of the output that is there, if there is one;
    /// `has` returns true if a commit is in it.
    pub(crate) fn lack(
        &self,
        place: Option<&str>,
        found: Option<OutputMark>,
        has: impl Fn(&Newest) -> bool,
    ) -> Option<Lack> {
        let expected = self.expected(place);
        let Some(found) = found else {
            let due = expected.filter(|it| it.is_due)?;
            return Some(Lack::All(due.last.commits));
        };
        let known = self.outputs.iter().find(|known| known.mark.output == found.output);
        if let Some(known) = known {
            if found.commits < known.mark.commits {
                return Some(Lack::Commits(found.commits, known.mark.commits));
            }
            if let Some(newest) = known.newest.as_ref().filter(|newest| !has(newest)) {
                return Some(Lack::Newest(newest.clone()));
            }
        }
        let other = expected.filter(|it| it.last.output != found.output);
        let other = other.filter(|it| it.moved != Some(found.output))?;
        Some(Lack::Last(other.last.commits))
    }

    /// The text about commits that are gone with the output of a place that holds nothing; `None` if there were none. They
    /// are reported even if the start is not refused for them.
    pub(crate) fn gone_text(&self, title: &str, place: Option<&str>) -> Option<String> {
        let gone = self.expected(place)?.last.commits;
        let (commits, are) = (count(gone, "commit"), by_number(gone, "is", "are"));
        let of = by_number(gone, "it", "them");
        Some(format!(
            "{title}: {commits} of this state directory {are} not there any more, and nothing of {of} is written again"
        ))
    }

    /// The reason to refuse an output with a batch that this state does not know.
    pub(crate) fn unknown_text(&self, title: &str, job: &str, key: &Written) -> String {
        let Written { time, run, .. } = key;
        format!(
            "{title} holds output that {self} knows nothing of, such as batch {time} of job `{job}`, which start {run} of it \
             planned: the state directory was restored from an older copy, or what it knew of these batches was given up \
             (`inspect --accept-loss`, `--cut`)"
        )
    }

    /// The text about the missing part of an output, for a refusal.
    pub(crate) fn lack_text(&self, lack: &Lack, place: PlaceWords<'_>) -> String {
        let PlaceWords { title, thing, hidden } = place;
        let copy = format!("the {thing} was restored from an older copy{hidden}");
        match lack {
            Lack::All(commits) => format!(
                "{title} holds nothing of {self}, which made {} there: the {thing} was removed, moved away or emptied{hidden}",
                count(*commits, "commit")
            ),
            Lack::Commits(found, known) => format!(
                "{title} holds {} of {self}, which made {known} there: {copy}",
                count(*found, "commit")
            ),
            Lack::Newest(Newest { job, time, .. }) => format!(
                "{title} does not hold batch {time} of job `{job}`, the newest commit of {self} there, but others in its place: \
                 {copy}"
            ),
            Lack::Last(commits) => format!(
                "{title} holds output of {self} that is older than what it wrote there last, with {}: {copy}",
                count(*commits, "commit")
            ),
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    fn newest(time: u64) -> Newest {
        Newest { job: "j".to_owned(), time, ..Newest::default() }
    }

    fn output(output: u64, commits: u64, place: &str, time: u64) -> Output {
        let mark = OutputMark { output, commits };
        Output { mark, place: place.to_owned(), newest: Some(newest(time)) }
    }

    #[test]
    fn few_outputs_are_remembered_and_the_newest_is_the_last() {
        let mut known = Vec::new();
        for number in 0..100 {
            Output::merge(&mut known, &[output(number, 5, "a", 1)]);
            Output::merge(&mut known, &[output(7, number, "b", number)]);
        }
        assert_eq!((known.len(), known.last()), (OUTPUTS_MAX, Some(&output(7, 99, "b", 99))));
        assert!(!known.iter().any(|it| it.mark.output == 3), "it was not written to for long");
        // Knowledge with a place is the current state, even if it is less.
        Output::merge(&mut known, &[output(7, 2, "b", 3)]);
        assert_eq!(known.last(), Some(&output(7, 2, "b", 3)));
        // Marks from before places were recorded tell no more than the number of commits.
        Output::merge_marks(&mut known, &[OutputMark { output: 7, commits: 1 }]);
        assert_eq!(known.last(), Some(&output(7, 2, "b", 3)));
        Output::merge_marks(&mut known, &[OutputMark { output: 200, commits: 1 }]);
        let marked = Output { mark: OutputMark { output: 200, commits: 1 }, ..Output::default() };
        assert_eq!((known.len(), known.last()), (OUTPUTS_MAX, Some(&marked)));
    }

    /// Checks the missing part in the place `a`, where output 1 was written to last and had three commits; output 2 has
    /// two. `found` is the output that is there, its commits, and the time of its newest.
    fn check(is_due: bool, moved: Option<u64>, found: Option<[u64; 3]>, expected: Option<Lack>) {
        let last = OutputMark { output: 1, commits: 3 };
        let owner = Owner {
            outputs: vec![output(2, 2, "b", 20), output(1, 3, "a", 30)],
            expected: vec![Expected { place: "a".to_owned(), last, moved, is_due }],
            ..Owner::default()
        };
        let mark = found.map(|[output, commits, _]| OutputMark { output, commits });
        let time = found.map(|[_, _, time]| time);
        let lack = owner.lack(Some("a"), mark, |newest| Some(newest.time) == time);
        assert_eq!(lack, expected, "{is_due} {moved:?} {found:?}");
        assert_eq!(owner.lack(Some("c"), None, |_| false), None, "nothing is known of it");
    }

    #[test]
    fn what_a_place_lacks() {
        check(true, None, Some([1, 3, 30]), None);
        check(true, None, Some([1, 4, 30]), None);
        check(true, None, None, Some(Lack::All(3)));
        check(false, None, None, None);
        check(true, None, Some([1, 2, 30]), Some(Lack::Commits(2, 3)));
        // The same number of commits, but other ones.
        check(true, None, Some([1, 3, 20]), Some(Lack::Newest(newest(30))));
        // Another output, an earlier one, or one that was moved with its sink.
        check(true, None, Some([2, 2, 20]), Some(Lack::Last(3)));
        check(false, None, Some([2, 2, 20]), Some(Lack::Last(3)));
        check(true, Some(2), Some([2, 2, 20]), None);
        check(true, Some(2), Some([2, 1, 20]), Some(Lack::Commits(1, 2)));
        check(true, None, Some([9, 1, 10]), Some(Lack::Last(3)));
    }
}
