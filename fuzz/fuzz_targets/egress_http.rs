//! Any requests, in any pieces: the same leaves or is refused, and what leaves is read once more as exactly itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The parser stands alone, so it is built alone.
#[path = "../../crates/sandbox/src/egress/http.rs"]
mod http;
#[path = "../../crates/sandbox/src/egress/name.rs"]
mod name;
#[path = "../../crates/sandbox/src/egress/rule.rs"]
#[expect(dead_code, reason = "the part for the DNS is not used here")]
mod rule;

const TLS_PORT: u16 = 443;

use http::{HttpError, Requests, Step};

fn requests(proxied: bool) -> Requests {
    let rules: Vec<rule::Rule> = vec!["a.b:80,GET=/v1,POST=/v1/x,ANY=/v2/".parse().unwrap()];
    let name: name::HostName = "a.b".parse().unwrap();
    let terms = rule::allow(&rules, &name, 80).unwrap();
    Requests::new(name, 80, terms.public.requests, proxied)
}

/// What leaves of these bytes, up to what is refused.
fn leaves(mut requests: Requests, bytes: &[u8], piece: usize) -> (Vec<u8>, Result<(), HttpError>) {
    let (mut left, mut out) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        left.extend_from_slice(piece);
        while !left.is_empty() {
            match requests.step(&left) {
                Err(error) => return (out, Err(error)),
                Ok(Step::More) => break,
                Ok(Step::Pass(length)) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX).min(left.len());
                    out.extend(left.drain(..length));
                    requests.passed(length as u64);
                }
                Ok(Step::Instead(length, written)) => {
                    assert!(length > 0 && length <= left.len());
                    left.drain(..length);
                    out.extend(written);
                }
            }
        }
    }
    (out, Ok(()))
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (proxied, piece, bytes) = input;
    let whole = leaves(requests(proxied), bytes, bytes.len().max(1));
    let pieces = leaves(requests(proxied), bytes, usize::from(piece).max(1));
    // Where a head is too long, it depends on the pieces when that is noticed.
    if bytes.len() < http::LONGEST_HEAD {
        assert_eq!(whole, pieces);
    }
    let (left, _) = whole;
    assert_eq!(leaves(requests(false), &left, left.len().max(1)), (left.clone(), Ok(())));
    let _ = http::asked(bytes);
});
