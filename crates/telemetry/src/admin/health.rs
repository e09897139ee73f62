//! Whether a process is alive (else restart it) and ready (else send it nothing).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// Collects what the parts of a process say of themselves; clones share it.
///
/// Checks decide readiness: a Redis that is away is no reason to restart. Heartbeats decide liveness, and readiness too.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<Vec<Part>>>,
}

/// Reports on one dependency or condition; clones report on the same.
#[derive(Debug, Clone)]
pub struct CheckHandle {
    /// Why it fails and since when, or `None` while all is well.
    failure: Arc<Mutex<Option<Failure>>>,
}

#[derive(Debug)]
struct Failure {
    why: Cow<'static, str>,
    since: Instant,
}

/// What a check says before its first report.
const STARTING: &str = "starting";

/// For how long a check must fail until the answer about liveness tells it too.
const LONG: Duration = Duration::from_secs(60);

/// Shows that one task still turns; clones show it for the same task.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    pulse: Arc<Pulse>,
    health: Health,
}

#[derive(Debug)]
struct Part {
    name: Cow<'static, str>,
    sign: Sign,
}

#[derive(Debug)]
enum Sign {
    Check(CheckHandle),
    /// Decides nothing.
    Note(CheckHandle),
    Heartbeat(Arc<Pulse>),
}

#[derive(Debug)]
struct Pulse {
    start: Instant,
    /// Milliseconds from `start` to the last beat.
    last: AtomicU64,
    max_age: Duration,
}

// === impl Health ===

impl Health {
    /// Begins with no checks: alive and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, failing as "starting" until it is first reported well; checks of one name are all to be well.
    pub fn check(&self, name: impl Into<Cow<'static, str>>) -> CheckHandle {
        let failure = Failure { why: STARTING.into(), since: Instant::now() };
        let handle = CheckHandle { failure: Arc::new(Mutex::new(Some(failure))) };
        self.parts().push(Part { name: name.into(), sign: Sign::Check(handle.clone()) });
        handle
    }

    /// Adds what is reported as a check is, and decides nothing: the process can do without. It is well at first.
    pub fn note(&self, name: impl Into<Cow<'static, str>>) -> CheckHandle {
        let handle = CheckHandle { failure: Arc::default() };
        self.parts().push(Part { name: name.into(), sign: Sign::Note(handle.clone()) });
        handle
    }

    /// Returns what the checks and notes of a name say is wrong; none while all are well, or have only just begun.
    pub fn failure_of(&self, name: &str) -> Option<String> {
        let parts = self.parts();
        let failures = parts.iter().filter(|part| part.name == name).filter_map(|part| match &part.sign {
            Sign::Check(check) | Sign::Note(check) => check.failure().as_ref().map(|failure| failure.why.clone()),
            Sign::Heartbeat(_) => None,
        });
        failures.filter(|why| *why != STARTING).map(Cow::into_owned).next()
    }

    /// Adds a heartbeat: the process is unhealthy when the last beat, or this call, is longer ago than `max_age`.
    pub fn heartbeat(&self, name: impl Into<Cow<'static, str>>, max_age: Duration) -> Heartbeat {
        let pulse = Arc::new(Pulse { start: Instant::now(), last: AtomicU64::new(0), max_age });
        self.parts().push(Part { name: name.into(), sign: Sign::Heartbeat(Arc::clone(&pulse)) });
        Heartbeat { pulse, health: self.clone() }
    }

    /// Says whether every heartbeat is in time.
    pub fn is_alive(&self) -> bool {
        self.parts().iter().all(|part| !matches!(part.sign, Sign::Heartbeat(_)) || part.failure().is_none())
    }

    /// Says whether every check is well and every heartbeat is in time.
    pub fn is_ready(&self) -> bool {
        self.parts().iter().all(|part| part.failure().is_none())
    }

    /// The answer of `/healthz`: what stands still for long is told there too, but a restart would not mend it.
    pub(super) fn liveness(&self) -> (bool, Value) {
        let parts = self.parts();
        let failing: BTreeMap<&str, Cow<'static, str>> = parts
            .iter()
            .filter(|part| matches!(part.sign, Sign::Heartbeat(_)))
            .filter_map(|part| Some((part.name.as_ref(), part.failure()?)))
            .collect();
        let waiting: BTreeMap<&str, String> =
            parts.iter().filter_map(|part| Some((part.name.as_ref(), part.long_failure()?))).collect();
        let mut body = json!({"status": if failing.is_empty() { "ok" } else { "failing" }});
        if !failing.is_empty() {
            body["failing"] = json!(failing);
        }
        if !waiting.is_empty() {
            body["waiting"] = json!(waiting);
        }
        (failing.is_empty(), body)
    }

    /// The answer of `/readyz`.
    pub(super) fn readiness(&self) -> (bool, Value) {
        let parts = self.parts();
        let mut checks: BTreeMap<&str, Option<Cow<'static, str>>> = BTreeMap::new();
        for part in parts.iter().filter(|part| !matches!(part.sign, Sign::Note(_))) {
            let failure = checks.entry(&part.name).or_default();
            if failure.is_none() {
                *failure = part.failure();
            }
        }
        let ready = checks.values().all(Option::is_none);
        let checks: BTreeMap<&str, Value> = checks
            .into_iter()
            .map(|(name, failure)| (name, json!({"ok": failure.is_none(), "detail": failure})))
            .collect();
        (ready, json!({"status": if ready { "ready" } else { "not ready" }, "checks": checks}))
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl CheckHandle ===

impl CheckHandle {
    /// Reports that all is well.
    pub fn ok(&self) {
        *self.failure() = None;
    }

    /// Reports what is wrong, in words for the person who reads `/readyz`.
    pub fn failing(&self, why: impl Into<Cow<'static, str>>) {
        let why = why.into();
        let mut failure = self.failure();
        let since = failure.as_ref().map_or_else(Instant::now, |failure| failure.since);
        *failure = Some(Failure { why, since });
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Heartbeat ===

impl Heartbeat {
    /// Shows that the task turned just now; costs one clock reading.
    pub fn beat(&self) {
        self.pulse.last.store(millis(self.pulse.start.elapsed()), Ordering::Relaxed);
    }

    /// Takes the heartbeat out: its task ended as it should.
    pub fn retire(&self) {
        self.health
            .parts()
            .retain(|part| !matches!(&part.sign, Sign::Heartbeat(pulse) if Arc::ptr_eq(pulse, &self.pulse)));
    }
}

// === impl Part ===

impl Part {
    /// Says what a check that has failed for long says, and for how long.
    fn long_failure(&self) -> Option<String> {
        let Sign::Check(check) = &self.sign else { return None };
        let failure = check.failure();
        let Failure { why, since } = failure.as_ref()?;
        let age = since.elapsed();
        (age >= LONG).then(|| format!("for {} s: {why}", age.as_secs()))
    }

    fn failure(&self) -> Option<Cow<'static, str>> {
        match &self.sign {
            Sign::Check(check) => check.failure().as_ref().map(|failure| failure.why.clone()),
            Sign::Note(_) => None,
            Sign::Heartbeat(pulse) => {
                let last = Duration::from_millis(pulse.last.load(Ordering::Relaxed));
                let age = pulse.start.elapsed().saturating_sub(last);
                (age > pulse.max_age).then(|| {
                    let (age, allowed) = (age.as_secs_f64(), pulse.max_age.as_secs_f64());
                    format!("last heartbeat {age:.1} s ago, allowed {allowed:.1} s").into()
                })
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_must_come_within_its_age() {
        let health = Health::new();
        let decoder = health.heartbeat("decoder", Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(health.is_alive());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!health.is_alive() && !health.is_ready());
        let (_, body) = health.liveness();
        assert_eq!(body["failing"]["decoder"], "last heartbeat 5.0 s ago, allowed 5.0 s");
        decoder.beat();
        assert!(health.is_alive());
        tokio::time::advance(Duration::from_secs(9)).await;
        decoder.retire();
        assert!(health.is_alive());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_long_is_told_beside_liveness_and_leaves_it() {
        let health = Health::new();
        let check = health.check("postgres");
        check.ok();
        check.failing("connection refused");
        tokio::time::advance(LONG / 2).await;
        check.failing("read-only database");
        assert_eq!(health.liveness(), (true, json!({"status": "ok"})));
        tokio::time::advance(LONG / 2).await;
        let waiting = json!({"postgres": "for 60 s: read-only database"});
        assert_eq!(health.liveness(), (true, json!({"status": "ok", "waiting": waiting})));
        check.ok();
        check.failing("again");
        assert_eq!(health.liveness(), (true, json!({"status": "ok"})));
    }

    #[test]
    fn a_new_check_is_not_ready_until_it_is_well() {
        let health = Health::new();
        let check = health.check("redis");
        assert_eq!(health.readiness().1["checks"]["redis"], json!({"ok": false, "detail": "starting"}));
        assert!(health.is_alive());
        check.ok();
        assert_eq!(
            health.readiness(),
            (true, json!({"status": "ready", "checks": {"redis": {"ok": true, "detail": null}}}))
        );
    }

    #[test]
    fn a_note_is_told_of_and_decides_nothing() {
        let health = Health::new();
        let (note, check) = (health.note("postgres"), health.check("postgres"));
        assert_eq!(health.failure_of("postgres"), None, "it has only just begun");
        check.ok();
        note.failing("connection refused");
        assert_eq!(health.failure_of("postgres").as_deref(), Some("connection refused"));
        assert!(health.is_ready() && health.is_alive());
        assert_eq!(health.readiness().1["checks"], json!({"postgres": {"ok": true, "detail": null}}));
        note.ok();
        assert_eq!(health.failure_of("postgres"), None);
    }

    #[test]
    fn checks_of_one_name_must_all_be_well() {
        let health = Health::new();
        let (first, second) = (health.check("redis"), health.check("redis"));
        first.failing("away");
        second.ok();
        assert!(!health.is_ready());
        assert_eq!(health.readiness().1["checks"]["redis"]["detail"], "away");
    }
}
