//! Up to which event of the present host everything is settled.

use fred::types::Value;
use penstock_core::live::{Source, state};
use penstock_core::script;
use penstock_core::stream::{Seq, StreamId};

use super::client::{Answer, Consumer, Names, stream_id, surprise, text_of};
use crate::store::Checkpoint;

/// How many entries without a number are passed over at most.
const MAX_WITHOUT_NUMBER: i64 = 100;

/// Of how many entries the least number bounds: more than a host's far numbers that ingest does not believe yet.
const NUMBERS: i64 = 8;

/// What stood in Redis at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    source: Option<Source>,
    cursor: Option<Seq>,
    incarnation: String,
    /// None without stream or group.
    group: Option<GroupPosition>,
}

/// How far the group had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GroupPosition {
    /// The last ID of the stream: none of the second one is greater.
    last: StreamId,
    stream: Unsettled,
    /// The same of the second stream.
    bulk: Unsettled,
    /// What ingest put back at the tail; none where it never did.
    requeued: Option<Requeued>,
}

/// Where what is not settled begins in one of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unsettled {
    /// The first entry that is not settled; none where all are.
    first: Option<StreamId>,
    /// Whether the stream still has that entry.
    is_there: bool,
    bound: Bound,
}

/// What ingest put back at the tail of the stream, in the place of workers before us: numbers older than their entries' IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Requeued {
    /// The last entry put back.
    last: StreamId,
    /// The least number among them; none where they carry none.
    seq: Option<Seq>,
    /// The least ID that any of them had at first.
    order: StreamId,
}

/// What bounds the settled numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// Nothing below this number is unsettled.
    Below(Seq),
    /// No number follows: the cursor itself is settled.
    Cursor,
    /// Too many entries without a number follow.
    Unknown,
}

/// Why the checkpoint is not advancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandstillReason {
    /// Nobody says whose the cursor is.
    NoSource,
    /// There is no cursor.
    NoCursor,
    /// There is no stream, or no group.
    NoGroup,
    /// This Redis lost events, or belongs to another database.
    OtherIncarnation,
    /// The first entry that is not settled was trimmed away.
    Trimmed,
    /// It came from the host before.
    HostBefore,
    /// Neither it nor those after it carry a number.
    NoNumber,
}

// === impl StandstillReason ===

impl StandstillReason {
    /// Says why, and what can be done.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoSource => {
                "redis does not say which host the cursor belongs to: ingest has not written yet, or is another program"
            }
            Self::NoCursor => "redis has no cursor",
            Self::NoGroup => "redis has no stream or no consumer group",
            Self::OtherIncarnation => {
                "redis lost its data or belongs to another database, and ingest has not resumed from the checkpoint: does it have \
                 the DATABASE_URL of the workers?"
            }
            Self::Trimmed => "the first unsettled entry was trimmed",
            Self::HostBefore => "an entry of the previous host is not settled yet",
            Self::NoNumber => "neither the first unsettled entry nor those after it carry a sequence number",
        }
    }
}

// === impl Survey ===

impl Survey {
    /// Returns whose events the stream has, where that is known.
    pub(crate) fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Decides what is settled, for the database of that incarnation.
    pub(crate) fn checkpoint(&self, incarnation: &str) -> Result<Checkpoint, StandstillReason> {
        if self.incarnation != incarnation {
            return Err(StandstillReason::OtherIncarnation);
        }
        let source = self.source.as_ref().ok_or(StandstillReason::NoSource)?;
        let cursor = self.cursor.ok_or(StandstillReason::NoCursor)?;
        let group = self.group.ok_or(StandstillReason::NoGroup)?;
        // While one of those that were put back may be unsettled, it bounds as it did where it stood at first.
        let requeued = group.requeued.filter(|requeued| group.stream.first.is_some_and(|first| first <= requeued.last));
        if let Some(requeued) = requeued
            && source.first_id().is_none_or(|of_host| requeued.order < of_host)
        {
            return Err(StandstillReason::HostBefore);
        }
        let seq = group.stream.settled(source, cursor)?.min(group.bulk.settled(source, cursor)?);
        let seq = requeued.and_then(|requeued| requeued.seq).map_or(seq, |least| seq.min(least.get() - 1));
        Ok(Checkpoint { host: source.host.clone(), seq, stream_id: group.last })
    }
}

// === impl Unsettled ===

impl Unsettled {
    /// Decides up to which number nothing of this stream is unsettled.
    fn settled(self, source: &Source, cursor: Seq) -> Result<u64, StandstillReason> {
        match (self.first, self.bound) {
            (None, _) => Ok(cursor.get()),
            (Some(_), _) if !self.is_there => Err(StandstillReason::Trimmed),
            // A host that has sent no entry yet has none that could be unsettled.
            (Some(first), _) if source.first_id().is_none_or(|of_host| first < of_host) => {
                Err(StandstillReason::HostBefore)
            }
            // A number ahead of the cursor is one that ingest has not believed: reading goes on at the cursor.
            (Some(_), Bound::Below(seq)) => Ok((seq.get() - 1).min(cursor.get())),
            (Some(_), Bound::Cursor) => Ok(cursor.get()),
            (Some(_), Bound::Unknown) => Err(StandstillReason::NoNumber),
        }
    }

    /// Reads it: the first entry, whether it is there, what bounds.
    fn read(mut parts: impl Iterator<Item = Value>) -> Option<Self> {
        let first = parts.next()?.into_string()?;
        let is_there = parts.next()?.as_u64()? > 0;
        let bound = match parts.next()?.into_string()?.as_str() {
            "cursor" => Bound::Cursor,
            seq => seq.parse().map_or(Bound::Unknown, Bound::Below),
        };
        Some(Self { first: first.parse().ok(), is_there, bound })
    }
}

// === impl Consumer ===

impl Consumer {
    /// Reads, in one moment, everything that decides what is settled.
    pub(crate) async fn survey(&self) -> Answer<Survey> {
        let Names { group, keys, .. } = &*self.names;
        let touched = vec![
            keys.stream().to_owned(),
            keys.cursor().to_owned(),
            keys.ingest_source(),
            keys.incarnation(),
            keys.ingest_state(),
            keys.bulk().to_owned(),
        ];
        let arguments = vec![text_of(group), MAX_WITHOUT_NUMBER.into(), NUMBERS.into(), state::BULK.into()];
        let answer: Value = script::run(&self.client, include_str!("survey.lua"), touched, arguments).await?;
        survey(answer).ok_or_else(|| surprise("the script that surveys the group"))
    }
}

fn survey(answer: Value) -> Option<Survey> {
    let mut parts = answer.into_array().into_iter();
    let source = parts.next()?.into_string()?;
    let cursor = parts.next()?.into_string()?;
    let incarnation = parts.next()?.into_string()?;
    let group = match parts.next() {
        None => None,
        Some(last) => {
            let (stream, bulk) = (Unsettled::read(&mut parts)?, Unsettled::read(&mut parts)?);
            let mut requeued = || parts.next().and_then(Value::into_string).unwrap_or_default();
            let (last_back, seq, order) = (requeued(), requeued(), requeued());
            let requeued = last_back.parse().ok().map(|last| Requeued {
                last,
                seq: seq.parse().ok(),
                order: order.parse().unwrap_or(StreamId::MIN),
            });
            Some(GroupPosition { last: stream_id(&last)?, stream, bulk, requeued })
        }
    };
    Some(Survey { source: serde_json::from_str(&source).ok(), cursor: cursor.parse().ok(), incarnation, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// All is settled but what comes from entry 30, number 300, on; the host's first entry was 10.
    fn seen() -> Survey {
        Survey {
            source: Some(Source { host: "a.test".to_owned(), first_id: "10-0".to_owned(), cursor_key: None }),
            cursor: Seq::new(900),
            incarnation: "i".to_owned(),
            group: Some(position(Some(id(30)), Bound::Below(Seq::new(300).unwrap()))),
        }
    }

    fn position(first: Option<StreamId>, bound: Bound) -> GroupPosition {
        let bulk = Unsettled { first: None, is_there: true, bound: Bound::Cursor };
        GroupPosition { last: id(90), stream: Unsettled { first, is_there: true, bound }, bulk, requeued: None }
    }

    /// The same, and in the second stream something is not settled.
    fn beside(first: u64, bound: Bound) -> Survey {
        let bulk = Unsettled { first: Some(id(first)), is_there: true, bound };
        Survey { group: seen().group.map(|group| GroupPosition { bulk, ..group }), ..seen() }
    }

    fn settled(survey: &Survey) -> Result<u64, StandstillReason> {
        survey.checkpoint("i").map(|checkpoint| checkpoint.seq)
    }

    #[test]
    fn the_first_unsettled_entry_bounds_the_checkpoint() {
        let checkpoint = seen().checkpoint("i").unwrap();
        assert_eq!(checkpoint, Checkpoint { host: "a.test".to_owned(), seq: 299, stream_id: id(90) });
        assert_eq!(settled(&Survey { group: Some(position(None, Bound::Cursor)), ..seen() }), Ok(900));
        let far = Bound::Below(Seq::new(900_000).unwrap());
        assert_eq!(settled(&Survey { group: Some(position(Some(id(30)), far)), ..seen() }), Ok(900), "a far number");
        // Only entries without a number are unsettled.
        assert_eq!(settled(&Survey { group: Some(position(Some(id(30)), Bound::Cursor)), ..seen() }), Ok(900));
    }

    #[test]
    fn the_lesser_of_both_streams_bounds_the_checkpoint() {
        let below = |seq| Bound::Below(Seq::new(seq).unwrap());
        assert_eq!(settled(&beside(20, below(200))), Ok(199));
        assert_eq!(settled(&beside(40, below(400))), Ok(299));
        let mut read = beside(20, below(200));
        read.group = read.group.map(|group| GroupPosition { stream: position(None, Bound::Cursor).stream, ..group });
        assert_eq!(settled(&read), Ok(199), "the first is settled");
    }

    #[test]
    fn what_was_put_back_bounds_until_the_group_is_past_it() {
        let back = |last, order, first, bound| {
            let requeued = Some(Requeued { last: id(last), seq: Seq::new(120), order: id(order) });
            Survey { group: Some(GroupPosition { requeued, ..position(first, bound) }), ..seen() }
        };
        let below = Bound::Below(Seq::new(300).unwrap());
        assert_eq!(settled(&back(40, 12, Some(id(30)), below)), Ok(119));
        assert_eq!(settled(&back(40, 12, Some(id(40)), Bound::Cursor)), Ok(119), "only it is left");
        assert_eq!(settled(&back(29, 12, Some(id(30)), below)), Ok(299), "settled since");
        assert_eq!(settled(&back(40, 12, None, Bound::Cursor)), Ok(900));
        assert_eq!(settled(&back(40, 9, Some(id(30)), below)), Err(StandstillReason::HostBefore));
    }

    #[test]
    fn what_is_not_known_moves_nothing() {
        let unknown = position(Some(id(30)), Bound::Unknown);
        let trimmed = Unsettled { first: Some(id(30)), is_there: false, bound: Bound::Cursor };
        let trimmed_beside = GroupPosition { bulk: trimmed, ..position(None, Bound::Cursor) };
        let trimmed = GroupPosition { stream: trimmed, ..position(None, Bound::Cursor) };
        let before = position(Some(id(9)), Bound::Below(Seq::new(5000).unwrap()));
        let unsent = Some(Source { host: "a.test".to_owned(), first_id: String::new(), cursor_key: None });
        for (survey, why) in [
            (Survey { source: None, ..seen() }, StandstillReason::NoSource),
            (Survey { cursor: None, ..seen() }, StandstillReason::NoCursor),
            (Survey { group: None, ..seen() }, StandstillReason::NoGroup),
            (Survey { incarnation: String::new(), ..seen() }, StandstillReason::OtherIncarnation),
            (Survey { group: Some(unknown), ..seen() }, StandstillReason::NoNumber),
            (Survey { group: Some(trimmed), ..seen() }, StandstillReason::Trimmed),
            (Survey { group: Some(trimmed_beside), ..seen() }, StandstillReason::Trimmed),
            (beside(9, Bound::Below(Seq::new(5000).unwrap())), StandstillReason::HostBefore),
            (Survey { group: Some(before), ..seen() }, StandstillReason::HostBefore),
            (Survey { source: unsent, ..seen() }, StandstillReason::HostBefore),
        ] {
            assert_eq!(settled(&survey), Err(why));
        }
    }
}
