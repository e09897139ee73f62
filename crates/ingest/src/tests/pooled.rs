//! Ingest behind a pooler that lends a session for each transaction, of whatever version.

use fred::types::CustomCommand;
use penstock_local::testing::{PgBouncerOptions, TestPgBouncer, TestPostgres};

use super::lost::{TABLES, checkpoint};
use super::*;

const CURSOR: &str = "\
CREATE TABLE public.firehose_cursor (id serial PRIMARY KEY, service varchar(255) NOT NULL UNIQUE, cursor text,
  last_event_time timestamp, updated_at timestamp NOT NULL DEFAULT now())";

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
async fn the_checkpoint_is_read_and_the_appviews_cursor_kept_through_any_pooler_of_transactions() {
    for options in [PgBouncerOptions::newest(), PgBouncerOptions::old()].into_iter().flatten() {
        let shared = TestPostgres::shared().await.unwrap();
        let pooler = TestPgBouncer::start(shared, &options).await.unwrap();
        let url = shared.fresh_database().await.unwrap();
        let replay = penstock_replay::Settings { rate: Rate::PerSecond(1_000.try_into().unwrap()), ..replay(3_000) };
        let frames = frames(&replay);
        let address = serve(replay).await;
        let mut rig = Rig::new(address).await;
        let mut postgres = rig.set_database(&url, TABLES).await;
        sqlx::raw_sql(CURSOR).execute(&mut postgres).await.unwrap();
        rig.set("postgres.url", &pooler.through(&url));
        rig.set("ingest.appviewCursor", "true");
        let _crowd = crowd(&pooler.through(&url));
        let running = rig.start();
        eventually("events", async || running.progress.published() > 300).await;
        checkpoint(&mut postgres, &address.to_string(), 200, "1-0").await;
        let flush = CustomCommand::new_static("FLUSHALL", None, false);
        let _: String = rig.client.custom(flush, Vec::<String>::new()).await.unwrap();
        rig.reaches(3_000).await;
        running.stop().await;
        rig.holds_exactly(&frames[200..]).await;
        let kept = "SELECT cursor FROM public.firehose_cursor WHERE service = 'firehose'";
        let kept: String = sqlx::query_scalar(kept).fetch_one(&mut postgres).await.unwrap();
        assert_eq!(kept, "3000", "{options:?}");
    }
}
