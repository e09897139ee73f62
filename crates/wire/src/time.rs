//! The event's time: as a value, and as the RFC 3339 text that goes on.

use std::borrow::Cow;

use jiff::Timestamp;

/// The time of an event as the host wrote it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventTime<'a> {
    /// The moment; none where the text is no time.
    pub(crate) at: Option<Timestamp>,
    /// The host's text where it is RFC 3339, else the moment in UTC.
    pub(crate) text: Option<Cow<'a, str>>,
}

// === impl EventTime ===

impl<'a> EventTime<'a> {
    pub(crate) fn read(text: Option<&'a str>) -> Self {
        let at = text.and_then(penstock_core::time::parse);
        let text = text.zip(at).map(|(text, at)| match is_rfc3339(text) {
            true => Cow::Borrowed(text),
            false => Cow::Owned(at.to_string()),
        });
        Self { at, text }
    }
}

/// Whether a text that is a time is also RFC 3339, down to its letters: the parser accepts more shapes.
fn is_rfc3339(text: &str) -> bool {
    let shaped = |text: &[u8], shape: &[u8]| {
        text.len() == shape.len()
            && text
                .iter()
                .zip(shape)
                .all(|(byte, want)| if *want == b'0' { byte.is_ascii_digit() } else { byte == want })
    };
    let Some((moment, rest)) = text.as_bytes().split_at_checked(19) else { return false };
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => fraction.get(fraction.iter().take_while(|byte| byte.is_ascii_digit()).count()..),
        None => Some(rest),
    };
    shaped(moment, b"0000-00-00T00:00:00")
        && zone.is_some_and(|zone| zone == b"Z" || shaped(zone, b"+00:00") || shaped(zone, b"-00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_kept_and_other_times_become_it() {
        let text = |text| EventTime::read(Some(text)).text.map(Cow::into_owned);
        for kept in ["2026-02-24T14:05:20.521546Z", "2026-02-24T14:05:20Z", "2026-02-24T14:05:20.5+02:30"] {
            assert_eq!(text(kept).as_deref(), Some(kept));
        }
        assert_eq!(text("2026-02-24T14:05:20.521546").as_deref(), Some("2026-02-24T14:05:20.521546Z"));
        assert_eq!(text("2026-02-24 14:05:20Z").as_deref(), Some("2026-02-24T14:05:20Z"));
        assert_eq!(text("2026-02-24T16:05:20+02").as_deref(), Some("2026-02-24T14:05:20Z"));
        for none in ["", "soon", "2026-02-30T00:00:00Z"] {
            assert_eq!(text(none), None);
        }
        assert!(EventTime::read(None).at.is_none());
    }
}
