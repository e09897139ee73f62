//! What stands beside the cluster: a relay, a Redis and a PostgreSQL on this machine, where pods reach them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use std::{env, fs};

use fred::interfaces::ConfigInterface;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use penstock_local::testing::{TempFolder, TestPostgres, TestRedis};
use penstock_local::{PostgresOptions, RedisOptions};
use penstock_replay::Settings;
use rand::RngExt as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::cluster::{Cluster, Part};
use crate::frames::Recording;
use crate::rig::Rig;
use crate::service::Service;

/// How many events the relay has, where EVENTS says nothing else.
const TOTAL: u64 = 160_000;

/// Events a second.
pub(super) const RATE: NonZeroU32 = NonZeroU32::new(2_000).unwrap();

/// A cluster, servers that it reaches, and the rig that looks at them.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) rig: Rig,
    host: IpAddr,
    /// The user of all pods: any but the image's own.
    user: u32,
    redis: TestRedis,
    postgres: TestPostgres,
    _folder: TempFolder,
}

/// `penstock replay` with a clock.
pub(super) struct Relay {
    pub(super) url: String,
    pub(super) total: u64,
    rate: NonZeroU32,
    since: Instant,
    settings: Settings,
    _process: Service,
}

// === impl Stage ===

impl Stage {
    /// Starts the servers, and tells the cluster where they are.
    pub(super) async fn set() -> Self {
        let host: IpAddr = env::var("HOST_ADDRESS").unwrap().parse().unwrap();
        let listen = ["127.0.0.1".to_owned(), host.to_string()];
        let extra = ["--bind", &listen[0], &listen[1], "--protected-mode", "no"].map(str::to_owned).to_vec();
        let redis = TestRedis::start_with(RedisOptions { extra, ..RedisOptions::default() }).await.unwrap();
        let folder = TempFolder::new().unwrap();
        let access = folder.path().join("pg_hba.conf");
        fs::write(&access, "host all all all scram-sha-256\n").unwrap();
        let settings = [("listen_addresses", listen.join(",")), ("hba_file", access.display().to_string())];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let options = PostgresOptions { durable: false, settings, ..PostgresOptions::default() };
        let postgres = TestPostgres::start_with(options).await.unwrap();

        let cluster = Cluster::new().await;
        let of_pods = |url: String| url.replace("127.0.0.1", &host.to_string());
        cluster.secret("penstock-dev-redis", &of_pods(redis.url())).await;
        cluster.secret("penstock-dev-postgres", &of_pods(postgres.url())).await;
        let rig = Rig::between(&[("REDIS_URL", &redis.url())], &postgres.url()).await;
        rig.keep_stream().await;
        // As OpenShift gives them out.
        let user = rand::rng().random_range(1_000_000_000..2_000_000_000);
        println!("e2e: every pod runs as user {user}");
        Self { cluster, rig, host, user, redis, postgres, _folder: folder }
    }

    /// What the operator is installed with.
    pub(super) fn operator_values(&self) -> [String; 2] {
        ["--set".to_owned(), format!("podSecurityContext.runAsUser={}", self.user)]
    }

    /// Asserts that every pod runs as the user that was given, which is not the image's.
    pub(super) async fn assert_every_pod_has_our_user(&self) {
        for part in [Part::Ingest, Part::Worker, Part::Dashboard, Part::Operator] {
            let users = self.cluster.users(part).await;
            assert!(
                !users.is_empty() && users.iter().all(|user| *user == Some(self.user.into())),
                "{part:?}: {users:?}"
            );
        }
    }

    /// Stops PostgreSQL as it is: it answers nothing, and no connection breaks.
    pub(super) fn pause_postgres(&self) {
        self.signal_postgres(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(super) fn resume_postgres(&self) {
        self.signal_postgres(Signal::SIGCONT);
    }

    fn signal_postgres(&self, signal: Signal) {
        let pid = self.postgres.pid().unwrap();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        for pid in std::iter::once(pid).chain(children) {
            // A child may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// The minimal sample, with a relay of ours, and scaled so that a short run shows it.
    pub(super) fn pipeline(&self, relay: &str, policy: &str) -> String {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/samples/minimal.yaml");
        let sample = fs::read_to_string(sample).unwrap();
        let security = format!("securityContext: {{runAsUser: {}}}", self.user);
        format!(
            r#"{sample}
  deletionPolicy: {policy}
  relay: {{urls: ["{relay}"], start: oldest, dataTimeout: 10m}}
  workers:
    claimTime: 5s
    autoscaling: {{maxReplicas: 3, drainTarget: 2s, stabilizationWindow: 20s, capacityPerWorker: 4000}}
    pod: {{{security}, resources: {{requests: {{cpu: 50m, memory: 64Mi}}}}}}
  ingest: {{pod: {{{security}}}}}
  dashboard: {{pod: {{{security}}}}}
"#
        )
    }

    /// The user of all pods.
    pub(super) fn user(&self) -> u32 {
        self.user
    }

    /// Where pods reach this machine.
    pub(super) fn host(&self) -> IpAddr {
        self.host
    }

    /// The address of Redis, as pods use it.
    pub(super) fn redis_url(&self) -> String {
        self.redis.url().replace("127.0.0.1", &self.host.to_string())
    }

    /// The address of PostgreSQL, as pods use it.
    pub(super) fn postgres_url(&self) -> String {
        self.postgres.url().replace("127.0.0.1", &self.host.to_string())
    }

    pub(super) fn redis_pid(&self) -> u32 {
        self.redis.pid().unwrap()
    }

    pub(super) fn postgres_pid(&self) -> u32 {
        self.postgres.pid().unwrap()
    }

    /// Has PostgreSQL refuse every write, or take them again.
    pub(super) async fn set_read_only(&self, is_read_only: bool) {
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {is_read_only}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&self.rig.pool).await.unwrap();
        sqlx::raw_sql("SELECT pg_reload_conf()").execute(&self.rig.pool).await.unwrap();
    }

    /// Sets how much memory Redis may use.
    pub(super) async fn limit_redis(&self, memory: &str) {
        let _: () = self.rig.client.config_set("maxmemory", memory).await.unwrap();
    }

    /// Starts the relay, whose clock runs from now on.
    pub(super) async fn relay(&self) -> Relay {
        let total = env::var("EVENTS").map_or(TOTAL, |events| events.parse().unwrap());
        self.relay_of(total, RATE).await
    }

    /// Starts a relay of so many events, and of so many a second.
    pub(super) async fn relay_of(&self, total: u64, rate: NonZeroU32) -> Relay {
        let address: SocketAddr = TcpListener::bind((self.host, 0)).unwrap().local_addr().unwrap();
        let start_time: Timestamp = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().parse().unwrap();
        let (at, events, pace) = (address.to_string(), total.to_string(), rate.to_string());
        let (time, url) = (start_time.to_string(), format!("ws://{address}"));
        let words = ["replay", "--address", &at, "--total", &events, "--rate", &pace, "--start-time", &time];
        let process = self.rig.start(&words);
        process.line("serving the recording").await;
        let settings = Settings { total: Some(total), start_time: Some(start_time), ..Settings::default() };
        Relay { url, total, rate, since: Instant::now(), settings, _process: process }
    }
}

// === impl Relay ===

impl Relay {
    /// Waits until so many events have become live.
    pub(super) async fn has_served(&self, events: u64) {
        let due = Duration::from_secs_f64(events as f64 / f64::from(self.rate.get()));
        sleep(due.saturating_sub(self.since.elapsed())).await;
    }

    /// Everything that it says until its end.
    pub(super) async fn said(&self) -> Recording {
        let settings = self.settings.clone();
        spawn_blocking(move || Recording::of(&settings)).await.unwrap()
    }
}
