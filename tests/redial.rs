//! Redials of a source: on a clock that the test moves, with real connections, counted by events and never by time.

#![expect(
    clippy::disallowed_methods,
    reason = "a test's peers are threads of the test, not of the engine"
)]

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tidemill::testing::ManualClock;
use tidemill::{
    Config, DStream, Error, Event, ReceiverHandle, SocketSource, StreamHandle, StreamingContext,
};

/// The longest time that anything may take before the test gives up.
const WATCHDOG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Connected,
    /// This many ends in a row, and the wait.
    Waits(u32, Duration),
}

/// A stream that dials.
struct Dialling {
    clock: ManualClock,
    running: StreamHandle,
    told: Receiver<Told>,
    connections: u64,
}

impl Dialling {
    fn start(address: String) -> Dialling {
        Dialling::of(|ctx| ctx.socket(SocketSource::connect([address])).expect("a source"))
    }

    fn of(source: impl FnOnce(&StreamingContext) -> DStream<[u8]>) -> Dialling {
        let clock = ManualClock::new();
        let ctx = StreamingContext::with_clock(Config::new("redial"), clock.clone()).expect("good");
        source(&ctx).foreach_batch(|_, _| Ok(()));
        let (tell, told) = mpsc::channel();
        ctx.add_listener(move |event: &Event| {
            let what = match event {
                Event::Connected { .. } => Told::Connected,
                Event::Retrying { attempt, wait, .. } => Told::Waits(*attempt, *wait),
                _ => return,
            };
            // The test may be over.
            let _ = tell.send(what);
        });
        Dialling { clock, running: ctx.start().expect("started"), told, connections: 0 }
    }

    fn told(&self) -> Told {
        self.told.recv_timeout(WATCHDOG).expect("it goes on")
    }

    /// Waits until it is connected; returns the server's end.
    fn connects(&mut self, server: &Receiver<TcpStream>) -> TcpStream {
        assert_eq!(self.told(), Told::Connected);
        self.connections += 1;
        server.recv_timeout(WATCHDOG).expect("it was accepted")
    }

    /// Waits until it pauses after this many ends in a row, and lets that time pass.
    fn waits(&self, expected: u32) {
        let Told::Waits(attempt, wait) = self.told() else { panic!("it waits after each end") };
        assert_eq!(attempt, expected);
        let doubled = Duration::from_millis(100) * 2_u32.pow(expected - 1);
        let longest = doubled.min(Duration::from_secs(10));
        assert!(wait <= longest && wait >= longest / 4 * 3, "{expected}: {wait:?}");
        self.clock.advance(wait);
    }

    /// Checks that there was no dial that the test does not know.
    fn finish(self, failed: u64) {
        self.running.stopper().stop();
        let (report, outcome) = self.running.finish();
        outcome.expect("an orderly end");
        let counter = |name| report.sources[0].counter(name);
        assert_eq!((counter("opened"), counter("retries")), (self.connections, failed));
        assert_eq!(self.told.try_iter().count(), 0);
    }
}

/// A data server, and the connections that it accepts.
fn server() -> (String, Receiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (accepted, streams) = mpsc::channel();
    thread::spawn(move || {
        listener.incoming().map_while(Result::ok).try_for_each(|stream| accepted.send(stream))
    });
    (address, streams)
}

#[test]
fn a_server_that_accepts_and_closes_is_dialled_after_growing_waits() {
    let (address, streams) = server();
    let mut dialling = Dialling::start(address);
    for attempt in 1..=10 {
        drop(dialling.connects(&streams));
        dialling.waits(attempt);
    }
    let _open = dialling.connects(&streams);
    dialling.finish(0);
}

#[test]
fn a_connection_that_was_older_than_the_wait_before_it_goes_back_to_the_first() {
    let (address, streams) = server();
    let mut dialling = Dialling::start(address);
    for attempt in 1..=3 {
        drop(dialling.connects(&streams));
        dialling.waits(attempt);
    }
    let open = dialling.connects(&streams);
    dialling.clock.advance(Duration::from_secs(1));
    drop(open);
    dialling.waits(1);
    drop(dialling.connects(&streams));
    dialling.waits(2);
    let _open = dialling.connects(&streams);
    dialling.finish(0);
}

#[test]
fn a_server_that_is_not_there_is_dialled_after_the_same_waits() {
    // Nobody listens at this address, which nobody else uses.
    let dialling = Dialling::start("127.77.1.2:9".to_owned());
    for attempt in 1..=9 {
        dialling.waits(attempt);
    }
    let Told::Waits(10, _) = dialling.told() else { panic!("it waits") };
    dialling.finish(10);
}

#[test]
fn a_receiver_of_ones_own_that_stores_a_record_and_fails_is_no_better() {
    let receiver = |handle: &ReceiverHandle| {
        handle.store(b"one")?;
        Err(Error::Failed("and no more".to_owned()))
    };
    let dialling = Dialling::of(|ctx| ctx.receiver_stream("mine", receiver).expect("a source"));
    for attempt in 1..=5 {
        dialling.waits(attempt);
    }
    let Told::Waits(6, _) = dialling.told() else { panic!("it waits") };
    let dialling = Dialling { connections: 6, ..dialling };
    dialling.finish(6);
}
