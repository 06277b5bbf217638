#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| enforcer::fuzzing::postgres_messages(input));
