//! The names of a program for its log, and the reaction of a start whose names differ from those of the log. Runs on the thread
//! that starts the stream; once.

use crate::config::{NameChanges, NameKind};
use crate::journal::{
    Found, Inventory, Known, Program, Renamed, SourcePosition, StateCount, Survey, Wanted,
};
use crate::metrics::{Event, EventBus};
use crate::owner::StateId;
use crate::settings::units::show_bytes;
use crate::sink::{SharedSink, is_same_place, open_in};
use crate::source::direct::files;
use crate::stream::{Census, Counting, Graph, JobPast, identity_state};
use crate::wording::count;

/// The program as the log sees it.
pub(super) fn program(graph: &Graph, sources: Vec<Wanted>, changes: &NameChanges) -> Program {
    let named = |name: String, what: String| Wanted { generated: is_place(&name), name, what };
    let states = graph.states().into_iter().map(|state| named(state.name, state.holds));
    let outputs = graph.outputs();
    let jobs = outputs.iter().map(|output| named(output.name().to_owned(), String::new()));
    let names = Inventory {
        sources,
        states: states.collect(),
        sinks: graph.sinks().iter().filter_map(sink).collect(),
        jobs: jobs.collect(),
    };
    Program { names, changes: changes.clone(), survey: Box::new(Looks) }
}

/// A state or an output without a name of its own is called `kind#n`.
fn is_place(name: &str) -> bool {
    name.contains('#')
}

/// A sink without a name is known by the place that it writes to; one that writes nowhere needs none.
fn sink(sink: &SharedSink) -> Option<Wanted> {
    let place = sink.place().unwrap_or_default();
    let name = sink.name().map_or_else(|| place.clone(), str::to_owned);
    (!name.is_empty()).then_some(Wanted { name, what: place, generated: false })
}

/// The sinks that the log knows, in the order of their numbers.
pub(super) fn sinks(graph: &Graph) -> Vec<SharedSink> {
    graph.sinks().into_iter().filter(|it| sink(it).is_some()).collect()
}

/// The words for what the log holds of a direct source of this kind.
pub(super) fn positions_of(kind: &str) -> String {
    format!("positions of `{kind}`")
}

/// Describes what sources, states and sinks hold.
struct Looks;

impl Survey for Looks {
    fn count(&self) -> Box<dyn StateCount> {
        Box::new(Counting::default())
    }

    fn position(&self, what: &str, position: SourcePosition<'_>) -> Option<String> {
        if what != positions_of(files::KIND) {
            return Some("a position".to_owned());
        }
        // A position that cannot be read may still be given up.
        let unreadable = |err| Some(format!("a position that cannot be read ({err})"));
        files::position(position.snapshot, &position.plans).unwrap_or_else(unreadable)
    }

    fn open_in(&self, place: &str, identity: StateId) -> Option<String> {
        open_in(place, identity)
    }

    fn state_of(&self, source: &str) -> String {
        identity_state(source)
    }
}

impl StateCount for Counting {
    fn take(&mut self, part: &[u8]) -> Result<(), String> {
        Counting::take(self, part)
    }

    fn held(&self) -> Option<String> {
        let Census { keys, bytes } = self.census();
        (keys > 0).then(|| format!("{}, {}", count(keys, "key"), show_bytes(bytes)))
    }
}

/// Tells the graph what the log knows of its states and jobs. Returns, for each state of the log, the state of the program that
/// it is, as far as it is restored when states are as they were after the batch `restored`.
pub(super) fn begin(graph: &Graph, found: &Found, restored: Option<u64>) -> Vec<Option<usize>> {
    let names = &found.continued.names;
    let known = |kind, number: &u32| -> &Known {
        &names.known.of(kind)[usize::try_from(*number).expect("a place in a list")]
    };
    let states = names.numbers.states.iter();
    let first: Vec<u64> = states.map(|number| known(NameKind::State, number).from).collect();
    graph.states_begin(&first);
    let past = |number| {
        let Known { from, earlier, .. } = known(NameKind::Job, number);
        let names = earlier.iter().map(|earlier| (earlier.below, earlier.name.as_str().into()));
        JobPast { first: *from, names: names.collect() }
    };
    graph.outputs_begin(names.numbers.jobs.iter().map(past).collect());
    let mut of_log = vec![None; names.known.states.len()];
    for (at, number) in names.numbers.states.iter().enumerate() {
        let number = usize::try_from(*number).expect("a place in a list");
        let has_begun = restored.is_some_and(|last| names.known.states[number].from <= last);
        of_log[number] = has_begun.then_some(at);
    }
    of_log
}

/// A place that a sink of an earlier run wrote to, and writes to no more.
pub(super) struct LeftPlace {
    /// The sink's name.
    pub(super) name: String,
    pub(super) place: String,
    /// The sink that wrote there and writes elsewhere now; none if it was retired.
    pub(super) moved: Option<SharedSink>,
    /// The sink that writes there now.
    pub(super) taken: Option<SharedSink>,
}

/// The places that were left.
pub(super) fn left_places(graph: &Graph, found: &Found) -> Vec<LeftPlace> {
    let names = &found.continued.names;
    let sinks = sinks(graph);
    let before = |number: u32| {
        let at = usize::try_from(number).expect("a place in a list");
        found.names_before.sinks.get(at).map(|known| known.what.clone())
    };
    let retired = names.retired.iter().filter(|(name, _)| name.kind == NameKind::Sink);
    let retired = retired.map(|(name, number)| (name.name.clone(), *number, None));
    let now = sinks.iter().zip(&names.numbers.sinks);
    let moved = now.filter_map(|(it, number)| {
        let was = before(*number).filter(|was| !was.is_empty())?;
        let is = it.place().unwrap_or_default();
        let name = it.name().unwrap_or_default().to_owned();
        (!is_same_place(&was, &is)).then(|| (name, *number, Some(it.clone())))
    });
    let left = retired.chain(moved).filter_map(|(name, number, moved)| {
        let place = before(number).filter(|place| !place.is_empty())?;
        let is_here = |it: &&SharedSink| is_same_place(&place, &it.place().unwrap_or_default());
        let taken = sinks.iter().find(is_here).cloned();
        Some(LeftPlace { name, place, moved, taken })
    });
    left.collect()
}

/// Reports the names that were retired, carried over or new.
pub(super) fn tell(found: &Found, events: &EventBus) {
    if !found.started_before {
        return;
    }
    let names = &found.continued.names;
    for ((name, _), held) in names.retired.iter().zip(&found.continued.given_up) {
        events.post(Event::NameRetired { name: name.to_string(), held: held.clone() });
    }
    for Renamed { new, old } in &names.renamed {
        events.post(Event::NameCarriedOver { new: new.to_string(), old: old.to_string() });
    }
    for name in &names.new {
        events.post(Event::NameIsNew { name: name.to_string() });
    }
}
