//! `Names`: looks up the addresses of a name, on a thread of its own that the stop leaves behind.
//!
//! ```text
//! rxN-dial-K ─▶ starts rxN-lookup-K ─▶ getaddrinfo(3) ─▶ answer ─▶ signal ─▶ rxN-dial-K
//!      └────── waits on its signal, which the stop raises as well ──────┘
//! ```
//! The call cannot be interrupted, and without an answer it lasts as long as the resolver is configured to wait. The thread
//! holds nothing but the slot of its answer, so nobody needs its end: a stop does not wait for it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::sync::thread;
use crate::sync::{Arc, Mutex, Poison, Signal};

/// The result of a lookup.
type Found = io::Result<Vec<SocketAddr>>;

/// The resolver to ask for the addresses of `HOST:PORT`. Clones ask the same one.
#[derive(Clone)]
pub(crate) struct Names(Arc<dyn Fn(&str) -> Found + Send + Sync>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// The system's resolver.
    pub(crate) fn of_system() -> Self {
        Names::asking(|address| address.to_socket_addrs().map(Iterator::collect))
    }

    /// Another resolver.
    pub(crate) fn asking(ask: impl Fn(&str) -> Found + Send + Sync + 'static) -> Self {
        Names(Arc::new(ask))
    }

    /// The addresses of `address`, each once; waits for the answer.
    pub(crate) fn now(&self, address: &str) -> Found {
        let mut found = (self.0)(address)?;
        let mut known = Vec::with_capacity(found.len());
        found.retain(|address| {
            let is_new = !known.contains(address);
            known.push(*address);
            is_new
        });
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }

    /// The same on the thread `name`, unless `address` is an address already. `wakes` is raised with the answer. Returns
    /// `None` as soon as `is_stopped` returns true, which is checked whenever `wakes` is raised.
    pub(crate) fn on_thread(
        &self,
        address: &str,
        name: &str,
        wakes: &Signal,
        is_stopped: impl Fn() -> bool,
    ) -> io::Result<Option<Vec<SocketAddr>>> {
        if let Ok(address) = address.parse() {
            return Ok(Some(vec![address]));
        }
        let answer = Arc::<Mutex<Option<Found>>>::default();
        let (names, place, signal) = (self.clone(), Arc::clone(&answer), wakes.clone());
        let address = address.to_owned();
        let ask = move || {
            let found = names.now(&address);
            *place.lock() = Some(found);
            signal.raise();
        };
        // A panic in the resolver must not poison an engine that may be gone by then.
        thread::spawn(name, &Poison::new(), ask)?.abandon();
        loop {
            if is_stopped() {
                return Ok(None);
            }
            if let Some(found) = answer.lock().take() {
                return found.map(Some);
            }
            wakes.wait();
        }
    }
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;
    use crate::sync::{AtomicBool, Ordering};

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn a_name_has_each_of_its_addresses_once() {
        let check = |given: &[&str], expected: &[&str]| {
            let given = addresses(given);
            let names = Names::asking(move |_| Ok(given.clone()));
            let wakes = Signal::new();
            let found = names.on_thread("host:1", "lookup", &wakes, || false).expect("found");
            assert_eq!(found, Some(addresses(expected)));
        };
        check(&["127.0.0.1:1"], &["127.0.0.1:1"]);
        check(&["[::1]:1", "127.0.0.1:1", "127.0.0.1:1", "[::1]:1"], &["[::1]:1", "127.0.0.1:1"]);
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let check = |answer: fn() -> Found, expected: &str| {
            let names = Names::asking(move |_| answer());
            let found = names.on_thread("host:1", "lookup", &Signal::new(), || false);
            assert_eq!(found.expect_err("no address").to_string(), expected);
        };
        check(|| Ok(Vec::new()), "the name has no address");
        check(|| Err(io::Error::other("no such name")), "no such name");
    }

    #[test]
    fn an_address_is_no_question() {
        let names = Names::asking(|_| panic!("nobody is asked"));
        let found = names.on_thread("[::1]:7", "lookup", &Signal::new(), || false);
        assert_eq!(found.expect("an address"), Some(addresses(&["[::1]:7"])));
    }

    #[test]
    fn a_stop_leaves_a_question_behind_that_is_not_answered() {
        let (asked, never) = (Signal::new(), Signal::new());
        let (begun, silent) = (asked.clone(), never.clone());
        let names = Names::asking(move |_| {
            begun.raise();
            silent.wait();
            Ok(Vec::new())
        });
        let (wakes, stopped) = (Signal::new(), Arc::new(AtomicBool::new(false)));
        let (stopping, waking) = (Arc::clone(&stopped), wakes.clone());
        let stop = thread::spawn("stop", &Poison::new(), move || {
            asked.wait();
            stopping.store(true, Ordering::SeqCst);
            waking.raise();
        });
        let is_stopped = || stopped.load(Ordering::SeqCst);
        let found = names.on_thread("host:1", "lookup", &wakes, is_stopped);
        assert_eq!(found.expect("it stops"), None);
        stop.expect("a thread").join();
        never.raise();
    }
}
