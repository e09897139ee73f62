//! A consumer and a relay to try it on.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use penstock_replay::{Error, Handle, Settings, bind};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A relay that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: Handle,
    pub(crate) cancel: CancellationToken,
    pub(crate) ended: JoinHandle<Result<(), Error>>,
    _stop: DropGuard,
}

pub(crate) async fn start(settings: Settings) -> Running {
    let mut relay = bind(settings).await.unwrap();
    relay.prepared().await.unwrap();
    let (address, handle, cancel) = (relay.local_addr(), relay.handle(), CancellationToken::new());
    let ended = tokio::spawn(relay.run(cancel.clone()));
    Running { address, handle, cancel: cancel.clone(), ended, _stop: cancel.drop_guard() }
}

impl Running {
    pub(crate) async fn try_subscribe(&self, query: &str) -> Result<Client, tungstenite::Error> {
        let url = format!("ws://{}/xrpc/com.atproto.sync.subscribeRepos{query}", self.address);
        timeout(PATIENCE, connect_async(url)).await.unwrap().map(|(client, _)| client)
    }

    pub(crate) async fn subscribe(&self, query: &str) -> Client {
        self.try_subscribe(query).await.unwrap()
    }
}

pub(crate) async fn next(client: &mut Client) -> Option<Message> {
    timeout(PATIENCE, client.next()).await.unwrap().map(Result::unwrap)
}

/// The next frames, passing over pings.
pub(crate) async fn take(client: &mut Client, count: usize) -> Vec<Bytes> {
    let mut frames = Vec::with_capacity(count);
    while frames.len() < count {
        match next(client).await {
            Some(Message::Binary(frame)) => frames.push(frame),
            Some(Message::Ping(_)) => {}
            other => panic!("no frame but {other:?}"),
        }
    }
    frames
}

/// Asserts that nothing but an error frame of this name, then a close, comes.
pub(crate) async fn assert_refused(client: &mut Client, error: &str) {
    let frame = take(client, 1).await.remove(0);
    assert_error(&frame, error);
    assert!(matches!(next(client).await, Some(Message::Close(Some(_)))));
    assert!(next(client).await.is_none());
}

pub(crate) fn assert_error(frame: &[u8], error: &str) {
    let mut rest = frame;
    let header: ciborium::Value = ciborium::from_reader(&mut rest).unwrap();
    let body: ciborium::Value = ciborium::from_reader(rest).unwrap();
    assert_eq!(header, ciborium::Value::Map(vec![("op".into(), (-1).into())]));
    assert_eq!(body.as_map().unwrap()[0], ("error".into(), error.into()));
}
