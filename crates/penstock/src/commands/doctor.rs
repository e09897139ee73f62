//! Looks at Redis and PostgreSQL, and says what is there.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use penstock_core::settings::Settings;

use crate::cli::Doctor;

/// Prints the findings; the exit code is that of the worst.
pub(super) async fn run(args: &Doctor, settings: &Settings) -> ExitCode {
    let report = penstock_doctor::examine(settings, args.pause).await;
    let text = if args.json { report.to_json() + "\n" } else { report.to_text() };
    // Nobody reads any more: the exit code still tells.
    let _ = stdout().write_all(text.as_bytes());
    ExitCode::from(report.exit_code())
}
