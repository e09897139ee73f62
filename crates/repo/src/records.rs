//! The records of a repo, in the order of their paths: written once, read once.
//!
//! Of a CAR it is written where a record's block lies; of a listing, the record itself.

use std::io;

use penstock_wire::{BadReason, BlockCid, Limits, record_json};
use serde_json::value::RawValue;

use crate::car::blocks::{BlockPlace, Blocks};
use crate::car::spool::Spool;

/// How much is read at once.
const READ: usize = 64 * 1024;

/// How many unfit records are named; further ones are counted.
const NAMED: usize = 200;

/// A record of a repo.
#[derive(Clone, Debug)]
pub struct RepoRecord {
    /// Its path: collection, slash, record key.
    pub path: Box<str>,
    /// Its CID.
    pub cid: Box<str>,
    /// Its JSON, as an event would carry it.
    pub record: Box<RawValue>,
}

/// A record that the repo has and that no event could carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Its path.
    pub path: Box<str>,
    /// What is wrong with it.
    pub reason: BadReason,
}

/// Writes records, or where they lie.
#[derive(Debug)]
pub(crate) struct Writer {
    spool: Spool,
    buffer: Vec<u8>,
}

/// Reads them.
#[derive(Debug)]
pub(crate) struct Records {
    spool: Spool,
    /// Where their blocks are; none of a listing.
    blocks: Option<Blocks>,
    at: u64,
    /// What was read of the spool, and how much of that was taken.
    ahead: Vec<u8>,
    taken: usize,
    block: Vec<u8>,
    limits: Limits,
    pub(crate) unfit: Vec<Unfit>,
    pub(crate) unfit_count: u64,
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(spool: Spool) -> Self {
        Self { spool, buffer: Vec::new() }
    }

    /// Writes where the block of a record lies.
    pub(crate) fn place(&mut self, path: &str, place: BlockPlace) -> io::Result<()> {
        self.buffer.clear();
        put(&mut self.buffer, path.as_bytes());
        self.buffer.extend_from_slice(&place.to_bytes());
        self.spool.append(&self.buffer)
    }

    /// Writes a record.
    pub(crate) fn record(&mut self, path: &str, cid: &str, json: &str) -> io::Result<()> {
        self.buffer.clear();
        for text in [path, cid, json] {
            put(&mut self.buffer, text.as_bytes());
        }
        self.spool.append(&self.buffer)
    }

    /// Returns how many bytes were written.
    pub(crate) fn len(&self) -> u64 {
        self.spool.len()
    }

    /// Ends it.
    pub(crate) fn finish(mut self, blocks: Option<Blocks>) -> io::Result<Records> {
        self.spool.finish()?;
        Ok(Records {
            spool: self.spool,
            blocks,
            at: 0,
            ahead: Vec::new(),
            taken: 0,
            block: Vec::new(),
            limits: Limits::default(),
            unfit: Vec::new(),
            unfit_count: 0,
        })
    }
}

// === impl Records ===

impl Records {
    /// Reads the next ones. Blocks the thread.
    pub(crate) fn next(&mut self, most: usize, bytes: usize) -> io::Result<Vec<RepoRecord>> {
        let mut records = Vec::with_capacity(most.min(1_024));
        let mut read = 0;
        while records.len() < most && read < bytes && !self.is_done() {
            let path = self.text()?;
            let record = if self.blocks.is_some() { self.of_block(path)? } else { self.listed(path)? };
            if let Some(record) = record {
                read += record.record.get().len();
                records.push(record);
            }
        }
        Ok(records)
    }

    fn of_block(&mut self, path: Box<str>) -> io::Result<Option<RepoRecord>> {
        let place = BlockPlace::from_bytes(*self.take(8)?.first_chunk().ok_or(io::ErrorKind::InvalidData)?);
        let Some(blocks) = &self.blocks else { return Ok(None) };
        let (cid, block) = blocks.read(place, &mut self.block)?;
        match read(&path, &cid, block, &self.limits) {
            Ok(record) => Ok(Some(RepoRecord { path, cid: cid.to_string().into(), record })),
            Err(reason) => {
                self.leave_out(path, reason);
                Ok(None)
            }
        }
    }

    fn listed(&mut self, path: Box<str>) -> io::Result<Option<RepoRecord>> {
        let (cid, json) = (self.text()?, self.text()?);
        let record = RawValue::from_string(json.into()).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(RepoRecord { path, cid, record }))
    }

    fn leave_out(&mut self, path: Box<str>, reason: BadReason) {
        self.unfit_count += 1;
        if self.unfit.len() < NAMED {
            self.unfit.push(Unfit { path, reason });
        }
    }

    fn is_done(&self) -> bool {
        self.taken == self.ahead.len() && self.at == self.spool.len()
    }

    fn text(&mut self) -> io::Result<Box<str>> {
        let len = u32::from_be_bytes(*self.take(4)?.first_chunk().ok_or(io::ErrorKind::InvalidData)?);
        let text = self.take(usize::try_from(len).map_err(|_| io::ErrorKind::InvalidData)?)?;
        str::from_utf8(text).map(Into::into).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn take(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.ahead.len() - self.taken < len {
            self.at -= (self.ahead.len() - self.taken) as u64;
            let left = usize::try_from(self.spool.len() - self.at).unwrap_or(usize::MAX);
            self.ahead.clear();
            self.taken = 0;
            self.spool.read(self.at, len.max(READ).min(left).max(len), &mut self.ahead)?;
            self.at += self.ahead.len() as u64;
        }
        let from = self.taken;
        self.taken += len;
        self.ahead.get(from..self.taken).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    // What is put is far below 4 GiB.
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

fn read(path: &str, cid: &BlockCid, block: &[u8], limits: &Limits) -> Result<Box<RawValue>, BadReason> {
    if !cid.is_dag_cbor() {
        return Err(BadReason::OpCid { path: path.into() });
    }
    let json = record_json(path, block, limits)?;
    RawValue::from_string(json)
        .map_err(|error| BadReason::Record { path: path.into(), detail: error.to_string().into() })
}
