//! MCP over Streamable HTTP, on TCP and on Unix sockets, both eras at one endpoint.
//!
//! Which era a request is in, its body says: one whose `_meta` names a revision is of the modern era and stands for
//! itself; all others belong to a session that began with `initialize`. Whatever the headers say is checked against that.
//!
//! An answer is a stream of events, also where it is in one piece; only what has a status of its own is JSON.
//!
//! # Known limits
//! - Only streams of 2025-11-25 can be taken up again, and only while the session remembers them. Other answers that were
//!   lost are found by sending the same call again.
//! - A client that shuts down its writing half counts as one that has hung up.
#![expect(clippy::result_large_err, reason = "a response is moved once, whether it refuses or not")]

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request as HttpRequest, Response as HttpResponse, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use toolgate_core::call::Agent;
use toolgate_core::json::{Limits, ObjectWriter, Value, quote};

use super::guard::{self, Names, Shown};
use super::stream::{COMMENT, Events, HangUp, Outbox, Reply, Source, Told, Work, event, priming};
use crate::headers;
use crate::line::{Gone, MAX_QUEUED};
use crate::port::{Identify, IdentifyError};
use crate::replay::Speaker;
use crate::router::{self, Answered, Caller, Fault, Router, Status};
use crate::rpc::{self, Message, Notification, Request, Response};
use crate::session::Session;
use crate::version::Version;

/// What the agent shows to be let into its session (2025-11-25 and before).
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL: HeaderName = HeaderName::from_static(headers::PROTOCOL_VERSION);
const METHOD: HeaderName = HeaderName::from_static(headers::METHOD);
const NAME: HeaderName = HeaderName::from_static(headers::NAME);

/// Where clients look for the metadata of RFC 9728; the endpoint's path may follow.
const METADATA: &str = "/.well-known/oauth-protected-resource";

const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// How long an answer may be in coming before the client is told, by the head of a stream, that it will come. What comes
/// sooner goes out in one piece.
const PROMPT: Duration = Duration::from_millis(20);

/// The same in the modern era. The head of a stream says `200`, so an answer that has a status of its own (such as 400 for
/// a missing capability, which a server may say only after it was started) has to come before it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long connections may take to end when the gate shuts down.
const GRACE: Duration = Duration::from_secs(5);

/// The metadata of RFC 9728, where tokens of an authorization server are accepted.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// The identifier of this resource: the URL of the endpoint.
    pub resource: String,
    /// The authorization servers whose tokens are accepted.
    pub authorization_servers: Vec<String>,
    /// The scopes there are.
    pub scopes: Vec<String>,
}

/// How the front behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The path of the endpoint.
    pub path: String,
    /// The names and origins that are answered to.
    pub names: Names,
    /// How large a request's body may be, in bytes.
    pub max_body: usize,
    /// How long a request's head may take, also on a connection that was used before.
    pub head_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How many connections there may be.
    pub max_connections: usize,
    /// Set where tokens of an authorization server are accepted.
    pub oauth: Option<OAuth>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            path: "/mcp".to_owned(),
            names: Names::default(),
            max_body: 4 << 20,
            head_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(30),
            max_connections: 1024,
            oauth: None,
        }
    }
}

/// The front.
pub struct Front {
    router: Arc<Router>,
    identify: Arc<dyn Identify>,
    settings: Settings,
    connections: Arc<Semaphore>,
}

/// Who is at the other end of a connection, as far as the system knows.
#[derive(Debug, Clone, Copy)]
enum Peer {
    /// Anybody, on this machine or not.
    Tcp { local: bool },
    /// A process of this user.
    Unix { uid: Option<u32> },
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

enum Accepted {
    Tcp(TcpStream, bool),
    Unix(UnixStream, Option<u32>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are one write each; waiting to fill a packet would only delay them.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, address.ip().is_loopback()))
            }
            Self::Unix(listener) => {
                let (stream, _address) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                Ok(Accepted::Unix(stream, uid))
            }
        }
    }
}

impl Front {
    /// Puts the parts together.
    #[must_use]
    pub fn new(router: Arc<Router>, identify: Arc<dyn Identify>, settings: Settings) -> Arc<Self> {
        let connections = Arc::new(Semaphore::new(settings.max_connections));
        Arc::new(Self { router, identify, settings, connections })
    }

    /// Serves TCP until the router is shut down and the connections have ended.
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        self.serve(Listener::Tcp(listener)).await;
    }

    /// Serves a Unix socket until the router is shut down and the connections have ended.
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener) {
        self.serve(Listener::Unix(listener)).await;
    }

    async fn serve(self: Arc<Self>, listener: Listener) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            // INVARIANT: the semaphore is never closed. With no place free, connections wait in the system's queue.
            let place = tokio::select! {
                place = Arc::clone(&self.connections).acquire_owned() => place,
                () = self.router.stopped() => break,
            };
            let Ok(place) = place else {
                break;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.router.stopped() => break,
            };
            let front = Arc::clone(&self);
            match accepted {
                Ok(Accepted::Tcp(stream, local)) => {
                    connections.spawn(async move {
                        front.connection(stream, Peer::Tcp { local }).await;
                        drop(place);
                    });
                }
                Ok(Accepted::Unix(stream, uid)) => {
                    connections.spawn(async move {
                        front.connection(stream, Peer::Unix { uid }).await;
                        drop(place);
                    });
                }
                // One connection failed, or there are no descriptors: others may do better a moment later.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            while connections.try_join_next().is_some() {}
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        let _too_slow = tokio::time::timeout(GRACE, ended).await;
    }

    async fn connection<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self: Arc<Self>,
        io: T,
        peer: Peer,
    ) {
        let outbox = Arc::new(Outbox::default());
        let io = TokioIo::new(Told::new(io, Arc::clone(&outbox), Arc::clone(self.router.broker())));
        let service = hyper::service::service_fn(|request| {
            let (front, outbox) = (Arc::clone(&self), Arc::clone(&outbox));
            async move { Ok::<_, Infallible>(front.respond(request, peer, outbox).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.head_timeout)
            .max_buf_size(64 << 10)
            .serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            // How a connection ended matters to nobody: what was under way was told by its own means.
            _ended = &mut connection => {}
            () = self.router.stopped() => {
                connection.as_mut().graceful_shutdown();
                let _ended = tokio::time::timeout(GRACE, connection).await;
            }
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: HttpRequest<Incoming>,
        peer: Peer,
        outbox: Arc<Outbox>,
    ) -> HttpResponse<Reply> {
        match self.answer(request, peer, outbox).await {
            Ok(response) | Err(response) => response,
        }
    }

    /// The response; it does not matter on which side of the result it comes.
    async fn answer(
        self: Arc<Self>,
        request: HttpRequest<Incoming>,
        peer: Peer,
        outbox: Arc<Outbox>,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        let names = &self.settings.names;
        // Nobody rebinds the name of a Unix socket.
        if matches!(peer, Peer::Tcp { .. })
            && !names.host(headers, head.uri.authority().map(|authority| authority.as_str()))
        {
            return Err(plain(StatusCode::FORBIDDEN, "this host name is not served here"));
        }
        if !names.origin(headers) {
            return Err(plain(StatusCode::FORBIDDEN, "this origin may not send requests"));
        }
        if let Some(metadata) = self.metadata(head.uri.path()) {
            return if head.method == Method::GET { Ok(metadata) } else { Err(not_allowed("GET")) };
        }
        if head.uri.path() != self.settings.path {
            return Err(plain(StatusCode::NOT_FOUND, "there is nothing here"));
        }
        if !matches!(head.method, Method::DELETE | Method::GET | Method::POST) {
            return Err(not_allowed("POST"));
        }
        let moment = self.router.sessions().moment();
        let agent = self.identify(headers, peer).await?;
        match head.method {
            Method::GET => {
                let stream = self.listen(headers, &agent, outbox)?;
                self.still_in(moment, &agent)?;
                Ok(stream)
            }
            Method::DELETE => self.end_session(headers, &agent),
            _ => {
                if !guard::sends_json(headers) {
                    return Err(plain(
                        StatusCode::UNSUPPORTED_MEDIA_TYPE,
                        "send `Content-Type: application/json`",
                    ));
                }
                if !guard::accepts(headers, "application/json")
                    || !guard::accepts(headers, "text/event-stream")
                {
                    let why = "send `Accept: application/json, text/event-stream`";
                    return Err(plain(StatusCode::NOT_ACCEPTABLE, why));
                }
                let bytes = self.body(body).await?;
                self.post(headers, (agent, moment), bytes, outbox).await
            }
        }
    }

    fn metadata(&self, path: &str) -> Option<HttpResponse<Reply>> {
        let OAuth { resource, authorization_servers, scopes } = self.settings.oauth.as_ref()?;
        let rest = path.strip_prefix(METADATA)?;
        if !rest.is_empty() && rest != self.settings.path {
            return None;
        }
        let array = |items: &[String]| {
            format!("[{}]", items.iter().map(|item| quote(item)).collect::<Vec<_>>().join(","))
        };
        let mut writer = ObjectWriter::new()
            .string("resource", resource)
            .raw("authorization_servers", array(authorization_servers).as_bytes())
            .raw("bearer_methods_supported", br#"["header"]"#);
        if !scopes.is_empty() {
            writer = writer.raw("scopes_supported", array(scopes).as_bytes());
        }
        Some(json(StatusCode::OK, writer.finish()))
    }

    async fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Arc<Agent>, HttpResponse<Reply>> {
        let token = match guard::shown(headers) {
            Shown::Bearer(token) => token,
            Shown::Malformed => {
                return Err(self.challenge(StatusCode::UNAUTHORIZED, Some("invalid_token"), None));
            }
            Shown::Nothing => {
                let agent = match peer {
                    Peer::Unix { uid } => uid.and_then(|uid| self.identify.peer(uid)),
                    Peer::Tcp { local } => {
                        self.identify.anonymous().filter(|_| local && guard::is_direct(headers))
                    }
                };
                return agent.ok_or_else(|| self.challenge(StatusCode::UNAUTHORIZED, None, None));
            }
        };
        self.identify.bearer(token).await.map_err(|error| match error {
            IdentifyError::InsufficientScope { scope } => {
                self.challenge(StatusCode::FORBIDDEN, Some("insufficient_scope"), Some(&scope))
            }
            IdentifyError::Invalid => self.challenge(StatusCode::UNAUTHORIZED, Some("invalid_token"), None),
            IdentifyError::Unavailable => {
                plain(StatusCode::SERVICE_UNAVAILABLE, "the token cannot be checked now")
            }
        })
    }

    /// Makes sure that who was let in at that moment was not put out since: a body can be long in coming.
    fn still_in(&self, moment: u64, agent: &Agent) -> Result<(), HttpResponse<Reply>> {
        if self.router.sessions().was_put_out_since(moment, &agent.id) {
            return Err(self.challenge(StatusCode::UNAUTHORIZED, Some("invalid_token"), None));
        }
        Ok(())
    }

    /// Says what has to be shown, and where one gets it.
    fn challenge(&self, status: StatusCode, error: Option<&str>, scope: Option<&str>) -> HttpResponse<Reply> {
        let metadata = self.settings.oauth.as_ref().map(|oauth| {
            // The metadata lies at the root of the resource's host, and the resource's path follows.
            let root = oauth.resource.strip_suffix(self.settings.path.as_str()).unwrap_or(&oauth.resource);
            format!("{}{METADATA}{}", root.trim_end_matches('/'), self.settings.path)
        });
        let parts = [("error", error), ("scope", scope), ("resource_metadata", metadata.as_deref())];
        let parts: Vec<String> =
            parts.iter().filter_map(|(key, value)| value.map(|value| format!("{key}=\"{value}\""))).collect();
        let challenge = format!("Bearer {}", parts.join(", "));
        let mut response = plain(status, "show a bearer token of an agent: `Authorization: Bearer …`");
        let challenge =
            HeaderValue::from_str(challenge.trim_end()).unwrap_or(HeaderValue::from_static("Bearer"));
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        response
    }

    /// Reads the body, up to the limits.
    async fn body(&self, mut body: Incoming) -> Result<Bytes, HttpResponse<Reply>> {
        let max = self.settings.max_body;
        let too_large = || plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
        let announced = body.size_hint();
        if announced.lower() > max as u64 {
            return Err(too_large());
        }
        let read = async {
            let room = usize::try_from(announced.lower()).unwrap_or_default();
            let mut bytes = Vec::with_capacity(room.min(max));
            while let Some(frame) = body.frame().await {
                let frame = frame
                    .map_err(|_broken| plain(StatusCode::BAD_REQUEST, "the request did not arrive whole"))?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > max {
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(Bytes::from(bytes))
        };
        let late = |_elapsed| plain(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive");
        tokio::time::timeout(self.settings.body_timeout, read).await.map_err(late)?
    }

    /// What is made of a request, without a connection: the status, and the body if it is one message. For `fuzzing`.
    pub(crate) async fn posted(
        &self,
        headers: &HeaderMap,
        agent: Arc<Agent>,
        bytes: Bytes,
    ) -> (StatusCode, Option<Bytes>) {
        let moment = self.router.sessions().moment();
        let (Ok(response) | Err(response)) = self.post(headers, (agent, moment), bytes, Arc::default()).await;
        let (head, body) = response.into_parts();
        match body {
            Reply::Whole(bytes, _call) if is_json(&head.headers) => (head.status, Some(bytes)),
            Reply::Whole(..) | Reply::Events(_) => (head.status, None),
        }
    }

    async fn post(
        &self,
        headers: &HeaderMap,
        (agent, moment): (Arc<Agent>, u64),
        bytes: Bytes,
        outbox: Arc<Outbox>,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        let limits = Limits { max_bytes: self.settings.max_body, ..Limits::default() };
        match Message::parse(bytes, &limits) {
            Err(error) => Err(json(StatusCode::BAD_REQUEST, error.to_response())),
            Ok(Message::Notification(notification)) => self.notified(headers, &agent, &notification),
            Ok(Message::Request(request)) => self.request(headers, (agent, moment), request, outbox).await,
            Ok(Message::Response(Response { id, answer })) => {
                let session = self.session(headers, &agent)?;
                if let Some(id) = id {
                    // Whether somebody waits for it is not the sender's affair.
                    let _waited_for = session.asks.answered(&id, answer);
                }
                Ok(empty(StatusCode::ACCEPTED))
            }
        }
    }

    fn notified(
        &self,
        headers: &HeaderMap,
        agent: &Arc<Agent>,
        notification: &Notification,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        // The modern era has none over HTTP; closing the stream is what cancels there.
        if guard::only(headers, &PROTOCOL).and_then(Version::parse).is_some_and(Version::is_modern) {
            return Ok(empty(StatusCode::ACCEPTED));
        }
        let session = self.session(headers, agent)?;
        super::notified(&session, notification);
        Ok(empty(StatusCode::ACCEPTED))
    }

    async fn request(
        &self,
        headers: &HeaderMap,
        (agent, moment): (Arc<Agent>, u64),
        request: Request,
        outbox: Arc<Outbox>,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        let Some(entered) = self.router.enter(&agent).await else {
            let mut response = json(
                StatusCode::TOO_MANY_REQUESTS,
                rpc::error(
                    Some(&request.id),
                    router::REFUSED,
                    "too many requests of this agent are under way, or were refused; wait a little",
                    None,
                ),
            );
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return Err(response);
        };
        let gone = Arc::new(Gone::default());
        let (caller, running) = if self.is_modern(headers, &request) {
            (
                self.modern(headers, agent, &request)
                    .map_err(|fault| finished(&fault.to_answer(&request.id)))?,
                None,
            )
        } else if request.method == "initialize" {
            return self.initialize(headers, &agent, &request);
        } else {
            let Some(caller) = super::legacy(Arc::clone(&agent), self.session(headers, &agent)?) else {
                return Err(refused(&request, "send `initialize` first"));
            };
            let Some(running) = caller.session.begin(&request.id, Arc::clone(&gone)) else {
                return Err(refused(&request, "another request with this id is under way"));
            };
            (caller, Some(running))
        };
        self.still_in(moment, &caller.agent)?;
        // Hanging up cancels in the modern era; before it, it does not: that takes a notification.
        let hang_up = HangUp(caller.version.is_modern().then(|| Arc::clone(&gone)));
        let (session, version) = (Arc::clone(&caller.session), caller.version);
        let modern = version.is_modern();
        let (out, mut queue) = mpsc::channel(MAX_QUEUED);
        let line = Arc::new(caller.line(request.params.as_ref(), out, gone));
        let router = Arc::clone(&self.router);
        let mut work: Work = Box::pin(async move {
            let answered = router.answer(&caller, &request, line).await;
            drop((running, entered));
            Some(answered)
        });
        let first = tokio::select! {
            biased;
            () = tokio::time::sleep(if modern { PATIENCE } else { PROMPT }) => None,
            answered = &mut work => return Ok(whole(queue, answered, modern, outbox)),
            // Without the pattern, a line that is let go of before the answer is ready would count as a message.
            Some(first) = queue.recv() => Some(first),
        };
        if version != Version::V2025_11_25 {
            let mut begin = COMMENT.to_vec();
            event(&mut begin, &first.unwrap_or_default());
            return Ok(events(Events::new(Source::Work(work, queue), begin, outbox, hang_up)));
        }
        let (speaker, reading) = session.streams.begin();
        speaker.say(first.unwrap_or_default());
        // On a task of its own, for it outlives the connection.
        tokio::spawn(speak(speaker, work, queue));
        let begin = priming(&reading);
        Ok(events(Events::new(Source::Kept(reading), begin, outbox, hang_up)))
    }

    /// Whether a request is of the modern era: its body says so; or, where the body says nothing, its header.
    fn is_modern(&self, headers: &HeaderMap, request: &Request) -> bool {
        if router::claimed_version(request.params.as_ref()).is_some() {
            return true;
        }
        let header = guard::only(headers, &PROTOCOL).and_then(Version::parse).is_some_and(Version::is_modern);
        let only_there = matches!(request.method.as_str(), "server/discover" | "subscriptions/listen");
        (header && request.method != "initialize") || only_there
    }

    /// Checks all that a request of the modern era has to say, in its body and again in its headers.
    fn modern(&self, headers: &HeaderMap, agent: Arc<Agent>, request: &Request) -> Result<Caller, Fault> {
        let params = request.params.as_ref();
        // A revision nobody knows is told apart from headers that disagree only if both name it.
        if let Some(claimed) = router::claimed_version(params).and_then(|version| version.as_str()) {
            agree(headers, &PROTOCOL, claimed)?;
        }
        let router::Meta { version, client, log } = router::meta(params)?;
        agree(headers, &METHOD, &request.method)?;
        let root = params.map(|params| params.root());
        let named = match request.method.as_str() {
            "tools/call" | "prompts/get" => root.and_then(|root| root.get("name")),
            "resources/read" => root.and_then(|root| root.get("uri")),
            "tasks/cancel" | "tasks/get" | "tasks/update" => root.and_then(|root| root.get("taskId")),
            _ => None,
        };
        if let Some(name) = named.and_then(|name| name.as_str()) {
            agree(headers, &NAME, name)?;
            if request.method == "tools/call" {
                let arguments = root.and_then(|root| root.get("arguments"));
                self.mirrored(headers, &agent, name, arguments)?;
            }
        }
        let session = self.router.sessions().standing(&agent, self.router.now_ms());
        Ok(Caller { agent, session, version, client, log })
    }

    /// Checks the headers that repeat arguments. Those no tool declared are nobody's concern.
    fn mirrored(
        &self,
        headers: &HeaderMap,
        agent: &Arc<Agent>,
        name: &str,
        arguments: Option<Value<'_>>,
    ) -> Result<(), Fault> {
        let seen = self.router.seen(agent);
        let Some(tool) = seen.tool(name) else {
            return Ok(());
        };
        for param in &tool.headers {
            let Ok(header) = HeaderName::try_from(param.header.as_str()) else {
                continue;
            };
            let agrees = match (headers.contains_key(&header), guard::only(headers, &header), arguments) {
                (true, None, _) => false,
                (_, value, Some(arguments)) => param.agrees(value, arguments),
                (_, value, None) => value.is_none(),
            };
            if !agrees {
                return Err(Fault::headers(format!(
                    "Header mismatch: {} does not match the argument",
                    param.header
                )));
            }
        }
        Ok(())
    }

    /// The session that a request of the legacy era shows.
    fn session(&self, headers: &HeaderMap, agent: &Agent) -> Result<Arc<Session>, HttpResponse<Reply>> {
        let bad = |why| json(StatusCode::BAD_REQUEST, rpc::error(None, rpc::INVALID_REQUEST, why, None));
        if headers.contains_key(&PROTOCOL)
            && guard::only(headers, &PROTOCOL).and_then(Version::parse).is_none()
        {
            return Err(bad("Unsupported protocol version in `MCP-Protocol-Version`"));
        }
        if !headers.contains_key(&SESSION) {
            return Err(bad(
                "no session: send `initialize` first, then its `Mcp-Session-Id` with every request",
            ));
        }
        let shown = guard::only(headers, &SESSION);
        let session = shown.and_then(|id| self.router.sessions().find(id, agent, self.router.now_ms()));
        let unknown =
            || json(StatusCode::NOT_FOUND, rpc::error(None, rpc::INVALID_REQUEST, "Session not found", None));
        let session = session.ok_or_else(unknown)?;
        let agreed = session.agreed().map(|agreed| agreed.version);
        let said = guard::only(headers, &PROTOCOL).and_then(Version::parse);
        // It should be the revision that was agreed on, and clients that say another of this era get that one all the same;
        // but the modern era has no sessions.
        if said.is_some_and(Version::is_modern) && said != agreed {
            return Err(bad("`MCP-Protocol-Version` is not what `initialize` agreed on"));
        }
        Ok(session)
    }

    fn initialize(
        &self,
        headers: &HeaderMap,
        agent: &Arc<Agent>,
        request: &Request,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        if headers.contains_key(&PROTOCOL)
            && guard::only(headers, &PROTOCOL).and_then(Version::parse).is_none()
        {
            return Err(refused(request, "Unsupported protocol version in `MCP-Protocol-Version`"));
        }
        let (agreed, result) = match self.router.initialize(agent, request.params.as_ref()) {
            Ok(initialized) => initialized,
            Err(fault) => return Ok(json(StatusCode::OK, fault.to_answer(&request.id).message)),
        };
        let Ok((id, session)) = self.router.sessions().begin(agent, self.router.now_ms()) else {
            return Err(plain(StatusCode::SERVICE_UNAVAILABLE, "there are too many sessions"));
        };
        session.agree(agreed);
        let mut response = json(StatusCode::OK, rpc::result(&request.id, &result));
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(SESSION, id);
        }
        Ok(response)
    }

    /// The stream for what is told without being asked (2025-11-25 and before), or one that is taken up again.
    fn listen(
        &self,
        headers: &HeaderMap,
        agent: &Arc<Agent>,
        outbox: Arc<Outbox>,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        if !headers.contains_key(&SESSION) {
            return Err(not_allowed("POST"));
        }
        let session = self.session(headers, agent)?;
        if !guard::accepts(headers, "text/event-stream") {
            return Err(plain(StatusCode::NOT_ACCEPTABLE, "send `Accept: text/event-stream`"));
        }
        let Some(agreed) = session.agreed() else {
            return Err(not_allowed("POST"));
        };
        if headers.contains_key(&LAST_EVENT) {
            let reading = guard::only(headers, &LAST_EVENT).and_then(|id| session.streams.resume(id));
            let reading = reading.ok_or_else(|| {
                plain(StatusCode::BAD_REQUEST, "there is no stream of this `Last-Event-ID` to take up again")
            })?;
            return Ok(events(Events::new(Source::Kept(reading), COMMENT.to_vec(), outbox, HangUp(None))));
        }
        let gone = Arc::new(Gone::default());
        // A message must not go out on two streams: a new one takes the place of the one before.
        session.replace_stream(Arc::clone(&gone));
        let log = session.level();
        let caller =
            Caller { agent: Arc::clone(agent), session, version: agreed.version, client: agreed.client, log };
        let (out, queue) = mpsc::channel(MAX_QUEUED);
        let line = caller.line(None, out, Arc::clone(&gone));
        let router = Arc::clone(&self.router);
        let work: Work = Box::pin(async move {
            router.announce(&caller, &line).await;
            None
        });
        let source = Source::Work(work, queue);
        Ok(events(Events::new(source, COMMENT.to_vec(), outbox, HangUp(Some(gone)))))
    }

    fn end_session(
        &self,
        headers: &HeaderMap,
        agent: &Agent,
    ) -> Result<HttpResponse<Reply>, HttpResponse<Reply>> {
        let Some(id) = guard::only(headers, &SESSION) else {
            return Err(not_allowed("POST"));
        };
        if self.router.sessions().end(id, agent) {
            Ok(empty(StatusCode::NO_CONTENT))
        } else {
            Err(json(
                StatusCode::NOT_FOUND,
                rpc::error(None, rpc::INVALID_REQUEST, "Session not found", None),
            ))
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}

/// Checks that a header is there once and says what the body says.
fn agree(headers: &HeaderMap, name: &HeaderName, body: &str) -> Result<(), Fault> {
    let Some(value) = guard::only(headers, name) else {
        return Err(Fault::headers(format!(
            "Header mismatch: {name} has to be there, once, as visible text"
        )));
    };
    // Only names can have characters that need encoding.
    let agrees = if *name == NAME { headers::decode(value).as_deref() == Some(body) } else { value == body };
    agrees
        .then_some(())
        .ok_or_else(|| Fault::headers(format!("Header mismatch: {name} does not match the body")))
}

fn refused(request: &Request, why: &str) -> HttpResponse<Reply> {
    json(StatusCode::BAD_REQUEST, rpc::error(Some(&request.id), rpc::INVALID_REQUEST, why, None))
}

fn finished(answered: &Answered) -> HttpResponse<Reply> {
    json(status(answered.status), answered.message.clone())
}

const fn status(status: Status) -> StatusCode {
    match status {
        Status::BadRequest => StatusCode::BAD_REQUEST,
        Status::NotFound => StatusCode::NOT_FOUND,
        Status::Ok => StatusCode::OK,
    }
}

/// An answer in one piece, with what was said on the way to it. The legacy era says everything about a request in the body.
fn whole(
    mut queue: mpsc::Receiver<Bytes>,
    answered: Option<Answered>,
    modern: bool,
    outbox: Arc<Outbox>,
) -> HttpResponse<Reply> {
    let mut frame = Vec::new();
    while let Ok(message) = queue.try_recv() {
        event(&mut frame, &message);
    }
    let mut delivery = None;
    if let Some(Answered { message, call, status: said }) = answered {
        delivery = call.map(|call| (call, outbox));
        if modern && said != Status::Ok && frame.is_empty() {
            return typed(status(said), "application/json", Reply::Whole(message.into(), delivery));
        }
        event(&mut frame, &message);
    }
    typed(StatusCode::OK, "text/event-stream", Reply::Whole(frame.into(), delivery))
}

/// Says on a stream what is said in the course of some work, and then its answer.
async fn speak(speaker: Speaker, mut work: Work, mut queue: mpsc::Receiver<Bytes>) {
    let answered = loop {
        tokio::select! {
            biased;
            Some(message) = queue.recv() => speaker.say(message),
            answered = &mut work => break answered,
        }
    };
    while let Ok(message) = queue.try_recv() {
        speaker.say(message);
    }
    if let Some(answered) = answered {
        speaker.finish(answered);
    }
}

fn events(events: Events) -> HttpResponse<Reply> {
    let mut response = typed(StatusCode::OK, "text/event-stream", Reply::Events(Box::new(events)));
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> HttpResponse<Reply> {
    typed(status, "application/json", Reply::Whole(body.into(), None))
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse<Reply> {
    typed(status, "text/plain; charset=utf-8", Reply::Whole(Bytes::from_static(text.as_bytes()), None))
}

fn not_allowed(allowed: &'static str) -> HttpResponse<Reply> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn empty(status: StatusCode) -> HttpResponse<Reply> {
    let mut response = HttpResponse::new(Reply::Whole(Bytes::new(), None));
    *response.status_mut() = status;
    response
}

fn typed(status: StatusCode, kind: &'static str, body: Reply) -> HttpResponse<Reply> {
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
