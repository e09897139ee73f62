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
    /// Why it fails, or `None` while all is well.
    failure: Arc<Mutex<Option<Cow<'static, str>>>>,
}

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
        let handle = CheckHandle { failure: Arc::new(Mutex::new(Some("starting".into()))) };
        self.parts().push(Part { name: name.into(), sign: Sign::Check(handle.clone()) });
        handle
    }

    /// Adds a heartbeat: the process is unhealthy when the last beat, or this call, is longer ago than `max_age`.
    pub fn heartbeat(&self, name: impl Into<Cow<'static, str>>, max_age: Duration) -> Heartbeat {
        let pulse = Arc::new(Pulse { start: Instant::now(), last: AtomicU64::new(0), max_age });
        self.parts().push(Part { name: name.into(), sign: Sign::Heartbeat(Arc::clone(&pulse)) });
        Heartbeat { pulse, health: self.clone() }
    }

    /// Says whether every heartbeat is in time.
    pub fn is_alive(&self) -> bool {
        self.parts().iter().all(|part| matches!(part.sign, Sign::Check(_)) || part.failure().is_none())
    }

    /// Says whether every check is well and every heartbeat is in time.
    pub fn is_ready(&self) -> bool {
        self.parts().iter().all(|part| part.failure().is_none())
    }

    /// The answer of `/healthz`.
    pub(super) fn liveness(&self) -> (bool, Value) {
        let parts = self.parts();
        let failing: BTreeMap<&str, Cow<'static, str>> = parts
            .iter()
            .filter(|part| matches!(part.sign, Sign::Heartbeat(_)))
            .filter_map(|part| Some((part.name.as_ref(), part.failure()?)))
            .collect();
        match failing.is_empty() {
            true => (true, json!({"status": "ok"})),
            false => (false, json!({"status": "failing", "failing": failing})),
        }
    }

    /// The answer of `/readyz`.
    pub(super) fn readiness(&self) -> (bool, Value) {
        let parts = self.parts();
        let mut checks: BTreeMap<&str, Option<Cow<'static, str>>> = BTreeMap::new();
        for part in parts.iter() {
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
        *self.failure() = Some(why.into());
    }

    fn failure(&self) -> MutexGuard<'_, Option<Cow<'static, str>>> {
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
    fn failure(&self) -> Option<Cow<'static, str>> {
        match &self.sign {
            Sign::Check(check) => check.failure().clone(),
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
    fn checks_of_one_name_must_all_be_well() {
        let health = Health::new();
        let (first, second) = (health.check("redis"), health.check("redis"));
        first.failing("away");
        second.ok();
        assert!(!health.is_ready());
        assert_eq!(health.readiness().1["checks"]["redis"]["detail"], "away");
    }
}
