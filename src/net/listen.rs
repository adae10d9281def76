//! Binding: listens at all the addresses of a name that this machine has.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::lookup::Names;

/// The most ports tried where any port will do, but the same one at every address.
const PORTS_TRIED: usize = 16;

/// The sockets that were bound.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// Non-blocking, with SO_REUSEADDR, so that a restart can bind again at once.
    pub(crate) listeners: Vec<TcpListener>,
    /// Their addresses, in the same order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Addresses of the name that this machine does not have, each with the system's error.
    pub(crate) left_out: Vec<(SocketAddr, io::Error)>,
}

/// The reason why no socket was bound.
#[derive(Debug)]
pub(crate) struct NotBound {
    /// The address that could not be bound; `None` if the lookup failed.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) err: io::Error,
}

/// Listens at every address of `address` (`HOST:PORT`) that this machine has. Port 0 takes a free port, the same at each.
///
/// # Errors
/// If an address is in use, or this machine has none of them.
pub(crate) fn listen(names: &Names, address: &str, backlog: i32) -> Result<Bound, NotBound> {
    bind_any(names, address, Some(backlog))
}

/// Checks that [`listen`] would succeed there now. Accepts no peer, and the addresses are free again on return.
///
/// # Errors
/// As [`listen`].
pub(crate) fn expect_free(names: &Names, address: &str) -> Result<(), NotBound> {
    bind_any(names, address, None).map(drop)
}

/// Without a backlog, binds the sockets and does not listen.
fn bind_any(names: &Names, address: &str, backlog: Option<i32>) -> Result<Bound, NotBound> {
    let addresses = names.now(address).map_err(|err| NotBound { address: None, err })?;
    let any_port = addresses.len() > 1 && addresses[0].port() == 0;
    let mut tries = if any_port { PORTS_TRIED } else { 1 };
    loop {
        tries -= 1;
        match bind_all(&addresses, backlog) {
            Err(not) if not.err.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_all(addresses: &[SocketAddr], backlog: Option<i32>) -> Result<Bound, NotBound> {
    let mut bound = Bound::default();
    for &address in addresses {
        let port = match (address.port(), bound.addresses.first()) {
            (0, Some(first)) => first.port(),
            (port, _) => port,
        };
        let address = SocketAddr::new(address.ip(), port);
        // Beside an IPv4 socket of the same port, an IPv6 socket must not accept IPv4 peers.
        let bind = || -> io::Result<(TcpListener, SocketAddr)> {
            let listener = bind(address, addresses.len() > 1, backlog)?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        match bind() {
            Ok((listener, local)) => {
                bound.listeners.push(listener);
                bound.addresses.push(local);
            }
            Err(err) if is_not_ours(&err) => bound.left_out.push((address, err)),
            Err(err) => return Err(NotBound { address: Some(address), err }),
        }
    }
    match bound.left_out.pop() {
        Some((address, err)) if bound.listeners.is_empty() => {
            Err(NotBound { address: Some(address), err })
        }
        last => {
            bound.left_out.extend(last);
            Ok(bound)
        }
    }
}

fn bind(address: SocketAddr, v6_alone: bool, backlog: Option<i32>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && v6_alone {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    backlog.map_or(Ok(()), |backlog| socket.listen(backlog))?;
    Ok(socket.into())
}

/// True if this machine does not have the address, or has nothing of its family.
fn is_not_ours(err: &io::Error) -> bool {
    let unknown_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    err.kind() == io::ErrorKind::AddrNotAvailable || err.raw_os_error() == Some(unknown_family)
}

#[cfg(all(test, not(tidemill_model)))]
mod tests {
    use super::*;

    /// An address that no machine has (RFC 5737).
    const NOT_OURS: &str = "192.0.2.1:0";

    fn listen_at(texts: &[&str]) -> Result<Bound, NotBound> {
        let found: Vec<SocketAddr> =
            texts.iter().map(|text| text.parse().expect("an address")).collect();
        listen(&Names::asking(move |_| Ok(found.clone())), "name:0", 8)
    }

    fn ips(bound: &Bound) -> Vec<String> {
        bound.addresses.iter().map(|address| address.ip().to_string()).collect()
    }

    #[test]
    fn every_address_that_the_machine_has_is_bound_at_one_port() {
        let bound = listen_at(&["127.0.0.1:0", NOT_OURS, "127.0.0.2:0"]).expect("bound");
        assert_eq!(ips(&bound), ["127.0.0.1", "127.0.0.2"]);
        assert_eq!(bound.addresses[0].port(), bound.addresses[1].port());
        assert_eq!(bound.left_out.len(), 1);
        assert_eq!(bound.left_out[0].0.ip().to_string(), "192.0.2.1");
        for address in &bound.addresses {
            std::net::TcpStream::connect(address).expect("it listens");
        }
    }

    #[test]
    fn both_families_may_have_one_port() {
        // Without IPv6 on this machine, that address is left out.
        let bound = listen_at(&["0.0.0.0:0", "[::]:0"]).expect("bound");
        assert_eq!(bound.listeners.len() + bound.left_out.len(), 2);
        assert_eq!(ips(&bound)[0], "0.0.0.0");
    }

    #[test]
    fn a_taken_address_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.2:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let first = format!("127.0.0.1:{}", address.port());
        let not = listen_at(&[&first, &address.to_string()]).expect_err("taken");
        assert_eq!((not.address, not.err.kind()), (Some(address), io::ErrorKind::AddrInUse));
        let names = Names::asking(move |_| Ok(vec![address]));
        let not = expect_free(&names, "name:0").expect_err("taken");
        assert_eq!((not.address, not.err.kind()), (Some(address), io::ErrorKind::AddrInUse));
        drop(taken);
        assert!(expect_free(&names, "name:0").is_ok());
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens");
    }

    #[test]
    fn a_machine_without_any_of_them_cannot_listen() {
        let not = listen_at(&[NOT_OURS]).expect_err("not ours");
        assert_eq!(not.err.kind(), io::ErrorKind::AddrNotAvailable);
        let not = listen(&Names::asking(|_| Ok(Vec::new())), "name:0", 8).expect_err("no address");
        assert_eq!(not.address, None);
    }
}
