//! Whether repos wait to be read again, by the word of the healers.
//!
//! The condition is called Healed and not Proven: it says what is to be done now, and changes when that is done. How much of the database
//! was compared with its hosts is a share and an age, which metrics tell better.

use crate::crd::ConditionStatus;

use super::facts::Facts;
use super::text;
use super::verdict::Verdict;

use ConditionStatus::{False, True, Unknown};

/// Says whether the database is as whole as the healers know.
pub(super) fn healed(facts: &Facts) -> Verdict {
    let verdict = |status, reason: &str, message: String| Verdict::new("Healed", status, reason, message);
    let heal = &facts.heal;
    if facts.suspend {
        return verdict(Unknown, "Suspended", "spec.suspend is true".to_owned());
    }
    if !heal.enabled {
        let message = "No healer runs: repos that become desynchronized wait until heal.enabled is true or a FirehoseBackfill is created";
        return verdict(Unknown, "SwitchedOff", message.to_owned());
    }
    if let Some(why) = &heal.unreachable {
        return verdict(
            Unknown,
            "HealerUnreachable",
            format!("{why}: see kubectl logs deployment/{}-heal", facts.name),
        );
    }
    let Some(backlog) = heal.backlog.filter(|_| !heal.starting) else {
        let message =
            format!("No healer has answered yet: see kubectl describe deployment {}-heal, if that stays", facts.name);
        return verdict(Unknown, "HealersStarting", message);
    };
    let left = backlog.waiting.saturating_add(backlog.running);
    if left == 0 && backlog.backfills == 0 {
        return verdict(True, "NothingWaits", "No repo waits to be read again".to_owned());
    }
    let repos =
        if left == 1 { "1 repo waits or is".to_owned() } else { format!("{} repos wait or are", text::round(left)) };
    let not_due = backlog.waiting.saturating_sub(backlog.due);
    let later =
        if not_due == 0 { String::new() } else { format!("; {} of them are tried again later", text::round(not_due)) };
    let (reason, backfills) = match backlog.backfills {
        0 => ("RepairsWaiting", String::new()),
        1 => ("Backfilling", ", and 1 backfill is at work".to_owned()),
        many => ("Backfilling", format!(", and {many} backfills are at work")),
    };
    verdict(False, reason, format!("{repos} being read again{backfills}{later}"))
}

#[cfg(test)]
mod tests {
    use penstock_core::backfill::Backlog;

    use super::*;
    use crate::status::HealFacts;

    #[test]
    fn what_waits_is_told_and_what_is_not_known_is_unknown() {
        let of = |waiting, due, running, backfills| HealFacts {
            enabled: true,
            backlog: Some(Backlog { waiting, due, running, backfills }),
            ..HealFacts::default()
        };
        let away = HealFacts { enabled: true, unreachable: Some("No healer answers".into()), ..HealFacts::default() };
        for (heal, suspend, status, reason, message) in [
            (HealFacts::default(), false, Unknown, "SwitchedOff", "No healer runs"),
            (
                HealFacts { enabled: true, starting: true, ..HealFacts::default() },
                false,
                Unknown,
                "HealersStarting",
                "kubectl describe deployment p-heal",
            ),
            (away, false, Unknown, "HealerUnreachable", "No healer answers: see kubectl logs deployment/p-heal"),
            (of(0, 0, 0, 0), true, Unknown, "Suspended", "spec.suspend"),
            (of(0, 0, 0, 0), false, True, "NothingWaits", "No repo waits"),
            (of(1, 1, 0, 0), false, False, "RepairsWaiting", "1 repo waits or is being read again"),
            (
                of(12_345, 10_000, 8, 1),
                false,
                False,
                "Backfilling",
                "12300 repos wait or are being read again, and 1 backfill is at work; 2340 of them are tried again later",
            ),
            (
                of(0, 0, 0, 2),
                false,
                False,
                "Backfilling",
                "0 repos wait or are being read again, and 2 backfills are at work",
            ),
        ] {
            let facts = Facts { name: "p".into(), suspend, heal, ..Facts::default() };
            let verdict = healed(&facts);
            assert_eq!((verdict.status, verdict.reason.as_str()), (status, reason));
            assert!(verdict.message.contains(message), "{}", verdict.message);
        }
    }
}
