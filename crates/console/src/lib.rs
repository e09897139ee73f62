//! The pipeline in a terminal, over the dashboard's HTTP API: drawn anew (`top`), told once (`status`), its events as JSON lines
//! (`tail`), and all of it through the Kubernetes API (`kubectl penstock`).

pub mod api;
mod client;
pub mod cluster;
mod error;
mod filter;
mod format;
#[cfg(test)]
mod situations;
mod state;
pub mod status;
pub mod tail;
mod target;
pub mod top;
mod verdict;
mod watch;

pub use error::{AskError, ClusterError, ConsoleError};
pub use filter::Filter;
pub use target::{TOKEN_VARIABLE, Target, URL_VARIABLE};
pub use verdict::Level;

use penstock_core::causes::chain;
use state::Link;

/// Says how a question that was not answered leaves the link.
fn link(error: &AskError) -> Link {
    match error {
        AskError::Token => Link::Refused(chain(error)),
        _ => Link::Lost(chain(error)),
    }
}
