#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rsshm_channel::fuzzing::readers(data));
