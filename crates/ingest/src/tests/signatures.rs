//! Signatures, against a directory that serves the keys of a replay.

use penstock_replay::Signing;

use super::*;

/// Commits of one loop of the recording.
const COMMITS: u64 = 493;

fn signed() -> penstock_replay::Settings {
    penstock_replay::Settings { signing: Some(Signing::Both), directory: true, ..replay(583) }
}

async fn rig(relay: SocketAddr, directory: SocketAddr, more: &[(&'static str, &str)]) -> Rig {
    let mut rig = Rig::new(relay).await;
    for (path, value) in [
        ("verify.mode", "enforce"),
        ("verify.signatures", "enforce"),
        ("identity.enabled", "true"),
        ("identity.plcUrl", &*format!("http://{directory}")),
        ("identity.allowedNetworks", "127.0.0.1"),
        ("identity.rate", "1000"),
        ("identity.retryAfter", "100ms"),
    ]
    .into_iter()
    .chain(more.iter().copied())
    {
        rig.set(path, value);
    }
    rig
}

/// How many commits came to this, whatever the reason.
fn verified(running: &Running, result: &str) -> u64 {
    let text = running.metrics.encode();
    let of = format!("penstock_ingest_verified_total{{result=\"{result}\"");
    let counts = text.lines().filter(|line| line.starts_with(&of)).filter_map(|line| line.rsplit(' ').next());
    counts.filter_map(|count| count.parse::<f64>().ok()).sum::<f64>() as u64
}

async fn length(rig: &Rig, key: &str) -> u64 {
    rig.client.xlen(key).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_accounts_signed_passes_and_what_others_signed_is_refused() {
    let directory = serve(signed()).await;
    let rig = self::rig(directory, directory, &[]).await;
    let running = rig.start();
    rig.reaches(583).await;
    let (refused, failed) = (verified(&running, "refused"), verified(&running, "failed"));
    assert_eq!((refused, failed, verified(&running, "unresolved")), (0, 0, 0));
    running.stop().await;
    rig.holds_exactly(&frames(&signed())).await;

    // The same commits as they were recorded: signed by others than the directory says.
    let recorded = serve(replay(583)).await;
    let rig = self::rig(recorded, directory, &[]).await;
    let running = rig.start();
    rig.reaches(583).await;
    assert_eq!((verified(&running, "refused"), verified(&running, "ignored")), (COMMITS, 23), "commits and #syncs");
    running.stop().await;
    let entries = rig.entries().await;
    assert!(entries.iter().all(|(_, kind, ..)| kind != "commit") && !entries.is_empty());
    assert_eq!(length(&rig, "firehose:dead-letters:raw").await, COMMITS);
    let marks = "return redis.call('ZRANGE', KEYS[1], 0, -1)";
    let marks: Vec<String> =
        rig.client.eval(marks, vec!["firehose:desynchronized"], Vec::<String>::new()).await.unwrap();
    assert!(!marks.is_empty() && marks.iter().all(|mark| mark.ends_with(" refused")), "{marks:?}");

    // Counted, they are written all the same.
    let rig = self::rig(recorded, directory, &[("verify.signatures", "count")]).await;
    let running = rig.start();
    rig.reaches(583).await;
    assert_eq!((verified(&running, "refused"), verified(&running, "failed")), (0, COMMITS));
    running.stop().await;
    rig.holds_exactly(&frames(&replay(583))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_directory_events_go_on_or_wait_for_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = serve(signed()).await;
    let rig = self::rig(relay, free, &[]).await;
    let running = rig.start();
    rig.reaches(583).await;
    assert_eq!(verified(&running, "unresolved"), COMMITS);
    running.stop().await;
    rig.holds_exactly(&frames(&signed())).await;

    let rig = self::rig(relay, free, &[("verify.unresolved", "hold")]).await;
    let running = rig.start();
    eventually("the report", async || rig.state("verified").await.is_some_and(|report| report.contains("heldSince")))
        .await;
    assert_ne!(rig.cursor().await, Some(583));
    serve(penstock_replay::Settings { address: free, ..signed() }).await;
    rig.reaches(583).await;
    assert_eq!((verified(&running, "unresolved"), verified(&running, "refused")), (0, 0));
    running.stop().await;
    rig.holds_exactly(&frames(&signed())).await;
}
