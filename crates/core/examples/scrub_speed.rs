//! How fast texts are looked through for known values, and how long crafted ones take. Prints figures only.
//!
//! `cargo run --release -p toolgate-core --example scrub_speed`
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be set up has no figures")]
#![expect(clippy::indexing_slicing, reason = "the same")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]
#![expect(clippy::disallowed_methods, reason = "it measures time; the library does not")]

use std::sync::Arc;
use std::time::Instant;

use toolgate_core::json::{Document, Limits, quote};
use toolgate_core::scrub::known::{Known, KnownValue};
use toolgate_core::scrub::{Detect, Scrubber};

const MIB: usize = 1 << 20;

fn main() {
    let hundred = scrubber(100);
    let thousand = scrubber(1_000);
    let clean = clean(4 * MIB);
    rate("clean text, 100 values", &hundred, &clean);
    rate("clean text, 1,000 values", &thousand, &clean);
    let escaped: Vec<u8> = clean[..MIB].iter().flat_map(|b| format!("%{b:02x}").into_bytes()).collect();
    rate("all percent-encoded", &hundred, &escaped);
    rate("base64 of text", &hundred, base64(&clean[..MIB]).as_bytes());
    rate("base64 of random bytes", &hundred, base64(&random(MIB)).as_bytes());
    rate("random bytes", &hundred, &random(MIB));
    rate("lines of times and escapes", &hundred, &logs(MIB));

    let results = |bytes: usize, count: usize| {
        let text = String::from_utf8_lossy(&clean[..bytes]).into_owned();
        let result = format!(r#"{{"content":[{{"type":"text","text":{}}}],"isError":false}}"#, quote(&text));
        let mut times: Vec<f64> = (0..count)
            .map(|_| {
                let begin = Instant::now();
                let document = Document::parse(result.as_bytes(), &Limits::default()).unwrap();
                hundred.scrub_json(&document).unwrap();
                begin.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times
    };
    println!("result of 10 KB, p50               {:>9.1} µs", results(9 << 10, 501)[250] * 1e6);
    println!("result of 64 KiB, p99              {:>9.1} µs", results(63 << 10, 201)[198] * 1e6);

    for (name, text) in crafted() {
        let begin = Instant::now();
        let withheld = hundred.scrub_text(&text).is_err();
        let time = begin.elapsed().as_secs_f64() * 1e3;
        println!("crafted MiB: {name:<21} {time:>9.1} ms{}", if withheld { ", withheld" } else { "" });
    }
}

fn scrubber(count: usize) -> Scrubber {
    let values: Vec<String> = (0..count).map(value).collect();
    let known: Vec<KnownValue<'_>> = values
        .iter()
        .zip(0..)
        .map(|(value, id)| KnownValue { id, value: value.as_bytes(), names: &[] })
        .collect();
    let begin = Instant::now();
    let (known, _) = Known::new(&known);
    println!("{count} values: ready in              {:>9.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    println!("{count} values: memory                {:>9.1} KB", known.size() as f64 / 1e3);
    Scrubber::new(vec![Arc::new(known) as Arc<dyn Detect>], Arc::new(|kind, _| format!("⟦{kind:?}⟧")))
}

/// A value of 40 letters and digits.
fn value(n: usize) -> String {
    random(60 * (n + 1))[60 * n..]
        .iter()
        .filter(|b| b.is_ascii_alphanumeric())
        .map(|b| char::from(*b))
        .chain("qZ7".chars().cycle())
        .take(40)
        .collect()
}

fn random(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// Prose, code, JSON and logs in turn.
fn clean(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count + 1024);
    let mut n = 0_u64;
    while out.len() < count {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = match n >> 62 {
            0 => "When a call comes in, the rules are asked first, and then a person if the rules say so. ".repeat(4),
            1 => format!("    let {} = self.entries.get(index).map(|entry| entry.length_of({}));\n", ["size", "part", "rest"][(n >> 50) as usize % 3], n >> 40 & 255).repeat(3),
            2 => format!("{{\"id\":{},\"name\":\"item-{}\",\"tags\":[\"red\",\"new\"],\"price\":{}.5,\"active\":true}},\n", n >> 44 & 65535, n >> 40 & 255, n >> 48 & 999).repeat(3),
            _ => format!("- file src/module_{}/part_{}.rs changed, commit {:016x}\n", n >> 50 & 63, n >> 40 & 63, n).repeat(2),
        };
        out.extend_from_slice(part.as_bytes());
    }
    out.truncate(count);
    out
}

fn logs(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count + 256);
    let mut n = 0_u64;
    while out.len() < count {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(format!("2024-05-01T10:20:{:02}.{:03}Z INFO got \\\"{:016x}\\\" from 10.0.0.{} path=/a%20b status=200\n", n >> 58, n >> 55 & 511, n, n >> 56).as_bytes());
    }
    out.truncate(count);
    out
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |group: &[u8]| {
        let number = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(number >> shift & 63) as usize]))
    };
    bytes.chunks_exact(3).flat_map(digits).collect()
}

fn rate(name: &str, scrubber: &Scrubber, text: &[u8]) {
    let mut best = f64::MAX;
    for _ in 0..3 {
        let begin = Instant::now();
        scrubber.scrub_text(text).unwrap();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    println!("{name:<34} {:>9.0} MB/s", text.len() as f64 / best / 1e6);
}

/// Texts of 1 MiB that are made to take long.
fn crafted() -> Vec<(&'static str, Vec<u8>)> {
    let fill = |part: &[u8]| part.iter().copied().cycle().take(MIB).collect::<Vec<u8>>();
    let one = value(0);
    let mut nested = clean(200 << 10);
    while nested.len() < MIB * 3 / 4 {
        nested = base64(&nested).into_bytes();
    }
    let almost: String = one.chars().take(39).chain("!x".chars()).collect();
    vec![
        ("one letter", fill(b"a")),
        ("percent signs", fill(b"%25")),
        ("backslashes", fill(b"\\")),
        ("entities", fill(b"&amp;")),
        ("escapes of escapes", fill(b"%5cx26%23x25%3b41")),
        ("open tags", fill(b"<a")),
        ("comments", fill(b"<!--")),
        ("escape characters", fill(b"\x1b]")),
        ("equals signs", fill(b"=?a")),
        ("line ends", fill(b"\n")),
        ("dump lines", fill(b"00000000: 61\n")),
        ("numbered lines", fill(b"1: =41\\61 \n")),
        ("Morse", fill(b".- ")),
        ("headers of gzip", fill(b"\x1f\x8b\x08\0\0\0\0\0\0\0")),
        ("headers of zip", fill(b"PK\x03\x04\0\0\0\0\x08\0")),
        ("headers of zlib", fill(b"\x78\x9c\x03")),
        ("stored blocks", [b"\x1f\x8b\x08\0\0\0\0\0\0\0".as_slice(), &fill(b"\0\0\0\xff\xff")].concat()),
        ("runs", fill(b"aB3dE6gH9jK2mN5pQ8s ")),
        ("base64 in base64", nested),
        ("Unicode", fill("аᴀＡ\u{200b}\u{301}".as_bytes())),
        ("rare Unicode", fill("𝐀🅰\u{e0041}".as_bytes())),
        ("overstrikes", fill(b"a\x08")),
        ("almost the value", fill(almost.as_bytes())),
        ("the value", fill(one.as_bytes())),
        ("the value in base64", fill(base64(format!("{one}xx").as_bytes()).as_bytes())),
        ("uuencode", fill(b"begin 644 a\n#86)C\n")),
    ]
}
