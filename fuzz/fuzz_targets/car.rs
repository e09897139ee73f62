//! The blocks of a commit that is sound around them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| penstock_fuzz::car(input));
