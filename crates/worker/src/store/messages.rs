//! Rows of the message buffer.

use super::error::Fault;
use super::{ATTEMPTS, ApplyError, Store};
use crate::messages::Row;

// Looking first spares the sequence: what is written once more would take a number each time.
const INSERT: &str = "\
INSERT INTO messages (user_id, channel_id, content, created_at, tracking_id, dedupe_key)
SELECT m.user_id, m.channel_id, m.content, m.created_at, m.tracking_id, m.dedupe_key
  FROM unnest($1::int[], $2::int[], $3::text[], $4::timestamp[], $5::text[], $6::text[])
    WITH ORDINALITY AS m (user_id, channel_id, content, created_at, tracking_id, dedupe_key, place)
 WHERE NOT EXISTS (SELECT FROM messages AS stands WHERE stands.dedupe_key = m.dedupe_key)
 ORDER BY m.place
ON CONFLICT (dedupe_key) DO NOTHING";

// === impl Store ===

impl Store {
    /// Inserts messages in one transaction; those that stand already are left alone. Returns how many were new.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub(crate) async fn insert_messages(&self, rows: &[Row]) -> Result<u64, ApplyError> {
        let mut attempt = 1;
        loop {
            match self.try_insert_messages(rows).await {
                Err(fault) if fault.is_race() && attempt < ATTEMPTS => attempt += 1,
                inserted => return Ok(inserted?),
            }
        }
    }

    async fn try_insert_messages(&self, rows: &[Row]) -> Result<u64, Fault> {
        let mut conn = self.connection().await?;
        let query = sqlx::query(INSERT)
            .bind(rows.iter().map(|row| row.user_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.channel_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.content.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.created_at).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.tracking_id.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>());
        let inserted = self.in_time(query.execute(&mut *conn)).await;
        Ok(conn.answered(inserted)?.rows_affected())
    }
}
