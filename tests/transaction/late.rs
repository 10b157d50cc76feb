//! Requests that end while a step of theirs still runs: within a transaction nothing of it counts, and there is
//! one fate.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mainstay::error::CallError;
use tokio::sync::Notify;

use super::*;

/// What was moved, and undone.
#[derive(Clone, Default)]
pub(super) struct Moves {
    pub(super) log: Arc<Mutex<Vec<String>>>,
    /// Undoing takes until it is told to end.
    pub(super) is_slow: Arc<AtomicBool>,
    pub(super) undoes: Arc<Notify>,
}

impl Behavior for Moves {
    type Request = String;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Moves {
    async fn serve(&self, what: &String, _: &Context) -> Result<u32, Fault> {
        if what.starts_with("undo") && self.is_slow.load(Ordering::SeqCst) {
            self.undoes.notified().await;
        }
        self.log.lock().push(what.clone());
        Ok(1)
    }
}

/// Moved, and then it fails.
const FAILS: u32 = 1_000;
/// Moved, and then something is done that cannot be undone.
const ONCE: u32 = 2_000;
/// Moved, and something more with it.
pub(super) const TWICE: u32 = 3_000;

/// Moves what it is asked, takes its time over that, and adds up. Asked for 0 it tells what it has moved.
#[derive(Clone)]
pub(super) struct Mover {
    moved: Arc<u32>,
    acts: bool,
    finishes: Arc<Notify>,
    plain: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
}

impl Behavior for Mover {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        let needs = Needs::none().needs::<Port<String, u32>>("moves");
        needs.needs::<Port<String, u32>>("helper").needs::<Port<String, u32>>("once")
    }
}

impl Stateful for Mover {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if *amount == 0 {
            return Ok(Step::Reply(*self.moved));
        }
        let moves = ctx.port::<String, u32>("moves")?;
        if self.acts && matches!(turn, Turn::First) {
            let undo = format!("undo {amount}");
            let act = moves.effect(format!("move {amount}")).undo(&moves, undo);
            let mut acts = vec![Call::from(act)];
            if *amount == TWICE {
                acts.push(Call::from(moves.effect("move more").undo(&moves, "undo more")));
            }
            return Ok(Step::Perform(acts));
        }
        if self.plain.load(Ordering::SeqCst) && matches!(turn, Turn::First) {
            let helper = ctx.port::<String, u32>("helper")?;
            self.moved = Arc::new(1);
            return Ok(Step::Perform(vec![helper.ask("help")]));
        }
        if *amount == FAILS {
            if matches!(turn, Turn::Performed(_)) {
                self.moved = Arc::new(*self.moved + amount);
                return Ok(Step::Continue);
            }
            return Err(Fault::business("it cannot be done"));
        }
        if *amount == ONCE && !matches!(turn, Turn::Again) && *self.moved == 0 {
            self.moved = Arc::new(ONCE);
            let once = ctx.port::<String, u32>("once")?;
            return Ok(Step::Perform(vec![Call::from(once.effect("once"))]));
        }
        self.finishes.notified().await;
        self.moved = Arc::new(*self.moved + amount);
        self.ended.fetch_add(1, Ordering::SeqCst);
        Ok(Step::Reply(*self.moved))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("mover", 1).with("moved", Arc::clone(&self.moved)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.moved = snapshot.get("moved")?;
        Ok(())
    }
}

pub(super) struct Run {
    pub(super) moves: Moves,
    pub(super) finishes: Arc<Notify>,
    ended: Arc<AtomicUsize>,
    plain: Arc<AtomicBool>,
    pub(super) store: Arc<dyn Store>,
}

impl Run {
    pub(super) fn new() -> Self {
        Self {
            moves: Moves::default(),
            finishes: Arc::default(),
            ended: Arc::default(),
            plain: Arc::default(),
            store: store(),
        }
    }

    pub(super) fn on(store: Arc<dyn Store>) -> Self {
        Self { store, ..Self::new() }
    }

    pub(super) fn mover(&self, acts: bool) -> ChildSpec {
        let mover = Mover {
            moved: Arc::default(),
            acts,
            finishes: Arc::clone(&self.finishes),
            plain: Arc::clone(&self.plain),
            ended: Arc::clone(&self.ended),
        };
        ChildSpec::stateful("mover", move || mover.clone())
    }

    /// Without the mover.
    pub(super) fn top(&self) -> SupervisorSpec {
        let (moves, helper) = (self.moves.clone(), Helper);
        SupervisorSpec::one_for_one("top")
            .child(ChildSpec::stateless("moves", move || moves.clone()).recorded::<Moves>())
            .child(ChildSpec::stateless("helper", move || helper.clone()))
            .child(ChildSpec::stateless("once", || Helper))
    }

    async fn open(&self, acts: bool, durable: bool) -> (System, Port<u32, u32>) {
        let mut mover = self.mover(acts);
        if durable {
            mover = mover.durable::<Mover>();
        }
        let spec = self.top().scope(Scope::Transaction).child(mover);
        let (system, _) = System::recover(spec, Arc::clone(&self.store)).await.unwrap();
        let port = system.port("top/mover").unwrap();
        (system, port)
    }
}

/// It declares nothing, so that it may have done anything.
#[derive(Clone)]
struct Helper;

impl Behavior for Helper {
    type Request = String;
    type Reply = u32;
}

impl Stateless for Helper {
    async fn serve(&self, _: &String, _: &Context) -> Result<u32, Fault> {
        std::future::pending().await
    }
}

#[test]
fn a_reply_that_comes_after_the_deadline_of_a_transaction_changes_nothing() {
    for (acts, durable) in [(true, true), (true, false), (false, true), (false, false)] {
        let run = Run::new();
        runtime().block_on(async {
            let (system, port) = run.open(acts, durable).await;
            let options = CallOptions::new().key("k").deadline(Duration::from_secs(2));
            let late = port.call_with(5_u32, options).await;
            assert!(matches!(late, Err(CallError::Expired { .. })), "{late:?}");
            run.finishes.notify_one();
            // Behind it, so that its step has ended.
            let told = port.call(0_u32).await.unwrap().value;
            assert_eq!(run.ended.load(Ordering::SeqCst), 1, "its step has ended");
            assert_eq!(told, 0, "acts {acts}, durable {durable}");
            let expected: &[&str] = if acts { &["move 5", "undo 5"] } else { &[] };
            assert_eq!(*run.moves.log.lock(), expected);
            assert_eq!(system.fates().expired, 1);
            if durable {
                let known = system.journaled("k");
                assert_eq!(known, Some(Journaled::Fated(Fate::Expired, None)));
            }
            // And it goes on from there.
            run.finishes.notify_one();
            assert_eq!(port.call(7_u32).await.unwrap().value, 7);
        });
        if durable {
            runtime().block_on(async {
                let (system, port) = run.open(acts, durable).await;
                assert_eq!(port.call(0_u32).await.unwrap().value, 7);
                let known = system.journaled("k");
                assert_eq!(known, Some(Journaled::Fated(Fate::Expired, None)));
            });
        }
    }
}

#[test]
fn who_leaves_while_nobody_knows_what_was_done_leaves_an_unknown_fate_and_no_answer() {
    let run = Run::new();
    run.plain.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, port) = run.open(false, true).await;
        let call = port.call_with(5_u32, CallOptions::new().key("k"));
        tokio::time::timeout(Duration::from_secs(2), call).await.unwrap_err();
        assert_eq!(port.call(0_u32).await.unwrap().value, 0, "the work of it is not half there");
        assert_eq!(system.journaled("k"), Some(Journaled::Fated(Fate::Unknown, None)));
        let fates = system.fates();
        assert_eq!((fates.unheard, fates.unknown), (0, 1), "{fates:?}");
    });
}

#[test]
fn a_deadline_within_a_rollback_leaves_nothing_of_the_request_in_the_state() {
    for durable in [true, false] {
        let run = Run::new();
        run.moves.is_slow.store(true, Ordering::SeqCst);
        runtime().block_on(async {
            let (system, port) = run.open(true, durable).await;
            let options = CallOptions::new().key("k").deadline(Duration::from_secs(2));
            let late = port.call_with(FAILS, options).await;
            assert!(matches!(late, Err(CallError::Expired { .. })), "{late:?}");
            run.moves.undoes.notify_one();
            assert_eq!(port.call(0_u32).await.unwrap().value, 0, "durable {durable}");
            assert_eq!(*run.moves.log.lock(), ["move 1000", "undo 1000"]);
            system.stop().await;
        });
        if durable {
            runtime().block_on(async {
                let (_system, port) = run.open(true, durable).await;
                assert_eq!(port.call(0_u32).await.unwrap().value, 0);
            });
        }
    }
}

#[test]
fn what_was_done_before_an_act_that_was_never_begun_is_undone() {
    let run = Run::new();
    runtime().block_on(async {
        let (system, port) = run.open(true, true).await;
        // Whoever is to act is busy, for ever.
        let once = system.port::<String, u32>("top/once").unwrap();
        once.cast("first").unwrap();
        let options = CallOptions::new().key("k").deadline(Duration::from_secs(2));
        port.call_with(ONCE, options).await.unwrap_err();
        assert_eq!(port.call(0_u32).await.unwrap().value, 0);
        settled(&system, "k").await;
        assert_eq!(*run.moves.log.lock(), ["move 2000", "undo 2000"]);
        assert_eq!(system.effects().counts().unknown, 0, "nothing of it is in doubt");
    });
}
