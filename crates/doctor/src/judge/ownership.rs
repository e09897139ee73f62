//! Whose Redis and PostgreSQL are: the claim, the incarnation, the checkpoint; and what failed for good.

use std::time::Duration;

use crate::finding::Finding;
use crate::seen::{PostgresSeen, Seen};
use crate::text;

/// For how long a dead letter is news.
const RECENT: Duration = Duration::from_secs(3_600);

/// How old a checkpoint may be while workers live, at least.
const CHECKPOINT: Duration = Duration::from_secs(60);

/// Judges what Redis alone tells.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    let (policy, redis) = (&seen.policy, &seen.redis.seen);
    findings.push(match (&redis.claim, redis.parsed_claim()) {
        (None, _) => Finding::ok("claim", "no Penstock worker has claimed this prefix yet"),
        (Some(text), None) => Finding::fail(
            "claim",
            format!("cannot parse {:?}", text::name(text)),
            "another program uses this key: set a different redis.keyPrefix",
        ),
        (Some(_), Some(claim)) if claim.pipeline != policy.pipeline => Finding::fail(
            "claim",
            format!(
                "this prefix is claimed by pipeline {}, not by {}",
                text::name(&claim.pipeline),
                text::name(&policy.pipeline)
            ),
            "set a different redis.keyPrefix, or run doctor with the right pipeline.name; workers refuse to start",
        ),
        (Some(_), Some(claim)) => {
            Finding::ok("claim", format!("this prefix is claimed by pipeline {}", text::name(&claim.pipeline)))
        }
    });
    let age = redis.newest_dead_letter.map(|id| Duration::from_millis(redis.now_ms.saturating_sub(id.ms)));
    findings.push(match (redis.dead_letters, age) {
        (0, _) => Finding::ok("dead-letters", "none"),
        (count, Some(age)) if age < RECENT => Finding::warn(
            "dead-letters",
            format!("{count}, the newest {} ago", text::span(age)),
            "inspect and replay them on the dashboard (docs/runbooks/PenstockDeadLetters.md)",
        ),
        (count, age) => {
            let newest = age.map(|age| format!(", the newest {} ago", text::span(age))).unwrap_or_default();
            Finding::note("dead-letters", format!("{count}{newest}"))
        }
    });
    let lost = redis.state.get("dataLoss").and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    if lost > 0 {
        findings.push(Finding::warn(
            "data-loss",
            format!("ingest reported {lost} times that the relay no longer had events"),
            "see its log for the ranges, and backfill the affected repos",
        ));
    }
    let below: Vec<&str> = redis
        .record_counts
        .iter()
        .filter(|(_, value)| value.parse::<i64>().is_ok_and(|value| value < 0))
        .map(|(field, _)| field.as_str())
        .collect();
    findings.push(if !below.is_empty() {
        Finding::warn(
            "record-counts",
            format!("negative: {}", text::names(below)),
            "penstock migrate --recount, with no other workers running",
        )
    } else if redis.record_counts.is_empty() {
        Finding::note("record-counts", "not set; the first Penstock worker sets them from COUNT(*)")
    } else {
        Finding::ok("record-counts", "set")
    });
}

/// Judges Redis against PostgreSQL.
pub(super) fn judge_database(seen: &Seen, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    let redis = &seen.redis.seen;
    if let Some(database) = &postgres.incarnation {
        let claimed = redis.parsed_claim().map(|claim| claim.incarnation);
        if claimed.as_ref().is_some_and(|claimed| claimed != database) {
            findings.push(Finding::fail(
                "claim.database",
                "this Redis is claimed for another database, not the one in DATABASE_URL",
                "check that both addresses belong to one pipeline; if the other database is gone for good, DEL firehose:pipeline (with the prefix)",
            ));
        } else if redis.incarnation.as_ref().is_some_and(|redis| redis != database) {
            findings.push(Finding::fail(
                "claim.database",
                "Redis was filled for another database, not the one in DATABASE_URL",
                "check that both addresses belong to one pipeline; ingest treats this Redis as lost and resumes at the checkpoint",
            ));
        } else if redis.incarnation.is_some() {
            findings.push(Finding::ok("claim.database", "Redis and PostgreSQL belong together"));
        } else if claimed.is_some() {
            findings.push(Finding::warn(
                "claim.database",
                "Redis has lost data: its incarnation key is gone",
                "ingest with DATABASE_URL recovers from the checkpoint by itself; find out what emptied Redis",
            ));
        }
    }
    checkpoint(seen, postgres, findings);
}

/// Up to where events are settled, against the stream and the clock.
fn checkpoint(seen: &Seen, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "checkpoint";
    let redis = &seen.redis.seen;
    if !postgres.ours.contains("checkpoint") {
        return;
    }
    let host = redis.source.as_ref().map(|source| source.host.as_str());
    let row = host
        .and_then(|host| postgres.checkpoints.iter().find(|row| row.host == host))
        .or_else(|| postgres.checkpoints.first());
    let Some(row) = row else {
        findings.push(Finding::note(CHECK, "none yet; a worker writes it once Penstock's ingest has written entries"));
        return;
    };
    let newest = redis.newest.first().map(|entry| entry.id.ms);
    let behind = match (newest, row.stream_id) {
        (Some(newest), Some(id)) if newest > id.ms => {
            format!(", {} behind the newest entry", text::span(Duration::from_millis(newest - id.ms)))
        }
        _ => String::new(),
    };
    let found = format!("{} on {}, updated {} ago{behind}", row.seq, text::name(&row.host), text::span(row.age));
    let most = (seen.policy.checkpoint_interval * 10).max(CHECKPOINT);
    findings.push(if redis.our_worker_lives() && host.is_some() && row.age > most {
        Finding::warn(
            CHECK,
            format!("{found}, although workers are running"),
            "an old entry is unsettled (check groups), or workers cannot write (check their log); if Redis were lost now, everything since would be re-read",
        )
    } else if redis.our_worker_lives() {
        Finding::ok(CHECK, found)
    } else {
        Finding::note(CHECK, format!("{found}; no Penstock worker is running"))
    });
}

#[cfg(test)]
mod tests {
    use penstock_core::live::Source;
    use penstock_core::stream::StreamId;

    use super::super::tests::{level, of};
    use super::*;
    use crate::finding::Level;
    use crate::judge::judge as all;
    use crate::seen::{CheckpointRow, Side};

    fn claimed(claim: Option<&str>, redis: Option<&str>, database: Option<&str>) -> Seen {
        let mut seen = Seen::default();
        seen.policy.pipeline = "default".into();
        seen.redis.seen.claim = claim.map(str::to_owned);
        seen.redis.seen.incarnation = redis.map(str::to_owned);
        let postgres =
            PostgresSeen { version: 150_000, incarnation: database.map(str::to_owned), ..PostgresSeen::default() };
        seen.postgres = Some(Side { seen: postgres, ..Side::default() });
        seen
    }

    #[test]
    fn a_prefix_and_a_database_belong_to_one_pipeline() {
        let ours = Some(r#"{"pipeline":"default","incarnation":"i"}"#);
        let others = Some(r#"{"pipeline":"ns/other","incarnation":"i"}"#);
        let level = |claim, redis, database, check| level(&claimed(claim, redis, database), check);
        assert_eq!(level(None, None, Some("i"), "claim"), Level::Ok);
        assert_eq!(level(ours, Some("i"), Some("i"), "claim"), Level::Ok);
        assert_eq!(level(others, Some("i"), Some("i"), "claim"), Level::Fail);
        assert_eq!(level(Some("?"), None, Some("i"), "claim"), Level::Fail);
        assert_eq!(level(ours, Some("i"), Some("i"), "claim.database"), Level::Ok);
        assert_eq!(level(ours, Some("i"), Some("j"), "claim.database"), Level::Fail);
        assert_eq!(level(None, Some("i"), Some("j"), "claim.database"), Level::Fail);
        assert_eq!(level(ours, None, Some("i"), "claim.database"), Level::Warn);
    }

    #[test]
    fn fresh_dead_letters_and_counts_below_nought_are_warnings() {
        let mut seen = Seen::default();
        assert_eq!((level(&seen, "dead-letters"), level(&seen, "record-counts")), (Level::Ok, Level::Note));
        seen.redis.seen.dead_letters = 3;
        seen.redis.seen.now_ms = 10_000_000;
        seen.redis.seen.newest_dead_letter = Some(StreamId { ms: 9_000_000, seq: 0 });
        seen.redis.seen.record_counts.insert("likes".into(), "-4".into());
        seen.redis.seen.state.insert("dataLoss".into(), "1".into());
        assert_eq!(level(&seen, "data-loss"), Level::Warn);
        assert_eq!((level(&seen, "dead-letters"), level(&seen, "record-counts")), (Level::Warn, Level::Warn));
        seen.redis.seen.newest_dead_letter = Some(StreamId { ms: 1_000, seq: 0 });
        seen.redis.seen.record_counts.insert("likes".into(), "4".into());
        assert_eq!((level(&seen, "dead-letters"), level(&seen, "record-counts")), (Level::Note, Level::Ok));
    }

    #[test]
    fn an_old_checkpoint_is_a_warning_where_workers_live() {
        let mut seen = claimed(None, None, None);
        let row = |age| CheckpointRow {
            host: "h".into(),
            seq: 7,
            stream_id: Some(StreamId { ms: 1, seq: 0 }),
            age: Duration::from_secs(age),
        };
        let set = |seen: &mut Seen, rows: Vec<CheckpointRow>| {
            if let Some(postgres) = &mut seen.postgres {
                postgres.seen.ours.insert("checkpoint".into());
                postgres.seen.checkpoints = rows;
            }
        };
        set(&mut seen, Vec::new());
        assert_eq!(level(&seen, "checkpoint"), Level::Note);
        set(&mut seen, vec![row(900)]);
        assert_eq!(level(&seen, "checkpoint"), Level::Note);
        seen.redis.seen.alive.insert("w".into());
        seen.redis.seen.source = Some(Source { host: "h".into(), first_id: String::new(), cursor_key: None });
        let findings = all(&seen);
        let found = of(&findings, "checkpoint");
        assert!(found.level == Level::Warn && found.found.contains("7 on h, updated 15 min ago"), "{found:?}");
        set(&mut seen, vec![row(5)]);
        assert_eq!(level(&seen, "checkpoint"), Level::Ok);
    }
}
