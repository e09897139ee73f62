//! The tree and the ops of a commit.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| penstock_fuzz::proof(input));
