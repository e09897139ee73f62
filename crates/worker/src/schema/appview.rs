//! What of the AppView's schema is made apart from the migrations.

use sqlx::{Executor, PgConnection};

/// The table of the message system, which shares no database with an AppView: its schema tool would not know it.
const MESSAGES: &str = "\
CREATE TABLE IF NOT EXISTS messages (
  id bigserial PRIMARY KEY,
  user_id int NOT NULL,
  channel_id int NOT NULL,
  content text NOT NULL,
  created_at timestamp NOT NULL,
  inserted_at timestamp NOT NULL DEFAULT now()
)";

/// What 0.1 called otherwise, or made otherwise.
const INDEXES: &str = include_str!("indexes.sql");

/// Makes the table of the message system where it is missing.
pub(super) async fn messages(conn: &mut PgConnection) -> sqlx::Result<()> {
    conn.execute(MESSAGES).await.map(drop)
}

/// Gives the tables that an older version made the indexes that the AppView's schema tool wants there.
///
/// Who writes such a table waits while an index is built; cut off, it goes on where it was.
pub(super) async fn indexes(conn: &mut PgConnection) -> sqlx::Result<()> {
    for block in INDEXES.split("\n\n") {
        conn.execute(sqlx::raw_sql(block)).await?;
    }
    Ok(())
}
