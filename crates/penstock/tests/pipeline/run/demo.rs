//! The demo: it harms nobody's servers, ends by itself, stays within its folder, and one runs in a folder.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use fred::interfaces::ServerInterface;
use penstock_core::settings::{Layers, Settings};
use penstock_local::testing::{TempFolder, TestRedis, fresh_database};
use sqlx::{Connection, PgConnection};

use super::{RATE, Run, status};

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_the_shell_names_are_left_alone_and_the_demo_ends_without_a_fault() {
    let (folder, redis, database) =
        (TempFolder::new().unwrap(), TestRedis::start().await.unwrap(), fresh_database().await.unwrap());
    let mut postgres = PgConnection::connect(&database).await.unwrap();
    sqlx::query("CREATE TABLE users (id int, password text)").execute(&mut postgres).await.unwrap();
    let shell = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &redis.url()),
        ("RELAY_URL", "ws://127.0.0.1:1"),
        ("DASHBOARD_ADDRESS", "127.0.0.1:0"),
    ];
    // Less than the usual limit: a small disk would set one of its own.
    let run = Run::with(folder.path(), &["--total", "1500", "--max-disk", "1GB"], &shell);
    let (ended, said, log) = run.wait_for_its_end().await;
    assert!(ended.success(), "{ended}: {log}");
    assert_eq!(log, "", "an error on the first screen");
    let told = |words: &str| said.iter().any(|line| line.contains(words));
    for words in [
        "RELAY_URL from the environment ignored; use --relay",
        "REDIS_URL from the environment ignored; use --redis-url",
        "DATABASE_URL from the environment ignored; use --database-url",
        "(the bundled recording, 500 events per second)",
        "(local, in ",
        "after 1500 events (--total)",
        " reaches 1.0 GB (--max-disk)",
        "all 1500 events read; draining",
    ] {
        assert!(told(words), "{words}: {said:#?}");
    }
    assert!(!told(database.rsplit_once('@').unwrap().0.rsplit_once(':').unwrap().1), "a password is told");
    let last = said.iter().rfind(|line| line.contains("events/s")).unwrap();
    let number = |name: &str| status(last, name).unwrap().parse::<u64>().unwrap();
    assert_eq!((number("waiting"), number("letters")), (0, 0), "{last}");
    assert!(number("rows") > 1500 && number("applied") > 1300 && number("disk") > 20, "{last}");

    let tables = "SELECT string_agg(format('%s.%s', table_name, column_name), ' ' ORDER BY column_name)
        FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
    let tables: String = sqlx::query_scalar(tables).fetch_one(&mut postgres).await.unwrap();
    assert_eq!(tables, "users.id users.password");
    let settings = Settings::load(&Layers::default().flag("redis.url", redis.url())).unwrap();
    let keys: u64 = penstock_core::redis::connect(&settings).await.unwrap().dbsize().await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_events_are_of_now_and_its_line_for_psql_works() {
    let folder = TempFolder::new().unwrap();
    let mut run = Run::start(folder.path());
    let psql = run.until(|line| line.trim().strip_prefix("psql ").map(str::to_owned)).await;
    // The address that it prints signs in, and nothing else does.
    let page = run.dashboard().await;
    let (address, token) = run
        .until(|line| {
            let (address, token) = line.trim().strip_prefix("sign in: http://")?.split_once("/#token=")?;
            Some((address.to_owned(), token.to_owned()))
        })
        .await;
    assert_eq!(address, page.to_string());
    assert_eq!(std::fs::read_to_string(folder.path().join("dashboard-token")).unwrap().trim(), token);
    for (header, admin) in [("accept: */*".to_owned(), false), (format!("authorization: Bearer {token}"), true)] {
        let (_, rights) = crate::http::get_with(page, "/api/session", &header).await.unwrap();
        assert!(rights.contains(&format!("\"admin\":{admin}")), "{rights}");
    }
    assert!(psql.contains("$(cat ") && !psql.contains("***"), "{psql}");
    run.until(|line| (status(line, "applied")?.parse::<u64>().ok()? > 3 * RATE).then_some(())).await;
    let lag: f64 = run.until(|line| status(line, "lag")?.parse().ok()).await;
    assert!((0.0..20.0).contains(&lag), "{lag} s");
    let ask = |sql: &str| {
        let output = Process::new("sh").args(["-c", &format!("psql {psql} -XAtqc \"{sql}\"")]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap()
    };
    for time in ["max(created_at)", "max(sort_at)"] {
        let age = ask(&format!("SELECT extract(epoch FROM now() AT TIME ZONE 'UTC' - {time}) FROM feed_items"));
        assert!((-1.0..60.0).contains(&age), "{time} is {age} s ago");
    }
    let spread = ask("SELECT extract(epoch FROM max(created_at) - min(created_at)) FROM feed_items");
    assert!((1.0..120.0).contains(&spread), "all were made within {spread} s");
    run.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_in_the_same_folder_is_refused_at_once() {
    let folder = TempFolder::new().unwrap();
    let mut first = Run::start(folder.path());
    first.dashboard().await;
    let before = Instant::now();
    let second = Process::new(crate::rig::binary()).args(["run", "--data"]).arg(folder.path()).output().unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "after {:?}", before.elapsed());
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    for word in [folder.path().to_str().unwrap(), &first.child.id().unwrap().to_string(), "--data"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    first.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_where_its_folder_is_full() {
    let folder = TempFolder::new().unwrap();
    let more = ["--max-disk", "100MB", "--total", "0", "--set", "ingest.batchDelay=5ms"];
    let run = Run::with(folder.path(), &more, &[("DASHBOARD_ADDRESS", "127.0.0.1:0")]);
    let (ended, said, log) = run.wait_for_its_end().await;
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(said.iter().any(|line| line.contains("data folder at its limit: 1")), "{said:#?}");
    assert!(log.contains("--max-disk") && log.contains("MB, the limit set by"), "{log}");
    let size = size(folder.path());
    assert!(size < 400_000_000, "{size} bytes");
}

fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_stay_the_same_and_a_taken_one_gives_way_with_a_line() {
    let folder = TempFolder::new().unwrap();
    let usual = {
        let free = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        free.map(|listener| listener.local_addr().unwrap().port())
    };
    let ports = format!(r#"{{"dashboard":{},"metrics":{}}}"#, usual[0], usual[1]);
    std::fs::write(folder.path().join("ports.json"), ports).unwrap();
    let addresses = async |run: &mut Run| {
        let mut addresses = Vec::new();
        for name in ["relay", "redis", "postgres", "metrics", "dashboard"] {
            addresses.push(run.value(name).await);
        }
        addresses
    };
    let mut run = Run::with(folder.path(), &[], &[]);
    let first = addresses(&mut run).await;
    assert_eq!(
        first[3..],
        [format!("http://127.0.0.1:{}/metrics", usual[1]), format!("http://127.0.0.1:{}", usual[0])]
    );
    run.end().await;
    let mut run = Run::with(folder.path(), &[], &[]);
    assert_eq!(addresses(&mut run).await, first);
    run.end().await;

    let redis: u16 = first[1].rsplit_once(':').unwrap().1.parse().unwrap();
    let _held = [redis, usual[0]].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    let mut run = Run::with(folder.path(), &[], &[]);
    let mut third = addresses(&mut run).await;
    assert!(third[1] != first[1] && third[4] != first[4], "{third:?}");
    (third[1], third[4]) = (first[1].clone(), first[4].clone());
    assert_eq!(third, first, "the others stay");
    run.end().await;
}
