//! Empties WebSocket messages that are too large, so that what follows can be read.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

/// The bit of a frame's first byte that marks the last frame of a message.
const FIN: u8 = 0x80;

/// The bit of a frame's first byte that marks a control frame.
const CONTROL: u8 = 0x08;

/// The bits of a frame's first byte that hold the opcode; 0 continues a message.
const OPCODE: u8 = 0x0f;

/// The bit of a frame's second byte that says a masking key follows the length.
const MASK: u8 = 0x80;

/// How much of an incomplete message is kept: its number is in there.
const BEGINNING: usize = 64 * 1024;

/// The end of the response to the upgrade request.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// Follows the bytes from a server, beginning with its response to the upgrade request.
#[derive(Debug)]
pub(crate) struct Skimmer {
    /// The largest message, in bytes.
    bound: u64,
    at: At,
    /// Messages begun.
    messages: u64,
    /// Bytes of the current message.
    size: u64,
    /// Messages that were emptied, and their sizes.
    emptied: VecDeque<(u64, u64)>,
    /// Whether the current message is incomplete.
    is_open: bool,
    /// Whether the current frame is the last of its message.
    is_last: bool,
    /// The beginning of the current message.
    beginning: Vec<u8>,
}

#[derive(Debug)]
enum At {
    /// In the response to the upgrade request, with this much of the blank line matched.
    Answer { matched: usize },
    /// In a frame's header.
    Header { bytes: [u8; 14], len: usize },
    /// In a frame's payload.
    Payload { left: u64, keep: bool, is_data: bool },
}

// === impl Skimmer ===

impl Skimmer {
    /// Starts before the response to the upgrade request.
    pub(crate) fn new(bound: u64) -> Self {
        Self {
            bound,
            at: At::Answer { matched: 0 },
            messages: 0,
            size: 0,
            emptied: VecDeque::new(),
            is_open: false,
            is_last: false,
            beginning: Vec::new(),
        }
    }

    /// Takes bytes from the server, and passes on what is kept of them.
    pub(crate) fn feed(&mut self, mut input: &[u8], kept: &mut BytesMut) {
        while let Some((&byte, rest)) = input.split_first() {
            match &mut self.at {
                At::Answer { matched } => {
                    kept.put_u8(byte);
                    input = rest;
                    *matched = match BLANK_LINE.get(*matched) {
                        Some(expected) if *expected == byte => *matched + 1,
                        _ => usize::from(byte == b'\r'),
                    };
                    if *matched == BLANK_LINE.len() {
                        self.at = At::header();
                    }
                }
                At::Header { bytes, len } => {
                    if let Some(slot) = bytes.get_mut(*len) {
                        *slot = byte;
                    }
                    *len += 1;
                    input = rest;
                    let (bytes, len) = (*bytes, *len);
                    if let Some(payload) = payload(&bytes, len) {
                        self.header(&bytes, len, payload, kept);
                    }
                }
                At::Payload { left, keep, is_data } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let (payload, rest) = input.split_at(taken);
                    if *keep {
                        kept.extend_from_slice(payload);
                    }
                    if *is_data {
                        let room = BEGINNING.saturating_sub(self.beginning.len()).min(taken);
                        self.beginning.extend_from_slice(payload.get(..room).unwrap_or_default());
                    }
                    input = rest;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.is_open &= !(*is_data && self.is_last);
                        self.at = At::header();
                    }
                }
            }
        }
    }

    /// Returns the size of a message, counted from 1, if it was emptied. Must be called in the messages' order.
    pub(crate) fn emptied(&mut self, message: u64) -> Option<u64> {
        self.emptied.pop_front_if(|(emptied, _)| *emptied == message).map(|(_, size)| size)
    }

    /// Returns the beginning of the current message if it is incomplete.
    pub(crate) fn unfinished(&self) -> Option<&[u8]> {
        self.is_open.then_some(&*self.beginning)
    }

    /// Returns whether this many messages are complete and the next has not begun.
    pub(crate) fn is_between(&self, messages: u64) -> bool {
        self.messages >= messages && !self.is_open && matches!(self.at, At::Header { len: 0, .. })
    }

    fn header(&mut self, bytes: &[u8; 14], len: usize, payload: u64, kept: &mut BytesMut) {
        let [first, second, ..] = *bytes;
        let mut keep = true;
        let is_data = first & CONTROL == 0;
        if is_data {
            if first & OPCODE != 0 {
                self.messages += 1;
                self.size = 0;
                self.beginning.clear();
            }
            self.is_last = first & FIN != 0;
            self.is_open = !(self.is_last && payload == 0);
            self.size = self.size.saturating_add(payload);
            keep = self.size <= self.bound;
            if !keep && first & FIN != 0 {
                self.emptied.push_back((self.messages, self.size));
            }
        }
        if keep {
            kept.extend_from_slice(bytes.get(..len).unwrap_or_default());
        } else {
            let mask = if second & MASK == 0 { 0 } else { 4 };
            kept.extend_from_slice(&[first, second & MASK]);
            kept.extend_from_slice(bytes.get(len - mask..len).unwrap_or_default());
        }
        self.at = if payload == 0 { At::header() } else { At::Payload { left: payload, keep, is_data } };
    }
}

// === impl At ===

impl At {
    fn header() -> Self {
        Self::Header { bytes: [0; 14], len: 0 }
    }
}

/// Returns the payload's length once the header is complete.
fn payload(bytes: &[u8; 14], len: usize) -> Option<u64> {
    let [_, second, a, b, c, d, e, f, g, h, ..] = *bytes;
    let mask = if second & MASK == 0 { 0 } else { 4 };
    let (extended, payload) = match second & !MASK {
        126 => (2, u64::from(u16::from_be_bytes([a, b]))),
        127 => (8, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        short => (0, u64::from(short)),
    };
    (len == 2 + extended + mask).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(u8::try_from(len).unwrap()),
            len @ 126..65_536 => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn only_a_message_over_the_bound_is_emptied_however_the_bytes_are_cut() {
        let answer = b"HTTP/1.1 101 Switching\r\nA: \r\r\n\r\n".to_vec();
        let large = vec![7; 70_000];
        let sent = [
            answer.clone(),
            frame(0x82, b"one"),
            frame(0x82, &large),
            frame(0x89, b"ping"),
            frame(0x82, &[1; 60_000]),
            // In two parts, which only together are too large, with a ping between.
            frame(0x02, &[2; 60_000]),
            frame(0x89, b"ping"),
            frame(0x80, &[3; 10_000]),
            frame(0x82, b"last"),
        ]
        .concat();
        let expected = [
            answer,
            frame(0x82, b"one"),
            frame(0x82, b""),
            frame(0x89, b"ping"),
            frame(0x82, &[1; 60_000]),
            frame(0x02, &[2; 60_000]),
            frame(0x89, b"ping"),
            frame(0x80, b""),
            frame(0x82, b"last"),
        ]
        .concat();
        for cut in [1, 2, 3, 7, 1_000, 65_536, sent.len()] {
            let (mut skimmer, mut kept) = (Skimmer::new(65_000), BytesMut::new());
            for part in sent.chunks(cut) {
                skimmer.feed(part, &mut kept);
            }
            assert!(kept == expected, "in parts of {cut}");
            let emptied: Vec<_> = (1..=5).map(|message| skimmer.emptied(message)).collect();
            assert_eq!(emptied, [None, Some(70_000), None, Some(70_000), None]);
        }
    }
}
