//! `toolgate login` and `logout`: a person's consent for a server, kept in the vault. No command prints a token.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};
use toolgate_broker::config::Reach;
use toolgate_broker::vault::{Locked, Mint, Provider, Uses, VaultError};
use toolgate_core::hex;
use toolgate_core::name::{SecretName, ServerName};
use toolgate_core::text;
use toolgate_gateway::login::{self, Attempt, Found, Listener, Tokens, Wishes};
use toolgate_gateway::upstream::HttpServer;
use toolgate_sandbox::guarded;
use zeroize::Zeroizing;

use crate::args::{Login, Logout};
use crate::out::{self, LINE_CHARS, hinted, note};
use crate::place::{Place, block_on, random, read_pem};
use crate::secret::{is_login, keep_login, locked, take_login};

/// How long the browser is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long may be what is pasted, and the secret of a client.
const MAX_LINE: u64 = 64 << 10;

/// What a login to this server is called in the vault.
pub(crate) fn secret_of(server: &ServerName) -> anyhow::Result<SecretName> {
    Ok(format!("login-{server}").parse()?)
}

pub(crate) fn run(place: &Place, login: &Login) -> anyhow::Result<()> {
    let Some(server) = &login.server else { return list(place) };
    // Tokens pass through this process: nobody else's may look into it, and it leaves nothing behind when it breaks.
    guarded::keep_to_ourselves().context("this process cannot be kept to itself")?;
    let server: ServerName = server.parse()?;
    let name = secret_of(&server)?;
    let upstream = Upstream::of(place, &server)?;
    let secret = login.client_secret_file.as_deref().map(client_secret).transpose()?;
    let (mint, tokens) = block_on(consent(login, &server, &upstream, secret))?;
    let (scope, until_ms) = (tokens.scope, tokens.until_ms);
    let uses = upstream.uses(&server, mint)?;
    // Only now is the vault opened: nobody's answers are read by a process that has its key.
    keep_login(place, &name, uses.clone(), &tokens.value, login.passphrase_file.as_deref())?;
    note(format_args!("You are logged in to `{server}`: {}.", ends(until_ms)));
    if !upstream.gets(&name) {
        note(format_args!(
            "It gets the login once toolgate.toml says so: `[servers.{server}]` `secrets = [\"{name}\"]`."
        ));
    }
    let issuer = uses.mint.as_ref().and_then(|mint| mint.with().get("issuer"));
    place.tell(|| {
        json!({
            "server": server.as_str(), "secret": name.as_str(), "issuer": issuer, "scope": scope,
            "renewed": until_ms.is_none(), "until_ms": until_ms,
        })
    })
}

fn ends(until_ms: Option<u64>) -> String {
    match until_ms {
        None => "its tokens are renewed until somebody revokes it".to_owned(),
        Some(until_ms) => format!("until {}, since nothing was given that renews it", out::time(until_ms)),
    }
}

/// The server as it is configured.
struct Upstream {
    url: String,
    ca: Option<String>,
    secrets: Vec<SecretName>,
}

impl Upstream {
    fn of(place: &Place, name: &ServerName) -> anyhow::Result<Self> {
        let config = place.config()?;
        let server = config.servers.get(name).ok_or_else(|| {
            hinted(
                format!("there is no server `{name}` in the configuration"),
                format!("write `[servers.{name}]` with `url = \"https://…\"` into toolgate.toml"),
            )
        })?;
        let Reach::Url { url, ca, .. } = &server.reach else {
            return Err(hinted(
                format!("the server `{name}` has no `url`, and one logs in to servers that have one"),
                "what a program is to have is a secret: `toolgate secret add NAME --slot env:NAME`",
            ));
        };
        let ca = ca.as_deref().map(read_pem).transpose()?;
        let ca = ca.map(String::from_utf8).transpose().context("the certificates are no PEM")?;
        Ok(Self { url: url.clone(), ca, secrets: server.secrets.iter().cloned().collect() })
    }

    fn gets(&self, name: &SecretName) -> bool {
        self.secrets.contains(name)
    }

    /// What is minted from the login goes to this server, and nowhere else.
    fn uses(&self, server: &ServerName, mint: Mint) -> anyhow::Result<Uses> {
        let (host, port) = HttpServer::new(&self.url, &[])?.address();
        Ok(Uses {
            hosts: [format!("{host}:{port}").parse()?].into(),
            mint: Some(mint),
            slots: ["header:Authorization".parse()?].into(),
            tools: [format!("{server}/*").parse()?].into(),
            ..Uses::default()
        })
    }
}

/// Has the person consent, and gets the tokens.
async fn consent(
    login: &Login,
    server: &ServerName,
    upstream: &Upstream,
    secret: Option<Zeroizing<String>>,
) -> anyhow::Result<(Mint, Tokens)> {
    let wishes = Wishes { ca: upstream.ca.clone(), issuer: login.issuer.clone(), scope: login.scope.clone() };
    let found = Found::at(&upstream.url, wishes).await?;
    let listener = Listener::new(login.port).await.map_err(login::LoginError::from)?;
    let known = login.client_id.clone().map(|id| (id, secret));
    let attempt = Attempt::begin(found, known, listener.uri()).await?;
    let Found { issuer, scope, .. } = attempt.found();
    let there = HttpServer::new(&upstream.url, &[])?.address();
    note(format_args!(
        "`{server}` wants you to log in at {issuer}. What it gives goes to {}:{}.",
        there.0, there.1
    ));
    if let Some(scope) = scope {
        note(format_args!("and be able to do: {}", text::quoted(scope, LINE_CHARS)));
    }
    let url = attempt.url();
    note(format_args!("\nOpen this in your browser:\n\n  {url}\n"));
    let answer = if login.no_browser {
        note("At the end the browser shows a page that cannot be reached. Paste that page's address here:");
        Zeroizing::new(pasted()?)
    } else {
        if login.open {
            open(&url);
        }
        waited(&listener).await?
    };
    let code = attempt.code(answer.trim())?;
    let tokens = attempt.tokens(&code).await?;
    Ok((recipe(server, upstream, &attempt, &tokens)?, tokens))
}

/// What the tokens are renewed by. It is sealed in the vault with them.
fn recipe(
    server: &ServerName,
    upstream: &Upstream,
    attempt: &Attempt,
    tokens: &Tokens,
) -> anyhow::Result<Mint> {
    let (found, client) = (attempt.found(), attempt.client());
    let post = (client.secret.is_some() && client.post).then(|| "post".to_owned());
    let all = [
        ("ca", upstream.ca.clone().filter(|_| found.token_endpoint.starts_with("https:"))),
        ("client_auth", post),
        ("client_id", Some(client.id.clone())),
        ("issuer", Some(found.issuer.clone())),
        ("login", Some(hex::encode(&random::<8>()?))),
        ("resource", Some(found.resource.clone())),
        ("revoke_url", found.revocation_endpoint.clone()),
        ("scope", tokens.scope.clone()),
        ("server", Some(server.to_string())),
        ("token_url", Some(found.token_endpoint.clone())),
        ("until_ms", tokens.until_ms.map(|until_ms| until_ms.to_string())),
    ];
    let with: BTreeMap<String, String> =
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    // What stands in braces would be filled in by calls.
    if with.values().any(|value| value.contains("{args.")) {
        return Err(anyhow::anyhow!("an answer has `{{args.` in it"));
    }
    Ok(Mint::new(Provider::OauthRefresh, with)?)
}

/// Waits until the browser comes back, and shows for how long.
async fn waited(listener: &Listener) -> anyhow::Result<Zeroizing<String>> {
    let shown = io::stderr().is_terminal();
    let end = Instant::now() + PATIENCE;
    let mut second = interval(Duration::from_secs(1));
    let answer = listener.answer();
    tokio::pin!(answer);
    let answered = loop {
        tokio::select! {
            answered = &mut answer => break answered.context("the browser cannot be heard")?,
            _ = second.tick() => {
                let left = end.saturating_duration_since(Instant::now()).as_secs();
                if left == 0 {
                    return Err(hinted(
                        "the browser has not come back in time",
                        "begin again; on a machine without a browser: `--no-browser`",
                    ));
                }
                if shown {
                    let _unseen = write!(io::stderr(), "\rWaiting for the browser: {}:{:02} left ", left / 60, left % 60);
                }
            }
        }
    };
    if shown {
        note("");
    }
    Ok(Zeroizing::new(answered))
}

/// A line of standard input.
fn pasted() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().take(MAX_LINE).read_line(&mut line)?;
    Ok(line)
}

/// The secret of a client: without the end of its line.
fn client_secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = if path == Path::new("-") {
        pasted()?
    } else {
        let file = File::open(path).with_context(|| format!("could not read `{}`", path.display()))?;
        let mut text = String::new();
        file.take(MAX_LINE).read_to_string(&mut text).context("the client's secret is no text")?;
        text
    };
    let text = Zeroizing::new(text);
    let secret = text.trim();
    let plain = !secret.is_empty() && secret.bytes().all(|b| (0x20..0x7f).contains(&b));
    if !plain {
        return Err(hinted(
            "the client's secret is empty, or has odd signs",
            "it is one line of plain signs",
        ));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Opens an address; where that does not work, it has been printed.
fn open(url: &str) {
    let mut command = Command::new("xdg-open");
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.spawn().is_err() {
        note("(`xdg-open` could not be started.)");
    }
}

/// Ends a login.
pub(crate) fn out(place: &Place, logout: &Logout) -> anyhow::Result<()> {
    guarded::keep_to_ourselves().context("this process cannot be kept to itself")?;
    let server: ServerName = logout.server.parse()?;
    let name = secret_of(&server)?;
    let taken = take_login(place, &name, logout.passphrase_file.as_deref());
    let (uses, value) = taken.map_err(|error| match error.downcast_ref::<VaultError>() {
        Some(VaultError::NoSecret(_) | VaultError::None(_)) => hinted(
            format!("nobody is logged in to `{server}`"),
            "`toolgate login --list` lists those where somebody is",
        ),
        _ => error,
    })?;
    let mint = uses.mint.context("it is no login")?;
    let issuer = mint.with().get("issuer").cloned().unwrap_or_default();
    let revoked = block_on(async { Ok(login::revoke(&mint, &value).await) })?;
    let revoked = revoked.map_err(|error| {
        let what = format!("the login is removed here, and could not be revoked where it was got: {error}");
        hinted(what, format!("take the access of `toolgate` back there: {issuer}"))
    })?;
    match revoked {
        true => note(format_args!("The login to `{server}` is revoked at {issuer}, and removed.")),
        false => note(format_args!(
            "The login to `{server}` is removed. {issuer} has no place to revoke it: take the access of `toolgate` back there."
        )),
    }
    let config = place.config()?;
    if config.servers.get(&server).is_some_and(|server| server.secrets.contains(&name)) {
        note(format_args!(
            "A gate does not start while `[servers.{server}]` says `secrets = [\"{name}\"]`: log in again, or take it out."
        ));
    }
    place.tell(|| json!({ "server": server.as_str(), "secret": name.as_str(), "revoked": revoked }))
}

/// Who is logged in where.
fn list(place: &Place) -> anyhow::Result<()> {
    let locked = match locked(place) {
        Err(VaultError::None(_)) => None,
        read => Some(read?),
    };
    let secrets = locked.as_ref().map(Locked::secrets).into_iter().flatten();
    let logins = secrets.filter(|(_, sealed)| is_login(&sealed.uses));
    let mut all: Vec<Value> = Vec::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, sealed) in logins {
        let with = |key: &str| sealed.uses.mint.as_ref().and_then(|mint| mint.with().get(key));
        let until_ms = with("until_ms").and_then(|until| until.parse::<u64>().ok());
        all.push(json!({
            "server": with("server"), "secret": name.as_str(), "issuer": with("issuer"), "scope": with("scope"),
            "changed_ms": sealed.changed_ms, "renewed": until_ms.is_none(), "until_ms": until_ms,
        }));
        // Who can write the file can write here what they like.
        let shown =
            |key: &str| with(key).map_or_else(|| "-".to_owned(), |said| text::quoted(said, LINE_CHARS));
        rows.push(vec![
            shown("server"),
            shown("issuer"),
            shown("scope"),
            out::time(sealed.changed_ms),
            until_ms.map_or_else(|| "it is revoked".to_owned(), out::time),
        ]);
    }
    if place.json {
        return out::json(&all);
    }
    if rows.is_empty() {
        note("Nobody is logged in to a server: `toolgate login SERVER`.");
        return Ok(());
    }
    out::table(&["SERVER", "LOGGED IN AT", "SCOPE", "LAST TOKEN", "UNTIL"], &rows)
}
