//! Any packet to the DNS of a cell: what is answered belongs to what was asked, and is no longer than it has to be.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser stands alone, so it is built alone.
#[path = "../../crates/sandbox/src/egress/dns.rs"]
mod dns;
#[path = "../../crates/sandbox/src/egress/name.rs"]
mod name;

fuzz_target!(|packet: &[u8]| {
    let answers = match dns::Question::read(packet) {
        Ok(question) => {
            assert!(packet.len() <= dns::LONGEST);
            if let Some(name) = &question.name {
                assert_eq!(name.as_str().parse().as_ref(), Ok(name), "names have one spelling");
            }
            let some = question.address([198, 18, 1, 0].into());
            vec![some, question.nothing(), question.no_such_name(), question.failure()]
        }
        Err(dns::NotAsked(answer)) => answer.into_iter().collect(),
    };
    for answer in answers {
        assert!(answer.len() <= packet.len() + 16);
        assert_eq!(answer[..2], packet[..2], "the number of the question");
        assert_eq!(answer[2] & 0x80, 0x80, "it is an answer");
        // The answer to an answer is none.
        assert_eq!(dns::Question::read(&answer), Err(dns::NotAsked(None)));
    }
});
