//! Judges the silence of a host. A busy host that is silent is dead; for a quiet one a second connection is opened, which then
//! replaces the first.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use penstock_core::settings::{Relay, RelayUrl};
use tokio::time::{Instant, sleep};

use crate::intake::Intake;
use crate::relay::socket::{self, ConnectError, Socket};
use crate::relay::transport::Skimming;
use crate::session::outcome::Outcome;

/// How long both connections stay open: events sent while the second one is being made arrive on the first.
const BOTH: Duration = Duration::from_millis(50);

/// How many attempts in a row at a second connection may fail.
const REFUSALS: u32 = 3;

type Asking = Pin<Box<dyn Future<Output = Result<Socket, ConnectError>> + Send>>;

/// The silence of a host on one connection.
pub(crate) struct Silence {
    relay: RelayUrl,
    settings: Relay,
    /// The cursor this connection asked for.
    begun: Option<u64>,
    /// When the last frame arrived.
    since: Instant,
    asking: Option<(Option<u64>, Asking)>,
    refusals: u32,
    refused: Option<ConnectError>,
}

/// An open connection, ready to be read.
pub(crate) struct Spare {
    relay: RelayUrl,
    ask: Option<u64>,
    /// The connection.
    pub(crate) socket: Socket,
}

// === impl Spare ===

impl Spare {
    /// Returns whether it fits this relay and cursor.
    pub(crate) fn is_for(&self, relay: &RelayUrl, ask: Option<u64>) -> bool {
        self.relay == *relay && self.ask == ask
    }
}

// === impl Silence ===

impl Silence {
    /// Starts with a connection that asked for this cursor.
    pub(crate) fn new(relay: &RelayUrl, begun: Option<u64>, settings: &Relay) -> Self {
        Self {
            relay: relay.clone(),
            settings: settings.clone(),
            begun,
            since: Instant::now(),
            asking: None,
            refusals: 0,
            refused: None,
        }
    }

    /// Records that something arrived: the connection is alive.
    pub(crate) fn broken(&mut self) {
        self.since = Instant::now();
        (self.asking, self.refusals) = (None, 0);
    }

    /// Judges the silence of a host that answers pings; called each time it has lasted for the timeout.
    pub(crate) fn judge(&mut self, intake: &mut Intake<'_>, healthy: Duration) -> Option<Outcome> {
        let (now, rhythm) = (Instant::now(), &mut intake.memory.rhythm);
        // Measured from when a frame was taken in, a little after it arrived.
        let timeout = self.settings.data_timeout;
        let silent = self.since.elapsed() + timeout / 4;
        if silent < timeout {
            return None;
        }
        if rhythm.is_busy(now) {
            let detail = format!("no data for {timeout:?} from a busy relay");
            return Some(Outcome::Relay { reason: "silent", detail, healthy });
        }
        if let Some(error) = self.refused.take() {
            self.refusals += 1;
            intake.events.unanswered(&self.relay.host(), &error.to_string(), self.refusals);
            if self.refusals >= REFUSALS {
                let detail = format!("quiet, and a second connection failed: {error}");
                return Some(Outcome::Relay { reason: "silent", detail, healthy });
            }
        }
        if self.asking.is_some() || silent < rhythm.ask_after() {
            return None;
        }
        // Where reading would resume if this connection ended now. Without a cursor there is nothing to ask for.
        let ask = match (intake.taken > 0).then(|| intake.seam.cursor()).flatten() {
            Some(cursor) => cursor.saturating_sub(1),
            None => self.begun?,
        };
        rhythm.asked();
        let (relay, settings) = (self.relay.clone(), self.settings.clone());
        let asking = async move {
            let socket = socket::connect(&relay, Some(ask), Skimming::No, &settings).await?;
            sleep(BOTH).await;
            Ok(socket)
        };
        self.asking = Some((Some(ask), Box::pin(asking)));
        None
    }

    /// Waits for the second connection; forever while none is being made. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> Option<Spare> {
        let Some((ask, asking)) = &mut self.asking else { return std::future::pending().await };
        let ask = *ask;
        let answer = asking.await;
        self.asking = None;
        match answer {
            Ok(socket) => Some(Spare { relay: self.relay.clone(), ask, socket }),
            Err(error) => {
                self.refused = Some(error);
                None
            }
        }
    }
}
