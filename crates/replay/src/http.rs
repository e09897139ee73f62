//! The HTTP side: the request's head, the route, and the answers that are no WebSocket.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};

/// The subscription's path.
const SUBSCRIBE: &str = "/xrpc/com.atproto.sync.subscribeRepos";
/// The health check's path.
const HEALTH: &str = "/xrpc/_health";
/// Bytes a request's head may have.
const MAX_HEAD: usize = 16 << 10;

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Route {
    /// A subscription from this cursor; the bytes are the upgrade's response.
    Subscribe(Cursor, Vec<u8>),
    /// Something that these bytes answer whole.
    Answer(Vec<u8>),
}

/// The query's cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    /// There is none, or an empty one, which relays take for none.
    Absent,
    At(u64),
    /// Not an integer, or a negative one.
    Bad,
}

/// Reads the request's head; what came behind it stays in `inbox`. `None` where it is none.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin), inbox: &mut BytesMut) -> io::Result<Option<Request>> {
    loop {
        match Request::try_parse(inbox) {
            Ok(Some((length, request))) => {
                let _ = inbox.split_to(length);
                return Ok(Some(request));
            }
            Ok(None) if inbox.len() < MAX_HEAD => {}
            Ok(None) | Err(_) => return Ok(None),
        }
        if stream.read_buf(inbox).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Decides what a request asks for.
pub(crate) fn route(request: &Request) -> Route {
    match request.uri().path() {
        SUBSCRIBE => {
            let mut upgrade = Vec::with_capacity(256);
            match create_response(request).and_then(|response| write_response(&mut upgrade, &response)) {
                Ok(()) => Route::Subscribe(cursor(request.uri().query().unwrap_or_default()), upgrade),
                Err(_) => Route::Answer(answer("426 Upgrade Required", &refusal("this is a WebSocket"))),
            }
        }
        HEALTH => {
            let version = concat!(r#"{"version":"penstock-replay "#, env!("CARGO_PKG_VERSION"), r#""}"#);
            Route::Answer(answer("200 OK", version))
        }
        _ => Route::Answer(answer("404 Not Found", r#"{"error":"NotFound","message":"no such route"}"#)),
    }
}

/// The answer to a request that cannot be read, or whose `message` says why it is refused.
pub(crate) fn bad_request(message: &str) -> Vec<u8> {
    answer("400 Bad Request", &refusal(message))
}

/// The answer of a relay that takes nobody.
pub(crate) fn unavailable() -> Vec<u8> {
    answer("503 Service Unavailable", r#"{"error":"Unavailable","message":"try again later"}"#)
}

fn refusal(message: &str) -> String {
    format!(r#"{{"error":"InvalidRequest","message":"{message}"}}"#)
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    answer_as(status, "application/json", body)
}

/// Writes a whole answer.
pub(crate) fn answer_as(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let upgrade = if status.starts_with("426") { "Upgrade: websocket\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{upgrade}Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn cursor(query: &str) -> Cursor {
    let text = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")).unwrap_or_default();
    match text.parse::<i64>().map(u64::try_from) {
        _ if text.is_empty() => Cursor::Absent,
        Ok(Ok(cursor)) => Cursor::At(cursor),
        Ok(Err(_)) | Err(_) => Cursor::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_integers_of_at_least_zero() {
        for (query, expected) in [
            ("", Cursor::Absent),
            ("cursor=", Cursor::Absent),
            ("other=1", Cursor::Absent),
            ("cursor=0", Cursor::At(0)),
            ("a=b&cursor=42", Cursor::At(42)),
            ("cursor=-1", Cursor::Bad),
            ("cursor=1.5", Cursor::Bad),
            ("cursor=abc", Cursor::Bad),
            ("cursor=99999999999999999999", Cursor::Bad),
        ] {
            assert_eq!(cursor(query), expected, "{query}");
        }
    }
}
