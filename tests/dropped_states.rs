//! What becomes of states that are not needed any more: they are the user's, and what their end does is
//! nobody else's trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{Schema, Snapshot};
use mainstay::error::CheckpointError;
use mainstay::fault::Fault;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Trap {
    armed: AtomicBool,
    sprung: AtomicU32,
    /// Asked once by the next state that is let go of.
    asked: Mutex<Option<Port<u64, u64>>>,
}

/// Panics when its last owner lets it go.
#[derive(Default, Serialize, Deserialize)]
struct Loud {
    sum: u64,
    #[serde(skip)]
    trap: Arc<Trap>,
}

impl Drop for Loud {
    fn drop(&mut self) {
        if let Some(port) = self.trap.asked.lock().take() {
            port.cast(0_u64).unwrap();
            self.trap.sprung.fetch_add(1, Ordering::SeqCst);
        }
        if self.trap.armed.load(Ordering::SeqCst) && !std::thread::panicking() {
            self.trap.sprung.fetch_add(1, Ordering::SeqCst);
            panic!("a state ends badly");
        }
    }
}

#[derive(Clone)]
struct Agent {
    state: Arc<Loud>,
    left: u64,
}

impl Behavior for Agent {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Agent {
    async fn step(&mut self, steps: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        if matches!(turn, Turn::First) {
            self.left = *steps;
        }
        let trap = Arc::clone(&self.state.trap);
        // Only the snapshot of the last step has the old one now.
        self.state = Arc::new(Loud { sum: self.state.sum + 1, trap });
        if self.left == 0 {
            return Ok(Step::Reply(self.state.sum));
        }
        self.left -= 1;
        Ok(Step::Continue)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1).with("state", Arc::clone(&self.state)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.state = snapshot.get("state")?;
        Ok(())
    }
}

async fn begin() -> (Arc<Trap>, System, Port<u64, u64>) {
    let trap = Arc::<Trap>::default();
    let first = Arc::clone(&trap);
    let made = move || {
        let state = Arc::new(Loud { sum: 0, trap: Arc::clone(&first) });
        Agent { state, left: 0 }
    };
    let tree = SupervisorSpec::one_for_one("top").child(ChildSpec::stateful("agent", made));
    let system = System::start(tree).await.unwrap();
    let port = system.port::<u64, u64>("top/agent").unwrap();
    (trap, system, port)
}

/// Under the lock it would wait for itself, for ever.
#[tokio::test(start_paused = true)]
async fn a_state_may_ask_its_own_child_when_it_is_let_go_of() {
    let (trap, system, port) = begin().await;
    for (sprung, steps) in (1..).zip([0_u64, 1, 4]) {
        *trap.asked.lock() = Some(port.clone());
        port.call(steps).await.unwrap();
        assert_eq!(trap.sprung.load(Ordering::SeqCst), sprung);
    }
    // One, and what it asked for; two steps, and the same; five.
    assert_eq!(port.call(0_u64).await.unwrap().value, 1 + 1 + 2 + 1 + 5 + 1 + 1);
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_whose_end_panics_costs_nobody_an_answer_or_a_life() {
    let (trap, system, port) = begin().await;
    assert_eq!(port.call(0_u64).await.unwrap().value, 1);
    trap.armed.store(true, Ordering::SeqCst);
    for (steps, sum) in [(0_u64, 2), (0, 3), (3, 7), (0, 8)] {
        let answer = port.call(steps).await.unwrap();
        assert_eq!((answer.value, answer.attempts), (sum, 1));
    }
    trap.armed.store(false, Ordering::SeqCst);
    assert_eq!(trap.sprung.load(Ordering::SeqCst), 7, "each state but the last");
    assert_eq!(system.stats().crashes, 0);
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
    system.stop().await;
}

/// Says that its states have a memory, and gives none.
#[derive(Clone)]
struct Forgetful;

impl Behavior for Forgetful {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Forgetful {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        Ok(Step::Reply(*request))
    }

    fn schema() -> Option<Schema> {
        Some(Schema::new("forgetful", 1).field::<u64>("memory"))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("forgetful", 1).with("context", Arc::new(7_u64)))
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), CheckpointError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_whose_states_are_not_what_its_schema_says_does_not_begin() {
    let spec = SupervisorSpec::one_for_one("desk");
    let spec = spec.child(ChildSpec::stateful("agent", || Forgetful));
    let error = System::start(spec).await.unwrap_err().to_string();
    assert!(error.contains("desk/agent") && error.contains("\"memory\""), "{error}");
}
