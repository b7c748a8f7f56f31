//! What the name of a value says about it: `DB_PASSWORD` holds a password, `passwordLabel` does not.
//!
//! A name is taken apart into its words (`camelCase`, `snake_case`, `kebab-case`, dots). The last word that means
//! something decides; words before it may take that back.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// What a name says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Something is in it about secrets, but the value itself has to look random.
    Inner,
    /// A key, a token, a secret: chosen by a machine.
    Key,
    /// Perhaps a key: the value has to look random, and like no identifier, digest or number.
    Maybe,
    /// Nothing secret.
    Nothing,
    /// A password: chosen by a person.
    Password,
    /// A few secret digits.
    Pin,
}

/// How much of a name is looked at.
pub(crate) const MAX_NAME: usize = 96;
const MAX_WORDS: usize = 12;

#[rustfmt::skip]
const PASSWORDS: &[&str] = &[
    "pass", "pw", "pwd", "passw", "psw", "pswd", "passw0rd", "passwords", "passwd", "passwds", "pwds", "secretpass",
    "kennwort", "passwort", "contrasena", "clave", "senha", "wachtwoord", "haslo", "parola", "sifre", "salasana", "heslo",
    "jelszo", "losenord", "adgangskode", "passord", "sandi", "motdepasse", "mdp", "parole", "zaporka", "lozinka", "geslo",
    "dbpass", "userpass", "dbpw", "rootpw", "adminpass", "mypass", "bindpw", "storepass", "keypass", "ftppass", "requirepass",
    "masterauth", "pgpass", "smtppass", "sqlpass", "mysqlpass", "rootpass", "basicauth", "userpw", "authpass", "ansible_pass",
];
const PASSWORD_ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "passcode",
    "passwort",
    "kennwort",
    "passwrd",
    "passwordhash",
    "contrasena",
];
#[rustfmt::skip]
const SECRETS: &[&str] = &[
    "secret", "secrets", "token", "tokens", "tok", "creds", "cred", "bearer", "jwt", "pat", "wif", "privkey", "psk", "xprv",
    "geheimnis", "geheim", "segreto", "secreto", "jeton", "llave", "sk", "totp", "mnemonic", "dsn", "cookies", "presharedkey",
];
const SECRET_ENDS: &[&str] = &[
    "secret",
    "token",
    "apikey",
    "credential",
    "credentials",
    "accesskey",
    "secretkey",
    "privatekey",
    "authkey",
    "apitoken",
    "sharedkey",
    "appkey",
    "encryptionkey",
    "signingkey",
    "masterkey",
    "accountkey",
    "licensekey",
    "apisecret",
    "hmackey",
    "apipassword",
    "passkey",
    "sessionkey",
    "keydata",
    "webhookkey",
    "serverkey",
    "deploykey",
    "integrationkey",
];
#[rustfmt::skip]
const KEY_OF: &[&str] = &[
    "api", "access", "secret", "private", "priv", "auth", "encryption", "encrypt", "encrypting", "signing", "sign", "signature", "master", "account",
    "service", "app", "application", "client", "consumer", "shared", "preshared", "storage", "license", "licence",
    "subscription", "ssh", "deploy", "admin", "session", "jwt", "hmac", "crypto", "cipher", "aes", "des", "webhook", "bot",
    "server", "maps", "stripe", "openai", "anthropic", "aws", "gcp", "azure", "google", "github", "gitlab", "sendgrid",
    "mailgun", "twilio", "cloudflare", "datadog", "sentry", "dev", "developer", "write", "read", "ingest", "ingestion",
    "instrumentation", "rsa", "dsa", "ec", "ed25519", "host", "tls", "ssl", "cert", "wallet", "decryption", "decrypt",
    "algolia", "integration", "authentication", "security", "token", "user", "root", "recaptcha", "captcha", "rest", "merchant",
    "legacy", "bearer", "pre", "cookie", "decode", "hash", "salt", "firebase", "fcm", "vapid", "heroku", "management", "partner",
];
#[rustfmt::skip]
const NOT_KEY_OF: &[&str] = &[
    "public", "pub", "primary", "foreign", "cache", "sort", "partition", "object", "map", "i18n", "unique", "index", "row",
    "column", "lookup", "translation", "dict", "dictionary", "react", "arrow", "shift", "message", "sql", "group", "routing",
    "composite", "candidate", "hot", "registry", "json", "data", "event", "idempotency", "dedupe", "config", "setting",
    "storagekey", "localstorage", "redis", "s3", "bucket", "label", "state", "query", "order", "hashmap", "item", "list",
];
#[rustfmt::skip]
const NOT_TOKEN_OF: &[&str] = &[
    "next", "page", "continuation", "pagination", "cancel", "cancellation", "syntax", "eos", "bos", "pad", "unk", "max",
    "min", "num", "total", "prompt", "completion", "input", "output", "per", "start", "end", "first", "last", "prev", "previous", "mask", "cls",
    "sep", "special", "stop", "current", "lexer", "parser", "punctuation", "operator", "design", "erc20", "nft", "reasoning", "cached", "sync", "change", "n",
];
#[rustfmt::skip]
const ASKS: &[&str] = &[
    "is", "has", "use", "show", "enable", "require", "requires", "need", "needs", "allow", "check", "validate", "no", "without", "invalid",
    "wrong", "incorrect", "missing", "forgot", "forgotten", "should", "can", "hide", "toggle", "generate", "prompt", "read", "via", "strong", "weak", "bad", "ask",
];
#[rustfmt::skip]
const AFTERTHOUGHTS: &[&str] = &[
    "prod", "production", "dev", "development", "staging", "stage", "test", "testing", "live", "old", "new", "value", "val", "b64",
    "base64", "str", "string", "plain", "plaintext", "raw", "encoded", "enc", "default", "current", "backup", "tmp", "temp", "env",
    "data", "hex", "const", "sandbox", "qa", "uat", "local", "main", "primary", "secondary", "here", "again", "confirm",
    "confirmation", "repeat", "again", "base", "content", "contents", "encrypted", "bytes", "parameter", "arg", "seed", "property", "eu", "us", "it",
];
#[rustfmt::skip]
const ABOUT: &[&str] = &[
    "id", "ids", "name", "names", "type", "types", "url", "uri", "urls", "path", "file", "filename", "dir", "folder", "expiry", "expires",
    "expiration", "ttl", "length", "len", "size", "count", "counts", "field", "fields", "label", "placeholder", "hint", "policy", "prompt", "title",
    "message", "msg", "error", "errors", "regex", "pattern", "format", "min", "max", "limit", "limits", "index", "idx", "status",
    "state", "method", "mode", "provider", "endpoint", "host", "class", "column", "table", "attribute", "attr", "prefix", "suffix", "header",
    "param", "params", "version", "algorithm", "alg", "usage", "rotation", "required", "enabled", "disabled", "valid", "invalid", "visible",
    "strength", "reset", "manager", "service", "store", "ref", "refs", "reference", "map", "list", "set", "array", "factory", "handler", "input",
    "button", "link", "icon", "page", "form", "view", "event", "description", "desc", "comment", "age", "date", "time", "at", "by", "in",
    "scope", "scopes", "issuer", "audience", "budget", "usage", "arn", "ref", "source", "script", "command", "cmd", "env_var", "variable", "var", "selector",
    "lifetime", "duration", "timeout", "interval", "delay", "rate", "cost", "price", "stream", "iterator", "kind", "location", "region",
    "generator", "validator", "encoder", "decoder", "parser", "builder", "provider", "exception", "failed", "failure", "success", "changed",
    "updated", "created", "prefixes", "env", "configured", "present", "exists", "available", "hash", "digest", "fingerprint", "checksum", "hashes", "size", "bits",
    "model", "request", "response", "rules", "rule", "question", "answer", "history", "protected", "protection", "authentication", "grant",
    "complexity", "requirements", "namespace", "engine", "backend", "mapping", "position", "offset", "limit", "range", "info", "section", "tag", "storage",
    "helper", "util", "utils", "test_id", "testid", "aria", "css", "style", "color", "icon", "screen", "dialog", "modal", "tooltip", "element", "node", "value_from",
];
#[rustfmt::skip]
const SESSIONS: &[&str] = &[
    "sid", "session", "sessid", "sessionid", "jsessionid", "phpsessid", "cookie", "authorization", "auth", "sess", "signature", "sig",
    "csrf", "xsrf", "csrftoken", "xsrftoken", "csrfmiddlewaretoken", "webhook", "nonce", "authtoken", "connectionstring", "otpauth", "seed", "assertion", "salt",
];
const PINS: &[&str] = &[
    "pin", "cvv", "cvc", "cvv2", "cvc2", "otp", "pincode", "mpin", "tan", "passcode", "totpcode", "otpcode",
];

/// Names of passwords in writings that have no ASCII letters, or not only.
#[rustfmt::skip]
const ELSEWHERE: &[&str] = &[
    "пароль", "парола", "пароля", "密码", "密碼", "パスワード", "비밀번호", "암호", "contraseña", "şifre", "lösenord", "hasło", "jelszó", "κωδικός",
    "סיסמה", "كلمة المرور", "كلمة السر", "รหัสผ่าน", "mật khẩu", "口令", "暗証番号", "पासवर्ड", "ŝlosilo", "slaptažodis",
];

/// What a name says about its value.
pub(crate) fn meaning(name: &[u8]) -> Meaning {
    let name = name.get(name.len().saturating_sub(MAX_NAME)..).unwrap_or(name);
    if !name.is_ascii() && ELSEWHERE.iter().any(|other| name.ends_with(other.as_bytes())) {
        return Meaning::Password;
    }
    let (words, count) = words(name);
    let mut words = words.get(..count).unwrap_or_default();
    // What comes after and says nothing: digits, the name of an environment, `value`.
    while let [head @ .., last] = words {
        if head.is_empty() || !(last.text.iter().all(u8::is_ascii_digit) || last.is(List::Afterthoughts)) {
            break;
        }
        words = head;
    }
    let [head @ .., last] = words else { return Meaning::Nothing };
    let modifier = head.last().copied().unwrap_or(Word::NONE);
    let asks = head.iter().any(|word| word.is(List::Asks));
    let text = last.text.to_ascii_lowercase();
    match text.as_slice() {
        _ if last.is(List::Pins) => Meaning::Pin,
        b"key" | b"keys" if modifier.is(List::NotKeyOf) => Meaning::Nothing,
        b"key" | b"keys" if modifier.is(List::KeyOf) => Meaning::Key,
        b"key" | b"keys" => Meaning::Maybe,
        _ if last.password() => {
            if asks {
                Meaning::Inner
            } else {
                Meaning::Password
            }
        }
        b"sk" | b"pat" => Meaning::Maybe,
        _ if last.secret() && (modifier.is(List::NotTokenOf) || (asks && last.is(List::Secrets))) => {
            Meaning::Nothing
        }
        _ if last.secret() => Meaning::Key,
        _ if last.is(List::Sessions) => Meaning::Maybe,
        _ if last.is(List::About) => Meaning::Nothing,
        _ if head.iter().any(|word| word.password() || word.secret()) => Meaning::Inner,
        _ => Meaning::Nothing,
    }
}

/// Whether a name is about one-time passwords, whose seeds are written in groups.
pub(crate) fn one_time(name: &[u8]) -> bool {
    super::bytes::has_any(name, &["otp", "2fa", "mfa", "authenticator"])
}

/// The lists that a word is on, as bits.
static LISTS: LazyLock<HashMap<&'static [u8], u16, BuildHasherDefault<Quick>>> = LazyLock::new(|| {
    let mut words: HashMap<&'static [u8], u16, _> = HashMap::default();
    for (bit, list) in
        [PASSWORDS, SECRETS, KEY_OF, NOT_KEY_OF, NOT_TOKEN_OF, ASKS, AFTERTHOUGHTS, ABOUT, SESSIONS, PINS]
            .iter()
            .enumerate()
    {
        for word in *list {
            *words.entry(word.as_bytes()).or_default() |= 1 << bit;
        }
    }
    words
});

/// FNV-1a: what is in the table is known, so that nobody can fill it with collisions.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, number: usize) {
        self.0 = (self.0 ^ number as u64).wrapping_mul(0x100_0000_01b3);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One word of a name, and the lists it is on.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a [u8],
    lists: u16,
}

impl<'a> Word<'a> {
    const NONE: Self = Self { text: &[], lists: 0 };

    fn new(text: &'a [u8]) -> Self {
        let mut lower = [0_u8; 24];
        let lists = lower.get_mut(..text.len()).map_or(0, |lower| {
            lower.copy_from_slice(text);
            lower.make_ascii_lowercase();
            LISTS.get(&*lower).copied().unwrap_or(0)
        });
        Self { text, lists }
    }

    const fn is(&self, list: List) -> bool {
        self.lists >> list as u16 & 1 == 1
    }

    fn ends(&self, list: &[&str]) -> bool {
        let [.., before_last, last] = self.text else { return false };
        let (one, two) = (before_last.to_ascii_lowercase(), last.to_ascii_lowercase());
        // Nearly all words end otherwise.
        if ENDINGS.get(usize::from(one & 31)).is_none_or(|seconds| seconds >> (two & 31) & 1 == 0) {
            return false;
        }
        list.iter().map(|end| end.as_bytes()).any(|end| {
            end.ends_with(&[one, two])
                && (self.text.len().checked_sub(end.len()))
                    .and_then(|at| self.text.get(at..))
                    .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        })
    }

    fn password(&self) -> bool {
        self.is(List::Passwords) || self.ends(PASSWORD_ENDS)
    }

    fn secret(&self) -> bool {
        self.is(List::Secrets) || self.ends(SECRET_ENDS)
    }
}

/// The last two letters of all endings: for each letter before the last, a bit for each last one.
static ENDINGS: LazyLock<[u32; 32]> = LazyLock::new(|| {
    let mut endings = [0; 32];
    for end in PASSWORD_ENDS.iter().chain(SECRET_ENDS) {
        if let [.., one, two] = end.as_bytes()
            && let Some(seconds) = endings.get_mut(usize::from(one & 31))
        {
            *seconds |= 1 << (two & 31);
        }
    }
    endings
});

/// The lists, in the order of their bits.
#[derive(Clone, Copy)]
enum List {
    Passwords,
    Secrets,
    KeyOf,
    NotKeyOf,
    NotTokenOf,
    Asks,
    Afterthoughts,
    About,
    Sessions,
    Pins,
}

/// The last words of a name, and how many there are.
fn words(name: &[u8]) -> ([Word<'_>; MAX_WORDS], usize) {
    let mut found = [Word::NONE; MAX_WORDS];
    let mut count = 0;
    let mut start = 0;
    let class = |byte: u8| match byte {
        b'a'..=b'z' | 128.. => 1,
        b'A'..=b'Z' => 2,
        b'0'..=b'9' => 3,
        _ => 0_u8,
    };
    for place in 0..=name.len() {
        let here = name.get(place).map_or(0, |&byte| class(byte));
        let last = place.checked_sub(1).and_then(|at| name.get(at)).map_or(0, |&byte| class(byte));
        let next = name.get(place + 1).map_or(0, |&byte| class(byte));
        let splits = match (last, here) {
            (0, _) => true,
            (a, b) if a == b => here == 2 && next == 1 && place > start,
            (2, 1) => false,
            _ => true,
        };
        if splits {
            if let Some(word) =
                name.get(start..place).filter(|word| word.first().is_some_and(|&byte| class(byte) != 0))
            {
                if count == MAX_WORDS {
                    found.rotate_left(1);
                    count -= 1;
                }
                if let Some(slot) = found.get_mut(count) {
                    *slot = Word::new(word);
                    count += 1;
                }
            }
            start = place;
        }
    }
    (found, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        use Meaning::{Inner, Key, Maybe, Nothing, Password, Pin};
        for (name, want) in [
            ("password", Password),
            ("DB_PASSWORD", Password),
            ("dbPassword", Password),
            ("spring.datasource.password", Password),
            ("userPwd2", Password),
            ("PGPASSWORD", Password),
            ("contraseña", Password),
            ("пароль", Password),
            ("passwordLabel", Nothing),
            ("password_reset_url", Nothing),
            ("compass", Nothing),
            ("author", Nothing),
            ("monkey", Nothing),
            ("key", Maybe),
            ("api-key", Key),
            ("APIKey", Key),
            ("x-api-key", Key),
            ("AWS_SECRET_ACCESS_KEY", Key),
            ("client_secret", Key),
            ("authToken", Key),
            ("_authToken", Key),
            ("client-key-data", Key),
            ("SECRET_KEY_BASE", Key),
            ("primary_key", Nothing),
            ("public_key", Nothing),
            ("nextToken", Nothing),
            ("token_type", Nothing),
            ("key_id", Nothing),
            ("secretName", Nothing),
            ("PASSWORD_ADMIN", Inner),
            ("cvv", Pin),
            ("card_pin", Pin),
            ("session_id", Nothing),
            ("JSESSIONID", Maybe),
        ] {
            assert_eq!(meaning(name.as_bytes()), want, "{name}");
        }
    }
}
