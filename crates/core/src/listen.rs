//! Listening for connections, on a host with IPv4, IPv6 or both.
//!
//! `[::]` stands for every address of both kinds: a pod of an IPv6-only or dual-stack cluster is asked at addresses of either. Called
//! by whatever serves: the admin server, the dashboard, the operator.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted, where the caller has no number of its own.
const BACKLOG: i32 = 1024;

/// Listens on `address`.
///
/// `[::]` takes IPv4 too, whatever `net.ipv6.bindv6only` says; where the kernel has no IPv6, it is `0.0.0.0`.
///
/// # Errors
///
/// The address is taken, or none of this host.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, BACKLOG, |_| Ok(()))
}

/// Listens like [`listen`], with a backlog and options of the socket that `prepare` sets before it is bound.
///
/// # Errors
///
/// Those of [`listen`] and of `prepare`.
pub fn listen_with(
    address: SocketAddr,
    backlog: i32,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<TcpListener> {
    first_possible(address, |address| open(address, backlog, &prepare))
}

/// Tries an address; where it is `[::]` and the kernel has no IPv6, the same of IPv4.
fn first_possible<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if is_every_address(address) && is_without_ipv6(&error) => {
            open((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        opened => opened,
    }
}

fn open(address: SocketAddr, backlog: i32, prepare: impl Fn(&Socket) -> io::Result<()>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if is_every_address(address) {
        socket.set_only_v6(false)?;
    }
    // A port whose last connections are still closing is free.
    socket.set_reuse_address(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn is_every_address(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Tells a kernel without IPv6 (`ipv6.disable=1`, or not compiled in) from an address that is taken.
fn is_without_ipv6(error: &io::Error) -> bool {
    // Linux's numbers: std has no kind for the first two.
    const EPROTONOSUPPORT: i32 = 93;
    const EAFNOSUPPORT: i32 = 97;
    matches!(error.raw_os_error(), Some(EPROTONOSUPPORT | EAFNOSUPPORT))
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::net::TcpStream;

    use super::*;

    /// Whether this host has IPv6 at all.
    fn has_ipv6() -> bool {
        std::net::TcpListener::bind("[::1]:0").is_ok()
    }

    #[tokio::test]
    async fn every_address_is_of_both_kinds() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut hosts = vec!["127.0.0.1"];
        if has_ipv6() {
            hosts.push("::1");
        }
        for host in hosts {
            let (asked, answered) = tokio::join!(TcpStream::connect((host, port)), listener.accept());
            asked.unwrap();
            let (_, peer) = answered.unwrap();
            assert_eq!(peer.ip().to_canonical().to_string(), host);
        }
    }

    #[tokio::test]
    async fn one_address_is_no_other() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.is_ipv4());
        let error = listen(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let error = listen(format!("[::]:{}", address.port()).parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "nothing else is taken in its place");
    }

    #[test]
    fn without_ipv6_every_address_is_every_one_of_ipv4() {
        // What open says, and where one listens then.
        let table = [
            ("[::]:7", 97, Some("0.0.0.0:7")),
            ("[::]:7", 93, Some("0.0.0.0:7")),
            ("[::]:7", 99, Some("0.0.0.0:7")),
            ("[::]:7", 98, None),
            ("[::]:7", 13, None),
            ("[::1]:7", 97, None),
            ("[2001:db8::1]:7", 99, None),
            ("0.0.0.0:7", 99, None),
        ];
        for (address, number, then) in table {
            let tried = RefCell::new(Vec::new());
            let opened = first_possible(address.parse().unwrap(), |address| {
                tried.borrow_mut().push(address.to_string());
                if tried.borrow().len() == 1 { Err(io::Error::from_raw_os_error(number)) } else { Ok(()) }
            });
            assert_eq!(opened.is_ok(), then.is_some(), "{address} {number}");
            assert_eq!(tried.into_inner()[1..], then.map(str::to_owned).into_iter().collect::<Vec<_>>());
        }
    }
}
