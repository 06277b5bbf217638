#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| enforcer::fuzzing::introspection_answers(input));
