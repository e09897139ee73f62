//! The relay's WebSocket: connects, and reads it in chunks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use penstock_core::causes::innermost;
use penstock_core::filter::Rules;
use penstock_core::settings::{Relay, RelayUrl};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::relay::decode::{Chunk, Decoded, Decoder, Received};
use crate::relay::partial;
use crate::relay::signatures::Turns;
use crate::relay::states::States;
use crate::relay::transport::{Skimming, Transport};

/// The most frames decoded together: some 300 µs of one core.
const CHUNK_FRAMES: usize = 64;

/// The most bytes decoded together.
const CHUNK_BYTES: usize = 256 * 1024;

/// The fraction of the buffer that frames decoded together may reserve; a frame that needs more is decoded alone.
const CHUNK_PART: usize = 4;

/// Messages up to this size are read whole, so that a frame that is too large can be identified and set aside.
pub(crate) const MESSAGE_BYTES: usize = 8_000_000;

/// How long a close handshake may take.
const CLOSE: Duration = Duration::from_millis(500);

pub(crate) type Socket = WebSocketStream<Transport>;

/// The reason of a relay that is not there.
pub(crate) const UNREACHABLE: &str = "connect";

/// Why connecting failed.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The host refused the connection with this status.
    #[error("the host answered {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the response body.
        body: String,
    },
    /// The connection or its handshake failed.
    #[error(transparent)]
    Socket(#[from] tungstenite::Error),
}

// === impl ConnectError ===

impl ConnectError {
    /// Returns a word for the metric: whether the host is not there, or is there and does not want us.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            // What a proxy answers while the relay behind it starts.
            Self::Refused { status: 502..=504, .. } | Self::Timeout(_) | Self::Socket(_) => UNREACHABLE,
            Self::Refused { .. } => "refused",
        }
    }

    /// Says why as a part of a sentence.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Socket(error) => innermost(error),
            Self::Timeout(_) | Self::Refused { .. } => self.to_string(),
        }
    }
}

/// Why reading ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was told to stop.
    Stopped,
    /// The host closed the connection.
    Closed(String),
    /// No data for this long.
    Silent(Duration),
    /// A frame of this size is too large to be read.
    Oversized(u64),
    /// The connection ended in the middle of one of its first frames.
    Cut(Unfinished),
    /// The connection failed.
    Failed(tungstenite::Error),
}

/// An incomplete frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Its number, if that much of it arrived.
    pub(crate) seq: Option<u64>,
    /// Its beginning.
    pub(crate) beginning: Bytes,
}

/// Reads one connection.
pub(crate) struct Reader {
    /// The open socket.
    pub(crate) socket: Socket,
    /// Takes chunks being decoded, in order.
    pub(crate) queue: mpsc::Sender<JoinHandle<Decoded>>,
    /// The bytes that may be held between the socket and the stream.
    pub(crate) budget: Arc<Semaphore>,
    /// The total of these bytes.
    pub(crate) budget_bytes: usize,
    /// Decodes frames.
    pub(crate) decoder: Arc<Decoder>,
    /// What of the events is carried.
    pub(crate) rules: watch::Receiver<Arc<Rules>>,
    /// The states of repos, where commits are verified.
    pub(crate) states: Option<States>,
    /// The order in which chunks tell of changed accounts.
    pub(crate) turns: Turns,
    /// Counts received bytes.
    pub(crate) events: Events,
    /// How long the host may be silent.
    pub(crate) data_timeout: Duration,
    /// How often it is pinged.
    pub(crate) ping_interval: Duration,
    /// Stops reading.
    pub(crate) cancel: CancellationToken,
    /// Wakes whenever the host has sent nothing for the timeout but answers pings.
    pub(crate) quiet: Arc<Notify>,
    /// How many messages arrived.
    pub(crate) messages: u64,
    /// When the host was last heard, even if only by a pong.
    pub(crate) heard: Instant,
}

/// Connects to a relay's event stream.
pub(crate) async fn connect(
    relay: &RelayUrl,
    ask: Option<u64>,
    skimming: Skimming,
    settings: &Relay,
) -> Result<Socket, ConnectError> {
    let mut request = relay.subscribe(ask).as_str().into_client_request()?;
    request
        .headers_mut()
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("penstock/", env!("CARGO_PKG_VERSION"))));
    let config = WebSocketConfig::default()
        .read_buffer_size(CHUNK_BYTES)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES));
    let connecting = async {
        let transport = Transport::connect(request.uri(), skimming).await?;
        client_async_with_config(request, transport, Some(config)).await
    };
    match timeout(settings.connect_timeout, connecting).await {
        Ok(Ok((socket, _response))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(response))) => Err(ConnectError::Refused {
            status: response.status().as_u16(),
            body: response
                .body()
                .as_deref()
                .map(|body| String::from_utf8_lossy(body).chars().take(200).collect())
                .unwrap_or_default(),
        }),
        Ok(Err(error)) => Err(ConnectError::Socket(error)),
        Err(_) => Err(ConnectError::Timeout(settings.connect_timeout)),
    }
}

// === impl Reader ===

impl Reader {
    /// Reads until the connection ends or is cancelled; everything read is in the queue by then.
    pub(crate) async fn run(mut self) -> End {
        let end = self.read().await;
        match (&end, self.socket.get_ref().unfinished()) {
            (End::Stopped, _) => {
                let _ = timeout(CLOSE, self.socket.close(None)).await;
                end
            }
            (End::Closed(_) | End::Silent(_) | End::Failed(_), Some(beginning)) => {
                let beginning = Bytes::copy_from_slice(beginning);
                End::Cut(Unfinished { seq: partial::seq(&beginning), beginning })
            }
            _ => end,
        }
    }

    async fn read(&mut self) -> End {
        let mut silent_at = Instant::now() + self.data_timeout;
        let mut ping_at = Instant::now() + self.ping_interval;
        // When a ping was last sent to check on a silent host.
        let mut probed: Option<Instant> = None;
        loop {
            let probe_at = silent_at - self.data_timeout / 2;
            let message = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return End::Stopped,
                message = self.socket.next() => message,
                Ok(()) = self.rules.changed() => {
                    // Told in its place among the events, however quiet the host is.
                    if !self.start(Vec::new(), 0, std::time::Instant::now()).await {
                        return End::Stopped;
                    }
                    continue;
                }
                () = sleep_until(silent_at) => {
                    if probed.take().is_some_and(|at| self.heard < at) {
                        return End::Silent(self.data_timeout);
                    }
                    // A pong proves little; `session::silence` knows the host's rhythm and decides.
                    self.quiet.notify_one();
                    silent_at = Instant::now() + self.data_timeout;
                    continue;
                }
                () = sleep_until(if probed.is_some() { ping_at } else { ping_at.min(probe_at) }) => {
                    ping_at = Instant::now() + self.ping_interval;
                    probed = (Instant::now() >= probe_at).then(Instant::now).or(probed);
                    match timeout(self.data_timeout, self.socket.send(Message::Ping(Bytes::new()))).await {
                        Ok(Ok(())) => continue,
                        Ok(Err(error)) => return End::Failed(error),
                        Err(_) => return End::Silent(self.data_timeout),
                    }
                }
            };
            let (frames, end) = self.gather(message);
            if !frames.is_empty() {
                if !self.hand_on(frames).await {
                    return End::Stopped;
                }
                // The silence is measured from here: a slow stream is not the host's fault.
                silent_at = Instant::now() + self.data_timeout;
                probed = None;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Takes a message, and those that the socket already holds after it.
    fn gather(&mut self, first: Option<Result<Message, tungstenite::Error>>) -> (Vec<Received>, Option<End>) {
        let mut frames = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            if matches!(message, Some(Ok(_))) {
                self.heard = Instant::now();
            }
            match message {
                Some(Ok(Message::Binary(frame))) => {
                    self.messages += 1;
                    bytes += frame.len();
                    frames.push(match self.socket.get_mut().passed_over(self.messages) {
                        Some(size) => Received::Oversized(size),
                        None => Received::Frame(frame),
                    });
                }
                // The protocol has no text messages; the library answers pings.
                Some(Ok(Message::Text(_))) => {
                    self.messages += 1;
                    let _ = self.socket.get_mut().passed_over(self.messages);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(close))) => {
                    let reason = close.map(|close| format!("{} {}", close.code, close.reason)).unwrap_or_default();
                    return (frames, Some(End::Closed(reason)));
                }
                Some(Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                    return (frames, Some(End::Oversized(size as u64)));
                }
                Some(Err(error)) => return (frames, Some(End::Failed(error))),
                None => return (frames, Some(End::Closed(String::new()))),
            }
            let full = frames.len() >= CHUNK_FRAMES || bytes >= CHUNK_BYTES;
            next = if full { None } else { self.socket.next().now_or_never() };
        }
        (frames, None)
    }

    /// Starts decoding frames and queues them; `false` once nobody wants them any more.
    async fn hand_on(&mut self, frames: Vec<Received>) -> bool {
        let received = std::time::Instant::now();
        self.events.received(frames.iter().map(Received::len).sum());
        let (mut chunk, mut reserved) = (Vec::with_capacity(frames.len()), 0);
        for frame in frames {
            let needed = frame.most_held(&self.decoder.limits);
            if !chunk.is_empty() && reserved + needed > self.budget_bytes / CHUNK_PART {
                if !self.start(std::mem::take(&mut chunk), reserved, received).await {
                    return false;
                }
                reserved = 0;
            }
            chunk.push(frame);
            reserved += needed;
        }
        self.start(chunk, reserved, received).await
    }

    /// Starts decoding a chunk once its worst case is reserved; one that needs the whole buffer goes alone.
    async fn start(&mut self, frames: Vec<Received>, reserved: usize, received: std::time::Instant) -> bool {
        let share = u32::try_from(reserved.min(self.budget_bytes)).unwrap_or(u32::MAX);
        let slot = async {
            let share = Arc::clone(&self.budget).acquire_many_owned(share).await.ok()?;
            Some((share, self.queue.reserve().await.ok()?))
        };
        let slot = tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            slot = slot => slot,
        };
        let Some((share, slot)) = slot else { return false };
        let (decoder, cancel) = (Arc::clone(&self.decoder), self.cancel.clone());
        let rules = Arc::clone(&self.rules.borrow_and_update());
        let chunk = Chunk { frames, received, rules, share };
        let states = self.states.clone();
        let turn = self.turns.next();
        slot.send(tokio::spawn(async move {
            let mut decoded = chunk.decode(&decoder);
            if let Some(states) = states {
                states.prefetch(&decoded.items).await;
            }
            if let Some(signatures) = &decoder.signatures {
                signatures.finish(&mut decoded.items, turn, &cancel).await;
            }
            decoded
        }));
        true
    }
}
