//! The live stream: every frame is written once and shared by all clients, none of which can hold up another.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use serde_json::value::RawValue;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::events::Events;

/// The first frame of every stream.
const CONNECTED: &[u8] = b"data: {\"type\":\"connected\",\"message\":\"Event stream connected\"}\n\n";

/// A comment, which keeps proxies from closing a quiet stream.
const KEEPALIVE: &[u8] = b": keepalive\n\n";

/// How long events are gathered at least before they go out together, so that a thousand a second cost a client forty
/// writes. The first event after a pause goes out at once.
const GATHER: Duration = Duration::from_millis(25);

/// What each client adds to that time once they are many: 5,000 get eight writes a second, however many the events.
const GATHER_A_CLIENT: Duration = Duration::from_micros(25);

/// How many bytes of gathered events go out before the time is over.
const GATHER_BYTES: usize = 64 * 1024;

/// The largest broadcast that is passed on, in bytes. Real ones take about 200.
const LONGEST_EVENT: usize = 16 * 1024;

/// Hands frames to every live client; clones share the clients.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    frames: Sender<Frame>,
    events: Events,
}

/// Events of one gathering, not yet sent.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    bytes: BytesMut,
    count: u64,
}

#[derive(Clone, Debug)]
enum Frame {
    Data(Bytes),
    /// The service ends.
    End,
}

/// One client's place in the stream.
struct Client {
    /// Sent before anything else.
    first: Option<Bytes>,
    frames: Receiver<Frame>,
    _presence: Presence,
}

/// Counts a client as long as it is there.
struct Presence(Events);

// === impl Hub ===

impl Hub {
    /// Makes a hub that cuts a client which is more than `buffer` gatherings of events behind.
    pub(crate) fn new(buffer: usize, events: Events) -> Self {
        Self { frames: channel(buffer).0, events }
    }

    /// Returns how many clients there are.
    pub(crate) fn clients(&self) -> usize {
        self.frames.receiver_count()
    }

    /// Returns how long to gather events before the next are sent.
    pub(crate) fn gathering_time(&self) -> Duration {
        GATHER.max(GATHER_A_CLIENT.saturating_mul(u32::try_from(self.clients()).unwrap_or(u32::MAX)))
    }

    /// Adds a client: it gets the greeting, the newest metrics if there are any, and all frames from now on.
    ///
    /// Its stream ends when it falls behind and when the service ends.
    pub(crate) fn join(&self, metrics: Option<&Bytes>) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let frames = self.frames.subscribe();
        self.events.client_came();
        let mut first = BytesMut::from(CONNECTED);
        if let Some(metrics) = metrics {
            write_frame(&mut first, "metrics", metrics);
        }
        let client = Client { first: Some(first.freeze()), frames, _presence: Presence(self.events.clone()) };
        stream::unfold(client, |mut client| async { client.next().await.map(|bytes| (Ok(bytes), client)) })
    }

    /// Sends the metrics to everyone.
    pub(crate) fn metrics(&self, metrics: &Bytes) {
        if self.clients() > 0 {
            let mut frame = BytesMut::with_capacity(metrics.len() + 64);
            write_frame(&mut frame, "metrics", metrics);
            self.send(frame.freeze());
        }
    }

    /// Sends what was gathered to everyone.
    pub(crate) fn gathered(&self, gathering: &mut Gathering) {
        let count = std::mem::take(&mut gathering.count);
        self.events.fanned_out(count, self.clients());
        self.send(gathering.bytes.split().freeze());
    }

    /// Sends a sign of life to everyone.
    pub(crate) fn keep_alive(&self) {
        self.send(Bytes::from_static(KEEPALIVE));
    }

    /// Ends every stream.
    pub(crate) fn end(&self) {
        // Without clients there is nobody to tell.
        let _ = self.frames.send(Frame::End);
    }

    fn send(&self, bytes: Bytes) {
        let _ = self.frames.send(Frame::Data(bytes));
    }
}

// === impl Gathering ===

impl Gathering {
    /// Adds one broadcast as it came; what is no JSON or too long is left out.
    pub(crate) fn add(&mut self, broadcast: &[u8]) {
        if broadcast.len() > LONGEST_EVENT {
            return;
        }
        let Ok(json) = serde_json::from_slice::<&RawValue>(broadcast) else { return };
        if json.get().contains(['\n', '\r']) {
            // A line break would end the frame. In valid JSON it stands between tokens only.
            let compact = serde_json::from_slice::<serde_json::Value>(broadcast);
            if let Ok(compact) = compact.map(|json| json.to_string()) {
                write_frame(&mut self.bytes, "event", compact.as_bytes());
                self.count += 1;
            }
        } else {
            write_frame(&mut self.bytes, "event", json.get().as_bytes());
            self.count += 1;
        }
    }

    /// Says whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Says whether it must be sent before its time.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= GATHER_BYTES
    }
}

// === impl Client ===

impl Client {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match self.frames.recv().await {
            Ok(Frame::Data(bytes)) => Some(bytes),
            Err(RecvError::Lagged(_)) => {
                // The browser connects again by itself; what it missed is told by the end of the stream.
                self._presence.0.slow_client_cut("fell behind");
                None
            }
            Ok(Frame::End) | Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.client_went();
    }
}

fn write_frame(out: &mut BytesMut, kind: &str, json: &[u8]) {
    for part in [b"data: {\"type\":\"", kind.as_bytes(), b"\",\"data\":", json, b"}\n\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use penstock_telemetry::metrics::Metrics;

    use super::*;

    fn hub(buffer: usize) -> (Hub, Metrics) {
        let metrics = Metrics::new();
        (Hub::new(buffer, Events::new(&metrics)), metrics)
    }

    async fn rest(stream: impl Stream<Item = Result<Bytes, Infallible>>) -> String {
        let parts: Vec<_> = stream.map(Result::unwrap).collect().await;
        String::from_utf8(parts.concat()).unwrap()
    }

    #[tokio::test]
    async fn frames_come_in_order_and_the_end_is_told() {
        let (hub, _) = hub(16);
        let client = hub.join(Some(&Bytes::from_static(b"{\"a\":1}")));
        let late = hub.join(None);
        let mut gathering = Gathering::default();
        gathering.add(br##"{"type":"#commit"}"##);
        gathering.add(b"{\"type\":\n\"#account\"}");
        hub.gathered(&mut gathering);
        assert!(gathering.is_empty());
        hub.metrics(&Bytes::from_static(b"{\"a\":2}"));
        hub.keep_alive();
        hub.end();
        let greeting = "data: {\"type\":\"connected\",\"message\":\"Event stream connected\"}\n\n";
        let shared = "data: {\"type\":\"event\",\"data\":{\"type\":\"#commit\"}}\n\n\
                      data: {\"type\":\"event\",\"data\":{\"type\":\"#account\"}}\n\n\
                      data: {\"type\":\"metrics\",\"data\":{\"a\":2}}\n\n: keepalive\n\n";
        let metrics = "data: {\"type\":\"metrics\",\"data\":{\"a\":1}}\n\n";
        assert_eq!(rest(client).await, format!("{greeting}{metrics}{shared}"));
        assert_eq!(rest(late).await, format!("{greeting}{shared}"));
    }

    #[tokio::test]
    async fn a_client_that_falls_behind_is_cut_and_counted() {
        let (hub, metrics) = hub(16);
        let slow = hub.join(None);
        for _ in 0..17 {
            hub.keep_alive();
        }
        let got = rest(slow).await;
        assert!(!got.contains("keepalive"), "{got}");
        assert_eq!(hub.clients(), 0);
        let text = metrics.encode();
        assert!(text.contains("\npenstock_dashboard_slow_clients_cut_total 1\n"), "{text}");
        assert!(text.contains("\npenstock_dashboard_sse_clients 0"), "{text}");
    }

    #[test]
    fn what_is_no_event_is_left_out() {
        let mut gathering = Gathering::default();
        gathering.add(b"{\"type\":");
        gathering.add(b"{} {}");
        gathering.add(b"\"\xff\"");
        gathering.add(format!("\"{}\"", "x".repeat(LONGEST_EVENT)).as_bytes());
        assert!(gathering.is_empty());
        while !gathering.is_full() {
            gathering.add(b"{}");
        }
    }
}
