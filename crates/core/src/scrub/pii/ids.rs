//! Numbers that states give to persons: their forms, their checksums, and the words that go before them.

use std::sync::LazyLock;

use super::check::{luhn, remainder, verhoeff, weighted};
use crate::scrub::detect::bytes::{at, before};

/// What else has to be there, beside form and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// Words that say what it is.
    Words,
    /// Words, if it is written without signs between its parts.
    WordsIfPlain,
}

/// A number that a state gives.
pub(super) struct Id {
    pub(super) kind: &'static str,
    /// How it is written: `d` is a digit, `L` a capital letter, `a` either; everything else is itself.
    pub(super) masks: &'static [&'static str],
    pub(super) words: &'static [&'static str],
    pub(super) needs: Needs,
    /// Whether the letters and digits, without what stands between, can be one.
    pub(super) check: fn(&[u8]) -> bool,
}

/// All that are known.
#[rustfmt::skip]
pub(super) const IDS: &[Id] = &[
    Id { kind: "pii.id.us-ssn", masks: &["ddd-dd-dddd", "ddd dd dddd", "ddddddddd"], words: &["ssn", "social security", "socialsecurity", "social_security", "tax id", "taxpayer"], needs: Needs::WordsIfPlain, check: us_ssn },
    Id { kind: "pii.id.us-itin", masks: &["ddd-dd-dddd"], words: &["itin"], needs: Needs::Words, check: |value| at(value, 0) == b'9' },
    Id { kind: "pii.id.uk-nino", masks: &["LLddddddL", "LL dd dd dd L", "LL-dd-dd-dd-L"], words: &[], needs: Needs::Nothing, check: uk_nino },
    Id { kind: "pii.id.uk-nhs", masks: &["ddd ddd dddd", "ddd-ddd-dddd", "dddddddddd"], words: &["nhs"], needs: Needs::Words, check: uk_nhs },
    Id { kind: "pii.id.de-tax", masks: &["ddddddddddd", "dd ddd ddd ddd"], words: &["steuer", "idnr", "tin", "tax"], needs: Needs::Words, check: de_tax },
    Id { kind: "pii.id.fr-nir", masks: &["ddddddddddddddd", "d dd dd dd ddd ddd dd"], words: &[], needs: Needs::Nothing, check: fr_nir },
    Id { kind: "pii.id.es-dni", masks: &["ddddddddL", "dddddddd-L"], words: &[], needs: Needs::Nothing, check: es_letter },
    Id { kind: "pii.id.es-nie", masks: &["LdddddddL", "L-ddddddd-L"], words: &[], needs: Needs::Nothing, check: es_nie },
    Id { kind: "pii.id.it-fiscal", masks: &["LLLLLLddLddLdddL"], words: &[], needs: Needs::Nothing, check: it_fiscal },
    Id { kind: "pii.id.nl-bsn", masks: &["ddddddddd", "dddd.dd.ddd", "dddd dd ddd"], words: &["bsn", "burgerservice", "sofi"], needs: Needs::Words, check: nl_bsn },
    Id { kind: "pii.id.be-national", masks: &["dd.dd.dd-ddd.dd", "ddddddddddd"], words: &["rijksregister", "registre national", "insz", "niss", "national number"], needs: Needs::WordsIfPlain, check: be_national },
    Id { kind: "pii.id.pl-pesel", masks: &["ddddddddddd"], words: &["pesel"], needs: Needs::Words, check: pl_pesel },
    Id { kind: "pii.id.se-personal", masks: &["dddddd-dddd", "dddddd+dddd", "dddddddd-dddd", "dddddddddd", "dddddddddddd"], words: &["personnummer", "personal number", "personnr", "samordning"], needs: Needs::WordsIfPlain, check: se_personal },
    Id { kind: "pii.id.fi-hetu", masks: &["dddddd-ddda", "dddddd+ddda", "ddddddAddda"], words: &[], needs: Needs::Nothing, check: fi_hetu },
    Id { kind: "pii.id.dk-cpr", masks: &["dddddd-dddd", "dddddddddd"], words: &["cpr", "personnummer"], needs: Needs::Words, check: |value| date(two(value, 0), two(value, 2)) },
    Id { kind: "pii.id.no-birth", masks: &["ddddddddddd", "dddddd ddddd"], words: &["fødsels", "fodsels", "personnummer", "national id"], needs: Needs::Words, check: no_birth },
    Id { kind: "pii.id.ch-ahv", masks: &["ddd.dddd.dddd.dd", "ddddddddddddd"], words: &[], needs: Needs::Nothing, check: ch_ahv },
    Id { kind: "pii.id.in-aadhaar", masks: &["dddd dddd dddd", "dddd-dddd-dddd", "dddddddddddd"], words: &["aadhaar", "aadhar", "uidai"], needs: Needs::WordsIfPlain, check: |value| at(value, 0) > b'1' && verhoeff(value) },
    Id { kind: "pii.id.in-pan", masks: &["LLLLLddddL"], words: &["pan", "income tax", "tax"], needs: Needs::Words, check: |value| b"PCHABGJLFT".contains(&at(value, 3)) },
    Id { kind: "pii.id.br-cpf", masks: &["ddd.ddd.ddd-dd", "ddddddddddd"], words: &["cpf"], needs: Needs::WordsIfPlain, check: br_cpf },
    Id { kind: "pii.id.br-cnpj", masks: &["dd.ddd.ddd/dddd-dd", "dddddddddddddd"], words: &["cnpj"], needs: Needs::WordsIfPlain, check: br_cnpj },
    Id { kind: "pii.id.ca-sin", masks: &["ddd-ddd-ddd", "ddd ddd ddd", "ddddddddd"], words: &["sin", "social insurance"], needs: Needs::Words, check: |value| !matches!(at(value, 0), b'0' | b'8') && luhn(&numbers(value)) },
    Id { kind: "pii.id.au-tfn", masks: &["ddd ddd ddd", "ddd-ddd-ddd", "ddddddddd"], words: &["tfn", "tax file"], needs: Needs::Words, check: |value| weighted(value, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11) },
    Id { kind: "pii.id.cn-resident", masks: &["ddddddddddddddddda"], words: &[], needs: Needs::Nothing, check: cn_resident },
    Id { kind: "pii.id.kr-resident", masks: &["dddddd-ddddddd"], words: &[], needs: Needs::Nothing, check: kr_resident },
    Id { kind: "pii.id.mx-curp", masks: &["LLLLddddddLLLLLLad"], words: &[], needs: Needs::Nothing, check: |value| date(two(value, 8), two(value, 6)) && matches!(at(value, 10), b'H' | b'M' | b'X') },
    Id { kind: "pii.id.sg-nric", masks: &["LdddddddL"], words: &["nric", "fin"], needs: Needs::Words, check: |value| b"STFGM".contains(&at(value, 0)) },
    Id { kind: "pii.id.za-id", masks: &["ddddddddddddd"], words: &["id number", "identity number", "south african"], needs: Needs::Words, check: |value| date(two(value, 4), two(value, 2)) && luhn(&numbers(value)) },
    Id { kind: "pii.id.tr-kimlik", masks: &["ddddddddddd"], words: &["kimlik", "tckn"], needs: Needs::Words, check: tr_kimlik },
    Id { kind: "pii.id.passport", masks: &["LLddddddd", "Ldddddddd", "ddddddddd", "aaaaaaaaa"], words: &["passport", "reisepass", "passeport", "pasaporte"], needs: Needs::Words, check: |value| numbers(value).len() >= 5 },
];

/// A number, and one way to write it.
type Mask = (&'static Id, &'static [u8]);

/// The masks that begin with so many letters and digits, each with the number it is for.
static BY_HEAD: LazyLock<Vec<Vec<Mask>>> = LazyLock::new(|| {
    let mut all = vec![Vec::new(); 24];
    for id in IDS {
        for mask in id.masks {
            let head = mask.bytes().take_while(u8::is_ascii_alphanumeric).count();
            if let Some(masks) = all.get_mut(head) {
                masks.push((id, mask.as_bytes()));
            }
        }
    }
    all
});

/// What a text can be that begins with so many letters and digits.
pub(super) fn beginning_with(head: usize) -> &'static [Mask] {
    BY_HEAD.get(head).map_or(&[], Vec::as_slice)
}

/// Where the text ends that is written as a mask says, if it begins and ends there.
pub(super) fn masked(text: &[u8], start: usize, mask: &[u8]) -> Option<usize> {
    let fits = mask.iter().zip(start..).all(|(mask, place)| {
        let here = at(text, place);
        match mask {
            b'd' => here.is_ascii_digit(),
            b'L' => here.is_ascii_uppercase(),
            b'a' => here.is_ascii_digit() || here.is_ascii_uppercase(),
            other => here == *other,
        }
    });
    let end = start + mask.len();
    (fits && !at(text, end).is_ascii_alphanumeric() && !before(text, start).is_ascii_alphanumeric())
        .then_some(end)
}

fn numbers(value: &[u8]) -> Vec<u8> {
    value.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect()
}

fn digit(value: &[u8], place: usize) -> u32 {
    u32::from(at(value, place).wrapping_sub(b'0'))
}

/// The number that two digits make.
fn two(value: &[u8], place: usize) -> u32 {
    digit(value, place) * 10 + digit(value, place + 1)
}

fn date(day: u32, month: u32) -> bool {
    (1..=31).contains(&day) && (1..=12).contains(&month)
}

fn varied(value: &[u8]) -> bool {
    value.iter().any(|byte| Some(byte) != value.first())
}

fn us_ssn(value: &[u8]) -> bool {
    let area = digit(value, 0) * 100 + two(value, 1);
    let printed = matches!(value, b"078051120" | b"219099999");
    !matches!(area, 0 | 666 | 900..) && two(value, 3) != 0 && two(value, 5) + two(value, 7) != 0 && !printed
}

fn uk_nino(value: &[u8]) -> bool {
    let (first, second) = (at(value, 0), at(value, 1));
    !b"DFIQUV".contains(&first)
        && !b"DFIQUVO".contains(&second)
        && !matches!(&[first, second], b"BG" | b"GB" | b"KN" | b"NK" | b"NT" | b"TN" | b"ZZ")
        && matches!(value.last(), Some(b'A'..=b'D'))
}

fn uk_nhs(value: &[u8]) -> bool {
    let check = 11 - weighted(value, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    check % 11 == digit(value, 9) && check != 10
}

fn de_tax(value: &[u8]) -> bool {
    let product = value.iter().take(10).fold(10, |product, &byte| {
        let sum = (u32::from(byte.wrapping_sub(b'0')) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    at(value, 0) != b'0' && (11 - product) % 10 == digit(value, 10)
}

fn fr_nir(value: &[u8]) -> bool {
    let body = value.get(..13).unwrap_or_default();
    let month = two(value, 3);
    matches!(at(value, 0), b'1' | b'2')
        && matches!(month, 1..=12 | 20..=42)
        && 97 - remainder(body, 97) == two(value, 13)
}

fn es_letter(value: &[u8]) -> bool {
    b"TRWAGMYFPDXBNJZSQVHLCKE".get(remainder(value, 23) as usize) == value.last()
}

fn es_nie(value: &[u8]) -> bool {
    let first = match at(value, 0) {
        b'X' => b'0',
        b'Y' => b'1',
        b'Z' => b'2',
        _ => return false,
    };
    let digits: Vec<u8> = std::iter::once(first).chain(value.iter().copied().skip(1)).collect();
    es_letter(&digits)
}

fn it_fiscal(value: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let worth = |(place, &byte): (usize, &u8)| {
        let worth = if byte.is_ascii_digit() { byte - b'0' } else { byte.wrapping_sub(b'A') };
        if place % 2 == 0 { ODD.get(usize::from(worth)).copied().unwrap_or(0) } else { u32::from(worth) }
    };
    let sum: u32 = value.iter().take(15).enumerate().map(worth).sum();
    u32::from(at(value, 15).wrapping_sub(b'A')) == sum % 26
}

fn nl_bsn(value: &[u8]) -> bool {
    (weighted(value, &[9, 8, 7, 6, 5, 4, 3, 2]) + 10 * digit(value, 8)).is_multiple_of(11) && varied(value)
}

fn be_national(value: &[u8]) -> bool {
    let born = value.get(..9).unwrap_or_default();
    // Those born since 2000 have a 2 before the number.
    let later: Vec<u8> = std::iter::once(b'2').chain(born.iter().copied()).collect();
    let check = two(value, 9);
    two(value, 2) % 20 <= 12
        && two(value, 4) <= 31
        && (97 - remainder(born, 97) == check || 97 - remainder(&later, 97) == check)
}

fn pl_pesel(value: &[u8]) -> bool {
    let sum = weighted(value, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    (10 - sum % 10) % 10 == digit(value, 10) && date(two(value, 4), two(value, 2) % 20)
}

fn se_personal(value: &[u8]) -> bool {
    let value = if value.len() == 12 { value.get(2..).unwrap_or_default() } else { value };
    let day = two(value, 4);
    date(if day > 60 { day - 60 } else { day }, two(value, 2)) && luhn(&numbers(value))
}

fn fi_hetu(value: &[u8]) -> bool {
    let number: Vec<u8> = value.iter().copied().filter(u8::is_ascii_digit).take(9).collect();
    let letter = b"0123456789ABCDEFHJKLMNPRSTUVWXY".get(remainder(&number, 31) as usize);
    date(two(value, 0), two(value, 2)) && letter == value.last()
}

fn no_birth(value: &[u8]) -> bool {
    let one = (11 - weighted(value, &[3, 7, 6, 1, 8, 9, 4, 5, 2]) % 11) % 11;
    let other = (11 - weighted(value, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11) % 11;
    date(two(value, 0) % 40, two(value, 2)) && one == digit(value, 9) && other == digit(value, 10)
}

fn ch_ahv(value: &[u8]) -> bool {
    let sum = weighted(value, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3]);
    value.starts_with(b"756") && (10 - sum % 10) % 10 == digit(value, 12)
}

/// The check digit of sums modulo 11, as in Brazil.
fn br_check(value: &[u8], weights: &[u32]) -> u32 {
    let rest = weighted(value, weights) % 11;
    if rest < 2 { 0 } else { 11 - rest }
}

fn br_cpf(value: &[u8]) -> bool {
    br_check(value, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) == digit(value, 9)
        && br_check(value, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) == digit(value, 10)
        && varied(value)
}

fn br_cnpj(value: &[u8]) -> bool {
    br_check(value, &[5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) == digit(value, 12)
        && br_check(value, &[6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2]) == digit(value, 13)
        && varied(value)
}

fn cn_resident(value: &[u8]) -> bool {
    let sum = weighted(value, &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let check = b"10X98765432".get((sum % 11) as usize);
    matches!(two(value, 6), 19 | 20) && date(two(value, 12), two(value, 10)) && check == value.last()
}

fn kr_resident(value: &[u8]) -> bool {
    let sum = weighted(value, &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]);
    date(two(value, 4), two(value, 2))
        && matches!(at(value, 6), b'1'..=b'8')
        && (11 - sum % 11) % 10 == digit(value, 12)
}

fn tr_kimlik(value: &[u8]) -> bool {
    let odd = weighted(value, &[1, 0, 1, 0, 1, 0, 1, 0, 1]);
    let even = weighted(value, &[0, 1, 0, 1, 0, 1, 0, 1]);
    at(value, 0) != b'0'
        && (odd * 7 + 90 - even) % 10 == digit(value, 9)
        && weighted(value, &[1; 10]) % 10 == digit(value, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples() {
        for (kind, good, bad) in [
            ("pii.id.de-tax", "86095742719", "86095742718"),
            ("pii.id.fr-nir", "255081416802538", "255081416802539"),
            ("pii.id.es-dni", "12345678Z", "12345678A"),
            ("pii.id.es-nie", "X1234567L", "X1234567M"),
            ("pii.id.it-fiscal", "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
            ("pii.id.nl-bsn", "111222333", "111222334"),
            ("pii.id.be-national", "85073003328", "85073003329"),
            ("pii.id.pl-pesel", "44051401359", "44051401358"),
            ("pii.id.se-personal", "8112189876", "8112189875"),
            ("pii.id.fi-hetu", "131052308T", "131052308U"),
            ("pii.id.ch-ahv", "7569217076985", "7569217076984"),
            ("pii.id.br-cpf", "11144477735", "11144477734"),
            ("pii.id.br-cnpj", "11222333000181", "11222333000180"),
            ("pii.id.ca-sin", "193456787", "193456788"),
            ("pii.id.au-tfn", "123456782", "123456783"),
            ("pii.id.cn-resident", "11010519491231002X", "110105194912310021"),
            ("pii.id.uk-nhs", "9434765919", "9434765918"),
            ("pii.id.uk-nino", "AB123456C", "QQ123456C"),
            ("pii.id.us-ssn", "536904399", "666904399"),
            ("pii.id.tr-kimlik", "10000000146", "10000000147"),
        ] {
            let id = IDS.iter().find(|id| id.kind == kind).unwrap();
            assert!((id.check)(good.as_bytes()), "{kind} {good}");
            assert!(!(id.check)(bad.as_bytes()), "{kind} {bad}");
        }
    }
}
