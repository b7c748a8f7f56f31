//! Any text and any cut: a stream says what the whole says, nothing panics, and no value is left in it.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use toolgate_core::json::{Document, Limits};
use toolgate_core::scrub::Scrubber;
use toolgate_core::scrub::known::{Known, KnownValue};

/// What is looked for, and two of its spellings. The input reaches them by the dictionary that is made of its first bytes.
const VALUES: [&[u8]; 3] = [b"k3y-Of-Gold_77", b"has%41per\ncent9", b"a.b/c+d=e&f!"];
const ENCODED: [&[u8]; 3] = [b"azN5LU9mLUdvbGRfNzc=", b"6b33792d4f662d476f6c645f3737", b"%6b%33y-Of-Gold_77"];

fn scrubber() -> &'static Scrubber {
    static SCRUBBER: OnceLock<Scrubber> = OnceLock::new();
    SCRUBBER.get_or_init(|| {
        let values: Vec<KnownValue<'_>> =
            VALUES.iter().zip(0..).map(|(value, id)| KnownValue { id, value, names: &[] }).collect();
        Scrubber::new(vec![Arc::new(Known::new(&values).0)], Arc::new(|_, _| "⟦gone⟧".to_owned()))
    })
}

/// The input with a value, or a spelling, wherever a byte above 0xf9 stands.
fn text(input: &[u8]) -> Vec<u8> {
    input
        .iter()
        .flat_map(|byte| {
            let place = usize::from(*byte).wrapping_sub(0xfa);
            VALUES.iter().chain(&ENCODED).nth(place).map_or_else(|| vec![*byte], |value| value.to_vec())
        })
        .collect()
}

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, input) = input;
    let text = text(input);
    let whole = scrubber().scrub_text(&text);

    let cut = usize::from(cut).min(text.len());
    let mut stream = scrubber().stream();
    let mut streamed = Vec::new();
    let pushed = stream
        .push(&text[..cut], &mut streamed)
        .and_then(|()| stream.push(&text[cut..], &mut streamed))
        .and_then(|()| stream.finish(&mut streamed).map(drop));
    assert_eq!(pushed.is_err(), whole.is_err());
    let Ok(whole) = whole else { return };
    assert_eq!(streamed, whole.bytes);

    for value in VALUES.iter().chain(&ENCODED) {
        assert!(!whole.bytes.windows(value.len()).any(|window| window == *value));
    }
    if let Ok(document) = Document::parse(text, &Limits::default())
        && let Ok(cleaned) = scrubber().scrub_json(&document)
    {
        Document::parse(cleaned.bytes, &Limits::default()).expect("JSON stays JSON");
    }
    let mut events = scrubber().events();
    let mut out = Vec::new();
    let _ = events.push(input, &mut out).and_then(|()| events.finish(&mut out));
});
