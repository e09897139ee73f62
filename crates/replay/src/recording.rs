//! A recording: repeated `[u32 little-endian length][frame]`.

use bytes::{Buf, Bytes};

use crate::error::{Error, Malformed};
use crate::settings::Recording;

/// The bundled recording: 583 frames of a real PDS with made-up accounts.
pub const BUNDLED: &[u8] = include_bytes!("../recording/pds.frames.bin");

/// Reads the recording and splits it into its frames, without a copy.
pub(crate) fn read(recording: &Recording) -> Result<Vec<Bytes>, Error> {
    let bytes = match recording {
        Recording::Bundled => Bytes::from_static(BUNDLED),
        Recording::File(path) => std::fs::read(path)
            .map(Bytes::from)
            .map_err(|source| Error::ReadRecording { path: path.clone(), source })?,
    };
    split(bytes)
}

fn split(mut bytes: Bytes) -> Result<Vec<Bytes>, Error> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let cut_off = || Error::ParseFrame { frame: frames.len(), source: Malformed::CutOff };
        let length = bytes.try_get_u32_le().map_err(|_| cut_off())? as usize;
        if length > bytes.len() {
            return Err(cut_off());
        }
        frames.push(bytes.split_to(length));
    }
    if frames.is_empty() { Err(Error::EmptyRecording) } else { Ok(frames) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundled_recording_has_583_frames() {
        assert_eq!(read(&Recording::Bundled).unwrap().len(), 583);
    }

    #[test]
    fn recording_cut_inside_a_frame_is_refused_by_its_number() {
        let cut = Bytes::from_static(&BUNDLED[..200]);
        let refused = split(cut).unwrap_err();
        assert!(matches!(refused, Error::ParseFrame { frame: 1, source: Malformed::CutOff }), "{refused:?}");
        assert!(matches!(split(Bytes::new()), Err(Error::EmptyRecording)));
    }
}
