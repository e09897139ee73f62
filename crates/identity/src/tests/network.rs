//! Documents over the network: what is answered, badly answered, or not answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::json;

use super::web::{Reply, Web};
use super::*;
use crate::cache::KnownKey;

#[tokio::test]
async fn a_document_is_asked_for_once_and_then_known() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[]);
    assert_eq!(identities.known_key(DID), KnownKey::Unknown);
    let identity = identities.resolve(DID).await.unwrap();
    assert_eq!(key_of(&identity), K256);
    assert_eq!(identity.host.as_deref(), Some("https://pds.example.com"));
    assert_eq!(identity.handle.as_deref(), Some("alice.example.com"));
    assert_eq!(identities.known_key(DID), KnownKey::Key(identity.key.unwrap()));
    assert_eq!(identities.resolve(DID).await.unwrap().key, identity.key);
    assert_eq!(directory.asked(), [format!("/{DID}")]);
}

#[tokio::test]
async fn a_mirror_may_be_below_a_path() {
    let directory = full_directory().await;
    directory.answer(|_, path| {
        let did = path.strip_prefix("/mirror/plc/").unwrap_or("none");
        Reply::json(200, &document(did, P256, "https://pds.example.com", "alice.example.com"))
    });
    let url = format!("{}/mirror/plc/", directory.url());
    let identities = identities(&directory, &[("identity.plcUrl", &url)]);
    assert_eq!(key_of(&identities.resolve(DID).await.unwrap()), P256);
}

#[tokio::test]
async fn each_answer_has_its_verdict() {
    let directory = full_directory().await;
    let large = json!({"id": DID, "x": "x".repeat(70_000)});
    let encoded = Reply::Say(200, vec![("content-encoding", "gzip".into())], vec![0x1f, 0x8b, 8, 0]);
    let other = document(&did(1), K256, "https://pds.example.com", "a.b");
    for (reply, verdict) in [
        (Reply::text(404, "{\"message\":\"DID not registered\"}"), "not_found"),
        (Reply::text(410, "{\"message\":\"DID not available\"}"), "tombstoned"),
        (Reply::text(400, ""), "unreachable"),
        (Reply::text(403, ""), "unreachable"),
        (Reply::to(302, "http://169.254.169.254/latest/meta-data"), "unreachable"),
        (Reply::to(301, "https://example.com/"), "unreachable"),
        (Reply::text(200, "<html>"), "unreachable"),
        (Reply::text(204, ""), "unreachable"),
        (Reply::json(200, &other), "refused"),
        (Reply::json(200, &large), "refused"),
        (encoded, "refused"),
        (Reply::Endless, "refused"),
        (Reply::text(429, ""), "unreachable"),
        (Reply::text(500, ""), "unreachable"),
        (Reply::text(503, ""), "unreachable"),
        (Reply::Close, "unreachable"),
    ] {
        let told = format!("{reply:?}");
        directory.answer(move |_, _| reply.clone());
        let identities = identities(&directory, &[]);
        let before = directory.hits();
        let error = identities.resolve(DID).await.unwrap_err();
        assert_eq!(error.word(), verdict, "{}: {error}", &told[..told.len().min(60)]);
        assert_eq!(error.is_final(), verdict != "unreachable");
        // What was answered is remembered, and a directory that fails is left alone.
        assert_eq!(identities.resolve(DID).await.unwrap_err().word(), verdict);
        assert_eq!(directory.hits(), before + 1, "{}", &told[..told.len().min(60)]);
    }
}

#[tokio::test]
async fn a_did_that_cannot_exist_is_not_asked_for() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[]);
    for did in [
        "did:plc:short",
        "did:key:zQ3sh",
        "did:web:127.0.0.1",
        "did:web:a.com:b",
        "",
        "did:plc:../../etc/passwd.......",
    ] {
        assert!(refused(identities.resolve(did).await).starts_with("the DID "), "{did}");
    }
    assert_eq!(directory.hits(), 0);
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_timeout() {
    let directory = full_directory().await;
    for reply in [Reply::Drip, Reply::Hang] {
        directory.answer(move |_, _| reply.clone());
        let identities = identities(&directory, &[("identity.timeout", "300ms")]);
        let error = identities.resolve(DID).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let directory = full_directory().await;
    directory.answer(|_, _| Reply::Say(429, vec![("retry-after", "3000".into())], Vec::new()));
    let identities = identities(&directory, &[("identity.retryAfter", "50ms")]);
    assert_eq!(identities.resolve(DID).await.unwrap_err().word(), "unreachable");
    directory.answer(|_, _| Reply::text(404, ""));
    // Many times as long as without the header.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let error = identities.resolve(DID).await.unwrap_err();
    assert!(error.to_string().contains("left alone for"), "{error}");
    assert_eq!(directory.hits(), 1);
}

#[tokio::test]
async fn a_directory_that_is_down_is_found_again() {
    let mut directory = full_directory().await;
    let identities = identities(&directory, &[("identity.retryAfter", "50ms"), ("identity.maxAge", "1s")]);
    identities.resolve(DID).await.unwrap();
    directory.stop().await;
    let error = identities.resolve(&did(1)).await.unwrap_err();
    assert!(!error.is_final(), "{error}");
    // What is only old is good enough meanwhile; what is known to have changed is not.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(key_of(&identities.resolve(DID).await.unwrap()), K256);
    identities.invalidate(DID).await;
    assert_eq!(identities.known_key(DID), KnownKey::Unknown);
    assert!(!identities.resolve(DID).await.unwrap_err().is_final());
    directory.restart().await;
    eventually(async || identities.resolve(&did(1)).await.is_ok()).await;
    eventually(async || identities.resolve(DID).await.is_ok()).await;
}

#[tokio::test]
async fn what_does_not_exist_is_asked_for_again_later() {
    let directory = full_directory().await;
    directory.answer(|_, _| Reply::text(404, ""));
    let identities = identities(&directory, &[("identity.retryAfter", "200ms")]);
    assert_eq!(identities.resolve(DID).await, Err(ResolveError::NotFound));
    assert_eq!(identities.resolve(DID).await, Err(ResolveError::NotFound));
    directory
        .answer(|_, path| Reply::json(200, &document(path.trim_start_matches('/'), P256, "https://a.com", "a.com")));
    eventually(async || identities.resolve(DID).await.is_ok()).await;
}

#[tokio::test]
async fn many_that_ask_for_one_did_ask_once() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[]);
    let asking = (0..100).map(|_| identities.resolve(DID));
    for identity in join_all(asking).await {
        assert_eq!(key_of(&identity.unwrap()), K256);
    }
    assert_eq!(directory.hits(), 1);
}

#[tokio::test]
async fn who_does_not_wait_any_longer_stops_nobody() {
    let directory = full_directory().await;
    directory.answer(|_, _| Reply::Hang);
    let identities = identities(&directory, &[("identity.timeout", "5s"), ("identity.retryAfter", "50ms")]);
    let first = tokio::spawn({
        let identities = identities.clone();
        async move { identities.resolve(DID).await }
    });
    eventually(async || directory.hits() == 1).await;
    let second = tokio::spawn({
        let identities = identities.clone();
        async move { identities.resolve(DID).await }
    });
    first.abort();
    // It ends as the request does, not with whoever began it.
    assert_eq!(second.await.unwrap().unwrap_err().word(), "unreachable");
    assert_eq!(directory.hits(), 1);
}

#[tokio::test]
async fn a_change_that_is_told_while_it_is_asked_for_is_not_lost() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[("identity.retryAfter", "50ms")]);
    let asked = AtomicUsize::new(0);
    directory.answer({
        let identities = identities.clone();
        move |_, _| {
            // The first answer is made before the change, and comes after word of it.
            let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            if is_first {
                identities.invalidate(DID).now_or_never().unwrap();
            }
            Reply::json(200, &document(DID, if is_first { P256 } else { K256 }, "https://a.com", "a.com"))
        }
    });
    assert_eq!(key_of(&identities.resolve(DID).await.unwrap()), K256);
    assert!(matches!(identities.known_key(DID), KnownKey::Key(_)));
    assert_eq!(directory.hits(), 2);
}

#[tokio::test]
async fn an_account_that_says_all_the_time_that_it_changed_is_waited_for_a_few_times_only() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[]);
    identities.resolve(DID).await.unwrap();
    let began = Instant::now();
    for _ in 0..2_000 {
        identities.invalidate(DID).await;
        assert_eq!(key_of(&identities.resolve(DID).await.unwrap()), K256);
    }
    // A few at once, and then one a second, however slow this machine is.
    let most = 10 + began.elapsed().as_secs();
    let hits = u64::try_from(directory.hits()).unwrap();
    assert!((8..=most).contains(&hits), "{hits} of {most}");
    // What it changed in the end is known a second later.
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://a.com", "a.com")));
    identities.invalidate(DID).await;
    eventually(async || key_of(&identities.resolve(DID).await.unwrap()) == P256).await;
}

#[tokio::test]
async fn a_wrong_signature_refreshes_once_in_a_while() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[("identity.retryAfter", "5s")]);
    identities.resolve(DID).await.unwrap();
    assert_eq!(identities.refresh_after_failure(DID).await, Ok(None));
    directory.answer(|_, _| Reply::json(200, &document(DID, P256, "https://a.com", "a.com")));
    eventually(async || {
        identities.refresh_after_failure(DID).await.unwrap().is_some_and(|identity| key_of(&identity) == P256)
    })
    .await;
    assert_eq!(identities.refresh_after_failure(DID).await, Ok(None));
    assert_eq!(directory.hits(), 2);
}

#[tokio::test]
async fn several_are_resolved_in_their_order() {
    let directory = full_directory().await;
    directory.answer(|_, path| match path.trim_start_matches('/') {
        "did:plc:aaaaaaaaaaaaaaaaaaaaaaad" => Reply::text(404, ""),
        did => Reply::json(200, &document(did, P256, "https://a.com", "a.com")),
    });
    let identities = identities(&directory, &[]);
    let dids: Vec<String> = (0..200).map(did).collect();
    let asked: Vec<&str> = dids.iter().map(String::as_str).chain([dids[5].as_str(), "did:nothing"]).collect();
    let resolved = identities.resolve_many(&asked).await;
    assert_eq!(resolved.len(), 202);
    for (at, (did, identity)) in asked.iter().zip(&resolved).enumerate() {
        match identity {
            Ok(identity) => assert_eq!(&*identity.did, *did),
            Err(error) => assert!(matches!((at, error.word()), (3, "not_found") | (201, "refused")), "{at}: {error}"),
        }
    }
    assert_eq!(directory.hits(), 200);
}

#[tokio::test]
async fn no_more_is_asked_than_the_rate_allows() {
    let directory = full_directory().await;
    let identities = identities(&directory, &[("identity.rate", "20")]);
    let since = Instant::now();
    let dids: Vec<String> = (0..11).map(did).collect();
    let resolved = join_all(dids.iter().map(|did| identities.resolve(did))).await;
    assert!(resolved.iter().all(Result::is_ok), "{resolved:?}");
    // Ten pauses of 50 ms; slower is no mistake.
    assert!(since.elapsed() >= Duration::from_millis(490), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_slow_host_costs_nobody_else() {
    let directory = full_directory().await;
    let slow = Web::start(|_, _| Reply::Hang).await;
    let identities = identities(&directory, &[("identity.allowedNetworks", "127.0.0.0/8")]);
    let url = slow.url();
    directory.answer(move |_, path| Reply::json(200, &document(path.trim_start_matches('/'), P256, &url, "a.com")));
    let hanging = tokio::spawn({
        let identities = identities.clone();
        let dids: Vec<String> = (1_000..1_050).map(did).collect();
        async move { join_all(dids.iter().map(|did| identities.repo_status(did))).await }
    });
    eventually(async || slow.hits() > 0).await;
    let dids: Vec<String> = (0..100).map(did).collect();
    let dids: Vec<&str> = dids.iter().map(String::as_str).collect();
    assert!(identities.resolve_many(&dids).await.iter().all(Result::is_ok));
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test]
async fn the_status_of_an_account_is_its_present_hosts() {
    let directory = full_directory().await;
    let host = Web::start(|_, _| Reply::Close).await;
    let url = host.url();
    directory.answer(move |_, path| Reply::json(200, &document(path.trim_start_matches('/'), P256, &url, "a.com")));
    let active = || RepoStatus::Active { rev: Some("3l3qo2vutsw2b".into()) };
    let inactive = |status: Option<&str>| RepoStatus::Inactive { status: status.map(Box::from), rev: None };
    for (reply, expected) in [
        (Reply::json(200, &json!({"did": DID, "active": true, "rev": "3l3qo2vutsw2b", "odd": 1})), Ok(active())),
        (
            Reply::json(200, &json!({"did": DID, "active": false, "status": "takendown"})),
            Ok(inactive(Some("takendown"))),
        ),
        (Reply::json(200, &json!({"did": DID, "active": false})), Ok(inactive(None))),
        (Reply::json(400, &json!({"error": "RepoNotFound", "message": "x"})), Ok(RepoStatus::NotFound)),
        (Reply::json(404, &json!({"error": "RepoNotFound"})), Ok(RepoStatus::NotFound)),
        (Reply::json(400, &json!({"error": "InvalidRequest"})), Err("refused")),
        (Reply::text(404, "not found"), Err("refused")),
        (Reply::json(200, &json!({"did": did(7), "active": false})), Err("refused")),
        (Reply::json(200, &json!({"did": DID})), Err("refused")),
        (Reply::to(302, "http://127.0.0.1/"), Err("refused")),
        (Reply::Endless, Err("refused")),
        (Reply::text(501, ""), Err("unreachable")),
        (Reply::Close, Err("unreachable")),
    ] {
        let told = format!("{reply:?}");
        host.answer(move |_, _| reply.clone());
        let identities = identities(&directory, &[("identity.allowedNetworks", "127.0.0.1")]);
        let status = identities.repo_status(DID).await;
        assert_eq!(status.as_ref().map_err(ResolveError::word), expected.as_ref().map_err(|word| *word), "{told}");
    }
    assert_eq!(host.asked()[0], format!("/xrpc/com.atproto.sync.getRepoStatus?did={DID}"));
    // Who moved is asked for where it is now: a document older than a retry is not enough.
    let other = Web::start(|_, _| Reply::json(200, &json!({"did": DID, "active": true}))).await;
    host.answer(|_, _| Reply::json(200, &json!({"did": DID, "active": false, "status": "deactivated"})));
    let identities =
        identities(&directory, &[("identity.allowedNetworks", "127.0.0.1"), ("identity.retryAfter", "100ms")]);
    assert_eq!(identities.repo_status(DID).await, Ok(inactive(Some("deactivated"))));
    let url = other.url();
    directory.answer(move |_, _| Reply::json(200, &document(DID, P256, &url, "a.com")));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(identities.repo_status(DID).await, Ok(RepoStatus::Active { rev: None }));
}
