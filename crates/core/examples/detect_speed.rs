//! How fast texts are looked through for secrets that nobody told us about. Prints figures only.
//!
//! `cargo run --release -p toolgate-core --example detect_speed`
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has no figures")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "it measures time; the library does not")]

use std::fmt::Write as _;
use std::sync::Arc;

use toolgate_core::json::{Document, Limits, quote};
use toolgate_core::scrub::detect::{Classes, CustomRules, Detector};
use toolgate_core::scrub::{Detect as _, Place, Scrubber};

const ROUNDS: usize = 5;

fn main() {
    let secrets = Detector::default();
    let all = Detector::new(Classes::parse(["secrets", "pii"]).unwrap(), CustomRules::default());
    let begin = spent();
    secrets.find(b"once", &Place::default(), &mut Vec::new()).unwrap();
    println!("{:<28} {:>8.1} ms", "to make the automaton", (spent() - begin) * 1e3);
    let (source, json, logs) = (source(), json(), logs());
    let mix = [source.as_str(), &json, &logs].concat();
    for (name, text) in [("source", &source), ("JSON", &json), ("logs", &logs), ("mix", &mix)] {
        let rate = |detector| text.len() as f64 / 1e6 / time(detector, text.as_bytes()).0;
        println!("{name:<28} {:>8.0} MB/s  with personal data {:>6.0} MB/s", rate(&secrets), rate(&all));
    }
    let part = mix.get(..10_000).unwrap_or(&mix);
    println!("{:<28} {:>8.1} us", "10 KB of it", time(&secrets, part.repeat(100).as_bytes()).0 * 1e4);
    println!("results of calls, cleaned as a whole:");
    for (name, bytes) in [("10 KB", 10_000), ("1 MiB", 1 << 20)] {
        for (of, text) in [("source", &source), ("JSON in a string", &json), ("logs", &logs)] {
            let text: String = text.chars().take(bytes).collect();
            let result = format!("{{\"content\":[{{\"type\":\"text\",\"text\":{}}}]}}", quote(&text));
            println!("  {:<26} {:>8.3} ms", format!("{name}, {of}"), result_time(&secrets, &result).0 * 1e3);
        }
        let rows: String = json.split_inclusive("},{").take(bytes / 330).collect();
        let rows = rows.trim_end_matches(",{");
        let result = format!("{{\"content\":[],\"structuredContent\":{{\"rows\":{rows}]}}}}");
        println!("  {:<26} {:>8.3} ms", format!("{name}, rows"), result_time(&secrets, &result).0 * 1e3);
    }
    println!("1 MiB of strings of 1 KB that were made to be slow:");
    for unit in HARD {
        let text = quote(&unit.repeat(1000 / unit.len()));
        let many = vec![text.as_str(); (1 << 20) / text.len()].join(",");
        let (seconds, told) = result_time(&all, &format!("{{\"content\":[{many}]}}"));
        println!("  {unit:<26?} {:>8.1} ms  {told}", seconds * 1e3);
    }
    println!("1 MiB that was made to be slow:");
    for unit in HARD {
        let text = unit.repeat((1 << 20) / unit.len());
        let (seconds, found) = time(&all, text.as_bytes());
        println!("  {unit:<26?} {:>8.1} ms  {found}", seconds * 1e3);
    }
}

/// What costs most to look at, as often as it fits.
const HARD: &[&str] = &[
    "password=",
    "password:",
    "key ",
    "token=\"",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nAAAA",
    "://a:",
    "://a@",
    "eyJ",
    "eyJhbGciOiJIUzI1NiJ9.",
    "AKIAABCDEFGHIJKLMNOP ",
    "\"kty\"}",
    "\"kty\"{",
    "cookie: a=b;",
    "curl -u ",
    "insert into a(password)",
    "insert into a(password) values(",
    "kind: secret\ndata:\n",
    "mnemonic: ability canyon ",
    "sig=",
    "$6$a",
    "your code ",
    "ghp_",
    "sk-",
    "identified by ",
    "authorization: ",
    "pass: {\"",
    "1",
    "1 ",
    "1.",
    "@",
    "a@a.",
    ":",
    "a:",
    "secret",
    "secretsecret=",
    "KEY ",
    "KEY-",
    "basic ",
    "bearer ",
    ":*:",
    "=====",
    "\\",
    "\"",
    "password=\"\\",
    "mysql -p",
    "xoxb-1-",
    "<password>",
    "pa",
];

/// The best of some rounds, in seconds, and what became of it.
fn time(detector: &Detector, text: &[u8]) -> (f64, String) {
    let mut best = f64::MAX;
    let mut told = String::new();
    for _ in 0..ROUNDS {
        let mut found = Vec::new();
        let begin = spent();
        let result = detector.find(text, &Place::default(), &mut found);
        best = best.min(spent() - begin);
        told = result.map_or_else(|why| why.to_string(), |()| format!("{} found", found.len()));
    }
    (best, told)
}

/// The best of some rounds for a whole result, parsed already.
fn result_time(detector: &Detector, result: &str) -> (f64, String) {
    let scrubber =
        Scrubber::new(vec![Arc::new(detector.clone())], Arc::new(|_, _: &[u8]| "<gone>".to_owned()));
    let document = Document::parse(result.as_bytes(), &Limits::default()).unwrap();
    let mut best = f64::MAX;
    let mut told = String::new();
    let times = ((4 << 20) / result.len()).max(1);
    for _ in 0..ROUNDS {
        let begin = spent();
        let mut cleaned = scrubber.scrub_json(&document);
        for _ in 1..times {
            cleaned = scrubber.scrub_json(&document);
        }
        best = best.min((spent() - begin) / times as f64);
        told = cleaned.map_or_else(
            |why| why.to_string(),
            |cleaned| format!("{} found", cleaned.removed.values().sum::<usize>()),
        );
    }
    (best, told)
}

/// How long this thread was on a processor, in seconds: on a machine that does other things as well, that is what counts.
fn spent() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    told.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn source() -> String {
    let files = [
        include_str!("../src/policy/tests.rs"),
        include_str!("../src/json/parse.rs"),
        include_str!("../src/text.rs"),
        include_str!("../src/schema.rs"),
        include_str!("../src/scrub/detect/special.rs"),
    ];
    files.concat().repeat(8)
}

fn json() -> String {
    let mut text = String::from("[");
    for n in 0..10_000_u64 {
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        write!(text, "{{\"id\":{n},\"name\":\"item {n}\",\"state\":\"open\",\"sha\":\"{hash:016x}{hash:016x}\",\"labels\":[\"bug\",\"help wanted\"],\"author\":{{\"login\":\"user{n}\",\"url\":\"https://api.example.com/users/{n}\"}},\"body\":\"It happens when the window is closed before the answer is there.\\nSee the log.\"}},").unwrap();
    }
    text + "null]"
}

fn logs() -> String {
    let mut text = String::new();
    for n in 0..15_000_u64 {
        writeln!(text, "2026-03-04T10:{:02}:{:02}.{:03}Z INFO gate::pipeline call admitted agent=support tool=mail/search duration_ms={} bytes={} session=s-{n} from 10.0.{}.{}", n / 60 % 60, n % 60, n % 1000, n % 97, n * 31 % 9000, n % 250, n % 251).unwrap();
    }
    text
}
