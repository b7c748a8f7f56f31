//! One connection over Streamable HTTP: a POST for each message, answered with JSON or a stream of events.
//!
//! Only the operator's configured headers carry credentials; nothing an agent sent becomes a header but what the
//! specification mirrors from the body.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use toolgate_broker::outcome::Answer;
use toolgate_broker::port::BoxFuture;
use toolgate_core::json::Limits;

use super::client::{HttpClient, Leased};
use super::config::Bounds;
use super::link::{Event, Outgoing, SendFailure, outside_a_call, refusal_of};
use super::observe::{Oddity, UpstreamEventKind};
use super::sse::SseParser;
use super::told::Told;
use crate::headers;
use crate::rpc::{self, Message, Notification};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static(headers::PROTOCOL_VERSION);
const METHOD: HeaderName = HeaderName::from_static(headers::METHOD);
const NAME: HeaderName = HeaderName::from_static(headers::NAME);
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// How long the first call waits for a legacy server's own stream, so that nothing said on it from then on is missed.
const LISTEN_WAIT: Duration = Duration::from_millis(250);
/// How often a legacy server's stream is taken up again without anything new on it.
const MAX_RESUMES: u8 = 3;
/// How long is waited before it is, if the server does not say.
const RESUME_WAIT: Duration = Duration::from_secs(1);
/// However long the server says.
const MAX_RESUME_WAIT: Duration = Duration::from_secs(60);

/// How much of an unsuccessful answer is read.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// How many messages without an answer may be on their way at once.
const MAX_SIDE: usize = 16;
/// How many messages of the server's own stream may wait for one call to look at them.
const MAX_QUEUED: usize = 64;
/// How long the end of a stream is waited for after the answer, to use its connection again.
const LINGER: Duration = Duration::from_secs(1);

/// What was agreed on with the server.
#[derive(Debug, Clone)]
pub(super) struct Agreed {
    pub(super) modern: bool,
    pub(super) version: HeaderValue,
    pub(super) session: Option<HeaderValue>,
}

/// A connection over Streamable HTTP.
pub(super) struct HttpLink {
    client: Arc<HttpClient>,
    told: Arc<Told>,
    bounds: Bounds,
    next: AtomicU64,
    under_way: Arc<AtomicUsize>,
    /// The agents' calls under way, by number. Guards nothing else.
    calls: Mutex<BTreeMap<u64, mpsc::Sender<Notification>>>,
    agreed: OnceLock<Agreed>,
    ended: OnceLock<String>,
    /// Whether the server has answered to being listened to.
    listened: watch::Sender<bool>,
    side: Arc<Semaphore>,
}

/// A request that was sent, until it is answered or dropped. Dropping it closes its stream, which is how the modern
/// protocol cancels.
pub(super) struct HttpPending {
    link: Arc<HttpLink>,
    number: u64,
    call: bool,
    state: State,
    ready: VecDeque<Event>,
    /// What the server says on its own stream while this is the youngest call.
    aside: mpsc::Receiver<Notification>,
    /// The session that the answer to `initialize` opened.
    session: Option<HeaderValue>,
    /// How often the stream was taken up again since something new was on it; `None` before the first time.
    resumed: Option<u8>,
    _place: Place,
}

type Head = BoxFuture<'static, Result<(Response<Incoming>, Leased), SendFailure>>;

enum State {
    Head(Head),
    Json {
        body: Incoming,
        bytes: Vec<u8>,
        status: StatusCode,
        lease: Leased,
    },
    /// `fresh` says whether an event has come.
    Stream {
        body: Incoming,
        parser: SseParser,
        fresh: bool,
        lease: Leased,
    },
    Done,
}

impl HttpLink {
    pub(super) fn new(client: Arc<HttpClient>, told: Arc<Told>, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            client,
            told,
            bounds,
            next: AtomicU64::new(1),
            under_way: Arc::default(),
            calls: Mutex::default(),
            agreed: OnceLock::new(),
            ended: OnceLock::new(),
            listened: watch::channel(false).0,
            side: Arc::new(Semaphore::new(MAX_SIDE)),
        })
    }

    /// Notes what was agreed on; once.
    pub(super) fn agree(&self, agreed: Agreed) {
        drop(self.agreed.set(agreed));
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Sends a request. Nothing is on its way before [`HttpPending::next`] is first called.
    pub(super) fn start(self: &Arc<Self>, outgoing: Outgoing<'_>) -> Result<HttpPending, SendFailure> {
        if let Some(why) = self.ended() {
            return Err(SendFailure::NotSent(why.to_owned()));
        }
        let place = Place::take(&self.under_way, self.bounds.max_under_way)?;
        let Outgoing { number, method, params, name, mirrored, call } = outgoing;
        let mut request = self.post(rpc::request(&number.into(), method, Some(params)));
        let modern = self.agreed.get().is_none_or(|agreed| agreed.modern) && method != "initialize";
        if modern {
            self.mirror(request.headers_mut(), method, name, mirrored)?;
        }
        let head: Head = Box::pin(Arc::clone(&self.client).send(request));
        let (tell, aside) = mpsc::channel(MAX_QUEUED);
        if call && !modern {
            self.calls().insert(number, tell);
        }
        Ok(HttpPending {
            link: Arc::clone(self),
            number,
            call,
            state: State::Head(head),
            ready: VecDeque::new(),
            aside,
            session: None,
            resumed: None,
            _place: place,
        })
    }

    /// Repeats in headers what the body says, as the modern transport wants it.
    fn mirror(
        &self,
        to: &mut HeaderMap,
        method: &str,
        name: Option<&str>,
        mirrored: Vec<(String, String)>,
    ) -> Result<(), SendFailure> {
        let unfit = |what: &str| SendFailure::NotSent(format!("{what} cannot be put into an HTTP header"));
        if !to.contains_key(VERSION) {
            to.insert(VERSION, HeaderValue::from_static(super::peer::MODERN));
        }
        to.insert(METHOD, HeaderValue::from_str(method).map_err(|_invalid| unfit("the method"))?);
        if let Some(name) = name {
            let value =
                HeaderValue::from_str(&headers::encode(name)).map_err(|_invalid| unfit("the name"))?;
            to.insert(NAME, value);
        }
        for (name, value) in mirrored {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_invalid| unfit("the name of an argument"))?;
            // `ParamHeader::value` has encoded it.
            to.insert(name, HeaderValue::from_str(&value).map_err(|_invalid| unfit("an argument"))?);
        }
        Ok(())
    }

    fn post(&self, body: Vec<u8>) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::POST, Full::new(Bytes::from(body)));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        request
    }

    /// A request with what every one has: the host, the operator's headers, version and session.
    fn request(&self, method: Method, body: Full<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.client.server.target.clone();
        let to = request.headers_mut();
        to.insert(HOST, self.client.server.authority.clone());
        for (name, value) in &self.client.server.headers {
            to.append(name.clone(), value.clone());
        }
        if let Some(agreed) = self.agreed.get() {
            to.insert(VERSION, agreed.version.clone());
            if let Some(session) = &agreed.session {
                to.insert(SESSION, session.clone());
            }
        }
        request
    }

    /// Posts a message that is not answered.
    fn post_aside(self: &Arc<Self>, message: Vec<u8>) {
        let Ok(place) = Arc::clone(&self.side).try_acquire_owned() else {
            return self.fail("the server takes messages too slowly");
        };
        let (client, wait) = (Arc::clone(&self.client), self.bounds.write);
        let request = self.post(message);
        tokio::spawn(async move {
            let posting = async {
                if let Ok((response, lease)) = client.send(request).await
                    && forget(response.into_body()).await
                {
                    lease.back();
                }
            };
            drop(timeout(wait, posting).await);
            drop(place);
        });
    }

    pub(super) fn reply(self: &Arc<Self>, id: &rpc::Id, answer: &Answer) {
        self.post_aside(rpc::answer(id, answer));
    }

    pub(super) fn notify(self: &Arc<Self>, method: &str, params: Option<&[u8]>) {
        self.post_aside(rpc::notification(method, params));
    }

    /// Posts `notifications/initialized` and waits until the server has taken it.
    pub(super) async fn initialized(&self) -> Result<(), String> {
        let request = self.post(rpc::notification("notifications/initialized", None));
        let (response, lease) = match Arc::clone(&self.client).send(request).await {
            Ok(answered) => answered,
            Err(SendFailure::Lost(why) | SendFailure::NotSent(why)) => return Err(why),
        };
        let status = response.status();
        if forget(response.into_body()).await {
            lease.back();
        }
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("the server answered HTTP {status} to `notifications/initialized`"))
        }
    }

    /// Ends a connection that cannot go on.
    pub(super) fn fail(self: &Arc<Self>, why: &str) {
        self.end(Oddity::ConnectionLost, why);
    }

    /// Ends a connection that is not needed any more.
    pub(super) fn close(self: &Arc<Self>, why: &str) {
        self.end(Oddity::ConnectionClosed, why);
    }

    /// Ends the connection. A legacy session is closed at the server too; nobody waits for it.
    fn end(self: &Arc<Self>, what: Oddity, why: &str) {
        if self.ended.set(why.to_owned()).is_err() {
            return;
        }
        self.told.odd(what, why);
        self.told.announce(UpstreamEventKind::Gone);
        if self.agreed.get().is_some_and(|agreed| agreed.session.is_some()) {
            let (client, wait) = (Arc::clone(&self.client), self.bounds.grace);
            let request = self.request(Method::DELETE, Full::default());
            tokio::spawn(async move { drop(timeout(wait, client.send(request)).await) });
        }
    }

    /// Listens to what a legacy server says outside of calls, if it offers that; until the connection ends.
    pub(super) async fn listen_legacy(link: std::sync::Weak<Self>) {
        let mut wait = Duration::from_secs(1);
        loop {
            let Some(this) = link.upgrade().filter(|this| this.ended().is_none()) else { return };
            let mut request = this.request(Method::GET, Full::default());
            request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
            let answered = Arc::clone(&this.client).send(request).await;
            this.listened.send_replace(true);
            let limit = this.bounds.max_message_bytes;
            drop(this);
            match answered {
                Ok((response, _lease))
                    if response.status().is_success() && is(&response, "text/event-stream") =>
                {
                    wait = Duration::from_secs(1);
                    Self::read_aside(&link, response.into_body(), SseParser::new(limit)).await;
                }
                // 405 says that there is no such stream; anything else is no better.
                Ok(_) => return,
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(60));
        }
    }

    /// Until the server was asked for its own stream and has answered, or does not for too long.
    pub(super) async fn listening(&self) {
        let mut listened = self.listened.subscribe();
        drop(timeout(LISTEN_WAIT, listened.wait_for(|listened| *listened)).await);
    }

    async fn read_aside(link: &std::sync::Weak<Self>, mut body: Incoming, mut parser: SseParser) {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(this) = link.upgrade().filter(|this| this.ended().is_none()) else { return };
            let mut events = Vec::new();
            let data = frame.into_data().unwrap_or_default();
            if parser.push(&data, |event| events.push(event)).is_err() {
                return this.told.odd(Oddity::Malformed, "an event is too large");
            }
            for event in events {
                match Message::parse(Bytes::from(event), &this.limits()) {
                    Ok(Message::Notification(notice)) => {
                        if let Some(notice) = this.told.sort(notice) {
                            this.take_aside(notice);
                        }
                    }
                    Ok(Message::Request(request)) => this.refuse(&request),
                    Ok(Message::Response(_)) => {
                        this.told.odd(Oddity::StrayAnswer, "an answer outside of calls")
                    }
                    Err(_) => return this.told.odd(Oddity::Malformed, "an event that is no message"),
                }
            }
        }
    }

    /// Log messages carry no number, and some servers send them all on the stream of their own: the youngest call is the best
    /// guess, and all calls here are of one session. What else comes there belongs to no call.
    fn take_aside(&self, notice: Notification) {
        let youngest = self.calls().last_key_value().map(|(_, call)| call.clone());
        let taken = notice.method == "notifications/message"
            && youngest.is_some_and(|call| call.try_send(notice).is_ok());
        if !taken {
            self.told
                .odd(Oddity::DroppedNotice, "a notification that belongs to no call, or too many of them");
        }
    }

    fn calls(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<Notification>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request that is not asked in the course of a call.
    fn refuse(self: &Arc<Self>, request: &rpc::Request) {
        if request.method != "ping" {
            self.told.odd(Oddity::RefusedRequest, "a request that the server may not make now");
        }
        self.reply(&request.id, &refusal_of(request).unwrap_or_else(outside_a_call));
    }

    fn limits(&self) -> Limits {
        Limits { max_bytes: self.bounds.max_message_bytes, ..Limits::default() }
    }
}

impl Drop for HttpPending {
    fn drop(&mut self) {
        self.link.calls().remove(&self.number);
    }
}

impl HttpPending {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The session that the answer to `initialize` opened.
    pub(super) fn take_session(&mut self) -> Option<HeaderValue> {
        self.session.take()
    }

    /// What happens next. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return self.last_or(event);
            }
            let aside = &mut self.aside;
            match &mut self.state {
                State::Head(head) => tokio::select! {
                    biased;
                    Some(notice) = aside.recv() => return Event::Notice(notice),
                    answered = head => match answered {
                        Ok((response, lease)) if self.resumed.is_some() => self.resume(response, lease),
                        Ok((response, lease)) => self.begin(response, lease),
                        // That the stream could not be asked for does not mean that the request was not sent.
                        Err(SendFailure::Lost(why) | SendFailure::NotSent(why)) if self.resumed.is_some() => {
                            self.lost(why);
                        }
                        Err(failure) => self.ready.push_back(failure.into()),
                    },
                },
                State::Json { body, .. } => tokio::select! {
                    biased;
                    Some(notice) = aside.recv() => return Event::Notice(notice),
                    frame = body.frame() => self.take_json(frame),
                },
                State::Stream { body, .. } => tokio::select! {
                    biased;
                    Some(notice) = aside.recv() => return Event::Notice(notice),
                    frame = body.frame() => self.take_stream(frame),
                },
                State::Done => return Event::Lost("the request is over".to_owned()),
            }
        }
    }

    /// After the last event there is nothing to read any more, but a connection to give back.
    fn last_or(&mut self, event: Event) -> Event {
        match event {
            Event::Ask(_) | Event::Notice(_) => event,
            Event::Answer(_) | Event::Lost(_) | Event::NotSent(_) | Event::Status { .. } => {
                self.ready.clear();
                if let State::Stream { body, lease, .. } = std::mem::replace(&mut self.state, State::Done)
                    && matches!(event, Event::Answer(_))
                {
                    tokio::spawn(linger(body, lease));
                }
                event
            }
        }
    }

    fn lost(&mut self, why: impl Into<String>) {
        self.ready.push_back(Event::Lost(why.into()));
    }

    fn malformed(&mut self, why: String) {
        self.link.told.odd(Oddity::Malformed, &why);
        self.lost(why);
    }

    fn begin(&mut self, response: Response<Incoming>, lease: Leased) {
        let status = response.status();
        let max = self.link.bounds.max_message_bytes;
        if response.body().size_hint().lower() > max as u64 {
            return self.malformed(format!("the answer is larger than {max} bytes"));
        }
        if status == StatusCode::NOT_FOUND && self.link.agreed.get().is_some_and(|a| a.session.is_some()) {
            // The specification's way to say that the session is over. The next call opens another.
            self.link.fail("the server has ended the session");
        }
        if status.is_success() {
            self.session = response.headers().get(SESSION).filter(|s| is_session(s)).cloned();
        }
        if status.is_success() && is(&response, "text/event-stream") {
            let parser = SseParser::new(max);
            self.state = State::Stream { body: response.into_body(), parser, fresh: false, lease };
        } else if !status.is_success() || is(&response, "application/json") {
            self.state = State::Json { body: response.into_body(), bytes: Vec::new(), status, lease };
        } else if status == StatusCode::ACCEPTED {
            self.malformed("the server took the request and gave no answer".to_owned());
        } else {
            self.malformed("the answer is neither JSON nor a stream of events".to_owned());
        }
    }

    fn take_json(&mut self, frame: Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>) {
        let State::Json { bytes, status, .. } = &mut self.state else { return };
        let max = if status.is_success() { self.link.bounds.max_message_bytes } else { MAX_ERROR_BYTES };
        match frame {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if bytes.len().saturating_add(data.len()) > max {
                    return self.malformed(format!("the answer is larger than {max} bytes"));
                }
                bytes.extend_from_slice(&data);
            }
            Some(Err(error)) => self.lost(format!("the connection broke while the answer was read: {error}")),
            None => {
                let State::Json { bytes, status, lease, .. } =
                    std::mem::replace(&mut self.state, State::Done)
                else {
                    return;
                };
                lease.back();
                if status.is_success() {
                    self.take_message(bytes);
                } else {
                    self.take_failure(bytes, status);
                }
                if self.ready.is_empty() {
                    self.lost("the answer is to another request");
                }
            }
        }
    }

    fn take_failure(&mut self, bytes: Vec<u8>, status: StatusCode) {
        let number = Some(self.number);
        let error = match Message::parse(Bytes::from(bytes), &self.link.limits()) {
            Ok(Message::Response(rpc::Response { id, answer: Answer::Error(error) }))
                if id.is_none() || id.as_ref().and_then(rpc::Id::as_u64) == number =>
            {
                Some(error)
            }
            Ok(_) | Err(_) => None,
        };
        self.ready.push_back(Event::Status { code: status.as_u16(), error });
    }

    fn take_stream(&mut self, frame: Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>) {
        let State::Stream { parser, fresh, .. } = &mut self.state else { return };
        match frame {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                let mut events = Vec::new();
                if let Err(error) = parser.push(&data, |event| events.push(event)) {
                    return self.malformed(error.to_string());
                }
                *fresh |= !events.is_empty();
                events.into_iter().for_each(|event| self.take_message(event));
            }
            Some(Err(error)) => self.broke(format!("the stream broke: {error}")),
            None => self.broke("the stream ended without an answer".to_owned()),
        }
    }

    /// A stream is over without an answer. Legacy servers may mean it so: the client is to come back for the rest later.
    fn broke(&mut self, why: String) {
        let State::Stream { parser, fresh, .. } = &self.state else { return };
        let legacy = self.link.agreed.get().is_some_and(|agreed| !agreed.modern);
        let resumed = if *fresh { 0 } else { self.resumed.unwrap_or_default() };
        let last = HeaderValue::from_bytes(&parser.resume().last).ok().filter(|last| !last.is_empty());
        let Some(last) = last.filter(|_| legacy && resumed < MAX_RESUMES && self.link.ended().is_none())
        else {
            return self.lost(why);
        };
        let wait = parser.resume().retry_ms.map_or(RESUME_WAIT, Duration::from_millis).min(MAX_RESUME_WAIT);
        let mut request = self.link.request(Method::GET, Full::default());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        request.headers_mut().insert(LAST_EVENT, last);
        let client = Arc::clone(&self.link.client);
        self.resumed = Some(resumed + 1);
        self.state = State::Head(Box::pin(async move {
            tokio::time::sleep(wait).await;
            client.send(request).await
        }));
    }

    /// The stream goes on, or the server does not know it any more.
    fn resume(&mut self, response: Response<Incoming>, lease: Leased) {
        if response.status().is_success() && is(&response, "text/event-stream") {
            self.begin(response, lease);
        } else {
            self.lost("the stream ended without an answer, and could not be taken up again");
        }
    }

    fn take_message(&mut self, bytes: Vec<u8>) {
        match Message::parse(Bytes::from(bytes), &self.link.limits()) {
            Ok(Message::Notification(notice)) => {
                if let Some(notice) = self.link.told.sort(notice) {
                    self.ready.push_back(Event::Notice(notice));
                }
            }
            Ok(Message::Request(request)) => {
                let legacy = self.link.agreed.get().is_some_and(|agreed| !agreed.modern);
                if self.call && legacy && refusal_of(&request).is_none() {
                    self.ready.push_back(Event::Ask(request));
                } else {
                    self.link.refuse(&request);
                }
            }
            Ok(Message::Response(response)) => {
                if response.id.as_ref().and_then(rpc::Id::as_u64) == Some(self.number) {
                    self.ready.push_back(Event::Answer(response.answer));
                } else {
                    self.link.told.odd(Oddity::StrayAnswer, "an answer to another request");
                }
            }
            Err(error) => self.malformed(format!("the server sent what is no message: {error}")),
        }
    }
}

/// Reads a stream to its end after the answer, so that its connection can be used again; not for long.
async fn linger(body: Incoming, lease: Leased) {
    if timeout(LINGER, forget(body)).await == Ok(true) {
        lease.back();
    }
}

/// Reads and forgets what is not needed. Whether the end came before too much did.
async fn forget(mut body: Incoming) -> bool {
    let mut size = 0;
    loop {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => size += frame.into_data().map_or(0, |data| data.len()),
        }
        if size > MAX_ERROR_BYTES {
            return false;
        }
    }
}

/// Whether the answer says that it is of this media type.
pub(crate) fn is<B>(response: &Response<B>, media_type: &str) -> bool {
    are_of(response.headers(), media_type)
}

/// Whether headers are those of a message of this media type.
pub(crate) fn are_of(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

/// Session ids are visible ASCII; a huge one is not worth carrying.
fn is_session(value: &HeaderValue) -> bool {
    value.len() <= 1024 && !value.is_empty() && value.as_bytes().iter().all(|b| (0x21..=0x7e).contains(b))
}

/// A place among the requests under way: there are only so many.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>, max: usize) -> Result<Self, SendFailure> {
        let place = Self(Arc::clone(count));
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            return Err(SendFailure::NotSent("too many requests are under way".to_owned()));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
