//! A labelled corpus, made anew from a seed each time: what is secret, in the places where tool results hold it, and what
//! only looks like it. No text of this file is a token; they are put together when it runs.

/// A text, and the part of it that is secret, if there is one.
pub(crate) struct Item {
    /// `structured`, `generic`, `special` or `benign`.
    pub(crate) class: &'static str,
    /// What kind it is.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) secret: Option<String>,
}

/// The same numbers for the same seed, on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn run(&mut self, set: &str, count: usize) -> String {
        let set: Vec<char> = set.chars().collect();
        (0..count).map(|_| set[self.below(set.len())]).collect()
    }

    /// Fills a template: `<a36>` is 36 letters and digits, `<P>` a password, `<W>` a word, `<J…>` a part of base64.
    pub(crate) fn fill(&mut self, template: &str) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some((head, tail)) = rest.split_once('<') {
            out.push_str(head);
            let Some((inside, after)) = tail.split_once('>') else {
                out.push('<');
                rest = tail;
                continue;
            };
            let (letter, count) = inside.split_at(1);
            let count: Option<usize> = count.parse().ok();
            let lower = "abcdefghijklmnopqrstuvwxyz";
            let upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
            let made = match (letter, count) {
                ("a", Some(n)) => Some(self.run(&format!("{lower}{upper}0123456789"), n)),
                ("b", Some(n)) => Some(self.run(&format!("{lower}{upper}0123456789+/"), n)),
                ("c", Some(n)) => Some(self.run(lower, n)),
                ("d", Some(n)) => Some(self.run("0123456789", n)),
                ("h" | "x", Some(n)) => Some(self.run("0123456789abcdef", n)),
                ("l", Some(n)) => Some(self.run(&format!("{lower}0123456789"), n)),
                ("L", Some(n)) => Some(self.run(&format!("{lower}{upper}"), n)),
                ("n", Some(n)) => Some(self.run(&format!("{upper}234567"), n)),
                ("u", Some(n)) => Some(self.run(&format!("{upper}0123456789"), n)),
                ("w", Some(n)) => Some(self.run(&format!("{lower}{upper}0123456789_-"), n)),
                ("U", Some(_)) => Some(format!(
                    "{}-{}-4{}-a{}-{}",
                    self.run("0123456789abcdef", 8),
                    self.run("0123456789abcdef", 4),
                    self.run("0123456789abcdef", 3),
                    self.run("0123456789abcdef", 3),
                    self.run("0123456789abcdef", 12)
                )),
                ("P", None) if inside == "P" => Some(self.password()),
                ("W", None) if inside == "W" => Some(self.word().to_owned()),
                ("S", Some(n)) => Some((0..n).map(|_| self.pick(SEED_WORDS)).collect::<Vec<_>>().join(" ")),
                _ => None,
            };
            match made {
                Some(made) => {
                    out.push_str(&made);
                    rest = after;
                }
                None => {
                    out.push('<');
                    rest = tail;
                }
            }
        }
        out + rest
    }

    /// Some of the parts, one after another.
    pub(crate) fn splice(&mut self, parts: &[&str]) -> String {
        (0..self.below(30)).map(|_| self.pick(parts)).collect()
    }

    fn word(&mut self) -> &'static str {
        self.pick(WORDS)
    }

    /// As people and their managers of passwords make them.
    fn password(&mut self) -> String {
        let word = self.word();
        let capital = format!("{}{}", word[..1].to_uppercase(), &word[1..]);
        match self.below(6) {
            0 => format!("{capital}{}", self.run("0123456789", 4)) + self.pick(&["!", "#", "?", "$"]),
            1 => format!("{word}-{}-{}", self.word(), self.run("0123456789", 3)),
            2 => self.run("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", 14),
            3 => self.run("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!#%^*_+", 16) + "7q",
            4 => format!(
                "{}@{}{}",
                capital.replace('o', "0").replace('e', "3"),
                self.word(),
                self.run("0123456789", 2)
            ),
            _ => format!("{}{}", self.run("abcdefghjkmnpqrstuvwxyz", 8), self.run("0123456789", 2)),
        }
    }
}

fn base64(bytes: &[u8], url: bool) -> String {
    let set = if url {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    } else {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    };
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(set[(bits >> (18 - 6 * place) & 63) as usize] as char);
            } else if !url {
                out.push('=');
            }
        }
    }
    out
}

const WORDS: &[&str] = &[
    "harbor", "violet", "planet", "copper", "summer", "winter", "tiger", "orchid", "falcon", "marble",
    "thunder", "meadow", "rocket", "pepper", "garden", "silver", "bridge", "candle",
];
const SEED_WORDS: &[&str] = &[
    "abandon", "ability", "canyon", "desert", "echo", "fabric", "galaxy", "habit", "idea", "jacket",
    "kitten", "lemon", "maple", "napkin", "oasis", "panda", "quote", "rabbit", "salad", "tackle", "useful",
    "vacant", "wagon", "yellow", "zebra", "orbit", "pencil", "river", "spoon", "tunnel",
];

/// Tokens that are known by their look, in places that say nothing about them.
const STRUCTURED: &[(&str, &str)] = &[
    ("github", "ghp_<a36>"),
    ("github-app", "ghs_<a36>"),
    ("github-fine", "github_pat_<a22>_<a59>"),
    ("gitlab", "glpat-<w20>"),
    ("gitlab-runner", "glrt-<w20>"),
    ("aws-id", "AKIA<n16>"),
    ("aws-session-id", "ASIA<n16>"),
    ("slack-bot", "xoxb-<d12>-<d13>-<a24>"),
    ("slack-user", "xoxp-<d12>-<d12>-<d12>-<x32>"),
    ("slack-app", "xapp-1-A<u10>-<d13>-<x64>"),
    ("slack-webhook", "https://hooks.slack.com/services/T<u10>/B<u10>/<a24>"),
    ("discord-webhook", "https://discord.com/api/webhooks/<d18>/<w68>"),
    ("teams-webhook", "https://corp.webhook.office.com/webhookb2/<U1>@<U1>/IncomingWebhook/<x32>/<U1>"),
    ("stripe", "sk_live_<a24>"),
    ("stripe-restricted", "rk_live_<a99>"),
    ("stripe-webhook", "whsec_<a32>"),
    ("openai", "sk-proj-<w74>T3BlbkFJ<w74>"),
    ("openai-old", "sk-<a20>T3BlbkFJ<a20>"),
    ("anthropic", "sk-ant-api03-<w93>AA"),
    ("google-api", "AIza<w35>"),
    ("google-oauth", "GOCSPX-<w28>"),
    ("google-token", "ya29.<w120>"),
    ("npm", "npm_<a36>"),
    ("pypi", "pypi-AgEIcHlwaS5vcmc<w90>"),
    ("sendgrid", "SG.<w22>.<w43>"),
    ("twilio", "SK<x32>"),
    ("mailgun", "key-<x32>"),
    ("mailchimp", "<x32>-us12"),
    ("digitalocean", "dop_v1_<x64>"),
    ("doppler", "dp.pt.<a43>"),
    ("databricks", "dapi<x32>"),
    ("huggingface", "hf_<L34>"),
    ("replicate", "r8_<a37>"),
    ("groq", "gsk_<a52>"),
    ("perplexity", "pplx-<a48>"),
    ("xai", "xai-<a80>"),
    ("linear", "lin_api_<a40>"),
    ("notion", "ntn_<d11><a35>"),
    ("figma", "figd_<w40>"),
    ("shopify", "shpat_<x32>"),
    ("square", "sq0atp-<w22>"),
    ("vault", "hvs.<w95>"),
    ("terraform", "<a14>.atlasv1.<w67>"),
    ("docker", "dckr_pat_<w27>"),
    ("cloudflare-ca", "v1.0-<x24>-<x146>"),
    ("postman", "PMAK-<x24>-<x34>"),
    ("pulumi", "pul-<x40>"),
    ("new-relic", "NRAK-<u27>"),
    ("dynatrace", "dt0c01.<u24>.<u64>"),
    ("grafana", "glsa_<a32>_<x8>"),
    ("age", "AGE-SECRET-KEY-1<u58>"),
    ("planetscale", "pscale_tkn_<w43>"),
    ("rubygems", "rubygems_<x48>"),
    ("supabase", "sbp_<x40>"),
    ("telegram", "<d10>:AA<w33>"),
    ("tailscale", "tskey-auth-k<a12>CNTRL-<a32>"),
    ("airtable", "pat<a14>.<x64>"),
    ("1password", "ops_eyJ<b260>"),
    ("azure-ad", "<a3>8Q~<w34>"),
    ("atlassian", "ATATT3xFfGF0<w180>"),
];

/// Places that say nothing about what they hold.
const NEUTRAL: &[&str] = &[
    "{\"id\": 7, \"note\": \"@\", \"ok\": true}",
    "the value was @ at the time",
    "| row | @ | 12 |",
    "x = '@'",
    "https://api.example.com/v1?x=@&page=2",
    "2026-03-04T10:11:12Z INFO got @ from upstream",
    "  - @",
    "<td>@</td>",
    "echo @",
    "\\n@\\n",
    "curl -H \"X-Custom: @\" https://api.example.com",
];

/// Names and values of which only the name says that they are secret.
const GENERIC: &[(&str, &str, &str)] = &[
    ("password", "password", "<P>"),
    ("db-password", "DB_PASSWORD", "<P>"),
    ("passwd", "mysql_passwd", "<P>"),
    ("pwd", "adminPwd", "<P>"),
    ("passphrase", "passphrase", "<P>"),
    ("secret", "client_secret", "<a40>"),
    ("secret-hex", "APP_SECRET", "<x64>"),
    ("token", "authToken", "<w32>"),
    ("access-token", "access_token", "<a48>"),
    ("refresh-token", "refreshToken", "1<w60>"),
    ("api-key", "api_key", "<a32>"),
    ("api-key-hex", "apiKey", "<x32>"),
    ("api-key-uuid", "x-api-key", "<U1>"),
    ("private-key", "privateKey", "<x64>"),
    ("signing", "signing_key", "<b43>="),
    ("aws-secret", "aws_secret_access_key", "<b40>"),
    ("encryption", "ENCRYPTION_KEY", "<b43>="),
    ("storage", "AccountKey", "<b86>=="),
    ("german", "passwort", "<P>"),
    ("spanish", "contraseña", "<P>"),
    ("french", "mot_de_passe_motdepasse", "<P>"),
    ("russian", "пароль", "<P>"),
    ("chinese", "密码", "<P>"),
    ("credential", "service_credential", "<a28>"),
];

/// How names and values are written down.
const CARRIERS: &[(&str, &str)] = &[
    ("json", "{\"host\": \"db1\", \"N\": \"@\", \"port\": 5432}"),
    ("env", "HOST=db1\nN=@\nPORT=5432"),
    ("yaml", "host: db1\nN: @\nport: 5432"),
    ("yaml-quoted", "host: db1\nN: \"@\""),
    ("toml", "host = \"db1\"\nN = \"@\""),
    ("ini", "[db]\nhost = db1\nN = @"),
    ("log", "2026-03-04 10:11:12 DEBUG connecting N=@ host=db1"),
    ("python", "conf = connect(host=\"db1\", N=\"@\")"),
    ("python-dict", "cfg['N'] = '@'"),
    ("js", "const N = '@';"),
    ("java", "private static final String N = \"@\";"),
    ("go", "N := \"@\""),
    ("csharp", "string N = @\"@\";"),
    ("php", "$config['N'] = '@';"),
    ("ruby", "  :N => '@',"),
    ("markdown", "**N**: `@`"),
    ("shell", "export N='@'"),
    ("flag", "tool --N '@' run"),
    ("html", "<input type=\"hidden\" name=\"N\" value=\"@\">"),
    ("xml", "<conf><N>@</N></conf>"),
    ("xml-attribute", "<add key=\"N\" value=\"@\" />"),
    ("http", "POST /x HTTP/1.1\r\nHost: a.example\r\nN: @\r\n\r\n"),
    ("escaped", "{\"body\": \"{\\\"N\\\": \\\"@\\\"}\"}"),
    ("sibling", "{\"name\": \"N\", \"value\": \"@\"}"),
    ("query", "GET /login?user=ada&N=@&x=1 HTTP/1.1"),
    ("properties", "app.N=@"),
    ("terraform", "  N = \"@\"\n"),
    ("sentence", "the N is @ by the way"),
];

/// Forms of their own; the secret stands between ⟪ and ⟫.
const SPECIAL: &[(&str, &str)] = &[
    ("cookie", "Cookie: theme=dark; sessionid=⟪<l32>⟫; lang=en"),
    ("set-cookie", "Set-Cookie: sid=⟪s%3A<w24>.<a43>⟫; Path=/; HttpOnly"),
    ("bearer", "Authorization: Bearer ⟪<w40>⟫"),
    ("bearer-json", "{\"headers\": {\"Authorization\": \"Bearer ⟪<a64>⟫\"}}"),
    ("basic", "Authorization: Basic ⟪B⟫"),
    (
        "digest",
        "Authorization: Digest username=\"ada\", realm=\"x\", nonce=\"<x32>\", uri=\"/\", response=\"⟪<x32>⟫\"",
    ),
    ("netrc", "machine api.example.com login ada password ⟪<P>⟫"),
    ("netrc-lines", "machine api.example.com\n  login ada\n  password ⟪<P>⟫\n"),
    ("pgpass", "db.example.com:5432:orders:app:⟪<a14>⟫"),
    ("sas", "https://acct.blob.core.windows.net/c/f?sv=2024-11-04&sp=r&se=2026-01-01&sig=⟪<a40>%2B<a3>%3D⟫"),
    ("postgres", "postgres://app:⟪<a14>⟫@db.example.com:5432/orders"),
    ("mysql-url", "mysql://root:⟪<a12>⟫@10.0.0.5/shop"),
    ("mongodb", "mongodb+srv://app:⟪<a16>⟫@c0.example.mongodb.net/test"),
    ("redis", "redis://:⟪<a24>⟫@cache.example.com:6379/0"),
    ("amqp", "amqp://svc:⟪<a18>⟫@mq.example.com//"),
    ("jdbc", "jdbc:mysql://db1/shop?user=app&password=⟪<a14>⟫"),
    ("jdbc-oracle", "jdbc:oracle:thin:app/⟪<a12>⟫@db1:1521:ORCL"),
    ("ado", "Server=db1;Database=x;User Id=sa;Password=⟪<P>⟫;Encrypt=True"),
    ("odbc", "Driver={SQL Server};Server=db1;UID=sa;PWD=⟪<a13>⟫;"),
    ("url-password", "git clone https://ada:⟪<a20>⟫@git.example.com/a/b.git"),
    ("mysql-flag", "mysql -h db1 -u root -p⟪<a12>⟫ shop"),
    ("curl-user", "curl -s -u ada:⟪<a14>⟫ https://api.example.com/"),
    ("sshpass", "sshpass -p '⟪<P>⟫' ssh ada@h1"),
    ("redis-cli", "redis-cli -h c1 -a ⟪<a20>⟫ ping"),
    ("ldap", "ldapsearch -x -D cn=admin -w ⟪<a12>⟫ -b dc=x"),
    ("docker-login", "docker login -u ada -p ⟪<a20>⟫ registry.example.com"),
    ("sql-identified", "CREATE USER 'app'@'%' IDENTIFIED BY '⟪<P>⟫';"),
    ("sql-password", "ALTER ROLE app WITH LOGIN PASSWORD '⟪<P>⟫';"),
    ("sql-insert", "INSERT INTO users (name, password, age) VALUES ('ada', '⟪<P>⟫', 36);"),
    ("totp", "TOTP secret: ⟪<n32>⟫"),
    ("otpauth", "otpauth://totp/x:ada?secret=⟪<n32>⟫&issuer=x"),
    ("pem", "-----BEGIN RSA PRIVATE KEY-----\n⟪<b64>\n<b64>\n<b64>⟫\n-----END RSA PRIVATE KEY-----"),
    (
        "openssh",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n⟪b3BlbnNzaC1rZXkt<b54>\n<b70>⟫\n-----END OPENSSH PRIVATE KEY-----",
    ),
    (
        "pem-escaped",
        "{\"private_key\": \"-----BEGIN PRIVATE KEY-----\\n⟪<b64>\\n<b64>⟫\\n-----END PRIVATE KEY-----\\n\"}",
    ),
    ("pgp", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n⟪<b64>\n<b64>⟫\n-----END PGP PRIVATE KEY BLOCK-----"),
    ("putty", "Private-Lines: 2\n⟪<b64>\n<b64>⟫\nPrivate-MAC: <x40>"),
    ("wireguard", "[Interface]\nPrivateKey = ⟪<b43>=⟫\nAddress = 10.0.0.2/24"),
    ("jwk", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"<w43>\",\"d\":\"⟪<w43>⟫\"}"),
    ("jwt", "token ⟪J⟫ expired"),
    ("kubeconfig", "users:\n- name: ada\n  user:\n    client-key-data: ⟪<b200>==⟫"),
    ("docker-auth", "{\"auths\": {\"r.example.com\": {\"auth\": \"⟪B⟫\"}}}"),
    ("npmrc", "//registry.example.com/:_authToken=⟪<U1>⟫"),
    ("k8s-secret", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  config: ⟪<b40>⟫\n"),
    ("tfstate", "\"attributes\": {\"password\": \"⟪<P>⟫\", \"port\": 5432}"),
    ("ansible", "$ANSIBLE_VAULT;1.1;AES256\n⟪<d80>\n<d80>⟫"),
    ("htpasswd", "ada:⟪$apr1$<a8>$<a22>⟫"),
    ("shadow", "ada:⟪$6$<a16>$<a86>⟫:19000:0:99999:7:::"),
    ("bcrypt", "| ada | ⟪$2b$12$<a53>⟫ |"),
    ("recovery", "recovery phrase: ⟪<S12>⟫"),
    ("mnemonic", "{\"mnemonic\": \"⟪<S24>⟫\"}"),
    ("xprv", "root xprv⟪9<a106>⟫"),
    ("wif", "wif: ⟪5<a50>⟫"),
    ("cvv", "cvv: ⟪<d3>⟫"),
    ("pin", "PIN: ⟪4<d3>⟫"),
    ("otp", "Your one-time code is ⟪7<d5>⟫"),
    ("otp-front", "⟪8<d5>⟫ is your verification code"),
    (
        "s3-signed",
        "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=900&X-Amz-Signature=⟪<x64>⟫",
    ),
    ("sentry", "https://⟪<x32>⟫@o123.ingest.example.com/456"),
    ("aws-pair", "<W> AKIA<n16> / ⟪<b40>⟫"),
    (
        "sigv4",
        "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=⟪<x64>⟫",
    ),
    ("plist", "<key>password</key>\n<string>⟪<P>⟫</string>"),
    ("password-is", "my password is ⟪<a10>7x⟫ please"),
    ("cisco", "username ada password 0 ⟪<a10>9⟫"),
    ("requirepass", "requirepass ⟪<a20>⟫"),
    ("openssl", "openssl rsa -in k.pem -passin pass:⟪<a12>⟫"),
    ("htpasswd-command", "htpasswd -cb .htpasswd ada ⟪<a12>⟫"),
    ("heredoc", "DB_PASS=⟪<a16>⟫ ./run.sh"),
    ("yaml-block", "password: |\n  ⟪<a18>⟫\n"),
    ("json-list", "{\"tokens\": [\"⟪<a40>⟫\", \"<a40>\"]}"),
];

/// What only looks like a secret.
const BENIGN: &[(&str, &str)] = &[
    ("uuid", "request <U1> took <d2> ms"),
    ("uuid-json", "{\"id\": \"<U1>\", \"parent\": \"<U1>\"}"),
    ("sha", "commit <x40>\nAuthor: Ada\n\n    fix <W>"),
    ("sha256", "<x64>  <W>.tar.gz"),
    (
        "npm-lock",
        "\"node_modules/<W>\": {\"version\": \"1.2.<d1>\", \"resolved\": \"https://registry.example.com/<W>/-/<W>-1.tgz\", \"integrity\": \"sha512-<b86>==\"}",
    ),
    ("cargo-lock", "[[package]]\nname = \"<W>\"\nversion = \"0.<d2>.1\"\nchecksum = \"<x64>\""),
    ("go-sum", "example.com/<W> v1.2.3 h1:<b43>="),
    ("yarn-lock", "<W>@^1.0.0:\n  version \"1.0.3\"\n  integrity sha1-<b27>="),
    ("poetry", "{file = \"<W>-1.0-py3-none-any.whl\", hash = \"sha256:<x64>\"}"),
    ("docker-digest", "FROM debian@sha256:<x64>"),
    ("image", "<img src=\"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA<b120>\">"),
    ("font", "src: url(data:font/woff2;base64,d09GMgABAAAA<b100>) format('woff2')"),
    ("css", ".a<h6>{color:#<h6>;background:#<h3>;margin:0 <d2>px}"),
    ("minified", "function a(b,c){var d=b.key||c.token;return d?e(d,{pass:!0,auth:f.g}):h(b.secret)}"),
    ("placeholder", "password = \"changeme\""),
    ("placeholder-angle", "API_KEY=<your-api-key>"),
    ("env-ref", "password: ${DB_PASSWORD}"),
    ("js-env", "const token = process.env.API_TOKEN;"),
    ("py-env", "SECRET_KEY = os.environ[\"SECRET_KEY\"]"),
    ("template", "password: {{ vault_db_password }}"),
    ("stars", "password: ********"),
    ("docs-url", "postgres://user:password@localhost:5432/db"),
    ("docs-url-var", "mysql://$USER:$PASS@$HOST/db"),
    ("docs-aws", "aws_access_key_id = AKIAIOSFODNN7EXAMPLE"),
    ("docs-token", "Authorization: Bearer <token>"),
    ("docs-token-x", "token: ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ("label", "passwordLabel: \"Enter your password\""),
    ("message", "{\"error\": \"Invalid password for user ada\"}"),
    ("max-tokens", "{\"max_tokens\": 4096, \"tokens\": 1287, \"total_tokens\": <d5>}"),
    ("token-type", "{\"token_type\": \"bearer\", \"expires_in\": 3600}"),
    ("key-value", "primary_key: id\nsort_key: created_at"),
    ("public-key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI<b43> ada@h1"),
    ("certificate", "-----BEGIN CERTIFICATE-----\nMII<b61>\n<b64>\n-----END CERTIFICATE-----"),
    ("public-pem", "-----BEGIN PUBLIC KEY-----\nMFkw<b60>\n-----END PUBLIC KEY-----"),
    ("version", "toolchain 1.95.0 (<h9> 2026-04-14), build 10.0.<d5>.<d4>"),
    (
        "trace",
        "  at com.example.auth.TokenService.refresh(TokenService.java:<d3>)\n  at java.base/java.lang.Thread.run(Thread.java:840)",
    ),
    ("changelog", "- #<d4> auth: the token is refreshed before it expires (<h7>)"),
    ("phone", "order <d3>-<d3>-<d4> shipped"),
    ("timestamp", "ts=17<d11> seq=<d12>"),
    ("etag", "ETag: \"<x32>\"\nContent-MD5: <b22>=="),
    ("k8s-ref", "secretKeyRef:\n  name: db-credentials\n  key: password"),
    ("code", "def set_password(self, password: str) -> None:\n    self.password = hash_password(password)"),
    ("code-ts", "interface Login { username: string; password: string; token?: string }"),
    ("code-go", "func NewClient(apiKey string) *Client { return &Client{apiKey: apiKey} }"),
    (
        "code-java",
        "this.passwordEncoder = passwordEncoder;\nString token = request.getHeader(\"Authorization\");",
    ),
    ("sql-schema", "password VARCHAR(255) NOT NULL,\ntoken_hash CHAR(64)"),
    ("sql-param", "UPDATE users SET password = ? WHERE id = <d3>"),
    ("cookie-ga", "Cookie: _ga=GA1.2.<d9>.<d10>; theme=dark; lang=en"),
    ("csp", "script-src 'nonce-<b22>' 'sha256-<b43>='"),
    ("arn", "secret_arn: arn:aws:secretsmanager:eu-west-1:<d12>:secret:db-<a6>"),
    ("vault-path", "password: vault:secret/data/db#password"),
    ("i18n", "{\"password\": \"Passwort\", \"forgot_password\": \"Passwort vergessen?\"}"),
    ("file", "ssl_key: /etc/ssl/private/server.key\nprivate_key_path = \"~/.ssh/id_ed25519\""),
    ("gitlog", "<h7> (HEAD -> main) auth: rotate the signing key\n<h7> docs: how tokens work"),
    ("test-name", "test auth::tests::token_is_refreshed_when_password_changes ... ok"),
    (
        "html",
        "<input type=\"password\" name=\"password\" placeholder=\"Password\" autocomplete=\"current-password\">",
    ),
    ("keyboard", "keyCode: 13, keyboard: 'qwerty', monkey: true, author: 'ada'"),
    ("config", "auth:\n  method: oidc\n  issuer: https://id.example.com\n  token_ttl: 3600"),
    ("tokenizer", "{\"tokenizer\": \"cl100k_base\", \"eos_token\": \"</s>\", \"pad_token\": \"[PAD]\"}"),
    ("words", "the key to a good password is that nobody can guess it; a token is not a secret"),
    ("base64-text", "data: <b80>"),
    ("hex-dump", "0000<d4>: <x4> <x4> <x4> <x4> <x4> <x4>"),
    ("id-list", "ids = [\"<a20>\", \"<a20>\"]"),
    ("function", "password = get_password(user)\ntoken = auth.create_token(user.id)"),
    ("slug", "/blog/how-to-store-a-secret-key-safely-<d4>"),
    ("svg", "<path d=\"M<d2>.<d2> <d1>.<d2>c-<d1>.2 0-1.<d2>.5z\"/>"),
    ("metrics", "http_requests_total{token=\"valid\",auth=\"basic\"} <d6>"),
];

/// All items of a seed.
pub(crate) fn items(seed: u64) -> Vec<Item> {
    let mut dice = Dice::new(seed);
    let mut items = Vec::new();
    for (kind, template) in STRUCTURED {
        for _ in 0..3 {
            let secret = dice.fill(template);
            let text = dice.pick(NEUTRAL).replace('@', &secret);
            items.push(Item { class: "structured", kind, text, secret: Some(secret) });
        }
    }
    for (kind, name, template) in GENERIC {
        for (carrier, form) in CARRIERS {
            // What cannot be written so: a name with other letters in an address, a value that ends a sentence.
            if matches!(*carrier, "query" | "flag" | "sentence" | "properties")
                && (!name.is_ascii() || template.contains("<b"))
            {
                continue;
            }
            let secret = dice.fill(template);
            let secret = if matches!(
                *carrier,
                "query" | "sentence" | "yaml" | "escaped" | "html" | "xml" | "xml-attribute" | "log"
            ) {
                secret.replace(['#', '%', '&', '!', '?'], "_")
            } else {
                secret
            };
            let text = form.replace('N', "\u{1}").replace('@', "\u{2}").replace('\u{1}', name);
            let text = text.replacen("@\"\u{2}", "\"\u{2}", 1).replace('\u{2}', &secret);
            items.push(Item {
                class: "generic",
                kind,
                text: text.replace("TEM", "NTEM"),
                secret: Some(secret),
            });
        }
    }
    for (kind, template) in SPECIAL {
        for _ in 0..4 {
            let mut filled = dice.fill(template);
            let claims = format!(
                "{{\"sub\":\"{}\",\"exp\":17{}}}",
                dice.run("0123456789", 8),
                dice.run("0123456789", 8)
            );
            let jwt = format!(
                "{}.{}.{}",
                base64(b"{\"alg\":\"HS256\",\"typ\":\"JWT\"}", true),
                base64(claims.as_bytes(), true),
                dice.fill("<w43>")
            );
            let basic = base64(format!("ada:{}", dice.password()).as_bytes(), false);
            filled = filled.replace("⟪J⟫", &format!("⟪{jwt}⟫")).replace("⟪B⟫", &format!("⟪{basic}⟫"));
            let (head, tail) = filled.split_once('⟪').unwrap();
            let (secret, tail) = tail.split_once('⟫').unwrap();
            items.push(Item {
                class: "special",
                kind,
                text: format!("{head}{secret}{tail}"),
                secret: Some(secret.to_owned()),
            });
        }
    }
    for (kind, template) in BENIGN {
        for _ in 0..8 {
            items.push(Item { class: "benign", kind, text: dice.fill(template), secret: None });
        }
    }
    items
}
