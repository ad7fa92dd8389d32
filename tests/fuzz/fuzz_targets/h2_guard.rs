//! See `data_plane::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| data_plane::fuzz::run("h2_guard", input));
