//! The stream: who writes it, how full it is, and whether somebody trims what was not read.

use std::fmt::Write as _;
use std::time::Duration;

use crate::finding::Finding;
use crate::look::dialect::Dialect;
use crate::seen::{Moment, Policy, RedisSeen, Seen};
use crate::text;

/// After how long without an entry somebody should look.
const QUIET: Duration = Duration::from_secs(300);

/// Judges the stream.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    let (policy, redis) = (&seen.policy, &seen.redis.seen);
    match &redis.stream {
        None => {
            if !redis.wrong_types.iter().any(|(key, ..)| *key == policy.stream) {
                findings.push(no_stream(policy, redis));
            }
        }
        Some(stream) => {
            findings.push(writers(redis));
            findings.push(length(policy, redis, stream));
            trimmed(policy, redis, stream, findings);
        }
    }
    findings.extend(bulk(policy, redis));
}

fn no_stream(policy: &Policy, redis: &RedisSeen) -> Finding {
    let found = format!("stream {} does not exist", text::name(&policy.stream));
    if redis.cursor.is_some() {
        let advice =
            "Redis lost it, or REDIS_STREAM_KEY or redis.keyPrefix is wrong: resolve this before starting anything";
        return Finding::warn("stream.writers", format!("{found}, but a cursor does"), advice);
    }
    Finding::note("stream.writers", format!("{found} yet; the first writer creates it"))
}

/// Tells who writes, from what came between the two looks, from the lease and from the status.
fn writers(redis: &RedisSeen) -> Finding {
    const CHECK: &str = "stream.writers";
    let foreign: Vec<Dialect> = redis.between.keys().copied().filter(|dialect| dialect.is_foreign_ingest()).collect();
    let came = came(redis);
    let ours = redis.between.contains_key(&Dialect::Penstock);
    match (&foreign[..], ours, redis.lease) {
        ([_, ..], true, _) | ([_, ..], _, true) => Finding::fail(
            CHECK,
            format!(
                "two ingests are writing: {came}{}",
                if redis.lease { "; Penstock's ingest holds the lease" } else { "" }
            ),
            "stop one of them (docs/migrating.md, step 3); Penstock stops writing once it notices the other, which does not check",
        ),
        ([_, _, ..], ..) => Finding::fail(
            CHECK,
            format!("two ingests are writing: {came}"),
            "stop one of them; every event is written twice",
        ),
        ([_], false, false) => {
            Finding::ok(CHECK, format!("another system's ingest is writing: {came}; Penstock's is not running"))
        }
        ([], true, true) => Finding::ok(CHECK, format!("Penstock's ingest is writing: {came}")),
        ([], true, false) => Finding::warn(
            CHECK,
            format!("Penstock's ingest wrote entries, but nobody holds the lease now: {came}"),
            "it has just stopped, or Redis lost the lease: check again, and read its log",
        ),
        ([], false, lease) => quiet(redis, lease, &came),
    }
}

/// Nothing of an ingest came between the two looks.
fn quiet(redis: &RedisSeen, lease: bool, came: &str) -> Finding {
    const CHECK: &str = "stream.writers";
    let age = redis.newest.first().map(|entry| Duration::from_millis(redis.now_ms.saturating_sub(entry.id.ms)));
    let last = match (redis.newest.first(), age) {
        (Some(entry), Some(age)) => {
            format!("newest entry is {} old, written by {}", text::span(age), entry.dialect)
        }
        _ => "the stream is empty".to_owned(),
    };
    let paused = redis.state.get("paused").is_some_and(|paused| paused == "1");
    match (lease, &redis.status) {
        (true, _) if paused => Finding::warn(
            CHECK,
            format!("Penstock's ingest is paused because the stream or Redis is full; {last}"),
            "check which group is behind; meanwhile the relay buffers events",
        ),
        (true, Some(status)) if status.connected => {
            let found = format!("Penstock's ingest is connected to {}; {came}; {last}", text::name(&status.url));
            if age.is_some_and(|age| age > QUIET) {
                Finding::warn(CHECK, found, "check its log, and whether the relay is sending")
            } else {
                Finding::ok(CHECK, found)
            }
        }
        (true, status) => {
            let relay = status.as_ref().map(|status| format!(" to {}", text::name(&status.url))).unwrap_or_default();
            Finding::warn(CHECK, format!("Penstock's ingest is not connected{relay}; {last}"), "check its log")
        }
        (false, Some(status)) => Finding::note(
            CHECK,
            format!("another system's ingest reports {}; {came}; {last}", connected(status.connected)),
        ),
        (false, None) if age.is_some_and(|age| age > QUIET) => Finding::warn(
            CHECK,
            format!("no ingest is running; {last}"),
            "start an ingest; the relay buffers events for a few days at most",
        ),
        (false, None) => Finding::note(CHECK, format!("no ingest is running; {last}")),
    }
}

fn connected(connected: bool) -> &'static str {
    if connected { "connected" } else { "not connected" }
}

fn came(redis: &RedisSeen) -> String {
    let pause = text::span(redis.pause);
    if redis.between.is_empty() {
        return format!("no entries in {pause}");
    }
    let mut said = String::new();
    for (dialect, count) in &redis.between {
        let _ = write!(said, "{}{count} {dialect}", if said.is_empty() { "" } else { ", " });
    }
    format!("{said} in {pause}{}", if redis.between_more { ", and more" } else { "" })
}

fn length(policy: &Policy, redis: &RedisSeen, stream: &Moment) -> Finding {
    const CHECK: &str = "stream.length";
    let length = redis.later.as_ref().map_or(stream.length, |later| later.length);
    let percent = length * 100 / policy.max_len.max(1);
    let found = format!("{length} entries, {percent} % of the {} cap", policy.max_len);
    if percent >= policy.high_watermark {
        let advice =
            "check which group is behind: Penstock pauses here, but another producer's MAXLEN drops unread entries";
        return Finding::warn(CHECK, found, advice);
    }
    Finding::ok(CHECK, found)
}

/// Whether entries went that somebody has not read, and who trims now.
fn trimmed(policy: &Policy, redis: &RedisSeen, stream: &Moment, findings: &mut Vec<Finding>) {
    const CHECK: &str = "stream.trimmed";
    let mut lost = false;
    for group in &redis.groups {
        let unread = match (stream.added, group.read) {
            (Some(added), Some(read)) => added.saturating_sub(read).saturating_sub(stream.length),
            _ => 0,
        };
        if unread == 0 && group.trimmed_pending == 0 {
            continue;
        }
        lost = true;
        let found = format!(
            "group {} lost entries: {unread} trimmed unread, {} trimmed before they were acknowledged",
            text::name(&group.name),
            group.trimmed_pending
        );
        findings.push(if group.name == policy.group {
            Finding::fail(
                CHECK,
                found,
                "the workers never see them: raise the producer's MAXLEN or switch ingest to Penstock, then backfill the affected repos",
            )
        } else {
            Finding::warn(CHECK, found, "tell the owner of this group, or XGROUP DESTROY it if it is abandoned")
        });
    }
    let Some((later, added)) = redis.later.as_ref().and_then(|later| Some((later, later.added?))) else { return };
    let came = added.saturating_sub(stream.added.unwrap_or(added));
    let went = (stream.length + came).saturating_sub(later.length);
    if went > 0 && !redis.lease {
        findings.push(Finding::note(
            "stream.maxlen",
            format!(
                "{went} entries were removed in {} while Penstock's ingest was not running: another program trims by length, read or not",
                text::span(redis.pause)
            ),
        ));
    }
    if !lost {
        findings.push(Finding::ok(CHECK, "no group lost unacknowledged entries"));
    }
}

/// What waits in the second stream, which workers of ours alone read.
fn bulk(policy: &Policy, redis: &RedisSeen) -> Option<Finding> {
    const CHECK: &str = "stream.bulk";
    let entries = redis.bulk?;
    let found = format!("{entries} entries in {}, the stream of repos above their rate", text::name(&policy.bulk));
    Some(match (entries, redis.our_worker_lives()) {
        (0, _) => Finding::ok(CHECK, found),
        (_, true) => Finding::note(CHECK, found).advised(
            "before other workers take over, set ingest.repoEvents and ingest.repoBytes to 0 and wait until it is empty",
        ),
        (_, false) => Finding::warn(
            CHECK,
            format!("{found}; no Penstock worker is running, and others do not read it"),
            "start a Penstock worker until it is empty (docs/migrating.md, Going back)",
        ),
    })
}

#[cfg(test)]
mod tests {
    use penstock_core::live::Status;
    use penstock_core::stream::StreamId;

    use super::super::tests::{level, of};
    use super::*;
    use crate::finding::Level;
    use crate::judge::judge;
    use crate::seen::{EntrySeen, GroupSeen};

    fn seen(between: &[(Dialect, u64)], lease: bool) -> Seen {
        let mut seen = Seen::default();
        seen.policy.max_len = 1_000;
        seen.policy.high_watermark = 80;
        seen.policy.group = "g".into();
        let redis = &mut seen.redis.seen;
        redis.now_ms = 1_000_000;
        redis.pause = Duration::from_secs(2);
        redis.lease = lease;
        redis.between = between.iter().copied().collect();
        redis.newest = vec![EntrySeen { id: StreamId { ms: 999_000, seq: 0 }, seq: Some(7), dialect: Dialect::Python }];
        redis.stream = Some(Moment::default());
        seen
    }

    #[test]
    fn writers_are_told_apart() {
        use Dialect::{Again, Backfill, Penstock, Python, TypeScript};
        type Case<'a> = (&'a [(Dialect, u64)], bool, Level, &'a str);
        let cases: &[Case<'_>] = &[
            (&[(Python, 9)], false, Level::Ok, "another system's ingest is writing: 9 python"),
            (&[(TypeScript, 9)], false, Level::Ok, "9 typescript"),
            (&[(Penstock, 9)], true, Level::Ok, "Penstock's ingest is writing: 9 penstock"),
            (&[(Penstock, 9), (Backfill, 2), (Again, 1)], true, Level::Ok, "2 backfill, 1 put back"),
            (&[(Penstock, 9), (Python, 1)], true, Level::Fail, "two ingests are writing"),
            (&[(Penstock, 9), (Python, 1)], false, Level::Fail, "two ingests are writing"),
            (&[(Python, 1)], true, Level::Fail, "holds the lease"),
            (&[(Python, 1), (TypeScript, 1)], false, Level::Fail, "two ingests are writing"),
            (&[(Penstock, 1)], false, Level::Warn, "nobody holds the lease"),
            (&[(Backfill, 1)], false, Level::Note, "no ingest is running"),
            (&[], false, Level::Note, "no ingest is running; newest entry is 1 s old, written by python"),
            (&[], true, Level::Warn, "not connected"),
        ];
        for (between, lease, wanted, said) in cases {
            let findings = judge(&seen(between, *lease));
            let found = of(&findings, "stream.writers");
            assert!(found.level == *wanted && found.found.contains(said), "{between:?} {lease}: {found:?}");
        }
    }

    #[test]
    fn a_quiet_stream_is_judged_by_its_ingest() {
        let mut quiet = seen(&[], true);
        let status = |connected| Some(Status { connected, url: "wss://r".into(), current_cursor: None });
        quiet.redis.seen.status = status(true);
        assert_eq!(level(&quiet, "stream.writers"), Level::Ok);
        quiet.redis.seen.state.insert("paused".into(), "1".into());
        assert_eq!(level(&quiet, "stream.writers"), Level::Warn);
        let mut theirs = seen(&[], false);
        theirs.redis.seen.status = status(true);
        assert_eq!(level(&theirs, "stream.writers"), Level::Note);
        let mut nobody = seen(&[], false);
        nobody.redis.seen.now_ms = 9_000_000;
        assert_eq!(level(&nobody, "stream.writers"), Level::Warn);
    }

    #[test]
    fn a_cursor_without_its_stream_is_a_warning() {
        let mut seen = Seen::default();
        assert_eq!(level(&seen, "stream.writers"), Level::Note);
        seen.redis.seen.cursor = Some("7".into());
        assert_eq!(level(&seen, "stream.writers"), Level::Warn);
    }

    #[test]
    fn a_full_stream_is_a_warning() {
        let mut seen = seen(&[], false);
        assert_eq!(level(&seen, "stream.length"), Level::Ok);
        if let Some(stream) = &mut seen.redis.seen.stream {
            stream.length = 800;
        }
        assert_eq!(level(&seen, "stream.length"), Level::Warn);
    }

    #[test]
    fn what_only_our_workers_read_is_told_while_anything_is_there() {
        let mut seen = seen(&[], false);
        assert!(!judge(&seen).iter().any(|finding| finding.check == "stream.bulk"), "there is none");
        seen.redis.seen.bulk = Some(0);
        assert_eq!(level(&seen, "stream.bulk"), Level::Ok);
        seen.redis.seen.bulk = Some(3);
        assert_eq!(level(&seen, "stream.bulk"), Level::Warn);
        seen.redis.seen.alive.insert("w-0".to_owned());
        assert_eq!(level(&seen, "stream.bulk"), Level::Note);
    }

    #[test]
    fn entries_that_went_unread_are_counted() {
        let mut seen = seen(&[], false);
        let moment = Moment { length: 100, last: StreamId::MIN, added: Some(1_000) };
        seen.redis.seen.stream = Some(moment.clone());
        seen.redis.seen.later = Some(Moment { length: 90, ..moment });
        let group = |name: &str, read, trimmed_pending| GroupSeen {
            name: name.into(),
            read: Some(read),
            trimmed_pending,
            ..GroupSeen::default()
        };
        seen.redis.seen.groups = vec![group("g", 900, 0), group("o", 950, 0)];
        assert_eq!(level(&seen, "stream.trimmed"), Level::Ok);
        assert_eq!(level(&seen, "stream.maxlen"), Level::Note);
        seen.redis.seen.groups = vec![group("g", 500, 0)];
        let findings = judge(&seen);
        let found = of(&findings, "stream.trimmed");
        assert!(found.level == Level::Fail && found.found.contains("400 trimmed unread"), "{found:?}");
        seen.redis.seen.groups = vec![group("g", 900, 3)];
        assert_eq!(level(&seen, "stream.trimmed"), Level::Fail);
        seen.redis.seen.groups = vec![group("o", 500, 0)];
        assert_eq!(level(&seen, "stream.trimmed"), Level::Warn);
    }
}
