//! A panic as one log line.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic;
use std::thread;

use tracing::error;

/// Replaces the default message on standard error, which would break lines of JSON; a backtrace comes along when
/// RUST_BACKTRACE asks for one.
pub(super) fn install() {
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        error!(
            panic = info.payload_as_str().unwrap_or("a value that is not a string"),
            location,
            thread = thread::current().name(),
            backtrace,
            "a thread panicked"
        );
    }));
}
