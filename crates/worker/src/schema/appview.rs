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

/// Makes the table of the message system where it is missing.
pub(super) async fn messages(conn: &mut PgConnection) -> sqlx::Result<()> {
    conn.execute(MESSAGES).await.map(drop)
}
