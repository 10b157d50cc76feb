//! Tasks for attempts that wait, used again: to make one and take it down costs several times what it costs to
//! hand it the next attempt.
//!
//! *Invariant.* A task has one attempt at a time. One that is free holds nothing of anybody's, and ends with the
//! carrier that it was made for.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

/// So many are kept at most while they have nothing to do.
const KEPT: usize = 8;

pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of one carrier.
pub(super) struct Tasks(Arc<Free>);

/// Those that are free; `None` once the carrier has gone.
type Free = Mutex<Option<Vec<Arc<Seat>>>>;

/// What the next work of a task is handed over at.
#[derive(Default)]
struct Seat(Mutex<Given>);

#[derive(Default)]
struct Given {
    next: Option<Work>,
    over: bool,
    waker: Option<Waker>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    /// Runs this on a task that does nothing else meanwhile, which is spawned if none is free.
    pub(super) fn run(&self, work: Work, spawn: impl FnOnce(Work)) {
        let free = self.0.lock().as_mut().and_then(Vec::pop);
        match free {
            Some(seat) => seat.give(Some(work)),
            None => spawn(Box::pin(task(Arc::downgrade(&self.0), work))),
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let free = self.0.lock().take();
        for seat in free.into_iter().flatten() {
            seat.give(None);
        }
    }
}

async fn task(free: Weak<Free>, mut work: Work) {
    let seat = Arc::new(Seat::default());
    loop {
        work.await;
        let is_kept = free.upgrade().is_some_and(|free| {
            let mut free = free.lock();
            let room = free.as_mut().filter(|free| free.len() < KEPT);
            room.map(|free| free.push(Arc::clone(&seat))).is_some()
        });
        if !is_kept {
            return;
        }
        match seat.next().await {
            Some(next) => work = next,
            None => return,
        }
    }
}

impl Seat {
    /// `None` says that there will be no more.
    fn give(&self, work: Option<Work>) {
        let waker = {
            let mut given = self.0.lock();
            given.over = work.is_none();
            given.next = work;
            given.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn next(&self) -> Option<Work> {
        poll_fn(|task| {
            let mut given = self.0.lock();
            match given.next.take() {
                None if !given.over => {
                    given.waker = Some(task.waker().clone());
                    Poll::Pending
                }
                next => Poll::Ready(next),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;
    use tokio::sync::{mpsc, oneshot};
    use tokio::task;

    use super::*;

    fn run(tasks: &Tasks, work: impl Future<Output = ()> + Send + 'static) {
        tasks.run(Box::pin(work), |task| drop(tokio::spawn(task)));
    }

    #[tokio::test]
    async fn a_task_that_is_free_is_used_again_and_no_other_one() {
        let tasks = Tasks::new();
        let (tell, mut told) = mpsc::unbounded_channel();
        let (go_on, mut held) =
            (0..2).map(|_| oneshot::channel::<()>()).unzip::<_, _, Vec<_>, Vec<_>>();
        for held in held.drain(..) {
            let tell = tell.clone();
            run(&tasks, async move {
                let _ = tell.send(task::id());
                let _ = held.await;
            });
        }
        let (one, other) = (told.recv().await, told.recv().await);
        assert_ne!(one, other, "each attempt that waits has its own");
        drop(go_on);
        while tasks.0.lock().as_ref().is_none_or(|free| free.len() < 2) {
            task::yield_now().await;
        }
        for _ in 0..2 {
            let tell = tell.clone();
            run(&tasks, async move {
                let _ = tell.send(task::id());
            });
            let used = told.recv().await;
            assert!(used == one || used == other, "a new task was made");
        }
    }

    #[tokio::test]
    async fn tasks_end_with_their_carrier_and_no_more_are_kept_than_so_many() {
        let before = Handle::current().metrics().num_alive_tasks();
        let tasks = Tasks::new();
        let alive = || Handle::current().metrics().num_alive_tasks() - before;
        for _ in 0..2 * KEPT {
            run(&tasks, task::yield_now());
        }
        assert_eq!(alive(), 2 * KEPT);
        while alive() > KEPT {
            task::yield_now().await;
        }
        let (go_on, held) = oneshot::channel::<()>();
        run(&tasks, async move {
            let _ = held.await;
        });
        drop(tasks);
        while alive() > 1 {
            task::yield_now().await;
        }
        drop(go_on);
        while alive() > 0 {
            task::yield_now().await;
        }
    }
}
