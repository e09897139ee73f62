//! What each test begins with: a database with tables, a host with repos, and engines.

use std::sync::Arc;
use std::time::Duration;

use penstock_core::backfill::BackfillStatus;
use penstock_core::settings::Settings;
use penstock_heal::{Engine, open};
use penstock_local::testing::fresh_database;
use penstock_repo::testing::{MadeRepo, World, did};
use penstock_telemetry::metrics::Metrics;
use penstock_worker::store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const REV: &str = "3kaaaaaaaaa2a";

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(900);

pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) url: String,
    pub(crate) store: Store,
}

/// An engine at work.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
}

// === impl Rig ===

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::over(fresh_database().await.unwrap()).await
    }

    pub(crate) async fn over(url: String) -> Self {
        penstock_worker::migrate(&url, false).await.unwrap();
        let world = World::start().await.unwrap();
        let store = open(&settings(&world, &url, &[])).await.unwrap();
        Self { world, url, store }
    }

    /// Hosts repos of so many posts each, and names them.
    pub(crate) fn host(&self, repos: u64, posts: u64) -> Vec<String> {
        let dids: Vec<String> = (0..repos).map(did).collect();
        for did in &dids {
            self.world.put(MadeRepo::of_posts(did, REV, posts));
        }
        dids
    }

    pub(crate) async fn engine(&self, flags: &[(&str, &str)]) -> Engine {
        let settings = settings(&self.world, &self.url, flags);
        let store = open(&settings).await.unwrap();
        Engine::new(Arc::new(settings), store, &Metrics::new(), None).unwrap()
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(self.store.pool()).await.unwrap()
    }

    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(self.store.pool()).await.unwrap();
    }

    /// Waits until a query returns `true`.
    pub(crate) async fn until(&self, query: &'static str) {
        let holds = async {
            while !sqlx::query_scalar::<_, bool>(query).fetch_one(self.store.pool()).await.unwrap_or_default() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, holds).await.is_ok(), "never: {query}");
    }

    /// Waits until a backfill is over.
    pub(crate) async fn over_with(&self, engine: &Engine, name: &str) -> BackfillStatus {
        let mut last = None;
        let over = async {
            loop {
                match engine.backfills().get(name).await {
                    Ok(Some(status)) if status.state.is_over() => return status,
                    Ok(status) => last = status,
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, over).await {
            Ok(status) => status,
            Err(_) => panic!("{name} is never over: {last:?}"),
        }
    }

    /// Requires that every repo is stored as it is hosted.
    pub(crate) async fn assert_equal(&self, dids: &[String]) {
        let engine = self.engine(&[]).await;
        for did in dids {
            let outcome = engine.compare(did).await.unwrap();
            assert!(outcome.differences.is_empty() && outcome.is_signed, "{did}: {outcome:?}");
        }
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn start(engine: &Engine) -> Self {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (one, end) = (engine.clone(), stop.clone());
        tasks.spawn(async move { one.run(end, None).await.unwrap() });
        let (one, end) = (engine.clone(), stop.clone());
        tasks.spawn(async move { one.renew(end).await });
        let (one, end) = (engine.clone(), stop.clone());
        tasks.spawn(async move { one.list(end).await });
        let (one, end) = (engine.clone(), stop.clone());
        tasks.spawn(async move { one.schedule_audits(end).await });
        Self { stop, tasks }
    }

    /// Lets it give back what it has.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Ends it where it stands, as a crash would.
    pub(crate) async fn crash(mut self) {
        self.tasks.shutdown().await;
    }
}

pub(crate) fn settings(world: &World, url: &str, flags: &[(&str, &str)]) -> Settings {
    let layers = world
        .layers()
        .flag("postgres.url", url)
        .flag("relay.urls", world.server.url())
        .flag("heal.leaseTime", "5s")
        .flag("heal.retryMin", "10ms")
        .flag("heal.retryMax", "100ms");
    Settings::load(&flags.iter().fold(layers, |layers, (path, value)| layers.flag(path, *value))).unwrap()
}
