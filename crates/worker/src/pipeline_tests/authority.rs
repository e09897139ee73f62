//! Accounts that are said to be gone, and what their hosts say: a worker, a directory, hosts that answer, fail and keep silent.

use serde_json::json;

use super::bench::{Bench, commit, custom_op, eventually};
use super::web::{Site, did, path_of_status};

/// What a worker is told besides where the directory is.
const SETTINGS: [(&str, &str); 6] = [
    ("identity.enabled", "true"),
    ("identity.allowedNetworks", "127.0.0.0/8"),
    ("identity.retryAfter", "50ms"),
    ("identity.rate", "10000"),
    ("identity.timeout", "2s"),
    ("worker.deleteGrace", "24h"),
];

fn settings(directory: &Site) -> Vec<(&str, &str)> {
    SETTINGS.into_iter().chain([("identity.plcUrl", &*directory.url)]).collect()
}

/// Adds an account with one record.
async fn add_account(bench: &Bench, did: &str, number: usize) {
    let name = did.trim_start_matches("did:plc:");
    bench.add("commit", &commit(name, "3kaaaaaaaaaaa", &[custom_op(number, false)]), "1").await;
}

async fn says_gone(bench: &Bench, did: &str, status: &str) {
    let event = json!({"did": did, "active": false, "status": status});
    bench.add("account", &event.to_string(), "2").await;
}

/// Who still has rows, and what is said of whom.
async fn with_rows(bench: &Bench) -> Vec<String> {
    bench.texts("SELECT author_did FROM generic_records ORDER BY 1").await
}

async fn said(bench: &Bench, did: &str) -> String {
    let all = bench
        .texts("SELECT did || ' ' || coalesce(active::text, '-') || ' ' || coalesce(status, '-') FROM penstock.repos")
        .await;
    all.iter().find_map(|row| row.strip_prefix(&format!("{did} "))).unwrap_or_default().to_owned()
}

async fn pass(bench: &Bench) {
    bench
        .execute(
            "UPDATE penstock.account_claims SET since = since - interval '25 hours', due = due - interval '25 hours'",
        )
        .await;
}

async fn claims(bench: &Bench, which: &str) -> i64 {
    bench.rows(&format!("penstock.account_claims WHERE {which}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_gone_where_its_present_host_says_so_and_nowhere_else() {
    let bench = Bench::new().await;
    let (directory, old, new) = (Site::start().await, Site::start().await, Site::start().await);
    // Per account: what is claimed, what is said of it at first, and after the grace, and whether its rows are there then.
    let cases = [
        ("deleted", "true -", "true -", true, "it moved, and the old host says so"),
        ("deleted", "false deleted", "false deleted", false, "its host knows it no longer"),
        ("deleted", "false deleted", "false deleted", false, "its host says that it is deleted"),
        ("deleted", "- -", "false deleted", true, "its host fails"),
        ("deleted", "- -", "false deleted", true, "its host keeps silent"),
        ("deleted", "false deleted", "false deleted", false, "its identity was ended"),
        ("deleted", "- -", "false deleted", true, "the directory does not know it"),
        ("deleted", "false deactivated", "false deactivated", true, "its host says that it is deactivated"),
        ("deleted", "- -", "false deleted", true, "it has no host"),
        ("takendown", "false takendown", "false takendown", true, "its host says the same"),
        ("deactivated", "true -", "true -", true, "it moved, and was deactivated at the old host"),
        ("deleted", "- -", "false deleted", true, "nobody listens where its host was"),
        (
            "deactivated",
            "false deactivated",
            "false deactivated",
            true,
            "its host knows it no longer, and it was not deleted",
        ),
    ];
    let dids: Vec<String> = (0..13).map(did).collect();
    for did in &dids {
        directory.knows(did, Some(&new.url), "a.test");
        old.says(&path_of_status(did), 400, json!({"error": "RepoNotFound", "message": "gone"}));
    }
    new.has(&dids[0], true, None);
    new.says(&path_of_status(&dids[1]), 400, json!({"error": "RepoNotFound", "message": "gone"}));
    new.has(&dids[2], false, Some("deleted"));
    new.says(&path_of_status(&dids[3]), 500, json!({"error": "InternalServerError"}));
    new.hangs(&path_of_status(&dids[4]));
    directory.says(&format!("/{}", dids[5]), 410, json!({"message": "DID not available"}));
    directory.says(&format!("/{}", dids[6]), 404, json!({"message": "DID not registered"}));
    new.has(&dids[7], false, Some("deactivated"));
    directory.knows(&dids[8], None, "a.test");
    new.has(&dids[9], false, Some("takendown"));
    new.has(&dids[10], true, None);
    directory.knows(&dids[11], Some("http://127.0.0.1:1"), "a.test");
    new.says(&path_of_status(&dids[12]), 400, json!({"error": "RepoNotFound", "message": "gone"}));
    // A host that fails is left alone for a while: at first that one is asked only about those whom it has something to say of.
    for at in [3, 4] {
        directory.says(&format!("/{}", dids[at]), 404, json!({"message": "DID not registered"}));
    }

    let settings = settings(&directory);
    let worker = bench.start("w-0", &settings);
    for (at, did) in dids.iter().enumerate() {
        add_account(&bench, did, at).await;
        says_gone(&bench, did, cases[at].0).await;
    }
    // Three deletions that are confirmed wait, and of five nobody knows.
    let settled = "confirmed_at IS NOT NULL";
    eventually!(
        claims(&bench, settled).await == 3 && claims(&bench, "confirmed_at IS NULL").await == 5,
        "{:?}",
        bench.texts("SELECT did || coalesce(error, '') FROM penstock.account_claims").await
    );
    for (did, (_, first, _, _, why)) in dids.iter().zip(cases) {
        assert_eq!(said(&bench, did).await, first, "{why}");
    }
    assert_eq!(with_rows(&bench).await.len(), dids.len(), "nobody loses anything at once");
    assert!(worker.metric(r#"penstock_worker_account_claims_total{result="denied"}"#) >= 3.0);
    assert!(worker.health.is_ready());
    worker.crash().await;

    // Now it is known where they are, and their host fails or keeps silent.
    for at in [3, 4] {
        directory.knows(&dids[at], Some(&new.url), "a.test");
    }
    pass(&bench).await;
    let worker = bench.start("w-1", &settings);
    eventually!(with_rows(&bench).await.len() == dids.len() - 3);
    eventually!(claims(&bench, "hidden").await == 5);
    for (did, (_, _, second, stays, why)) in dids.iter().zip(cases) {
        assert_eq!(said(&bench, did).await, second, "{why}");
        assert_eq!(with_rows(&bench).await.contains(did), stays, "{why}");
    }
    // The one that kept silent is back, and has the account; the other one says that it is gone.
    new.has(&dids[4], true, None);
    new.says(&path_of_status(&dids[3]), 400, json!({"error": "RepoNotFound", "message": "gone"}));
    pass(&bench).await;
    eventually!(said(&bench, &dids[4]).await == "true -");
    eventually!(!with_rows(&bench).await.contains(&dids[3]));
    assert!(with_rows(&bench).await.contains(&dids[4]));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_came_back_is_asked_about_no_more_and_keeps_its_rows() {
    let bench = Bench::new().await;
    let (directory, host) = (Site::start().await, Site::start().await);
    let account = did(0);
    directory.knows(&account, Some(&host.url), "a.test");
    host.says(&path_of_status(&account), 400, json!({"error": "RepoNotFound", "message": "gone"}));
    let settings = settings(&directory);
    let worker = bench.start("w-0", &settings);
    add_account(&bench, &account, 1).await;
    says_gone(&bench, &account, "deleted").await;
    eventually!(said(&bench, &account).await == "false deleted");
    bench.add("account", &json!({"did": account, "active": true}).to_string(), "3").await;
    eventually!(said(&bench, &account).await == "true -");
    assert_eq!((claims(&bench, "true").await, with_rows(&bench).await.len()), (0, 1));
    worker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_claims_of_a_host_that_keeps_silent_delay_no_other() {
    let bench = Bench::new().await;
    let (directory, silent, host) = (Site::start().await, Site::start().await, Site::start().await);
    for n in 0..200 {
        directory.knows(&did(n), Some(&silent.url), "a.test");
        silent.hangs(&path_of_status(&did(n)));
        says_gone(&bench, &did(n), "deleted").await;
    }
    let account = did(200);
    directory.knows(&account, Some(&host.url), "a.test");
    host.has(&account, false, Some("deactivated"));
    says_gone(&bench, &account, "deactivated").await;
    let mut settings = settings(&directory);
    // The others alone would take an hour.
    settings.push(("identity.timeout", "20s"));
    let worker = bench.start("w-0", &settings);
    eventually!(bench.rows("penstock.repos").await == 201 && said(&bench, &account).await == "false deactivated");
    assert!(claims(&bench, "confirmed_at IS NULL").await == 200);
    worker.stop().await.unwrap();
}
