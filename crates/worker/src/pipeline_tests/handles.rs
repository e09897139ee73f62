//! Handles that are resolved both ways, by a directory and a name server.

use super::bench::{Bench, eventually};
use super::web::{Names, Site, did};

async fn handles(bench: &Bench) -> Vec<String> {
    bench.texts("SELECT handle FROM users ORDER BY did").await
}

async fn identity(bench: &Bench, did: &str, hint: &str) {
    bench.add("identity", &serde_json::json!({"did": did, "handle": hint}).to_string(), "1").await;
}

/// Nobody waits in a test for the pauses between checks.
async fn pass(bench: &Bench) {
    let sql =
        "UPDATE penstock.handle_checks SET due = due - interval '1 hour', checked_at = checked_at - interval '1 hour'
                WHERE due > clock_timestamp() AND due < clock_timestamp() + interval '100 seconds'";
    bench.execute(sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_shown_where_it_leads_back_and_only_there() {
    let bench = Bench::new().await;
    let (directory, names) = (Site::start().await, Names::start().await);
    let (ada, eve, dns) = (did(0), did(1), names.address.to_string());
    directory.knows(&ada, Some("https://pds.test"), "ada.test");
    directory.knows(&eve, Some("https://pds.test"), "ada.test");
    names.set("ada.test", &ada);
    let settings = [
        ("identity.enabled", "true"),
        ("identity.allowedNetworks", "127.0.0.0/8"),
        ("identity.retryAfter", "1s"),
        ("identity.rate", "10000"),
        ("identity.plcUrl", &*directory.url),
        ("identity.dnsServer", &*dns),
    ];
    let worker = bench.start("w-0", &settings);
    identity(&bench, &ada, "bank.test").await;
    identity(&bench, &eve, "ada.test").await;
    eventually!(handles(&bench).await == ["ada.test", "handle.invalid"], "{:?}", handles(&bench).await);
    assert!(worker.metric(r#"penstock_worker_handle_checks_total{result="valid"}"#) >= 1.0);

    // It is given away: whoever has it now shows it, and the other one no longer.
    names.set("ada.test", &eve);
    pass(&bench).await;
    identity(&bench, &eve, "ada.test").await;
    eventually!(
        {
            pass(&bench).await;
            handles(&bench).await == ["handle.invalid", "ada.test"]
        },
        "{:?}",
        handles(&bench).await
    );
    directory.knows(&ada, Some("https://pds.test"), "new.test");
    names.set("new.test", &ada);
    eventually!(
        {
            pass(&bench).await;
            handles(&bench).await == ["new.test", "ada.test"]
        },
        "{:?}",
        handles(&bench).await
    );
    worker.stop().await.unwrap();
}
