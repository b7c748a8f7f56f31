//! What has a form of its own: addresses with passwords, headers, keys between lines of dashes, command lines, dumps.
//!
//! Each function is called where its words stand, looks on for a bounded stretch, and notes what it finds.

use std::ops::Range;

use super::Scan;
use super::assign::Sure;
use super::bytes::{Mix, at, before, cut, find, goes_on, has_any, run, run_back, wordy};
use super::name::Meaning;
use super::value::{Written, is_secret, stands_for, uuid};
use crate::scrub::bits;

/// What is done where the words stand.
pub(super) type Handler = fn(&mut Scan<'_>, Range<usize>);

/// The words, in lower case, and what is done where they stand.
#[rustfmt::skip]
pub(super) const SPECIAL: &[(&str, Handler)] = &[
    ("://", address), ("jdbc:oracle:", oracle),
    ("authorization", authorization), ("bearer ", scheme), ("basic ", scheme), ("bearer%20", scheme),
    ("cookie", cookies), ("eyj", jwt),
    ("-----begin", pem), ("---- begin ssh2", pem), ("private-lines:", putty), ("$ansible_vault;", ansible),
    ("identified by", sql_quoted), ("identified with", sql_quoted), ("insert into", insert),
    ("$apr1$", stored), ("$2a$", stored), ("$2b$", stored), ("$2y$", stored), ("$1$", stored), ("$5$", stored), ("$6$", stored), ("$y$", stored),
    ("$7$", stored), ("$argon2", stored), ("$pbkdf2", stored), ("$scrypt$", stored), ("{ssha", stored), ("{sha}", stored), ("{md5}", stored), ("{smd5}", stored),
    ("pbkdf2_sha256$", stored), ("pbkdf2:sha", stored), ("scrypt:32768", stored), (":::", ntlm),
    (":5432:", pgpass), (":*:", pgpass), (":5433:", pgpass), (":6432:", pgpass), (":3306:", pgpass), (":54320:", pgpass),
    ("sig=", signature), ("signature=", signature), ("signature\":", signature), ("mac=", signature),
    ("\"kty\"", jwk), ("kind: secret", kubernetes), ("\"auth\"", docker),
    ("verification code", code), ("security code", code), ("login code", code), ("one-time", code), ("one time", code), ("passcode", code), ("otp", code),
    ("auth code", code), ("authentication code", code), ("2fa", code), ("confirmation code", code), ("sign-in code", code), ("access code", code),
    ("backup code", code), ("recovery code", code), ("authorization code", code), ("your code", code), ("activation code", code), ("reset code", code), ("pin code", code), ("your pin", code), (" pin is", code), ("cvv", code), ("cvc", code),
    ("mnemonic", phrase), ("seed phrase", phrase), ("recovery phrase", phrase), ("seed words", phrase), ("secret phrase", phrase), ("backup phrase", phrase), ("recovery_phrase", phrase), ("seed_phrase", phrase), ("seedphrase", phrase), ("recoveryphrase", phrase), ("recovery words", phrase), ("wallet seed", phrase), ("bip39", phrase), ("seed:", phrase), ("passphrase", phrase), ("\"seed\"", phrase),
    ("secret", shouted), ("private", shouted), ("access", shouted), ("token", shouted), ("key", shouted),
    ("curl ", command), ("wget ", command), ("mysql", command), ("mariadb", command), ("mongo", command), ("sshpass", command), ("redis-cli", command), ("ldapsearch", command), ("ldapadd", command), ("ldapmodify", command),
    ("zip ", command), ("7z ", command), ("docker login", command), ("podman login", command), ("helm registry login", command), ("smbclient", command), ("htpasswd", command), ("sqlcmd", command), ("psql ", command), ("httpie", command), ("http ", command),
    ("rabbitmqctl", command), ("impacket", command), ("crackmapexec", command), ("xfreerdp", command), ("rdesktop", command), ("vncpasswd", command), ("isql", command), ("sqlplus", command), ("openssl", command), ("lftp", command), ("ncftp", command), ("net use", command), ("chpasswd", command), ("az login", command), ("mount ", command), ("bcp ", command), ("kinit", command), ("usql", command),
];

/// `scheme://user:password@host`, `scheme://token@host`.
fn address(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let scheme = cut(
        text,
        run_back(text, word.start, 20, |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b':')
        }),
        word.start,
    );
    if scheme.is_empty() {
        return;
    }
    let authority = run(text, word.end, 600, |byte| {
        !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b'|' | 0)
    });
    scan.work += authority - word.end;
    let all = cut(text, word.end, authority);
    // The last `@` before the path; a password may hold `/` and `#` if it was not escaped.
    let slash = all.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(all.len());
    let sign = |part: &[u8]| part.iter().rposition(|&byte| byte == b'@');
    let early = || {
        let early = sign(all)?;
        let colon = all.iter().position(|&byte| byte == b':')?;
        // A port, or a path with an `@` in it, is no password.
        let port = cut(all, colon + 1, slash).iter().all(u8::is_ascii_digit);
        (colon < slash && slash < early && !port && find(scheme, b"http").is_none()).then_some(early)
    };
    let Some(sign) = sign(cut(all, 0, slash)).or_else(early) else { return };
    let person = cut(all, 0, sign);
    match person.iter().position(|&byte| byte == b':') {
        Some(colon) => {
            let password = cut(person, colon + 1, person.len());
            if password.len() >= 2
                && !stands_for(password)
                && !refers_here(password)
                && !is_user_again(cut(person, 0, colon), password)
            {
                scan.found(word.end + colon + 1..word.end + sign, "url-password");
            } else if password.is_empty() || password.eq_ignore_ascii_case(b"x-oauth-basic") {
                token_user(scan, cut(person, 0, colon), word.end);
            }
        }
        None => token_user(scan, person, word.end),
    }
}

fn token_user(scan: &mut Scan<'_>, user: &[u8], start: usize) {
    if user.len() >= 16 && is_secret(user, Meaning::Key, Written::Quoted) {
        scan.found(start..start + user.len(), "url-token");
    }
}

/// `user:user@`, `user:pass@`: what documentation writes.
fn is_user_again(user: &[u8], password: &[u8]) -> bool {
    let written: &[&[u8]] = &[
        b"pass",
        b"passwd",
        b"pw",
        b"pwd",
        b"password",
        b"secret",
        b"token",
        b"p4ss",
        b"p",
        b"pwd1",
        b"port",
    ];
    written.contains(&password)
        || (user == password
            && password.iter().all(u8::is_ascii_lowercase)
            && wordy(password)
            && password.len() < 8)
}

/// Whether something only says where the password is: `${X}`, `{x}`, `$X`, `%s`, `<x>`.
fn refers_here(value: &[u8]) -> bool {
    matches!(at(value, 0), b'$' | b'{' | b'<' | b'[' | b'(')
        || value == b"%s"
        || has_any(value, &["${", "{{", "#{", "\" +", "' +", "%(", "$(", "<%"])
        || value.iter().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.' | b'-'))
}

/// `jdbc:oracle:thin:user/password@host`.
fn oracle(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let end =
        run(text, word.end, 200, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b'<'));
    let all = cut(text, word.end, end);
    let (Some(slash), Some(sign)) =
        (all.iter().position(|&byte| byte == b'/'), all.iter().rposition(|&byte| byte == b'@'))
    else {
        return;
    };
    let password = cut(all, slash + 1, sign);
    if slash < sign
        && password.len() >= 3
        && !stands_for(password)
        && !refers_here(password)
        && at(password, 0) != b'/'
    {
        scan.found(word.end + slash + 1..word.end + sign, "connection-string-password");
    }
}

/// The header `Authorization`, also as a member of JSON, an argument or a variable.
fn authorization(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let closed = run(text, word.end, 4, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b']' | b'`'));
    let sign = run(text, closed, 8, |byte| matches!(byte, b' ' | b':' | b'=' | b'>' | b','));
    if sign == closed && at(text, closed) != b'(' {
        return;
    }
    let start = run(text, sign, 12, |byte| {
        matches!(byte, b' ' | b'"' | b'\'' | b'\\' | b'[' | b'`' | b'(' | b'\n' | b'f' | b'b')
    });
    let kind = run(text, start, 20, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let name = cut(text, start, kind).to_ascii_lowercase();
    if at(text, kind) != b' ' {
        // Without a scheme: the whole value.
        let end = token_end(text, start);
        if end - start >= 16 && is_secret(cut(text, start, end), Meaning::Key, Written::Quoted) {
            scan.found(start..end, "authorization");
        }
        return;
    }
    let value = run(text, kind, 3, |byte| byte == b' ');
    let line = run(text, value, 2048, |byte| !matches!(byte, b'\n' | b'\r'));
    scan.work += line - value;
    match name.as_slice() {
        b"digest" | b"hawk" | b"oauth" | b"aws4-hmac-sha256" | b"aws" | b"sharedkey" | b"hmac"
        | b"signature" | b"mac" => {
            let all = cut(text, value, line);
            for key in [
                "response=\"",
                "mac=\"",
                "oauth_signature=\"",
                "oauth_token=\"",
                "signature=",
                "signature=\"",
                "response=",
                "cnonce=\"",
            ] {
                if let Some(place) = find(all, key.as_bytes()) {
                    let from = value + place + key.len();
                    let end = run(text, from, 512, |byte| {
                        byte.is_ascii_alphanumeric() || b"+/=%_-".contains(&byte)
                    });
                    if end - from >= 16 {
                        scan.found(from..end, "authorization");
                    }
                }
            }
            if matches!(name.as_slice(), b"aws" | b"sharedkey")
                && let Some(colon) = all.iter().position(|&byte| byte == b':')
            {
                let end = token_end(text, value + colon + 1);
                if end - (value + colon + 1) >= 20 {
                    scan.found(value + colon + 1..end, "authorization");
                }
            }
        }
        b"basic" => basic(scan, value),
        _ => {
            let end = token_end(text, value);
            let token = cut(text, value, end);
            let token = token.strip_prefix(b"token=").unwrap_or(token);
            if is_token(token) {
                scan.found(end - token.len()..end, "authorization");
            }
        }
    }
}

/// `Bearer …` and `Basic …` anywhere.
fn scheme(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    if before(text, word.start).is_ascii_alphanumeric() {
        return;
    }
    if text.get(word.start).is_some_and(|&byte| matches!(byte, b'b' | b'B'))
        && goes_on(text, word.start, b"basic")
    {
        return basic(scan, word.end);
    }
    let end = token_end(text, word.end);
    let token = cut(text, word.end, end);
    if is_token(token) && Mix::of(token).digits > 0 {
        scan.found(word.end..end, "bearer-token");
    }
}

fn basic(scan: &mut Scan<'_>, from: usize) {
    let text = scan.text;
    let end = run(text, from, 1024, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
    });
    let end = run(text, end, 2, |byte| byte == b'=');
    let encoded = cut(text, from, end);
    let plain = decode64(encoded);
    let Some(colon) = plain.iter().position(|&byte| byte == b':') else { return };
    let printable = plain.iter().all(|&byte| (32..127).contains(&byte));
    let placeholder = stands_for(cut(&plain, colon + 1, plain.len())) && plain.len() < 24;
    if encoded.len() >= 6 && printable && !placeholder && !stands_for(encoded) {
        scan.found(from..end, "basic-credentials");
    }
}

/// `"auth": "dXNlcjpwYXNz"` of Docker.
fn docker(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let start = run(text, word.end, 8, |byte| matches!(byte, b' ' | b':' | b'"' | b'\n'));
    if start > word.end + 1 {
        basic(scan, start);
    }
}

fn token_end(text: &[u8], from: usize) -> usize {
    run(text, from, 8192, |byte| byte.is_ascii_alphanumeric() || b"-._~+/=:%|".contains(&byte))
}

fn is_token(token: &[u8]) -> bool {
    let mix = Mix::of(token);
    token.len() >= 8
        && !stands_for(token)
        && mix.random()
        && (mix.digits > 0 || (mix.upper > 0 && mix.lower > 0 && token.len() > 15))
        && (token.len() >= 12 || mix.digits > 1)
        && mix.digits + mix.other != mix.len
}

/// Values of cookies, but for those that only remember a taste or count visits.
fn cookies(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let mut end = run(text, word.end, 2, |byte| byte == b's' || byte == b'2');
    end = run(text, end, 4, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b']' | b')'));
    let sign = run(text, end, 8, |byte| matches!(byte, b':' | b'=' | b' ' | b'>' | b','));
    let sets = before(text, word.start) == b'-'
        && find(cut(text, word.start.saturating_sub(4), word.start), b"set").is_some();
    if sign == end {
        return;
    }
    let mut place = run(text, sign, 6, |byte| matches!(byte, b'"' | b'\'' | b'\\' | b'[' | b' ' | b'{'));
    let line = run(text, place, 4096, |byte| !matches!(byte, b'\n' | b'\r' | b'"' | b'\'' | b'<' | b'`'));
    scan.work += line - place;
    let mut first = true;
    while place < line {
        let name =
            run(text, place, 128, |byte| byte.is_ascii_graphic() && !matches!(byte, b'=' | b';' | b','));
        if at(text, name) != b'=' || name == place {
            break;
        }
        let stop = name
            + 1
            + cut(text, name + 1, line)
                .iter()
                .position(|&byte| matches!(byte, b';' | b' '))
                .unwrap_or(line.saturating_sub(name + 1));
        let value = cut(text, name + 1, stop);
        if (first || !sets) && is_session(cut(text, place, name), value) {
            scan.found(name + 1..stop, "cookie");
        }
        first = false;
        place = run(text, stop, 4, |byte| matches!(byte, b';' | b' ' | b','));
        if place == stop {
            break;
        }
    }
}

fn is_session(name: &[u8], value: &[u8]) -> bool {
    const HARMLESS: &[&str] = &[
        "_ga",
        "_gid",
        "_gat",
        "_fbp",
        "_gcl",
        "_hj",
        "_utm",
        "__utm",
        "theme",
        "lang",
        "locale",
        "tz",
        "timezone",
        "consent",
        "path",
        "expires",
        "domain",
        "max-age",
        "samesite",
        "currency",
        "country",
        "region",
        "utm_",
        "ab_",
        "experiment",
        "optimizely",
        "amp_",
        "intercom-id",
        "visitor",
        "cookie",
        "gdpr",
        "seen",
        "viewed",
        "_pk_",
        "mp_",
        "ajs_",
    ];
    let harmless = HARMLESS
        .iter()
        .any(|begin| name.get(..begin.len()).is_some_and(|head| head.eq_ignore_ascii_case(begin.as_bytes())));
    let mix = Mix::of(value);
    let secret = has_any(
        name,
        &[
            "sess", "sid", "auth", "token", "jwt", "csrf", "xsrf", "remember", "login", "secret", "key",
            "user_s", "connect", "identity", "sso", "logged", "id",
        ],
    );
    !harmless
        && !stands_for(value)
        && mix.random()
        && (mix.len >= 16 || (secret && mix.len >= 10))
        && mix.digits + mix.upper > 0
        && (secret || !mix.hex || mix.len > 20)
        && mix.digits < mix.len
}

/// A JSON web token, signed or encrypted.
fn jwt(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    if cut(text, word.start, word.end) != b"eyJ" || !super::shape::edge(text, word.start) {
        return;
    }
    let in_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'=' | b'/' | b'+');
    let mut place = run(text, word.start, 8192, in_part);
    scan.work += place - word.start;
    if place - word.start < 12 || at(text, place) != b'.' {
        // Part of an encrypted or cut off one, or some JSON: only with more of it.
        return;
    }
    let header = decode64(cut(text, word.start, place));
    if !header.starts_with(b"{\"")
        || !has_any(header.get(..512).unwrap_or(&header), &["alg", "typ", "kid", "enc", "cty"])
    {
        return;
    }
    let mut parts = 1;
    while at(text, place) == b'.' && parts < 5 {
        let end = run(text, place + 1, 8192, in_part);
        scan.work += end - place;
        if end == place + 1 && parts != 1 && parts != 2 {
            break;
        }
        place = end;
        parts += 1;
    }
    if parts >= 3 || (parts == 2 && place - word.start > 40) {
        scan.found(word.start..place, "jwt");
    }
}

/// A private key between lines of dashes, also with escaped line ends.
fn pem(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let label = run(text, word.start, 100, |byte| {
        byte == b'-' || byte == b' ' || byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_')
    });
    let head = cut(text, word.start, label);
    if find(head, b"private key").is_none() && find(head, b"openssh private").is_none() {
        return;
    }
    // To the next line of dashes, which ends it, or to the first thing that cannot be part of it.
    let start = label;
    let mut place = start;
    let limit = (start + 65_536).min(text.len());
    while place < limit {
        let end = run(text, place, limit - place, |byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'+' | b'/'
                        | b'='
                        | b'\n'
                        | b'\r'
                        | b' '
                        | b'\t'
                        | b'\\'
                        | b':'
                        | b','
                        | b'.'
                        | b'>'
                        | b'|'
                        | b'"'
                        | b'\''
                        | b'*'
                        | b'#'
                        | b'('
                        | b')'
                        | b'@'
                        | b'_'
                        | b'$'
                        | b';'
                )
        });
        place = end;
        if at(text, place) != b'-' || cut(text, place, place + 4) == b"----" {
            break;
        }
        place += 1;
    }
    scan.work += place - start;
    let body = cut(text, start, place);
    let solid =
        body.iter().filter(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
    if solid < 24
        || has_any(body.get(..200).unwrap_or(body), &["...", "your", "example", "xxxx", "<"]) && solid < 200
    {
        return;
    }
    let mut end = place;
    if cut(text, place, place + 4) == b"----" && find(cut(text, place, place + 12), b"end").is_some() {
        end = run(text, place, 80, |byte| byte == b'-' || byte == b' ' || byte.is_ascii_alphanumeric());
    } else if body.iter().take(400).filter(|byte| matches!(byte, b' ')).count() > 60 {
        return;
    }
    scan.found(word.start..end, "private-key");
}

/// The lines of a private key that PuTTY wrote.
fn putty(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let start = run(text, word.end, 12, |byte| {
        byte == b' ' || byte.is_ascii_digit() || byte == b'\r' || byte == b'\n' || byte == b'\\'
    });
    let end = run(text, start, 16_384, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\n' | b'\r' | b'\\')
    });
    scan.work += end - start;
    if end - start >= 32 {
        scan.found(start..end, "private-key");
    }
}

/// Lines of hexadecimal digits, encrypted under a passphrase.
fn ansible(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let line = run(text, word.end, 80, |byte| !matches!(byte, b'\n' | b'\\'));
    let end = run(text, line, 65_536, |byte| {
        byte.is_ascii_hexdigit() || byte.is_ascii_whitespace() || matches!(byte, b'\\' | b'n')
    });
    scan.work += end - line;
    if end - line >= 60 {
        let end = run_back(text, end, 200, |byte| byte.is_ascii_whitespace());
        scan.found(word.start..end, "ansible-vault");
    }
}

/// `IDENTIFIED BY '…'`, `IDENTIFIED WITH plugin BY '…'`.
fn sql_quoted(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let open = run(text, word.end, 60, |byte| !matches!(byte, b'\'' | b'"' | b'\n' | b';' | b'='));
    let quote = at(text, open);
    let (start, end) = if matches!(quote, b'\'' | b'"') {
        (open + 1, run(text, open + 1, 512, |byte| byte != quote && byte != b'\n'))
    } else {
        let start = run(text, word.end, 4, |byte| byte == b' ');
        (start, run(text, start, 128, |byte| byte.is_ascii_graphic() && byte != b';'))
    };
    let value = cut(text, start, end);
    if value.len() >= 3
        && !stands_for(value)
        && !refers_here(value)
        && !value.iter().all(u8::is_ascii_uppercase)
        && at(value, 0) != b'?'
        && at(value, 0) != b':'
    {
        scan.found(start..end, "sql-password");
    }
}

/// `INSERT INTO users (name, password) VALUES ('a', '…')`: the value in the place of the column.
fn insert(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let open = run(text, word.end, 120, |byte| !matches!(byte, b'(' | b';' | b'\n'));
    let close = run(text, open, 600, |byte| byte != b')');
    scan.work += close - word.start;
    if at(text, open) != b'(' || at(text, close) != b')' {
        return;
    }
    let mut meanings = Vec::new();
    for column in cut(text, open + 1, close).split(|&byte| byte == b',').take(40) {
        let column: Vec<u8> =
            column.iter().copied().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').collect();
        meanings.push(super::name::meaning(&column));
    }
    if meanings.iter().all(|meaning| matches!(meaning, Meaning::Nothing | Meaning::Maybe)) {
        return;
    }
    let mut place = close + 1;
    for _ in 0..64 {
        place = run(text, place, 40, |byte| !matches!(byte, b'(' | b';'));
        if at(text, place) != b'(' {
            return;
        }
        place += 1;
        for meaning in &meanings {
            place = run(text, place, 8, |byte| byte == b' ' || byte == b'\n');
            let quote = at(text, place);
            let (start, end) = if matches!(quote, b'\'' | b'"') {
                (place + 1, run(text, place + 1, 600, |byte| byte != quote))
            } else {
                (place, run(text, place, 200, |byte| !matches!(byte, b',' | b')' | b'\n')))
            };
            scan.work += end - place;
            if matches!(quote, b'\'' | b'"') && is_secret(cut(text, start, end), *meaning, Written::Quoted) {
                scan.found(start..end, "sql-password");
            }
            place = run(text, end, 3, |byte| matches!(byte, b'\'' | b'"' | b' '));
            if at(text, place) != b',' {
                break;
            }
            place += 1;
        }
        place = run(text, place, 200, |byte| byte != b')' && byte != b';') + 1;
    }
}

/// A password as a system stores it: `$6$salt$…`, `{SSHA}…`.
fn stored(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    if word.start < scan.stored {
        return;
    }
    let end = run(text, word.end, 300, |byte| byte.is_ascii_alphanumeric() || b"./$=,+:_-}".contains(&byte));
    scan.stored = end;
    let end = run_back(text, end, 4, |byte| matches!(byte, b':' | b'.' | b',' | b'-' | b'}')).max(word.end);
    let body = cut(text, word.start, end);
    let body = match body.iter().position(|&byte| byte == b':') {
        Some(colon) if at(body, 0) == b'$' => cut(body, 0, colon),
        _ => body,
    };
    let mix = Mix::of(body);
    if body.len() >= 26 && mix.random() && mix.digits > 0 && mix.letters() > 8 {
        scan.found(word.start..word.start + body.len(), "password-hash");
    }
}

/// `user:500:lmhash:nthash:::`.
fn ntlm(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let second = run_back(text, word.start, 33, |byte| byte.is_ascii_hexdigit());
    let first = run_back(text, second.saturating_sub(1), 33, |byte| byte.is_ascii_hexdigit());
    if word.start - second == 32
        && second.saturating_sub(1) - first.min(second) == 32
        && before(text, second) == b':'
    {
        scan.found(first..word.start, "password-hash");
    }
}

/// A line of `.pgpass`: `host:port:database:user:password`.
fn pgpass(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let host = run_back(text, word.start, 100, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*' | b'/')
    });
    let port = run_back(text, word.start, 12, |byte| byte.is_ascii_digit() || byte == b'*');
    if host == word.start && port == word.start {
        return;
    }
    let mut fields = [0_usize; 3];
    let mut place = word.end;
    for field in &mut fields {
        *field = place;
        let end = run(text, place, 100, |byte| {
            byte.is_ascii_graphic() && !matches!(byte, b':' | b'"' | b'\'' | b'/' | b'@' | b',')
        });
        if field == &0 || at(text, end) != b':' || end == place {
            // `:*:` may stand for the port or the database.
            break;
        }
        place = end + 1;
    }
    let end = run(text, place, 256, |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\'');
    let fields = cut(text, word.end, place).iter().filter(|&&byte| byte == b':').count();
    let value = cut(text, place, end);
    let line_begins = matches!(before(text, host), 0 | b'\n' | b' ' | b'"' | b'\'' | b'n' | b':' | b'>');
    if (fields == 2 || (fields == 1 && before(text, host) == b':'))
        && line_begins
        && value.len() >= 4
        && !stands_for(value)
        && !refers_here(value)
        && !value.contains(&b':')
        && !value.iter().all(u8::is_ascii_digit)
    {
        scan.found(place..end, "pgpass-password");
    }
}

/// The signature of an address: Azure, S3, CloudFront, Google.
fn signature(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let start = run(text, word.end, 2, |byte| matches!(byte, b'"' | b' '));
    let end = run(text, start, 1024, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'+' | b'/' | b'=' | b'_' | b'-' | b'~')
    });
    let value = cut(text, start, end);
    let mix = Mix::of(value);
    let query = matches!(
        before(
            text,
            run_back(text, word.start, 40, |byte| byte.is_ascii_alphanumeric()
                || byte == b'-'
                || byte == b'_')
        ),
        b'&' | b'?' | b';' | b'"'
    );
    if value.len() >= 24
        && mix.random()
        && mix.digits > 0
        && (query || value.len() >= 40)
        && !stands_for(value)
    {
        scan.found(start..end, "url-signature");
    }
}

/// The private members of a JSON web key.
fn jwk(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    if word.start < scan.done {
        return;
    }
    let from = word.start.saturating_sub(4096).max(scan.done);
    let begin = cut(text, from, word.start)
        .iter()
        .rposition(|&byte| byte == b'{')
        .map_or(word.start, |open| from + open);
    let end = run(text, word.end, 8192, |byte| byte != b'}');
    scan.work += end - from;
    scan.done = end;
    for member in ["\"d\"", "\"k\"", "\"p\"", "\"q\"", "\"dp\"", "\"dq\"", "\"qi\""] {
        let Some(place) = find(cut(text, begin, end), member.as_bytes()) else { continue };
        let start =
            run(text, begin + place + member.len(), 6, |byte| matches!(byte, b' ' | b':' | b'"' | b'\n'));
        let stop = run(text, start, 4096, |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=')
        });
        if stop - start >= 16 {
            scan.found(start..stop, "jwk");
        }
    }
}

/// The values under `data:` and `stringData:` of a secret of Kubernetes.
fn kubernetes(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let window = cut(text, word.end, (word.end + 4096).min(text.len()));
    let document = find(window, b"\n---").unwrap_or(window.len());
    scan.work += document;
    let window = cut(window, 0, document);
    for part in ["\ndata:", "\nstringdata:"] {
        let Some(place) = find(window, part.as_bytes()) else { continue };
        let mut line = place + run(cut(window, place + 1, window.len()), 0, 4096, |byte| byte != b'\n') + 2;
        while line < window.len() {
            let end = run(window, line, 4096, |byte| byte != b'\n');
            let indent = run(window, line, 16, |byte| byte == b' ');
            let Some(colon) =
                cut(window, indent, end).iter().position(|&byte| byte == b':').filter(|_| indent > line)
            else {
                break;
            };
            let start = run(window, indent + colon + 1, 3, |byte| matches!(byte, b' ' | b'"' | b'\''));
            let stop = run_back(window, end, 3, |byte| matches!(byte, b'"' | b'\'' | b'\r' | b' '));
            let value = cut(window, start, stop);
            if value.len() >= 8 && !stands_for(value) && !refers_here(value) {
                scan.found(word.end + start..word.end + stop, "kubernetes-secret");
            }
            line = end + 1;
        }
    }
}

/// `Your verification code is 123456`, `123456 is your code`.
fn code(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let goes_on_as_word = at(text, word.end).is_ascii_lowercase()
        && !goes_on(text, word.end, b"code")
        && at(text, word.end) != b's';
    if before(text, word.start).is_ascii_alphabetic() || goes_on_as_word {
        return;
    }
    let short = has_any(cut(text, word.start, word.end), &["cv", "pin"]);
    let line = run(text, word.end, 48, |byte| !matches!(byte, b'\n' | b'\r'));
    let mut place = word.end;
    while place < line {
        let digit = run(text, place, line - place, |byte| !byte.is_ascii_digit());
        let Some(end) = code_at(text, digit, short) else {
            place = run(text, digit, 64, |byte| byte.is_ascii_alphanumeric()).max(digit + 1);
            continue;
        };
        let between = cut(text, word.end, digit);
        let said = short
            || between.iter().any(|byte| b":=\"#|".contains(byte))
            || has_any(between, &["is", "use", "enter", "code"]);
        let other = has_any(
            between,
            &["error", "status", "expire", "length", "digits", "attempt", "minute", "second"],
        );
        if said && !other {
            scan.found(digit..end, "one-time-code");
        }
        return;
    }
    // Before the word: `123456 is your …`.
    let from = run_back(text, word.start, 60, |byte| !matches!(byte, b'\n' | b'\r'));
    if let Some(is) = find(cut(text, from, word.start), b" is your") {
        let start = run_back(text, from + is, 9, |byte| byte.is_ascii_digit() || byte == b'-');
        if (4..=9).contains(&(from + is - start)) && before(text, start) != b'.' {
            scan.found(start..from + is, "one-time-code");
        }
    }
}

/// Where a code ends that begins with a digit here: 4 to 8 digits, `123 456`, `123-456`; three are enough for those on
/// cards. No year, amount, time or number with a fraction.
fn code_at(text: &[u8], start: usize, short: bool) -> Option<usize> {
    let mut end = run(text, start, 12, |byte| byte.is_ascii_digit());
    if end - start == 3 && matches!(at(text, end), b' ' | b'-') {
        let second = run(text, end + 1, 4, |byte| byte.is_ascii_digit());
        if second == end + 4 {
            end = second;
        }
    }
    let value = cut(text, start, end);
    let least = if short { 3 } else { 4 };
    let year = value.len() == 4 && !short && (value.starts_with(b"19") || value.starts_with(b"20"));
    let joins = |byte: u8| matches!(byte, b'.' | b':' | b'/' | b'%' | b'-' | b'$' | b'_');
    let apart = |byte: u8| !byte.is_ascii_alphanumeric();
    let goes_on = joins(at(text, end)) && at(text, end + 1).is_ascii_alphanumeric();
    let alone = apart(before(text, start)) && apart(at(text, end)) && !joins(before(text, start)) && !goes_on;
    ((least..=8).contains(&value.len()) && alone && !year).then_some(end)
}

/// Twelve to 24 words of three to eight letters: the phrase of a wallet.
fn phrase(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let mut start = word.end;
    let limit = (word.end + 80).min(text.len());
    // After a sign that something follows, or the end of a short sentence.
    start = match cut(text, start, limit).iter().position(|byte| matches!(byte, b':' | b'=' | b'>' | b'\n')) {
        Some(sign) => start + sign + 1,
        None => match find(cut(text, start, limit), b" is ") {
            Some(is) => start + is + 4,
            None => return,
        },
    };
    start = run(text, start, 24, |byte| !byte.is_ascii_lowercase() && byte != b'1');
    let mut count = 0;
    let mut place = start;
    let mut end = start;
    let mut numbered = start;
    while count < 25 {
        // `1. word 2. word`.
        let from = run(text, numbered, 5, |byte| byte.is_ascii_digit() || matches!(byte, b'.' | b')' | b' '));
        let stop = run(text, from, 9, |byte| byte.is_ascii_lowercase());
        if !(3..=8).contains(&(stop - from)) || at(text, stop).is_ascii_alphanumeric() {
            break;
        }
        count += 1;
        end = stop;
        place = run(text, stop, 4, |byte| matches!(byte, b' ' | b',' | b'\n' | b'"' | b'-' | b'_'));
        if place == stop {
            break;
        }
        numbered = place;
    }
    scan.work += place - word.end;
    if count >= 12 {
        scan.found(start..end, "recovery-phrase");
    }
}

/// `ACME SECRET …`, `acmeTOKEN-…`: a word in capitals, and behind it what only a machine makes.
fn shouted(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    let letters = cut(text, word.start, word.end);
    if !letters.iter().all(u8::is_ascii_uppercase) && !matches!(at(text, word.end), b'-' | b'.') {
        return;
    }
    let mut place = word.end;
    for _ in 0..3 {
        let from = run(text, place, 3, |byte| matches!(byte, b' ' | b'-' | b'_' | b'.' | b':' | b'='));
        let end = run(text, from, 512, |byte| byte.is_ascii_alphanumeric() || b"_-+/=.".contains(&byte));
        scan.work += end - from;
        let value = cut(text, from, end);
        let more = ["key", "token", "secret"]
            .iter()
            .find(|more| goes_on(text, from, more.as_bytes()) && from > place);
        if let Some(more) = more {
            place = from + more.len();
            continue;
        }
        let mix = Mix::of(value);
        let apart = from > place && !matches!(at(text, end), b'(' | b'[');
        let machine = mix.digits > 1 && mix.letters() > 3 && mix.mixed(60) && mix.other * 5 <= mix.len;
        if apart && mix.len >= 20 && machine && is_secret(value, Meaning::Key, Written::Bare) {
            scan.found(from..end, "secret");
        }
        return;
    }
}

/// Passwords on command lines whose flags have one letter: `mysql -pX`, `curl -u user:X`.
fn command(scan: &mut Scan<'_>, word: Range<usize>) {
    let text = scan.text;
    if before(text, word.start).is_ascii_alphanumeric() || word.start < scan.lines {
        return;
    }
    let name = cut(text, word.start, word.end);
    let mut line = word.end;
    let limit = (word.end + 800).min(text.len());
    while line < limit && (at(text, line) != b'\n' || before(text, line) == b'\\') {
        line += 1;
    }
    scan.work += line - word.end;
    // Two commands that do not share their flags can stand in a line: the next one starts anew, after this one's name.
    scan.lines = word.end;
    let is = |names: &[&str]| has_any(name, names);
    if is(&["net use", "chpasswd"]) {
        return;
    }
    if is(&["openssl"]) {
        for flag in ["pass:"] {
            if let Some(place) = find(cut(text, word.end, line), flag.as_bytes()) {
                let start = word.end + place + flag.len();
                let end =
                    run(text, start, 128, |byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\''));
                argument(scan, start, end, false);
            }
        }
        return;
    }
    let mut place = word.end;
    let mut words = 0;
    while place < line && words < 60 {
        place = run(text, place, 64, |byte| !byte.is_ascii_graphic());
        let (start, end) = argument_at(text, place, line);
        let flag = cut(text, place, end);
        words += 1;
        if end <= place || matches!(at(flag, 0), b'|' | b';' | b'&' | b'#') {
            return;
        }
        let takes = |flags: &[&[u8]]| flags.contains(&flag);
        let next = |after: usize| {
            let from = run(text, after, 8, |byte| byte == b' ' || byte == b'=');
            argument_at(text, from, line)
        };
        if is(&["curl", "wget", "http"])
            && (takes(&[b"-u", b"--user", b"--proxy-user", b"-U", b"-a", b"--auth"]))
        {
            let (start, end) = next(end);
            argument(scan, start, end, true);
        } else if is(&["curl"]) && (takes(&[b"-b", b"--cookie"])) {
            let (start, _) = next(end);
            let stop = run(text, start, 2048, |byte| !matches!(byte, b'"' | b'\'' | b'\n'));
            if let Some(equals) = cut(text, start, stop).iter().position(|&byte| byte == b'=') {
                let end = run(text, start + equals + 1, 1024, |byte| {
                    byte.is_ascii_graphic() && !matches!(byte, b';' | b'"' | b'\'')
                });
                if is_session(cut(text, start, start + equals), cut(text, start + equals + 1, end)) {
                    scan.found(start + equals + 1..end, "cookie");
                }
            }
        } else if is(&["curl"]) && flag.starts_with(b"-u") && flag.len() > 4 && flag.contains(&b':') {
            argument(scan, start + 2, end, true);
        } else if is(&["mysql", "mariadb", "mongo", "sshpass", "7z", "psql"])
            && flag.starts_with(b"-p")
            && flag.len() > 3
            && !is(&["psql"])
            && at(flag, 1) == b'p'
        {
            let quoted = usize::from(matches!(at(text, place + 2), b'\'' | b'"'));
            let end = if quoted == 1 {
                run(text, place + 3, 128, |byte| !matches!(byte, b'\'' | b'"' | b'\n'))
            } else {
                end
            };
            argument(scan, place + 2 + quoted, end, false);
        } else if (takes(&[b"-p", b"-P"])
            && is(&[
                "mongo",
                "sshpass",
                "docker login",
                "podman login",
                "helm",
                "sqlcmd",
                "zip",
                "isql",
                "bcp",
                "az login",
                "lftp",
            ]))
            || (takes(&[b"-a"]) && is(&["redis"]))
            || (takes(&[b"-w"]) && is(&["ldap"]))
            || (takes(&[b"-p"]) && is(&["crackmapexec"]))
        {
            let (start, end) = next(end);
            argument(scan, start, end, false);
        } else if is(&["smbclient", "lftp"]) && takes(&[b"-U", b"-u"]) {
            let (start, end) = next(end);
            if let Some(sign) = cut(text, start, end).iter().position(|&byte| matches!(byte, b'%' | b',')) {
                argument(scan, start + sign + 1, end, false);
            }
        } else if is(&["xfreerdp", "rdesktop"]) && (flag.starts_with(b"/p:") || flag.starts_with(b"-p")) {
            argument(scan, place + 3, end, false);
        } else if is(&["sqlplus"]) && flag.contains(&b'/') && at(flag, 0) != b'-' && at(flag, 0) != b'/' {
            let slash = flag.iter().position(|&byte| byte == b'/').unwrap_or(0);
            let stop = flag.iter().position(|&byte| byte == b'@').unwrap_or(flag.len());
            argument(scan, place + slash + 1, place + stop.max(slash + 1), false);
            return;
        } else if is(&["htpasswd"]) && flag.len() >= 2 && at(flag, 0) == b'-' && flag.contains(&b'b') {
            // `htpasswd -b FILE USER PASSWORD`
            let (_, file) = next(end);
            let (_, user) = next(file);
            let (start, end) = next(user);
            argument(scan, start, end, false);
            return;
        } else if is(&["rabbitmqctl"]) && takes(&[b"add_user", b"change_password"]) {
            let (_, user) = next(end);
            let (start, end) = next(user);
            argument(scan, start, end, false);
            return;
        }
        // Past the quote that closes it, if there is one.
        place = end + usize::from(start > place);
    }
}

/// Where an argument begins and ends; without its quotes.
fn argument_at(text: &[u8], from: usize, line: usize) -> (usize, usize) {
    let quote = at(text, from);
    if matches!(quote, b'\'' | b'"') {
        let end = run(text, from + 1, line.saturating_sub(from + 1), |byte| byte != quote);
        return (from + 1, end);
    }
    (from, run(text, from, line.saturating_sub(from), |byte| byte.is_ascii_graphic()))
}

fn argument(scan: &mut Scan<'_>, mut start: usize, end: usize, with_user: bool) {
    let mut value = cut(scan.text, start, end);
    if with_user {
        let Some(colon) = value.iter().position(|&byte| byte == b':') else { return };
        start += colon + 1;
        value = cut(scan.text, start, end);
    }
    if value.len() >= 3
        && !stands_for(value)
        && !refers_here(value)
        && !has_any(value, &["password", "passwd"])
        && at(value, 0) != b'-'
    {
        scan.found(start..end, "command-line-password");
    }
}

/// The bytes that base64 of either alphabet stands for, as far as it goes.
pub(super) fn decode64(text: &[u8]) -> Vec<u8> {
    let text = text.get(..4096).unwrap_or(text);
    bits::bytes(text.iter().map_while(|byte| bits::sextet(*byte)), 6)
}

/// The secret of a pair of keys of AWS, near the public half.
pub(super) fn near_access_key(scan: &mut Scan<'_>, key: Range<usize>) {
    let text = scan.text;
    let from = key.start.saturating_sub(300).max(scan.paired);
    let to = (key.end + 300).min(text.len());
    scan.paired = to;
    scan.work += to - from;
    let in_run = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut place = from;
    while place < to {
        let end = run(text, place, 64, in_run);
        let mix = Mix::of(cut(text, place, end));
        if end - place == 40
            && !in_run(before(text, place))
            && mix.random()
            && mix.upper > 2
            && mix.lower > 2
            && mix.digits > 0
            && !stands_for(cut(text, place, end))
        {
            scan.found(place..end, "aws-secret-key");
        }
        place = end.max(place + 1);
    }
}

/// Whether what stands near a name without a sign is its value: so it is in `.netrc`, in command lines, in some
/// configurations.
pub(super) fn near(text: &[u8], name: &Range<usize>, value: &[u8], meaning: Meaning, sure: Sure) -> bool {
    let mix = Mix::of(value);
    match sure {
        Sure::Given => true,
        Sure::Likely => {
            (mix.digits > 0 && mix.letters() > 0)
                || mix.other > 0 && !uuid(value) && mix.letters() > 0 && mix.upper > 0
                || (mix.letters() == mix.len && !wordy(value))
        }
        Sure::Near => {
            let head = cut(text, name.start.saturating_sub(160), name.start);
            let netrc = has_any(head, &["login ", "machine ", "default ", "login\t"]);
            let config = matches!(before(text, name.start), 0 | b'\n')
                || has_any(
                    head.get(head.len().saturating_sub(24)..).unwrap_or(head),
                    &[
                        "set ",
                        "requirepass",
                        "username ",
                        "user ",
                        "neighbor",
                        "enable ",
                        "with ",
                        "setenv ",
                        "export ",
                        "create user",
                        "alter user",
                    ],
                );
            let strong =
                mix.digits > 0 && mix.letters() > 0 && (mix.upper > 0 || mix.other > 0) && mix.len >= 8;
            (netrc && meaning == Meaning::Password)
                || (config
                    && mix.letters() > 0
                    && (mix.digits > 0 || (mix.len >= 8 && mix.upper > 0 && mix.lower > 0 && !wordy(value))))
                || strong && mix.random()
        }
    }
}
