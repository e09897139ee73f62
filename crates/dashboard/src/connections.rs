//! How many connections there may be, in all and from one address: what comes beyond is told so and closed.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::settings::{Dashboard, Network};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::peer::Peer;

/// Files that are kept open for Redis, PostgreSQL and the listeners.
const OTHER_FILES: usize = 64;

/// The answer to who finds no place.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\n\
    connection: close\r\ncontent-length: 143\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections (dashboard.maxConnections): try again later\"}\r\n";

/// The connections under way; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pub(crate) tracker: TaskTracker,
    seats: Seats,
}

#[derive(Clone, Debug)]
struct Seats(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    most: usize,
    most_per_peer: usize,
    /// Whose connections are those of many.
    exempt: Vec<Network>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
    /// Whether somebody was refused since there was room.
    is_full: bool,
}

/// The place of one connection; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    peer: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are as many as there may be; whether this is the first that was refused.
    Process { first: bool },
    /// This address has as many as it may have.
    Peer,
}

// === impl Connections ===

impl Connections {
    /// Bounds them by the settings, and by the files that the system lets this process open.
    pub(crate) fn new(settings: &Dashboard) -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let most = open_files(&limits).map_or(settings.max_connections, |files| {
            settings.max_connections.min(files.saturating_sub(OTHER_FILES).max(files / 2))
        });
        let bounds = Bounds {
            most,
            most_per_peer: settings.max_connections_per_peer,
            exempt: settings.trusted_proxies.clone(),
            taken: Mutex::default(),
        };
        Self { tracker: TaskTracker::new(), seats: Seats(Arc::new(bounds)) }
    }

    /// Takes a place for a connection.
    pub(crate) fn take(&self, peer: Peer) -> Result<Seat, Full> {
        self.seats.take(peer)
    }
}

// === impl Seats ===

impl Seats {
    fn take(&self, peer: Peer) -> Result<Seat, Full> {
        let Bounds { most, most_per_peer, ref exempt, .. } = *self.0;
        let mut taken = self.taken();
        if taken.all >= most {
            let first = !std::mem::replace(&mut taken.is_full, true);
            return Err(Full::Process { first });
        }
        let is_exempt = exempt.iter().any(|network| network.contains(peer.0));
        let peer = (!is_exempt).then(|| peer.client());
        if let Some(peer) = peer {
            let own = taken.by_peer.entry(peer).or_default();
            if *own >= most_per_peer {
                return Err(Full::Peer);
            }
            *own += 1;
        }
        taken.all += 1;
        // Told again only once there was room for a tenth.
        if taken.all <= most - most / 10 {
            taken.is_full = false;
        }
        Ok(Seat { seats: self.clone(), peer })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(peer) = self.peer
            && let Some(own) = taken.by_peer.get_mut(&peer)
        {
            *own -= 1;
            if *own == 0 {
                taken.by_peer.remove(&peer);
            }
        }
    }
}

/// Tells a client that there is no place for it, as far as that is possible without waiting, and ends the connection.
pub(crate) fn refuse(stream: &TcpStream) {
    let _ = stream.try_write(FULL);
    // What was sent and nobody reads would have the system reset the connection, and the answer with it.
    let _ = stream.try_read(&mut [0; 4096]);
}

/// Reads how many files this process may have open, out of what the kernel says of its limits.
fn open_files(limits: &str) -> Option<usize> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    soft.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(most: usize, most_per_peer: usize, exempt: &[&str]) -> Connections {
        use penstock_core::settings::Value as _;
        let exempt = exempt.iter().map(|network| Network::parse(network).unwrap()).collect();
        let bounds = Bounds { most, most_per_peer, exempt, taken: Mutex::default() };
        Connections { tracker: TaskTracker::new(), seats: Seats(Arc::new(bounds)) }
    }

    #[test]
    fn there_are_no_more_than_there_may_be_and_who_goes_leaves_room() {
        let connections = connections(20, 3, &["10.0.0.0/8"]);
        let take = |peer: &str| connections.take(Peer(peer.parse().unwrap()));
        let own: Vec<Seat> = (0..3).map(|_| take("192.0.2.1").unwrap()).collect();
        assert_eq!(take("192.0.2.1").unwrap_err(), Full::Peer);
        assert_eq!(take("::ffff:192.0.2.1").unwrap_err(), Full::Peer, "the same address");
        let mut proxied: Vec<Seat> = (0..17).map(|_| take("10.1.1.1").unwrap()).collect();
        assert_eq!(take("192.0.2.2").unwrap_err(), Full::Process { first: true });
        assert_eq!(take("10.1.1.1").unwrap_err(), Full::Process { first: false });
        // One goes and one comes: told once.
        proxied.pop();
        proxied.push(take("10.1.1.1").unwrap());
        assert_eq!(take("192.0.2.2").unwrap_err(), Full::Process { first: false });
        drop(own);
        let again = take("192.0.2.1").unwrap();
        drop((again, proxied));
        assert!(connections.seats.taken().by_peer.is_empty(), "nobody is remembered who is gone");
        assert_eq!(connections.seats.taken().all, 0);
    }

    #[test]
    fn the_answer_to_who_finds_no_place_is_as_long_as_it_says() {
        let text = str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["status"], 503);
    }

    #[test]
    fn the_kernel_says_how_many_files_there_may_be() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files"), None);
        assert_eq!(open_files(""), None);
        assert!(open_files(&fs::read_to_string("/proc/self/limits").unwrap()).is_some_and(|files| files > 10));
    }
}
