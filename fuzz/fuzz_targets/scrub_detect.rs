//! Any bytes: what is found lies inside, and is found again; a text is withheld rather than looked at for long.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use toolgate_core::scrub::detect::{Classes, CustomRules, Detector};
use toolgate_core::scrub::{Detect as _, Place};

static ALL: LazyLock<Detector> = LazyLock::new(|| {
    Detector::new(Classes::parse(["secrets", "pii"]).expect("these are classes"), CustomRules::default())
});

fuzz_target!(|input: (&str, &[u8])| {
    let (key, text) = input;
    for place in [Place::default(), Place { key: Some(key), sibling: None }] {
        let mut found = Vec::new();
        let mut again = Vec::new();
        let result = ALL.find(text, &place, &mut found);
        assert_eq!(result, ALL.find(text, &place, &mut again), "the same text, the same answer");
        assert_eq!(found, again);
        assert!(
            found.iter().all(|found| found.range.start < found.range.end && found.range.end <= text.len())
        );
        assert!(result.is_ok() || text.len() > 512, "a short text is never too much work");
    }
});
