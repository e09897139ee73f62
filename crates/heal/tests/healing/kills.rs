//! Healers killed with SIGKILL in the middle of a backfill: it is complete, and little is fetched twice.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use penstock_core::backfill::{BackfillRequest, Scope};
use penstock_core::settings::{Layers, Settings};
use penstock_heal::{Engine, open};
use penstock_telemetry::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, settings};

/// Makes this program a healer: the settings that it has, one a line.
const ROLE: &str = "PENSTOCK_HEAL_TEST_ROLE";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A healer as a process, killed when dropped.
struct Healer(Child);

impl Healer {
    fn start(rig: &Rig) -> Self {
        // Nothing but what differs from the defaults is told.
        let told = [
            ("identity.plcUrl", rig.world.server.url()),
            ("relay.urls", rig.world.server.url()),
            ("postgres.url", rig.url.clone()),
            ("identity.enabled", "true".to_owned()),
            ("identity.rate", "10000".to_owned()),
            ("identity.retryAfter", "50ms".to_owned()),
            ("identity.allowedNetworks", "127.0.0.1".to_owned()),
            ("heal.hostRate", "10000".to_owned()),
            ("heal.parallelism", "2".to_owned()),
            ("heal.leaseTime", "1s".to_owned()),
            ("heal.retryMin", "10ms".to_owned()),
            ("heal.retryMax", "100ms".to_owned()),
        ];
        let told: Vec<String> = told.iter().map(|(path, value)| format!("{path}={value}")).collect();
        let mut healer = Command::new(std::env::current_exe().unwrap());
        healer.args(["--exact", "kills::healer", "--nocapture"]).env(ROLE, told.join("\n"));
        Self(healer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Healer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: what [`Healer`] starts.
#[tokio::test(flavor = "multi_thread")]
async fn healer() {
    let Ok(told) = std::env::var(ROLE) else { return };
    let flags = told.lines().filter_map(|line| line.split_once('='));
    let settings = Arc::new(
        Settings::load(&flags.fold(Layers::default(), |layers, (path, value)| layers.flag(path, value))).unwrap(),
    );
    let store = loop {
        match open(&settings).await {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let engine = Engine::new(settings, store, &Metrics::new(), None).unwrap();
    let stop = CancellationToken::new();
    tokio::join!(engine.renew(stop.clone()), engine.list(stop.clone()), async {
        engine.run(stop.clone(), None).await.unwrap();
    });
}

/// `make heal-chaos` does it with 2,000 repos and 100 kills.
#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_is_complete_whatever_is_killed_and_little_is_fetched_twice() {
    let (repos, kills) = (number("PENSTOCK_HEAL_REPOS", 60), number("PENSTOCK_KILLS", 8));
    let rig = Rig::new().await;
    let dids = rig.host(repos, 20);
    let backfills = rig.engine(&[]).await.backfills().clone();
    backfills.put("all", BackfillRequest::new(Scope::All(true))).await.unwrap();
    let _ = settings(&rig.world, &rig.url, &[]);
    let mut healers = [Healer::start(&rig), Healer::start(&rig)];
    for kill in 0..kills {
        // Each time so much more is done, so that kills are spread over the whole of it.
        let target = i64::try_from(repos * (kill + 1) / (kills + 2)).unwrap();
        let reached = async {
            loop {
                let done: i64 = sqlx::query_scalar("SELECT done FROM penstock.backfills")
                    .fetch_one(rig.store.pool())
                    .await
                    .unwrap();
                if done >= target {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(600), reached).await.is_ok(),
            "it does not go on after {kill} kills"
        );
        healers[usize::try_from(kill % 2).unwrap()] = Healer::start(&rig);
    }
    let engine = rig.engine(&[]).await;
    let status = rig.over_with(&engine, "all").await;
    drop(healers);
    assert_eq!((status.total, status.done, status.failed), (Some(repos), repos, 0), "{status:?}");
    assert_eq!(u64::try_from(rig.count("SELECT count(*) FROM posts").await).unwrap(), repos * 20);
    let counted: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(total), 0)::bigint FROM penstock.counts WHERE field = 'posts'")
            .fetch_one(rig.store.pool())
            .await
            .unwrap();
    assert_eq!(u64::try_from(counted).unwrap(), repos * 20, "counts are exact");
    let fetched: usize = dids.iter().map(|did| rig.world.hits("com.atproto.sync.getRepo", did)).sum();
    assert!(fetched as u64 * 2 <= repos * 3, "{fetched} fetches of {repos} repos");
    rig.assert_equal(&dids).await;
}
