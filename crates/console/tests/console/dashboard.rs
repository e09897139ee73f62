//! `status` and `tail` over HTTP.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::interfaces::ClientLike;
use penstock_console::{ConsoleError, Filter, Target, status, tail};
use penstock_core::settings::Secret;
use penstock_local::testing::TestRedis;
use serde_json::Value;

use crate::stage::{Crew, Dashboard, settings, until};

const PAUSE: Duration = Duration::from_secs(1);

fn target(url: &str) -> Target {
    Target::new(url).unwrap()
}

/// Exit code, and the JSON.
async fn told(target: Target) -> (u8, Value) {
    let status = status::status(target, PAUSE).await;
    let json: Value = serde_json::from_str(&status.to_json()).unwrap();
    assert!(status.to_text().starts_with(json["status"].as_str().unwrap()), "{}", status.to_text());
    (status.level().exit_code(), json)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_exits_by_how_the_pipeline_is_with_every_part_gone_in_turn() {
    let mut redis = TestRedis::start().await.unwrap();
    let settings = settings(&redis.url(), &[]);
    let dashboard = Dashboard::start(Arc::clone(&settings));
    let url = dashboard.url();

    // Nothing has ever written.
    until("the dashboard has figures", async || told(target(&url)).await.1["stream"]["length"] == 0).await;
    let (code, json) = told(target(&url)).await;
    assert_eq!((code, json["headline"].as_str()), (2, Some("No workers running")), "{json:#}");

    let crew = Crew::start(Arc::clone(&settings)).await;
    until("events flow", async || told(target(&url)).await.0 == 0).await;
    let (code, json) = told(target(&url)).await;
    assert_eq!((code, json["status"].as_str()), (0, Some("good")), "{json:#}");
    assert!(json["headline"].as_str().unwrap().starts_with("Current: rows "), "{json:#}");
    assert_eq!((&json["relay"]["url"], &json["workers"]["alive"]), (&"wss://relay.test".into(), &1.into()), "{json:#}");
    assert_eq!(json["stream"]["cap"], 500_000, "{json:#}");
    assert!(json["workers"]["eventsPerSecond"].as_f64().unwrap() > 1.0, "{json:#}");
    assert!(json["relay"]["eventsPerSecond"].as_f64().unwrap() > 1.0, "{json:#}");

    // The worker dies: nothing is applied while entries come.
    crew.works.store(false, Ordering::Relaxed);
    until_said(&url, 2, "No workers running").await;
    crew.works.store(true, Ordering::Relaxed);
    until_said(&url, 0, "Current: rows ").await;

    // Ingest dies: its status outlives it by ten seconds.
    crew.ingests.store(false, Ordering::Relaxed);
    until_said(&url, 2, "No ingest running").await;
    crew.ingests.store(true, Ordering::Relaxed);
    until_said(&url, 0, "Current: rows ").await;

    redis.kill();
    let json = until_said(&url, 2, "Redis not responding").await;
    assert!(json["why"].as_str().unwrap().contains("edis"), "{json:#}");
    assert!(json["stream"]["length"].is_null() && json["workers"]["alive"].is_null(), "{json:#}");

    dashboard.end().await;
    let (code, json) = told(target(&url)).await;
    assert_eq!((code, json["status"].as_str()), (2, Some("down")));
    assert!(json["why"].as_str().unwrap().contains("efused"), "{json:#}");
}

/// Follows events to the end, within half a minute.
async fn followed(url: &str, options: &tail::Options, out: &mut impl Write) -> Result<(), ConsoleError> {
    let mut notes = io::sink();
    let tailing = tail::tail(target(url), options, out, &mut notes);
    tokio::time::timeout(Duration::from_secs(30), tailing).await.unwrap()
}

/// Waits until this is said, with this exit code.
async fn until_said(url: &str, code: u8, headline: &str) -> Value {
    let mut last = Value::Null;
    until(headline, async || {
        let (said, json) = told(target(url)).await;
        let is_so = json["headline"].as_str().is_some_and(|said| said.starts_with(headline));
        assert!(!is_so || said == code, "{json:#}");
        if json["headline"] != last["headline"] {
            println!("{}: {}", json["headline"], json["why"]);
        }
        last = json;
        is_so
    })
    .await;
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_sent_and_never_shown() {
    let redis = TestRedis::start().await.unwrap();
    let dashboard = Dashboard::start(settings(&redis.url(), &[("dashboard.readToken", "geheim-token-1")]));
    let (code, json) = told(target(&dashboard.url())).await;
    assert_eq!((code, json["headline"].as_str()), (2, Some("No access")));
    assert!(json["why"].as_str().unwrap().contains("PENSTOCK_TOKEN"), "{json:#}");
    let with = |token: &str| target(&dashboard.url()).with_token(&Secret::from(token.to_owned()), "test").unwrap();
    assert_eq!(told(with("wrong")).await.1["headline"], "No access");
    until("it lets the token in", async || {
        let (_, json) = told(with("geheim-token-1")).await;
        assert!(!json.to_string().contains("geheim"), "{json:#}");
        json["headline"] == "No workers running"
    })
    .await;
    let refused = followed(&dashboard.url(), &tail::Options::default(), &mut io::sink()).await.unwrap_err();
    assert!(!refused.is_usage() && format!("{refused:?}").contains("Token"), "{refused:?}");
}

/// A place to write that tests look into.
#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sheet {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn numbers(&self) -> Vec<u64> {
        let number = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            event["did"].as_str().unwrap().trim_start_matches("did:plc:").parse().unwrap()
        };
        self.text().lines().map(number).collect()
    }
}

/// Somebody who reads no more.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_writes_what_is_wanted_line_by_line_and_ends_at_its_limit() {
    let redis = TestRedis::start().await.unwrap();
    let settings = settings(&redis.url(), &[]);
    let dashboard = Dashboard::start(Arc::clone(&settings));
    let _crew = Crew::start(settings).await;
    let filter = Filter::new(&["app.bsky.feed".to_owned()], &["did:plc:*".to_owned()]).unwrap();
    let options = tail::Options { filter, limit: NonZeroU64::new(5) };
    let mut out = Sheet::default();
    followed(&dashboard.url(), &options, &mut out).await.unwrap();
    let numbers = out.numbers();
    assert_eq!(numbers.len(), 5);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 2), "posts only, each once: {numbers:?}");
    assert_eq!(
        out.text().lines().next().unwrap(),
        crate::stage::event(numbers[0]).to_string(),
        "the event as the dashboard gives it"
    );

    followed(&dashboard.url(), &tail::Options::default(), &mut Gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_goes_on_after_the_dashboard_was_away_and_says_so_once() {
    let redis = TestRedis::start().await.unwrap();
    let settings = settings(&redis.url(), &[]);
    let crew = Crew::start(Arc::clone(&settings)).await;
    let dashboard = Dashboard::start(settings);
    let (out, notes) = (Sheet::default(), Sheet::default());
    let (mut out_side, mut notes_side, url) = (out.clone(), notes.clone(), dashboard.url());
    let tailing = tokio::spawn(async move {
        tail::tail(target(&url), &tail::Options::default(), &mut out_side, &mut notes_side).await
    });
    until("events come", async || out.numbers().len() > 5).await;
    let address = dashboard.address.to_string();
    dashboard.end().await;
    until("it is told", async || notes.text().contains("trying again")).await;
    let before = out.numbers().len();
    let again = crate::stage::settings(crew.settings.redis_url.expose(), &[("dashboard.address", &address)]);
    let dashboard = Dashboard::start(again);
    until("events come again", async || out.numbers().len() > before + 5).await;
    let said = notes.text();
    assert_eq!((said.matches("trying again").count(), said.matches("connected again").count()), (1, 1), "{said}");
    tailing.abort();
    dashboard.end().await;
    drop(crew.client.quit().await);
}

#[tokio::test]
async fn tail_does_not_wait_for_a_dashboard_that_never_was_there() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let refused = followed(&url, &tail::Options::default(), &mut io::sink()).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("could not read {url}"));
}
