//! Everything breaks while events flow, and at the end nothing is missing and nothing is there twice.
//!
//! A run is decided by its seed: which faults, when, on whom, for how long, how big batches are. `make faults` runs ten
//! seeds, and `make faults SEED=n` one of them again.

mod crew;
mod downstream;
mod history;
mod odd;
mod plan;
mod proxy;
mod report;
mod run;
mod soak;
mod stage;
mod upstream;
mod verdict;

use std::path::Path;

use fred::interfaces::KeysInterface;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::TestRedis;

use crate::rig::eventually;
pub(crate) use odd::{MISSING, UNCARRIED};
use plan::{Plan, Size};
use proxy::{Proxy, Weather};
pub(crate) use report::{from_env, words};
pub(crate) use stage::{becomes, redis};

/// Where what processes say is kept.
const LOGS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults");

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_under_faults() {
    let without = ["postgres-black-hole", "relay-stall", "relay-freeze"].map(str::to_owned).to_vec();
    let plan = Plan::of(4, Size { events: 3_000, faults: 12, workers: 3, without, slot: plan::SLOT });
    let logs = Path::new(LOGS).join("short");
    let outcome = Box::pin(run::run(&plan, &logs)).await;
    assert!(outcome.verdict.wrong.is_empty(), "{}, see {}", outcome.verdict.wrong.join("\n"), logs.display());
    std::fs::remove_dir_all(logs).unwrap();
}

/// Every third seed puts what is above its repo's rate into the second stream.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_either_stream_is_lost_under_faults() {
    let without = ["postgres-black-hole", "relay-stall", "relay-freeze"].map(str::to_owned).to_vec();
    let plan = Plan::of(3, Size { events: 2_000, faults: 8, workers: 2, without, slot: plan::SLOT });
    let logs = Path::new(LOGS).join("aside");
    let outcome = Box::pin(run::run(&plan, &logs)).await;
    assert!(outcome.verdict.wrong.is_empty(), "{}, see {}", outcome.verdict.wrong.join("\n"), logs.display());
    std::fs::remove_dir_all(logs).unwrap();
}

/// A client that always writes has no other sign of a connection on which nothing comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_redis_that_swallows_everything_is_given_up() {
    let redis = TestRedis::start().await.unwrap();
    let proxy = Proxy::to(redis.port()).await;
    let environment = [
        ("REDIS_URL", format!("redis://127.0.0.1:{}", proxy.port())),
        ("PENSTOCK_REDIS_COMMAND_TIMEOUT", "300ms".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    let settings = Settings::load(&Layers::default().environment(environment)).unwrap();
    let client = penstock_core::redis::connect(&settings).await.unwrap();
    let write = async || client.incr::<i64, _>("writes").await;
    proxy.set_weather(Weather::BlackHole);
    eventually("a write is swallowed", async || write().await.is_err()).await;
    proxy.set_weather(Weather::Fair);
    let answered = eventually("writes are answered again", async || {
        // Some are always on their way.
        let (one, _, _) = tokio::join!(write(), write(), write());
        one.is_ok()
    });
    Box::pin(answered).await;
}

/// `make faults`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make faults"]
async fn fault_suite() {
    Box::pin(report::suite(Path::new(LOGS))).await;
}

/// `make soak`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told: make soak"]
async fn soak_suite() {
    Box::pin(soak::soak(&Path::new(LOGS).join("soak"))).await;
}
