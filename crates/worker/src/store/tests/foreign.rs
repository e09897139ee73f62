//! Migrations of databases that belong to another program.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::*;
use crate::schema::SchemaError;

/// All that is in a database.
const CATALOGUE: &str = "\
SELECT string_agg(format('%s.%s.%s', table_schema, table_name, column_name), ' ' ORDER BY table_schema, table_name, ordinal_position)
  FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_shape_is_refused_by_name_before_anything_is_changed() {
    let wide = "uri text, cid text, author_did text, text text";
    for (table, columns, lacks) in [
        ("users", "id int, password text", "users (missing did, handle, display_name"),
        ("posts", "id int, title text, body text", "posts (missing "),
        ("posts", wide, "posts (missing commit_rev, commit_seq, "),
        ("likes", "user_id int, post_id int", "likes (missing "),
        ("follows", "follower_id int, followee_id int", "follows (missing "),
        ("messages", "id int, body text", "messages (missing "),
    ] {
        let url = penstock_local::testing::fresh_database().await.unwrap();
        let mut conn = PgConnection::connect(&url).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE TABLE {table} ({columns})"))).execute(&mut conn).await.unwrap();
        let before: String = sqlx::query_scalar(CATALOGUE).fetch_one(&mut conn).await.unwrap();
        let refused = schema::migrate(&url, true).await.unwrap_err();
        assert!(matches!(refused, SchemaError::Foreign(_)), "{table}: {refused}");
        let said = refused.to_string();
        assert!(said.contains(lacks) && said.contains("nothing was changed"), "{table}: {said}");
        let after: String = sqlx::query_scalar(CATALOGUE).fetch_one(&mut conn).await.unwrap();
        assert_eq!(before, after, "{table}");
        let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'penstock'";
        assert_eq!(sqlx::query_scalar::<_, i64>(schemas).fetch_one(&mut conn).await.unwrap(), 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_names_and_a_message_table_that_is_not_used_are_no_obstacle() {
    let url = penstock_local::testing::fresh_database().await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE invoices (id int); CREATE TABLE messages (id int)").execute(&mut conn).await.unwrap();
    schema::migrate(&url, false).await.unwrap();
    schema::migrate(&url, false).await.unwrap();
    assert!(matches!(schema::migrate(&url, true).await, Err(SchemaError::Foreign(_))));
}
