//! Any text: what is shown has nothing hidden in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolgate_core::text;

fuzz_target!(|input: &str| {
    let line = text::line(input, 200);
    assert!(!line.text.chars().any(char::is_control));
    assert!(!line.text.contains(['\u{200b}', '\u{202e}', '\u{e0041}', '\u{feff}']));
    assert!(line.text.chars().count() <= 200 * 10);
    let again = text::line(&line.text, usize::MAX);
    assert_eq!((again.text.as_str(), again.hidden), (line.text.as_str(), 0), "showing twice is showing once");
    let block = text::block(input, 200);
    assert_eq!(block.left_out, line.left_out);
    assert!(block.hidden <= line.hidden);
    let _ = line.remark();
    let _ = text::skeleton(input);
});
