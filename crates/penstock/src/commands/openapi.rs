//! Prints the description of the dashboard's HTTP API.

use std::io::{Write as _, stdout};

/// Prints it, to the end or until nobody reads any more.
pub(super) fn print() {
    let _ = stdout().write_all(format!("{:#}\n", penstock_dashboard::openapi()).as_bytes());
}
