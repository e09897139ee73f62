//! What of the AppView's schema is made apart from the migrations.

use sqlx::PgConnection;

use super::locks::{Step, Wait, patiently};

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
pub(super) async fn messages(conn: &mut PgConnection) -> Step<()> {
    patiently(conn, Wait::Table, "messages", MESSAGES).await.map(drop)
}
