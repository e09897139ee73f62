//! What is to be said of a pipeline. Pure: everything it knows is handed in, and what is not known is never good.

use std::time::{Duration, Instant};

use crate::api::{Flow, Metrics, Worker};
use crate::format::{age, count, count_or_unknown, duration, duration_or_unknown, host, plain, rate};
use crate::state::{Link, State};

/// Up to how far behind the relay rows are current, in seconds.
const CURRENT: f64 = 10.0;

/// From how far behind on, with no end in sight, it is no longer a warning, in seconds.
const FAR_BEHIND: f64 = 60.0;

/// From which error rate on many entries fail, in percent.
const FAILING: f64 = 1.0;

/// For how long nothing must be written before it is called a stall, in seconds.
const STALLED: f64 = 20.0;

/// A stream that is full within this time is worth a word, in seconds.
const FULL_SOON: f64 = 6.0 * 3600.0;

/// Fewer entries than these are no backlog, however they grow.
const SMALL: u64 = 1_000;

/// How something stands; the later the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Not known, and so not good.
    Unknown,
    /// It works, but not as it should.
    Degraded,
    /// Events do not get through.
    Down,
}

/// A step on the way of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Relay,
    Stream,
    Workers,
    Tables,
}

/// One thing that is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) step: Option<Step>,
    /// What it is, in a few words.
    pub(crate) headline: String,
    /// What that means, in a sentence.
    pub(crate) why: String,
}

/// A step with its figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) step: Step,
    pub(crate) level: Level,
    /// What comes in and what goes out, a second.
    pub(crate) rates: [String; 2],
    /// Names and figures.
    pub(crate) figures: Vec<(&'static str, String)>,
}

/// What is said first, and all that is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    pub(crate) headline: String,
    pub(crate) why: String,
    /// The worst first.
    pub(crate) findings: Vec<Finding>,
}

/// Judges what is known: with the words of the dashboard's page (`ui/src/verdict.ts`), from the same figures.
pub(crate) fn verdict(state: &State, now: Instant) -> Verdict {
    let (findings, well) = judge(state, now);
    match (findings.first(), well) {
        (Some(worst), _) => {
            Verdict { level: worst.level, headline: worst.headline.clone(), why: worst.why.clone(), findings }
        }
        (None, well) => {
            let Said { headline, why } = well.unwrap_or_default();
            Verdict { level: Level::Good, headline, why, findings }
        }
    }
}

/// Returns the four steps with their figures; the figures are the last ones, even where they are stale.
pub(crate) fn stages(state: &State, now: Instant) -> [Stage; 4] {
    let (findings, _) = judge(state, now);
    let known = state.figures(now).is_some();
    let level = |step| {
        let worst = findings.iter().filter(|finding| finding.step == Some(step)).map(|finding| finding.level).max();
        if known { worst.unwrap_or(Level::Good) } else { Level::Unknown }
    };
    let (read, applied, rows) = (rate(state.read(now)), rate(state.applied(now)), rate(state.rows(now)));
    let metrics = state.last_figures();
    let of = |figure: fn(&Metrics) -> u64| count_or_unknown(metrics.map(figure));
    let ingest = state.ingest.last();
    let relay = metrics.map_or("?", |metrics| host(&metrics.firehose_status.url));
    let relay = if relay.is_empty() { "nobody ingests".to_owned() } else { plain(relay) };
    let cursor = metrics.and_then(|metrics| metrics.firehose_status.current_cursor.as_deref());
    let length = of(|metrics| metrics.firehose_status.stream_length);
    let length = match (metrics, ingest.and_then(|ingest| ingest.stream_cap)) {
        (Some(metrics), Some(cap)) if cap > 0 => {
            let share = metrics.firehose_status.stream_length as f64 / cap as f64 * 100.0;
            format!("{length} of {} ({share:.0}%)", count(cap))
        }
        _ => length,
    };
    let alive = metrics.and_then(|metrics| workers_alive(state, metrics, now));
    let lag = duration_or_unknown(ingest.and_then(|ingest| ingest.lag_seconds));
    let rows_age = match metrics.and_then(|metrics| metrics.rows_age_seconds) {
        Some(age) => duration_or_unknown(age),
        None => "?".to_owned(),
    };
    let database = state.ready.last().map_or("?", |ready| ready.checks.database.as_str());
    [
        Stage {
            step: Step::Relay,
            level: level(Step::Relay),
            rates: [read.clone(), read.clone()],
            figures: vec![("relay", relay), ("lag", lag), ("cursor", cursor.map_or_else(|| "?".to_owned(), plain))],
        },
        Stage {
            step: Step::Stream,
            level: level(Step::Stream),
            rates: [read, applied.clone()],
            figures: vec![
                ("entries", length),
                ("pending", of(|metrics| metrics.firehose_status.queue_depth)),
                ("bulk", count_or_unknown(ingest.map(|ingest| ingest.bulk_length))),
            ],
        },
        Stage {
            step: Step::Workers,
            level: level(Step::Workers),
            rates: [applied.clone(), applied],
            figures: vec![
                ("alive", count_or_unknown(alive)),
                ("failed", metrics.map_or_else(|| "?".to_owned(), |metrics| format!("{:.2}%", metrics.error_rate))),
                ("letters", of(|metrics| metrics.firehose_status.dead_letter_length)),
            ],
        },
        Stage {
            step: Step::Tables,
            level: level(Step::Tables),
            rates: [rows, String::new()],
            figures: vec![
                ("rows", of(|metrics| metrics.db_records)),
                ("age", rows_age),
                ("postgres", if database.is_empty() { "?".to_owned() } else { plain(database) }),
            ],
        },
    ]
}

/// What is said where all is well.
#[derive(Debug, Default)]
struct Said {
    headline: String,
    why: String,
}

/// Lists what is not good, the worst first; else says what is.
fn judge(state: &State, now: Instant) -> (Vec<Finding>, Option<Said>) {
    if let Some(finding) = without_figures(state, now) {
        return (vec![finding], None);
    }
    let Some(metrics) = state.figures(now) else { return (Vec::new(), None) };
    let flow = flow(state, metrics, now);
    let mut findings = faults(state, metrics, &flow, now);
    let mut well = None;
    if findings.is_empty() {
        match of_rows(state, metrics, &flow, now) {
            Ok(said) => well = Some(said),
            Err(finding) => findings.push(finding),
        }
    }
    if state.ready.fresh(now).is_some_and(|ready| ready.checks.memory == "critical") {
        let why = "95% of the memory of the dashboard's machine or pod is in use.".to_owned();
        findings.push(finding(Level::Degraded, None, "Memory is nearly full", why));
    }
    // Within a level the order stands.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    (findings, well)
}

fn finding(level: Level, step: Option<Step>, headline: &str, why: String) -> Finding {
    Finding { level, step, headline: headline.to_owned(), why }
}

/// Returns how fast events come and go, and who writes them; of a dashboard that does not tell, what can be told without it.
fn flow(state: &State, metrics: &Metrics, now: Instant) -> Flow {
    if let Some(flow) = &metrics.flow {
        return flow.clone();
    }
    let alive = |workers: &Vec<Worker>| workers.iter().filter(|worker| worker.alive).count() as u64;
    Flow {
        stalled_seconds: state.stalled().as_secs_f64(),
        incoming_per_second: state.read(now),
        written_per_second: state.applied(now),
        workers_alive: state.workers.fresh(now).map(alive),
        ..Flow::default()
    }
}

/// Says why there is nothing to judge.
fn without_figures(state: &State, now: Instant) -> Option<Finding> {
    let found = |level, headline: &str, why: String| Some(finding(level, None, headline, why));
    let is_redis = state.problem().is_some_and(|problem| problem.to_lowercase().starts_with("redis "));
    let problem = state.problem().map(sentence);
    if let Link::Refused(why) = &state.link {
        return found(Level::Down, "No access", sentence(why));
    }
    match (state.last_figures(), state.age(now)) {
        (Some(_), Some(age_now)) if state.is_stale(now) && is_redis && state.link == Link::Open => {
            let why = "Nothing is written until it is back; ingest then resumes at its cursor.";
            found(Level::Down, "Redis not responding", format!("Last update {} ago. {why}", age(age_now)))
        }
        (Some(_), Some(age_now)) if state.is_stale(now) => {
            let why = problem.unwrap_or_else(|| "The dashboard answers, but sends no metrics.".to_owned());
            found(Level::Down, &format!("Stale: last update {} ago", age(age_now)), why)
        }
        (Some(_), _) => None,
        (None, _) => match problem {
            Some(why) if is_redis => found(Level::Down, "Redis not responding", why),
            Some(why) => found(Level::Down, "No metrics yet", why),
            None => found(Level::Unknown, "Connecting", "Waiting for the first metrics.".to_owned()),
        },
    }
}

/// Returns how many workers are alive.
pub(crate) fn workers_alive(state: &State, metrics: &Metrics, now: Instant) -> Option<u64> {
    flow(state, metrics, now).workers_alive
}

/// Lists what stands still, the nearest to the rows first.
fn faults(state: &State, metrics: &Metrics, flow: &Flow, now: Instant) -> Vec<Finding> {
    let mut found = Vec::new();
    let waiting = waits(metrics, flow);
    let or = |waiting: &str, nothing: &str| if waiting.is_empty() { nothing.to_owned() } else { waiting.to_owned() };
    let is_unfit = state.ready.fresh(now).is_some_and(|ready| ready.checks.database == "unhealthy");
    if flow.database == "unreachable" || flow.database != "writing" && is_unfit {
        let why = format!(
            "{} Events stay in the stream and are written once it is back.",
            or(&waiting, "Nothing waits yet.")
        );
        found.push(finding(Level::Down, Some(Step::Tables), "PostgreSQL not responding", why));
    }
    if flow.workers_alive == Some(0) {
        let why = or(&waiting, "Nothing waits yet; what comes is not written.");
        found.push(finding(Level::Down, Some(Step::Workers), "No workers running", why));
    } else if flow.stalled_seconds >= STALLED {
        let time = Duration::try_from_secs_f64(flow.stalled_seconds).unwrap_or_default();
        let why = format!("Nothing written for {}. {waiting}", age(time)).trim_end().to_owned();
        found.push(finding(Level::Down, Some(Step::Workers), "Workers stalled", why));
    }
    let relay = &metrics.firehose_status;
    if relay.url.is_empty() && !relay.connected {
        let why = "No ingest has reported in the last 10 s. No new events arrive.".to_owned();
        found.push(finding(Level::Down, Some(Step::Relay), "No ingest running", why));
    } else if !relay.connected {
        let rest = or(&waiting, "All events received so far are in PostgreSQL.");
        let why = format!("Ingest is retrying {}. {rest}", plain(host(&relay.url)));
        found.push(finding(Level::Down, Some(Step::Relay), "Relay not connected", why));
    }
    if let Some(lacking) = &metrics.redis_lacking {
        found.push(finding(Level::Down, Some(Step::Stream), "Redis permissions missing", sentence(lacking)));
    }
    found
}

/// Says what the age of rows says, where everything runs: that all is well, or what is not.
fn of_rows(state: &State, metrics: &Metrics, flow: &Flow, now: Instant) -> Result<Said, Finding> {
    let relay = &metrics.firehose_status;
    let waiting = waits(metrics, flow);
    let not =
        |level, step, headline: &str, why: String| Err(finding(level, Some(step), headline, why.trim().to_owned()));
    let letters = match relay.dead_letter_length {
        0 => String::new(),
        1 => " 1 dead letter needs attention.".to_owned(),
        many => format!(" {} dead letters need attention.", count(many)),
    };
    let Some(lag) = behind(metrics, flow) else {
        if flow.waiting == Some(0) && metrics.events_processed == 0 {
            let why = "Connected to the relay. Nothing has arrived yet.".to_owned();
            return not(Level::Unknown, Step::Tables, "Waiting for the first events", why);
        }
        let why = format!("{waiting} Ingest has not reported the time of its newest event.");
        return not(Level::Unknown, Step::Tables, "Age of rows unknown", why);
    };
    let speeds =
        format!("{} written per second, {} incoming.", speed(flow.written_per_second), speed(flow.incoming_per_second));
    let rows = duration(lag);
    if state.ingest.fresh(now).is_some_and(|ingest| ingest.paused) {
        let why = format!("The stream is full. Ingest resumes once workers have made room. {waiting}");
        return not(Level::Degraded, Step::Stream, &format!("Ingest is paused, rows {rows} behind"), why);
    }
    if lag > CURRENT {
        // Where nothing waits here, what is late waits at the relay, and ingest reads it as fast as it comes.
        let drains = flow.drain_seconds.filter(|seconds| *seconds > 0.0);
        let left = match (flow.waiting, drains) {
            (Some(0), _) => " Everything received is written; the relay is sending older events.".to_owned(),
            (_, Some(seconds)) => format!(" Caught up in about {}.", duration(seconds)),
            (_, None) => fills(flow),
        };
        let why = format!("{waiting} {speeds}{left}");
        if flow.waiting == Some(0) || drains.is_some() {
            return not(Level::Degraded, Step::Tables, &format!("Catching up: rows {rows} behind"), why);
        }
        let level = if lag > FAR_BEHIND { Level::Down } else { Level::Degraded };
        return not(level, Step::Tables, &format!("Rows {rows} behind"), why);
    }
    if flow.stream_full_seconds.is_some_and(|seconds| seconds < FULL_SOON) && relay.stream_length > SMALL {
        let held = "Rows are current, but another consumer group holds the stream.";
        let held = if flow.waiting.unwrap_or_default() > SMALL { waiting.as_str() } else { held };
        let why = format!("{held}{} {speeds}", fills(flow));
        return not(Level::Degraded, Step::Stream, &format!("Backlog growing, rows {rows} behind"), why);
    }
    if metrics.error_rate >= FAILING {
        let why = format!("{:.2}% of all entries failed permanently.{letters}", metrics.error_rate);
        return not(Level::Degraded, Step::Workers, "Many entries failing", why);
    }
    if let Some(quiet) = flow.quiet_seconds.filter(|quiet| *quiet > CURRENT) {
        let quiet = age(Duration::try_from_secs_f64(quiet).unwrap_or_default());
        let why = format!("Connected. No events for {quiet}; all earlier ones are in PostgreSQL.{letters}");
        return Ok(Said { headline: "Quiet".to_owned(), why });
    }
    Ok(Said { headline: format!("Current: rows {rows} behind"), why: format!("{speeds}{letters}") })
}

/// Returns how far rows are behind the relay, in seconds, without the time in which it had nothing to send.
fn behind(metrics: &Metrics, flow: &Flow) -> Option<f64> {
    let age = metrics.rows_age_seconds.flatten()?;
    Some(if flow.waiting == Some(0) { (age - flow.quiet_seconds.unwrap_or_default()).max(0.0) } else { age })
}

/// Says what waits, and for how long; nothing where nothing waits.
fn waits(metrics: &Metrics, flow: &Flow) -> String {
    let Some(waiting) = flow.waiting.filter(|waiting| *waiting > 0) else { return String::new() };
    let oldest = metrics.rows_age_seconds.flatten();
    let oldest = oldest.map(|age| format!(", the oldest {} old", duration(age))).unwrap_or_default();
    let least = if flow.waiting_exact { "" } else { "At least " };
    let entries = if waiting == 1 { "entry" } else { "entries" };
    format!("{least}{} {entries} not in PostgreSQL yet{oldest}.", count(waiting))
}

fn fills(flow: &Flow) -> String {
    let full = flow.stream_full_seconds.map(|seconds| format!(" The stream is full in about {}.", duration(seconds)));
    full.unwrap_or_default()
}

fn speed(value: Option<f64>) -> String {
    format!("{} events", rate(value).trim_end_matches("/s"))
}

fn sentence(text: &str) -> String {
    let text = plain(text);
    let mut characters = text.chars();
    let begun: String =
        characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default();
    if begun.ends_with(['.', '!', '?']) { begun } else { format!("{begun}.") }
}

// === impl Level ===

impl Level {
    /// Returns it in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    /// Returns the exit code of `penstock status`: 0 good, 1 degraded or not known, 2 down.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Unknown | Self::Degraded => 1,
            Self::Down => 2,
        }
    }
}

// === impl Step ===

impl Step {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Stream => "stream",
            Self::Workers => "workers",
            Self::Tables => "tables",
        }
    }
}
