//! Osprey's reader: a group of its own, each entry acknowledged once it was read.
//!
//! It sees every entry that ever was in the stream, whoever trims it afterwards, and so it is the witness of a run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::time::sleep;

use super::dialect;
use super::player::{AGAIN, Player, Theirs};
use super::resp::Redis;

/// Its group.
const GROUP: &str = "osprey-consumers";

/// An entry's ID.
pub(crate) type Id = (u64, u64);

/// The entries that it saw.
pub(crate) type Witnessed = BTreeMap<Id, Seen>;

/// An entry that it saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// None where its producer does not number it.
    pub(crate) seq: Option<u64>,
    /// The data, where there is no number to know it by.
    pub(crate) data: Option<String>,
    /// Whether our ingest wrote it.
    pub(crate) ours: bool,
    /// Whether it was there before, under another ID.
    pub(crate) again: bool,
}

pub(crate) struct Reader {
    seen: Arc<Mutex<Witnessed>>,
    _player: Player,
}

// === impl Reader ===

impl Reader {
    pub(crate) fn start(theirs: &Arc<Theirs>) -> Self {
        let (theirs, seen) = (Arc::clone(theirs), Arc::new(Mutex::new(Witnessed::new())));
        let sees = Arc::clone(&seen);
        let player = Player::start("osprey's reader", move |_| async move {
            loop {
                let mut redis = theirs.redis().await;
                let _ = read(&theirs, &mut redis, &sees).await;
                sleep(AGAIN).await;
            }
        });
        Self { seen, _player: player }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Witnessed> {
        self.seen.lock().unwrap()
    }

    /// The ID of the last entry that it saw.
    pub(crate) fn last(&self) -> Option<Id> {
        self.seen().last_key_value().map(|(id, _)| *id)
    }
}

async fn read(theirs: &Theirs, redis: &mut Redis, seen: &Mutex<Witnessed>) -> std::io::Result<()> {
    let stream = theirs.keys.stream();
    redis.call(&["XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM"]).await?;
    // What was given to it on a connection that ended comes first.
    let mut from = "0";
    loop {
        let command = ["XREADGROUP", "GROUP", GROUP, "osprey", "COUNT", "500", "BLOCK", "100", "STREAMS", stream, from];
        let entries = redis.call(&command).await?.read();
        if entries.is_empty() {
            from = ">";
            continue;
        }
        let mut acknowledge = vec!["XACK", stream, GROUP];
        for (id, fields) in &entries {
            // One that was trimmed away while it was on its way has no fields any more.
            if let Some(entry) = Seen::read(fields) {
                seen.lock().unwrap().insert(parse(id), entry);
            }
            acknowledge.push(id);
        }
        redis.call(&acknowledge).await?;
    }
}

/// Reads an entry's ID.
pub(crate) fn parse(id: &str) -> Id {
    let (ms, n) = id.split_once('-').unwrap();
    (ms.parse().unwrap(), n.parse().unwrap())
}

// === impl Seen ===

impl Seen {
    fn read(fields: &[String]) -> Option<Self> {
        let [type_, _, data_, data, seq_, seq, ours @ ..] = fields else { return None };
        assert_eq!([type_, data_, seq_], ["type", "data", "seq"], "the order of fields");
        let seq = seq.parse().ok();
        Some(Self {
            seq,
            data: seq.is_none().then(|| data.clone()),
            ours: dialect::is_ours(&serde_json::from_str::<Value>(data).unwrap()),
            again: ours.iter().step_by(2).any(|name| name == "origId"),
        })
    }
}
