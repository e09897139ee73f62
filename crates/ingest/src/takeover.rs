//! What is taken over of a stream that another program wrote: where its entries end. It is kept before anything is trimmed
//! and before a relay is asked, for the entries are what tells it.
//!
//! The consumer before us keeps its cursor every few seconds, so that it lies ahead of its entries or behind them; the one
//! before that keeps none in Redis.

use std::collections::HashMap;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use jiff::Timestamp;
use penstock_core::keys::Keys;
use penstock_core::live::{Source, state};
use penstock_core::stream::{Seq, StreamId};
use tracing::{info, warn};

use crate::lease::Lease;
use crate::position::Position;
use crate::scripts;

/// How many entries behind our newest one a script looks through at most.
pub(crate) const LOOK: u32 = 10_000;

/// How many of the newest entries one script reads the numbers of, and how many bytes of them, about.
const PAGE: (u32, u32) = (1_000, 4_000_000);

/// How many numbers are looked back through for a run that the newest entries repeat.
const LOOK_BACK: usize = 10_000;

/// What Redis says of the last event written, and of who wrote it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The position, as far as the keys tell it.
    pub(crate) position: Position,
    /// The first entry of another program behind ours.
    pub(crate) foreign: Option<String>,
    /// The source's text.
    source: String,
    /// The cursor as we wrote it.
    ours: Option<u64>,
    /// The entry that our last batch left as the newest.
    newest: Option<String>,
    /// The last ID of the stream; empty without one.
    last: String,
}

/// Why the entries are asked rather than the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Another program wrote entries behind ours.
    Entries,
    /// Another program moved the cursor on.
    Moved,
    /// Nobody says whose the cursor is.
    NoSource,
    /// There is no cursor.
    NoCursor,
    /// Nobody noted our newest entry: a version before this one wrote it.
    Unnoted,
}

/// The newest sequence number in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    seq: u64,
    /// When its entry was written.
    written: Option<Timestamp>,
}

/// What became of what was to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is kept.
    Kept,
    /// The lease is somebody else's.
    Lease,
    /// Another program has written entries in the meantime: the first of them.
    Joined(String),
    /// The cursor was written in the meantime, perhaps by a batch of ours that came late.
    Moved,
}

// === impl Seen ===

impl Seen {
    /// Reads the position, and looks at what stands behind our newest entry; or behind the ID given.
    pub(crate) async fn read(client: &Client, keys: &Keys, from: &str) -> Result<Self, Error> {
        let names = || {
            vec![
                keys.cursor().to_owned(),
                keys.ingest_source(),
                keys.ingest_state(),
                keys.stream().to_owned(),
                keys.incarnation(),
            ]
        };
        let mut from = from.to_owned();
        loop {
            let answer: Vec<String> =
                client.eval(scripts::POSITION, names(), vec![LOOK.to_string(), from.clone()]).await?;
            let mut answer = answer.into_iter();
            let mut next = || answer.next().unwrap_or_default();
            let (texts, has_stream, last) = ([next(), next(), next()], next() == "1", next());
            let (foreign, looked, is_all) = (next(), next(), next() != "0");
            if !is_all {
                from = looked;
                continue;
            }
            let mut fields = HashMap::new();
            while let (Some(name), Some(value)) = (answer.next(), answer.next()) {
                fields.insert(name, value);
            }
            let source = texts[1].clone();
            return Ok(Self {
                position: Position::read(keys, texts, has_stream, &fields),
                foreign: Some(foreign).filter(|foreign| !foreign.is_empty()),
                source,
                ours: fields.get(state::CURSOR).and_then(|ours| ours.parse::<Seq>().ok()).map(Seq::get),
                newest: fields.remove(state::NEWEST).filter(|newest| newest.parse::<StreamId>().is_ok()),
                last,
            });
        }
    }

    /// Says up to where was looked: everything behind it is news.
    pub(crate) fn last(&self) -> &str {
        if self.last.is_empty() { "0-0" } else { &self.last }
    }

    /// Keeps what the entries tell, where the cursor cannot be believed, and which entry is the newest.
    pub(crate) async fn settle(
        &mut self,
        client: &Client,
        keys: &Keys,
        lease: &Lease,
        home: &str,
    ) -> Result<Settled, Error> {
        let mut cursor = String::new();
        let mut source = String::new();
        if !self.position.standing.has_checkpoints()
            && let Some(why) = self.why(home)
        {
            let found = self.find(client, keys).await?;
            if let Some(seq) = self.target(why, home, found) {
                let before = self.position.cursor;
                if self.take(seq, found, home, keys) {
                    warn!(
                        cursor = before,
                        newest_entry = found.map(|found| found.seq),
                        resuming_at = seq,
                        key = %keys.cursor(),
                        "taking the stream over from another program, going by its entries"
                    );
                    cursor = seq.to_string();
                    source = serde_json::to_string(&self.position.source).unwrap_or_default();
                }
            }
        }
        if cursor.is_empty() && self.is_untouched() {
            return Ok(Settled::Kept);
        }
        let settled = self.keep(client, keys, lease, &cursor, &source).await?;
        if settled == Settled::Kept && !cursor.is_empty() {
            self.position.fence = cursor;
        }
        Ok(settled)
    }

    /// Begins one number before what another program kept in a place of its own, for it keeps it before the entry.
    pub(crate) fn begin_before(&mut self, kept: u64) {
        info!(
            cursor = kept,
            "no cursor and no entry with a number, going by what the ingestion before kept in postgresql"
        );
        self.position.cursor = Some(kept.saturating_sub(1).max(1));
    }

    async fn keep(
        &self,
        client: &Client,
        keys: &Keys,
        lease: &Lease,
        cursor: &str,
        source: &str,
    ) -> Result<Settled, Error> {
        let names = || {
            vec![
                lease.key().to_owned(),
                keys.cursor().to_owned(),
                keys.stream().to_owned(),
                keys.ingest_source(),
                keys.ingest_state(),
            ]
        };
        let time = self.position.event_time.map(|time| time.to_string()).unwrap_or_default();
        let mut last = self.last.clone();
        loop {
            let arguments =
                [lease.token(), &self.position.fence, &self.source, &last, &LOOK.to_string(), cursor, source];
            let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
            arguments.push(time.clone());
            let answer: Vec<String> = client.eval(scripts::SETTLE, names(), arguments).await?;
            let second = answer.get(1).cloned().unwrap_or_default();
            match answer.first().map(String::as_str) {
                Some("more") => last = second,
                Some("lease") => return Ok(Settled::Lease),
                Some("joined") => return Ok(Settled::Joined(second)),
                Some("moved") => return Ok(Settled::Moved),
                _ => return Ok(Settled::Kept),
            }
        }
    }

    /// Finds the newest number in the stream, however many entries without one stand behind it.
    async fn find(&self, client: &Client, keys: &Keys) -> Result<Option<Found>, Error> {
        let mut from = "+".to_owned();
        let mut numbers = Vec::new();
        let (entries, bytes) = PAGE;
        while !from.is_empty() && numbers.len() < LOOK_BACK {
            let arguments = vec![from, entries.to_string(), bytes.to_string()];
            let page: Vec<String> = client.eval(scripts::NUMBERS, vec![keys.stream()], arguments).await?;
            let mut page = page.into_iter();
            from = page.next().unwrap_or_default();
            while let (Some(id), Some(seq)) = (page.next(), page.next()) {
                if let (Ok(id), Ok(seq)) = (id.parse(), seq.parse::<Seq>()) {
                    numbers.push((id, seq.get()));
                }
            }
        }
        Ok(newest(&numbers))
    }

    /// Says whether the cursor cannot be believed, for a pipeline whose first relay is `home`.
    fn why(&self, home: &str) -> Option<Why> {
        if self.foreign.is_some() {
            return Some(Why::Entries);
        }
        let Some(cursor) = self.position.cursor else { return Some(Why::NoCursor) };
        let Some(source) = &self.position.source else { return Some(Why::NoSource) };
        // One that was set back is somebody's wish. Moved on, it is that of a consumer which may have promised more than it wrote.
        if self.ours.is_some_and(|ours| cursor > ours) {
            return Some(Why::Moved);
        }
        (self.newest.is_none() && source.host == home).then_some(Why::Unnoted)
    }

    /// Decides up to which number everything is in the stream.
    fn target(&self, why: Why, home: &str, found: Option<Found>) -> Option<u64> {
        let cursor = self.position.cursor;
        let is_home = self.position.source.as_ref().is_none_or(|source| source.host == home);
        let ours = match why {
            // The consumer before us may have moved it on before its entry came: an entry counts for more.
            Why::Unnoted => found.is_none().then_some(cursor).flatten(),
            Why::NoSource => None,
            // What we wrote is written. On another host its numbers say nothing of those that were found.
            Why::Entries if !is_home && found.map(|found| found.seq) != self.ours => None,
            Why::Entries | Why::Moved | Why::NoCursor => self.ours,
        };
        if let Some(found) = found {
            return Some(found.seq).max(ours);
        }
        match why {
            Why::Unnoted => ours,
            _ if self.is_untouched() && ours.is_some() => ours,
            // Who removes the source with the cursor wants to begin anew.
            Why::NoCursor if !self.source.is_empty() => ours,
            Why::NoCursor => None,
            // Nothing shows whether the event of a cursor that was written before its entries is among them.
            Why::Entries | Why::Moved | Why::NoSource => cursor.map(|cursor| (cursor - 1).max(1)).max(ours),
        }
    }

    /// Says whether nobody has written since our newest entry.
    fn is_untouched(&self) -> bool {
        self.newest.as_deref() == Some(self.last())
    }

    /// Takes the position over; says whether that changes it.
    fn take(&mut self, seq: u64, found: Option<Found>, home: &str, keys: &Keys) -> bool {
        let position = &mut self.position;
        // What we noted is that host's, although the cursor's key may have another name by now.
        let host = match serde_json::from_str::<Source>(&self.source).ok().or_else(|| position.source.clone()) {
            Some(source) if self.ours == Some(seq) => source.host,
            _ => home.to_owned(),
        };
        let is_same = position.source.as_ref().is_some_and(|source| source.host == host);
        // Noted as ours also where it agrees: once its entries are trimmed, only that says that it may be believed.
        if is_same && position.cursor == Some(seq) && self.ours == Some(seq) {
            return false;
        }
        if let Some(found) = found.filter(|found| found.seq == seq) {
            position.event_time = found.written.or(position.event_time);
        }
        position.cursor = Some(seq);
        position.source = Some(Source { host, first_id: String::new(), cursor_key: Some(keys.cursor().to_owned()) });
        true
    }
}

/// Finds the newest number among entries, newest first. Where it stands there more than once, the newest entries repeat what
/// another producer had written, or the same one before it was killed, and what follows the first of them counts too.
fn newest(numbers: &[(StreamId, u64)]) -> Option<Found> {
    let (_, first) = numbers.first()?;
    let repeats = numbers.iter().rposition(|(_, seq)| seq == first).unwrap_or_default();
    let (id, seq) = numbers.get(..=repeats)?.iter().max_by_key(|(_, seq)| *seq)?;
    let written = i64::try_from(id.ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Some(Found { seq: *seq, written })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "a";

    /// Wrote up to entry 9, number 90, on that host; nobody has written since.
    fn seen(host: Option<&str>, cursor: Option<u64>) -> Seen {
        let source = host.map(|host| Source { host: host.to_owned(), first_id: "1-0".to_owned(), cursor_key: None });
        Seen {
            position: Position { cursor, source, ..Position::default() },
            ours: Some(90),
            newest: Some("9-0".to_owned()),
            last: "9-0".to_owned(),
            ..Seen::default()
        }
    }

    fn found(seq: u64) -> Option<Found> {
        Some(Found { seq, written: None })
    }

    fn decided(seen: &Seen, found: Option<Found>) -> (Option<Why>, Option<u64>) {
        let why = seen.why(HOME);
        (why, why.and_then(|why| seen.target(why, HOME, found)))
    }

    #[test]
    fn a_position_of_ours_is_believed() {
        assert_eq!(seen(Some(HOME), Some(90)).why(HOME), None);
        assert_eq!(seen(Some(HOME), Some(70)).why(HOME), None, "set back by hand");
        assert_eq!(seen(Some("b"), Some(90)).why(HOME), None);
    }

    #[test]
    fn a_cursor_that_another_program_moved_on_gives_way_to_what_is_written() {
        let moved = seen(Some(HOME), Some(101));
        assert_eq!(decided(&moved, found(88)), (Some(Why::Moved), Some(90)), "a #sync had moved ours on");
        assert_eq!(decided(&moved, None), (Some(Why::Moved), Some(90)), "all was trimmed, and nobody wrote");
        let behind = Seen { last: "12-0".to_owned(), ..moved };
        assert_eq!(decided(&behind, None), (Some(Why::Moved), Some(100)), "its entries were removed");
    }

    #[test]
    fn entries_of_another_program_go_before_any_cursor() {
        let entries = |host: &str, cursor| Seen { foreign: Some("10-0".to_owned()), ..seen(Some(host), Some(cursor)) };
        assert_eq!(decided(&entries(HOME, 90), found(120)), (Some(Why::Entries), Some(120)));
        assert_eq!(decided(&entries(HOME, 95), found(120)).1, Some(120), "its cursor is behind");
        assert_eq!(decided(&entries(HOME, 90), found(80)).1, Some(90), "it read again what was there");
        assert_eq!(decided(&entries("b", 90), found(40)).1, Some(40), "the numbers of two hosts");
        assert_eq!(decided(&entries("b", 90), found(90)).1, Some(90), "a version of ours that notes nothing");
    }

    #[test]
    fn without_source_or_cursor_the_entries_tell() {
        let python = Seen { ours: None, newest: None, ..seen(None, Some(1102)) };
        assert_eq!(decided(&python, found(1101)), (Some(Why::NoSource), Some(1101)));
        assert_eq!(decided(&python, None), (Some(Why::NoSource), Some(1101)), "the event of its cursor may be missing");
        let typescript = Seen { ours: None, newest: None, ..seen(None, None) };
        assert_eq!(decided(&typescript, found(300)), (Some(Why::NoCursor), Some(300)));
        assert_eq!(decided(&typescript, None), (Some(Why::NoCursor), None));
        let gone = Seen { last: "12-0".to_owned(), source: "{}".to_owned(), ..seen(Some(HOME), None) };
        assert_eq!(decided(&gone, None), (Some(Why::NoCursor), Some(90)), "what stands behind ours carries no number");
        let anew = Seen { source: String::new(), ..gone };
        assert_eq!(decided(&anew, None), (Some(Why::NoCursor), None), "the source was removed, too");
    }

    #[test]
    fn what_we_noted_under_another_key_stays_its_hosts() {
        let json = r#"{"host":"b","firstId":"1-0","cursorKey":"renamed"}"#;
        let mut renamed = Seen { source: json.to_owned(), ..seen(None, None) };
        let keys = penstock_core::settings::Settings::load(&penstock_core::settings::Layers::default()).unwrap().keys;
        assert!(renamed.take(90, None, HOME, &keys));
        assert_eq!(renamed.position.source.unwrap().host, "b");
    }

    #[test]
    fn what_a_version_before_wrote_is_ours() {
        let unnoted = Seen { newest: None, ours: None, ..seen(Some(HOME), Some(90)) };
        assert_eq!(decided(&unnoted, found(88)), (Some(Why::Unnoted), Some(88)), "its cursor may lead its entries");
        assert_eq!(decided(&unnoted, None), (Some(Why::Unnoted), Some(90)));
        assert_eq!(decided(&unnoted, found(130)), (Some(Why::Unnoted), Some(130)), "and then somebody else wrote");
        assert_eq!(Seen { newest: None, ..seen(Some("b"), Some(90)) }.why(HOME), None);
    }

    #[test]
    fn a_run_of_repeats_does_not_hide_what_was_written_before_it() {
        let numbers = |seqs: &[u64]| -> Vec<_> {
            let ids = (1..).map(|ms| StreamId { ms, seq: 0 });
            let mut numbers: Vec<_> = ids.zip(seqs.iter().copied()).collect();
            numbers.reverse();
            numbers
        };
        let seq = |seqs: &[u64]| newest(&numbers(seqs)).map(|found| found.seq);
        assert_eq!(seq(&[]), None);
        assert_eq!(seq(&[1, 2, 3]), Some(3));
        assert_eq!(seq(&[5, 6, 7, 8, 5, 6]), Some(8));
        assert_eq!(seq(&[900, 901, 1, 2]), Some(2), "a sequence that began again");
        assert_eq!(seq(&[901, 1, 2, 3, 1]), Some(3));
        assert_eq!(seq(&[5, 6, 7, 8, 5, 6, 5, 6]), Some(8), "it was repeated twice");
    }
}
