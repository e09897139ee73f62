//! Whether commits can be verified, and whether any repo is known to lack something.

use crate::finding::Finding;
use crate::seen::{PostgresSeen, Seen};
use crate::text;

/// Judges the directory of accounts.
pub(super) fn judge_directory(seen: &Seen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "identity.directory";
    let Some(directory) = &seen.directory else { return };
    let url = &seen.policy.directory;
    let Some(error) = &directory.error else {
        findings.push(Finding::ok(CHECK, format!("{} answers", text::name(url))));
        return;
    };
    let found = format!("{} cannot be used: {}", text::name(url), text::name(error));
    let advice = "check identity.plcUrl, identity.allowedNetworks and the way out of this network";
    findings.push(if seen.policy.holds {
        Finding::fail(
            CHECK,
            format!("{found}; commits of accounts that are not known yet hold everything up"),
            format!("{advice}, or set verify.unresolved to pass"),
        )
    } else {
        Finding::warn(CHECK, format!("{found}; keys, handles and deletions of accounts stay unchecked"), advice)
    });
}

/// Judges whether repos are complete.
pub(super) fn judge_repos(postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "repos";
    let Some((count, example)) = &postgres.desynchronized else { return };
    findings.push(match (count, example) {
        (0, _) | (_, None) => Finding::ok(CHECK, "no repo is known to lack something"),
        (count, Some(did)) => Finding::warn(
            CHECK,
            format!("{count} known to lack something, such as {}", text::name(did)),
            "SELECT did, sync, sync_at FROM penstock.repos WHERE sync IS NOT NULL says why; docs/verification.md says how they are repaired",
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::super::tests::{level, of};
    use crate::finding::Level;
    use crate::seen::{DirectorySeen, PostgresSeen, Seen, Side};

    #[test]
    fn a_directory_that_is_away_matters_more_where_events_wait_for_it() {
        let mut seen = Seen { directory: Some(DirectorySeen::default()), ..Seen::default() };
        seen.policy.directory = "https://plc.example.com".into();
        assert_eq!(level(&seen, "identity.directory"), Level::Ok);
        seen.directory = Some(DirectorySeen { error: Some("plc.example.com could not be connected to".into()) });
        assert_eq!(level(&seen, "identity.directory"), Level::Warn);
        seen.policy.holds = true;
        let findings = judge(&seen);
        let found = of(&findings, "identity.directory");
        assert_eq!(found.level, Level::Fail);
        assert!(found.found.contains("https://plc.example.com cannot be used"), "{found:?}");
        seen.directory = None;
        assert!(!judge(&seen).iter().any(|finding| finding.check == "identity.directory"), "nobody asks it");
    }

    #[test]
    fn repos_that_lack_something_are_a_warning_that_names_one() {
        let seen = |desynchronized| {
            let postgres = PostgresSeen { version: 150_000, desynchronized, ..PostgresSeen::default() };
            Seen { postgres: Some(Side { seen: postgres, ..Side::default() }), ..Seen::default() }
        };
        assert_eq!(level(&seen(Some((0, None))), "repos"), Level::Ok);
        let some = seen(Some((3, Some("did:plc:a".into()))));
        let findings = judge(&some);
        let found = of(&findings, "repos");
        assert_eq!(found.level, Level::Warn);
        assert!(found.found.contains("3 known") && found.found.contains("did:plc:a"), "{found:?}");
        assert!(!judge(&seen(None)).iter().any(|finding| finding.check == "repos"), "it could not be seen");
    }
}
