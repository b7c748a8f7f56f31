//! Who is let in: by token, by user id, by an access token of the configured issuer, or as the demo agent.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use toolgate_broker::config::{Config, KeySource};
use toolgate_broker::identity::{IdentityError, JwtError, KeySet, Roster, Verifier};
use toolgate_broker::port::{BoxFuture, Clock};
use toolgate_broker::store::AgentRow;
use toolgate_core::call::Agent;
use toolgate_core::name::AgentId;
use toolgate_gateway::port::{Identify, IdentifyError};
use toolgate_gateway::upstream::fetch::Remote;

use crate::out::{hinted, note};
use crate::place::read_pem;

/// Says who an agent is.
pub(crate) struct Doorkeeper {
    roster: RwLock<Arc<Roster>>,
    verifier: Option<Verifier>,
    /// Where the verifier's keys come from, if not from a file.
    keys: Option<Remote>,
    clock: Arc<dyn Clock>,
}

impl Doorkeeper {
    /// Fetches the keys of access tokens, if there is an issuer: a gate that cannot check them does not start.
    pub(crate) async fn new(
        config: &Config,
        agents: &[AgentRow],
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let roster = RwLock::new(Arc::new(Roster::new(config, agents)));
        let Some(oauth) = &config.oauth else {
            return Ok(Self { roster, verifier: None, keys: None, clock });
        };
        let (set, keys) = match &oauth.keys {
            KeySource::File(path) => {
                let bytes =
                    std::fs::read(path).with_context(|| format!("could not read `{}`", path.display()))?;
                let set =
                    KeySet::parse(&bytes).with_context(|| format!("`{}` cannot be used", path.display()))?;
                (set, None)
            }
            KeySource::Url { url, ca } => {
                let hint = "check `jwks_url`, or save the key set into a file and say `jwks_file = \"…\"`";
                let why = |why: String| hinted(format!("no keys from `{url}`: {why}"), hint);
                let pem = ca.as_deref().map(read_pem).transpose()?;
                let remote = Remote::new(url, pem.as_deref()).map_err(|error| why(error.to_string()))?;
                (fetch_keys(&remote).await.map_err(why)?, Some(remote))
            }
        };
        let verifier = Some(Verifier::new(oauth, set, clock.now_ms()));
        Ok(Self { roster, verifier, keys, clock })
    }

    fn recognize(&self, token: &str) -> Result<Arc<Agent>, IdentityError> {
        let header = format!("Bearer {token}");
        self.roster().authorization(Some(&header), self.verifier.as_ref(), self.clock.now_ms() / 1000)
    }

    /// Recognizes an agent by its token. A key that is not known may be a new one of the issuer: its keys are fetched
    /// anew then, but not often, so that nobody can have them fetched at will.
    async fn recognize_or_fetch(&self, token: &str) -> Result<Arc<Agent>, IdentifyError> {
        let mut found = self.recognize(token);
        if let (Err(IdentityError::AccessToken(JwtError::UnknownKey)), Some(verifier), Some(keys)) =
            (&found, &self.verifier, &self.keys)
            && verifier.may_refresh(self.clock.now_ms())
        {
            match fetch_keys(keys).await {
                Ok(set) => verifier.replace_keys(set),
                Err(why) => {
                    note(format_args!("the issuer's keys could not be fetched anew: {why}"));
                    return Err(IdentifyError::Unavailable);
                }
            }
            found = self.recognize(token);
        }
        found.map_err(|error| match error {
            IdentityError::InsufficientScope(scope) => IdentifyError::InsufficientScope { scope },
            IdentityError::AccessToken(_)
            | IdentityError::Malformed
            | IdentityError::Missing
            | IdentityError::Mistyped
            | IdentityError::NotAToken
            | IdentityError::UnknownPeer { .. }
            | IdentityError::UnknownSubject
            | IdentityError::UnknownToken => IdentifyError::Invalid,
        })
    }

    /// Gives the agents that came in before and would not now, or not as the same.
    pub(crate) fn replace(&self, roster: Roster) -> BTreeSet<AgentId> {
        let mut now = self.roster.write().unwrap_or_else(PoisonError::into_inner);
        let put_out = now.put_out(&roster);
        *now = Arc::new(roster);
        put_out
    }

    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.read().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn fetch_keys(remote: &Remote) -> Result<KeySet, String> {
    let bytes = remote.fetch().await.map_err(|error| error.to_string())?;
    KeySet::parse(&bytes).map_err(|error| error.to_string())
}

impl Identify for Doorkeeper {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Arc<Agent>, IdentifyError>> {
        Box::pin(self.recognize_or_fetch(token))
    }

    fn anonymous(&self) -> Option<Arc<Agent>> {
        self.roster().anonymous()
    }

    fn peer(&self, uid: u32) -> Option<Arc<Agent>> {
        self.roster().peer(uid).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use toolgate_broker::port::NoRandomnessError;

    use super::*;

    /// Two keys of an issuer, and tokens that are signed with them until 2033. Another implementation made them.
    const EC: &str = r#"{"kty":"EC","kid":"ec-1","crv":"P-256","x":"Em29SYXppaWy3DXAOK9bAwp86rgODJmltAopR5F58zA","y":"3gvGuBPESIil0C_5SRxWJrVsh0Dm1OHAzdWRyejkFqo"}"#;
    const ED: &str =
        r#"{"kty":"OKP","kid":"ed-1","crv":"Ed25519","x":"Irxmeg66ePDtVrsH-aSnRFmg1Yzd32qPjvu5oEvuHzc"}"#;
    const BY_EC: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImVjLTEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjpbImh0dHBzOi8vb3RoZXIuZXhhbXBsZS5vcmciLCJodHRwczovL2dhdGUuZXhhbXBsZS5vcmcvbWNwIl0sInN1YiI6ImNsaWVudC0xIiwiZXhwIjoyMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsInNjb3BlIjoidG9vbGdhdGUgdG9vbGdhdGU6YWRtaW4ifQ.C5EyPdr5a8hmfOQWbgOw0N3AqMDj-BTrtgOGtq-QjPRpb2Lpvd9STwHH0Yfou038zMTjndGp9KjfRbUf2zo0ew";
    const BY_ED: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImVkLTEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUub3JnIiwiYXVkIjpbImh0dHBzOi8vb3RoZXIuZXhhbXBsZS5vcmciLCJodHRwczovL2dhdGUuZXhhbXBsZS5vcmcvbWNwIl0sInN1YiI6ImNsaWVudC0xIiwiZXhwIjoyMDAwMDAwMDAwLCJuYmYiOjEwMDAwMDAwMDAsInNjb3BlIjoidG9vbGdhdGUgdG9vbGdhdGU6YWRtaW4ifQ.MKF0dC5FdLuGXw8YijKiNfOyADephWZ6eOhvBzM7wHoxMr0cDlwPx6TIg0L9jm1mUhkA0zvSNdsiovzdDc1ODQ";

    const START_MS: u64 = 1_500_000_000_000;

    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn fill(&self, _bytes: &mut [u8]) -> Result<(), NoRandomnessError> {
            Ok(())
        }
    }

    fn certificates() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tls")
    }

    /// An issuer's address for its keys: over TLS, with a certificate of an authority of its own.
    struct Issuer {
        url: String,
        /// The keys it gives now; `None` makes it answer with an error.
        keys: Arc<Mutex<Option<&'static str>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Issuer {
        async fn start(keys: &'static str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://localhost:{}/jwks", listener.local_addr().unwrap().port());
            let chain = CertificateDer::from_pem_file(certificates().join("localhost.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(certificates().join("localhost.key")).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
                .unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let issuer = Self { url, keys: Arc::new(Mutex::new(Some(keys))), asked: Arc::default() };
            let (keys, asked) = (Arc::clone(&issuer.keys), Arc::clone(&issuer.asked));
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                    let mut request = [0; 4096];
                    let read = stream.read(&mut request).await.unwrap();
                    assert!(request.get(..read).unwrap().starts_with(b"GET /jwks HTTP/1.1\r\n"));
                    asked.fetch_add(1, Ordering::Relaxed);
                    let answer = match *keys.lock().unwrap() {
                        Some(keys) => {
                            let body = format!("{{\"keys\":[{keys}]}}");
                            format!(
                                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                                body.len()
                            )
                        }
                        None => {
                            "HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned()
                        }
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _closed = stream.shutdown().await;
                }
            });
            issuer
        }

        fn give(&self, keys: Option<&'static str>) {
            *self.keys.lock().unwrap() = keys;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }

        async fn doorkeeper(&self, ca: &str, clock: &Arc<Hands>) -> anyhow::Result<Doorkeeper> {
            let text = format!(
                "[agents.support]\noauth_subject = \"client-1\"\n[oauth]\nissuer = \"https://login.example.org\"\n\
                 audience = \"https://gate.example.org/mcp\"\njwks_url = \"{}\"\n{ca}",
                self.url
            );
            let config = Config::parse(&certificates().join("toolgate.toml"), &text).unwrap();
            Doorkeeper::new(&config, &[], Arc::clone(clock) as Arc<dyn Clock>).await
        }
    }

    fn clock() -> Arc<Hands> {
        Arc::new(Hands(AtomicU64::new(START_MS)))
    }

    #[tokio::test]
    async fn a_key_that_is_not_known_has_the_issuers_keys_fetched_anew_but_not_at_will() {
        let (issuer, clock) = (Issuer::start(EC).await, clock());
        let door = issuer.doorkeeper("ca_file = \"ca.pem\"", &clock).await.unwrap();
        assert_eq!(door.bearer(BY_EC).await.unwrap().id.as_str(), "support");
        assert_eq!(issuer.asked(), 1, "at the start");

        // The issuer has a new key. Whoever asks too early waits for it.
        issuer.give(Some(ED));
        clock.0.store(START_MS + 29_999, Ordering::Relaxed);
        assert_eq!(door.bearer(BY_ED).await, Err(IdentifyError::Invalid));
        assert_eq!(issuer.asked(), 1);
        clock.0.store(START_MS + 30_000, Ordering::Relaxed);
        assert_eq!(door.bearer(BY_ED).await.unwrap().id.as_str(), "support");
        assert_eq!(issuer.asked(), 2);

        // The old key is gone, and asking for it again and again fetches nothing.
        for _ in 0..10 {
            assert_eq!(door.bearer(BY_EC).await, Err(IdentifyError::Invalid));
        }
        assert_eq!(issuer.asked(), 2);
        // What is wrong in itself never fetches.
        clock.0.store(START_MS + 90_000, Ordering::Relaxed);
        assert_eq!(door.bearer(BY_ED.trim_end_matches("1ODQ")).await, Err(IdentifyError::Invalid));
        assert_eq!(issuer.asked(), 2);

        // An issuer that does not answer is no reason to let anybody in, nor to forget the keys there are.
        issuer.give(None);
        assert_eq!(door.bearer(BY_EC).await, Err(IdentifyError::Unavailable));
        assert_eq!(issuer.asked(), 3);
        assert!(door.bearer(BY_ED).await.is_ok());
    }

    #[tokio::test]
    async fn an_issuer_that_cannot_be_believed_keeps_the_gate_from_starting() {
        let issuer = Issuer::start(EC).await;
        for (ca, says) in [
            ("ca_file = \"other-ca.pem\"", "no secure connection"),
            // What the system believes does not have our authority in it, if it believes anything.
            ("", "no keys from"),
            ("ca_file = \"localhost.key\"", "no `BEGIN CERTIFICATE`"),
            ("ca_file = \"absent.pem\"", "could not read"),
        ] {
            let error = issuer.doorkeeper(ca, &clock()).await.err().unwrap();
            assert!(format!("{error:#}").contains(says), "{ca}: {error:#}");
        }
        assert_eq!(issuer.asked(), 0, "nothing was asked of it");
    }
}
