//! Whether a value can be a secret at all, given what its name says: not a placeholder, not code, not words.

use std::collections::HashSet;
use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::bytes::{Mix, at, find, run, wordy};
use super::name::Meaning;

/// The longest value that is looked at.
pub(crate) const MAX_VALUE: usize = 8192;

/// Parts of values that stand for a secret and are none.
#[rustfmt::skip]
const STANDS_FOR: &[&str] = &[
    "example", "changeme", "change_me", "change-me", "change_this", "change-this", "changethis", "placeholder", "redacted", "replace", "insert", "xxxx", "****", "....",
    "your_", "your-", "yourpass", "yoursecret", "yourtoken", "yourkey", "yourapi", "your ", "<your", "my-secret", "my_secret", "mysecret", "dummy", "sample", "todo", "fixme", "undefined",
    "notreal", "not-real", "not_real", "fake", "foobar", "put_", "put-", "_here", "-here", "goes here", "goes_here", "goeshere",  "lorem", "00000000", "11111111",
    "[filtered]", "masked", "hidden", "scrubbed", "password_here", "removed", "n/a", "……", "••••", "●●●●", "-----",
];

/// Values that stand for a secret and are none, as a whole.
#[rustfmt::skip]
const STANDS_FOR_WHOLE: &[&str] = &[
    "password", "passwd", "pass", "pwd", "secret", "token", "key", "apikey", "api_key", "api-key", "test", "testing", "user", "username", "root",
    "foo", "bar", "baz", "string", "str", "text", "true", "false", "null", "none", "nil", "undefined", "empty", "required", "optional", "default",
    "value", "any", "bearer", "basic", "auto", "unset", "varchar", "integer", "boolean", "object", "array", "number", "bytes", "unknown", "bool", "int",
    "abc", "abc123", "asdf", "qwerty", "1234", "12345", "123456", "1234567", "12345678", "123456789", "1234567890", "pass123", "secret123", "hunter", "pw", "yes", "no",
    "password1", "password2", "password12", "passphrase", "secretkey", "secret-key", "secret_key", "mypassword", "mypass", "my-password", "token123", "somepassword", "somesecret", "sometoken", "access_token", "refresh_token",
    "thepassword", "newpassword", "oldpassword", "new_password", "old_password", "userpassword", "wrongpassword", "wrong", "invalid", "private", "public", "none!", "credentials", "hex", "base64", "utf-8", "sha256",
];

/// Beginnings of values that are asked for elsewhere.
#[rustfmt::skip]
const REFERS: &[&str] = &[
    "process.env", "os.environ", "os.getenv", "getenv", "env.", "env[", "system.getenv", "secrets.", "vault:", "var.", "local.", "data.", "module.",
    "ref+", "arn:", "op://", "ssm:", "!ref", "!getatt", "!sub", "secretsmanager", "env:", "file:", "file(", "self.", "this.", "request.", "req.", "config.", "cfg.",
    "conf.", "settings.", "params.", "args.", "options.", "opts.", "props.", "input.", "new ", "await ", "function", "lambda", "kms:", "keyring:", "azurekeyvault", "projects/", "gopass:", "pass:", "base64encode", "random_",
    "std::", "rails.", "credentials.", "env(", "steps.", "needs.", "github.", "inputs.", "!vault", "enc[", "bao:", "akv:", "sops:", "context.",
];

static STANDING_FOR: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().ascii_case_insensitive(true).build(STANDS_FOR).ok());
static STANDING_FOR_WHOLE: LazyLock<HashSet<&'static [u8]>> =
    LazyLock::new(|| STANDS_FOR_WHOLE.iter().map(|whole| whole.as_bytes()).collect());

/// Endings of names of files.
const FILES: &[&str] = &[
    ".pem",
    ".key",
    ".json",
    ".txt",
    ".yml",
    ".yaml",
    ".crt",
    ".cer",
    ".p12",
    ".pfx",
    ".jks",
    ".env",
    ".js",
    ".ts",
    ".py",
    ".go",
    ".java",
    ".html",
    ".css",
    ".md",
    ".xml",
    ".php",
    ".rb",
    ".png",
    ".svg",
    ".so",
    ".conf",
    ".properties",
    ".com",
    ".cfg",
    ".toml",
    ".ini",
    ".sh",
    ".org",
    ".io",
    ".vue",
    ".tsx",
    ".cs",
];

/// How a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Without quotes, in a place where code can stand as well.
    Bare,
    /// Where nothing else can stand: in quotes, as a value of JSON, as the argument of a flag.
    Quoted,
}

/// Whether a value under a name of this meaning is a secret.
pub(crate) fn is_secret(value: &[u8], meaning: Meaning, written: Written) -> bool {
    if value.len() < 3 || value.len() > MAX_VALUE || meaning == Meaning::Nothing {
        return false;
    }
    if meaning == Meaning::Pin {
        return pin(value);
    }
    // Cheap questions first: most values are too short for what their name would make of them.
    let least = match meaning {
        Meaning::Maybe => 16,
        Meaning::Key | Meaning::Inner => 8,
        Meaning::Password | Meaning::Nothing | Meaning::Pin => 3,
    };
    if value.len() < least {
        return false;
    }
    if hashed(value) {
        return true;
    }
    if stands_for(value) || refers(value, written) {
        return false;
    }
    let mix = Mix::of(value);
    match meaning {
        Meaning::Password => password(value, &mix, written),
        Meaning::Key => key(value, &mix, written, 8),
        Meaning::Inner => key(value, &mix, written, 8) && mix.random() && mix.digits > 0,
        Meaning::Maybe => {
            mix.len >= 16
                && mix.digits > 0
                && mix.letters() > 0
                && mix.random()
                && key(value, &mix, written, 16)
                && !mix.hex
                && !uuid(value)
        }
        Meaning::Nothing | Meaning::Pin => false,
    }
}

/// A few digits, perhaps in groups.
fn pin(value: &[u8]) -> bool {
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    (3..=8).contains(&digits)
        && value.len() <= digits + 2
        && value.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'-'))
        && value.first() != value.last().filter(|_| value.iter().all(|byte| Some(byte) == value.first()))
}

fn password(value: &[u8], mix: &Mix, written: Written) -> bool {
    if mix.len < 4 || mix.different < 3 || sequence(value) {
        return false;
    }
    if mix.spaces > 0 {
        let words = value.split(|byte| byte.is_ascii_whitespace()).count();
        return (mix.digits > 0 && mix.other > 0 && mix.spaces <= 2 && !value.ends_with(b"."))
            && !code(value)
            && words <= 3;
    }
    if mix.wide == mix.len || path(value) || (written == Written::Bare && code(value)) {
        return false;
    }
    if mix.digits == mix.len {
        return (4..=16).contains(&mix.len);
    }
    if mix.letters() == mix.len {
        return mix.len >= 5 && !identifier(value);
    }
    if mix.other == mix.len || identifier(value) {
        return false;
    }
    mix.len >= 6 || (mix.len >= 5 && mix.digits > 0)
}

fn key(value: &[u8], mix: &Mix, written: Written, least: usize) -> bool {
    if mix.len < least || mix.different < 5 || mix.spaces > 0 || (mix.len < 20 && sequence(value)) {
        return false;
    }
    let plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"_-+/=.~:%@!#$^&*|,".contains(&byte);
    if path(value) || !value.iter().all(plain) || (written == Written::Bare && code(value)) {
        return mix.wide == 0
            && !path(value)
            && !code(value)
            && mix.digits > 1
            && mix.letters() > 2
            && mix.other > 0
            && mix.random();
    }
    if mix.digits + mix.other == mix.len {
        return mix.digits == mix.len && mix.len >= 24;
    }
    if uuid(value) {
        return mix.different >= 8;
    }
    if mix.hex {
        return mix.len >= 16 && mix.random();
    }
    if mix.letters() == mix.len {
        return mix.len >= 12 && !identifier(value) && mix.random();
    }
    !identifier(value) && mix.random() && (mix.digits > 0 || mix.len >= 20)
}

/// A password as a system stores it.
pub(crate) fn hashed(value: &[u8]) -> bool {
    let begins = |begin: &&str| {
        value.get(..begin.len()).is_some_and(|head| head.eq_ignore_ascii_case(begin.as_bytes()))
    };
    const KINDS: &[&str] = &[
        "$2a$",
        "$2b$",
        "$2y$",
        "$1$",
        "$5$",
        "$6$",
        "$y$",
        "$7$",
        "$apr1$",
        "$argon2",
        "$pbkdf2",
        "$scrypt$",
        "{ssha",
        "{sha",
        "{md5}",
        "{crypt}",
        "{smd5}",
        "pbkdf2_sha256$",
        "pbkdf2:sha",
        "scrypt:",
        "bcrypt$",
        "argon2$",
    ];
    value.len() >= 16 && KINDS.iter().any(begins) && !value.contains(&b' ')
}

/// Whether a value only stands for a secret.
pub(crate) fn stands_for(value: &[u8]) -> bool {
    let trimmed = value.trim_ascii();
    let (first, last) = (at(trimmed, 0), trimmed.last().copied().unwrap_or(0));
    if trimmed.is_empty()
        || matches!(
            (first, last),
            (b'<', b'>') | (b'[', b']') | (b'{', b'}') | (b'%', b'%') | (b'(', b')') | (b'@', b'@')
        )
    {
        return true;
    }
    if trimmed.starts_with(b"__") && trimmed.ends_with(b"__") {
        return true;
    }
    if trimmed.len() < 24 && STANDING_FOR_WHOLE.contains(trimmed.to_ascii_lowercase().as_slice()) {
        return true;
    }
    let beginning = trimmed.get(..256).unwrap_or(trimmed);
    let part = STANDING_FOR.as_ref().is_none_or(|parts| parts.is_match(beginning));
    if part || trimmed.iter().all(|&byte| byte == first) {
        return true;
    }
    // Long runs of one character: `aaaaaa`, `######`.
    let mut same = 0;
    beginning.iter().zip(beginning.iter().skip(1)).any(|(one, two)| {
        same = if one == two && !matches!(one, b'A' | b'=') { same + 1 } else { 0 };
        same >= 5
    })
}

/// Whether a value says where the secret is, instead of being it.
fn refers(value: &[u8], written: Written) -> bool {
    let begins = |begin: &&str| {
        value.get(..begin.len()).is_some_and(|head| head.eq_ignore_ascii_case(begin.as_bytes()))
    };
    if REFERS.iter().any(begins) {
        return true;
    }
    for opening in [
        b"${".as_slice(),
        b"{{",
        b"$(",
        b"#{",
        b"%(",
        b"[[",
        b"<%",
        b"{%",
        b"%s",
        b"$env:",
        b"@@",
        b"&lt;",
        b"<?",
        b"\\(",
        b"${{",
        b"{0}",
        b"%{",
    ] {
        if find(value, opening).is_some() {
            return true;
        }
    }
    if value.windows(2).any(|pair| pair == b"%s" || pair == b"%d") && value.len() < 24 {
        return true;
    }
    // `$NAME`, `$name`, `%NAME%`, `@name`, `&anchor`, `:name`, `{name}`.
    let named = |from: usize| {
        run(value, from, value.len(), |byte| byte.is_ascii_alphanumeric() || byte == b'_') == value.len()
    };
    match at(value, 0) {
        b'$' | b'@' | b':' | b'&' | b'*' => {
            value.get(1..).is_some_and(|name| {
                !name.iter().any(u8::is_ascii_digit)
                    || written == Written::Bare
                    || name.iter().all(|byte| !byte.is_ascii_lowercase())
            }) && named(1)
        }
        b'{' => value.ends_with(b"}"),
        _ => false,
    }
}

/// Whether a bare value is code rather than a literal.
fn code(value: &[u8]) -> bool {
    if value.iter().any(|byte| matches!(byte, b'(' | b'[' | b'{' | b'`'))
        || [b"->".as_slice(), b"::", b"=>", b"&&", b"||", b"?.", b"()", b"=\"", b"!="]
            .iter()
            .any(|part| find(value, part).is_some())
    {
        return true;
    }
    // `object.member`, without a digit.
    let dots = value.iter().filter(|&&byte| byte == b'.').count();
    dots > 0
        && value.split(|&byte| byte == b'.').all(|part| {
            part.first().is_some_and(u8::is_ascii_alphabetic)
                && part.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$'))
        })
}

/// Whether a value is the name of a file or a place.
fn path(value: &[u8]) -> bool {
    if value.starts_with(b"./")
        || value.starts_with(b"../")
        || value.starts_with(b"~/")
        || value.starts_with(b"\\\\")
        || find(value, b"://").is_some()
        || value.starts_with(b"//")
    {
        return true;
    }
    if at(value, 1) == b':' && at(value, 2) == b'\\' {
        return true;
    }
    let parts = value.iter().filter(|&&byte| byte == b'/').count();
    if parts > 0
        && value
            .split(|&byte| matches!(byte, b'/' | b'.' | b'-' | b'_'))
            .filter(|part| !part.is_empty())
            .all(|part| part.len() <= 3 || (part.iter().all(u8::is_ascii_alphabetic) && wordy(part)))
    {
        return true;
    }
    FILES.iter().any(|end| value.len() > end.len() && value.len() < 64 && value.ends_with(end.as_bytes()))
}

/// Whether a value is made of words, as names in programs are: `user-name`, `camelCase`, `SOME_CONSTANT2`.
fn identifier(value: &[u8]) -> bool {
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    let separators =
        value.iter().filter(|byte| matches!(byte, b'_' | b'-' | b'.' | b':' | b'/' | b' ')).count();
    let letters = value.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    if letters + separators + digits != value.len()
        || digits > 2
        || (digits > 0 && separators == 0 && letters < 12)
    {
        return false;
    }
    let mut worded = 0;
    for part in value.split(|byte| !byte.is_ascii_alphabetic()) {
        let mut start = 0;
        for place in 1..=part.len() {
            if place == part.len()
                || (at(part, place).is_ascii_uppercase() && at(part, place - 1).is_ascii_lowercase())
            {
                let word = part.get(start..place).unwrap_or_default();
                let even = word.get(1..).unwrap_or_default();
                let even = even.iter().all(u8::is_ascii_lowercase) || word.iter().all(u8::is_ascii_uppercase);
                if even && ((word.len() >= 4 && wordy(word)) || (word.len() < 4 && separators > 0)) {
                    worded += word.len();
                }
                start = place;
            }
        }
    }
    worded * 4 >= letters * 3
}

/// Whether characters only go up by one: `12345678`, `abcdefgh`.
fn sequence(value: &[u8]) -> bool {
    let steps = value
        .iter()
        .zip(value.iter().skip(1))
        .filter(|(one, two)| two.wrapping_sub(**one) == 1 || one == two)
        .count();
    value.len() > 3 && steps * 10 >= (value.len() - 1) * 8
}

/// Whether a value is a UUID.
pub(crate) fn uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        use Meaning::{Key, Maybe, Password, Pin};
        use Written::{Bare, Quoted};
        for (value, meaning, written, want) in [
            ("hunter2", Password, Quoted, true),
            ("Tr0ub4dor&3", Password, Bare, true),
            ("kwjqzipd", Password, Quoted, true),
            ("correct-horse-battery", Password, Quoted, false),
            ("password", Password, Quoted, false),
            ("changeme", Password, Quoted, false),
            ("${DB_PASSWORD}", Password, Quoted, false),
            ("<your-password>", Password, Quoted, false),
            ("{{ vault.password }}", Password, Quoted, false),
            ("os.environ[\"X\"]", Password, Bare, false),
            ("config.password", Password, Bare, false),
            ("getPassword()", Password, Bare, false),
            ("********", Password, Quoted, false),
            ("Enter your password", Password, Quoted, false),
            ("9f8a7b6c5d4e3f2a1b0c", Key, Quoted, true),
            ("9f8a7b6c5d4e3f2a1b0c", Maybe, Quoted, false),
            ("my-service-token", Key, Quoted, false),
            ("4096", Key, Bare, false),
            ("/etc/ssl/private.key", Key, Bare, false),
            ("4821", Pin, Quoted, true),
            ("13", Pin, Bare, false),
            ("0000", Pin, Quoted, false),
        ] {
            assert_eq!(is_secret(value.as_bytes(), meaning, written), want, "{value}");
        }
    }
}
