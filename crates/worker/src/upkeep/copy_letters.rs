//! Copies the dead letters of ingest, which are only in Redis, into PostgreSQL; one worker at a time.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use penstock_core::stream::{StreamId, field};
use sha2::{Digest, Sha256};

use crate::action::Action;
use crate::apply::bury::{keep, shortened};
use crate::consumer::Copied;
use crate::state::work::{Abandoned, Work};
use crate::store::DeadLetter;

/// How often new letters are looked for.
const PAUSE: Duration = Duration::from_secs(1);

/// Copies new letters until asked to stop.
pub(crate) async fn copy(work: Arc<Work>) {
    while work.rest(PAUSE).await {
        while !work.stop.is_cancelled() {
            match work.record(Action::Copy, work.consumer.uncopied().await) {
                Some(letters) if !letters.is_empty() => {
                    if copy_these(&work, &letters).await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
    }
}

async fn copy_these(work: &Work, letters: &[Copied]) -> Result<(), Abandoned> {
    for letter in letters {
        let text = |name| String::from_utf8_lossy(letter.field(name));
        let error = text(field::ERROR);
        let kept = DeadLetter {
            orig_id: identity(letter).into(),
            kind: &text(field::TYPE),
            data: letter.field(field::DATA),
            seq: &text(field::SEQ),
            deliveries: text(field::DELIVERIES).parse().unwrap_or(1),
            error: shortened(&error),
            consumer: &text(field::CONSUMER),
            repo: &text(field::REPO),
        };
        keep(work, &kept).await?;
    }
    if let Some(last) = letters.last() {
        work.insist(Action::Copy, || work.consumer.mark_copied(last.id)).await?;
    }
    work.events.copied(letters.len());
    Ok(())
}

/// Identifies a letter, whichever Redis it is in: by the first ID of its entry, or for a frame, which never had one, by a
/// hash of its content. So the same frame, read and set aside again, is the same letter.
fn identity(letter: &Copied) -> String {
    if let Some(id) = str::from_utf8(letter.field(field::ORIG_ID)).ok().and_then(|id| id.parse::<StreamId>().ok()) {
        return id.to_string();
    }
    let mut hash = Sha256::new();
    for (name, value) in &letter.fields {
        if name != field::CONSUMER.as_bytes() && name != field::DELIVERIES.as_bytes() {
            for part in [name, value] {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
        }
    }
    let kind = String::from_utf8_lossy(letter.field(field::TYPE));
    format!("{kind}:{}", HEXLOWER.encode(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(fields: &[(&'static str, &'static str)]) -> Copied {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Copied { id: StreamId { ms: 9, seq: 1 }, fields }
    }

    #[test]
    fn a_letter_is_told_by_its_first_id_or_by_what_is_its_own() {
        assert_eq!(identity(&letter(&[("type", "commit"), ("origId", "5-1")])), "5-1");
        let raw = |data, seq, consumer| {
            identity(&letter(&[("type", "raw"), ("data", data), ("seq", seq), ("origId", ""), ("consumer", consumer)]))
        };
        assert_eq!(raw("AA==", "7", "ingest-a"), raw("AA==", "7", "ingest-b"));
        assert!(raw("AA==", "7", "i").starts_with("raw:") && raw("AA==", "7", "i").len() == 68);
        assert_ne!(raw("AA==", "7", "i"), raw("AA==", "8", "i"));
        assert_ne!(raw("AA==", "7", "i"), raw("AA==7", "", "i"));
    }
}
