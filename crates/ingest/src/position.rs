//! Where to read on: the cursor, whose it is, and what stands beside it.

use std::collections::HashMap;

use jiff::Timestamp;
use penstock_core::keys::Keys;
use penstock_core::live::{Head, Source, state};
use penstock_core::settings::{RelayUrl, Start};
use penstock_core::stream::{Seq, StreamId};
use penstock_core::time;
use tracing::warn;

use crate::checkpoint::{Checkpoint, Standing};
use crate::seam::Seam;

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
    /// Whether the stream is there.
    pub(crate) has_stream: bool,
    /// This Redis' incarnation; empty where there is none.
    pub(crate) incarnation: String,
    /// Whether Redis can be believed, and what PostgreSQL remembers if not.
    pub(crate) standing: Standing,
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
    /// The ID below which no further entry may come.
    pub(crate) floor: Option<StreamId>,
    /// Why, for the log.
    pub(crate) why: &'static str,
}

// === impl Position ===

impl Position {
    /// Makes it of the keys' texts and the fields of the state hash.
    pub(crate) fn read(
        keys: &Keys,
        [fence, source, incarnation]: [String; 3],
        has_stream: bool,
        fields: &HashMap<String, String>,
    ) -> Self {
        let source = match serde_json::from_str::<Source>(&source) {
            // A system beside ours, whose place this is to take, writes a cursor of its own.
            Ok(source) if source.cursor_key.as_deref().is_some_and(|key| key != keys.cursor()) => None,
            Ok(source) => Some(source),
            Err(_) if source.is_empty() => None,
            Err(error) => {
                warn!(%error, key = %keys.ingest_source(), "could not read the cursor's source, taking it as missing");
                None
            }
        };
        let standby = fields.iter().filter_map(|(name, value)| {
            let host = name.strip_prefix(&state::standby(""))?;
            Some((host.to_owned(), serde_json::from_str(value).ok()?))
        });
        Self {
            cursor: if fence.is_empty() { None } else { read_cursor(&fence) },
            fence,
            source,
            event_time: fields.get(state::EVENT_TIME).and_then(|time| time::parse(time)),
            standby: standby.collect(),
            has_stream,
            incarnation,
            standing: Standing::default(),
        }
    }

    /// Chooses the relay to begin with: the one last read, or, where Redis is lost, that of the newest checkpoint.
    pub(crate) fn home(&self, relays: &[RelayUrl]) -> usize {
        let of = |host: &str| relays.iter().position(|relay| relay.host() == host);
        let home = match &self.standing {
            Standing::Lost { checkpoints, .. } if !checkpoints.is_empty() => {
                checkpoints.iter().find_map(|checkpoint| of(&checkpoint.host))
            }
            _ => self.source.as_ref().and_then(|source| of(&source.host)),
        };
        home.unwrap_or_default()
    }

    /// Decides how to begin on a host.
    pub(crate) fn begin(&self, host: &str, start: Start) -> Begin {
        if let Standing::Lost { checkpoints, .. } = &self.standing
            && !checkpoints.is_empty()
        {
            return at_checkpoint(checkpoints.iter().find(|checkpoint| checkpoint.host == host));
        }
        let ours = self.source.as_ref().is_none_or(|source| source.host == host);
        match self.cursor {
            Some(cursor) if ours => Begin {
                ask: Some(cursor.saturating_sub(1)),
                seam: Seam::after(Some(cursor), self.event_time),
                set_source: self.source.as_ref().is_none_or(|source| source.first_id.is_empty()),
                floor: None,
                why: "resuming at the cursor",
            },
            Some(_) => {
                let head = self.standby.get(host);
                Begin {
                    ask: Some(head.map_or(0, |head| head.seq)),
                    seam: head.map_or_else(Seam::anything, |head| Seam::past(head.seq, Some(head.time))),
                    set_source: true,
                    floor: None,
                    why: if head.is_some() {
                        "another host: beginning where it is known to be covered"
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
                floor: None,
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
            floor: None,
            why: "the host's sequence began again: reading it from its oldest event",
        }
    }

    /// Returns the place on the host that is left for another one, so that going back begins there.
    pub(crate) fn left(&self, host: &str) -> Option<(String, Head)> {
        let source = self.source.as_ref().filter(|source| source.host != host && !self.standing.is_lost())?;
        let head = Head { seq: self.cursor?, time: self.event_time.unwrap_or(Timestamp::UNIX_EPOCH) };
        Some((source.host.clone(), head))
    }
}

/// Begins where everything before is surely in PostgreSQL, now that Redis is lost.
fn at_checkpoint(checkpoint: Option<&Checkpoint>) -> Begin {
    let seq = checkpoint.map(|checkpoint| checkpoint.seq);
    Begin {
        ask: Some(seq.unwrap_or_default()),
        seam: seq.map_or_else(Seam::anything, |seq| Seam::past(seq, None)),
        set_source: true,
        floor: checkpoint.and_then(|checkpoint| checkpoint.stream_id),
        why: if seq.is_some() {
            "redis is lost: resuming at the checkpoint"
        } else {
            "redis is lost, and there is no checkpoint of this host: beginning at its oldest event"
        },
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

#[cfg(test)]
mod tests {
    use penstock_core::settings::Value;

    use super::*;

    fn position(cursor: Option<u64>, host: Option<&str>) -> Position {
        Position {
            fence: cursor.map(|cursor| cursor.to_string()).unwrap_or_default(),
            cursor,
            source: host.map(|host| Source { host: host.to_owned(), first_id: "1-0".to_owned(), cursor_key: None }),
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
        assert_eq!((begin.ask, begin.seam.cursor(), begin.set_source), (Some(700), Some(700), true));
    }

    #[test]
    fn what_is_left_for_another_host_is_kept_unless_redis_is_lost() {
        let mut position = position(Some(10), Some("a"));
        let head = Head { seq: 10, time: Timestamp::UNIX_EPOCH };
        assert_eq!(position.left("b"), Some(("a".to_owned(), head)));
        assert_eq!(position.left("a"), None);
        position.standing = Standing::Lost { incarnation: None, checkpoints: Vec::new() };
        assert_eq!(position.left("b"), None, "who knows what is missing before that cursor");
    }

    #[test]
    fn a_lost_redis_is_filled_from_the_newest_checkpoint_of_a_configured_host() {
        let relays = Vec::<RelayUrl>::parse("ws://a,ws://b,ws://c").unwrap();
        let checkpoint = |host: &str, seq| Checkpoint { host: host.to_owned(), seq, stream_id: None };
        let mut position = position(Some(10), Some("c"));
        let lost = |checkpoints| Standing::Lost { incarnation: None, checkpoints };
        position.standing = lost(vec![checkpoint("x", 1), checkpoint("b", 2), checkpoint("a", 3)]);
        assert_eq!(position.home(&relays), 1);
        assert_eq!((position.begin("b", Start::Live).ask, position.begin("a", Start::Live).ask), (Some(2), Some(3)));
        assert_eq!(position.begin("c", Start::Live).ask, Some(0), "nothing is known of what it holds");
        position.standing = lost(Vec::new());
        assert_eq!((position.home(&relays), position.begin("c", Start::Live).ask), (2, Some(9)), "nothing was settled");
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

    #[test]
    fn the_source_of_another_cursor_says_nothing_of_this_one() {
        let keys = Keys::default();
        let read = |key: &str| {
            let source = format!(r#"{{"host":"a","firstId":"1-0","cursorKey":"{key}"}}"#);
            Position::read(&keys, ["10".to_owned(), source, String::new()], true, &HashMap::new()).source
        };
        assert!(read(keys.cursor()).is_some());
        assert_eq!(read("another:cursor"), None);
    }
}
