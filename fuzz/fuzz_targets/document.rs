//! DID documents, as anyone may write them.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| penstock_fuzz::document(input));
