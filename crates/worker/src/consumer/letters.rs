//! Dead letters in Redis, as far as a worker needs them: those to be copied, and for how long they hold tombstones.

use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use penstock_core::data::EventKind;
use penstock_core::dead_letter::{Author, LUA_IDS};
use penstock_core::script;
use penstock_core::stream::StreamId;

use super::client::{Answer, Consumer, Names, stream_id, surprise, text, text_of};

/// How much one script looks through or reads at most: letters, and bytes besides the last one.
const PAGE: (i64, i64) = (500, 1_000_000);

/// For how long a worker that copies has its turn.
const TURN: Duration = Duration::from_secs(10);

/// How long tombstones are kept at least, and how long after its event a dead letter may be replayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) tombstones: Duration,
    pub(crate) letters: Duration,
}

/// A dead letter of ingest that is to be copied.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    pub(crate) id: StreamId,
    /// Its fields in their order.
    pub(crate) fields: Vec<(Bytes, Bytes)>,
}

// === impl Consumer ===

impl Consumer {
    /// Returns the ID below which no event can come again, by itself or by a replay that is not refused from now on.
    pub(crate) async fn tombstones_needed_from(&self, keep: Retention) -> Answer<StreamId> {
        // Without a group nothing is known to be settled.
        let settled = self.settled_below().await?.unwrap_or(StreamId::MIN);
        let mut letter = None;
        for author in [Author::Worker, Author::Ingest] {
            let key = self.names.keys.letters_of(author);
            letter = letter.into_iter().chain(self.oldest_letter(key, keep.letters).await?).min();
        }
        let arguments = vec![
            text(settled),
            letter.map_or_else(|| "".into(), text),
            milliseconds(keep.tombstones),
            milliseconds(keep.letters),
        ];
        let below: Value = self.run_with_ids(include_str!("hold.lua"), self.held(Author::Worker), arguments).await?;
        stream_id(&below).ok_or_else(|| surprise("the script that decides which traces may go"))
    }

    /// Returns the least first ID of the letters that may still be replayed.
    async fn oldest_letter(&self, key: String, hold: Duration) -> Answer<Option<StreamId>> {
        let (mut least, mut from): (Option<StreamId>, _) = (None, "-".to_owned());
        loop {
            let mut arguments = vec![from.into(), milliseconds(hold), PAGE.0.into(), PAGE.1.into()];
            let kinds = [EventKind::Commit, EventKind::Identity, EventKind::Account];
            arguments.extend(kinds.map(|kind| kind.as_str().into()));
            let (found, next): (String, String) =
                self.run_with_ids(include_str!("letters.lua"), key.clone(), arguments).await?;
            least = least.into_iter().chain(found.parse().ok()).min();
            if next.is_empty() {
                return Ok(least);
            }
            from = next;
        }
    }

    /// Reads some dead letters of ingest that are not copied, if it is this worker's turn.
    pub(crate) async fn uncopied(&self) -> Answer<Vec<Copied>> {
        let Names { consumer, keys, .. } = &*self.names;
        let touched = vec![keys.raw_letters(), self.held(Author::Ingest)];
        let arguments = vec![text_of(consumer), milliseconds(TURN), PAGE.0.into(), PAGE.1.into()];
        let letters: Vec<Value> = self.run_with_ids(include_str!("uncopied.lua"), touched, arguments).await?;
        let read = |letter| Copied::read(letter).ok_or_else(|| surprise("the script that reads dead letters"));
        letters.into_iter().map(read).collect()
    }

    /// Records that the letters up to this one are copied.
    pub(crate) async fn mark_copied(&self, last: StreamId) -> Answer<()> {
        self.run_with_ids(include_str!("copied.lua"), self.held(Author::Ingest), vec![text(last)]).await
    }

    fn held(&self, author: Author) -> String {
        let [_, _, held] = self.names.keys.beside_letters(author);
        held
    }

    async fn run_with_ids<R: fred::types::FromValue>(
        &self,
        script: &str,
        keys: impl Into<fred::types::MultipleKeys> + Send,
        arguments: Vec<Value>,
    ) -> Answer<R> {
        script::run(&self.client, format!("{LUA_IDS}{script}"), keys, arguments).await
    }
}

// === impl Copied ===

impl Copied {
    fn read(letter: Value) -> Option<Self> {
        let mut parts = letter.into_array().into_iter();
        let id = stream_id(&parts.next()?)?;
        let mut flat = parts.next()?.into_array().into_iter();
        let pairs = std::iter::from_fn(|| Some((flat.next()?.into_bytes()?, flat.next()?.into_bytes()?)));
        Some(Self { id, fields: pairs.collect() })
    }

    /// Returns a field, empty where it has none of that name.
    pub(crate) fn field(&self, name: &str) -> &[u8] {
        self.fields.iter().find(|(own, _)| own == name.as_bytes()).map_or(&[], |(_, value)| value)
    }
}

fn milliseconds(time: Duration) -> Value {
    Value::Integer(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}
