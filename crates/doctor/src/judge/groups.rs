//! The groups: who reads, how far behind, and what is held by those who will not come back.

use std::time::Duration;

use penstock_core::keys::FOREIGN_GROUP;

use crate::finding::Finding;
use crate::seen::{ConsumerSeen, GroupSeen, Policy, RedisSeen, Seen};
use crate::text;

/// Within what time a consumer that reads asked last.
const READS: Duration = Duration::from_secs(10);

/// Judges the groups.
pub(super) fn judge(seen: &Seen, findings: &mut Vec<Finding>) {
    let (policy, redis) = (&seen.policy, &seen.redis.seen);
    if redis.stream.is_none() {
        return;
    }
    if !redis.groups.iter().any(|group| group.name == policy.group) {
        findings.push(Finding::note(
            format!("groups.{}", policy.group),
            "does not exist; the first worker creates it and starts at the oldest entry",
        ));
    }
    for group in &redis.groups {
        let check = format!("groups.{}", text::name(&group.name));
        findings.push(if group.name == policy.group {
            own(policy, redis, group, check)
        } else {
            foreign(policy, group, check)
        });
        if group.name == policy.group {
            gone(policy, redis, group, findings);
        }
    }
}

/// The group of the workers.
fn own(policy: &Policy, redis: &RedisSeen, group: &GroupSeen, check: String) -> Finding {
    let (ours, theirs) = readers(policy, redis, group);
    let who = match (ours, theirs) {
        (0, 0) => "no consumers are reading".to_owned(),
        (ours, 0) => format!("read by {ours} Penstock consumer{}", plural(ours)),
        (0, theirs) => format!("read by {theirs} other consumer{}", plural(theirs)),
        (ours, theirs) => format!("read by {ours} Penstock and {theirs} other consumer{}", plural(theirs)),
    };
    let found = format!("{who}; {}", backlog(group));
    let behind = group.lag.unwrap_or_default() + group.pending;
    if behind * 100 >= policy.max_len * 80 {
        return Finding::fail(
            check,
            format!("{found}: close to the stream's cap of {}", policy.max_len),
            "add workers or find out why they are slow; another producer's MAXLEN will drop entries, Penstock's ingest will pause",
        );
    }
    if behind * 100 >= policy.max_len * 30 {
        return Finding::warn(
            check,
            format!("{found}: over 30 % of the stream's cap"),
            "add workers, or check PostgreSQL",
        );
    }
    match (ours, theirs) {
        (0, 0) if behind > 0 => Finding::warn(check, found, "start a worker"),
        (1.., 1..) => Finding::note(check, found).advised(
            "while both run, the other workers may apply two operations on one record out of order: keep this short",
        ),
        (0, 0) => Finding::note(check, found),
        _ => Finding::ok(check, found),
    }
}

/// What consumers hold that will not come back for it.
fn gone(policy: &Policy, redis: &RedisSeen, group: &GroupSeen, findings: &mut Vec<Finding>) {
    let gone: Vec<&ConsumerSeen> =
        group.consumers.iter().filter(|consumer| consumer.pending > 0 && !lives(policy, redis, consumer)).collect();
    if gone.is_empty() {
        return;
    }
    let held: u64 = gone.iter().map(|consumer| consumer.pending).sum();
    let longest = gone.iter().map(|consumer| consumer.idle).max().unwrap_or_default();
    let found = format!(
        "{held} entries are pending with dead consumers ({}), idle for up to {}",
        text::names(gone.iter().map(|consumer| consumer.name.as_str())),
        text::span(longest)
    );
    let claim = text::span(policy.claim_time);
    findings.push(if !redis.our_worker_lives() && redis.lease {
        Finding::warn(
            "groups.pending",
            found,
            format!("the other workers never claim them; Penstock's ingest requeues them after {claim} (check its log if it does not)"),
        )
    } else if !redis.our_worker_lives() {
        Finding::warn(
            "groups.pending",
            found,
            format!("the other workers only read new entries; a Penstock worker claims these after {claim} (worker.claimTime)"),
        )
    } else if longest > policy.claim_time * 3 {
        Finding::warn(
            "groups.pending",
            found,
            format!("Penstock workers are running and should have claimed them after {claim}: check their log"),
        )
    } else {
        Finding::note("groups.pending", format!("{found}; Penstock workers claim them after {claim}"))
    });
}

/// Somebody else's group on the same stream.
fn foreign(policy: &Policy, group: &GroupSeen, check: String) -> Finding {
    let least = group.consumers.iter().map(|consumer| consumer.idle).min();
    let whose = if group.name == FOREIGN_GROUP { "Osprey's reader" } else { "another system's group" };
    let found = format!("{whose}; {}", backlog(group));
    let behind = group.lag.unwrap_or(1) + group.pending;
    let hold = text::span(policy.foreign_group_hold);
    match least {
        Some(idle) if idle > policy.foreign_group_hold && behind > 0 => Finding::warn(
            check,
            format!("{found}; inactive for {}, so it no longer blocks trimming", text::span(idle)),
            "XGROUP DESTROY it if it is abandoned; unread entries are being trimmed",
        ),
        Some(idle) if idle > policy.claim_time && behind > 0 => Finding::note(
            check,
            format!("{found}; inactive for {}; it blocks trimming for up to {hold}", text::span(idle)),
        ),
        None if behind > 0 => Finding::warn(
            check,
            format!("{found}; it has no consumers, and blocks trimming for up to {hold}"),
            "start its consumer, or XGROUP DESTROY it if it is abandoned",
        ),
        _ => Finding::ok(check, found),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn backlog(group: &GroupSeen) -> String {
    let lag = match group.lag {
        Some(lag) if group.lag_exact => format!("lag {lag}"),
        Some(lag) => format!("lag at least {lag}"),
        None => "lag unknown".to_owned(),
    };
    format!("{lag}, pending {}", group.pending)
}

/// How many of ours and how many of theirs read: whoever does asks every second or so.
pub(super) fn readers(policy: &Policy, redis: &RedisSeen, group: &GroupSeen) -> (usize, usize) {
    let ours = group.consumers.iter().filter(|consumer| redis.alive.contains(&consumer.name)).count();
    let recent = policy.claim_time.min(READS);
    let is_theirs = |consumer: &&ConsumerSeen| !redis.alive.contains(&consumer.name) && consumer.idle < recent;
    (ours, group.consumers.iter().filter(is_theirs).count())
}

/// Until then what it holds is its own.
fn lives(policy: &Policy, redis: &RedisSeen, consumer: &ConsumerSeen) -> bool {
    redis.alive.contains(&consumer.name) || consumer.idle < policy.claim_time
}

#[cfg(test)]
mod tests {
    use super::super::tests::{level, of};
    use super::*;
    use crate::finding::Level;
    use crate::judge::judge;
    use crate::seen::Moment;

    fn seen(lag: Option<u64>, consumers: &[(&str, u64, u64)], alive: &[&str]) -> Seen {
        let mut seen = Seen::default();
        seen.policy.max_len = 1_000;
        seen.policy.group = "w".into();
        seen.policy.claim_time = Duration::from_secs(60);
        seen.policy.foreign_group_hold = Duration::from_secs(3_600);
        let redis = &mut seen.redis.seen;
        redis.stream = Some(Moment::default());
        redis.alive = alive.iter().map(|name| (*name).to_owned()).collect();
        redis.groups = vec![GroupSeen {
            name: "w".into(),
            lag,
            lag_exact: true,
            pending: consumers.iter().map(|(_, pending, _)| pending).sum(),
            consumers: consumers
                .iter()
                .map(|(name, pending, idle)| ConsumerSeen {
                    name: (*name).into(),
                    pending: *pending,
                    idle: Duration::from_secs(*idle),
                })
                .collect(),
            ..GroupSeen::default()
        }];
        seen
    }

    #[test]
    fn whoever_reads_is_named() {
        let cases: &[(Seen, Level, &str)] = &[
            (seen(Some(0), &[("python-worker-0", 0, 1)], &[]), Level::Ok, "read by 1 other consumer; lag 0, pending 0"),
            (seen(Some(0), &[("a", 0, 900)], &["a"]), Level::Ok, "read by 1 Penstock consumer"),
            (seen(None, &[("a", 0, 1)], &["a"]), Level::Ok, "lag unknown"),
            (
                seen(Some(0), &[("a", 0, 1), ("worker-0-p1", 0, 1)], &["a"]),
                Level::Note,
                "read by 1 Penstock and 1 other",
            ),
            (seen(Some(0), &[], &[]), Level::Note, "no consumers are reading"),
            (seen(Some(5), &[("a", 0, 900)], &[]), Level::Warn, "no consumers are reading"),
            (seen(Some(5), &[("python-worker-0", 1, 30)], &[]), Level::Warn, "no consumers are reading"),
            (seen(Some(300), &[("a", 0, 1)], &["a"]), Level::Warn, "over 30 %"),
            (seen(Some(700), &[("a", 100, 1)], &["a"]), Level::Fail, "close to the stream's cap"),
        ];
        for (seen, wanted, said) in cases {
            let findings = judge(seen);
            let found = of(&findings, "groups.w");
            assert!(found.level == *wanted && found.found.contains(said), "{found:?}");
        }
    }

    #[test]
    fn what_the_gone_hold_is_told_with_their_names() {
        let theirs = seen(Some(0), &[("worker-1-p2", 7, 900), ("worker-1-p3", 1, 5)], &[]);
        let findings = judge(&theirs);
        let found = of(&findings, "groups.pending");
        assert!(found.level == Level::Warn && found.found.contains("7 entries"), "{found:?}");
        assert!(found.found.contains("worker-1-p2") && !found.found.contains("worker-1-p3"), "{found:?}");
        let mut behind_ours = theirs.clone();
        behind_ours.redis.seen.lease = true;
        let advice = of(&judge(&behind_ours), "groups.pending").advice.clone();
        assert!(advice.is_some_and(|advice| advice.contains("ingest requeues them")));
        let taken = |idle| level(&seen(Some(0), &[("old", 7, idle), ("a", 0, 1)], &["a"]), "groups.pending");
        assert_eq!((taken(100), taken(900)), (Level::Note, Level::Warn));
        let held = judge(&seen(Some(0), &[("a", 7, 900)], &["a"]));
        assert!(!held.iter().any(|finding| finding.check == "groups.pending"), "{held:#?}");
    }

    #[test]
    fn another_readers_group_is_judged_by_its_signs_of_life() {
        let foreign = |lag, consumers: &[(&str, u64, u64)]| {
            let mut seen = seen(Some(lag), consumers, &[]);
            seen.redis.seen.groups[0].name = "osprey-consumers".into();
            seen
        };
        let of_group = |seen: &Seen| level(seen, "groups.osprey-consumers");
        assert_eq!(of_group(&foreign(5, &[("o", 0, 1)])), Level::Ok);
        assert_eq!(of_group(&foreign(5, &[("o", 0, 600)])), Level::Note);
        assert_eq!(of_group(&foreign(5, &[("o", 0, 7_200)])), Level::Warn);
        assert_eq!(of_group(&foreign(0, &[("o", 0, 7_200)])), Level::Ok);
        assert_eq!(of_group(&foreign(5, &[])), Level::Warn);
        assert_eq!(level(&foreign(5, &[]), "groups.w"), Level::Note);
    }
}
