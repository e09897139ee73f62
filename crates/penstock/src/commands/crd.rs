//! Prints the definition of FirehosePipeline.

use std::io::{Write as _, stdout};

/// Prints it, to the end or until nobody reads any more.
pub(super) fn print() {
    let _ = stdout().write_all(penstock_operator::crd::yaml().as_bytes());
}
