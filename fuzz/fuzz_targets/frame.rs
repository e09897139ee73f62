//! One message of the relay, as it came off the socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| penstock_fuzz::frame(input));
