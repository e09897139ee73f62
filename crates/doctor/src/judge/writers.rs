//! Who writes the tables: a second writer beside the workers makes counts wrong, and nothing else shows it.

use crate::appview::TABLES;
use crate::finding::Finding;
use crate::judge::groups::readers;
use crate::seen::{PostgresSeen, Seen, Sessions};
use crate::text;

/// What our processes call themselves.
const OURS: &str = "penstock";

/// Judges who is connected.
pub(super) fn judge(seen: &Seen, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "database.writers";
    let redis = &seen.redis.seen;
    let group = redis.groups.iter().find(|group| group.name == seen.policy.group);
    let (ours_read, theirs_read) = group.map(|group| readers(&seen.policy, redis, group)).unwrap_or_default();
    let ours: i64 = of(postgres, |session| session.application.starts_with(OURS)).map(|session| session.count).sum();
    let writers: Vec<&Sessions> =
        of(postgres, |session| !session.application.starts_with(OURS) && writes(session)).collect();
    let hidden: i64 = of(postgres, |session| session.hidden).map(|session| session.count).sum();
    if writers.is_empty() {
        findings.push(if hidden > 0 {
            Finding::note(
                CHECK,
                format!("{ours} Penstock sessions; no permission to see what {hidden} others are doing"),
            )
            .advised("GRANT pg_read_all_stats to the role")
        } else {
            Finding::ok(CHECK, format!("{ours} Penstock sessions; no other session is writing the workers' tables"))
        });
        return;
    }
    let shown: Vec<String> = writers.iter().map(|session| show(session)).collect();
    let found =
        format!("other programs are writing the workers' tables: {}", text::names(shown.iter().map(String::as_str)));
    findings.push(match (ours_read, theirs_read) {
        (0, 0) => Finding::note(CHECK, format!("{found}; no consumers are reading the stream"))
            .advised("stop any that read the relay themselves before starting the first Penstock worker (docs/migrating.md, step 2)"),
        (0, _) => Finding::note(CHECK, format!("{found}; other workers are reading the stream"))
            .advised("stop python-backfill-worker, which reads the relay itself, before starting the first Penstock worker"),
        (_, 0) if writers.iter().any(|session| session.python) => Finding::fail(
            CHECK,
            format!("{found}, although no other worker is reading the stream"),
            "a second relay reader (python-backfill-worker, unified_worker.py) corrupts counts: stop it, then run penstock migrate --recount",
        ),
        _ => Finding::warn(
            CHECK,
            format!("{found}, alongside Penstock's workers"),
            "this is fine for the AppView itself (its users' own likes), but a second relay reader corrupts counts and must stop",
        ),
    });
}

fn of(postgres: &PostgresSeen, is: impl Fn(&Sessions) -> bool) -> impl Iterator<Item = &Sessions> {
    postgres.sessions.iter().filter(move |session| is(session))
}

fn writes(session: &Sessions) -> bool {
    session.python || session.inserts.iter().any(|table| TABLES.iter().any(|known| known.name == table))
}

fn show(session: &Sessions) -> String {
    let application = if session.application.is_empty() { "unnamed" } else { &session.application };
    let kind = if session.python { ", a pool of Python's asyncpg" } else { "" };
    let into = if session.inserts.is_empty() { String::new() } else { format!(", into {}", session.inserts.join(" ")) };
    format!("{} × {} from {}{kind}{into}", session.count, text::name(application), text::name(&session.address))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::level;
    use super::*;
    use crate::finding::Level;
    use crate::seen::{ConsumerSeen, GroupSeen, Moment, Side};

    fn seen(sessions: Vec<Sessions>, consumers: &[&str], alive: &[&str]) -> Seen {
        let mut seen = Seen::default();
        seen.policy.group = "g".into();
        seen.policy.max_len = 1_000;
        seen.policy.claim_time = Duration::from_secs(60);
        seen.redis.seen.stream = Some(Moment::default());
        seen.redis.seen.alive = alive.iter().map(|name| (*name).to_owned()).collect();
        let consumers =
            consumers.iter().map(|name| ConsumerSeen { name: (*name).into(), pending: 0, idle: Duration::ZERO });
        seen.redis.seen.groups =
            vec![GroupSeen { name: "g".into(), consumers: consumers.collect(), ..GroupSeen::default() }];
        let postgres = PostgresSeen { version: 150_000, sessions, ..PostgresSeen::default() };
        seen.postgres = Some(Side { seen: postgres, ..Side::default() });
        seen
    }

    fn session(application: &str, inserts: &[&str], python: bool) -> Sessions {
        Sessions {
            application: application.into(),
            address: "10.0.0.1".into(),
            count: 2,
            inserts: inserts.iter().map(|table| (*table).into()).collect(),
            python,
            hidden: false,
        }
    }

    #[test]
    fn a_second_writer_beside_our_workers_is_told() {
        let level =
            |sessions, consumers: &[&str], alive: &[&str]| level(&seen(sessions, consumers, alive), "database.writers");
        assert_eq!(level(vec![session("penstock-worker", &["likes"], false)], &["a"], &["a"]), Level::Ok);
        assert_eq!(level(vec![session("", &["sessions"], false)], &["a"], &["a"]), Level::Ok);
        assert_eq!(level(vec![session("", &["likes"], false)], &["a"], &["a"]), Level::Warn);
        assert_eq!(level(vec![session("", &[], true)], &["a"], &["a"]), Level::Fail);
        assert_eq!(level(vec![session("", &[], true)], &["a", "python-worker-0"], &["a"]), Level::Warn);
        assert_eq!(level(vec![session("", &[], true)], &["python-worker-0"], &[]), Level::Note);
        assert_eq!(level(vec![session("", &[], true)], &[], &[]), Level::Note);
        let hidden = Sessions { hidden: true, ..session("", &[], false) };
        assert_eq!(level(vec![hidden], &["a"], &["a"]), Level::Note);
    }
}
