//! The dead letters in Redis: read in pages, put back into the stream, deleted. Each script is one transaction.

mod head;
mod index;
mod kept;

use std::time::Duration;

use bytes::Bytes;
use fred::clients::{Client, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, StreamsInterface};
use fred::types::{FromValue, Value};
use penstock_core::data::EventKind;
use penstock_core::dead_letter::{self, Author, Bounds, LUA_IDS};
use penstock_core::script;
use penstock_core::settings::Settings;
use penstock_core::stream::{StreamId, field};

use crate::reading;

pub(crate) use head::{Head, Source, Wanted};
pub(crate) use index::{Group, Index, IndexCache, KeptState};
pub(crate) use kept::Kept;

/// The most bytes of letters that one script reads or moves, besides its last letter: Redis does nothing else meanwhile.
const MOST_BYTES: i64 = 1024 * 1024;

/// The most bytes that are shown of a letter's field, or of its data in PostgreSQL.
pub(crate) const CUT: usize = 512 * 1024;

/// The most letters that one script puts back.
const MOST_LETTERS: i64 = 100;

/// What cuts letters in a script.
const LUA_CUT: &str = include_str!("dead_letters/cut.lua");

/// Says how full Redis' memory may be; the script counts in parts of this.
const WHOLE: u64 = 10_000;

/// Whose letters there are.
const AUTHORS: [Author; 2] = [Author::Worker, Author::Ingest];

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
    /// How many bytes its data has, where it was cut.
    pub(crate) cut_of: Option<u64>,
}

/// One page of dead letters, newest first.
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
    /// Kept because they are not events.
    pub(crate) left: u64,
    /// Left, as they are too old: what was deleted since could come back.
    pub(crate) refused: u64,
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
        let arguments: Vec<Value> = vec![from.into(), i64::from(limit).into(), MOST_BYTES.into(), (CUT as i64).into()];
        let keys: Vec<String> = AUTHORS.map(|author| self.key(author)).into();
        let script = format!("{LUA_IDS}{LUA_CUT}{}", include_str!("dead_letters/page.lua"));
        let (letters, next): (Vec<Value>, String) = script::run(&self.client, script, keys, arguments).await?;
        Ok(Page { letters: letters.into_iter().filter_map(Letter::read).collect(), next: next.parse().ok() })
    }

    /// Reads one letter to show it, cut; `None` where there is none of that ID.
    pub(crate) async fn look(&self, id: StreamId) -> Result<Option<Letter>, Error> {
        let script = format!("{LUA_CUT}{}", include_str!("dead_letters/one.lua"));
        let arguments: Vec<Value> = vec![id.to_string().into(), (CUT as i64).into()];
        let read = script::run(&self.client, script, vec![self.key(author_of(id))], arguments);
        let found: Vec<Value> = self.in_time(read).await?;
        Ok(found.into_iter().find_map(Letter::read))
    }

    /// Reads one letter whole; `None` where there is none of that ID.
    pub(crate) async fn get(&self, id: StreamId) -> Result<Option<Letter>, Error> {
        let found: Vec<Value> =
            self.client.xrange(self.key(author_of(id)), id.to_string(), id.to_string(), Some(1)).await?;
        Ok(found.into_iter().find_map(Letter::read))
    }

    /// Puts one letter back into the stream.
    pub(crate) async fn replay(&self, id: StreamId) -> Result<Replayed, Error> {
        Ok(self.replay_some(author_of(id), id.to_string(), id).await?.0)
    }

    /// Puts all letters back that are there now, the oldest first.
    pub(crate) async fn replay_all(&self) -> Result<Replayed, Error> {
        let mut all = Replayed::default();
        for author in AUTHORS {
            let newest: Vec<Value> = self.client.xrevrange(self.key(author), "+", "-", Some(1)).await?;
            // Those that fail again come back with a greater ID.
            let last = newest.into_iter().find_map(Letter::read).map(|letter| letter.id);
            let mut from = last.map(|_| "-".to_owned()).filter(|_| !all.full);
            while let (Some(start), Some(last)) = (from, last) {
                let (some, next) = self.replay_some(author, start, last).await?;
                all.replayed += some.replayed;
                all.left += some.left;
                all.refused += some.refused;
                all.full = some.full;
                from = next.filter(|_| !all.full);
            }
        }
        Ok(all)
    }

    /// Deletes one letter; says whether it was there.
    pub(crate) async fn delete(&self, id: StreamId) -> Result<bool, Error> {
        let author = author_of(id);
        let deleted: u64 = self
            .change(author, include_str!("dead_letters/delete.lua"), Vec::new(), vec![id.to_string().into()])
            .await?;
        Ok(deleted == 1)
    }

    /// Deletes all letters, and returns how many there were.
    pub(crate) async fn purge(&self) -> Result<u64, Error> {
        let mut deleted = 0;
        for author in AUTHORS {
            let some: u64 = self.change(author, include_str!("dead_letters/purge.lua"), Vec::new(), Vec::new()).await?;
            deleted += some;
        }
        Ok(deleted)
    }

    /// Puts back what lies between two IDs, as far as one script does; says where to go on.
    async fn replay_some(
        &self,
        author: Author,
        from: String,
        to: StreamId,
    ) -> Result<(Replayed, Option<String>), Error> {
        let mark = self.settings.ingest.high_watermark;
        let number = |number: u64| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
        let mut arguments: Vec<Value> =
            vec![from.into(), to.to_string().into(), MOST_LETTERS.into(), MOST_BYTES.into()];
        arguments.extend([number(mark.of(self.settings.redis.max_stream_len)), number(mark.of(WHOLE))]);
        arguments.extend([EventKind::Commit, EventKind::Identity, EventKind::Account].map(|kind| kind.as_str().into()));
        let [_, _, held] = self.settings.keys.beside_letters(Author::Worker);
        let keys = vec![self.settings.keys.stream().to_owned(), held];
        let (replayed, left, refused, next, full): (u64, u64, u64, String, u64) =
            self.change(author, include_str!("dead_letters/replay.lua"), keys, arguments).await?;
        let replayed = Replayed { replayed, left, refused, full: full == 1 };
        Ok((replayed, Some(next).filter(|next| !next.is_empty())))
    }

    /// Runs a script that takes letters away; `more` are its keys between the letters and what stands beside them.
    async fn change<R: FromValue>(
        &self,
        author: Author,
        script: &str,
        more: Vec<String>,
        arguments: Vec<Value>,
    ) -> Result<R, Error> {
        let script = format!("{}{script}", dead_letter::script(author, Bounds::in_redis(self.settings)));
        let mut keys = vec![self.key(author)];
        keys.extend(more);
        keys.extend(self.settings.keys.beside_letters(author));
        script::run(&self.client, format!("{LUA_IDS}{}{script}", script::NEEDS), keys, arguments).await
    }

    /// Waits for a script no longer than for a command, of which `fred` takes no notice itself.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let patience = self.settings.redis.command_timeout.max(Duration::from_secs(1));
        let late = || Error::new(ErrorKind::Timeout, "the script took too long");
        tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| Err(late()))
    }

    fn key(&self, author: Author) -> String {
        self.settings.keys.letters_of(author)
    }
}

// === impl Letter ===

impl Letter {
    /// Reads an entry as Redis lists it: its ID, then its fields, then how long its data is where it may be cut.
    fn read(entry: Value) -> Option<Self> {
        let mut entry = entry.into_array().into_iter();
        let id = entry.next()?.into_string()?.parse().ok()?;
        let mut fields = Vec::new();
        let mut flat = entry.next()?.into_array().into_iter();
        while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
            fields.push((text(name), text(value)));
        }
        let length = entry.next().and_then(|length| length.as_u64());
        let mut letter = Self { id, fields, cut_of: length.filter(|length| *length > CUT as u64) };
        if letter.cut_of.is_some() {
            letter.mend_ends();
        }
        Some(letter)
    }

    /// Takes away what is left of a character that was cut through.
    fn mend_ends(&mut self) {
        for (_, text) in self.fields.iter_mut().filter(|(_, text)| text.len() >= CUT) {
            let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER).len();
            text.truncate(whole);
        }
    }

    /// Returns what is known of it without its data.
    pub(crate) fn head(&self) -> Head {
        let data = self.field(field::DATA).unwrap_or_default().as_bytes();
        let mut head = Head::new(Source::Redis, self.id.to_string(), self.id.ms, data.len() as u64);
        self.fields.iter().for_each(|(name, value)| head.set(name, value.clone()));
        head.complete(data)
    }

    /// Returns a field, where it has it.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Says by its ID whose letter it is.
fn author_of(id: StreamId) -> Author {
    if id.seq >= dead_letter::OURS { Author::Ingest } else { Author::Worker }
}

/// Reads a text whatever its bytes: what is no UTF-8 is why some letters are dead.
fn text(value: Value) -> String {
    let bytes: Bytes = value.into_bytes().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
