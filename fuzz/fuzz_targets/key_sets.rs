#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| enforcer::fuzzing::key_sets(input));
