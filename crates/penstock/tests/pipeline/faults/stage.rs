//! The servers of a run, and the proxies between them and the services.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use penstock_local::testing::{TestPostgres, TestRedis};
use penstock_local::{Persistence, PostgresOptions, RedisOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::plan::{Fault, Link, Plan};
use super::proxy::{Proxy, Trap, Weather};
use crate::rig::Rig;

/// How long one step of a fault may take before the run has failed.
pub(crate) const STEP: Duration = Duration::from_secs(120);

/// How long an answer to spoil is waited for.
const CATCH: Duration = Duration::from_secs(1);

/// The ways between services and servers.
pub(crate) struct Links {
    ingest_redis: Proxy,
    workers_redis: Proxy,
    postgres: Proxy,
    /// The test's own way to Redis, which is never spoiled.
    pub(crate) observer: Proxy,
}

/// Starts the servers and makes the tables; what services are told goes over the links.
pub(crate) async fn set(plan: &Plan, logs: &Path) -> (Rig, Links, TestRedis, TestPostgres) {
    let redis = redis().await;
    let settings = [
        // A killed server must keep what it committed; the disk itself never fails here.
        ("synchronous_commit", "on"),
        ("deadlock_timeout", "50ms"),
        // After a kill there is little to be read again.
        ("checkpoint_timeout", "30s"),
        ("max_wal_size", "64MB"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = PostgresOptions { durable: false, settings, ..PostgresOptions::default() };
    let postgres = TestPostgres::start_with(options).await.unwrap();
    let links = Links {
        ingest_redis: Proxy::to(redis.port()).await,
        workers_redis: Proxy::to(redis.port()).await,
        postgres: Proxy::to(postgres.port()).await,
        observer: Proxy::to(redis.port()).await,
    };
    let observer = url(&links.observer);
    let mut rig = Rig::between(&[("REDIS_URL", &observer)], &postgres.url()).await;
    rig.keep_logs(logs.to_owned());
    rig.migrate().await;
    if plan.keeps_stream {
        rig.keep_stream().await;
    }
    for (name, value) in &plan.settings {
        rig.set(name, value);
    }
    let direct = format!(":{}/", postgres.port());
    rig.set("DATABASE_URL", &postgres.url().replace(&direct, &format!(":{}/", links.postgres.port())));
    (rig, links, redis, postgres)
}

/// Starts a Redis that keeps its data over a kill.
pub(crate) async fn redis() -> TestRedis {
    // A replica is there at once; and what was answered has been written to the file, if not to the disk.
    let extra = ["--repl-diskless-sync-delay", "0", "--appendfsync", "no"].map(str::to_owned).to_vec();
    let options = RedisOptions { persistence: Persistence::Aof, extra, ..RedisOptions::default() };
    TestRedis::start_with(options).await.unwrap()
}

/// Says something to the Redis on a port, and returns what it answers, if it does.
pub(crate) async fn tell(port: u16, command: &str) -> Option<String> {
    let telling = async {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        socket.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    timeout(Duration::from_secs(5), telling).await.ok()?.ok()
}

/// Waits until something is so; says whether it became so in time.
pub(crate) async fn becomes(mut is: impl AsyncFnMut() -> bool) -> bool {
    becomes_while_moving(async || if is().await { Ok(()) } else { Err(()) }).await.is_ok()
}

/// Waits until something is so, and for as long as what is seen instead still changes; else returns that.
pub(crate) async fn becomes_while_moving<T: PartialEq>(mut look: impl AsyncFnMut() -> Result<(), T>) -> Result<(), T> {
    let (mut seen, mut deadline) = (None, Instant::now() + STEP);
    loop {
        let Err(found) = look().await else { return Ok(()) };
        if seen.as_ref() != Some(&found) {
            deadline = Instant::now() + STEP;
        } else if Instant::now() > deadline {
            return Err(found);
        }
        seen = Some(found);
        sleep(Duration::from_millis(20)).await;
    }
}

// === impl Links ===

impl Links {
    pub(crate) fn get(&self, link: Link) -> &Proxy {
        match link {
            Link::IngestRedis => &self.ingest_redis,
            Link::WorkersRedis => &self.workers_redis,
            Link::Postgres => &self.postgres,
        }
    }

    /// How a service is told where Redis is.
    pub(crate) fn redis_setting(&self, link: Link) -> String {
        format!("redis.url={}", url(self.get(link)))
    }

    /// Lets no service reach Redis any more.
    pub(crate) fn close_redis(&self) {
        for proxy in self.to_redis() {
            proxy.set_weather(Weather::Refusing);
            proxy.cut();
        }
    }

    /// Lets services reach the Redis on this port.
    pub(crate) fn open_redis(&self, port: u16) {
        for proxy in self.to_redis() {
            proxy.set_upstream(port);
            proxy.set_weather(Weather::Fair);
        }
    }

    /// Spoils a link; says whether anything was there to spoil.
    pub(crate) async fn spoil(&self, fault: &Fault) -> bool {
        match *fault {
            Fault::Cut(link) => {
                self.get(link).cut();
                true
            }
            Fault::Trapped { link, holds, half } => {
                self.get(link).set_trap(Trap { holds, half });
                let deadline = Instant::now() + CATCH;
                while !self.get(link).is_sprung() && Instant::now() < deadline {
                    sleep(Duration::from_millis(10)).await;
                }
                self.get(link).take_trap()
            }
            Fault::Weather(link, weather, pause) => {
                self.get(link).set_weather(weather);
                sleep(pause).await;
                self.get(link).set_weather(Weather::Fair);
                true
            }
            _ => false,
        }
    }

    /// Makes an end of everything that spoils connections.
    pub(crate) fn heal(&self) {
        for proxy in self.to_redis().into_iter().chain([&self.postgres]) {
            proxy.set_weather(Weather::Fair);
            proxy.take_trap();
        }
    }

    fn to_redis(&self) -> [&Proxy; 2] {
        [&self.ingest_redis, &self.workers_redis]
    }
}

fn url(proxy: &Proxy) -> String {
    format!("redis://127.0.0.1:{}", proxy.port())
}
