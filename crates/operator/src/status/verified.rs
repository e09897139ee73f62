//! Whether the commits that come in prove right.

use std::time::Duration;

use jiff::Timestamp;
use penstock_core::settings::Verification;
use penstock_core::verified::Verified;

use crate::crd::ConditionStatus;

use super::facts::{Facts, Reading, Snapshot};
use super::text;
use super::verdict::Verdict;

use ConditionStatus::{False, True, Unknown};

/// For how long a commit that proved wrong is told.
const TOLD: Duration = Duration::from_secs(3_600);

/// Says whether the commits of the last hour proved right, as far as ingest verifies any.
pub(super) fn verified(facts: &Facts) -> Verdict {
    let unknown = |reason: &str, message: &str| Verdict::new("Verified", Unknown, reason, message);
    if facts.suspend {
        return unknown("Suspended", "spec.suspend is true");
    }
    if !facts.ingest.enabled {
        return unknown("SwitchedOff", "ingest.enabled is false: this pipeline reads no commits");
    }
    let snapshot = match &facts.redis {
        None => return unknown("Reconciling", "Redis has not been read yet"),
        Some(Reading::Unreachable(_)) => return unknown("RedisUnreachable", "Redis is unreachable"),
        Some(Reading::Read(snapshot)) => snapshot,
    };
    match &snapshot.verified {
        // Without a status there is no ingest, and the rest is what the last one left.
        Some(found) if snapshot.status.is_some() => found_by_ingest(found, snapshot),
        _ => unknown("NotReported", "No ingest reports in Redis what it verified"),
    }
}

fn found_by_ingest(found: &Verified, snapshot: &Snapshot) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("Verified", status, reason, message);
    if found.mode == Verification::Off {
        return verdict(Unknown, "Off", "verify.mode is off: no commit is verified".to_owned());
    }
    if let Some(since) = found.held_since {
        let message = format!(
            "Reading waits since {} for the key of an account, as verify.unresolved: hold asks for: the directory or a host does not \
             answer. Meanwhile the relay buffers",
            shown(since)
        );
        return verdict(False, "WaitingForKeys", message);
    }
    let recent =
        found.last_failed.as_ref().filter(|last| snapshot.at.duration_since(last.at).as_secs() < seconds(TOLD));
    match recent {
        Some(last) => {
            let message = format!(
                "{}: {}. The last was of {} ({}) at {}. {}{}",
                failures(found),
                by_reason(found),
                last.did,
                last.reason,
                shown(last.at),
                consequence(found),
                beside(found)
            );
            verdict(False, "CommitsFailed", message)
        }
        None if found.failures() > 0 => {
            let message = format!(
                "No commit failed verification within the last hour; {}: {}{}",
                failures(found),
                by_reason(found),
                beside(found)
            );
            verdict(True, "Verified", message)
        }
        None => {
            let count = text::round(found.verified);
            let message =
                format!("{count} commits were verified since {}, and none failed{}", shown(found.since), beside(found));
            verdict(True, "Verified", message)
        }
    }
}

/// Says how many failed, of how many.
fn failures(found: &Verified) -> String {
    let failed = found.failures();
    let commits = if failed == 1 { "commit" } else { "commits" };
    format!("{failed} {commits} of {} failed verification since {}", text::round(found.commits()), shown(found.since))
}

fn by_reason(found: &Verified) -> String {
    let reasons: Vec<String> = found.failed.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    reasons.join(", ")
}

/// Says what became of those that failed.
fn consequence(found: &Verified) -> &'static str {
    match (found.mode, found.signatures) {
        (Verification::Enforce, Verification::Count) => {
            "Each is a dead letter and its repo is marked, but what failed by its signature alone was written"
        }
        (Verification::Enforce, _) => "Each is a dead letter, and its repo is marked",
        _ => "They were counted and written all the same, because verify.mode is count",
    }
}

/// Says what else should be known, and what is not looked at.
fn beside(found: &Verified) -> String {
    let mut said = String::new();
    if found.unresolved > 0 {
        let count = text::round(found.unresolved);
        said.push_str(&format!("; of {count} commits the account's key could not be had"));
    }
    if found.marked() > 0 {
        said.push_str(&format!("; repos marked desynchronized: {}", text::round(found.marked())));
    }
    if found.signatures == Verification::Off {
        said.push_str("; signatures are not checked");
    }
    said
}

fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use penstock_core::live::Status;
    use penstock_core::verified::LastFailed;

    use super::*;
    use crate::status::facts::PartFacts;
    use Verification::{Count, Enforce, Off};

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn found(mode: Verification, signatures: Verification) -> Verified {
        Verified { verified: 123_456, ..Verified::new(mode, signatures, time("2026-07-04T12:00:00Z")) }
    }

    fn failing(mode: Verification, signatures: Verification) -> Verified {
        Verified {
            failed: BTreeMap::from([("inversion".to_owned(), 1), ("signature".to_owned(), 2)]),
            last_failed: Some(LastFailed {
                at: time("2026-07-04T13:30:00Z"),
                did: "did:plc:a".to_owned(),
                reason: "signature".to_owned(),
            }),
            ..found(mode, signatures)
        }
    }

    fn facts(found: Option<Verified>, at: &str) -> Facts {
        let status = Status { connected: true, url: "wss://relay".into(), current_cursor: None };
        let snapshot = Snapshot { status: Some(status), verified: found, at: time(at), ..Snapshot::default() };
        let ingest = PartFacts { enabled: true, ..PartFacts::default() };
        Facts { ingest, redis: Some(Reading::Read(Box::new(snapshot))), ..Facts::default() }
    }

    fn told(found: Verified, at: &str) -> (ConditionStatus, String, String) {
        let Verdict { status, reason, message, .. } = verified(&facts(Some(found), at));
        (status, reason, message)
    }

    #[test]
    fn what_failed_is_said_with_how_many_and_why() {
        for (mode, signatures, end) in [
            (Enforce, Enforce, "Each is a dead letter, and its repo is marked"),
            (Enforce, Off, "Each is a dead letter, and its repo is marked; signatures are not checked"),
            (
                Enforce,
                Count,
                "Each is a dead letter and its repo is marked, but what failed by its signature alone was written",
            ),
            (Count, Count, "They were counted and written all the same, because verify.mode is count"),
        ] {
            let (status, reason, message) = told(failing(mode, signatures), "2026-07-04T14:29:59Z");
            let expected = format!(
                "3 commits of 123000 failed verification since 2026-07-04 12:00:00 UTC: inversion 1, signature 2. The last was of \
                 did:plc:a (signature) at 2026-07-04 13:30:00 UTC. {end}"
            );
            assert_eq!((status, reason.as_str(), message), (False, "CommitsFailed", expected));
        }
        let once = Verified { failed: BTreeMap::from([("rev".to_owned(), 1)]), ..failing(Enforce, Enforce) };
        assert!(told(once, "2026-07-04T13:30:00Z").2.starts_with("1 commit of 123000 failed"));
    }

    #[test]
    fn after_an_hour_without_a_failure_it_holds_again() {
        let (status, reason, message) = told(failing(Enforce, Enforce), "2026-07-04T14:30:00Z");
        assert_eq!((status, reason.as_str()), (True, "Verified"));
        let expected = "No commit failed verification within the last hour; 3 commits of 123000 failed verification since \
                        2026-07-04 12:00:00 UTC: inversion 1, signature 2";
        assert_eq!(message, expected);
    }

    #[test]
    fn what_holds_says_what_is_not_looked_at() {
        let marked = BTreeMap::from([("prevData".to_owned(), 3), ("sync".to_owned(), 4)]);
        for (found, end) in [
            (found(Enforce, Enforce), ""),
            (found(Count, Off), "; signatures are not checked"),
            (
                Verified { unresolved: 5, ..found(Enforce, Enforce) },
                "; of 5 commits the account's key could not be had",
            ),
            (
                Verified { desynchronized: marked, ..found(Count, Off) },
                "; repos marked desynchronized: 7; signatures are not checked",
            ),
        ] {
            let (status, reason, message) = told(found, "2026-07-04T13:00:00Z");
            assert_eq!((status, reason.as_str()), (True, "Verified"), "{message}");
            assert!(message.ends_with(&format!("since 2026-07-04 12:00:00 UTC, and none failed{end}")), "{message}");
        }
    }

    #[test]
    fn reading_that_waits_for_a_key_is_not_well() {
        let held = Verified { held_since: Some(time("2026-07-04T12:30:00Z")), ..found(Enforce, Enforce) };
        let (status, reason, message) = told(held, "2026-07-04T13:00:00Z");
        assert_eq!((status, reason.as_str()), (False, "WaitingForKeys"));
        assert!(message.contains("since 2026-07-04 12:30:00 UTC"), "{message}");
    }

    #[test]
    fn what_is_off_or_not_known_is_unknown() {
        let at = "2026-07-04T13:00:00Z";
        let off = facts(Some(found(Off, Off)), at);
        let mut silent = facts(Some(failing(Enforce, Enforce)), at);
        if let Some(Reading::Read(snapshot)) = &mut silent.redis {
            snapshot.status = None;
        }
        let failing = || facts(Some(failing(Enforce, Enforce)), at);
        for (facts, reason) in [
            (off, "Off"),
            (facts(None, at), "NotReported"),
            (silent, "NotReported"),
            (Facts { suspend: true, ..failing() }, "Suspended"),
            (Facts { ingest: PartFacts::default(), ..failing() }, "SwitchedOff"),
            (Facts { redis: None, ..failing() }, "Reconciling"),
            (Facts { redis: Some(Reading::Unreachable("refused".into())), ..failing() }, "RedisUnreachable"),
        ] {
            let verdict = verified(&facts);
            assert_eq!((verdict.status, verdict.reason.as_str()), (Unknown, reason));
            assert!(!verdict.message.is_empty());
        }
    }
}
