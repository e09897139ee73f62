//! Rows of the message buffer: in `messages` as the AppView has it, and of each its key in a table of our own.

use bytes::Bytes;
use sqlx::postgres::PgDatabaseError;

use super::connection::Store;
use super::error::{ApplyError, Fault};
use super::micros::Micros;
use super::transact::ATTEMPTS;

/// A row of `messages`.
#[derive(Clone, Debug)]
pub(crate) struct MessageRow {
    /// The message as it was queued.
    pub(crate) raw: Bytes,
    /// Its identity: the hash of the message, in hexadecimal.
    pub(crate) key: String,
    pub(crate) tracking_id: Option<String>,
    pub(crate) user_id: i32,
    pub(crate) channel_id: i32,
    pub(crate) content: String,
    pub(crate) created_at: Micros,
}

/// The second transaction on a key waits for the first, fails, and sees its rows on the next attempt. So a number is used up only where
/// two really meet: looking first spares the sequence.
///
/// `RETURNING` does not return the source's columns. Rows take their numbers in the order of their source, so the n-th least is that of
/// the n-th message. Keys are inserted in an order of their own, so that two batches with the same ones never wait for each other.
const INSERT: &str = "\
WITH queued AS (
  SELECT m.*, row_number() OVER (PARTITION BY m.dedupe_key ORDER BY m.place) AS nth
    FROM unnest($1::int[], $2::int[], $3::text[], $4::timestamp[], $5::text[], $6::text[])
      WITH ORDINALITY AS m (user_id, channel_id, content, created_at, tracking_id, dedupe_key, place)
), fresh AS MATERIALIZED (
  SELECT queued.* FROM queued
   WHERE nth = 1 AND NOT EXISTS (SELECT FROM penstock.message_keys AS stands WHERE stands.dedupe_key = queued.dedupe_key)
), written AS (
  INSERT INTO messages (user_id, channel_id, content, created_at)
  SELECT user_id, channel_id, content, created_at FROM fresh ORDER BY place
  RETURNING id
)
INSERT INTO penstock.message_keys (dedupe_key, tracking_id, message_id)
SELECT new.* FROM unnest(
    (SELECT array_agg(dedupe_key ORDER BY place) FROM fresh),
    (SELECT array_agg(tracking_id ORDER BY place) FROM fresh),
    (SELECT array_agg(id::bigint ORDER BY id) FROM written)
  ) AS new (dedupe_key, tracking_id, message_id)
 ORDER BY new.dedupe_key COLLATE \"C\"";

// === impl Store ===

impl Store {
    /// Inserts messages in one transaction; those that stand already are left alone. Returns how many were new.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub(crate) async fn insert_messages(&self, rows: &[MessageRow]) -> Result<u64, ApplyError> {
        let mut attempt = 1;
        let mut is_renewed = false;
        loop {
            match self.try_insert_messages(rows).await {
                Err(fault) if fault.is_race() && attempt < ATTEMPTS => attempt += 1,
                Err(fault) if fault.is_of_connection() && !is_renewed => is_renewed = true,
                // Others are that busy with the same messages: nothing is wrong with these.
                Err(fault) if is_of_our_keys(&fault) => return Err(Fault::Moved.into()),
                inserted => return Ok(inserted?),
            }
        }
    }

    async fn try_insert_messages(&self, rows: &[MessageRow]) -> Result<u64, Fault> {
        let mut conn = self.connection().await?;
        let query = sqlx::query(INSERT)
            .bind(rows.iter().map(|row| row.user_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.channel_id).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.content.as_str()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.created_at).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.tracking_id.as_deref()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>());
        let inserted = async {
            let mut tx = self.head.begin(&mut conn).await?;
            let inserted = query.execute(&mut *tx).await?;
            tx.commit().await?;
            Ok::<_, Fault>(inserted)
        };
        let inserted = self.in_time(inserted).await;
        Ok(conn.answered(inserted)?.rows_affected())
    }
}

/// Returns whether the fault is that one of Penstock's own keys existed already.
fn is_of_our_keys(fault: &Fault) -> bool {
    let Fault::Sql(error) = fault else { return false };
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    fault.is_race() && error.is_some_and(|error| error.schema() == Some("penstock"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use penstock_local::testing::fresh_database;
    use rand::seq::SliceRandom;

    use super::super::connection::StoreSettings;
    use super::*;

    async fn store() -> Store {
        let url = fresh_database().await.unwrap();
        crate::migrate(&url, true).await.unwrap();
        Store::connect(&StoreSettings::new(&url)).await.unwrap()
    }

    fn row(number: i32) -> MessageRow {
        MessageRow {
            raw: Bytes::new(),
            key: format!("{:08x}", number.wrapping_mul(-1_640_531_535)),
            tracking_id: (number % 7 != 0).then(|| format!("t{number}")),
            user_id: number,
            channel_id: 1,
            content: format!("message {number}"),
            created_at: Timestamp::UNIX_EPOCH.into(),
        }
    }

    /// Number, id and tracking ID of each message that has a key, in the order of their ids.
    async fn written(store: &Store) -> Vec<(i32, i64, Option<String>)> {
        let rows = "SELECT m.user_id, m.id, k.tracking_id FROM messages AS m JOIN penstock.message_keys AS k ON k.message_id = m.id ORDER BY m.id";
        sqlx::query_as(rows).fetch_all(store.pool()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_have_ids_in_their_order_and_each_key_is_that_of_its_row() {
        let store = store().await;
        let numbers: Vec<i32> = (1..=500).rev().collect();
        let rows: Vec<MessageRow> = numbers.iter().map(|number| row(*number)).collect();
        assert_eq!(store.insert_messages(&rows[..200]).await.unwrap(), 200);
        sqlx::raw_sql(
            "INSERT INTO messages (user_id, channel_id, content, created_at) VALUES (-1, 1, 'of somebody else', now())",
        )
        .execute(store.pool())
        .await
        .unwrap();
        // What stands already, what comes twice in one batch, and what is new.
        let again: Vec<MessageRow> = rows[100..].iter().chain(&rows[250..300]).cloned().collect();
        assert_eq!(store.insert_messages(&again).await.unwrap(), 300);
        assert_eq!(store.insert_messages(&again).await.unwrap(), 0);
        assert_eq!(store.insert_messages(&[]).await.unwrap(), 0);
        let written = written(&store).await;
        let at = |place: usize| (1 + place + usize::from(place >= 200)) as i64;
        let expected: Vec<_> =
            rows.iter().enumerate().map(|(place, row)| (row.user_id, at(place), row.tracking_id.clone())).collect();
        assert_eq!(written, expected, "and no number was used up");
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'penstock' AND table_name = 'message_keys' ORDER BY 1",
        )
        .fetch_all(store.pool())
        .await
        .unwrap();
        assert_eq!(columns, ["dedupe_key", "message_id", "tracking_id"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn writers_of_the_same_messages_write_each_once() {
        let store = store().await;
        let writers = (0..8).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut inserted = 0;
                for batch in 0..20 {
                    let mut rows: Vec<MessageRow> = (batch * 10..batch * 10 + 40).map(row).collect();
                    rows.shuffle(&mut rand::rng());
                    inserted += loop {
                        match store.insert_messages(&rows).await {
                            Ok(inserted) => break inserted,
                            Err(ApplyError::Retry { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                }
                inserted
            })
        });
        let mut inserted = 0;
        for writer in writers.collect::<Vec<_>>() {
            inserted += writer.await.unwrap();
        }
        let written = written(&store).await;
        assert_eq!((inserted, written.len()), (230, 230));
        assert_eq!(written.iter().map(|(number, ..)| *number).collect::<BTreeSet<_>>(), (0..230).collect());
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(store.pool()).await.unwrap();
        assert_eq!(rows, 230, "nothing without a key");
        for (number, _, tracking_id) in written {
            assert_eq!(tracking_id, row(number).tracking_id);
        }
    }
}
