//! Where to read on: the cursor, whose it is, and what stands beside it.

use std::collections::HashMap;

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{HashesInterface, KeysInterface, StreamsInterface};
use jiff::Timestamp;
use penstock_core::keys::Keys;
use penstock_core::live::{Head, Source, state};
use penstock_core::settings::Start;
use penstock_core::stream::{Seq, StreamId, field};
use penstock_core::time;
use tracing::warn;

use crate::seam::Seam;

/// How many of the newest entries are looked through for a sequence number.
const NEWEST: u64 = 1_000;

/// What Redis says of the last event written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Position {
    /// The cursor's text as it stands, empty where there is none: what the next batch must find.
    pub(crate) fence: String,
    /// The last sequence number in the stream.
    pub(crate) cursor: Option<u64>,
    /// Whose the cursor is; none where another system wrote it.
    pub(crate) source: Option<Source>,
    /// The event time of the cursor.
    pub(crate) event_time: Option<Timestamp>,
    /// The last usable heads of the hosts that stand by.
    pub(crate) standby: HashMap<String, Head>,
}

/// How to begin on one host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begin {
    /// The cursor to ask for; none for live events only.
    pub(crate) ask: Option<u64>,
    /// How the first numbers are to be judged.
    pub(crate) seam: Seam,
    /// Whether the source is to be written with the next entry.
    pub(crate) set_source: bool,
    /// Why, for the log.
    pub(crate) why: &'static str,
}

// === impl Position ===

impl Position {
    /// Reads the position, under the lease.
    pub(crate) async fn load(client: &Client, keys: &Keys) -> Result<Self, Error> {
        let fence: Option<String> = client.get(keys.cursor()).await?;
        let source: Option<String> = client.get(keys.ingest_source()).await?;
        let state: HashMap<String, String> = client.hgetall(keys.ingest_state()).await?;
        let source = source.and_then(|json| match serde_json::from_str(&json) {
            Ok(source) => Some(source),
            Err(error) => {
                warn!(%error, key = %keys.ingest_source(), "could not read the cursor's source, taking it as missing");
                None
            }
        });
        let mut position = Self {
            cursor: fence.as_deref().and_then(read_cursor),
            fence: fence.unwrap_or_default(),
            source,
            event_time: state.get(state::EVENT_TIME).and_then(|text| time::parse(text)),
            standby: HashMap::new(),
        };
        for (name, value) in &state {
            if let (Some(host), Ok(head)) = (name.strip_prefix(&state::standby("")), serde_json::from_str(value)) {
                position.standby.insert(host.to_owned(), head);
            }
        }
        if position.source.is_none() && position.cursor.is_some() {
            // The consumer before us wrote its cursor every few seconds, ahead of its entries.
            if let Some((seq, written)) = newest_seq(client, keys).await? {
                position.cursor = Some(seq);
                position.event_time = position.event_time.or(written);
            }
        }
        Ok(position)
    }

    /// Decides how to begin on a host.
    pub(crate) fn begin(&self, host: &str, start: Start) -> Begin {
        let ours = self.source.as_ref().is_none_or(|source| source.host == host);
        match self.cursor {
            Some(cursor) if ours => Begin {
                ask: Some(cursor.saturating_sub(1)),
                seam: Seam::after(Some(cursor), self.event_time),
                set_source: self.source.as_ref().is_none_or(|source| source.first_id.is_empty()),
                why: "resuming at the cursor",
            },
            Some(_) => {
                let head = self.standby.get(host);
                Begin {
                    ask: Some(head.map_or(0, |head| head.seq)),
                    seam: Seam::anything(),
                    set_source: true,
                    why: if head.is_some() {
                        "another host: beginning at its sampled head"
                    } else {
                        "another host without a sample: beginning at its oldest event"
                    },
                }
            }
            None => Begin {
                ask: match start {
                    Start::Live => None,
                    Start::Oldest => Some(0),
                },
                seam: Seam::anything(),
                set_source: true,
                why: match start {
                    Start::Live => "no cursor: beginning with live events",
                    Start::Oldest => "no cursor: beginning at the oldest event",
                },
            },
        }
    }

    /// Decides how to begin on a host whose sequence began again.
    pub(crate) fn begin_anew() -> Begin {
        Begin {
            ask: Some(0),
            seam: Seam::anything(),
            set_source: true,
            why: "the host's sequence began again: reading it from its oldest event",
        }
    }
}

fn read_cursor(text: &str) -> Option<u64> {
    match text.parse::<Seq>() {
        Ok(seq) => Some(seq.get()),
        Err(error) => {
            warn!(%error, "could not read the cursor, taking it as missing");
            None
        }
    }
}

/// Finds the newest sequence number in the stream, and when its entry was written.
async fn newest_seq(client: &Client, keys: &Keys) -> Result<Option<(u64, Option<Timestamp>)>, Error> {
    type Entry = (String, HashMap<String, Option<fred::bytes::Bytes>>);
    let newest: Vec<Entry> = client.xrevrange(keys.stream(), "+", "-", Some(NEWEST)).await?;
    Ok(newest.iter().find_map(|(id, fields)| {
        let seq = fields.get(field::SEQ)?.as_ref()?;
        let seq = str::from_utf8(seq).ok()?.parse::<Seq>().ok()?;
        let written = id.parse::<StreamId>().ok().and_then(|id| i64::try_from(id.ms).ok());
        Some((seq.get(), written.and_then(|ms| Timestamp::from_millisecond(ms).ok())))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(cursor: Option<u64>, host: Option<&str>) -> Position {
        Position {
            fence: cursor.map(|cursor| cursor.to_string()).unwrap_or_default(),
            cursor,
            source: host.map(|host| Source { host: host.to_owned(), first_id: "1-0".to_owned() }),
            ..Position::default()
        }
    }

    #[test]
    fn the_same_host_is_asked_for_the_event_at_the_cursor_again() {
        let begin = position(Some(10), Some("a")).begin("a", Start::Live);
        assert_eq!((begin.ask, begin.seam.cursor(), begin.set_source), (Some(9), Some(10), false));
    }

    #[test]
    fn another_host_begins_at_its_sampled_head_or_its_oldest_event() {
        let mut position = position(Some(10), Some("a"));
        assert_eq!(position.begin("b", Start::Live).ask, Some(0));
        let head = Head { seq: 700, time: Timestamp::UNIX_EPOCH };
        position.standby.insert("b".to_owned(), head);
        let begin = position.begin("b", Start::Live);
        assert_eq!((begin.ask, begin.seam.cursor(), begin.set_source), (Some(700), None, true));
    }

    #[test]
    fn a_cursor_without_a_source_belongs_to_the_relay_that_is_configured() {
        let begin = position(Some(10), None).begin("a", Start::Live);
        assert_eq!((begin.ask, begin.set_source), (Some(9), true));
    }

    #[test]
    fn without_a_cursor_the_setting_decides() {
        assert_eq!(position(None, None).begin("a", Start::Live).ask, None);
        assert_eq!(position(None, None).begin("a", Start::Oldest).ask, Some(0));
    }
}
