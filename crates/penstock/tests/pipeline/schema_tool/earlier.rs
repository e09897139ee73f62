//! An installation of Penstock 0.1, which had its tables and columns in `public`, is moved out of the schema tool's way.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, PgConnection, SqlSafeStr};

use super::catalogue::{Catalogue, sizes};
use super::tool::Edition;
use super::tool::Outcome::{Applied, GaveUp};
use super::tool::Version::Present;
use super::{First, Shared, rows, theirs_alone};

/// What 0.1 did to a database.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "appview", include_str!("version_0_1/0001_appview.sql")),
    (2, "penstock", include_str!("version_0_1/0002_penstock.sql")),
];

/// Does what `penstock migrate` of 0.1 did, and leaves a row in every table, with every column filled.
async fn migrate_as_0_1(shared: &Shared) {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.dangerous_set_table_name("penstock_migrations");
    let mut conn = PgConnection::connect(&shared.rig.database).await.unwrap();
    migrator.run_direct(None, &mut conn, false).await.unwrap();
    conn.close().await.unwrap();
    rows::fill_all(&shared.rig.pool, "public").await;
    // A message system of one's own shares no database with an AppView.
    sqlx::query("DELETE FROM messages").execute(&shared.rig.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs drizzle-kit from npm: make schema-test"]
async fn an_installation_of_0_1_is_moved_and_the_tool_finds_nothing_to_change() {
    for edition in Edition::ALL {
        for first in [First::AppView, First::Penstock] {
            let shared = Shared::empty(edition).await;
            if first.is_appview() {
                assert_eq!(shared.tool.push(Present).await, Applied);
            }
            migrate_as_0_1(&shared).await;
            assert_eq!(shared.tool.push(Present).await, GaveUp, "as 0.1 left it");
            let before = sizes(&shared.rig.pool).await;

            shared.rig.migrate().await;
            if !first.is_appview() {
                assert_eq!(shared.tool.push(Present).await, Applied, "its other tables");
            }
            let now = Catalogue::of(&shared.rig.pool).await.public();
            now.assert_is(&theirs_alone(edition).await, &format!("0.1, {first:?} first, {edition:?}"));
            shared.assert_nothing_to_change("moved").await;
            let after = sizes(&shared.rig.pool).await;
            for (table, rows) in before.iter().filter(|(table, _)| after.contains_key(*table)) {
                assert_eq!(after[table], *rows, "rows of {table}");
            }
            for table in ["repos", "tombstones", "shadowed", "checkpoint", "dead_letters", "meta"] {
                let (then, now) = (before[&format!("public.penstock_{table}")], after[&format!("penstock.{table}")]);
                // More where the migration notes what it finds in the AppView's tables.
                assert!(now >= then, "{now} rows of {table} after {then}");
            }
            // A migration that ran is no migration.
            shared.rig.migrate().await;
            rows::write(&shared.rig, 1).await;
            rows::fill(&shared.rig.pool).await;
            shared.assert_nothing_to_change("and worked on").await;
        }
    }
}
