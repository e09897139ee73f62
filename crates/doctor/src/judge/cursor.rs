//! The cursors: whose there are, which is ahead of what, and where an ingest of ours would begin.

use std::time::Duration;

use penstock_core::live::state;
use penstock_core::stream::Seq;

use crate::finding::Finding;
use crate::seen::{Policy, PostgresSeen, RedisSeen, Seen};
use crate::text;

/// How old the ingestion's row may be while it runs: it is saved every five seconds.
const FRESH: Duration = Duration::from_secs(60);

/// Judges the cursor in Redis.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "cursor";
    let (policy, redis) = (&seen.policy, &seen.redis.seen);
    let newest = redis.newest_numbered().and_then(|entry| entry.seq);
    let Some(text) = &redis.cursor else {
        let begins = newest.map_or_else(
            || "no entry has a sequence number; ingest will use the firehose_cursor row, else relay.start".to_owned(),
            |seq| format!("Penstock's ingest would start at {seq}, the newest sequence number in the stream"),
        );
        findings.push(Finding::note(CHECK, format!("{} does not exist; {begins}", text::name(&policy.cursor_key))));
        return;
    };
    let Ok(cursor) = text.parse::<Seq>().map(Seq::get) else {
        findings.push(Finding::fail(
            CHECK,
            format!("{} holds {:?}, which is not a number", text::name(&policy.cursor_key), text::name(text)),
            "stop every ingest, then delete it or set it to the newest entry's sequence number",
        ));
        return;
    };
    findings.push(match &redis.source {
        None => taken_over(cursor, newest),
        Some(source) => {
            let note = own(redis, cursor, newest, &source.host);
            if policy.hosts.contains(&source.host) {
                note
            } else {
                Finding::warn(
                    CHECK,
                    format!("{cursor} on {}, which is not in relay.urls ({})", text::name(&source.host), hosts(policy)),
                    "sequence numbers differ between hosts: add that relay, or accept that ingest restarts from its sample of the new one",
                )
            }
        }
    });
}

/// A cursor that ours wrote, and perhaps another since.
fn own(redis: &RedisSeen, cursor: u64, newest: Option<u64>, host: &str) -> Finding {
    const CHECK: &str = "cursor";
    let ours = redis.state.get(state::CURSOR).and_then(|text| text.parse::<u64>().ok());
    let host = text::name(host);
    match ours {
        Some(ours) if cursor > ours => Finding::note(
            CHECK,
            format!(
                "{cursor}, advanced by another program since Penstock wrote {ours}; ingest would start at the newest sequence number in the stream{}",
                newest.map(|seq| format!(", {seq}")).unwrap_or_default()
            ),
        ),
        Some(_) if redis.ours_before.is_some_and(|before| cursor < before) => Finding::warn(
            CHECK,
            format!(
                "{cursor}, moved back since Penstock wrote it: ingest would re-read from there and duplicate entries"
            ),
            "rows converge, but other consumers see duplicates; if unintended, stop ingest and restore the higher number",
        ),
        _ => match newest {
            Some(newest) if newest > cursor && redis.between.is_empty() => Finding::warn(
                CHECK,
                format!("{cursor} on {host}, but the stream already has {newest}: another program wrote entries"),
                "check stream.writers",
            ),
            _ => Finding::ok(CHECK, format!("{cursor} on {host}, written by Penstock together with its entries")),
        },
    }
}

/// A cursor that ours did not write: Python's, or set by hand.
fn taken_over(cursor: u64, newest: Option<u64>) -> Finding {
    const CHECK: &str = "cursor";
    let moved = "not written by Penstock";
    let Some(newest) = newest else {
        return Finding::note(
            CHECK,
            format!("{cursor}, {moved}; no entry has a sequence number, so ingest would start there"),
        );
    };
    let against = match cursor.cmp(&newest) {
        std::cmp::Ordering::Greater => format!("{} ahead of the newest entry", cursor - newest),
        std::cmp::Ordering::Equal => "equal to the newest entry".to_owned(),
        std::cmp::Ordering::Less => format!("{} behind the newest entry", newest - cursor),
    };
    Finding::note(
        CHECK,
        format!(
            "{cursor}, {moved}: {against}; Penstock's ingest would start at {newest}, the newest sequence number in the stream"
        ),
    )
}

fn hosts(policy: &Policy) -> String {
    text::names(policy.hosts.iter().map(String::as_str))
}

/// Judges the cursors that the AppView keeps in PostgreSQL.
pub(super) fn judge_appview(seen: &Seen, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "cursor.appview";
    let redis = &seen.redis.seen;
    let newest = redis.newest_numbered().and_then(|entry| entry.seq);
    if let Some(row) = postgres.ingestion_cursor() {
        let age = text::span(row.age);
        let number = row.cursor.as_deref().and_then(|text| text.parse::<Seq>().ok()).map(Seq::get);
        findings.push(match (number, newest) {
            (None, _) => {
                Finding::note(CHECK, format!("the TypeScript ingestion's row holds no number, updated {age} ago"))
            }
            (Some(number), None) => {
                Finding::note(CHECK, format!("the TypeScript ingestion's row is at {number}, updated {age} ago"))
            }
            (Some(number), Some(newest)) => {
                let against = if number > newest {
                    format!("{} ahead of the newest entry", number - newest)
                } else {
                    format!("{} behind the newest entry", newest - number)
                };
                let found = format!("the TypeScript ingestion's row is at {number}, {against}, updated {age} ago");
                if postgres.cursor_moved {
                    Finding::ok(CHECK, format!("{found}, and advancing"))
                } else if redis.lease && seen.policy.appview_cursor && row.age > FRESH {
                    Finding::warn(
                        CHECK,
                        format!("{found}, although ingest.appviewCursor is set"),
                        "give ingest DATABASE_URL, and check its log",
                    )
                } else if redis.lease && row.age > FRESH {
                    Finding::note(CHECK, format!("{found}; it would resume there"))
                        .advised("set ingest.appviewCursor if you may want to switch back")
                } else {
                    Finding::note(CHECK, found)
                }
            }
        });
    }
    for row in postgres.cursors.iter().filter(|row| row.service != "firehose" && row.age < FRESH) {
        let found = format!(
            "service {} has a firehose_cursor row updated {} ago: it reads the relay itself",
            text::name(&row.service),
            text::span(row.age)
        );
        findings.push(if redis.our_worker_lives() {
            Finding::fail(
                "cursor.second",
                found,
                "stop it: it writes the same tables as the workers, which corrupts counts (docs/migrating.md, step 2)",
            )
        } else {
            Finding::warn(
                "cursor.second",
                found,
                "stop it before starting the first Penstock worker (docs/migrating.md, step 2)",
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use penstock_core::live::Source;
    use penstock_core::stream::StreamId;

    use super::super::tests::{level, of};
    use super::*;
    use crate::finding::Level;
    use crate::judge::judge as all;
    use crate::look::dialect::Dialect;
    use crate::seen::{CursorRow, EntrySeen, Side};

    fn seen(cursor: Option<&str>, ours: Option<&str>, newest: Option<u64>) -> Seen {
        let mut seen = Seen::default();
        seen.policy.hosts = vec!["bsky.network".into()];
        let redis = &mut seen.redis.seen;
        redis.cursor = cursor.map(str::to_owned);
        if let Some(ours) = ours {
            redis.source = Some(Source { host: "bsky.network".into(), first_id: "1-0".into(), cursor_key: None });
            redis.state = BTreeMap::from([(state::CURSOR.to_owned(), ours.to_owned())]);
            redis.ours_before = ours.parse().ok();
        }
        let again = EntrySeen { id: StreamId { ms: 9, seq: 0 }, seq: Some(1), dialect: Dialect::Again };
        let entry = EntrySeen { id: StreamId { ms: 8, seq: 0 }, seq: newest, dialect: Dialect::Python };
        redis.newest = vec![again, entry];
        seen
    }

    #[test]
    fn the_cursor_is_told_with_where_ours_would_begin() {
        type Case<'a> = (Option<&'a str>, Option<&'a str>, Option<u64>, Level, &'a str);
        let cases: &[Case<'_>] = &[
            (None, None, None, Level::Note, "relay.start"),
            (None, None, Some(1_101), Level::Note, "would start at 1101"),
            (Some("x"), None, None, Level::Fail, "not a number"),
            (
                Some("1102"),
                None,
                Some(1_101),
                Level::Note,
                "1 ahead of the newest entry; Penstock's ingest would start at 1101",
            ),
            (Some("701"), None, Some(1_101), Level::Note, "400 behind the newest entry"),
            (Some("701"), None, None, Level::Note, "would start there"),
            (Some("1101"), Some("1101"), Some(1_101), Level::Ok, "written by Penstock together"),
            (Some("1105"), Some("1105"), Some(1_101), Level::Ok, "written by Penstock together"),
            (Some("1109"), Some("1101"), Some(1_105), Level::Note, "advanced by another program"),
            (Some("900"), Some("1101"), Some(1_101), Level::Warn, "moved back"),
            (Some("1101"), Some("1101"), Some(1_205), Level::Warn, "another program wrote"),
        ];
        for (cursor, ours, newest, wanted, said) in cases {
            let findings = all(&seen(*cursor, *ours, *newest));
            let found = of(&findings, "cursor");
            assert!(found.level == *wanted && found.found.contains(said), "{cursor:?} {ours:?} {newest:?}: {found:?}");
        }
    }

    #[test]
    fn a_cursor_that_moves_while_it_is_read_is_no_trouble() {
        let mut seen = seen(Some("1105"), Some("1109"), Some(1_100));
        seen.redis.seen.ours_before = Some(1_101);
        assert_eq!(level(&seen, "cursor"), Level::Ok);
        seen.redis.seen.cursor = Some("1100".into());
        assert_eq!(level(&seen, "cursor"), Level::Warn);
    }

    #[test]
    fn a_cursor_of_a_relay_that_is_not_read_is_a_warning() {
        let mut seen = seen(Some("7"), Some("7"), Some(7));
        seen.policy.hosts = vec!["other.example".into()];
        assert_eq!(level(&seen, "cursor"), Level::Warn);
    }

    #[test]
    fn the_ingestions_row_is_held_against_the_stream() {
        let mut seen = seen(None, None, Some(1_101));
        let row = |service: &str, age| CursorRow {
            service: service.into(),
            cursor: Some("628".into()),
            age: Duration::from_secs(age),
        };
        let mut postgres =
            PostgresSeen { version: 150_000, cursors: vec![row("firehose", 900)], ..PostgresSeen::default() };
        seen.postgres = Some(Side { seen: postgres.clone(), ..Side::default() });
        let findings = all(&seen);
        let found = of(&findings, "cursor.appview");
        assert!(found.level == Level::Note && found.found.contains("473 behind the newest entry"), "{found:?}");
        assert_eq!(found.advice, None);
        seen.redis.seen.lease = true;
        assert!(
            of(&all(&seen), "cursor.appview").advice.as_ref().is_some_and(|advice| advice.contains("appviewCursor"))
        );
        seen.policy.appview_cursor = true;
        assert_eq!(level(&seen, "cursor.appview"), Level::Warn);
        postgres.cursor_moved = true;
        seen.postgres = Some(Side { seen: postgres.clone(), ..Side::default() });
        assert_eq!(level(&seen, "cursor.appview"), Level::Ok);
        postgres.cursors = vec![row("backfill", 5)];
        seen.postgres = Some(Side { seen: postgres, ..Side::default() });
        assert_eq!(level(&seen, "cursor.second"), Level::Warn);
        seen.redis.seen.alive.insert("w".into());
        assert_eq!(level(&seen, "cursor.second"), Level::Fail);
    }
}
