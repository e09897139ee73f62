//! Messages accepted while the API and the workers are killed at any moment.

use std::collections::BTreeMap;
use std::env;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fred::interfaces::{KeysInterface, ListInterface, SortedSetsInterface};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::rig::{PATIENCE, Rig, eventually};
use crate::service::Service;

/// How many messages are accepted where `PENSTOCK_MESSAGES` does not say.
const MESSAGES: usize = 2_000;

const CONNECTIONS: usize = 50;

/// The longest pause of a client between two messages, in milliseconds.
const PAUSE: u64 = 60;

/// The longest time between two kills, in milliseconds.
const CALM: u64 = 300;

/// A client that keeps its connection as long as that holds.
struct Client {
    address: SocketAddr,
    connection: Option<TcpStream>,
}

/// The processes that are killed.
struct Victims {
    dashboard: Option<Service>,
    workers: Vec<Service>,
    started: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_accepted_message_is_one_row_whoever_is_killed() {
    let messages = env::var("PENSTOCK_MESSAGES").map_or(MESSAGES, |messages| messages.parse().unwrap());
    let mut rig = Rig::without_tables().await;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (name, value) in [
        ("DASHBOARD_ADDRESS", &*address.to_string()),
        ("PENSTOCK_DASHBOARD_POST_RATE", "1000000"),
        ("PENSTOCK_DASHBOARD_METRICS_INTERVAL", "100ms"),
        ("PENSTOCK_MESSAGE_BUFFER_ENABLED", "true"),
        ("PENSTOCK_MESSAGE_BUFFER_BATCH_DELAY", "20ms"),
        ("PENSTOCK_MESSAGE_BUFFER_DEAD_AFTER", "500ms"),
    ] {
        rig.set(name, value);
    }
    // Only with the buffer on is there a table for messages.
    rig.migrate().await;
    let mut victims = Victims { dashboard: Some(rig.start(&["dashboard"])), workers: Vec::new(), started: 0 };
    victims.start_worker(&rig);
    victims.start_worker(&rig);

    let (started, left) = (Instant::now(), Arc::new(AtomicUsize::new(messages)));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(accept_all(Client { address, connection: None }, Arc::clone(&left)));
    }
    let accepting = clients.join_all();
    tokio::pin!(accepting);
    let mut kills = [0; 2];
    let accepted = loop {
        tokio::select! {
            accepted = &mut accepting => break accepted,
            () = sleep(Duration::from_millis(rand::random_range(0..CALM))) => {
                let kind = usize::from(rand::random::<bool>());
                kills[kind] += 1;
                if kind == 0 { victims.kill_dashboard(&rig).await } else { victims.kill_worker(&rig).await }
            }
        }
    };
    let took = started.elapsed();
    let (accepted, lost): (Vec<_>, Vec<_>) = accepted.into_iter().unzip();
    let (accepted, lost) = (accepted.concat(), lost.into_iter().sum::<usize>());
    assert_eq!(accepted.len(), messages);
    assert!(kills.iter().all(|kills| *kills > 0), "{kills:?}");

    let keys = &rig.keys;
    eventually("nothing is left in any list", async || {
        let mut lists = vec![keys.pending_messages()];
        let workers: Vec<String> =
            rig.client.zrange(keys.messages_workers(), 0, -1, None, false, None, false).await.unwrap();
        lists.extend(workers.iter().map(|worker| keys.messages_taken(worker)));
        for list in lists {
            if rig.client.llen::<u64, _>(list).await.unwrap() > 0 {
                return false;
            }
        }
        true
    })
    .await;
    for worker in victims.workers {
        worker.stop().await;
    }
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT ours.tracking_id, count(*) FROM messages JOIN penstock.message_keys AS ours ON message_id = id GROUP BY ours.tracking_id")
        .fetch_all(&rig.pool)
        .await
        .unwrap();
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    let missing = accepted.iter().filter(|id| !rows.contains_key(*id)).count();
    let doubled = rows.values().filter(|count| **count > 1).count();
    println!(
        "{messages} messages accepted over {CONNECTIONS} connections in {took:.1?}, {} rows, {missing} lost, {doubled} doubled; the \
         API killed {} times, workers {}; {lost} answers cut off or refused",
        rows.len(),
        kills[0],
        kills[1],
    );
    assert_eq!((missing, doubled), (0, 0));
    let total: i64 = rig.client.get(keys.total_messages()).await.unwrap();
    assert_eq!(total, rows.len() as i64, "and is counted once");
    assert!(rig.dead_letters().await.is_empty());
    if let Some(dashboard) = victims.dashboard {
        dashboard.stop().await;
    }
}

/// Has messages accepted as long as some are left; returns their IDs, and how many answers were none.
async fn accept_all(mut client: Client, left: Arc<AtomicUsize>) -> (Vec<String>, usize) {
    let (mut accepted, mut lost) = (Vec::new(), 0);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout(PATIENCE, client.post()).await.unwrap() {
                Some(id) => break accepted.push(id),
                None => lost += 1,
            }
            assert!(Instant::now() < deadline, "no message is accepted any more");
            client.connection = None;
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(rand::random_range(0..PAUSE))).await;
    }
    (accepted, lost)
}

// === impl Client ===

impl Client {
    /// Sends a message; returns its ID if it was accepted.
    async fn post(&mut self) -> Option<String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(TcpStream::connect(self.address).await.ok()?),
        };
        let body = r#"{"user_id":1,"channel_id":2,"content":"all the same"}"#;
        let request = format!(
            "POST /messages HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        loop {
            if connection.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
            let Some((head, body)) = std::str::from_utf8(&answer).ok().and_then(|answer| answer.split_once("\r\n\r\n"))
            else {
                continue;
            };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            if body.len() < length.parse().unwrap() {
                continue;
            }
            let body: Value = serde_json::from_str(body).unwrap();
            return head.starts_with("HTTP/1.1 201 ").then(|| body["message_id"].as_str().unwrap().to_owned());
        }
    }
}

// === impl Victims ===

impl Victims {
    async fn kill_dashboard(&mut self, rig: &Rig) {
        if let Some(dashboard) = self.dashboard.take() {
            dashboard.kill().await;
        }
        self.dashboard = Some(rig.start(&["dashboard"]));
    }

    /// Kills one worker, which never comes back: another one takes its place under a new name.
    async fn kill_worker(&mut self, rig: &Rig) {
        let victim = rand::random_range(0..self.workers.len());
        self.workers.swap_remove(victim).kill().await;
        self.start_worker(rig);
    }

    fn start_worker(&mut self, rig: &Rig) {
        self.started += 1;
        self.workers.push(rig.worker(&format!("w-{}", self.started)));
    }
}
