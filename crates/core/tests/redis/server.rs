//! Which server it is, and how it is reached.

use std::time::{Duration, Instant};

use fred::types::{CustomCommand, Value};
use penstock_core::redis::Product;
use penstock_local::testing::{TestRedis, TestSentinel};

use super::*;

/// Every character that means something in an address, an escape among them.
const PASSWORD: &str = "p%41@:/?#[]&= \\\"é+";

async fn ask(redis: &TestRedis, line: &str) -> Value {
    let client = bare(redis).await;
    let answer = command_of(&client, &line.split(' ').collect::<Vec<_>>()).await;
    let _ = client.quit().await;
    answer
}

async fn command_of(client: &Client, words: &[&str]) -> Value {
    let command = CustomCommand::new(words[0].to_owned(), None, false);
    let words: Vec<String> = words[1..].iter().map(|word| (*word).to_owned()).collect();
    client.custom(command, words).await.unwrap()
}

#[tokio::test]
async fn a_password_is_taken_as_it_stands() {
    let redis = start(&["--requirepass", PASSWORD]).await;
    let port = redis.port().to_string();
    let parts = [("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", port.as_str()), ("REDIS_PASSWORD", PASSWORD)];
    connected(&parts).await;
    let said = refused(&[parts[0], parts[1], ("REDIS_PASSWORD", "pA")]).await;
    assert!(said.contains("WRONGPASS") && !said.contains("pA"), "{said}");
}

#[tokio::test]
async fn a_sentinel_may_have_a_user_and_a_password_of_its_own() {
    let primary = start(&[]).await;
    let sentinel = TestSentinel::start("main", primary.port()).await.unwrap();
    let url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", sentinel.port());
    let open = bare_on(sentinel.port()).await;
    command_of(&open, &["ACL", "SETUSER", "watcher", "on", ">s%41&é", "+@all"]).await;
    command_of(&open, &["ACL", "SETUSER", "default", "resetpass", ">other"]).await;
    connected(&[("REDIS_URL", &format!("{url}&sentinelUsername=watcher&sentinelPassword=s%2541%26%C3%A9"))]).await;
    let said = refused(&[("REDIS_URL", &format!("{url}&sentinelUsername=watcher&sentinelPassword=hunter2"))]).await;
    assert!(!said.contains("hunter2") && said.contains("sentinelPassword=***"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_by_name_and_version() {
    let Some(old) = start_of(Some("redis-6"), &[]).await else { return };
    let said = refused(&[("REDIS_URL", &old.url())]).await;
    let url = old.url();
    assert_eq!(
        said,
        format!(
            "{url} is Redis 6.0.16, which is too old: Redis 6.2 or newer is needed, or a server that is compatible with it"
        )
    );
}

#[tokio::test]
async fn each_server_that_can_be_had_is_let_in_with_nothing_written() {
    for name in [None, Some("redis-8"), Some("valkey-8"), Some("valkey-9")] {
        let Some(redis) = start_of(name, &[]).await else { continue };
        assert_eq!(ask(&redis, "DBSIZE").await.as_u64(), Some(0), "{name:?}");
        // Keys that are there, of whatever type, are nobody's business yet.
        ask(&redis, "SET firehose:events x").await;
        connected(&[("REDIS_URL", &redis.url())]).await;
    }
}

/// Makes a user; returns the address with it.
async fn user(redis: &TestRedis, rules: &str) -> String {
    ask(redis, &format!("ACL SETUSER u reset on >p ~* &* +@all {rules}")).await;
    format!("redis://u:p@127.0.0.1:{}", redis.port())
}

#[tokio::test]
async fn a_server_that_forbids_what_scripts_need_is_named_with_its_version_where_it_tells() {
    for (command, named) in [("XINFO", "XINFO STREAM"), ("XAUTOCLAIM", "XAUTOCLAIM"), ("EVAL", "EVAL")] {
        let lacking = start(&["--rename-command", command, ""]).await;
        let info = command_of(&bare(&lacking).await, &["INFO", "server"]).await;
        let is = Product::read(&info.as_string().unwrap()).unwrap();
        let said = refused(&[("REDIS_URL", &lacking.url())]).await;
        assert!(said.contains(&format!("is {is}, which does not allow {named} in scripts")), "{said}");
        let silent = user(&lacking, "-info -role").await;
        let said = refused(&[("REDIS_URL", &silent)]).await;
        assert!(said.contains("a server of unknown version, which does not allow"), "{said}");
    }
}

#[tokio::test]
async fn who_lacks_a_permission_is_let_in_and_not_told_that_the_server_is_wrong() {
    let redis = start(&[]).await;
    for rules in ["-info", "-role -info", "-info -xinfo", "-xautoclaim -xtrim", "-eval"] {
        let url = user(&redis, rules).await;
        connected(&[("REDIS_URL", &url)]).await;
    }
}

async fn node() -> TestRedis {
    // By itself the bus listens 10,000 above the port, which may be above all ports.
    let bus = free_port().to_string();
    start(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "127.0.0.1"]).await
}

/// A connection that asks nothing of the server by itself.
async fn bare(redis: &TestRedis) -> Client {
    bare_on(redis.port()).await
}

async fn bare_on(port: u16) -> Client {
    let config = fred::types::config::Config::from_url(&format!("redis://127.0.0.1:{port}")).unwrap();
    let client = fred::types::Builder::from_config(config).build().unwrap();
    client.init().await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_says_how_it_is_used() {
    let [first, second] = [node().await, node().await];
    let [one, other] = [bare(&first).await, bare(&second).await];
    let slot = command_of(&one, &["CLUSTER", "KEYSLOT", "{p}:"]).await.as_u64().unwrap();
    let (before, after) = ((slot - 1).to_string(), (slot + 1).to_string());
    command_of(&one, &["CLUSTER", "ADDSLOTSRANGE", "0", &before, &after, "16383"]).await;
    command_of(&other, &["CLUSTER", "ADDSLOTS", &slot.to_string()]).await;
    command_of(&other, &["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
    let bus = command_of(&other, &["CONFIG", "GET", "cluster-port"]).await.into_array();
    let (port, bus) = (second.port().to_string(), bus[1].as_string().unwrap());
    command_of(&one, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
    let end = Instant::now() + Duration::from_secs(60);
    let is_whole = async |node: &Client| {
        let info = command_of(node, &["CLUSTER", "INFO"]).await.as_string().unwrap();
        ["cluster_state:ok", "cluster_slots_assigned:16384", "cluster_known_nodes:2"]
            .iter()
            .all(|part| info.contains(part))
    };
    while !is_whole(&one).await || !is_whole(&other).await {
        assert!(Instant::now() < end, "the nodes are no cluster");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // MOVED with a prefix that makes one slot of all keys, CROSSSLOT without.
    for prefix in ["{p}:", "p:"] {
        let said = refused(&[("REDIS_URL", &first.url()), ("PENSTOCK_REDIS_KEY_PREFIX", prefix)]).await;
        assert!(said.contains("is a Redis Cluster: use redis-cluster://"), "{prefix}: {said}");
    }
    let url = first.url().replace("redis://", "redis-cluster://");
    connected(&[("REDIS_URL", &url), ("PENSTOCK_REDIS_KEY_PREFIX", "{p}:")]).await;
}
