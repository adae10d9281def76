//! The hand-over of unfinished records under the schedule explorer: the reader takes a victim's memory, and its connection learns
//! of it on its own thread.

use super::*;
use crate::sync::explore::{check, thread};
use crate::sync::planted::Planted;

const BOUND: usize = 1_024;

/// The owner of a connection on this machine.
fn owner(counters: &Arc<ReceiverCounters>, way: Way) -> Arc<Owner> {
    let peer = ([127, 0, 0, 1], 1).into();
    Owner::new(OwnerOptions { source: "in", peer, counters, way, remote: None })
}

/// A connection that sends three pieces of a record twice; returns the number of times that it was given up.
fn connection(unfinished: &Unfinished, counters: &Arc<ReceiverCounters>) -> u64 {
    let owner = owner(counters, Way::Drop);
    let mut given_up = 0;
    for _ in 0..2 {
        let (mut place, mut come) = (None, 0);
        for piece in 1..=3 {
            let record = match place {
                None => Ok(Vec::new()),
                Some(place) => unfinished.take(place, &owner),
            };
            let Ok(mut record) = record else {
                come = 0;
                (given_up, place) = (given_up + 1, None);
                break;
            };
            record.reserve_exact(piece * 300);
            record.resize(piece * 300, 0);
            counters.unfinished_bytes.change(come, record.len() as u64);
            come = record.len() as u64;
            place = Some(unfinished.park(place, &owner, record));
        }
        if let Some(place) = place {
            match unfinished.take(place, &owner) {
                Ok(_) => {
                    unfinished.leave(place);
                    counters.unfinished_bytes.sub(come);
                }
                Err(_) => given_up += 1,
            }
        }
    }
    given_up
}

#[test]
fn every_record_that_is_given_up_is_learned_of_once_and_the_count_is_true() {
    check(2_000, &[Planted::GivenUpTellsNobody], || {
        let (account, counters) =
            (MemoryBudget::new(1 << 20), Arc::new(ReceiverCounters::default()));
        let sources = Sources { record_bytes_max: 900, connections_max: 2 };
        let unfinished = Unfinished::new(BOUND, sources, &account, &EventBus::new());
        let total = Arc::new(Mutex::new(0));
        let connections = [(); 2].map(|()| {
            let (unfinished, counters) = (Arc::clone(&unfinished), Arc::clone(&counters));
            let total = Arc::clone(&total);
            thread("connection", move || *total.lock() += connection(&unfinished, &counters))
        });
        connections.into_iter().for_each(crate::sync::thread::Thread::join);
        let learned = *total.lock();
        assert_eq!((counters.given_up.value(), counters.overlong.value()), (learned, learned));
        assert_eq!((account.unfinished(), unfinished.ledger.lock().bytes), (0, 0));
        assert_eq!(counters.unfinished_bytes.value(), 0);
    });
}
