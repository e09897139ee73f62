//! The dashboard behind a pooler that lends a session for each transaction, of whatever version.

use penstock_local::testing::{PgBouncerOptions, TestPgBouncer, TestPostgres};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::client::{administrate, get};
use super::{Dashboard, until};

const ROWS: &str = "
  CREATE TABLE public.messages (id bigserial PRIMARY KEY, user_id int NOT NULL, channel_id int NOT NULL, content text NOT NULL,
    created_at timestamp NOT NULL, inserted_at timestamp NOT NULL DEFAULT now());
  INSERT INTO public.messages (user_id, channel_id, content, created_at) SELECT n, 1, 'text ' || n, now() FROM generate_series(1, 5) AS n;
  INSERT INTO penstock.message_keys (dedupe_key, message_id) SELECT id::text, id FROM public.messages WHERE id <= 3;
  INSERT INTO posts (uri, cid, author_did, text, created_at)
    VALUES ('at://did:plc:a/app.bsky.feed.post/1', 'bafy1', 'did:plc:a', 'Hello', now());
  INSERT INTO penstock.dead_letters (orig_id, kind, data, seq, deliveries, error, consumer)
    SELECT '1700000000000-' || n, 'commit', '{}', n, 1, 'an error', 'w-0' FROM generate_series(0, 7) AS n";

/// Keeps the pooler's sessions changing hands, until dropped.
fn crowd(url: &str) -> tokio::task::JoinSet<()> {
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        crowd.spawn(async move {
            let mut conn = PgConnection::connect_with(&options.extra_float_digits(None)).await.unwrap();
            loop {
                sqlx::raw_sql("SELECT pg_sleep(0.002)").execute(&mut conn).await.unwrap();
            }
        });
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_letters_and_messages_are_read_and_changed_through_any_pooler_of_transactions() {
    for options in [PgBouncerOptions::newest(), PgBouncerOptions::old()].into_iter().flatten() {
        let shared = TestPostgres::shared().await.unwrap();
        let pooler = TestPgBouncer::start(shared, &options).await.unwrap();
        let (url, mut conn) = super::record::migrated().await;
        sqlx::raw_sql(ROWS).execute(&mut conn).await.unwrap();
        let through = pooler.through(&url);
        let _crowd = crowd(&through);
        let settings = [("postgres.url", &*through), ("messageBuffer.enabled", "true")];
        let (dashboard, _redis, _client) = Dashboard::with_redis(&settings).await;
        let address = dashboard.address;
        for _ in 0..10 {
            let found =
                get(address, "/api/events/record?uri=at%3A%2F%2Fdid%3Aplc%3Aa%2Fapp.bsky.feed.post%2F1").await.json();
            assert_eq!((&found["table"], &found["record"]["text"]), (&json!("posts"), &json!("Hello")), "{found}");
            let letters = get(address, "/api/dead-letters?limit=50").await.json();
            assert_eq!((&letters["total"], &letters["postgres"]), (&json!(8), &json!("listed")), "{letters}");
        }
        until("the tables are there", async || get(address, "/api/tables").await.json()["timestamp"].is_number()).await;
        until("postgresql is found", async || get(address, "/ready").await.json()["checks"]["database"] == "healthy")
            .await;
        let deleted = administrate(address, "DELETE", "/api/dead-letters/postgres/1700000000000-3").await;
        assert!(deleted.status < 300, "{}", deleted.body);
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM penstock.dead_letters WHERE settled_at IS NULL")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(letters, 7);
        let messages = get(address, "/messages?limit=10").await;
        assert_eq!(messages.status, 200, "{}", messages.body);
        let cleared = administrate(address, "DELETE", "/reset").await.json();
        assert_eq!(cleared["deleted_messages"], 3, "{cleared}");
        let _ = conn.close().await;
    }
}
