//! What was done for a request by others who have failed, while it goes on itself: it is undone, whenever the process
//! ends meanwhile.

use std::collections::BTreeSet;

use super::*;

/// Does and undoes, once under each key.
#[derive(Clone, Default)]
struct Bank {
    seen: Arc<Mutex<BTreeSet<String>>>,
    log: Arc<Mutex<Vec<String>>>,
    /// Undoing takes until it is told to end.
    is_slow: Arc<AtomicBool>,
    undoes: Arc<Notify>,
}

impl Bank {
    /// How often this was done more than it was undone.
    fn stands(&self, what: u32) -> usize {
        let log = self.log.lock();
        let count = |word: &str| log.iter().filter(|it| **it == format!("{word} {what}")).count();
        count("do") - count("undo")
    }

    fn all_stands(&self) -> usize {
        (0..ACTS).map(|what| self.stands(what)).sum()
    }
}

impl Behavior for Bank {
    type Request = String;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Bank {
    async fn serve(&self, what: &String, ctx: &Context) -> Result<(), Fault> {
        if what.starts_with("undo") && self.is_slow.load(Ordering::SeqCst) {
            self.undoes.notified().await;
        }
        if self.seen.lock().insert(ctx.key()) {
            self.log.lock().push(what.clone());
        }
        Ok(())
    }
}

/// So many acts, and then it fails.
const ACTS: u32 = 3;

#[derive(Clone, Default)]
struct Worker(u32);

impl Behavior for Worker {
    type Request = ();
    type Reply = ();

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, ()>>("bank")
    }
}

impl Stateful for Worker {
    async fn step(&mut self, (): &(), turn: Turn, ctx: &Context) -> Result<Step<()>, Fault> {
        match &turn {
            Turn::Performed(performed) => {
                performed.get::<()>(0)?;
                self.0 += 1;
            }
            _ => self.0 = 0,
        }
        if self.0 == ACTS {
            return Err(Fault::business("it cannot be done"));
        }
        let bank = ctx.port::<String, ()>("bank")?;
        let act = bank.effect(format!("do {}", self.0)).undo(&bank, format!("undo {}", self.0));
        Ok(Step::Perform(vec![Call::from(act)]))
    }
}

/// Has the worker do it, under its own key.
#[derive(Clone)]
struct Helper;

impl Behavior for Helper {
    type Request = ();
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);

    fn needs() -> Needs {
        Needs::none().needs::<Port<(), ()>>("worker")
    }
}

impl Stateless for Helper {
    async fn serve(&self, (): &(), ctx: &Context) -> Result<(), Fault> {
        if ctx.undoes().is_some() {
            return ctx.undo_within().await;
        }
        let options = CallOptions::new().key(ctx.key());
        let done = ctx.port::<(), ()>("worker")?.call_with((), options).await;
        done.map(|answer| answer.value).map_err(Fault::from)
    }
}

/// Answers whatever comes of it.
#[derive(Clone)]
struct Asker;

impl Behavior for Asker {
    type Request = ();
    type Reply = bool;

    fn needs() -> Needs {
        Needs::none().needs::<Port<(), ()>>("helper")
    }
}

impl Stateful for Asker {
    async fn step(&mut self, (): &(), turn: Turn, ctx: &Context) -> Result<Step<bool>, Fault> {
        if let Turn::Performed(performed) = &turn {
            return Ok(Step::Reply(performed.get::<()>(0).is_ok()));
        }
        let helper = ctx.port::<(), ()>("helper")?;
        Ok(Step::Perform(vec![Call::from(helper.effect(()).undo(&helper, ()))]))
    }
}

async fn open(bank: &Bank, store: &Arc<dyn Store>) -> (System, Port<(), bool>) {
    let bank = bank.clone();
    let top = SupervisorSpec::one_for_one("top")
        .scope(Scope::Transaction)
        .child(ChildSpec::stateless("bank", move || bank.clone()).recorded::<Bank>())
        .child(ChildSpec::stateful("worker", Worker::default))
        .child(ChildSpec::stateless("helper", || Helper).recorded::<Helper>())
        .child(ChildSpec::stateful("asker", || Asker).durable::<Asker>());
    let (system, _) = System::recover(top, Arc::clone(store)).await.unwrap();
    let port = system.port("top/asker").unwrap();
    (system, port)
}

/// Asks, unless that was done before, and waits until there is nothing more to come; whether that was in time.
async fn ends(system: &System, port: &Port<(), bool>) -> bool {
    let mut events = system.events();
    let ends = async {
        if system.journaled("k").is_none() {
            let options = CallOptions::new().key("k");
            let answer = port.call_with((), options).await;
            assert!(answer.is_ok_and(|answer| !answer.value), "the worker fails");
        }
        let effects = system.effects();
        while matches!(system.journaled("k"), None | Some(Journaled::Open))
            || effects.counts().compensating > 0
            || !effects.owed().is_empty()
        {
            drop(tokio::time::timeout(Duration::from_secs(1), events.next()).await);
        }
    };
    tokio::time::timeout(Duration::from_secs(900), ends).await.is_ok()
}

#[test]
fn what_others_did_who_failed_is_undone_wherever_the_process_ends() {
    let (mut answered, mut unanswered) = (0, 0);
    for commits in 0..30 {
        for last in [false, true] {
            let (bank, store) = (Bank::default(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
            let dying: Arc<dyn Store> = Arc::new(Dying::new(&store, commits, last));
            runtime().block_on(async {
                let opens = tokio::time::timeout(Duration::from_secs(900), open(&bank, &dying));
                if let Ok((system, port)) = opens.await {
                    ends(&system, &port).await;
                }
            });
            let stood = bank.all_stands();
            runtime().block_on(async {
                let (system, port) = open(&bank, &store).await;
                if stood > 0 {
                    match system.journaled("k") {
                        Some(Journaled::Fated(..)) => answered += 1,
                        _ => unanswered += 1,
                    }
                }
                let what = || {
                    let (log, acts) = (bank.log.lock().clone(), system.effects().list());
                    format!("after {commits} commits, last: {last}: {log:?} {acts:?}")
                };
                assert!(ends(&system, &port).await, "{}", what());
                assert_eq!(bank.all_stands(), 0, "{}", what());
                assert!(bank.log.lock().len() as u32 >= 2 * ACTS, "{}", what());
                assert_eq!(system.effects().open(), [], "{}", what());
            });
        }
    }
    assert!(answered > 3 && unanswered > 3, "{answered} {unanswered}");
}

/// Also what is not begun with.
#[test]
fn what_is_still_to_be_undone_is_named_until_the_next_process_has_done_so() {
    let (bank, store) = (Bank::default(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    bank.is_slow.store(true, Ordering::SeqCst);
    let owed = |system: &System| -> Vec<u64> {
        system.effects().owed().iter().map(|effect| effect.step).collect()
    };
    runtime().block_on(async {
        let (system, port) = open(&bank, &store).await;
        assert!(!port.call_with((), CallOptions::new().key("k")).await.unwrap().value);
        let mut events = system.events();
        while system.effects().counts().compensating == 0 {
            events.next().await;
        }
        assert_eq!(owed(&system), [0, 1], "{:?}", system.effects().list());
        system.stop().await;
        assert_eq!(owed(&system), [0, 1], "{:?}", system.effects().list());
    });
    assert_eq!(bank.all_stands(), 3);
    bank.is_slow.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, port) = open(&bank, &store).await;
        assert!(ends(&system, &port).await);
        assert_eq!((owed(&system), bank.all_stands()), (vec![], 0));
    });
}

/// The same key may be used again: what is done then is not what was to be undone.
#[test]
fn what_is_done_anew_under_the_same_key_is_not_owed() {
    let (bank, store) = (Bank::default(), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    let ask = |amount: u32| {
        let (bank, store) = (bank.clone(), Arc::clone(&store));
        runtime().block_on(async move {
            let payer = ChildSpec::stateful("payer", Payer::default);
            let top = SupervisorSpec::one_for_one("top")
                .scope(Scope::Transaction)
                .child(ChildSpec::stateless("bank", move || bank.clone()).recorded::<Bank>())
                .child(payer);
            let (system, _) = System::recover(top, store).await.unwrap();
            let payer = system.port::<u32, ()>("top/payer").unwrap();
            let done = payer.call_with(amount, CallOptions::new().key("k")).await;
            system.stop().await;
            done.is_ok()
        })
    };
    assert!(!ask(1), "it fails, and is undone");
    assert_eq!(*bank.log.lock(), ["do 1", "undo 1"]);
    assert!(ask(2), "it has an answer");
    let log = ["do 1", "undo 1", "do 2"];
    assert_eq!(*bank.log.lock(), log);
    ask(0);
    assert_eq!(*bank.log.lock(), log, "the next process undoes nothing");
}

/// Not durable. Does what it is asked, if anything, and fails if that was odd.
#[derive(Clone, Default)]
struct Payer;

impl Behavior for Payer {
    type Request = u32;
    type Reply = ();

    fn needs() -> Needs {
        Worker::needs()
    }
}

impl Stateful for Payer {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<()>, Fault> {
        if *amount == 0 || *amount == 2 && matches!(turn, Turn::Performed(_)) {
            return Ok(Step::Reply(()));
        }
        if matches!(turn, Turn::Performed(_)) {
            return Err(Fault::business("it cannot be done"));
        }
        let bank = ctx.port::<String, ()>("bank")?;
        let act = bank.effect(format!("do {amount}")).undo(&bank, format!("undo {amount}"));
        Ok(Step::Perform(vec![Call::from(act)]))
    }
}
