//! How many labelled items the detectors find: recall of what is secret, and the rate of false alarms on what is not.
//!
//! `cargo run --release -p toolgate-core --example detect_items -- ITEMS.jsonl [missed|false]`
//!
//! An item is a line `{"source":"…","kind":"…","secret":true,"text":"…","value":"…"}`; with a `value`, something has to
//! be found in it. With `missed` or `false` the items that went wrong are printed as well.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has no figures")]
#![expect(clippy::indexing_slicing, reason = "the same")]
#![expect(clippy::string_slice, reason = "the same")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "it reads a file that somebody names; the library does not")]

use std::collections::BTreeMap;

use toolgate_core::scrub::detect::{Classes, CustomRules, Detector};
use toolgate_core::scrub::{Detect as _, Place};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap();
    let show = arguments.next();
    let detector = Detector::new(Classes::default(), CustomRules::default());
    let mut sources: BTreeMap<(String, bool), BTreeMap<String, (usize, usize)>> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let item: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = item["text"].as_str().unwrap();
        let secret = item["secret"].as_bool().unwrap();
        let name = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let mut found = Vec::new();
        detector.find(text.as_bytes(), &Place::default(), &mut found).unwrap();
        let hit =
            match item["value"].as_str().and_then(|value| text.find(value).map(|at| at..at + value.len())) {
                Some(value) => {
                    found.iter().any(|found| found.range.start < value.end && value.start < found.range.end)
                }
                None => !found.is_empty(),
            };
        let count = sources.entry((name("source"), secret)).or_default().entry(name("kind")).or_default();
        count.0 += usize::from(hit);
        count.1 += 1;
        if hit != secret && show.as_deref() == Some(if secret { "missed" } else { "false" }) {
            let kinds: Vec<_> = found
                .iter()
                .map(|found| format!("{:?} {}", found.kind, &text[found.range.clone()]))
                .collect();
            println!(
                "{} {} {:?} {kinds:?}",
                name("source"),
                name("kind"),
                text.chars().take(300).collect::<String>()
            );
        }
    }
    for ((source, secret), kinds) in sources {
        let (hits, all) = kinds.values().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        let what = if secret { "recall" } else { "false alarms" };
        println!("{source:<24} {what:<12} {:>6.3}  {hits} of {all}", hits as f64 / all as f64);
        if show.as_deref() == Some("kinds") {
            for (kind, (hits, all)) in kinds {
                println!("    {kind:<40} {:>6.3}  {hits} of {all}", hits as f64 / all as f64);
            }
        }
    }
}
