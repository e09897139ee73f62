//! What is left of a deleted account and cannot be removed.

use super::bench::{Bench, eventually};

const REFUSE: &str = "
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.user_did = 'did:plc:r0' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '57014'; END IF;
  RETURN OLD;
END $$;
CREATE TRIGGER refuse BEFORE DELETE ON likes FOR EACH ROW EXECUTE FUNCTION refuse();";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_ready_and_sweeps_others_while_one_account_cannot_be_swept() {
    let bench = Bench::new().await;
    bench.execute(REFUSE).await;
    let worker = bench.start("w-0", &[]);
    bench.add_likes(0..30, 3).await;
    eventually!(bench.rows("likes").await == 30);
    for repo in ["r0", "r1", "r2"] {
        let gone = format!(r#"{{"did":"did:plc:{repo}","active":false,"status":"deleted"}}"#);
        bench.add("account", &gone, "99").await;
    }
    eventually!(bench.rows("likes").await == 10);
    let failures = r#"penstock_worker_sweep_failures_total{reason="statement cancelled"}"#;
    eventually!(worker.metric(failures) >= 4.0);
    assert!(worker.health.is_ready());
    bench.execute("DROP TRIGGER refuse ON likes; UPDATE penstock.sweeps SET due = now()").await;
    let gone = r#"{"did":"did:plc:r1","active":false,"status":"deleted"}"#;
    bench.add("account", gone, "100").await;
    eventually!(bench.rows("likes").await == 0);
    worker.stop().await.unwrap();
}
