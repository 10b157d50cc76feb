//! Gives the complaints to the desk, as many at a time as there are agents, and keeps what came of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mainstay::port::{CallOptions, Port};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::flows::{Ask, Reply};
use crate::input::Complaint;

/// What came of one complaint, as its caller saw it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Its place in the input.
    pub(crate) index: usize,
    pub(crate) took: Duration,
    /// The answer, and whether it is a default value; or why there is none.
    pub(crate) answer: Result<(String, bool), String>,
}

/// The work in progress. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    complaints: Arc<[Complaint]>,
    next: Arc<AtomicUsize>,
    called_off: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Work {
    pub(crate) fn new(complaints: Arc<[Complaint]>) -> Self {
        Self {
            complaints,
            next: Arc::default(),
            called_off: Arc::default(),
            outcomes: Arc::default(),
        }
    }

    /// Starts so many callers; each takes the next complaint when it has an answer.
    pub(crate) fn start(
        &self,
        desk: &Port<Ask, Reply>,
        callers: u16,
        deadline: Duration,
    ) -> JoinSet<()> {
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (work, desk) = (self.clone(), desk.clone());
            set.spawn(async move { work.call(&desk, deadline).await });
        }
        set
    }

    async fn call(&self, desk: &Port<Ask, Reply>, deadline: Duration) {
        while !self.called_off.load(Ordering::SeqCst) {
            let index = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(complaint) = self.complaints.get(index) else { break };
            let ask = Ask { id: complaint.id.clone(), text: complaint.text.clone() };
            // The id is the key: whatever is done for a complaint, however often, is done once.
            let options = CallOptions::new().key(complaint.id.clone()).deadline(deadline);
            let start = Instant::now();
            let answer = desk
                .call_with(ask, options)
                .await
                .map(|answer| (answer.value.text, answer.defaulted))
                .map_err(|error| error.to_string());
            self.outcomes.lock().push(Outcome { index, took: start.elapsed(), answer });
        }
    }

    /// No complaint is taken from now on.
    pub(crate) fn call_off(&self) {
        self.called_off.store(true, Ordering::SeqCst);
    }

    pub(crate) fn total(&self) -> usize {
        self.complaints.len()
    }

    pub(crate) fn ended(&self) -> usize {
        self.outcomes.lock().len()
    }

    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        self.outcomes.lock().clone()
    }

    /// The complaint that was answered last, with its answer.
    pub(crate) fn last(&self) -> Option<(Complaint, String)> {
        let outcomes = self.outcomes.lock();
        let answered = |outcome: &Outcome| {
            let (text, _) = outcome.answer.as_ref().ok()?;
            Some((self.complaints[outcome.index].clone(), text.clone()))
        };
        outcomes.iter().rev().find_map(answered)
    }
}
