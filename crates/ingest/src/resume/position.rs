//! Where to resume: the cursor, its host, and what is stored beside it.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use penstock_core::causes::chain;
use penstock_core::filter::Summary;
use penstock_core::keys::Keys;
use penstock_core::live::{Head, Source, state};
use penstock_core::settings::{RelayUrl, Start};
use penstock_core::stream::{Seq, StreamId};
use penstock_core::time;
use tracing::warn;

use crate::intake::resets::Reset;
use crate::intake::seam::Seam;
use crate::intake::written::Written;
use crate::resume::checkpoint::{Checkpoint, Standing};

/// How old the head of a standby host may be. Hosts keep about this much, and may have restarted their sequence since.
const HEAD_AGE: SignedDuration = SignedDuration::from_hours(72);

/// What Redis says of the last event written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Position {
    /// The cursor's text, empty where there is none: what the next batch must find.
    pub(crate) fence: String,
    /// The last sequence number in the stream.
    pub(crate) cursor: Option<u64>,
    /// The cursor's host; none where another system wrote it.
    pub(crate) source: Option<Source>,
    /// The event time of the cursor.
    pub(crate) event_time: Option<Timestamp>,
    /// What was written last on that host, and the cursor it was stored with.
    pub(crate) written: Option<(u64, String)>,
    /// The filter under which the events up to the cursor were chosen; none where there never was one.
    pub(crate) filter: Option<Summary>,
    /// The backfills that are still owed, as they are written there.
    pub(crate) owed: Option<String>,
    /// The last usable heads of the standby hosts.
    pub(crate) standby: HashMap<String, Head>,
    /// Whether the stream exists.
    pub(crate) has_stream: bool,
    /// The incarnation of this Redis; empty where there is none.
    pub(crate) incarnation: String,
    /// Whether Redis can be trusted, and what PostgreSQL remembers if not.
    pub(crate) standing: Standing,
}

/// How to start on one host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Begin {
    /// The cursor to ask for; none for live events only.
    pub(crate) ask: Option<u64>,
    /// How to judge the first numbers.
    pub(crate) seam: Seam,
    /// Whether to write the source with the next entry.
    pub(crate) set_source: bool,
    /// The ID below which no further entry may come.
    pub(crate) floor: Option<StreamId>,
    /// The reason, for the log.
    pub(crate) why: &'static str,
}

// === impl Begin ===

impl Begin {
    /// Skips everything up to a number.
    pub(crate) fn behind(self, seq: u64) -> Self {
        let event_time = self.seam.event_time();
        let why = "a frame never arrives complete: resuming after it";
        Self { ask: Some(seq), seam: Seam::past(seq, event_time), why, ..self }
    }
}

// === impl Position ===

impl Position {
    /// Parses the texts of the keys and the fields of the state hash.
    pub(crate) fn read(
        keys: &Keys,
        [fence, source, incarnation]: [String; 3],
        has_stream: bool,
        fields: &HashMap<String, String>,
    ) -> Self {
        let source = match serde_json::from_str::<Source>(&source) {
            // A system that ran beside ours, and that this pipeline now replaces, has a cursor of its own.
            Ok(source) if source.cursor_key.as_deref().is_some_and(|key| key != keys.cursor()) => None,
            Ok(source) => Some(source),
            Err(_) if source.is_empty() => None,
            Err(error) => {
                warn!(error = chain(&error), key = %keys.ingest_source(), "invalid cursor source, ignoring it");
                None
            }
        };
        let standby = fields.iter().filter_map(|(name, value)| {
            let host = name.strip_prefix(&state::standby(""))?;
            Some((host.to_owned(), serde_json::from_str(value).ok()?))
        });
        let beside = |field: &str| fields.get(field).map(String::as_str);
        let written = || Some((beside(state::CURSOR)?.parse().ok()?, beside(state::WRITTEN)?.to_owned()));
        Self {
            cursor: if fence.is_empty() { None } else { read_cursor(&fence) },
            fence,
            source,
            event_time: fields.get(state::EVENT_TIME).and_then(|time| time::parse(time)),
            written: written(),
            filter: fields.get(state::FILTER).and_then(|filter| serde_json::from_str(filter).ok()),
            owed: beside(state::OWED).map(str::to_owned),
            standby: standby.collect(),
            has_stream,
            incarnation,
            standing: Standing::default(),
        }
    }

    /// Chooses the relay to start with: the one last read, or that of the newest checkpoint if Redis lost its data.
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

    /// Decides how to start on a host.
    pub(crate) fn begin(&self, host: &str, start: Start, now: Timestamp) -> Begin {
        if let Standing::Lost { checkpoints, .. } = &self.standing
            && !checkpoints.is_empty()
        {
            return at_checkpoint(checkpoints.iter().find(|checkpoint| checkpoint.host == host));
        }
        let ours = self.source.as_ref().is_none_or(|source| source.host == host);
        match self.cursor {
            Some(cursor) if ours => Begin {
                ask: Some(cursor.saturating_sub(1)),
                seam: Seam::after(cursor, self.event_time, self.written_at(cursor)),
                set_source: self.source.as_ref().is_none_or(|source| source.first_id.is_empty()),
                floor: None,
                why: "resuming at the cursor",
            },
            Some(_) => {
                // If the host restarted its sequence since, an old number would skip everything it sent.
                let head = self.standby.get(host).filter(|head| is_fresh(head, now));
                let is_stale = head.is_none() && self.standby.contains_key(host);
                Begin {
                    ask: Some(head.map_or(0, |head| head.seq)),
                    seam: head.map_or_else(Seam::anything, |head| Seam::past(head.seq, Some(head.time))),
                    set_source: true,
                    floor: None,
                    why: if head.is_some() {
                        "different host: starting at its sampled head"
                    } else if is_stale {
                        "different host, its sample is too old: starting at its oldest event"
                    } else {
                        "different host without a sample: starting at its oldest event"
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
                    Start::Live => "no cursor: starting with live events",
                    Start::Oldest => "no cursor: starting at the oldest event",
                },
            },
        }
    }

    /// Decides how to start on a host that restarted its sequence, whatever the cursor says.
    pub(crate) fn begin_after_reset(&self, host: &str, reset: Reset, now: Timestamp) -> Begin {
        let (ask, why) = match reset {
            Reset::FromOldest => (Some(0), "sequence reset: starting at the oldest event"),
            Reset::Live => (None, "sequence reset again within the hour: continuing with live events"),
        };
        // What was just written need not be written again. Old numbers are no positions in the new sequence.
        let is_same = self.source.as_ref().is_none_or(|source| source.host == host);
        let written = self.written.as_ref().filter(|(beside, _)| is_same && self.cursor == Some(*beside));
        let written = Written::read(written.map(|(_, text)| text.as_str()).unwrap_or_default(), 0);
        Begin { ask, seam: Seam::after_reset(written), set_source: true, why, ..self.begin(host, Start::Live, now) }
    }

    /// Returns what was written last, if it was stored with this cursor.
    fn written_at(&self, cursor: u64) -> Written {
        let kept = self.written.as_ref().filter(|(beside, _)| *beside == cursor);
        Written::read(kept.map(|(_, text)| text.as_str()).unwrap_or_default(), cursor)
    }

    /// Returns the position on the host that is left for another one, for the way back.
    pub(crate) fn left(&self, host: &str, now: Timestamp) -> Option<(String, Head)> {
        let source = self.source.as_ref().filter(|source| source.host != host && !self.standing.is_lost())?;
        let time = self.event_time.unwrap_or(Timestamp::UNIX_EPOCH);
        Some((source.host.clone(), Head { seq: self.cursor?, time, taken: Some(now) }))
    }
}

/// Returns whether a head is recent enough to start at. Without the time it was taken, its event's time counts.
fn is_fresh(head: &Head, now: Timestamp) -> bool {
    let taken = head.taken.unwrap_or(head.time);
    now.duration_since(taken) <= HEAD_AGE
}

/// Starts where everything before is in PostgreSQL for certain, because Redis lost its data.
fn at_checkpoint(checkpoint: Option<&Checkpoint>) -> Begin {
    let seq = checkpoint.map(|checkpoint| checkpoint.seq);
    Begin {
        ask: Some(seq.unwrap_or_default()),
        seam: seq.map_or_else(Seam::anything, |seq| Seam::past(seq, None)),
        set_source: true,
        floor: checkpoint.and_then(|checkpoint| checkpoint.stream_id),
        why: if seq.is_some() {
            "redis lost its data: resuming from the checkpoint"
        } else {
            "redis lost its data and there is no checkpoint for this host: starting at its oldest event"
        },
    }
}

fn read_cursor(text: &str) -> Option<u64> {
    match text.parse::<Seq>() {
        Ok(seq) => Some(seq.get()),
        Err(error) => {
            warn!(error = chain(&error), "invalid cursor, ignoring it");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_core::settings::Value;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000_000).unwrap()
    }

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
        let begin = position(Some(10), Some("a")).begin("a", Start::Live, now());
        assert_eq!((begin.ask, begin.seam.cursor(), begin.set_source), (Some(9), Some(10), false));
    }

    #[test]
    fn another_host_begins_at_its_sampled_head_or_its_oldest_event() {
        let mut position = position(Some(10), Some("a"));
        assert_eq!(position.begin("b", Start::Live, now()).ask, Some(0));
        let head = Head { seq: 700, time: Timestamp::UNIX_EPOCH, taken: Some(now()) };
        position.standby.insert("b".to_owned(), head);
        let begin = position.begin("b", Start::Live, now());
        assert_eq!((begin.ask, begin.seam.cursor(), begin.set_source), (Some(700), Some(700), true));
    }

    #[test]
    fn a_stale_head_is_no_head() {
        let mut position = position(Some(10), Some("a"));
        let mut ask = |time: Timestamp, taken| {
            position.standby.insert("b".to_owned(), Head { seq: 700, time, taken });
            let begin = position.begin("b", Start::Live, now());
            (begin.ask, begin.seam.cursor())
        };
        let ago = |hours| now() - SignedDuration::from_hours(hours);
        assert_eq!(ask(ago(1), None), (Some(700), Some(700)), "noted by a version before");
        assert_eq!(ask(ago(100), None), (Some(0), None));
        assert_eq!(ask(ago(100), Some(ago(1))), (Some(700), Some(700)), "its clock may be wrong, ours took it");
        assert_eq!(ask(ago(-24), Some(ago(73))), (Some(0), None));
    }

    #[test]
    fn what_was_written_is_believed_beside_its_own_cursor_only() {
        let mark = |seq| crate::intake::written::Mark { seq, print: 7 };
        let mut position = Position { written: Some((10, "9.7 10.7".to_owned())), ..position(Some(10), Some("a")) };
        assert!(position.written_at(10).holds(mark(9)));
        assert!(
            !position.written_at(10).holds(crate::intake::written::Mark { seq: 10, print: 8 }),
            "another event of that number"
        );
        position.cursor = Some(5);
        assert!(!position.written_at(5).holds(mark(9)), "somebody set the cursor back, to read it again");
    }

    #[test]
    fn a_host_that_counts_anew_is_begun_with_whatever_the_cursor_says() {
        let position = position(Some(10), Some("a"));
        let ask = |anew| position.begin_after_reset("a", anew, now()).ask;
        assert_eq!((ask(Reset::FromOldest), ask(Reset::Live)), (Some(0), None));
    }

    #[test]
    fn what_is_left_for_another_host_is_kept_unless_redis_is_lost() {
        let mut position = position(Some(10), Some("a"));
        let head = Head { seq: 10, time: Timestamp::UNIX_EPOCH, taken: Some(now()) };
        assert_eq!(position.left("b", now()), Some(("a".to_owned(), head)));
        assert_eq!(position.left("a", now()), None);
        position.standing = Standing::Lost { incarnation: None, checkpoints: Vec::new() };
        assert_eq!(position.left("b", now()), None, "who knows what is missing before that cursor");
    }

    #[test]
    fn a_lost_redis_is_filled_from_the_newest_checkpoint_of_a_configured_host() {
        let relays = Vec::<RelayUrl>::parse("ws://a,ws://b,ws://c").unwrap();
        let checkpoint = |host: &str, seq| Checkpoint { host: host.to_owned(), seq, stream_id: None };
        let mut position = position(Some(10), Some("c"));
        let lost = |checkpoints| Standing::Lost { incarnation: None, checkpoints };
        position.standing = lost(vec![checkpoint("x", 1), checkpoint("b", 2), checkpoint("a", 3)]);
        assert_eq!(position.home(&relays), 1);
        assert_eq!(
            (position.begin("b", Start::Live, now()).ask, position.begin("a", Start::Live, now()).ask),
            (Some(2), Some(3))
        );
        assert_eq!(position.begin("c", Start::Live, now()).ask, Some(0), "nothing is known of what it holds");
        position.standing = lost(Vec::new());
        assert_eq!(
            (position.home(&relays), position.begin("c", Start::Live, now()).ask),
            (2, Some(9)),
            "nothing was settled"
        );
    }

    #[test]
    fn a_cursor_without_a_source_belongs_to_the_relay_that_is_configured() {
        let begin = position(Some(10), None).begin("a", Start::Live, now());
        assert_eq!((begin.ask, begin.set_source), (Some(9), true));
    }

    #[test]
    fn without_a_cursor_the_setting_decides() {
        assert_eq!(position(None, None).begin("a", Start::Live, now()).ask, None);
        assert_eq!(position(None, None).begin("a", Start::Oldest, now()).ask, Some(0));
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
