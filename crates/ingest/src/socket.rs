//! The relay's WebSocket: connecting, and reading it into chunks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use penstock_core::settings::{Relay, RelayUrl};
use penstock_wire::Limits;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

use crate::decode::{Chunk, Decoded, Received};
use crate::events::Telemetry;
use crate::transport::Transport;

/// How many frames are decoded together at most: some 300 µs of one core.
const CHUNK_FRAMES: usize = 64;

/// How many bytes are decoded together at most.
const CHUNK_BYTES: usize = 256 * 1024;

/// A message up to here is read whole, so that a frame over its bound can be named and set aside.
const MESSAGE_BYTES: usize = 3 * 5_000_000;

/// How long a close handshake may take.
const CLOSE: Duration = Duration::from_millis(500);

pub(crate) type Socket = WebSocketStream<Transport>;

/// Why connecting failed.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The host answered no, with this status.
    #[error("the host answered {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of its answer.
        body: String,
    },
    /// The connection or its handshake failed.
    #[error(transparent)]
    Socket(#[from] tungstenite::Error),
}

/// Why reading ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was asked to.
    Asked,
    /// The host closed.
    Closed(String),
    /// No data for too long.
    Silent(Duration),
    /// A frame is too large to be read.
    Oversized(u64),
    /// The connection failed.
    Failed(tungstenite::Error),
}

/// Reads one connection.
pub(crate) struct Reader {
    /// The open socket.
    pub(crate) socket: Socket,
    /// Chunks under decoding, in order.
    pub(crate) queue: mpsc::Sender<JoinHandle<Decoded>>,
    /// The bytes that may be between socket and stream.
    pub(crate) budget: Arc<Semaphore>,
    /// How many there are in all.
    pub(crate) budget_bytes: usize,
    /// The bounds of a frame.
    pub(crate) limits: Arc<Limits>,
    /// Counts what comes.
    pub(crate) telemetry: Telemetry,
    /// How long the host may be silent.
    pub(crate) data_timeout: Duration,
    /// How often it is pinged.
    pub(crate) ping_interval: Duration,
    /// Ends reading.
    pub(crate) cancel: CancellationToken,
    /// How many messages came.
    pub(crate) messages: u64,
}

/// Opens the event stream of a relay; where it is to pass over frames too large to be read, they come as such.
pub(crate) async fn connect(
    relay: &RelayUrl,
    ask: Option<u64>,
    pass_over: bool,
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
    let bound = pass_over.then_some(MESSAGE_BYTES as u64);
    let connecting = async {
        let transport = Transport::connect(request.uri(), bound).await?;
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
    /// Reads until the connection ends or it is told to; what was read is in the queue by then.
    pub(crate) async fn run(mut self) -> End {
        let end = self.read().await;
        if matches!(end, End::Asked) {
            let _ = timeout(CLOSE, self.socket.close(None)).await;
        }
        end
    }

    async fn read(&mut self) -> End {
        let mut silent_at = Instant::now() + self.data_timeout;
        let mut ping_at = Instant::now() + self.ping_interval;
        loop {
            let message = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return End::Asked,
                message = self.socket.next() => message,
                // A ping that is answered proves nothing: only data keeps the connection.
                () = sleep_until(silent_at) => return End::Silent(self.data_timeout),
                () = sleep_until(ping_at) => {
                    ping_at = Instant::now() + self.ping_interval;
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
                    return End::Asked;
                }
                // Counted from here: while the stream is slow to take events, the host is not at fault.
                silent_at = Instant::now() + self.data_timeout;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Takes the message, and what the socket already holds behind it.
    fn gather(&mut self, first: Option<Result<Message, tungstenite::Error>>) -> (Vec<Received>, Option<End>) {
        let mut frames = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Some(Ok(Message::Binary(frame))) => {
                    self.messages += 1;
                    bytes += frame.len();
                    frames.push(match self.socket.get_mut().passed_over(self.messages) {
                        Some(size) => Received::Oversized(size),
                        None => Received::Frame(frame),
                    });
                }
                // Text is nothing of this protocol; pings are answered by the library.
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

    /// Starts decoding a chunk and puts it into the queue; `false` when nobody wants it any more.
    async fn hand_on(&mut self, frames: Vec<Received>) -> bool {
        let received = std::time::Instant::now();
        let bytes = frames.iter().map(Received::len).sum();
        self.telemetry.received(bytes);
        let share = u32::try_from(bytes.min(self.budget_bytes)).unwrap_or(u32::MAX);
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
        let limits = Arc::clone(&self.limits);
        let chunk = Chunk { frames, received, share };
        slot.send(tokio::spawn(async move { chunk.decode(&limits) }));
        true
    }
}
