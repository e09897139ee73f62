//! A queued message, and the row it becomes.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::store::{MessageRow, Micros};

/// Why a message can be no row.
#[derive(Debug, Error)]
pub(super) enum MessageError {
    /// It is not what the API queues. The source may hold the whole content, which belongs into no log.
    #[error("invalid message json: {:?} error in column {}", .0.classify(), .0.column())]
    Json(#[source] serde_json::Error),
    /// It says nothing.
    #[error("content is blank")]
    Blank,
}

/// What other producers queue too: they may leave out what is not needed for a row.
#[derive(Deserialize)]
struct Queued<'m> {
    #[serde(borrow, default)]
    tracking_id: Option<Cow<'m, str>>,
    user_id: i32,
    channel_id: i32,
    #[serde(borrow)]
    content: Cow<'m, str>,
    #[serde(default)]
    created_at: Value,
}

/// Reads a message as its row. An invalid time becomes `now`; null characters are removed, because PostgreSQL takes none.
pub(super) fn read(raw: Bytes, now: Timestamp) -> Result<MessageRow, (Bytes, MessageError)> {
    let queued: Queued<'_> = match serde_json::from_slice(&raw) {
        Ok(queued) => queued,
        Err(error) => return Err((raw.clone(), MessageError::Json(error))),
    };
    let Queued { user_id, channel_id, .. } = queued;
    let content = queued.content.replace('\0', "");
    if content.trim().is_empty() {
        return Err((raw.clone(), MessageError::Blank));
    }
    let tracking_id = queued.tracking_id.map(|id| id.replace('\0', "")).filter(|id| !id.is_empty());
    let created_at = queued.created_at.as_str().and_then(Micros::parse).unwrap_or_else(|| now.into());
    let key = key(&raw);
    Ok(MessageRow { raw, key, tracking_id, user_id, channel_id, content, created_at })
}

/// Returns what tells a message from every other.
pub(super) fn key(raw: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(json: &str) -> Result<MessageRow, String> {
        read(Bytes::copy_from_slice(json.as_bytes()), Timestamp::UNIX_EPOCH).map_err(|(_, error)| error.to_string())
    }

    #[test]
    fn what_is_not_needed_may_be_missing_or_odd() {
        let row =
            read_text(r#"{"user_id":1,"channel_id":2147483647,"content":"a\u0000b","created_at":17.5,"more":[]}"#)
                .unwrap();
        assert_eq!((row.user_id, row.channel_id, row.tracking_id.as_deref()), (1, i32::MAX, None));
        assert_eq!((row.content.as_str(), row.created_at.to_text()), ("ab", "1970-01-01T00:00:00.000000".to_owned()));
        assert_eq!(row.key.len(), 64);
    }

    #[test]
    fn what_can_be_no_row_is_refused() {
        let json = "invalid message json";
        for (bad, why) in [
            ("", json),
            ("{", json),
            ("[]", json),
            (r#"{"user_id":1,"channel_id":1}"#, json),
            (r#"{"user_id":3000000000,"channel_id":1,"content":"x"}"#, json),
            (r#""{\"content\":\"secret\"}""#, json),
            (r#"{"user_id":1.5,"channel_id":1,"content":"x"}"#, json),
            (r#"{"user_id":1,"channel_id":1,"content":"\ud800"}"#, json),
            (r#"{"user_id":1,"channel_id":1,"content":" \u0000 "}"#, "content is blank"),
        ] {
            let error = read_text(bad).unwrap_err();
            assert!(error.starts_with(why), "{bad}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
