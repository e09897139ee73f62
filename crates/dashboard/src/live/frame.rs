//! What goes over the stream: frames of server-sent events, and events gathered for one sending.

use std::fmt::{self, Write as _};

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::filter::Traits;

/// The first frame of every stream.
pub(super) const CONNECTED: &[u8] = b"data: {\"type\":\"connected\",\"message\":\"Event stream connected\"}\n\n";

/// A comment, which keeps proxies from closing a quiet stream.
pub(super) const KEEPALIVE: &[u8] = b": keepalive\n\n";

/// How many bytes of gathered events go out before the time is over.
const GATHER_BYTES: usize = 64 * 1024;

/// The largest broadcast that is passed on, in bytes. Real ones take about 200.
const LONGEST_EVENT: usize = 16 * 1024;

/// Events of one gathering, not yet sent: each one's JSON, end to end.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    json: BytesMut,
    /// Where each ends.
    ends: Vec<usize>,
    traits: Traits,
}

// === impl Gathering ===

impl Gathering {
    /// Adds one broadcast as it came; what is no JSON or too long is left out.
    pub(crate) fn add(&mut self, broadcast: &[u8]) {
        if broadcast.len() > LONGEST_EVENT {
            return;
        }
        let Ok(json) = serde_json::from_slice::<&RawValue>(broadcast) else { return };
        if json.get().contains(['\n', '\r']) {
            // A line break would end the frame. In valid JSON it stands between tokens only.
            let Ok(compact) = serde_json::from_slice::<serde_json::Value>(broadcast) else { return };
            self.json.extend_from_slice(compact.to_string().as_bytes());
        } else {
            self.json.extend_from_slice(json.get().as_bytes());
        }
        self.traits.add(json.get());
        self.ends.push(self.json.len());
    }

    /// Says whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Says whether it must be sent before its time.
    pub(crate) fn is_full(&self) -> bool {
        self.json.len() >= GATHER_BYTES
    }

    /// Takes the events out as frames, numbered from `first` on; says where each frame ends, and what filters ask of it.
    pub(super) fn take(&mut self, process: &str, first: u64) -> (Bytes, Vec<usize>, Traits) {
        let mut frames = BytesMut::with_capacity(self.json.len() + self.ends.len() * (process.len() + 56));
        let mut begin = 0;
        for (number, end) in (first..).zip(&mut self.ends) {
            // Writing to memory does not fail.
            let _ = writeln!(frames, "{}", Id { process, number });
            write_frame(&mut frames, "event", &self.json[begin..*end]);
            begin = std::mem::replace(end, frames.len());
        }
        self.json.clear();
        (frames.freeze(), std::mem::take(&mut self.ends), std::mem::take(&mut self.traits))
    }
}

/// The line that gives an event its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id<'a> {
    pub(super) process: &'a str,
    pub(super) number: u64,
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "id: {}-{}", self.process, self.number)
    }
}

/// Tells a client how many events it did not get.
pub(super) fn missed(count: u64) -> Bytes {
    format!("data: {{\"type\":\"missed\",\"count\":{count}}}\n\n").into()
}

/// Tells a client when to come back.
pub(super) fn retry(milliseconds: u32) -> Bytes {
    format!("retry: {milliseconds}\n\n").into()
}

pub(super) fn write_frame(out: &mut BytesMut, kind: &str, json: &[u8]) {
    for part in [b"data: {\"type\":\"", kind.as_bytes(), b"\",\"data\":", json, b"}\n\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_event_is_left_out() {
        let mut gathering = Gathering::default();
        gathering.add(b"{\"type\":");
        gathering.add(b"{} {}");
        gathering.add(b"\"\xff\"");
        gathering.add(format!("\"{}\"", "x".repeat(LONGEST_EVENT)).as_bytes());
        assert!(gathering.is_empty());
        while !gathering.is_full() {
            gathering.add(b"{}");
        }
    }

    #[test]
    fn each_event_is_a_frame_of_one_line_with_a_number() {
        let mut gathering = Gathering::default();
        gathering.add(br##"{"type":"#commit"}"##);
        gathering.add(b"{\"type\":\n\"#account\"}");
        let (frames, ends, _) = gathering.take("p", 7);
        let expected = [
            "id: p-7\ndata: {\"type\":\"event\",\"data\":{\"type\":\"#commit\"}}\n\n",
            "id: p-8\ndata: {\"type\":\"event\",\"data\":{\"type\":\"#account\"}}\n\n",
        ];
        assert_eq!(frames, expected.concat());
        assert_eq!(ends, [expected[0].len(), expected.concat().len()]);
        assert!(gathering.is_empty());
    }
}
