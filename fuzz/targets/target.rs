//! Every target: the parser that bears its name.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kolo::parsers::run(env!("CARGO_BIN_NAME"), bytes));
