//! `EventBus`: the bounded bus that carries facts to listeners.
//!
//! Any thread posts without waiting; the `events` thread calls the listeners. If they are too slow, facts are dropped and
//! counted, because the stream must not wait for its observers. Conditions and tallies are not dropped: the thread asks
//! their registries for what is due.

use crate::error::{Error, Result};
use crate::sync::thread::{self, Thread};
use crate::sync::{Arc, AtomicU64, Mailbox, Ordering, Poison};
use crate::time::{Clock, SystemClock};

use super::conditions::Conditions;
use super::event::{Event, Listener};
use super::tallies::Tallies;

/// The most facts in flight; further ones are dropped and counted.
const EVENTS_MAX: usize = 4096;

/// The way of events to the listeners, for a source of your own; see
/// [`DirectStart::events`](crate::source::DirectStart). Clones are handles of the same bus. Any thread may post; nobody
/// waits.
///
/// ```
/// use tidemill::Event;
/// use tidemill::source::DirectStart;
///
/// /// Reports a file that a source of your own cannot read.
/// fn skipped(start: &DirectStart, file: &str) {
///     let (source, file, why) = (start.source.clone(), file.to_owned(), "it is empty".to_owned());
///     start.events.post(Event::FileSkipped { source, file, why });
/// }
/// ```
#[derive(Clone, Debug)]
pub struct EventBus {
    mailbox: Mailbox<Event>,
    dropped: Arc<AtomicU64>,
    conditions: Conditions,
    tallies: Tallies,
    clock: Arc<dyn Clock>,
}

impl Default for EventBus {
    fn default() -> Self {
        EventBus::with_clock(SystemClock::new())
    }
}

impl EventBus {
    /// Creates a bus without listeners. It delivers nothing until [`start`](EventBus::start).
    #[doc(hidden)]
    pub fn new() -> Self {
        EventBus::default()
    }

    /// Creates a bus whose conditions take their times from this clock.
    #[doc(hidden)]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let mailbox = Mailbox::new(EVENTS_MAX);
        let conditions = Conditions::new(Arc::clone(&clock), mailbox.signal().clone());
        let tallies = Tallies::new(Arc::clone(&clock), mailbox.signal().clone());
        EventBus { mailbox, dropped: Arc::default(), conditions, tallies, clock }
    }

    /// The registry of conditions: problems that last.
    #[doc(hidden)]
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// The registry of tallies: things that happen often.
    #[doc(hidden)]
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Posts an event without waiting. Beyond 4096 events that wait it is dropped and counted.
    pub fn post(&self, event: Event) {
        if self.mailbox.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of facts that were dropped because the listeners were too slow.
    #[doc(hidden)]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Starts the `events` thread, which calls every listener with every fact until the bus is closed.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    #[doc(hidden)]
    pub fn start(&self, mut listeners: Vec<Box<dyn Listener>>, poison: &Poison) -> Result<Thread> {
        let bus = self.clone();
        let tell = move |event: &Event| listeners.iter_mut().for_each(|it| it.on_event(event));
        thread::spawn("events", poison, move || bus.run(tell))
            .map_err(|err| Error::io("cannot start the thread `events`", err))
    }

    /// The body of the thread: delivers posted facts, due conditions and due tallies until the bus is closed.
    fn run(&self, mut tell: impl FnMut(&Event)) {
        loop {
            let posted = self.mailbox.try_recv();
            let is_over = posted.is_none() && self.mailbox.is_closed_and_empty();
            let is_idle = posted.is_none() && !is_over;
            posted.iter().for_each(&mut tell);
            self.conditions.take_due(is_over).iter().for_each(&mut tell);
            self.tallies.take_due(is_over).iter().for_each(&mut tell);
            if is_over {
                return;
            }
            if is_idle {
                let due = self.conditions.due().into_iter().chain(self.tallies.due()).min();
                self.clock.wait(self.mailbox.signal(), due);
            }
        }
    }

    /// Closes the bus: facts that were posted are delivered, then the thread ends.
    #[doc(hidden)]
    pub fn close(&self) {
        self.mailbox.close();
    }
}
