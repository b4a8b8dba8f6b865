#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| patronus_fuzz::targets::discovery_message(data));
