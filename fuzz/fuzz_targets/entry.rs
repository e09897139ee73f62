//! One entry of the stream, in any dialect.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| penstock_fuzz::entry(input));
