//! The statistics of the message buffer as they come.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::StatusCode;
use axum::response::Response;

use super::api::{Access, Api};
use super::messages::buffer;
use super::problem::Problem;
use crate::App;
use crate::messages::StatsFrame;

/// The largest frame that a client may send, in bytes: what it says means nothing.
const LONGEST: usize = 4096;

/// The most bytes of frames that wait to be written to one client.
const WAITING: usize = 256 * 1024;

const NO_SOCKET: Problem =
    Problem::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint: connect with ws:// or wss://");

/// Registers the route.
pub(super) fn register(api: &mut Api) {
    api.live("/ws/stats", Access::Read, stats)
        .says("Sends message buffer statistics over a WebSocket, every messageBuffer.statsInterval and after every batch.")
        .answers_with::<StatsFrame>(101, "a WebSocket; each text frame has this shape, and a restart closes it with code 1012")
        .tells(404, "the message buffer is not enabled")
        .tells(426, "the client asked for no WebSocket")
        .tells(503, "there are too many live clients, or the service ends");
}

async fn stats(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let messages = buffer(&app)?;
    let upgrade = upgrade.map_err(|_| NO_SOCKET)?;
    if !app.has_room() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many live clients"));
    }
    let place = messages.sockets.join();
    // Asked after joining: whoever joined before the end is told of it, and nobody joins after it.
    if app.ending.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the service is shutting down"));
    }
    let ending = app.ending.clone();
    let upgrade = upgrade.read_buffer_size(LONGEST).write_buffer_size(0).max_write_buffer_size(WAITING);
    let upgrade = upgrade.max_message_size(LONGEST).max_frame_size(LONGEST);
    Ok(upgrade.on_upgrade(|socket| place.serve(socket, ending)))
}
