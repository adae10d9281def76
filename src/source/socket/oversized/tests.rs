//! Over-long records that are put aside: on real directories, on disks that are full, lose power and fail at each call.

use super::*;
use crate::metrics::EventBus;
use crate::storage::{Directory, Fault, MemoryStorage};
use crate::time::ManualClock;

/// The answers that a connection was given.
#[derive(Default)]
struct Told {
    written: AtomicU64,
    kept: AtomicU64,
}

impl Told {
    fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::SeqCst), self.kept.load(Ordering::SeqCst))
    }
}

impl Owner for Told {
    fn handed_on(&self) {}

    fn written(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    fn kept(&self) {
        self.kept.fetch_add(1, Ordering::SeqCst);
    }
}

/// The thread of a source `a/b`, and a clock that a test moves.
struct Rig {
    keeper: OversizedThread,
    clock: ManualClock,
    events: EventBus,
    poison: Poison,
    counters: Arc<ReceiverCounters>,
    account: Arc<MemoryBudget>,
}

/// The options of a source of this name on the same engine.
fn options_of(source: &str, rig: &Rig) -> OversizedOptions {
    OversizedOptions {
        source: source.to_owned(),
        account: Arc::clone(&rig.account),
        counters: Arc::clone(&rig.counters),
        conditions: rig.events.conditions().clone(),
        clock: Arc::new(rig.clock.clone()),
        poison: rig.poison.clone(),
    }
}

fn rig(storage: Arc<dyn Storage>) -> Rig {
    let (clock, poison, counters) = (ManualClock::new(), Poison::new(), Arc::default());
    let events = EventBus::with_clock(Arc::new(clock.clone()));
    let account = MemoryBudget::new(1 << 20);
    let options = OversizedOptions {
        source: "a/b".to_owned(),
        account: Arc::clone(&account),
        counters: Arc::clone(&counters),
        conditions: events.conditions().clone(),
        clock: Arc::new(clock.clone()),
        poison: poison.clone(),
    };
    let keeper = OversizedStore::open(storage, options).expect("a directory").start("rx0-aside");
    Rig { keeper: keeper.expect("a thread"), clock, events, poison, counters, account }
}

impl Rig {
    fn connection(&self) -> (Putting, Arc<Told>) {
        let told = Arc::new(Told::default());
        (self.keeper.asides().connection(Arc::clone(&told) as Arc<dyn Owner>), told)
    }

    /// Lets time pass until `is_so`.
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..10_000_000 {
            if is_so() {
                return;
            }
            self.clock.advance(RETRY);
            std::thread::yield_now();
        }
        panic!("never: {what}");
    }

    /// Ends the thread.
    fn end(self) {
        self.keeper.stop().expect("the thread").join();
    }
}

fn part(bytes: &str, is_last: bool) -> AsidePart {
    AsidePart { bytes: bytes.as_bytes().to_vec(), is_last }
}

#[test]
fn whole_records_are_kept_and_others_are_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file(".a_b-7.open"), "left by a crash").expect("written");
    std::fs::write(file("a_b-4.records"), "kept before").expect("written");
    let rig = rig(Arc::new(Directory::open(dir.path()).expect("there")));
    let ((one, told), (other, _)) = (rig.connection(), rig.connection());
    one.put(vec![part("2 syslog 3 a", false)]);
    other.put(vec![part("9 syslog 5 never", false)]);
    one.put(vec![part("bc\n", true), part("3 syslog 1 d\n", true)]);
    drop(other);
    rig.until("all is kept", || told.counts() == (2, 2));
    let (poison, counters, account) =
        (rig.poison.clone(), Arc::clone(&rig.counters), Arc::clone(&rig.account));
    rig.end();
    assert_eq!((counters.put_aside.value(), account.used(), poison.reason()), (2, 0, None));
    assert_eq!(std::fs::read(file("a_b-5.records")).expect("kept"), b"2 syslog 3 abc\n");
    assert_eq!(std::fs::read(file("a_b-7.records")).expect("kept"), b"3 syslog 1 d\n");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).expect("listed").collect();
    names.retain(|name| name.as_ref().expect("listed").file_name() != ".a_b.lock");
    assert_eq!(names.len(), 3, "nothing else");
}

/// A record waits for the disk, and is kept once that is mended.
fn check(what: &str, harm: impl Fn(&MemoryStorage), mend: impl Fn(&MemoryStorage)) {
    let disk = MemoryStorage::new(0);
    let rig = rig(Arc::new(disk.clone()));
    let (one, told) = rig.connection();
    one.put(vec![part("be", false)]);
    rig.until("it has begun", || told.counts() == (1, 0));
    harm(&disk);
    one.put(vec![part("gin", true)]);
    rig.until(what, || !rig.events.conditions().lasting().is_empty() || told.counts().1 == 1);
    mend(&disk);
    rig.until("it is kept", || told.counts() == (2, 1));
    rig.clock.advance(Duration::from_secs(1));
    assert_eq!((rig.events.conditions().lasting(), rig.poison.reason()), (vec![], None), "{what}");
    assert_eq!(disk.after_power_cut(1).bytes("a_b-0.records").expect("kept"), b"begin", "{what}");
    rig.end();
}

#[test]
fn a_record_waits_for_a_disk_that_takes_nothing() {
    check("a full disk", |disk| disk.set_full(true), |disk| disk.set_full(false));
    check("a failing write", |disk| disk.fail(disk.calls() + 1, Fault::Broken), |_| ());
    check("a directory that is removed", MemoryStorage::lose_directory, |_| ());
}

#[test]
fn two_processes_take_no_names_from_each_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || Arc::new(Directory::open(dir.path()).expect("a directory"));
    let first = rig(open());
    let options = options_of("a/b", &first);
    let refusal = OversizedStore::open(open(), options).err().expect("in use").to_string();
    let (source, process) =
        ("source `a/b` keeps ", format!("in use by process {}", std::process::id()));
    assert!(refusal.contains(source) && refusal.contains(&process), "{refusal}");
    // A source of another name goes there too; a file that somebody else has put there stays.
    let other = OversizedStore::open(open(), options_of("c", &first)).expect("another name");
    drop(other);
    std::fs::write(dir.path().join("a_b-0.records"), "of others").expect("written");
    let (one, told) = first.connection();
    one.put(vec![part("record\n", true)]);
    first.until("it is kept", || told.counts() == (1, 1));
    drop(one);
    first.end();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("there");
    assert_eq!(
        (read("a_b-0.records"), read("a_b-1.records")),
        ("of others".into(), "record\n".into())
    );
    drop(rig(open()).keeper);
}

#[test]
fn the_condition_says_what_waits_and_what_is_needed() {
    let disk = MemoryStorage::new(0);
    let rig = rig(Arc::new(disk.clone()));
    let (one, told) = rig.connection();
    disk.set_full(true);
    one.put(vec![part("ab", true)]);
    rig.until("it waits", || !rig.events.conditions().lasting().is_empty());
    let text = rig.events.conditions().lasting()[0].text();
    assert_eq!(
        text,
        "dead letters `memory`: an over-long record of source `a/b` cannot be put aside and waits, with its connection: \
         no storage space; 2 B must become free on its disk"
    );
    // The stop waits for no disk: the record was not answered, and is sent again.
    let account = Arc::clone(&rig.account);
    assert_eq!(told.counts(), (0, 0));
    rig.end();
    assert_eq!((told.counts(), account.used()), ((1, 0), 0));
    assert_eq!(disk.list().expect("listed"), Vec::<String>::new());
}

/// Lets each call in turn go wrong, over several records: what was answered is there after a power cut, and what has its name
/// is whole.
fn crashes() -> Result<(), String> {
    for fault in [Fault::Broken, Fault::Full, Fault::Interrupted, Fault::Short, Fault::PowerCut] {
        for call in 2..=18 {
            let disk = MemoryStorage::new(call);
            let rig = rig(Arc::new(disk.clone()));
            disk.fail(call, fault);
            let (one, told) = rig.connection();
            one.put(vec![part("first ", false)]);
            one.put(vec![part("record\n", true), part("first record\n", true)]);
            let poison = rig.poison.clone();
            let is_off = || fault == Fault::PowerCut && disk.calls() >= call;
            rig.until("it is over", || {
                told.counts() == (2, 2) || poison.reason().is_some() || is_off()
            });
            rig.end();
            let (_, kept) = told.counts();
            for seed in 0..20 {
                let after = disk.after_power_cut(seed);
                let names = after.list().expect("listed");
                let named = || names.iter().filter(|name| !name.starts_with('.'));
                let whole = |name: &String| after.bytes(name).as_deref() == Some(b"first record\n");
                if (named().count() as u64) < kept || !named().all(whole) {
                    return Err(format!("{fault:?} at call {call}: {kept} kept, {names:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_answered_survives_a_power_cut_and_any_failure() {
    assert_eq!(crashes(), Ok(()));
}

/// Keeps a record on this thread, where a planted defect is in force, until the power is cut at this call. True if the record
/// is lost or torn then.
#[cfg(tidemill_planted)]
fn loses(call: u64) -> bool {
    let (other, disk) = (rig(Arc::new(MemoryStorage::new(0))), MemoryStorage::new(call));
    disk.fail(call, Fault::PowerCut);
    let storage = Arc::new(disk.clone());
    let store = OversizedStore::open(storage, options_of("a/b", &other)).expect("a directory");
    let told = Arc::new(Told::default());
    let one = store.connection(Arc::clone(&told) as Arc<dyn Owner>);
    one.put(vec![part("first record\n", true)]);
    drop(one);
    store.close();
    store.run();
    other.end();
    let is_kept = told.counts().1 == 1;
    (0..20).any(|seed| match disk.after_power_cut(seed).bytes("a_b-0.records") {
        Some(bytes) => bytes != b"first record\n",
        None => is_kept,
    })
}

#[cfg(tidemill_planted)]
#[test]
fn missing_syncs_are_found() {
    use crate::sync::planted::{Planted, with};
    assert!(!(2..=9).any(loses));
    for defect in [Planted::SkipSync, Planted::RenameBeforeSync] {
        assert!((2..=9).any(|call| with(defect, || loses(call))), "{defect:?}");
    }
}
