//! Whole backfills.

use penstock_core::backfill::{BackfillRequest, BackfillState, Reason, Scope};
use penstock_core::settings::{Layers, Settings};
use penstock_heal::{PutError, Routes};
use penstock_repo::testing::{MadeRepo, Reply, did};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{REV, Rig, Running};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_read_once_and_its_rows_are_as_its_host_has_them() {
    let rig = Rig::new().await;
    let dids = rig.host(7, 12);
    let engine = rig.engine(&[]).await;
    let listed: Vec<&str> = dids.iter().map(String::as_str).collect();
    engine.queue().enqueue(&listed, Reason::Sync).await.unwrap();
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM posts").await, 7 * 12);
    assert_eq!(
        rig.count("SELECT count(*) FROM penstock.repos WHERE proven_at IS NOT NULL AND proven_rev = rev").await,
        7
    );
    for did in &dids {
        assert_eq!(rig.world.hits("com.atproto.sync.getRepo", did), 1, "{did}");
    }
    rig.assert_equal(&dids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_lists_its_repos_and_ends_with_their_counts() {
    let rig = Rig::new().await;
    let dids = rig.host(9, 3);
    rig.world.put(MadeRepo::new(&did(100), REV));
    let engine = rig.engine(&[]).await;
    let posts = BackfillRequest::new(Scope::Collection("app.bsky.feed.post".to_owned()));
    let all = BackfillRequest::new(Scope::All(true));
    assert_eq!(engine.backfills().put("posts", posts.clone()).await.unwrap().state, BackfillState::Listing);
    let running = Running::start(&engine);
    let status = rig.over_with(&engine, "posts").await;
    assert_eq!((status.state, status.total, status.done), (BackfillState::Complete, Some(9), 9), "{status:?}");
    assert_eq!((status.failed, status.records, status.waiting), (0, 27, 0), "{status:?}");
    engine.backfills().put("all", all.clone()).await.unwrap();
    let status = rig.over_with(&engine, "all").await;
    assert_eq!((status.total, status.done, status.failed), (Some(10), 10, 0), "the empty one too: {status:?}");
    running.stop().await;
    rig.assert_equal(&dids).await;
    // The same name for something else is refused; the same again changes nothing of what is complete.
    assert!(matches!(engine.backfills().put("all", posts).await, Err(PutError::Exists { field: "scope", .. })));
    assert_eq!(engine.backfills().put("all", all).await.unwrap().state, BackfillState::Complete);
    assert!(engine.backfills().delete("all").await.unwrap() && !engine.backfills().delete("all").await.unwrap());
}

/// Of a host that offers no CAR the records are listed, and no signature proves them.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_signature_proves_is_written_unless_only_what_is_proven_is_wanted() {
    let rig = Rig::new().await;
    let dids = rig.host(2, 3);
    let carless = dids[0].clone();
    rig.world.meddle(move |asked| {
        let is_it = asked.method() == "com.atproto.sync.getRepo" && asked.parameter("did") == Some(&carless);
        is_it.then(|| Reply::error(501, "MethodNotImplemented"))
    });
    let engine = rig.engine(&[]).await;
    let running = Running::start(&engine);
    let all = BackfillRequest { verify: true, ..BackfillRequest::new(Scope::All(true)) };
    assert!(engine.backfills().put("proven", all).await.unwrap().verify);
    let status = rig.over_with(&engine, "proven").await;
    assert_eq!((status.done, status.failed), (1, 1), "{status:?}");
    assert_eq!(rig.count("SELECT count(*) FROM posts").await, 3);
    let failures = engine.backfills().failures("proven", 9).await.unwrap();
    assert_eq!((failures[0].0.as_str(), failures[0].1.as_str()), (dids[0].as_str(), "unproven"), "{failures:?}");
    engine.backfills().put("all", BackfillRequest::new(Scope::All(true))).await.unwrap();
    let status = rig.over_with(&engine, "all").await;
    assert_eq!((status.done, status.failed, status.verify), (2, 0, false), "{status:?}");
    running.stop().await;
    assert_eq!(rig.count("SELECT count(*) FROM posts").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repo_that_is_cut_off_in_the_middle_goes_on_and_is_whole_in_the_end() {
    let rig = Rig::new().await;
    let dids = rig.host(1, 6_000);
    let flags = [("heal.leaseTime", "2s")];
    let engine = rig.engine(&flags).await;
    engine.queue().enqueue(&[&dids[0]], Reason::Chain).await.unwrap();
    let running = Running::start(&engine);
    rig.until("SELECT count(*) > 0 FROM penstock.repairs WHERE progress IS NOT NULL").await;
    running.crash().await;
    let written: String = sqlx::query_scalar("SELECT coalesce(max(progress ->> 'after'), '') FROM penstock.repairs")
        .fetch_one(rig.store.pool())
        .await
        .unwrap();
    let running = Running::start(&rig.engine(&flags).await);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    assert!(!written.is_empty());
    assert_eq!(rig.count("SELECT count(*) FROM posts").await, 6_000);
    rig.assert_equal(&dids).await;
    assert!(rig.count("SELECT count(*) FROM penstock.repos WHERE proven_rev IS NOT NULL").await == 1);
}

/// A crash of PostgreSQL takes back ranges whose commits waited for no disk, and the healer that wrote them may have gone on behind them.
#[tokio::test(flavor = "multi_thread")]
async fn a_repo_whose_ranges_are_gone_again_is_read_from_its_beginning() {
    let rig = Rig::new().await;
    let dids = rig.host(1, 700);
    let engine = rig.engine(&[("heal.retryMin", "10ms")]).await;
    engine.queue().enqueue(&[&dids[0]], Reason::Chain).await.unwrap();
    let progress = format!(
        r#"{{"rev": "{REV}", "started": "1700000000000-0", "after": "app.bsky.feed.post/zzzzzzzzzzzzz", "records": 700}}"#
    );
    sqlx::query("UPDATE penstock.repairs SET progress = $1::jsonb")
        .bind(progress)
        .execute(rig.store.pool())
        .await
        .unwrap();
    let running = Running::start(&engine);
    rig.until("SELECT count(*) = 0 FROM penstock.repairs").await;
    running.stop().await;
    rig.assert_equal(&dids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_do_what_the_table_says_for_whoever_shows_the_token() {
    let rig = Rig::new().await;
    rig.host(2, 1);
    let engine = rig.engine(&[]).await;
    let layers = Layers::default().flag("heal.adminToken", "right");
    let routes = Routes::new(&Settings::load(&layers).unwrap().heal);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, routes.router()).into_future());
    let ask = async |method: &str, path: &str, token: &str, body: &str| -> (u16, Value) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
    };
    assert_eq!(ask("GET", "/backlog", "right", "").await.0, 503, "no database yet");
    routes.open(engine.clone());
    for token in ["", "wrong", "right "] {
        assert_eq!(ask("GET", "/backlog", &format!("{token}x"), "").await.0, 401, "{token}");
    }
    let body = r#"{"scope":{"all":true},"rate":100,"suspend":true}"#;
    let (status, answer) = ask("PUT", "/backfills/ns/all", "right", body).await;
    assert_eq!((status, &answer["state"], &answer["name"]), (200, &"paused".into(), &"ns/all".into()), "{answer}");
    assert_eq!(ask("PUT", "/backfills/ns/all", "right", r#"{"scope":{"collection":"a.b.c"}}"#).await.0, 409);
    let (status, answer) = ask("PUT", "/backfills/x", "right", r#"{"scope":{"all":true},"rate":-1}"#).await;
    assert!(status == 400 && answer["error"].as_str().unwrap().contains("rate"), "{answer}");
    let (_, backlog) = ask("GET", "/backlog", "right", "").await;
    assert_eq!(backlog["backfills"], 0, "{backlog}");
    let (status, _) = ask("PUT", "/backfills/ns/all", "right", r#"{"scope":{"all":true}}"#).await;
    assert_eq!(status, 200);
    let running = Running::start(&engine);
    rig.over_with(&engine, "ns/all").await;
    running.stop().await;
    let (_, answer) = ask("GET", "/backfills/ns/all", "right", "").await;
    assert_eq!((&answer["state"], &answer["done"]), (&"complete".into(), &2.into()), "{answer}");
    assert_eq!(ask("DELETE", "/backfills/ns/all", "right", "").await.0, 204);
    assert_eq!(ask("GET", "/backfills/ns/all", "right", "").await.0, 404);
    server.abort();
}
