//! PostgreSQL as a server: whether it may be written, keeps what it is given, and lets our processes in.

use crate::finding::Finding;
use crate::seen::{Policy, PostgresSeen, Seen};
use crate::text;

/// The oldest version that has what the migrations use.
const OLDEST: i32 = 130_000;

/// How much of the log a slot that nobody reads may hold.
const SLOT_BYTES: i64 = 1_000_000_000;

/// From which age PostgreSQL itself begins to hurry, and soon refuses writes.
const TRANSACTION_AGE: i64 = 1_200_000_000;

/// How long a transaction may last before it is in the way of others, in seconds.
const LONG_TRANSACTION: i64 = 600;

/// Judges the server.
pub(super) fn judge(seen: &Seen, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    server(&seen.policy, postgres, findings);
    pooler(&seen.policy, postgres, findings);
    connections(&seen.policy, postgres, findings);
    durability(postgres, findings);
    timeouts(postgres, findings);
    role(postgres, findings);
    room(postgres, findings);
}

fn server(policy: &Policy, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "postgres.server";
    let facts = &postgres.facts;
    let at =
        format!("postgresql {}.{} at {}", postgres.version / 10_000, postgres.version % 10_000, policy.postgres_url);
    let read_only = postgres.settings.get("default_transaction_read_only").is_some_and(|value| value == "on");
    findings.push(if postgres.version < OLDEST {
        Finding::fail(CHECK, format!("{at} is too old"), "upgrade: 13 is the minimum")
    } else if facts.recovery {
        Finding::fail(CHECK, format!("{at} is a read-only standby"), "use the address of the primary")
    } else if read_only {
        Finding::fail(
            CHECK,
            format!("{at}: default_transaction_read_only is on, so workers cannot write"),
            "ALTER ROLE or ALTER DATABASE … RESET default_transaction_read_only (some providers set it when the disk is full)",
        )
    } else {
        Finding::ok(CHECK, at)
    });
    if !facts.encoding.is_empty() && facts.encoding != "UTF8" {
        findings.push(Finding::fail(
            "postgres.encoding",
            format!("the database encoding is {}: most text cannot be stored", text::name(&facts.encoding)),
            "create a UTF8 database and move the data",
        ));
    }
}

fn pooler(policy: &Policy, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "postgres.pooler";
    if let Some(why) = &postgres.confused_statements {
        findings.push(Finding::fail(
            CHECK,
            format!("there is a pooler in between that cannot be used: {why}"),
            "see docs/poolers.md for how to set it up; or connect directly",
        ));
    } else if postgres.shared_session {
        findings.push(Finding::note(
            CHECK,
            "two connections share one backend: there is a transaction-mode pooler in between, which knows prepared statements",
        ));
    } else if let Some(port) = postgres.facts.port
        && port != i32::from(policy.postgres_port)
    {
        findings.push(Finding::note(
            CHECK,
            format!(
                "PostgreSQL listens on {port}, but the address says {}: a pooler or port mapping is in between",
                policy.postgres_port
            ),
        ));
    }
}

fn connections(policy: &Policy, postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "postgres.connections";
    let (used, most) = (postgres.facts.connections, postgres.facts.max_connections);
    if most == 0 {
        return;
    }
    let (free, pool) = ((most - used).max(0), i64::from(policy.pool_size));
    let found = format!("{used} of {most} in use; a worker needs {pool}");
    findings.push(if free < pool {
        Finding::warn(CHECK, found, "raise max_connections or the role's limit, or lower DB_POOL_SIZE")
    } else {
        Finding::ok(CHECK, found)
    });
}

fn durability(postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "postgres.durability";
    let off = |name: &str| postgres.settings.get(name).is_some_and(|value| value == "off");
    if off("fsync") || off("full_page_writes") {
        let found = "fsync or full_page_writes is off: a machine crash can corrupt the database";
        findings.push(Finding::warn(CHECK, found, "turn both on"));
    } else if off("synchronous_commit") {
        let found = "synchronous_commit is off: a crash loses rows whose entries are already acknowledged";
        findings.push(Finding::warn(CHECK, found, "turn it on, at least for the workers' role"));
    } else if !postgres.settings.is_empty() {
        findings.push(Finding::ok(CHECK, "commits survive a crash"));
    }
}

fn timeouts(postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "postgres.timeouts";
    // Milliseconds, 0 for none.
    let ms = |name: &str| postgres.settings.get(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    let mut hurts = Vec::new();
    if (1..60_000).contains(&ms("statement_timeout")) {
        hurts.push(format!(
            "statement_timeout is {} ms: penstock migrate may be cancelled on large tables",
            ms("statement_timeout")
        ));
    }
    for name in ["idle_in_transaction_session_timeout", "transaction_timeout"] {
        if (1..10_000).contains(&ms(name)) {
            hurts.push(format!("{name} is {} ms: batches may be cancelled", ms(name)));
        }
    }
    if (1..60_000).contains(&ms("idle_session_timeout")) {
        hurts.push(format!(
            "idle_session_timeout is {} ms: connections keep being reopened",
            ms("idle_session_timeout")
        ));
    }
    let isolation = postgres.settings.get("default_transaction_isolation").map_or("read committed", String::as_str);
    if isolation != "read committed" {
        hurts.push(format!("default_transaction_isolation is {isolation}: batches will fail and retry"));
    }
    if postgres.settings.get("session_replication_role").is_some_and(|role| role == "replica") {
        hurts.push("session_replication_role is replica: triggers and foreign keys are skipped".to_owned());
    }
    findings.push(if hurts.is_empty() {
        Finding::ok(CHECK, "no harmful role or database settings")
    } else {
        Finding::warn(CHECK, hurts.join("; "), "ALTER ROLE … RESET for Penstock's role")
    });
}

fn role(postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    const CHECK: &str = "postgres.role";
    let facts = &postgres.facts;
    let role = text::name(&facts.role);
    let path: Vec<&str> = facts.search_path.iter().map(String::as_str).filter(|schema| *schema != "penstock").collect();
    if let Some(first) = path.first()
        && *first != "public"
    {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "role {role} has schema {} before public in its search_path: tables would be created there",
                text::name(first)
            ),
            "ALTER ROLE … SET search_path = public for Penstock's role",
        ));
    } else if facts.role == "penstock" {
        findings.push(Finding::note(
            CHECK,
            "the role has the same name as the schema penstock, so \"$user\" in search_path finds that first; Penstock handles it, other programs using this role may not",
        ));
    } else if !facts.role.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{role}, in database {}", text::name(&facts.database))));
    }
}

/// What fills the disk or stands in the way.
fn room(postgres: &PostgresSeen, findings: &mut Vec<Finding>) {
    let facts = &postgres.facts;
    if facts.size > 0 {
        let size = text::bytes(u64::try_from(facts.size).unwrap_or_default());
        findings.push(Finding::ok(
            "postgres.size",
            format!("the database is {size} (free disk space is not visible from here)"),
        ));
    }
    for (slot, bytes, active) in &postgres.slots {
        if *bytes > SLOT_BYTES {
            let read = if *active { "active but behind" } else { "inactive" };
            let held = text::bytes(u64::try_from(*bytes).unwrap_or_default());
            findings.push(Finding::warn(
                "postgres.slots",
                format!(
                    "replication slot {} retains {held} of WAL and is {read}: the disk is filling up",
                    text::name(slot)
                ),
                "restore its consumer, or SELECT pg_drop_replication_slot",
            ));
        }
    }
    if postgres.archive_failing == Some(true) {
        let found = "WAL archiving is failing: the disk is filling up and backups have a gap";
        findings.push(Finding::warn("postgres.archive", found, "check archive_command and the server log"));
    }
    if facts.longest_transaction > LONG_TRANSACTION {
        let found = format!("a transaction has been open for {} min", facts.longest_transaction / 60);
        findings.push(Finding::warn(
            "postgres.transactions",
            found,
            "it blocks vacuum and may hold locks that migrate needs: check pg_stat_activity",
        ));
    }
    if facts.waiting > 5 {
        let found = format!("{} sessions are waiting for a lock", facts.waiting);
        findings.push(Finding::warn("postgres.locks", found, "check pg_stat_activity with pg_blocking_pids(pid)"));
    }
    if facts.transaction_age > TRANSACTION_AGE {
        findings.push(Finding::fail(
            "postgres.vacuum",
            format!(
                "the oldest unfrozen transaction is {} transactions old: PostgreSQL refuses writes at about 2 billion",
                facts.transaction_age
            ),
            "run VACUUM FREEZE now, and find out what blocks autovacuum",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::level;
    use super::*;
    use crate::finding::Level;
    use crate::seen::Side;

    fn seen(change: impl FnOnce(&mut PostgresSeen)) -> Seen {
        let mut postgres = PostgresSeen { version: 150_018, ..PostgresSeen::default() };
        postgres.facts.encoding = "UTF8".into();
        postgres.facts.role = "app".into();
        postgres.facts.search_path = vec!["public".into()];
        postgres.facts.max_connections = 100;
        postgres.facts.connections = 10;
        postgres.facts.port = Some(5432);
        postgres.settings.insert("fsync".into(), "on".into());
        change(&mut postgres);
        let mut seen = Seen { postgres: Some(Side { seen: postgres, ..Side::default() }), ..Seen::default() };
        (seen.policy.pool_size, seen.policy.postgres_port) = (8, 5432);
        seen
    }

    fn setting(name: &'static str, value: &'static str) -> impl FnOnce(&mut PostgresSeen) {
        move |seen| {
            seen.settings.insert(name.into(), value.into());
        }
    }

    #[test]
    fn a_sound_server_is_ok_throughout() {
        let seen = seen(|_| ());
        for check in ["server", "connections", "durability", "timeouts", "role"] {
            assert_eq!(level(&seen, &format!("postgres.{check}")), Level::Ok, "{check}");
        }
    }

    #[test]
    fn whatever_cannot_be_written_is_a_failure() {
        for seen in [
            seen(|seen| seen.version = 120_010),
            seen(|seen| seen.facts.recovery = true),
            seen(setting("default_transaction_read_only", "on")),
        ] {
            assert_eq!(level(&seen, "postgres.server"), Level::Fail);
        }
        assert_eq!(level(&seen(|seen| seen.facts.encoding = "SQL_ASCII".into()), "postgres.encoding"), Level::Fail);
        assert_eq!(level(&seen(|seen| seen.shared_session = true), "postgres.pooler"), Level::Note);
        assert_eq!(level(&seen(|seen| seen.confused_statements = Some(String::new())), "postgres.pooler"), Level::Fail);
        assert_eq!(level(&seen(|seen| seen.facts.port = Some(6_000)), "postgres.pooler"), Level::Note);
        assert_eq!(level(&seen(|seen| seen.facts.transaction_age = 1_500_000_000), "postgres.vacuum"), Level::Fail);
    }

    #[test]
    fn whatever_will_hurt_is_a_warning() {
        type Change = fn(&mut PostgresSeen);
        let cases: &[(&str, Change)] = &[
            ("connections", |seen| seen.facts.connections = 95),
            ("durability", |seen| setting("fsync", "off")(seen)),
            ("durability", |seen| setting("synchronous_commit", "off")(seen)),
            ("timeouts", |seen| setting("statement_timeout", "1000")(seen)),
            ("timeouts", |seen| setting("idle_in_transaction_session_timeout", "500")(seen)),
            ("timeouts", |seen| setting("idle_session_timeout", "500")(seen)),
            ("timeouts", |seen| setting("default_transaction_isolation", "serializable")(seen)),
            ("role", |seen| seen.facts.search_path = vec!["app".into(), "public".into()]),
            ("slots", |seen| seen.slots = vec![("old".into(), 2_000_000_000, false)]),
            ("archive", |seen| seen.archive_failing = Some(true)),
            ("transactions", |seen| seen.facts.longest_transaction = 3_600),
            ("locks", |seen| seen.facts.waiting = 9),
        ];
        for (check, change) in cases {
            assert_eq!(level(&seen(change), &format!("postgres.{check}")), Level::Warn, "{check}");
        }
    }

    #[test]
    fn a_role_named_like_our_schema_is_a_note() {
        let seen = seen(|seen| {
            seen.facts.role = "penstock".into();
            seen.facts.search_path = vec!["penstock".into(), "public".into()];
        });
        assert_eq!(level(&seen, "postgres.role"), Level::Note);
    }
}
