//! Drops the payload of a WebSocket message that is too large, so that what comes behind it can be read.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

/// The bit of a frame's first byte that says it is its message's last.
const FIN: u8 = 0x80;

/// The bit of a frame's first byte that only control frames have.
const CONTROL: u8 = 0x08;

/// The bits of a frame's first byte that say what it is; 0 goes on with the message before.
const OPCODE: u8 = 0x0f;

/// The bit of a frame's second byte that says a mask follows the length.
const MASK: u8 = 0x80;

/// What ends the answer to the upgrade.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// Follows the bytes of a server from the answer to the upgrade on.
#[derive(Debug)]
pub(crate) struct Skimmer {
    /// The most bytes of a message.
    bound: u64,
    at: At,
    /// Messages begun.
    messages: u64,
    /// Bytes of the message begun last.
    size: u64,
    /// Which messages were emptied, and their sizes.
    emptied: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
enum At {
    /// In the answer to the upgrade, with so much of the blank line matched.
    Answer { matched: usize },
    /// In a frame's header.
    Header { bytes: [u8; 14], len: usize },
    /// In a frame's payload.
    Payload { left: u64, keep: bool },
}

// === impl Skimmer ===

impl Skimmer {
    /// Begins before the answer to the upgrade.
    pub(crate) fn new(bound: u64) -> Self {
        Self { bound, at: At::Answer { matched: 0 }, messages: 0, size: 0, emptied: VecDeque::new() }
    }

    /// Takes bytes from the server and hands on what is kept of them.
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
                At::Payload { left, keep } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let (payload, rest) = input.split_at(taken);
                    if *keep {
                        kept.extend_from_slice(payload);
                    }
                    input = rest;
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = At::header();
                    }
                }
            }
        }
    }

    /// Returns the size of the message of that number, counted from 1, if it was emptied. Asked in their order.
    pub(crate) fn emptied(&mut self, message: u64) -> Option<u64> {
        self.emptied.pop_front_if(|(emptied, _)| *emptied == message).map(|(_, size)| size)
    }

    fn header(&mut self, bytes: &[u8; 14], len: usize, payload: u64, kept: &mut BytesMut) {
        let [first, second, ..] = *bytes;
        let mut keep = true;
        if first & CONTROL == 0 {
            if first & OPCODE != 0 {
                self.messages += 1;
                self.size = 0;
            }
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
        self.at = if payload == 0 { At::header() } else { At::Payload { left: payload, keep } };
    }
}

// === impl At ===

impl At {
    fn header() -> Self {
        Self::Header { bytes: [0; 14], len: 0 }
    }
}

/// Returns the length of the payload, once the header is whole.
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
