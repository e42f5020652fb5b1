//! One connection: what it is at, how long it may be at that, and how it ends.
//!
//! hyper speaks HTTP; this is the watch beside it. hyper's own timer would cut the rest between two
//! requests as short as the arrival of a request's head, has nothing against a client that does not
//! take its answer, and lets a connection go while the client is still sending, which then reports a
//! broken connection instead of the answer.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{ConnectInfo, Request},
    http::Version,
    response::Response,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use super::{deadlines::Deadlines, edge};

/// Headers of one request. Beyond that hyper answers 431 itself, without a body; well below it
/// [`edge`] does, with one.
const HARD_MAX_HEADERS: usize = 256;
/// A request's head in bytes, likewise; and what is buffered of a body before it is read.
const HARD_MAX_HEAD_BYTES: usize = 64 * 1024;
/// Requests that are under way at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// What HTTP/2 clients may send ahead of being read, on one connection.
const WINDOW_BYTES: u32 = 256 * 1024;

/// How HTTP is spoken: versions 1 and 2, the latter without TLS by its preface.
pub(super) fn protocol() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The watch does it.
        .header_read_timeout(None)
        .max_headers(HARD_MAX_HEADERS)
        .max_buf_size(HARD_MAX_HEAD_BYTES);
    builder
        .http2()
        .max_header_list_size(HARD_MAX_HEAD_BYTES as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    builder
}

/// What a connection is at, as its watch and the server see it.
pub(super) struct Pulse {
    state: Mutex<State>,
    deadlines: Deadlines,
    /// Ends the connection: what is under way is answered, and nothing more is taken.
    pub(super) closing: CancellationToken,
}

struct State {
    /// Requests whose answer is not handed over whole.
    requests: usize,
    /// Since when there are none.
    quiet_since: Instant,
    /// Since when a request's head is awaited.
    head_since: Option<Instant>,
    /// Whether any of that head has arrived.
    head_began: bool,
    /// Since when the client takes nothing of what is written.
    stalled_since: Option<Instant>,
    /// Between requests an HTTP/2 client sends what begins no head.
    is_http2: bool,
    /// What is left of the connection once hyper is done with it.
    left: Option<TcpStream>,
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// A request's head did not arrive in time.
    SlowHead,
    /// It rested too long, took nothing for too long, or is to make room.
    Silent,
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a client takes is on the machine's clock"
)]
fn now() -> Instant {
    Instant::now()
}

impl Pulse {
    /// The pulse of a connection that was just accepted.
    pub(super) fn new(deadlines: Deadlines, closing: CancellationToken) -> Arc<Self> {
        let now = now();
        let state = State {
            requests: 0,
            quiet_since: now,
            head_since: Some(now),
            head_began: false,
            stalled_since: None,
            is_http2: false,
            left: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            deadlines,
            closing,
        })
    }

    /// Since when no request is under way; `None` where one is.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.requests == 0).then_some(state.quiet_since)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request until the guard is dropped.
    fn begin(self: &Arc<Self>, version: Version) -> UnderWay {
        let mut state = self.state();
        state.requests += 1;
        state.head_since = None;
        state.head_began = false;
        state.is_http2 |= version == Version::HTTP_2;
        UnderWay(Arc::clone(self))
    }

    fn took_in(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.requests > 0 || bytes.is_empty() {
            return;
        }
        // How HTTP/2 begins: <https://www.rfc-editor.org/rfc/rfc9113#section-3.4>
        state.is_http2 |= !state.head_began && bytes.starts_with(b"PRI");
        state.head_began = true;
        if state.head_since.is_none() && !state.is_http2 {
            state.head_since = Some(now());
        }
    }

    fn gave_out(&self, blocked: bool) {
        let mut state = self.state();
        match (blocked, state.stalled_since) {
            (true, None) => state.stalled_since = Some(now()),
            (true, Some(_)) => {}
            (false, _) => state.stalled_since = None,
        }
    }

    /// When the connection is to be looked at, unless something happens before.
    fn due(&self) -> Instant {
        let state = self.state();
        if let Some(since) = state.stalled_since {
            return since + self.deadlines.stall;
        }
        match state.head_since {
            // Its own deadlines end a request; the connection is only looked at again.
            _ if state.requests > 0 => now() + self.deadlines.rest,
            Some(since) => since + self.deadlines.head,
            None => state.quiet_since + self.deadlines.rest,
        }
    }

    /// Whether the connection has to be cut, and why.
    fn cut(&self) -> Option<Cut> {
        let Deadlines {
            head, rest, stall, ..
        } = self.deadlines;
        let now = now();
        let state = self.state();
        if let Some(since) = state.stalled_since {
            return (now >= since + stall).then_some(Cut::Silent);
        }
        if state.requests > 0 {
            return None;
        }
        if self.closing.is_cancelled() {
            return Some(Cut::Silent);
        }
        match state.head_since {
            Some(since) if now < since + head => None,
            Some(_) if state.head_began && !state.is_http2 => Some(Cut::SlowHead),
            Some(_) => Some(Cut::Silent),
            None => (now >= state.quiet_since + rest).then_some(Cut::Silent),
        }
    }
}

/// A request until its answer is handed over whole, or given up.
struct UnderWay(Arc<Pulse>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        if state.requests == 0 {
            state.quiet_since = now();
        }
    }
}

/// Speaks HTTP on a connection until either side is done.
pub(super) async fn converse<S>(
    stream: TcpStream,
    peer: SocketAddr,
    builder: &Builder<TokioExecutor>,
    service: S,
    pulse: &Arc<Pulse>,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let io = Watched {
        stream: Some(stream),
        pulse: Arc::clone(pulse),
    };
    let serving = Arc::clone(pulse);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let under_way = serving.begin(request.version());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = service.clone().oneshot(request);
        async move {
            let response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _under_way: under_way,
            }))
        }
    });
    let cut = watch(builder, TokioIo::new(io), service, pulse).await;
    let left = pulse.state().left.take();
    let Some(mut stream) = left else { return };
    if cut == Some(Cut::SlowHead) {
        let answer = edge::slow_head_answer();
        // The client may be gone; then nobody misses the answer.
        let _ = timeout(pulse.deadlines.linger, stream.write_all(answer.as_bytes())).await;
    }
    if cut != Some(Cut::Silent) {
        linger(stream, pulse).await;
    }
}

/// Lets hyper work, and says why it was stopped, if it was.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a client takes is on the machine's clock"
)]
async fn watch<S, F>(
    builder: &Builder<TokioExecutor>,
    io: TokioIo<Watched>,
    service: S,
    pulse: &Pulse,
) -> Option<Cut>
where
    S: hyper::service::Service<
            hyper::Request<Incoming>,
            Response = hyper::Response<Answer>,
            Error = Infallible,
            Future = F,
        >,
    F: Future<Output = Result<hyper::Response<Answer>, Infallible>> + Send + 'static,
{
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut closing = pin!(pulse.closing.cancelled());
    let mut is_told = false;
    let mut look = pin!(tokio::time::sleep_until(pulse.due()));
    std::future::poll_fn(|context| {
        if !is_told && closing.as_mut().poll(context).is_ready() {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            if let Err(error) = ended {
                tracing::debug!(error = %error, "a connection broke off");
            }
            return Poll::Ready(None);
        }
        if let Some(cut) = pulse.cut() {
            return Poll::Ready(Some(cut));
        }
        look.as_mut().reset(pulse.due());
        while look.as_mut().poll(context).is_ready() {
            if let Some(cut) = pulse.cut() {
                return Poll::Ready(Some(cut));
            }
            look.as_mut().reset(pulse.due());
        }
        Poll::Pending
    })
    .await
}

/// Says that nothing more comes, and hears the client out.
async fn linger(mut stream: TcpStream, pulse: &Pulse) {
    let hear_out = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut thrown_away = vec![0; 16 * 1024];
        while matches!(stream.read(&mut thrown_away).await, Ok(1..)) {}
    };
    tokio::select! {
        _ = timeout(pulse.deadlines.linger, hear_out) => {}
        () = pulse.closing.cancelled() => {}
    }
}

/// The client's bytes, with a note of each in the pulse. Dropped, it leaves the stream there.
struct Watched {
    stream: Option<TcpStream>,
    pulse: Arc<Pulse>,
}

impl Watched {
    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.stream.as_mut().map(Pin::new).ok_or_else(gone)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.pulse.state().left = self.stream.take();
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.stream()?.poll_read(context, buffer);
        self.pulse.took_in(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream()?.poll_write(context, bytes);
        self.pulse.gave_out(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream()?.poll_write_vectored(context, slices);
        self.pulse.gave_out(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(context)
    }
}

/// An answer's body; while it is there, its request is under way.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
