//! The dead letters in Redis: read in pages, put back into the stream, deleted. Each script is one transaction.

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::Error;
use fred::interfaces::{ClientLike, LuaInterface, StreamsInterface};
use fred::types::{FromValue, Value};
use penstock_core::data::EventKind;
use penstock_core::settings::Settings;
use penstock_core::stream::StreamId;

use crate::reading;

/// The most bytes of letters that one script reads or moves, besides its last letter: Redis does nothing else meanwhile.
const MOST_BYTES: i64 = 1024 * 1024;

/// The most letters that one script puts back.
const MOST_LETTERS: i64 = 100;

/// Says how full Redis' memory may be; the script counts in parts of this.
const WHOLE: u64 = 10_000;

/// The dead letters of one pipeline.
pub(crate) struct DeadLetters<'a> {
    client: WithOptions<Client>,
    settings: &'a Settings,
}

/// One dead letter, as it stands in Redis.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) id: StreamId,
    /// Its fields in their order.
    pub(crate) fields: Vec<(String, String)>,
}

/// Some dead letters, the newest first.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) letters: Vec<Letter>,
    /// The last of them, where there are older ones.
    pub(crate) next: Option<StreamId>,
}

/// What came of putting letters back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Put back into the stream.
    pub(crate) replayed: u64,
    /// Left, as they are no events.
    pub(crate) left: u64,
    /// The stream took no more.
    pub(crate) full: bool,
}

// === impl DeadLetters ===

impl<'a> DeadLetters<'a> {
    pub(crate) fn new(client: &Client, settings: &'a Settings) -> Self {
        Self { client: client.with_options(&reading::options(settings.redis.command_timeout)), settings }
    }

    /// Reads the newest letters, or the newest of those before an ID: at most `limit`, and at most about 1 MB.
    pub(crate) async fn page(&self, before: Option<StreamId>, limit: u16) -> Result<Page, Error> {
        let from = before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let arguments: Vec<Value> = vec![from.into(), i64::from(limit).into(), MOST_BYTES.into()];
        let (letters, next): (Vec<Value>, String) =
            self.run(include_str!("dead_letters/page.lua"), vec![self.key()], arguments).await?;
        Ok(Page { letters: letters.into_iter().filter_map(Letter::read).collect(), next: next.parse().ok() })
    }

    /// Reads one letter; `None` where there is none of that ID.
    pub(crate) async fn get(&self, id: StreamId) -> Result<Option<Letter>, Error> {
        let found: Vec<Value> = self.client.xrange(self.key(), id.to_string(), id.to_string(), Some(1)).await?;
        Ok(found.into_iter().find_map(Letter::read))
    }

    /// Puts one letter back into the stream.
    pub(crate) async fn replay(&self, id: StreamId) -> Result<Replayed, Error> {
        Ok(self.replay_some(id.to_string(), id).await?.0)
    }

    /// Puts all letters back that are there now, the oldest first.
    pub(crate) async fn replay_all(&self) -> Result<Replayed, Error> {
        let newest: Vec<Value> = self.client.xrevrange(self.key(), "+", "-", Some(1)).await?;
        let mut all = Replayed::default();
        // Those that fail again come back with a greater ID.
        let Some(last) = newest.into_iter().find_map(Letter::read).map(|letter| letter.id) else { return Ok(all) };
        let mut from = Some("-".to_owned());
        while let Some(start) = from {
            let (some, next) = self.replay_some(start, last).await?;
            all.replayed += some.replayed;
            all.left += some.left;
            all.full = some.full;
            from = next.filter(|_| !all.full);
        }
        Ok(all)
    }

    /// Deletes one letter; says whether it was there.
    pub(crate) async fn delete(&self, id: StreamId) -> Result<bool, Error> {
        let deleted: u64 = self.client.xdel(self.key(), id.to_string()).await?;
        Ok(deleted == 1)
    }

    /// Deletes all letters, and returns how many there were.
    pub(crate) async fn purge(&self) -> Result<u64, Error> {
        use fred::types::streams::{XCapKind, XCapTrim};
        self.client.xtrim(self.key(), (XCapKind::MaxLen, XCapTrim::Exact, 0)).await
    }

    /// Puts back what lies between two IDs, as far as one script does; says where to go on.
    async fn replay_some(&self, from: String, to: StreamId) -> Result<(Replayed, Option<String>), Error> {
        let mark = self.settings.ingest.high_watermark;
        let number = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
        let mut arguments: Vec<Value> =
            vec![from.into(), to.to_string().into(), MOST_LETTERS.into(), MOST_BYTES.into()];
        arguments.extend([number(mark.of(self.settings.redis.max_stream_len)), number(mark.of(WHOLE))]);
        arguments.extend([EventKind::Commit, EventKind::Identity, EventKind::Account].map(|kind| kind.as_str().into()));
        let keys = vec![self.key(), self.settings.keys.stream().to_owned()];
        let (replayed, left, next, full): (u64, u64, String, u64) =
            self.run(include_str!("dead_letters/replay.lua"), keys, arguments).await?;
        Ok((Replayed { replayed, left, full: full == 1 }, Some(next).filter(|next| !next.is_empty())))
    }

    async fn run<R: FromValue>(&self, script: &str, keys: Vec<String>, arguments: Vec<Value>) -> Result<R, Error> {
        self.client.eval(script, keys, arguments).await
    }

    fn key(&self) -> String {
        self.settings.keys.dead_letters()
    }
}

// === impl Letter ===

impl Letter {
    /// Reads an entry as Redis lists it: its ID, then its fields.
    fn read(entry: Value) -> Option<Self> {
        let mut entry = entry.into_array().into_iter();
        let id = entry.next()?.into_string()?.parse().ok()?;
        let mut fields = Vec::new();
        let mut flat = entry.next()?.into_array().into_iter();
        while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
            fields.push((text(name), text(value)));
        }
        Some(Self { id, fields })
    }

    /// Returns a field, where it has it.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Reads a text whatever its bytes: what is no UTF-8 is why some letters are dead.
fn text(value: Value) -> String {
    let bytes: Bytes = value.into_bytes().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
