//! Work that goes on when nobody waits for it any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::port::BoxFuture;

/// A future that comes to its end even if it is dropped: what is left of it then goes on as a task. Until it is dropped, whoever
/// waits for it runs it, which spares a task, and the wakeups of other threads with it, for each call.
/// It has to be dropped where a tokio runtime is, or what is left is dropped with it.
pub struct Unstoppable<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Unstoppable<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<T: Send + 'static> Future for Unstoppable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.0 else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Unstoppable<T> {
    fn drop(&mut self) {
        // What panicked is not run again; its intent becomes `outcome_unknown` at the next start.
        if let Some(work) = self.0.take()
            && !std::thread::panicking()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_goes_on_to_its_end() {
        let (begin, begun) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut work = Unstoppable::new(async move {
            begun.await.unwrap();
            end.send(7).unwrap();
        });
        // Once under way, once not even begun: both go on.
        tokio::select! {
            biased;
            () = &mut work => panic!("it waits"),
            () = std::future::ready(()) => drop(work),
        }
        begin.send(()).unwrap();
        assert_eq!(ended.await, Ok(7));

        let (end, ended) = oneshot::channel();
        drop(Unstoppable::new(async move { end.send(8).unwrap() }));
        assert_eq!(ended.await, Ok(8));
    }
}
