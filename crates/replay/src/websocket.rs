//! WebSocket messages as bytes: a relay writes prepared ones, and reads little.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// A binary message.
pub(crate) const BINARY: OpCode = OpCode::Data(Data::Binary);
/// A ping.
pub(crate) const PING: OpCode = OpCode::Control(Control::Ping);
/// The answer to a ping.
pub(crate) const PONG: OpCode = OpCode::Control(Control::Pong);
/// A close.
pub(crate) const CLOSE: OpCode = OpCode::Control(Control::Close);

/// Close code: the server goes away.
pub(crate) const AWAY: u16 = 1001;
/// Close code: the client's behaviour, or its cursor, is refused.
pub(crate) const POLICY: u16 = 1008;

/// Bytes a client may send in one message; it has nothing to say.
const MAX_MESSAGE: u64 = 64 << 10;

/// Appends the header of an unmasked message of this length.
pub(crate) fn put_header(out: &mut Vec<u8>, opcode: OpCode, length: usize) {
    // Writing to a Vec cannot fail.
    let _ = FrameHeader { opcode, ..FrameHeader::default() }.format(length as u64, out);
}

/// Builds an unmasked message.
pub(crate) fn message(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 10);
    put_header(&mut out, opcode, payload.len());
    out.extend_from_slice(payload);
    out
}

/// What a client said that asks for an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ping(Bytes),
    /// A close and its payload: code and reason.
    Close(Bytes),
}

/// The client broke the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation;

/// Takes the next whole message off the inbox, passing over those that ask for no answer.
pub(crate) fn next_said(inbox: &mut BytesMut) -> Result<Option<Said>, Violation> {
    loop {
        let mut cursor = Cursor::new(&inbox[..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Violation)? else { return Ok(None) };
        let start = cursor.position() as usize;
        // RFC 6455 5.1: what a client sends is masked.
        let mask = header.mask.filter(|_| length <= MAX_MESSAGE).ok_or(Violation)?;
        let end = start + length as usize;
        if inbox.len() < end {
            return Ok(None);
        }
        let mut payload = inbox.split_to(end);
        payload.advance(start);
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        match header.opcode {
            PING => return Ok(Some(Said::Ping(payload.freeze()))),
            CLOSE => return Ok(Some(Said::Close(payload.freeze()))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0x80 | opcode, 0x80 | payload.len() as u8, 1, 2, 3, 4];
        out.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    #[test]
    fn ping_is_heard_behind_a_text_and_however_it_is_cut() {
        let mut sent = masked(1, b"hello");
        sent.extend(masked(9, b"are you there"));
        for cut in 0..sent.len() {
            let mut inbox = BytesMut::from(&sent[..cut]);
            assert_eq!(next_said(&mut inbox), Ok(None));
            inbox.extend_from_slice(&sent[cut..]);
            assert_eq!(next_said(&mut inbox), Ok(Some(Said::Ping(Bytes::from_static(b"are you there")))));
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn unmasked_or_huge_messages_are_violations() {
        assert_eq!(next_said(&mut BytesMut::from(&message(PING, b"x")[..])), Err(Violation));
        let mut huge = vec![0x82, 0x80 | 127];
        huge.extend_from_slice(&(MAX_MESSAGE + 1).to_be_bytes());
        huge.extend_from_slice(&[0; 4]);
        assert_eq!(next_said(&mut BytesMut::from(&huge[..])), Err(Violation));
    }
}
