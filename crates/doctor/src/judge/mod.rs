//! Draws findings from what was seen: no I/O, no clock.

mod cursor;
mod database;
mod groups;
mod ownership;
mod redis;
mod schema;
mod stream;
mod verification;
mod writers;

use penstock_core::settings::UnknownVariable;

use crate::finding::Finding;
use crate::seen::{Seen, Side};

/// Draws the findings, in the order in which one reads them: the servers, the stream, who reads it, the tables, the accounts.
pub(crate) fn judge(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let redis = &seen.redis;
    if reached(&mut findings, "redis.server", &seen.policy.redis_url, redis, !redis.seen.info.is_empty()) {
        redis::judge(seen, &mut findings);
        stream::judge(seen, &mut findings);
        groups::judge(seen, &mut findings);
        cursor::judge(seen, &mut findings);
        ownership::judge(seen, &mut findings);
    }
    match &seen.postgres {
        None => findings.push(
            Finding::note("postgres.server", "no address is set; only Redis was checked")
                .advised("set DATABASE_URL to check tables, cursors and the checkpoint"),
        ),
        Some(postgres) => {
            let url = &seen.policy.postgres_url;
            if reached(&mut findings, "postgres.server", url, postgres, postgres.seen.version > 0) {
                database::judge(seen, &postgres.seen, &mut findings);
                schema::judge(&postgres.seen, &mut findings);
                writers::judge(seen, &postgres.seen, &mut findings);
                cursor::judge_appview(seen, &postgres.seen, &mut findings);
                ownership::judge_database(seen, &postgres.seen, &mut findings);
                verification::judge_repos(&postgres.seen, &mut findings);
            }
        }
    }
    verification::judge_directory(seen, &mut findings);
    findings
}

/// Says which variables were meant to be settings and are none.
pub(crate) fn unknown_variables(variables: &[UnknownVariable]) -> impl Iterator<Item = Finding> {
    variables.iter().map(|UnknownVariable { name, nearest }| {
        Finding::warn(
            format!("settings.{}", crate::text::name(name)),
            "is not a setting and has no effect",
            format!("did you mean {nearest}? penstock settings lists all"),
        )
    })
}

/// Says why a server could not be seen, whole or in part, and whether anything was seen.
fn reached<T>(findings: &mut Vec<Finding>, check: &str, url: &str, side: &Side<T>, anything: bool) -> bool {
    if let Some(error) = &side.error {
        let named = if error.contains(url) { error.clone() } else { format!("{url}: {error}") };
        let found = if anything { format!("stopped answering: {named}") } else { format!("unavailable: {named}") };
        findings.push(Finding::fail(
            check,
            found,
            "check that it is running, reachable from here, and that the credentials are right",
        ));
        if !anything {
            return false;
        }
    }
    let part = check.split('.').next().unwrap_or(check);
    for (what, why) in &side.unseen {
        findings.push(
            Finding::note(format!("{part}.unseen"), format!("could not read {what}: {}", crate::text::name(why)))
                .advised("checks that need it were skipped; grant the permission or use another login"),
        );
    }
    // Refused all that tells, a server was reached nevertheless.
    anything || side.error.is_none()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::finding::Level;

    /// The finding of one check.
    pub(crate) fn of<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        let mut all = findings.iter().filter(|finding| finding.check == check);
        let found = all.next().unwrap_or_else(|| panic!("no {check} in {findings:#?}"));
        assert!(all.next().is_none(), "{check} twice in {findings:#?}");
        found
    }

    /// The level of one check.
    pub(crate) fn level(seen: &Seen, check: &str) -> Level {
        of(&judge(seen), check).level
    }

    #[test]
    fn a_server_that_is_away_is_named_and_the_other_is_judged() {
        let mut seen = Seen::default();
        seen.policy.redis_url = "redis://u:***@h".into();
        seen.redis.error = Some("could not connect".into());
        seen.postgres = Some(Side::default());
        if let Some(postgres) = &mut seen.postgres {
            postgres.seen.version = 150_000;
        }
        let findings = judge(&seen);
        let redis = of(&findings, "redis.server");
        assert_eq!(redis.level, Level::Fail);
        assert!(redis.found.contains("redis://u:***@h") && redis.found.contains("could not connect"), "{redis:?}");
        assert!(findings.iter().any(|finding| finding.check == "schema"), "{findings:#?}");
        assert!(!findings.iter().any(|finding| finding.check.starts_with("stream")), "{findings:#?}");
    }

    #[test]
    fn a_variable_that_is_no_setting_is_a_warning() {
        // In parts: every name that the repository spells out must be a setting's.
        let name = format!("PENSTOCK_{}", "REDIS_UR");
        let unknown = [UnknownVariable { name: name.clone(), nearest: "PENSTOCK_REDIS_URL".to_owned() }];
        let findings: Vec<_> = unknown_variables(&unknown).collect();
        let warning = of(&findings, &format!("settings.{name}"));
        assert_eq!(warning.level, Level::Warn);
        assert!(warning.advice.as_ref().is_some_and(|advice| advice.contains("PENSTOCK_REDIS_URL")), "{warning:?}");
    }

    #[test]
    fn what_is_refused_is_a_note_that_names_it() {
        let mut seen = Seen::default();
        seen.redis.unseen.push(("the server's settings (CONFIG GET)".into(), "NOPERM".into()));
        let findings = judge(&seen);
        let note = of(&findings, "redis.unseen");
        assert_eq!(note.level, Level::Note);
        assert!(note.found.contains("CONFIG GET") && note.found.contains("NOPERM"), "{note:?}");
    }
}
