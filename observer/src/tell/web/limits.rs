//! What strangers may cost: how many are answered at a time, how much is kept ready for those who read slowly, and
//! how long one may take.
//!
//! A request counts until the last byte of its answer has left for the kernel, not until the answer is made: a permit
//! travels inside the bytes. Who reads too slowly is cut off ([`Patient`]).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep};

use super::refusal::refusal;

/// Answers made and not yet read by those who asked, all together.
const MOST_KEPT_KIB: u32 = 64 * 1024;
/// Streams that stay open (a page that follows), beside the requests.
const STREAMS: usize = 64;
/// For the reader of one answer to be waited for, in sum.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Shared by all requests of a server.
pub(crate) struct Limits {
    requests: Option<Arc<Semaphore>>,
    most_requests: usize,
    streams: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Limits {
    /// `requests` 0 is no limit, as `--web.max-requests` has it elsewhere.
    pub(crate) fn new(requests: usize, stop: watch::Receiver<bool>) -> Self {
        let most_requests = requests.min(Semaphore::MAX_PERMITS);
        Self {
            requests: (requests > 0).then(|| Arc::new(Semaphore::new(most_requests))),
            most_requests,
            streams: Arc::new(Semaphore::new(STREAMS)),
            kept: Arc::new(Semaphore::new(MOST_KEPT_KIB as usize)),
            stop,
        }
    }
}

/// Answers as long as the limits allow.
pub(crate) async fn bounded(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if request.body().size_hint().exact() != Some(0) {
        let mut answer =
            refusal(&path, StatusCode::PAYLOAD_TOO_LARGE, "a request with a body is not read here");
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    let permit = match &limits.requests {
        None => None,
        Some(requests) => match Arc::clone(requests).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let most = limits.most_requests;
                return busy(&path, &format!("{most} requests are being answered (--web.max-requests)"));
            }
        },
    };
    let answer = next.run(request).await;
    if is_stream(&answer) {
        // It stays for as long as somebody looks: it must not take the place of scrapes, and ends when we do.
        let Ok(permit) = Arc::clone(&limits.streams).try_acquire_owned() else {
            return busy(&path, &format!("{STREAMS} pages are being followed"));
        };
        let mut stop = limits.stop.clone();
        let stopped = Box::pin(async move {
            // Whoever could stop us being gone is a stop too.
            let _ = stop.wait_for(|stop| *stop).await;
        });
        return answer.map(|inner| {
            Body::new(Held { inner, permits: Arc::new([Some(permit), None]), stopped: Some(stopped) })
        });
    }
    let kib = HttpBody::size_hint(answer.body()).lower().div_ceil(1024);
    let kib = u32::try_from(kib).unwrap_or(u32::MAX).min(MOST_KEPT_KIB);
    let Ok(kept) = Arc::clone(&limits.kept).try_acquire_many_owned(kib) else {
        return busy(&path, "too many large answers wait for their readers");
    };
    answer.map(|inner| Body::new(Held { inner, permits: Arc::new([permit, Some(kept)]), stopped: None }))
}

fn busy(path: &str, why: &str) -> Response {
    let mut answer =
        refusal(path, StatusCode::SERVICE_UNAVAILABLE, &format!("too busy: {why}; try again in a moment"));
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn is_stream(answer: &Response) -> bool {
    answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer that holds permits until all of its bytes are gone.
struct Held {
    inner: Body,
    permits: Arc<[Option<OwnedSemaphorePermit>; 2]>,
    stopped: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A piece of it.
struct HeldBytes {
    bytes: Bytes,
    _permits: Arc<[Option<OwnedSemaphorePermit>; 2]>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(stopped) = &mut self.stopped
            && stopped.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let permits = &self.permits;
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|bytes| Bytes::from_owner(HeldBytes { bytes, _permits: Arc::clone(permits) }))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.inner)
    }
}

/// A connection whose peer has only so much time in all to take each answer; a new request begins it anew.
pub(crate) struct Patient<S> {
    inner: S,
    left: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<S> Patient<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, left: PATIENCE, waiting: None }
    }

    fn account<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            if let Some((since, _)) = self.waiting.take() {
                self.left = self.left.saturating_sub(since.elapsed());
            }
            return poll;
        }
        let left = self.left;
        let (_, timer) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads too slowly")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(context, into));
        if into.filled().len() > before && self.waiting.is_none() {
            self.left = PATIENCE;
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.account(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.account(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.account(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.account(context, poll)
    }
}
