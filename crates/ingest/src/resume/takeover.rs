//! Takes over a stream that another program wrote, at the end of its entries. The position is stored before anything is
//! trimmed and before a relay is asked, because only the entries tell it.
//!
//! The Python consumer stores its cursor every few seconds, ahead of its entries or behind them; the TypeScript ingestion stores
//! none in Redis.

use std::collections::HashMap;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use jiff::Timestamp;
use penstock_core::keys::Keys;
use penstock_core::live::{Source, state};
use penstock_core::stream::{Seq, StreamId};
use tracing::{info, warn};

use crate::resume::position::Position;
use crate::scripts;
use crate::stream::lease::Lease;

const PAGE: (u32, u32) = (1_000, 4_000_000);

/// How many numbers are looked back through for a run that the newest entries repeat.
const LOOK_BACK: usize = 10_000;

/// What Redis says of the last event written, and of who wrote it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    /// The position according to the keys.
    pub(crate) position: Position,
    /// The first entry of another program after ours.
    pub(crate) foreign: Option<String>,
    /// The source's text.
    source: String,
    /// The cursor as ingest last wrote it.
    ours: Option<u64>,
    /// The newest entry of our last batch.
    newest: Option<String>,
    /// The last ID of the stream; empty without one.
    last: String,
}

/// Why the cursor is not trusted, and the entries decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Another program wrote entries after ours.
    Entries,
    /// Another program moved the cursor forward.
    Moved,
    /// The cursor has no source.
    NoSource,
    /// There is no cursor.
    NoCursor,
    /// Our newest entry is not recorded: an older version wrote it.
    Unnoted,
}

/// The newest sequence number in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    seq: u64,
    /// When its entry was written.
    written: Option<Timestamp>,
}

/// The result of storing the position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// It is stored.
    ProcessState,
    /// Another ingest holds the lease.
    Lease,
    /// Another program has written entries in the meantime; the first of them.
    Joined(String),
    /// The cursor changed in the meantime, perhaps by a late batch of ours.
    Moved,
}

// === impl Observation ===

impl Observation {
    /// Reads the position, and looks at what follows our newest entry, or the given ID.
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
                client.eval(scripts::POSITION, names(), vec![scripts::SCAN_LIMIT.to_string(), from.clone()]).await?;
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

    /// Returns the ID up to which the stream was looked at.
    pub(crate) fn last(&self) -> &str {
        if self.last.is_empty() { "0-0" } else { &self.last }
    }

    /// Stores which entry is the newest, and the position that the entries tell where the cursor is not trusted.
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
                        "taking over the stream from another program, resuming after its last entry"
                    );
                    cursor = seq.to_string();
                    source = serde_json::to_string(&self.position.source).unwrap_or_default();
                }
            }
        }
        if cursor.is_empty() && self.is_untouched() {
            return Ok(Settled::ProcessState);
        }
        let settled = self.keep(client, keys, lease, &cursor, &source).await?;
        if settled == Settled::ProcessState && !cursor.is_empty() {
            self.position.fence = cursor;
        }
        Ok(settled)
    }

    /// Starts one number before what another program stored elsewhere, because it stores that before the entry.
    pub(crate) fn begin_before(&mut self, kept: u64) {
        info!(cursor = kept, "no cursor and no numbered entry, resuming from the AppView's own cursor in postgresql");
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
            let arguments = [
                lease.token(),
                &self.position.fence,
                &self.source,
                &last,
                &scripts::SCAN_LIMIT.to_string(),
                cursor,
                source,
            ];
            let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
            arguments.push(time.clone());
            let answer: Vec<String> = client.eval(scripts::SETTLE, names(), arguments).await?;
            let second = answer.get(1).cloned().unwrap_or_default();
            match answer.first().map(String::as_str) {
                Some("more") => last = second,
                Some("lease") => return Ok(Settled::Lease),
                Some("joined") => return Ok(Settled::Joined(second)),
                Some("moved") => return Ok(Settled::Moved),
                _ => return Ok(Settled::ProcessState),
            }
        }
    }

    /// Finds the newest number in the stream, however many unnumbered entries follow it.
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

    /// Returns why the cursor is not trusted, for a pipeline whose first relay is `home`.
    fn why(&self, home: &str) -> Option<Doubt> {
        if self.foreign.is_some() {
            return Some(Doubt::Entries);
        }
        let Some(cursor) = self.position.cursor else { return Some(Doubt::NoCursor) };
        let Some(source) = &self.position.source else { return Some(Doubt::NoSource) };
        // Somebody set it back on purpose. Moved forward, it may promise more than was written.
        if self.ours.is_some_and(|ours| cursor > ours) {
            return Some(Doubt::Moved);
        }
        (self.newest.is_none() && source.host == home).then_some(Doubt::Unnoted)
    }

    /// Decides up to which number everything is in the stream.
    fn target(&self, why: Doubt, home: &str, found: Option<Found>) -> Option<u64> {
        let cursor = self.position.cursor;
        let is_home = self.position.source.as_ref().is_none_or(|source| source.host == home);
        let ours = match why {
            // The Python consumer may have moved it before its entry arrived: an entry counts for more.
            Doubt::Unnoted => found.is_none().then_some(cursor).flatten(),
            Doubt::NoSource => None,
            // What we wrote is written. But on another host our numbers say nothing about those that were found.
            Doubt::Entries if !is_home && found.map(|found| found.seq) != self.ours => None,
            Doubt::Entries | Doubt::Moved | Doubt::NoCursor => self.ours,
        };
        if let Some(found) = found {
            return Some(found.seq).max(ours);
        }
        match why {
            Doubt::Unnoted => ours,
            _ if self.is_untouched() && ours.is_some() => ours,
            // Whoever removes the source with the cursor wants to start afresh.
            Doubt::NoCursor if !self.source.is_empty() => ours,
            Doubt::NoCursor => None,
            // The event of a cursor that was written before its entries may be missing.
            Doubt::Entries | Doubt::Moved | Doubt::NoSource => cursor.map(|cursor| (cursor - 1).max(1)).max(ours),
        }
    }

    /// Returns whether nobody has written since our newest entry.
    fn is_untouched(&self) -> bool {
        self.newest.as_deref() == Some(self.last())
    }

    /// Sets the position; returns whether that changes anything.
    fn take(&mut self, seq: u64, found: Option<Found>, home: &str, keys: &Keys) -> bool {
        let position = &mut self.position;
        // The cursor that we recorded belongs to that host, even if the cursor's key has been renamed.
        let host = match serde_json::from_str::<Source>(&self.source).ok().or_else(|| position.source.clone()) {
            Some(source) if self.ours == Some(seq) => source.host,
            _ => home.to_owned(),
        };
        let is_same = position.source.as_ref().is_some_and(|source| source.host == host);
        // Recorded as ours even if nothing changes: once its entries are trimmed, only that says it can be trusted.
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

/// Finds the newest number among entries, newest first. If it occurs more than once, the newest entries repeat what another
/// producer wrote, or the same one before it was killed; then everything after its first occurrence counts too.
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
    fn seen(host: Option<&str>, cursor: Option<u64>) -> Observation {
        let source = host.map(|host| Source { host: host.to_owned(), first_id: "1-0".to_owned(), cursor_key: None });
        Observation {
            position: Position { cursor, source, ..Position::default() },
            ours: Some(90),
            newest: Some("9-0".to_owned()),
            last: "9-0".to_owned(),
            ..Observation::default()
        }
    }

    fn found(seq: u64) -> Option<Found> {
        Some(Found { seq, written: None })
    }

    fn decided(seen: &Observation, found: Option<Found>) -> (Option<Doubt>, Option<u64>) {
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
        assert_eq!(decided(&moved, found(88)), (Some(Doubt::Moved), Some(90)), "a #sync had moved ours on");
        assert_eq!(decided(&moved, None), (Some(Doubt::Moved), Some(90)), "all was trimmed, and nobody wrote");
        let behind = Observation { last: "12-0".to_owned(), ..moved };
        assert_eq!(decided(&behind, None), (Some(Doubt::Moved), Some(100)), "its entries were removed");
    }

    #[test]
    fn entries_of_another_program_go_before_any_cursor() {
        let entries =
            |host: &str, cursor| Observation { foreign: Some("10-0".to_owned()), ..seen(Some(host), Some(cursor)) };
        assert_eq!(decided(&entries(HOME, 90), found(120)), (Some(Doubt::Entries), Some(120)));
        assert_eq!(decided(&entries(HOME, 95), found(120)).1, Some(120), "its cursor is behind");
        assert_eq!(decided(&entries(HOME, 90), found(80)).1, Some(90), "it read again what was there");
        assert_eq!(decided(&entries("b", 90), found(40)).1, Some(40), "the numbers of two hosts");
        assert_eq!(decided(&entries("b", 90), found(90)).1, Some(90), "a version of ours that incidents nothing");
    }

    #[test]
    fn without_source_or_cursor_the_entries_tell() {
        let python = Observation { ours: None, newest: None, ..seen(None, Some(1102)) };
        assert_eq!(decided(&python, found(1101)), (Some(Doubt::NoSource), Some(1101)));
        assert_eq!(
            decided(&python, None),
            (Some(Doubt::NoSource), Some(1101)),
            "the event of its cursor may be missing"
        );
        let typescript = Observation { ours: None, newest: None, ..seen(None, None) };
        assert_eq!(decided(&typescript, found(300)), (Some(Doubt::NoCursor), Some(300)));
        assert_eq!(decided(&typescript, None), (Some(Doubt::NoCursor), None));
        let gone = Observation { last: "12-0".to_owned(), source: "{}".to_owned(), ..seen(Some(HOME), None) };
        assert_eq!(
            decided(&gone, None),
            (Some(Doubt::NoCursor), Some(90)),
            "what stands behind ours carries no number"
        );
        let anew = Observation { source: String::new(), ..gone };
        assert_eq!(decided(&anew, None), (Some(Doubt::NoCursor), None), "the source was removed, too");
    }

    #[test]
    fn what_we_noted_under_another_key_stays_its_hosts() {
        let json = r#"{"host":"b","firstId":"1-0","cursorKey":"renamed"}"#;
        let mut renamed = Observation { source: json.to_owned(), ..seen(None, None) };
        let keys = penstock_core::settings::Settings::load(&penstock_core::settings::Layers::default()).unwrap().keys;
        assert!(renamed.take(90, None, HOME, &keys));
        assert_eq!(renamed.position.source.unwrap().host, "b");
    }

    #[test]
    fn what_a_version_before_wrote_is_ours() {
        let unnoted = Observation { newest: None, ours: None, ..seen(Some(HOME), Some(90)) };
        assert_eq!(decided(&unnoted, found(88)), (Some(Doubt::Unnoted), Some(88)), "its cursor may lead its entries");
        assert_eq!(decided(&unnoted, None), (Some(Doubt::Unnoted), Some(90)));
        assert_eq!(decided(&unnoted, found(130)), (Some(Doubt::Unnoted), Some(130)), "and then somebody else wrote");
        assert_eq!(Observation { newest: None, ..seen(Some("b"), Some(90)) }.why(HOME), None);
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
