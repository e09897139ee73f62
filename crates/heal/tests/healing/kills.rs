//! Healers and PostgreSQL killed with SIGKILL, and hosts gone in the middle of an answer, while a backfill runs: it is complete, its
//! counts are exact, and little is fetched twice.

use std::collections::{BTreeMap, HashMap};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock_core::backfill::{BackfillRequest, Scope};
use penstock_core::settings::{Layers, Settings};
use penstock_heal::{Engine, open};
use penstock_local::PostgresOptions;
use penstock_local::testing::TestPostgres;
use penstock_repo::testing::{Asked, MadeRepo, Pace, Reply, World, did};
use penstock_telemetry::metrics::Metrics;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::rig::{REV, Rig};

/// Makes this program a healer: the settings that it has, one a line.
const ROLE: &str = "PENSTOCK_HEAL_TEST_ROLE";

/// How many hosts have the repos.
const HOSTS: usize = 3;

/// How long it may take until the next part of a backfill is done.
const PATIENCE: Duration = Duration::from_secs(300);

/// The keys of the likes that each repo has.
const LIKES: [&str; 4] = ["3kaaaaaaaaa22", "3kaaaaaaaaa23", "3kaaaaaaaaa24", "3kaaaaaaaaa25"];

/// Tables whose rows are counted.
const TABLES: [&str; 4] = ["posts", "likes", "feed_items", "post_aggregations"];

/// What happens to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// A healer is killed, and another one begins.
    Healer,
    /// PostgreSQL is killed, and started again.
    Postgres,
    /// A host goes while it sends a repo, and comes back after a moment.
    Host,
}

/// A healer as a process, killed when dropped.
struct Healer(Child);

/// The hosts, and what all repos together amount to.
struct Network {
    hosts: Vec<World>,
    dids: Vec<String>,
    /// The CID of each post, by its URI.
    posts: BTreeMap<String, String>,
    /// The post that each like is for, by its URI.
    likes: BTreeMap<String, String>,
    pace: Pace,
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

// === impl Blow ===

impl Blow {
    /// So many, in any order, about as often each.
    fn many(count: u64, random: &mut StdRng) -> Vec<Self> {
        let mut blows = Vec::new();
        while (blows.len() as u64) < count {
            let mut round = [Self::Healer, Self::Postgres, Self::Host];
            round.shuffle(random);
            blows.extend(round);
        }
        blows.truncate(usize::try_from(count).unwrap());
        blows
    }
}

// === impl Healer ===

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

// === impl Network ===

impl Network {
    /// Hosts repos of some posts, one in so many a large one, that like each other's posts.
    async fn new(rig: &Rig, repos: u64) -> Self {
        let mut hosts = Vec::new();
        for _ in 0..HOSTS {
            hosts.push(World::start().await.unwrap());
        }
        let dids: Vec<String> = (0..repos).map(did).collect();
        let mut made: Vec<MadeRepo> = (0_u64..)
            .zip(&dids)
            .map(|(n, did)| MadeRepo::of_posts(did, REV, if n % 50 == 7 { 1_200 } else { 12 }))
            .collect();
        let uri = |repo: &MadeRepo, path: &str| format!("at://{}/{path}", repo.account.did);
        let posts: Vec<Vec<(String, String)>> = made
            .iter()
            .map(|repo| {
                repo.records.keys().map(|path| (uri(repo, path), repo.cid(path).unwrap().to_string())).collect()
            })
            .collect();
        let mut likes = BTreeMap::new();
        for (n, repo) in made.iter_mut().enumerate() {
            for (like, key) in LIKES.into_iter().enumerate() {
                let (post, cid) = &posts[(n * 7 + like * like) % posts.len()][like];
                let path = format!("app.bsky.feed.like/{key}");
                let subject = json!({"uri": post, "cid": cid});
                let at = "2024-01-01T00:00:00.000Z";
                repo.put(&path, &json!({"$type": "app.bsky.feed.like", "subject": subject, "createdAt": at}));
                likes.insert(uri(repo, &path), post.clone());
            }
        }
        // Slow enough that many are on their way at any time.
        let pace = Pace::new(2_000, Duration::from_millis(3));
        let mut documents = HashMap::new();
        let mut cars: Vec<HashMap<String, Bytes>> = vec![HashMap::new(); HOSTS];
        for (n, repo) in made.into_iter().enumerate() {
            let (at, did) = (n % HOSTS, repo.account.did.clone());
            documents.insert(did.clone(), repo.account.document(&hosts[at].server.url()));
            cars[at].insert(did, repo.car().into());
            rig.world.put(repo);
        }
        for (host, cars) in hosts.iter().zip(cars) {
            let pace = pace.clone();
            host.meddle(move |asked| {
                let is_repo = asked.method() == "com.atproto.sync.getRepo";
                let car = cars.get(asked.parameter("did")?).filter(|_| is_repo)?;
                Some(Reply::Drip(car.clone(), pace.clone()))
            });
        }
        rig.world.meddle(move |asked| Some(Reply::json(200, documents.get(asked.path.strip_prefix('/')?)?)));
        Self { hosts, dids, posts: posts.into_iter().flatten().collect(), likes, pace }
    }

    /// Has a host go while it sends something, if any does before long; returns of how many answers the rest never came.
    async fn go_and_come_back(&self, random: &mut StdRng) -> usize {
        let until = Instant::now() + Duration::from_secs(20);
        let host = loop {
            let sending = self.hosts.iter().find(|host| host.server.begun() > 0);
            if let Some(host) = sending.or_else(|| self.hosts.choose(random).filter(|_| Instant::now() >= until)) {
                break host;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let cut = host.server.begun();
        host.server.go().await.unwrap();
        tokio::time::sleep(Duration::from_millis(random.random_range(50..300))).await;
        host.server.come_back().await.unwrap();
        cut
    }

    /// Returns how often a repo was asked for.
    fn fetched(&self) -> usize {
        let is_repo = |asked: &Asked| asked.method() == "com.atproto.sync.getRepo";
        self.hosts.iter().map(|host| host.server.asked().iter().filter(|asked| is_repo(asked)).count()).sum()
    }

    /// Requires that the tables hold the records of these repos and no others, and count them.
    async fn assert_stored(&self, rig: &Rig) {
        let pairs = async |query: &'static str| -> BTreeMap<String, String> {
            let rows: Vec<(String, String)> = sqlx::query_as(query).fetch_all(rig.store.pool()).await.unwrap();
            rows.into_iter().collect()
        };
        assert!(pairs("SELECT uri, cid FROM posts").await == self.posts, "posts are those of the repos");
        assert!(pairs("SELECT uri, post_uri FROM likes").await == self.likes, "likes are those of the repos");
        let mut liked: BTreeMap<String, String> = BTreeMap::new();
        for post in self.likes.values() {
            let count = liked.get(post).map_or(0, |count| count.parse::<u64>().unwrap());
            liked.insert(post.clone(), (count + 1).to_string());
        }
        let counted = pairs("SELECT post_uri, like_count::text FROM post_aggregations WHERE like_count <> 0").await;
        assert!(counted == liked, "likes are counted once each");
        let totals: Vec<(String, i64)> =
            sqlx::query_as("SELECT field, sum(total)::bigint FROM penstock.counts GROUP BY field")
                .fetch_all(rig.store.pool())
                .await
                .unwrap();
        let totals: HashMap<String, i64> = totals.into_iter().collect();
        for table in TABLES {
            let rows = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")));
            let rows = rows.fetch_one(rig.store.pool()).await.unwrap();
            assert_eq!(totals.get(table), Some(&rows), "{table} are counted as there are rows");
        }
        assert_eq!(totals.get("users"), Some(&rig.count("SELECT count(*) FROM users").await));
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

/// `make heal-chaos` does it with 2,000 repos and 100 blows.
#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_is_complete_whatever_is_killed_and_little_is_fetched_twice() {
    let seed = number("SEED", rand::random::<u32>().into());
    let (repos, kills) = (number("PENSTOCK_HEAL_REPOS", 60), number("PENSTOCK_KILLS", 9));
    let mut random = StdRng::seed_from_u64(seed);
    let blows = Blow::many(kills, &mut random);
    // What is committed stays, though the system would have to stay as well.
    let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
    let options = PostgresOptions { durable: false, settings, ..PostgresOptions::default() };
    let mut postgres = TestPostgres::start_with(options).await.unwrap();
    let rig = Rig::over(postgres.fresh_database().await.unwrap()).await;
    let network = Network::new(&rig, repos).await;
    let backfills = rig.engine(&[]).await.backfills().clone();
    backfills.put("all", BackfillRequest::new(Scope::All(true))).await.unwrap();
    let began = Instant::now();
    let mut healers = [Healer::start(&rig), Healer::start(&rig)];
    let mut cut = 0;
    for (number, blow) in (0..).zip(&blows) {
        // Each time so much more is done, so that they are spread over the whole of it.
        let target = i64::try_from(repos * (number + 1) / (kills + 2)).unwrap();
        let reached = async {
            loop {
                let done = sqlx::query_scalar::<_, i64>("SELECT done FROM penstock.backfills");
                if done.fetch_one(rig.store.pool()).await.is_ok_and(|done| done >= target) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "seed {seed}: it does not go on after {number} blows, the last one of {blows:?}");
        match blow {
            Blow::Healer => healers[random.random_range(0..2)] = Healer::start(&rig),
            Blow::Postgres => {
                postgres.kill();
                postgres.restart().await.unwrap();
            }
            Blow::Host => cut += network.go_and_come_back(&mut random).await,
        }
    }
    let engine = rig.engine(&[]).await;
    let status = rig.over_with(&engine, "all").await;
    let took = began.elapsed();
    drop(healers);
    let fetched = network.fetched();
    let of = |kind| blows.iter().filter(|blow| **blow == kind).count();
    #[expect(clippy::cast_precision_loss, reason = "to be read")]
    let average = fetched as f64 / repos as f64;
    println!(
        "seed {seed}: {repos} repos with {} records in {:.0} s, {} healers and {} times PostgreSQL killed, {} times a host gone \
         with {cut} answers on their way; each repo fetched {average:.2} times on average",
        network.posts.len() + network.likes.len(),
        took.as_secs_f32(),
        of(Blow::Healer),
        of(Blow::Postgres),
        of(Blow::Host),
    );
    assert_eq!((status.total, status.done, status.failed), (Some(repos), repos, 0), "{status:?}");
    assert!(cut > 0, "no answer was cut off");
    network.assert_stored(&rig).await;
    assert!(fetched as u64 * 2 <= repos * 3, "{fetched} fetches of {repos} repos");
    network.pace.hurry.store(true, Ordering::Relaxed);
    rig.assert_equal(&network.dids).await;
}
