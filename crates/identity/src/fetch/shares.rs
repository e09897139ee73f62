//! How many requests one address may have at a time, whatever names it has, and all of them together.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Those to one address, or to what one IPv6 network is given.
pub(super) const OF_ADDRESS: usize = 16;

/// All but those to the directory.
const OF_ALL: usize = 256;

/// Addresses that are remembered without being asked.
const ADDRESSES: usize = 4 * 1024;

/// A share of an address, and one of all requests.
pub(super) type Share = [OwnedSemaphorePermit; 2];

/// Gives shares out.
#[derive(Debug)]
pub(super) struct Shares {
    addresses: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    patience: Duration,
}

// === impl Shares ===

impl Shares {
    pub(super) fn new(patience: Duration) -> Self {
        Self { addresses: Mutex::default(), all: Arc::new(Semaphore::new(OF_ALL)), patience }
    }

    /// Takes a share of an address, and of all requests; none where they do not come free in time.
    pub(super) async fn of(&self, address: IpAddr) -> Option<Share> {
        let key = match address {
            IpAddr::V4(_) => address,
            // Whoever has one address of such a network has them all.
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !(u128::MAX >> 48)).into()),
        };
        let share = {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if addresses.len() >= ADDRESSES {
                addresses.retain(|_, share| share.available_permits() < OF_ADDRESS || Arc::strong_count(share) > 1);
            }
            Arc::clone(addresses.entry(key).or_insert_with(|| Arc::new(Semaphore::new(OF_ADDRESS))))
        };
        // In this order: who waits for a slow address takes nothing from the others.
        let shares = timeout(self.patience, async {
            let of_address = share.acquire_owned().await.ok()?;
            Some([of_address, Arc::clone(&self.all).acquire_owned().await.ok()?])
        });
        shares.await.ok()?
    }
}
