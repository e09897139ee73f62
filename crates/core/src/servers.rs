//! The servers a service depends on: one line when one goes, one when it is back.
//!
//! Whoever speaks to a server records what came of it; what else fails because a server [is away](Server::is_away) is for the
//! debug level. Clones of a [`Server`] tell of the same one.

mod failing;
mod outage;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

pub use failing::{Circumstances, Failing, is_unanswered};

use crate::causes::innermost;
use crate::units::seconds;
use outage::{Notice, Outage};

/// A server that a service depends on; clones tell of the same one.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A relay or PDS.
    Relay,
    /// A Redis.
    Redis,
    /// A PostgreSQL.
    Postgres,
    /// An OpenTelemetry collector.
    Collector,
    /// The API server of a Kubernetes cluster.
    Kubernetes,
    /// The directory of did:plc.
    Directory,
}

/// Returns how many events a service is behind, where it knows.
type Behind = Box<dyn Fn() -> Option<u64> + Send + Sync>;

struct Shared {
    kind: Kind,
    /// What its absence means, in words for the line.
    means: &'static str,
    /// The longest pause between two tries.
    every: Duration,
    behind: Option<Behind>,
    state: Mutex<State>,
}

struct State {
    /// Masked.
    address: String,
    outage: Outage,
    /// Why it is away.
    cause: String,
    /// When it answered last, or this was made.
    answered: Instant,
}

// === impl Kind ===

impl Kind {
    /// Names it as lines do.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Redis => "redis",
            Self::Postgres => "postgresql",
            Self::Collector => "collector",
            Self::Kubernetes => "kubernetes api",
            Self::Directory => "directory",
        }
    }
}

// === impl Server ===

impl Server {
    /// Makes one that counts as answering. `address` is shown, and must hold no secret; `means` says what it means that the
    /// server is away, and `every` is the longest pause between two tries.
    #[must_use]
    pub fn new(kind: Kind, address: impl fmt::Display, means: &'static str, every: Duration) -> Self {
        Self::made(kind, address.to_string(), means, every, None)
    }

    /// As [`new`](Self::new); when it is back, the line says how many events the service is behind, where that is known.
    #[must_use]
    pub fn with_backlog(
        kind: Kind,
        address: impl fmt::Display,
        means: &'static str,
        every: Duration,
        behind: impl Fn() -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        Self::made(kind, address.to_string(), means, every, Some(Box::new(behind)))
    }

    fn made(kind: Kind, address: String, means: &'static str, every: Duration, behind: Option<Behind>) -> Self {
        let state = State { address, outage: Outage::default(), cause: String::new(), answered: Instant::now() };
        Self { shared: Arc::new(Shared { kind, means, every, behind, state: Mutex::new(state) }) }
    }

    /// Takes another address for the server: what was failed over to, for instance.
    pub fn moved(&self, address: impl fmt::Display) {
        self.state().address = address.to_string();
    }

    /// Records that it did not answer.
    pub fn failed(&self, error: &(dyn Error + 'static)) {
        self.failed_because(&innermost(error));
    }

    /// Records that it did not answer, and why.
    pub fn failed_because(&self, cause: &str) {
        self.record(cause, Outage::failed);
    }

    /// Records that it ended a connection, and why; unless the next one is made at once, it is away.
    pub fn lost_because(&self, cause: &str) {
        self.record(cause, Outage::lost);
    }

    /// Records an answer.
    pub fn answered(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.answered = now;
        let notice = state.outage.answered(now);
        self.tell(state, notice);
    }

    /// Returns whether it does not answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.state().outage.away_since().is_some()
    }

    /// Returns whether it does not answer, or did not so short a time ago: what it caused may show only now.
    #[must_use]
    pub fn was_away_within(&self, time: Duration) -> bool {
        let state = self.state();
        state.outage.away_since().is_some() || state.outage.last_end().is_some_and(|end| end.elapsed() < time)
    }

    /// Returns the circumstances of a failure, for [`Failing`].
    #[must_use]
    pub fn circumstances(&self, error: &(dyn Error + 'static)) -> Circumstances {
        Circumstances { is_away: self.is_away(), is_unanswered: is_unanswered(error) }
    }

    /// Returns for how long it has not answered, or nobody asked.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.state().answered.elapsed()
    }

    /// Returns that it does not answer and why, for `/readyz`; none while it answers.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let state = self.state();
        state.outage.away_since()?;
        Some(format!("{} {} does not answer: {}", self.shared.kind.name(), state.address, state.cause))
    }

    fn record(&self, cause: &str, event: fn(&mut Outage, Instant) -> Option<Notice>) {
        let mut state = self.state();
        let notice = event(&mut state.outage, Instant::now());
        cause.clone_into(&mut state.cause);
        if notice.is_none() {
            debug!(server = self.shared.kind.name(), cause, "server does not answer");
        }
        self.tell(state, notice);
    }

    fn tell(&self, state: MutexGuard<'_, State>, notice: Option<Notice>) {
        let Some(notice) = notice else { return };
        let (address, cause) = (state.address.clone(), state.cause.clone());
        // Not while others wait for it: a backlog may be asked of somebody else.
        drop(state);
        let Shared { kind, means, every, behind, .. } = &*self.shared;
        let (server, every) = (kind.name(), spoken(*every));
        let behind = behind.as_ref().and_then(|behind| behind());
        let told_behind = behind.map(|events| format!(", {} events behind", grouped(events))).unwrap_or_default();
        match notice {
            Notice::Gone { untold } => {
                let before = match untold {
                    0 => String::new(),
                    untold => format!(" (and {untold} times before, each too short to be told)"),
                };
                warn!(
                    server,
                    "{server} {address} does not answer: {cause}{before}; {means}, trying at least every {every}"
                );
            }
            Notice::Still { after } => {
                let after = spoken(after);
                warn!(
                    server,
                    "{server} {address} has not answered for {after}: {cause}; {means}, trying at least every {every}"
                );
            }
            Notice::Back { after } => {
                info!(
                    server,
                    seconds = seconds(after),
                    behind,
                    "{server} answers again after {}{told_behind}",
                    spoken(after)
                );
            }
            Notice::Blinked { after } => {
                let took = spoken(after);
                let seconds = seconds(after);
                info!(
                    server,
                    seconds,
                    behind,
                    "{server} answers again after {took}{told_behind}: it ended a connection ({cause})"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("kind", &self.shared.kind).finish_non_exhaustive()
    }
}

/// Writes a time for a person: `0.4 s`, `34 s`, `12 min`, `2 h 5 min`.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        _ if time.subsec_nanos() == 0 && seconds < 120 => format!("{seconds} s"),
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..120 => format!("{:.0} s", time.as_secs_f64()),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// Writes a number in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_written_for_a_person() {
        let times = [(400, "0.4 s"), (5_000, "5 s"), (34_210, "34 s"), (300_000, "5 min"), (7_500_000, "2 h 5 min")];
        for (ms, text) in times {
            assert_eq!(spoken(Duration::from_millis(ms)), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (14_280, "14,280"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn what_is_away_says_so_with_its_address_and_cause() {
        let server = Server::new(Kind::Redis, "redis://cache:6379", "nothing is lost", Duration::from_secs(2));
        assert_eq!(server.failure(), None);
        server.failed(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(server.failure().unwrap(), "redis redis://cache:6379 does not answer: connection refused");
        assert!(server.is_away());
    }
}
