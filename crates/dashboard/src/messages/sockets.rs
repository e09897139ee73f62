//! The clients of `/ws/stats`: every frame is written once and shared by all, none of which can hold up another.

use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio::time::{interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::events::Events;

/// How many frames a client may be behind; then it goes on with the oldest of those, as each carries all statistics.
const FRAMES: usize = 64;

/// The close code that tells clients to come back: service restart (RFC 6455's registry).
const RESTART: CloseFrame = CloseFrame { code: 1012, reason: Utf8Bytes::from_static("service restart") };

/// The close code for who gives no sign of life: policy violation.
const SILENT: CloseFrame = CloseFrame { code: 1008, reason: Utf8Bytes::from_static("no sign of life") };

/// How long taking leave of a client may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The clients.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    frames: Sender<Utf8Bytes>,
    tracker: TaskTracker,
    /// How often clients are asked for a sign of life.
    ping: Duration,
    events: Events,
}

/// One client's place.
pub(crate) struct Place {
    frames: Receiver<Utf8Bytes>,
    ping: Duration,
    presence: Presence,
    _tracked: TaskTrackerToken,
}

/// Counts a client as long as it is there.
struct Presence(Events);

// === impl Sockets ===

impl Sockets {
    pub(super) fn new(ping: Duration, events: Events) -> Self {
        Self { frames: channel(FRAMES).0, tracker: TaskTracker::new(), ping, events }
    }

    /// Returns how many clients there are.
    pub(crate) fn clients(&self) -> usize {
        self.frames.receiver_count()
    }

    /// Makes place for one more, which gets all frames from now on.
    pub(crate) fn join(&self) -> Place {
        let frames = self.frames.subscribe();
        self.events.socket_came();
        Place { frames, ping: self.ping, presence: Presence(self.events.clone()), _tracked: self.tracker.token() }
    }

    /// Sends a frame to everyone.
    pub(super) fn send(&self, frame: String) {
        // Without clients there is nobody to tell.
        let _ = self.frames.send(frame.into());
    }

    /// Waits until every client has gone.
    pub(crate) async fn gone(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

// === impl Place ===

impl Place {
    /// Serves the client until it goes, gives no sign of life, or the service ends.
    pub(crate) async fn serve(mut self, mut socket: WebSocket, ending: CancellationToken) {
        let farewell = match ending.run_until_cancelled(self.pass(&mut socket)).await {
            None => Some(RESTART),
            Some(farewell) => farewell,
        };
        let Some(farewell) = farewell else { return };
        let leave = async {
            if socket.send(Message::Close(Some(farewell))).await.is_ok() {
                // Until it says so too: a connection that is closed at once may lose what it was told.
                while let Some(Ok(_)) = socket.recv().await {}
            }
        };
        let _ = timeout(FAREWELL, leave).await;
    }

    /// Passes frames on; returns what to say at the end, where there is somebody to tell.
    async fn pass(&mut self, socket: &mut WebSocket) -> Option<CloseFrame> {
        let mut pings = interval_at(tokio::time::Instant::now() + self.ping, self.ping);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                frame = self.frames.recv() => match frame {
                    Ok(frame) => socket.send(Message::Text(frame)).await.ok()?,
                    Err(RecvError::Lagged(missed)) => self.presence.0.client_fell_behind(missed),
                    Err(RecvError::Closed) => return Some(RESTART),
                },
                message = socket.recv() => match message {
                    // What clients say means nothing but that they are there; pings are answered by the library.
                    Some(Ok(_)) => heard = Instant::now(),
                    Some(Err(_)) | None => return None,
                },
                _ = pings.tick() => {
                    if heard.elapsed() > 2 * self.ping {
                        self.presence.0.slow_client_cut("sent nothing");
                        return Some(SILENT);
                    }
                    socket.send(Message::Ping(axum::body::Bytes::new())).await.ok()?;
                }
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.socket_went();
    }
}
