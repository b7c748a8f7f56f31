//! Any schema and any value: an answer, soon, in few words. The input is the two, with a line end between.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Limits};
use toolgate_core::schema::{Schema, header_params};

fuzz_target!(|bytes: &[u8]| {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let Ok(schema) = Document::parse(halves.next().unwrap_or_default(), &Limits::default()) else { return };
    if let Err(error) = header_params(&schema.root()) {
        assert!(error.to_string().len() < 4000);
    }
    let compiled = match Schema::compile(&schema.root()) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(error.to_string().len() < 4000);
            return;
        }
    };
    let Ok(value) = Document::parse(halves.next().unwrap_or_default(), &Limits::default()) else { return };
    if let Err(error) = compiled.validate(&value.root()) {
        assert!(error.to_string().len() < 8000);
    }
});
