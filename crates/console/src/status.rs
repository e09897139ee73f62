//! How a pipeline is, told once: on one screen, as JSON, and by an exit code.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::api::Metrics;
use crate::client::Client;
use crate::format::{age, count, plain, rate};
use crate::state::{State, Update};
use crate::target::Target;
use crate::verdict::{Level, Stage, Step, Verdict, stages, verdict, workers_alive};
use crate::{chain, link};

/// How long to wait beyond the pause for figures that are newer than the first.
const NEWER: Duration = Duration::from_secs(4);

/// How many workers are listed for a person.
const WORKERS: usize = 12;

/// How a pipeline is.
#[derive(Debug)]
pub struct Status {
    /// What is said first.
    pub(crate) verdict: Verdict,
    stages: [Stage; 4],
    state: State,
    /// Where it was asked.
    pub(crate) dashboard: String,
    /// When, as the monotonic clock has it.
    now: Instant,
    at: Timestamp,
    /// The resource, where there is one.
    pub(crate) resource: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'s> {
    level: &'static str,
    stage: Option<&'static str>,
    headline: &'s str,
    why: &'s str,
}

/// Asks a dashboard, twice, `pause` from each other: what moves is known only then.
pub async fn status(target: Target, pause: Duration) -> Status {
    look(&Client::direct(target), pause).await
}

pub(crate) async fn look(client: &Client, pause: Duration) -> Status {
    let mut state = State::default();
    let answered = match client.get::<Metrics>("/api/metrics").await {
        Ok(metrics) => {
            state.apply(Update::Metrics(Box::new(metrics)), Instant::now());
            true
        }
        Err(error) => {
            state.apply(Update::Link(link(&error)), Instant::now());
            false
        }
    };
    if answered {
        ask(client, &mut state).await;
        sleep(pause).await;
        let first = state.last_figures().map(|metrics| metrics.last_update.clone());
        let until = Instant::now() + NEWER;
        loop {
            match client.get::<Metrics>("/api/metrics").await {
                Ok(metrics) => {
                    let is_newer = Some(&metrics.last_update) != first.as_ref();
                    state.apply(Update::Metrics(Box::new(metrics)), Instant::now());
                    if is_newer || Instant::now() >= until {
                        break;
                    }
                }
                Err(error) => {
                    // It went between the two looks: the first one says nothing of now.
                    state = State::default();
                    state.apply(Update::Link(link(&error)), Instant::now());
                    break;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
        if state.last_figures().is_some() {
            ask(client, &mut state).await;
        }
    }
    Status::of(state, client.target().to_string(), Instant::now(), Timestamp::now())
}

/// Asks for what is told beside the figures.
async fn ask(client: &Client, state: &mut State) {
    let workers = client.get("/api/workers").await.map_err(|error| chain(&error));
    state.apply(Update::Workers(workers), Instant::now());
    let ingest = client.get("/api/ingest").await.map_err(|error| chain(&error));
    state.apply(Update::Ingest(ingest), Instant::now());
    let ready = client.get_either("/ready").await.map_err(|error| chain(&error));
    state.apply(Update::Ready(ready), Instant::now());
}

// === impl Status ===

impl Status {
    pub(crate) fn of(state: State, dashboard: String, now: Instant, at: Timestamp) -> Self {
        let (verdict, stages) = (verdict(&state, now), stages(&state, now));
        Self { verdict, stages, state, dashboard, now, at, resource: None }
    }

    /// Returns how it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.verdict.level
    }

    /// Writes it for a person, on one screen.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let Verdict { level, headline, why, findings } = &self.verdict;
        // Writing to memory does not fail.
        let _ = writeln!(out, "{}: {headline}. {why}", level.word());
        let _ = writeln!(out, "{}, {}", self.dashboard, at(self.at));
        if let Some(old) = self.state.age(self.now).filter(|_| self.state.is_stale(self.now)) {
            let _ = writeln!(out, "figures as of {} ago", age(old));
        }
        if self.state.last_figures().is_some() {
            out.push('\n');
            for Stage { step, level, rates: [read, written], figures } in &self.stages {
                let figures: Vec<_> = figures.iter().map(|(name, figure)| format!("{name} {figure}")).collect();
                let written = if written.is_empty() { String::new() } else { format!("out {written}") };
                let line =
                    format!("{:<8} {:<9} in {read:<9} {written:<13} {}", step.word(), level.word(), figures.join(", "));
                let _ = writeln!(out, "{}", line.trim_end());
            }
        }
        if let Some(workers) = self.state.workers.last().filter(|workers| !workers.is_empty()) {
            let _ = writeln!(out, "\nworkers, of {}:", workers.len());
            let mut sorted: Vec<_> = workers.iter().collect();
            sorted.sort_by_key(|worker| !worker.alive);
            for worker in sorted.iter().take(WORKERS) {
                let _ = writeln!(
                    out,
                    "  {:<40} {:<5} {:>9}  pending {:<8} asked {} ago",
                    plain(&worker.name),
                    if worker.alive { "alive" } else { "gone" },
                    rate(worker.entries_per_second),
                    count(worker.pending),
                    age(Duration::try_from_secs_f64(worker.idle_seconds).unwrap_or_default()),
                );
            }
            if workers.len() > WORKERS {
                let _ = writeln!(out, "  and {} more", workers.len() - WORKERS);
            }
        }
        if findings.len() > 1 {
            let _ = writeln!(out, "\nbesides:");
            for finding in findings.iter().skip(1) {
                let _ = writeln!(out, "  {}: {}. {}", finding.level.word(), finding.headline, finding.why);
            }
        }
        out
    }

    /// Writes it as one JSON object; `docs/console.md` describes it. What is not known is null.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Verdict { level, headline, why, findings } = &self.verdict;
        let problems: Vec<_> = findings
            .iter()
            .map(|finding| Problem {
                level: finding.level.word(),
                stage: finding.step.map(Step::word),
                headline: &finding.headline,
                why: &finding.why,
            })
            .collect();
        let metrics = self.state.figures(self.now);
        let status = metrics.map(|metrics| &metrics.firehose_status);
        let ingest = self.state.ingest.fresh(self.now);
        let workers = self.state.workers.fresh(self.now);
        let ready = self.state.ready.fresh(self.now);
        let tables: Option<Map<String, Value>> = metrics.map(|metrics| {
            metrics.stats.tables().into_iter().map(|(name, rows)| (name.to_owned(), rows.into())).collect()
        });
        let list: Option<Vec<_>> = workers.map(|workers| {
            let shown = workers.iter().map(|worker| {
                json!({
                    "name": worker.name, "alive": worker.alive, "pending": worker.pending,
                    "idleSeconds": worker.idle_seconds, "entriesPerSecond": worker.entries_per_second,
                })
            });
            shown.collect()
        });
        let of = |step: Step| self.stages.iter().find(|stage| stage.step == step).map(|stage| stage.level.word());
        let answer = json!({
            "status": level.word(),
            "headline": headline,
            "why": why,
            "problems": problems,
            "resource": self.resource,
            "dashboard": self.dashboard,
            "at": at(self.at),
            "version": env!("CARGO_PKG_VERSION"),
            "relay": {
                "status": of(Step::Relay),
                "connected": status.map(|status| status.connected),
                "url": status.map(|status| &status.url).filter(|url| !url.is_empty()),
                "cursor": status.and_then(|status| status.current_cursor.as_ref()),
                "eventsPerSecond": self.state.read(self.now),
                "lagSeconds": ingest.and_then(|ingest| ingest.lag_seconds),
                "gaps": ingest.map(|ingest| ingest.gaps),
                "dataLoss": ingest.map(|ingest| ingest.data_loss),
            },
            "stream": {
                "status": of(Step::Stream),
                "length": status.map(|status| status.stream_length),
                "cap": ingest.and_then(|ingest| ingest.stream_cap),
                "pending": status.map(|status| status.queue_depth),
                "bulkLength": ingest.map(|ingest| ingest.bulk_length),
                "paused": ingest.map(|ingest| ingest.paused),
            },
            "workers": {
                "status": of(Step::Workers),
                "alive": metrics.and_then(|metrics| workers_alive(&self.state, metrics, self.now)),
                "eventsPerSecond": self.state.applied(self.now),
                "errorRatePercent": metrics.map(|metrics| metrics.error_rate),
                "deadLetters": status.map(|status| status.dead_letter_length),
                "list": list,
            },
            "tables": {
                "status": of(Step::Tables),
                "database": ready.map(|ready| &ready.checks.database),
                "ageSeconds": metrics.and_then(|metrics| metrics.rows_age_seconds).flatten(),
                "rows": metrics.map(|metrics| metrics.db_records),
                "rowsPerSecond": self.state.rows(self.now),
                "byTable": tables,
            },
        });
        format!("{answer:#}\n")
    }
}

/// Returns a time to the second.
fn at(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::situations::{Situation, all};

    fn told(situation: &Situation) -> Status {
        let (state, now) = situation.play();
        Status::of(state, "http://127.0.0.1:8000".to_owned(), now, "2026-07-04T14:38:08.5Z".parse().unwrap())
    }

    #[test]
    fn what_flows_is_one_screen() {
        let text = told(&Situation::default()).to_text();
        let expected = "good: Current: rows 0.8 s behind. 498 events written per second, 501 events incoming. 2 dead letters need attention.
http://127.0.0.1:8000, 2026-07-04T14:38:08Z

relay    good      in 500/s     out 500/s     relay relay.test, lag 0.4 s, cursor 6000
stream   good      in 500/s     out 500/s     entries 1,234 of 500,000 (0%), pending 80, bulk 0
workers  good      in 500/s     out 500/s     alive 2, failed 0.01%, letters 2
tables   good      in 500/s                   rows 1,239,567, age 0.8 s, postgres healthy

workers, of 2:
  bluesky-worker-5d8f-a                    alive     250/s  pending 40       asked 0 s ago
  bluesky-worker-5d8f-b                    alive     250/s  pending 40       asked 0 s ago
";
        assert_eq!(text, expected);
    }

    #[test]
    fn text_json_and_exit_code_say_the_same_in_every_situation() {
        for (name, situation, level, headline) in all() {
            let status = told(&situation);
            let json: Value = serde_json::from_str(&status.to_json()).unwrap();
            assert!(status.to_text().starts_with(&format!("{}: {headline}. ", level.word())), "{name}");
            assert_eq!((&json["status"], &json["headline"]), (&json!(level.word()), &json!(headline)), "{name}");
            let code = match level {
                Level::Good => 0,
                Level::Down => 2,
                _ => 1,
            };
            assert_eq!(status.level().exit_code(), code, "{name}");
            assert_eq!(json["problems"].as_array().unwrap().is_empty(), level == Level::Good, "{name}");
            // Figures that are stale are not told as if they were of now.
            let is_old = status.state.is_stale(status.now) || situation.looks == 0;
            assert_eq!(json["stream"]["length"].is_null(), is_old, "{name}");
            assert!(status.to_text().lines().count() <= 24, "{name}");
        }
    }

    #[test]
    fn a_thousand_workers_are_still_one_screen_and_names_move_no_terminal() {
        let mut situation = Situation::default();
        let worker = situation.workers.as_ref().unwrap()[0].clone();
        let workers = (0..1000).map(|n| crate::api::Worker { name: format!("w\u{1b}[2J{n}"), ..worker.clone() });
        situation.workers = Some(workers.collect());
        let text = told(&situation).to_text();
        assert!(text.contains("and 988 more") && !text.contains('\u{1b}') && text.lines().count() <= 24, "{text}");
    }
}
