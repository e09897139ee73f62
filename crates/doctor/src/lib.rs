//! `penstock doctor`: looks at Redis and PostgreSQL, changes nothing, and says in one line each what is there and what to do.
//!
//! The way through: `look` asks both servers and fills in `seen::Seen`; `judge` draws findings from it and asks nobody;
//! `finding` writes them.

mod appview;
mod finding;
mod judge;
mod look;
mod seen;
mod text;

use std::time::Duration;

use penstock_core::settings::Settings;

pub use finding::{Finding, Level, Report};

/// Looks at both servers, twice so long apart, and says what is there.
///
/// It ends within `pause` and 30 s whatever the servers do, and never fails: a server that is away is a finding.
pub async fn examine(settings: &Settings, pause: Duration) -> Report {
    let seen = look::look(settings, pause).await;
    Report { findings: judge::judge(&seen) }
}
