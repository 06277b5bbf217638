//! The stream of an HTTP/2 connection that a tunnel is on, with resets told from ends.
//!
//! The HTTP library hands over a stream as bytes, and loses a difference on the way: a client's
//! RST_STREAM with CANCEL reads like an end, and a stream that is let go of ends like one that is
//! finished. For a tunnel both would be a connection that looks complete and is not. The library
//! sends in a task that it starts on the executor it is given; so [`StreamExecutor`] keeps hold of
//! that task, for the tunnel to ask whether it still runs, or to end it.
//!
//! ```text
//!   end of what the client sends --> does the sending half still go on?
//!                                      |              |
//!                                      | yes          | no: the stream was reset
//!                                      v              v
//!                                    an end         an error
//! ```

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use hyper::{rt::Executor, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

tokio::task_local! {
    /// Of the stream whose task this is.
    static SENDING: Arc<Sending>;
}

/// Runs the streams of HTTP/2 connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamExecutor;

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        match SENDING.try_with(Arc::clone) {
            // All that a stream starts is the sending half of its tunnel.
            Ok(sending) => sending.start(future),
            Err(_) => drop(tokio::spawn(SENDING.scope(Arc::default(), future))),
        }
    }
}

/// The sending half of a tunnel.
#[derive(Debug, Default)]
pub(crate) struct Sending(OnceLock<Task>);

#[derive(Debug)]
struct Task {
    handle: AbortHandle,
    questions: mpsc::Sender<oneshot::Sender<()>>,
}

impl Sending {
    /// Of the stream whose task this is; `None` on HTTP/1.1.
    pub(crate) fn current() -> Option<Arc<Self>> {
        SENDING.try_with(Arc::clone).ok()
    }

    fn start(&self, future: impl Future<Output = ()> + Send + 'static) {
        let (questions, mut asked) = mpsc::channel::<oneshot::Sender<()>>(1);
        let task = tokio::spawn(async move {
            let mut future = std::pin::pin!(future);
            loop {
                tokio::select! {
                    // Before each answer it looks whether the stream was reset.
                    biased;
                    () = &mut future => return,
                    Some(asker) = asked.recv() => drop(asker.send(())),
                }
            }
        });
        let handle = task.abort_handle();
        if self.0.set(Task { handle, questions }).is_err() {
            task.abort();
        }
    }

    /// Ends it with RST_STREAM, unless it has ended.
    pub(crate) fn abort(&self) {
        if let Some(task) = self.0.get() {
            task.handle.abort();
        }
    }

    /// Whether it still runs.
    async fn is_running(self: Arc<Self>) -> bool {
        let Some(task) = self.0.get() else {
            return false;
        };
        let (asker, answer) = oneshot::channel();
        task.questions.send(asker).await.is_ok() && answer.await.is_ok()
    }
}

/// A client's end of a tunnel over HTTP/2.
pub(super) struct Stream {
    stream: TokioIo<Upgraded>,
    sending: Arc<Sending>,
    /// Everything has been sent: there is no half left to ask.
    finished: bool,
    question: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
}

impl Stream {
    pub(super) fn new(stream: Upgraded, sending: Arc<Sending>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            sending,
            finished: false,
            question: None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.question.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            if buffer.filled().len() > before || buffer.remaining() == 0 || this.finished {
                return Poll::Ready(Ok(()));
            }
        }
        let sending = Arc::clone(&this.sending);
        let question = this
            .question
            .get_or_insert_with(|| Box::pin(sending.is_running()));
        let running = ready!(question.as_mut().poll(cx));
        this.question = None;
        Poll::Ready(if running {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionReset.into())
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finished = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
