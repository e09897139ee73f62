//! What the manual says of the tables: `docs/tables.md` lists every one with its columns, and the README's queries run.

use std::collections::BTreeSet;

use super::*;

const README: &str = include_str!("../../../../../README.md");
const PAGE: &str = include_str!("../../../../../docs/tables.md");

/// Every column as the page has it: `table.column type`, and ` null` where it may be.
fn documented(page: &str) -> BTreeSet<String> {
    let mut table = None;
    let mut columns = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with('#') {
            table = line.strip_prefix("#### `").and_then(|rest| rest.strip_suffix('`'));
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let (Some(table), ["", column, kind, meaning, ""]) = (table, cells.as_slice())
            && column.starts_with('`')
        {
            assert!(!meaning.is_empty(), "{table}.{column} has no meaning");
            let is_new = columns.insert(format!("{table}.{column} {kind}").replace('`', ""));
            assert!(is_new, "{table}.{column} twice");
        }
    }
    columns
}

/// Every column that there is, spelled in the same way.
async fn migrated(db: &Db) -> BTreeSet<String> {
    let rows = db
        .rows(
            "SELECT CASE table_schema WHEN 'public' THEN '' ELSE table_schema || '.' END || table_name || '.' || column_name || ' ' ||
                CASE data_type WHEN 'character varying' THEN 'varchar(' || character_maximum_length || ')'
                  WHEN 'timestamp without time zone' THEN 'timestamp' WHEN 'timestamp with time zone' THEN 'timestamptz'
                  ELSE data_type END || CASE is_nullable WHEN 'YES' THEN ' null' ELSE '' END AS spelled
              FROM information_schema.columns WHERE table_schema IN ('public', 'penstock')",
        )
        .await;
    rows.iter().map(|row| row["spelled"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_lists_every_table_and_column_and_no_others() {
    let db = Db::new().await;
    schema::migrate(&db.url, true).await.unwrap();
    let (said, there) = (documented(PAGE), migrated(&db).await);
    let missing: Vec<&String> = there.difference(&said).collect();
    let invented: Vec<&String> = said.difference(&there).collect();
    assert!(missing.is_empty() && invented.is_empty(), "docs/tables.md lacks {missing:#?}, and has {invented:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_described_is_noticed() {
    let db = Db::new().await;
    sqlx::raw_sql("CREATE TABLE penstock.news (id int); ALTER TABLE likes ALTER COLUMN via SET NOT NULL")
        .execute(db.store.pool())
        .await
        .unwrap();
    let said = documented(PAGE);
    let there = migrated(&db).await;
    let missing: Vec<&str> = there.difference(&said).map(String::as_str).collect();
    assert_eq!(missing, ["likes.via jsonb", "penstock.news.id integer null"]);
}

/// The README's queries, each with the columns of the output that follows it.
fn queries(page: &str) -> Vec<(&str, Vec<&str>)> {
    let mut queries = Vec::new();
    for block in page.split("```sql\n").skip(1) {
        let (query, rest) = block.split_once("```\n").unwrap();
        let header = rest.strip_prefix("```\n").expect("what the query answers").lines().next().unwrap();
        queries.push((query.trim().trim_end_matches(';'), header.split('|').map(str::trim).collect()));
    }
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_the_readme_run_and_answer_as_shown() {
    let db = Db::new().await;
    let queries = queries(README);
    assert_eq!(queries.len(), 3);
    for (at, (query, shown)) in queries.into_iter().enumerate() {
        let view = format!("CREATE VIEW penstock.example_{at} AS {query}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(view)).execute(db.store.pool()).await.expect(query);
        let columns = db
            .rows(&format!(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'example_{at}' ORDER BY ordinal_position"
            ))
            .await;
        let columns: Vec<&str> = columns.iter().map(|row| row["column_name"].as_str().unwrap()).collect();
        assert_eq!(columns, shown, "{query}");
    }
}
