//! Prints the definitions of FirehosePipeline and FirehoseBackfill.

use std::io::{Write as _, stdout};

/// Prints them, to the end or until nobody reads any more.
pub(super) fn print() {
    let _ = stdout().write_all(penstock_operator::crd::yaml().as_bytes());
}
