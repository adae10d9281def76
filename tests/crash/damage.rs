//! A state directory that is damaged at random: a look at it predicts the start, and a start that is not refused has every
//! record that was acknowledged and known to be synced.
//!
//! `TIDEMILL_SEEDS` runs more directories, `TIDEMILL_SEED` one.

use std::collections::{BTreeMap, HashSet};

use tidemill::internals::framing::Framing;
use tidemill::internals::storage::{Fault, Storage};
use tidemill::internals::sync::Arc;
use tidemill::internals::wal::{Known, Place, Position, survey_with};
use tidemill::internals::{chunk_records, look};

use super::{Trouble, World, seeds};

/// The name of the file that keeps other processes out, which is no part of the state.
const LOCK: &str = ".lock";

/// The number of times that a directory is damaged.
const DAMAGES: u64 = 12;

/// Every content that each file of the state has had after a life.
type Copies = BTreeMap<String, Vec<Vec<u8>>>;

/// A world with some lives behind it.
struct Sample {
    world: World,
    copies: Copies,
    /// Records that may be lost: those behind what list and checkpoint know to be synced, where the last life was killed.
    excused: HashSet<String>,
}

impl Sample {
    fn new(seed: u64) -> Sample {
        let mut world = World::new(seed);
        world.keeps = seed.is_multiple_of(2);
        let mut copies = Copies::new();
        let is_killed = seed % 4 < 2;
        for life in 0..3 {
            let is_last = life == 2;
            let trouble = match is_killed && (is_last || world.below(2) == 0) {
                true => Trouble::State(40 + world.below(200), Fault::PowerCut),
                false => Trouble::None,
            };
            world.live(trouble);
            (world.state, world.output) = (world.state.after_kill(), world.output.after_kill());
            for name in world.files_of_state() {
                copies.entry(name.clone()).or_default().push(world.bytes(&name));
            }
        }
        let excused = excused(&world);
        Sample { world, copies, excused }
    }

    /// A copy that is harmed, and the harm in words.
    fn harmed(&mut self) -> (World, String) {
        let mut world = self.world.clone();
        (world.state, world.output) = (world.state.after_kill(), world.output.after_kill());
        let mut story = Vec::new();
        for _ in 0..1 + self.world.below(2) {
            story.push(self.harm(&world));
        }
        world.random = self.world.random;
        (world, story.join(", "))
    }

    fn harm(&mut self, world: &World) -> String {
        let files = world.files_of_state();
        let mut pick =
            |many: usize| usize::try_from(self.world.below(many.max(1) as u64)).expect("a length");
        let name = &files[pick(files.len())];
        let bytes = world.bytes(name);
        match pick(5) {
            0 => {
                let length = pick(used(&bytes) + 1);
                world.state.set_bytes(name, &bytes[..length]);
                format!("{name} is cut to {length}")
            }
            1 if !bytes.is_empty() => {
                let (at, bit) = (pick(used(&bytes)), pick(8));
                let mut flipped = bytes;
                flipped[at] ^= 1 << bit;
                world.state.set_bytes(name, &flipped);
                format!("bit {bit} of byte {at} of {name} is another one")
            }
            2 => {
                let other = &files[pick(files.len())];
                let its = world.bytes(other);
                world.state.set_bytes(name, &its);
                world.state.set_bytes(other, &bytes);
                format!("{name} and {other} have changed places")
            }
            3 if self.copies.contains_key(name) => {
                let copies = &self.copies[name];
                let version = pick(copies.len());
                world.state.set_bytes(name, &copies[version]);
                format!("{name} is as it was after life {version}")
            }
            _ => {
                world.state.lose(name);
                format!("{name} is gone")
            }
        }
    }

    /// One damage: the look and the start agree, and a start has what it must have. Returns true if it was refused.
    fn check(&mut self) -> Result<bool, String> {
        let (mut world, story) = self.harmed();
        let verdict = world.verdict();
        let in_order = world.live(Trouble::None);
        let looked = verdict.as_ref().map(|(text, _)| text.as_str());
        let is_fresh = verdict.as_ref().is_some_and(|(_, is_fresh)| *is_fresh);
        // A new identity differs each time that it is drawn, and is part of the text.
        let agree = match (looked, world.refusal.as_deref()) {
            (Some(_), Some(_)) if is_fresh => true,
            (looked, started) => looked == started,
        };
        if !agree {
            return Err(format!("{story}: looked {looked:?}, started {:?}", world.refusal));
        }
        // A stream that stops later says why, and what it did not get to is in the log.
        if world.refusal.is_some() || !in_order {
            return Ok(world.refusal.is_some());
        }
        let is_excused = |problem: &String| {
            let record = problem.strip_suffix(" was acknowledged and is lost");
            record.is_some_and(|record| self.excused.contains(record))
        };
        let problems: Vec<_> = world.problems().into_iter().filter(|it| !is_excused(it)).collect();
        match problems.is_empty() {
            true => Ok(false),
            false => Err(format!("{story}: {problems:?}")),
        }
    }
}

/// Up to where a file has something, in bytes; one at least.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len().min(1), |last| last + 1)
}

impl World {
    fn files_of_state(&self) -> Vec<String> {
        let names = self.state.list().expect("listed").into_iter();
        names.filter(|name| name != LOCK).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.state.bytes(name).expect("there")
    }

    /// The refusal of a start, as a look tells it, and true if the directory is fresh; `None` if it would not be refused.
    fn verdict(&self) -> Option<(String, bool)> {
        let storage: Arc<dyn Storage> = Arc::new(self.state.clone());
        let before: Vec<_> = self.files_of_state().iter().map(|name| self.bytes(name)).collect();
        let context = self.build(1).expect("good");
        let look = look(&storage, Some(&context)).expect("it can be read");
        let after: Vec<_> = self.files_of_state().iter().map(|name| self.bytes(name)).collect();
        assert!(before == after, "a look changes nothing");
        look.refusal.map(|err| (err.to_string(), look.log.is_fresh))
    }
}

/// The records of chunks behind the known end of the synced log.
fn excused(world: &World) -> HashSet<String> {
    let mut excused = HashSet::new();
    let Ok(looked) = world.look() else { return excused };
    if looked.log.is_closed {
        return excused;
    }
    let known = looked.log.known_end;
    let mut visit = |at: Position, bytes: &[u8]| {
        let place = Place { segment: at.segment, offset: at.offset };
        if let Some(records) = chunk_records(at, bytes)
            && known.is_none_or(|known| place >= known)
        {
            Framing::U32.for_each(records, |record| {
                excused.insert(String::from_utf8_lossy(record).into_owned());
            });
        }
        Ok(())
    };
    survey_with(&world.state, Known::from(1), &mut visit, &mut |_, _| ()).expect("read");
    excused
}

#[test]
fn a_directory_that_is_damaged_at_random() {
    let mut refused = [0, 0];
    for seed in seeds(12) {
        let mut sample = Sample::new(seed);
        for _ in 0..DAMAGES {
            match sample.check() {
                Ok(is_refused) => refused[usize::from(is_refused)] += 1,
                Err(why) => panic!("TIDEMILL_SEED={seed}: {why}"),
            }
        }
    }
    let both = refused.iter().all(|many| *many > 0);
    assert!(both || refused.iter().sum::<u64>() <= DAMAGES, "{refused:?} went on and were refused");
}
