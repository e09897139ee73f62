//! What somebody sees who operates the processes.

use crate::http;
use crate::rig::{Rig, eventually, relay};

#[tokio::test(flavor = "multi_thread")]
async fn every_service_answers_on_its_admin_address() {
    let (relay, recording) = relay(50).await;
    let rig = Rig::new().await;
    let services = [
        ("penstock_ingest_", rig.ingest(&relay)),
        ("penstock_worker_", rig.worker("w-1")),
        ("penstock_dashboard_", rig.start(&["dashboard"])),
    ];
    rig.ingested(recording.last).await;
    for (metrics_prefix, service) in services {
        let address = service.admin().await;
        eventually("it is ready", async || {
            http::get(address, "/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
        assert_eq!(http::json(address, "/healthz").await["status"], "ok");
        for (accept, is_open) in [("accept: */*", false), ("accept: application/openmetrics-text;version=1.0.0", true)]
        {
            let (status, metrics) = http::get_with(address, "/metrics", accept).await.unwrap();
            assert_eq!(status, 200);
            assert!(metrics.contains(&format!("\n{metrics_prefix}")), "{metrics}");
            assert_eq!(metrics.ends_with("# EOF\n"), is_open, "{metrics}");
        }
        let check = rig.run(&["healthcheck", &address.to_string()]).await;
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        let level = async |level: &[&str]| {
            let answer = rig.run(&[&["log-level", "--address", &address.to_string()], level].concat()).await;
            (answer.status.code(), String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned())
        };
        assert_eq!(level(&["debug"]).await, (Some(0), "debug\n".to_owned()));
        for (bad, why) in
            [("nonsense=", "has no level after its ="), ("info,penstock_injest=debug", "is no part of Penstock")]
        {
            let (code, said) = level(&[bad]).await;
            assert!(code == Some(64) && said.contains(why) && said.contains("info,penstock_ingest=debug"), "{said}");
        }
        assert_eq!(level(&[]).await, (Some(0), "debug\n".to_owned()), "the level stays");
        service.stop().await;
        let check = rig.run(&["healthcheck", &address.to_string()]).await;
        assert_eq!(check.status.code(), Some(1), "nobody is there any more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_tables_and_says_so() {
    let rig = Rig::without_tables().await;
    let worker = rig.worker("w-1");
    let address = worker.admin().await;
    eventually("it says what to do", async || {
        let (status, body) = http::get(address, "/readyz").await.unwrap();
        status == 503 && body.contains("penstock migrate")
    })
    .await;
    rig.migrate().await;
    eventually("it is ready", async || http::get(address, "/readyz").await.is_some_and(|(status, _)| status == 200))
        .await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_setting_is_named_with_its_value_masked_and_what_is_allowed() {
    let mut rig = Rig::without_tables().await;
    rig.set("REDIS_URL", "http://user:geheim@example.com");
    rig.set("DB_POOL_SIZE", "many");
    for service in ["ingest", "worker", "dashboard", "migrate"] {
        let refused = rig.run(&[service]).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(64), "{said}");
        for part in
            ["redis.url (REDIS_URL)", "example.com", "redis://", "postgres.poolSize (DB_POOL_SIZE)", "\"many\"", "2"]
        {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        assert!(!said.contains("geheim"), "{said}");
    }
}
