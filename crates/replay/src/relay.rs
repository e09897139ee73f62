//! The relay: one listener, a task a client, and a clock for all.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::client;
use crate::error::Error;
use crate::faults::{Fault, Order, end_of};
use crate::host::Host;
use crate::settings::Settings;
use crate::shared::Shared;

/// Time the clients have to end once the relay is cancelled.
const SHUTDOWN: Duration = Duration::from_secs(6);
/// Pause after a connection that could not be accepted: the process may be out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens, prepares frames, and serves once it runs.
#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    preparing: Option<JoinHandle<()>>,
    /// Ends the preparation when the relay is dropped.
    _stop: DropGuard,
}

/// Reads and checks the recording, listens, and begins to prepare frames; clients are served once [`Relay::run`] is called.
///
/// # Errors
/// Where a setting is out of range, the recording cannot be read or served, or the address cannot be listened on.
pub async fn bind(settings: Settings) -> Result<Relay, Error> {
    let address = settings.address;
    let bound = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bound)?;
    let address = listener.local_addr().map_err(bound)?;
    let host = host(settings).await?;
    let stop = CancellationToken::new();
    let preparing = spawn_blocking({
        let (stock, stop) = (Arc::clone(&host.stock), stop.clone());
        move || {
            for number in (0..stock.ahead()).take_while(|_| !stop.is_cancelled()) {
                stock.make(number);
            }
        }
    });
    let shared = Arc::new(Shared::new(host));
    Ok(Relay { listener, address, shared, preparing: Some(preparing), _stop: stop.drop_guard() })
}

/// Reads the recording away from the sockets.
async fn host(settings: Settings) -> Result<Arc<Host>, Error> {
    let host = spawn_blocking(move || Host::new(settings)).await.map_err(|source| Error::Prepare { source })??;
    Ok(Arc::new(host))
}

impl Relay {
    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The seq of the newest live event; see [`Handle::head`].
    pub fn head(&self) -> u64 {
        self.shared.desk().host.head()
    }

    /// A handle that tells of the relay while it runs, and makes it misbehave.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Waits until everything is prepared that is prepared ahead: all frames where they fit, else the first few MiB.
    ///
    /// # Errors
    /// [`Error::Prepare`] where the preparation died.
    pub async fn prepared(&mut self) -> Result<(), Error> {
        match self.preparing.take() {
            Some(preparing) => preparing.await.map_err(|source| Error::Prepare { source }),
            None => Ok(()),
        }
    }

    /// Starts the clock and serves clients until cancelled; then each client gets a close, and what it has of its present
    /// frame to come.
    ///
    /// # Errors
    /// None at present: a client's failure is its own.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), Error> {
        self.shared.desk().host.start();
        info!(address = %self.address, "relay listening");
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = self.listener.accept() => accepted,
                Some(ended) = clients.join_next() => {
                    if let Err(error) = ended {
                        warn!(error = &error as &dyn std::error::Error, "client task died");
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (shared, cancel) = (Arc::clone(&self.shared), cancel.clone());
                    clients.spawn(async move {
                        let _counted = shared.count_client();
                        if let Err(error) = client::serve(stream, &shared, &cancel).await {
                            debug!(error = &error as &dyn std::error::Error, %peer, "connection failed");
                        }
                    });
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let all_ended = async { while clients.join_next().await.is_some() {} };
        if timeout(SHUTDOWN, all_ended).await.is_err() {
            warn!(clients = clients.len(), "clients disconnected");
        }
        Ok(())
    }
}

/// Tells of a relay while it runs, and makes it misbehave.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The seq of the newest live event, skipped or not; one below the first event's where there is none yet. Where the relay is
    /// endless and unlimited, the newest that any client took.
    pub fn head(&self) -> u64 {
        self.shared.desk().host.head()
    }

    /// The number of open connections.
    pub fn clients(&self) -> usize {
        self.shared.clients.load(Ordering::Relaxed)
    }

    /// The number of events handed to clients so far, all clients together.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Makes the relay misbehave once, for every client. Returns the number of connections that are told; none of a [`Fault::Skip`].
    ///
    /// A fault meets the connections that are open; [`Fault::Stall`], [`Fault::Freeze`] and [`Fault::Refuse`] also those made until
    /// it ends. What is injected during a freeze is met after it; garbage and repeats injected during a stall too.
    ///
    /// # Errors
    /// A restart's, where a setting is out of range or the recording cannot be read or served; then nothing has changed.
    pub async fn inject(&self, fault: Fault) -> Result<usize, Error> {
        let desk = || self.shared.desk();
        Ok(match fault {
            Fault::Close => desk().tell(Order::Close),
            Fault::Cut => desk().tell(Order::Cut),
            Fault::Stall(time) => desk().stall(end_of(time)),
            Fault::Freeze(time) => desk().freeze(end_of(time)),
            Fault::Garbage => desk().tell(Order::Garbage),
            Fault::ErrorFrame => desk().tell(Order::TooSlow),
            Fault::Repeat(n) => desk().tell(Order::Repeat(n)),
            Fault::Skip(n) => {
                desk().host.skip(n);
                0
            }
            Fault::Refuse(time) => desk().refuse(end_of(time)),
            Fault::Restart(settings) => {
                let host = host(*settings).await?;
                desk().restart(host)
            }
        })
    }

    /// Gives up a DID in the directory: its document is gone from now on (410), as after a tombstone. Without effect where the relay is no
    /// directory, and until a [`Fault::Restart`].
    pub fn bury(&self, did: &str) {
        let host = Arc::clone(&self.shared.desk().host);
        if let Some(directory) = host.stock.directory() {
            directory.bury(did);
        }
    }

    /// The seqs that [`Fault::Skip`] left out, in order; those of a timeline that a [`Fault::Restart`] ended are forgotten.
    pub fn skipped(&self) -> Vec<RangeInclusive<u64>> {
        self.shared.desk().host.skipped()
    }
}
