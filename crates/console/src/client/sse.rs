//! Server-sent events, out of bytes as they come.

use std::time::Duration;

/// The longest line that is taken; what is longer is left out.
const LONGEST: usize = 4 * 1024 * 1024;

/// One message; with an ID and no data where only the place in the stream is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// The ID of this message, where it has one.
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

/// Takes bytes and gives messages.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// How much of the bytes is read.
    read: usize,
    next: Message,
    has_data: bool,
    retry: Option<Duration>,
    /// The rest of the present line is left out.
    skips: bool,
}

// === impl Parser ===

impl Parser {
    /// Adds what came.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next message that is whole.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            let rest = self.bytes.get(self.read..).unwrap_or_default();
            let Some(end) = rest.iter().position(|b| *b == b'\n') else {
                if rest.len() > LONGEST {
                    (self.read, self.skips) = (self.bytes.len(), true);
                }
                return None;
            };
            let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
            self.read += end + 1;
            if std::mem::take(&mut self.skips) {
                continue;
            }
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let message = std::mem::take(&mut self.next);
                if std::mem::take(&mut self.has_data) || message.id.is_some() {
                    return Some(message);
                }
                continue;
            }
            self.take(line);
        }
    }

    /// Returns what the last `retry:` said.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.next.id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            // A comment, or a field of another kind of stream.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "retry: 1500\n\ndata: {\"type\":\"connected\"}\n\n: keepalive\n\nid: p-7\r\ndata: a\r\ndata:b\r\n\r\n\
                          event: x\n\nid: p-8\ndata: ü\n\nid: p-9\n\ndata: not whole\n";

    fn message(id: Option<&str>, data: &str) -> Message {
        Message { id: id.map(str::to_owned), data: data.to_owned() }
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        let expected = [
            message(None, "{\"type\":\"connected\"}"),
            message(Some("p-7"), "a\nb"),
            message(Some("p-8"), "ü"),
            message(Some("p-9"), ""),
        ];
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            for bytes in STREAM.as_bytes().chunks(size) {
                parser.add(bytes);
                messages.extend(std::iter::from_fn(|| parser.next()));
            }
            assert_eq!(messages, expected, "in pieces of {size}");
            assert_eq!(parser.retry(), Some(Duration::from_millis(1500)));
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut parser = Parser::default();
        for _ in 0..20 {
            parser.add(&[b'x'; 1024 * 1024]);
            assert_eq!(parser.next(), None);
            assert!(parser.bytes.len() <= LONGEST + 2 * 1024 * 1024);
        }
        parser.add(b"\ndata: after\n\n");
        assert_eq!(parser.next(), Some(message(None, "after")));
    }
}
