//! Frames cut and flipped: a named error or the right answer for the bytes as they are, never a panic.

use penstock_wire::{Frame, FrameError, Limits, decode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::{fixtures, second};

/// Frames up to this size are cut at every length, longer ones at [`CUTS`] of them.
const SMALL: usize = 8_000;
const CUTS: usize = 2_000;

/// How many bits are flipped in each set.
const FLIPS: usize = 1_000;

#[test]
fn a_frame_cut_anywhere_is_unreadable() {
    let mut rng = StdRng::seed_from_u64(1);
    for (set, frames) in fixtures::sets() {
        for (index, frame) in frames.iter().enumerate() {
            let cuts = if frame.len() <= SMALL { frame.len() } else { CUTS };
            for cut in 0..cuts {
                let len = if frame.len() <= SMALL { cut } else { rng.random_range(0..frame.len()) };
                let answer = decode(&frame[..len], &Limits::default());
                assert!(matches!(answer, Err(FrameError::Unreadable { .. })), "{set} {index} cut at {len}");
            }
        }
    }
}

#[test]
fn a_frame_with_more_behind_it_is_unreadable() {
    for (set, frames) in fixtures::sets() {
        for (index, mut frame) in frames.into_iter().enumerate() {
            frame.push(0xF6);
            let answer = decode(&frame, &Limits::default());
            assert!(matches!(answer, Err(FrameError::Unreadable { .. })), "{set} {index}");
        }
    }
}

#[test]
fn a_flipped_bit_gives_a_named_error_or_the_right_answer() {
    let mut rng = StdRng::seed_from_u64(2);
    for (set, frames) in fixtures::sets() {
        let mut refused = 0;
        for _ in 0..FLIPS {
            let index = rng.random_range(0..frames.len());
            let mut frame = frames[index].clone();
            let (at, bit) = (rng.random_range(0..frame.len()), rng.random_range(0..8));
            frame[at] ^= 1 << bit;
            match decode(&frame, &Limits::default()) {
                // What is passed over is not looked into: a time that is no text, say. The second decoder reads all.
                Ok(answer) => {
                    let agrees = second::agrees(&frame, &answer) || second::read(&frame).is_none();
                    assert!(agrees, "{set} {index} bit {bit} of {at}: {answer:?}");
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.name().is_empty() && error.to_string().len() < 500);
                }
            }
        }
        assert!(refused > FLIPS / 20, "{set}: only {refused} refused");
    }
}

#[test]
fn a_flipped_bit_in_a_block_is_told() {
    let mut rng = StdRng::seed_from_u64(3);
    for (set, frames) in fixtures::sets() {
        let mut flipped = 0;
        for (index, frame) in frames.iter().enumerate() {
            let Some(car) = second::car(frame) else { continue };
            // The CAR stands in the frame as it is: found by its bytes.
            let start = frame.windows(car.len()).position(|window| window == car).unwrap();
            for block in second::blocks(&car) {
                // In the block, and in the digest it is held against.
                for (from, to) in [(block.start + 36, block.end), (block.start + 4, block.start + 36)] {
                    if from == to {
                        continue;
                    }
                    let mut frame = frame.clone();
                    frame[start + rng.random_range(from..to)] ^= 1 << rng.random_range(0..8);
                    let answer = decode(&frame, &Limits::default());
                    let told = match &answer {
                        // The second decoder takes its time: for one in sixteen.
                        Ok(said @ Frame::Event(event)) => {
                            event.left_out.iter().any(|part| part.reason.name() == "block_hash")
                                && (flipped % 16 != 0 || second::agrees(&frame, said))
                        }
                        Err(FrameError::Bad(bad)) => bad.reason.name() == "block_hash",
                        _ => false,
                    };
                    assert!(told, "{set} {index}: block at {block:?}");
                    flipped += 1;
                }
            }
        }
        assert!(flipped > 0 || set == "edge");
    }
}

#[test]
fn noise_is_never_a_frame_with_a_number() {
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..20_000 {
        let noise: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
        assert!(!matches!(decode(&noise, &Limits::default()), Ok(Frame::Event(_) | Frame::Sync(_))));
    }
}
