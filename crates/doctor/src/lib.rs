//! `penstock doctor`: checks Redis and PostgreSQL without changing anything, and says what is wrong and what to do.
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

/// Checks both servers, taking two samples `pause` apart.
///
/// Returns within 30 s plus `pause` whatever the servers do. Never fails: an unreachable server is a finding.
pub async fn examine(settings: &Settings, pause: Duration) -> Report {
    let mut findings: Vec<Finding> = judge::unknown_variables(&settings.unknown_variables).collect();
    let seen = look::look(settings, pause).await;
    findings.extend(judge::judge(&seen));
    Report { findings }
}
