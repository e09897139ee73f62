//! Settings from file, environment, flags and addresses.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| penstock_fuzz::settings(input));
