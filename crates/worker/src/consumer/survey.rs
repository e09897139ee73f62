//! Up to which event of the present host everything is settled.

use fred::types::Value;
use penstock_core::live::Source;
use penstock_core::stream::{Seq, StreamId};

use super::{Answer, Consumer, Names, stream_id, surprise, text_of};
use crate::store::Checkpoint;

/// How many entries without a number are passed over at most.
const LOOK: i64 = 100;

/// What stood in Redis at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    source: Option<Source>,
    cursor: Option<Seq>,
    incarnation: String,
    /// None without stream or group.
    group: Option<Progress>,
}

/// How far the group had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// The last ID of the stream.
    last: StreamId,
    /// The first entry that is not settled; none where all are.
    first: Option<StreamId>,
    /// Whether the stream still has that entry.
    is_there: bool,
    bound: Bound,
    /// What ingest put back at the tail; none where it never did.
    requeued: Option<Requeued>,
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

/// Why the checkpoint stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
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

// === impl Survey ===

impl Survey {
    /// Decides what is settled, for the database of that incarnation.
    pub(crate) fn checkpoint(&self, incarnation: &str) -> Result<Checkpoint, Stay> {
        if self.incarnation != incarnation {
            return Err(Stay::OtherIncarnation);
        }
        let source = self.source.as_ref().ok_or(Stay::NoSource)?;
        let cursor = self.cursor.ok_or(Stay::NoCursor)?;
        let group = self.group.ok_or(Stay::NoGroup)?;
        // While one of those that were put back may be unsettled, it bounds as it did where it stood at first.
        let requeued = group.requeued.filter(|requeued| group.first.is_some_and(|first| first <= requeued.last));
        if let Some(requeued) = requeued
            && source.first_id().is_none_or(|of_host| requeued.order < of_host)
        {
            return Err(Stay::HostBefore);
        }
        let seq = match (group.first, group.bound) {
            (None, _) => cursor.get(),
            (Some(_), _) if !group.is_there => return Err(Stay::Trimmed),
            // A host that has sent no entry yet has none that could be unsettled.
            (Some(first), _) if source.first_id().is_none_or(|of_host| first < of_host) => {
                return Err(Stay::HostBefore);
            }
            (Some(_), Bound::Below(seq)) => seq.get() - 1,
            (Some(_), Bound::Cursor) => cursor.get(),
            (Some(_), Bound::Unknown) => return Err(Stay::NoNumber),
        };
        let seq = requeued.and_then(|requeued| requeued.seq).map_or(seq, |least| seq.min(least.get() - 1));
        Ok(Checkpoint { host: source.host.clone(), seq, stream_id: group.last })
    }
}

// === impl Consumer ===

impl Consumer {
    /// Reads in one moment what tells up to where everything is settled.
    pub(crate) async fn survey(&self) -> Answer<Survey> {
        let Names { stream, group, keys, .. } = &*self.names;
        let touched = vec![
            stream.to_string(),
            keys.cursor().to_owned(),
            keys.ingest_source(),
            keys.incarnation(),
            keys.ingest_state(),
        ];
        let arguments = vec![text_of(group), LOOK.into()];
        let answer: Value = self.run(include_str!("survey.lua"), touched, arguments).await?;
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
            let first = parts.next()?.into_string()?;
            let is_there = parts.next()?.as_u64()? > 0;
            let bound = match parts.next()?.into_string()?.as_str() {
                "cursor" => Bound::Cursor,
                seq => seq.parse().map_or(Bound::Unknown, Bound::Below),
            };
            let mut requeued = || parts.next().and_then(Value::into_string).unwrap_or_default();
            let (last_back, seq, order) = (requeued(), requeued(), requeued());
            let requeued = last_back.parse().ok().map(|last| Requeued {
                last,
                seq: seq.parse().ok(),
                order: order.parse().unwrap_or(StreamId::MIN),
            });
            Some(Progress { last: stream_id(&last)?, first: first.parse().ok(), is_there, bound, requeued })
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
            group: Some(progress(Some(id(30)), Bound::Below(Seq::new(300).unwrap()))),
        }
    }

    fn progress(first: Option<StreamId>, bound: Bound) -> Progress {
        Progress { last: id(90), first, is_there: true, bound, requeued: None }
    }

    fn settled(survey: &Survey) -> Result<u64, Stay> {
        survey.checkpoint("i").map(|checkpoint| checkpoint.seq)
    }

    #[test]
    fn the_first_unsettled_entry_bounds_the_checkpoint() {
        let checkpoint = seen().checkpoint("i").unwrap();
        assert_eq!(checkpoint, Checkpoint { host: "a.test".to_owned(), seq: 299, stream_id: id(90) });
        assert_eq!(settled(&Survey { group: Some(progress(None, Bound::Cursor)), ..seen() }), Ok(900));
        // Only entries without a number are unsettled.
        assert_eq!(settled(&Survey { group: Some(progress(Some(id(30)), Bound::Cursor)), ..seen() }), Ok(900));
    }

    #[test]
    fn what_was_put_back_bounds_until_the_group_is_past_it() {
        let back = |last, order, first, bound| {
            let requeued = Some(Requeued { last: id(last), seq: Seq::new(120), order: id(order) });
            Survey { group: Some(Progress { requeued, ..progress(first, bound) }), ..seen() }
        };
        let below = Bound::Below(Seq::new(300).unwrap());
        assert_eq!(settled(&back(40, 12, Some(id(30)), below)), Ok(119));
        assert_eq!(settled(&back(40, 12, Some(id(40)), Bound::Cursor)), Ok(119), "only it is left");
        assert_eq!(settled(&back(29, 12, Some(id(30)), below)), Ok(299), "settled since");
        assert_eq!(settled(&back(40, 12, None, Bound::Cursor)), Ok(900));
        assert_eq!(settled(&back(40, 9, Some(id(30)), below)), Err(Stay::HostBefore));
    }

    #[test]
    fn what_is_not_known_moves_nothing() {
        let unknown = progress(Some(id(30)), Bound::Unknown);
        let trimmed = Progress { is_there: false, ..progress(Some(id(30)), Bound::Cursor) };
        let before = progress(Some(id(9)), Bound::Below(Seq::new(5000).unwrap()));
        let unsent = Some(Source { host: "a.test".to_owned(), first_id: String::new(), cursor_key: None });
        for (survey, why) in [
            (Survey { source: None, ..seen() }, Stay::NoSource),
            (Survey { cursor: None, ..seen() }, Stay::NoCursor),
            (Survey { group: None, ..seen() }, Stay::NoGroup),
            (Survey { incarnation: String::new(), ..seen() }, Stay::OtherIncarnation),
            (Survey { group: Some(unknown), ..seen() }, Stay::NoNumber),
            (Survey { group: Some(trimmed), ..seen() }, Stay::Trimmed),
            (Survey { group: Some(before), ..seen() }, Stay::HostBefore),
            (Survey { source: unsent, ..seen() }, Stay::HostBefore),
        ] {
            assert_eq!(settled(&survey), Err(why));
        }
    }
}
