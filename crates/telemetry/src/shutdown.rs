//! How a process is asked to end: the first signal asks, the second one ends it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::TelemetryError;

/// Returns a token that SIGTERM or SIGINT cancels; a second signal exits the process at once with 128 + its number.
///
/// Needs a Tokio runtime. SIGPIPE stays ignored, as Rust starts every program: a reader that went away is an error
/// of the write (`BrokenPipe`), never the end of the process.
///
/// # Errors
///
/// [`TelemetryError::ListenForSignal`] when the system refuses a handler.
pub fn on_signals() -> Result<CancellationToken, TelemetryError> {
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let token = CancellationToken::new();
    let asked = token.clone();
    tokio::spawn(async move {
        let mut signalled = false;
        loop {
            let (name, kind) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", SignalKind::terminate()),
                _ = interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            };
            if signalled {
                warn!(signal = name, "second signal, exiting at once");
                std::process::exit(128 + kind.as_raw_value());
            }
            signalled = true;
            info!(signal = name, "shutting down, a second signal exits at once");
            asked.cancel();
        }
    });
    Ok(token)
}

fn listen(kind: SignalKind, name: &'static str) -> Result<Signal, TelemetryError> {
    signal(kind).map_err(|source| TelemetryError::ListenForSignal { signal: name, source })
}
