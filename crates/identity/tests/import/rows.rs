//! What stands in the table after an import.

use crate::made::{K256, P256, did, line, make, operation, text};
use crate::{Stage, create, gzip, pool};
use penstock_local::PostgresOptions;
use penstock_local::testing::{PgBouncerOptions, TestPgBouncer, TestPostgres, unpacked};

const TOMBSTONE: &str = r#"{"sig":"x","prev":"bafyrei","type":"plc_tombstone"}"#;
const DAY: i64 = 86_400_000;
/// 2026-01-01.
const NEW_YEAR: i64 = 1_767_225_600_000;

#[tokio::test]
async fn the_latest_operation_that_counts_makes_the_row_whatever_the_order() {
    for seed in 0..4 {
        let (stage, made) = (Stage::new().await, make(700, seed));
        let totals = stage.import(&stage.file("export", text(&made.lines))).await.totals();
        assert_eq!((totals.lines, totals.operations), (made.lines.len() as u64, made.lines.len() as u64));
        assert_eq!((totals.nullified, totals.bad), (made.nullified, 0));
        assert_eq!(stage.rows().await, made.rows, "seed {seed}");

        // Once more, from the start: nothing changes.
        let again = stage.import_as(&stage.folder.path().join("export"), true).await.totals();
        assert_eq!((again.operations, again.written), (totals.operations, 0));
        assert_eq!(stage.rows().await, made.rows);
    }
}

#[tokio::test]
async fn parts_in_any_order_come_to_the_same() {
    let (stage, made) = (Stage::new().await, make(400, 77));
    for (n, part) in made.lines.chunks(150).enumerate().rev() {
        stage.import(&stage.file(&format!("part{n}"), text(part))).await.totals();
    }
    assert_eq!(stage.rows().await, made.rows);
}

/// Rows as they stood, an operation, and what the row must be after it: key kind, handle, stale, failures.
#[tokio::test]
async fn what_was_fetched_later_stays_and_what_was_fetched_before_goes() {
    let stage = Stage::new().await;
    let at = |days: i64| format!("to_timestamp({})", (NEW_YEAR + days * DAY) / 1000);
    let imported = |days| {
        line(&did(1), &operation(K256, "https://new.example.com", "new.example.com"), false, NEW_YEAR + days * DAY)
    };
    let gone = |days| line(&did(1), TOMBSTONE, false, NEW_YEAR + days * DAY);
    let row = |columns: &str, values: String| {
        format!(
            "TRUNCATE penstock.identities; INSERT INTO penstock.identities (did, host, {columns}) VALUES ('{}', 'old', {values})",
            did(1)
        )
    };
    let fetched = row("handle, handle_valid, fetched_at", format!("'old', true, {}", at(10)));
    let same = row("handle, handle_valid, fetched_at", format!("'new.example.com', true, {}", at(10)));
    let stale = |when| row("fetched_at, stale, stale_at", format!("{}, 'identity', {}", at(10), at(when)));
    let failed = |error: &str| row("failures, failed_at, error", format!("3, {}, '{error}'", at(10)));
    let claimed = row("fetched_at, failed_at", format!("{}, {}", at(10), at(12)));
    // host, handle checked, stale, failures.
    let (old, new) = ("old", "https://new.example.com");
    for (name, before, line, expected) in [
        ("fetched later", &fetched, imported(9), (Some(old), Some(true), None, 0)),
        ("fetched at the same time", &fetched, imported(10), (Some(old), Some(true), None, 0)),
        ("fetched before", &fetched, imported(11), (Some(new), None, None, 0)),
        ("the same handle", &same, imported(11), (Some(new), Some(true), None, 0)),
        ("a change that is older", &stale(11), imported(12), (Some(new), None, None, 0)),
        ("a change that is newer", &stale(13), imported(12), (Some(new), None, Some("identity"), 0)),
        ("tombstone before the fetch", &fetched, gone(9), (Some(old), Some(true), None, 0)),
        ("tombstone after the fetch", &fetched, gone(11), (None, None, None, 1)),
        ("not found", &failed("not_found: no such DID"), imported(9), (Some(new), None, None, 0)),
        ("tombstoned later", &failed("tombstoned: the DID is tombstoned"), imported(9), (Some(old), None, None, 3)),
        ("tombstoned before", &failed("tombstoned: the DID is tombstoned"), imported(11), (Some(new), None, None, 0)),
        ("asked for meanwhile", &claimed, imported(11), (Some(new), None, None, 0)),
    ] {
        stage.run(before).await;
        stage.import_as(&stage.file("export", format!("{line}\n")), true).await.totals();
        let query = "SELECT host, handle_valid, stale, failures FROM penstock.identities";
        let row: (Option<String>, Option<bool>, Option<String>, i32) =
            sqlx::query_as(query).fetch_one(stage.pool.inner()).await.unwrap();
        let (host, valid, stale, failures) = expected;
        assert_eq!(row, (host.map(Into::into), valid, stale.map(Into::into), failures), "{name}");
    }
}

#[tokio::test]
async fn a_tombstone_and_the_recovery_after_it_leave_the_account() {
    let stage = Stage::new().await;
    let lines = [
        line(&did(1), &operation(K256, "https://a.example.com", "a.example.com"), false, NEW_YEAR),
        line(&did(1), TOMBSTONE, true, NEW_YEAR + 1),
        line(&did(1), &operation(P256, "https://b.example.com", "b.example.com"), false, NEW_YEAR + 2),
        line(&did(2), &operation(K256, "https://a.example.com", "a.example.com"), false, NEW_YEAR),
        line(&did(2), TOMBSTONE, false, NEW_YEAR + 1),
    ];
    stage.import(&stage.file("export", text(&lines))).await.totals();
    let rows = stage.rows().await;
    assert_eq!(rows[&did(1)].2.as_deref(), Some("b.example.com"));
    assert_eq!(rows[&did(2)], (None, None, None, (NEW_YEAR + 1) * 1000, true));
    let error: String = sqlx::query_scalar("SELECT error FROM penstock.identities WHERE error IS NOT NULL")
        .fetch_one(stage.pool.inner())
        .await
        .unwrap();
    assert_eq!(error, "tombstoned: the DID is tombstoned", "as the services write it");
}

#[tokio::test]
async fn bad_lines_are_named_and_the_others_imported() {
    let (stage, made) = (Stage::new().await, make(50, 5));
    let mut lines = made.lines.clone();
    lines.insert(7, "nonsense".to_owned());
    lines.insert(20, format!("{{\"did\":\"{}\"}}", "x".repeat(100_000)));
    // Longer than what is read at once.
    lines.insert(21, "y".repeat(9 << 20));
    lines.push(
        r#"{"did":"did:web:a.com","operation":{"type":"create"},"createdAt":"2026-01-01T00:00:00.000Z"}"#.to_owned(),
    );
    let imported = stage.import(&stage.file("export", text(&lines))).await;
    let long = "the line has more than 65536 bytes";
    let expected = [
        "line 8: expected ident at line 1 column 2".to_owned(),
        format!("line 21: {long}"),
        format!("line 22: {long}"),
        format!("line {}: did is not a did:plc of 24 letters", lines.len()),
    ];
    assert_eq!(imported.told, expected);
    assert_eq!(imported.totals().bad, 4);
    assert_eq!(stage.rows().await, made.rows);
}

#[tokio::test]
async fn what_is_no_export_is_said_to_be_none() {
    let stage = Stage::new().await;
    for (content, expected) in [
        ("hello\nworld\n".to_owned(), "none of its first 2 lines is an operation"),
        ("x\n".repeat(3_000_000), "none of its first "),
        ("z".repeat(100), "none of its first 1 lines is an operation"),
    ] {
        let imported = stage.import(&stage.file("export", content)).await;
        assert!(imported.told.len() <= 20, "{} bad lines told", imported.told.len());
        let error = imported.totals.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(stage.import(&stage.file("empty", "")).await.totals().lines, 0);
    let error = stage.import(&stage.folder.path().join("missing")).await.totals.unwrap_err();
    assert!(error.to_string().starts_with("could not open "), "{error}");
    let torn = &gzip(text(&make(50, 2).lines).as_bytes())[..2_000];
    let error = stage.import(&stage.file("torn.gz", torn)).await.totals.unwrap_err();
    assert!(error.to_string().starts_with("could not read the export at byte "), "{error}");
}

#[tokio::test]
async fn a_database_without_the_table_is_told_what_to_do() {
    let stage = Stage::new().await;
    stage.run("DROP TABLE penstock.identities").await;
    let error = stage.import(&stage.file("export", text(&make(3, 1).lines))).await.totals.unwrap_err();
    assert_eq!(error.to_string(), "the database has no table penstock.identities: run penstock migrate first");
}

#[tokio::test]
async fn imports_go_through_a_pooler_and_leave_nothing_in_its_sessions() {
    let Some(options) = PgBouncerOptions::newest() else {
        eprintln!("skipped: no pgbouncer");
        return;
    };
    let postgres = TestPostgres::start().await.unwrap();
    let bouncer = TestPgBouncer::start(&postgres, &options.mode("transaction")).await.unwrap();
    let url = postgres.fresh_database().await.unwrap();
    create(&pool(&url)).await;
    let made = make(500, 9);
    let stage =
        Stage { pool: pool(&bouncer.through(&url)), folder: penstock_local::testing::TempFolder::new().unwrap() };
    let path = stage.file("export", text(&made.lines));
    let (one, two) = tokio::join!(stage.import(&path), stage.import(&path));
    assert_eq!(one.totals().operations, two.totals().operations);
    let direct = Stage { pool: pool(&url), ..stage };
    assert_eq!(direct.rows().await, made.rows);
}

#[tokio::test]
async fn newer_servers_take_imports_as_well() {
    for name in ["postgresql-17", "postgresql-18"] {
        let Some(programs) = unpacked(name) else {
            eprintln!("skipped: no {name}");
            continue;
        };
        let options = PostgresOptions { programs: Some(programs), durable: false, ..PostgresOptions::default() };
        let postgres = TestPostgres::start_with(options).await.unwrap();
        let made = make(100, 3);
        let url = postgres.fresh_database().await.unwrap();
        let stage = Stage { pool: pool(&url), folder: penstock_local::testing::TempFolder::new().unwrap() };
        create(&stage.pool).await;
        stage.import(&stage.file("export", text(&made.lines))).await.totals();
        assert_eq!(stage.rows().await, made.rows, "{name}");
    }
}
