//! Who undoes stands in the scope that returns: a durable, stateful child beside the one whose act it undoes.
//! It has returned, too, and does it all the same.

use std::sync::atomic::AtomicI64;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Deal {
    Debit,
    Refund,
    Show,
}

/// What is there beside the tree.
#[derive(Default)]
struct Town {
    /// Who has paid waits; or fails, so often.
    waits: AtomicBool,
    fails: AtomicU32,
    /// Refunds hang.
    hangs: AtomicBool,
    /// What is paid, for each request once.
    seen: Mutex<BTreeSet<String>>,
    paid: AtomicI64,
    /// Debits wait for it, if there is one.
    slow: Mutex<Option<Arc<Notify>>>,
    arrived: Notify,
    go: Notify,
    told: Mutex<Vec<(usize, usize, usize)>>,
}

#[derive(Clone)]
struct Account {
    served: Arc<u32>,
    town: Arc<Town>,
}

impl Behavior for Account {
    type Request = Deal;
    type Reply = i64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateful for Account {
    async fn step(&mut self, deal: &Deal, _: Turn, ctx: &Context) -> Result<Step<i64>, Fault> {
        let by = match deal {
            Deal::Debit => {
                let slow = self.town.slow.lock().clone();
                if let Some(slow) = slow {
                    self.town.arrived.notify_one();
                    slow.notified().await;
                }
                1
            }
            Deal::Refund => {
                if self.town.hangs.load(Ordering::SeqCst) {
                    self.town.go.notified().await;
                }
                -1
            }
            Deal::Show => 0,
        };
        // What has not been paid is not given back.
        let mut seen = self.town.seen.lock();
        let key = ctx.key();
        let is_owed = key.strip_prefix("undo-").is_none_or(|paid| seen.contains(paid));
        if seen.insert(key.clone()) && is_owed {
            self.town.paid.fetch_add(by, Ordering::SeqCst);
        }
        self.served = Arc::new(*self.served + 1);
        Ok(Step::Reply(self.town.paid.load(Ordering::SeqCst)))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("account", 1).with("served", Arc::clone(&self.served)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.served = snapshot.get("served")?;
        Ok(())
    }
}

/// Pays once, and answers how often it has paid.
#[derive(Clone)]
struct Payer {
    paid: Arc<u32>,
    town: Arc<Town>,
}

impl Behavior for Payer {
    type Request = ();
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Deal, i64>>("account")
    }
}

impl Stateful for Payer {
    async fn step(&mut self, (): &(), turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if let Turn::RolledBack(undone) | Turn::Resumed(undone) = &turn {
            let told = (undone.kept.len(), undone.undone.len(), undone.unknown.len());
            self.town.told.lock().push(told);
        }
        if let Turn::Performed(performed) = &turn {
            performed.get::<i64>(0)?;
            if self.town.waits.load(Ordering::SeqCst) {
                self.town.arrived.notify_one();
                self.town.go.notified().await;
            }
            let fails = &self.town.fails;
            if fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
            {
                return Err(Fault::internal("it does not work"));
            }
            self.paid = Arc::new(*self.paid + 1);
            return Ok(Step::Reply(*self.paid));
        }
        let account = ctx.port::<Deal, i64>("account")?;
        let call = account.effect(Deal::Debit).undo(&account, Deal::Refund);
        Ok(Step::Perform(vec![Call::from(call)]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("payer", 1).with("paid", Arc::clone(&self.paid)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.paid = snapshot.get("paid")?;
        Ok(())
    }
}

struct Bench {
    town: Arc<Town>,
    store: Arc<dyn Store>,
    system: System,
    payer: Port<(), u32>,
    account: Port<Deal, i64>,
}

/// The line is drawn, and nothing done yet.
async fn bench() -> Bench {
    bench_with(false).await
}

/// The account may stand outside of the scope that returns, and do what is not called off.
async fn bench_with(is_outside: bool) -> Bench {
    let town = Arc::<Town>::default();
    let (one, other) = (Arc::clone(&town), Arc::clone(&town));
    let flow = SupervisorSpec::one_for_one("flow")
        .scope(Scope::Transaction)
        .intensity(0, SECOND)
        .no_child_limit()
        .child(
            ChildSpec::stateful("payer", move || Payer {
                paid: Arc::default(),
                town: Arc::clone(&other),
            })
            .attempt_timeout(Duration::from_secs(86_400))
            .durable::<Payer>(),
        );
    let account = move || Account { served: Arc::default(), town: Arc::clone(&one) };
    let account = ChildSpec::stateful("account", account)
        .attempt_timeout(Duration::from_secs(86_400))
        .durable::<Account>();
    let top = SupervisorSpec::one_for_one("top").scope(Scope::System).intensity(9, SECOND);
    let (top, path) = match is_outside {
        true => {
            let account = account.effect(EffectKind::Compensable);
            (top.child(account).supervisor(flow), "top/account")
        }
        false => (top.supervisor(flow.child(account)), "top/flow/account"),
    };
    let store = store();
    let (system, _) = System::recover(top, Arc::clone(&store)).await.unwrap();
    let payer = system.port("top/flow/payer").unwrap();
    let account = system.port(path).unwrap();
    // A state of its own, from before.
    assert_eq!(account.call(Deal::Show).await.unwrap().value, 0);
    system.checkpoint("top/flow").await.unwrap();
    Bench { town, store, system, payer, account }
}

fn is_back(event: &Event) -> bool {
    matches!(event, Event::ScopeRolledBack { .. })
}

impl Bench {
    /// It has paid, and waits.
    async fn pays(&self) -> tokio::task::JoinHandle<u32> {
        self.town.waits.store(true, Ordering::SeqCst);
        let payer = self.payer.clone();
        let call = tokio::spawn(async move { payer.call(()).await.unwrap().value });
        self.town.arrived.notified().await;
        call
    }

    async fn ends(self, call: tokio::task::JoinHandle<u32>) {
        self.town.waits.store(false, Ordering::SeqCst);
        self.town.go.notify_waiters();
        assert_eq!(call.await.unwrap(), 1);
        assert_eq!(self.account.call(Deal::Show).await.unwrap().value, 1, "paid once, all told");
        assert_eq!(self.system.effects().open(), []);
        assert!(self.system.fates().is_balanced(), "{:?}", self.system.fates());
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_returns_with_the_scope_undoes_what_another_one_had_it_do() {
    let bench = bench().await;
    let call = bench.pays().await;
    let back = bench.system.rollback("top/flow", To::Latest);
    let report = tokio::time::timeout(20 * SECOND, back).await.expect("it is not held up").unwrap();
    assert_eq!((report.children.len(), report.undone.len()), (2, 1));
    assert_eq!(*bench.town.told.lock(), [(0, 1, 0)]);
    bench.ends(call).await;
}

#[tokio::test(start_paused = true)]
async fn an_act_that_a_child_of_the_scope_has_in_hand_is_ended_by_it_and_then_undone() {
    let bench = bench().await;
    let slow = Arc::<Notify>::default();
    *bench.town.slow.lock() = Some(Arc::clone(&slow));
    let payer = bench.payer.clone();
    let call = tokio::spawn(async move { payer.call(()).await.unwrap().value });
    bench.town.arrived.notified().await;
    *bench.town.slow.lock() = None;
    let back = bench.system.rollback("top/flow", To::Latest);
    let report = tokio::time::timeout(20 * SECOND, back).await.expect("it is not held up").unwrap();
    assert_eq!(report.unknown.len() + report.kept.len(), 0, "{report:?}");
    bench.ends(call).await;
}

#[tokio::test(start_paused = true)]
async fn an_act_that_is_not_ended_by_the_limit_is_undone_once_it_is() {
    let bench = bench_with(true).await;
    let slow = Arc::<Notify>::default();
    *bench.town.slow.lock() = Some(Arc::clone(&slow));
    let payer = bench.payer.clone();
    let call = tokio::spawn(async move { payer.call(()).await.unwrap().value });
    bench.town.arrived.notified().await;
    let mut events = bench.system.events();
    let error = bench.system.rollback("top/flow", To::Latest).await.unwrap_err();
    assert!(matches!(error, RollbackError::TooLate { .. }), "{error}");
    tokio::time::timeout(SECOND, events.wait_for(is_back)).await.expect("it has come to its end");
    assert_eq!(*bench.town.told.lock(), [(0, 0, 1)]);
    *bench.town.slow.lock() = None;
    slow.notify_one();
    let undone = |event: &Event| matches!(event, Event::Effect { status: "compensated", .. });
    tokio::time::timeout(SECOND, events.wait_for(undone)).await.expect("it is undone");
    bench.ends(call).await;
}

/// Who is to undo stands still for the line, which waits for nobody who waits for that.
#[tokio::test(start_paused = true)]
async fn a_line_is_drawn_while_an_agent_goes_back_by_itself() {
    let bench = bench().await;
    let call = bench.pays().await;
    let slow = Arc::<Notify>::default();
    *bench.town.slow.lock() = Some(Arc::clone(&slow));
    let account = bench.account.clone();
    let other = tokio::spawn(async move { account.call(Deal::Debit).await.unwrap().value });
    bench.town.arrived.notified().await;
    *bench.town.slow.lock() = None;
    bench.town.fails.store(1, Ordering::SeqCst);
    bench.town.waits.store(false, Ordering::SeqCst);
    let mut events = bench.system.events();
    bench.town.go.notify_waiters();
    let undoes = |event: &Event| matches!(event, Event::Effect { status: "compensating", .. });
    tokio::time::timeout(SECOND, events.wait_for(undoes)).await.expect("it goes back");
    let begun = tokio::time::Instant::now();
    let system = bench.system.clone();
    let line = tokio::spawn(async move { system.checkpoint("top/flow").await.map(drop) });
    // Until nothing more happens by itself: it waits for the account.
    let quiet = tokio::time::timeout(Duration::from_millis(1), events.wait_for(|_| false)).await;
    assert!(quiet.is_err());
    slow.notify_one();
    line.await.unwrap().unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    // A process that ends now has one after it that goes on with the rollback.
    let drawn = bench.store.lines(Scope::Transaction, &"top/flow".into()).unwrap();
    let of_payer = drawn[0].members.iter().find(|(child, _)| child.as_str() == "top/flow/payer");
    let stored = bench.store.load(of_payer.unwrap().1).unwrap();
    let in_hand = stored.envelope().unwrap().expect("its request is in hand");
    let in_hand: serde_json::Value = serde_json::from_slice(&in_hand).unwrap();
    assert_eq!((&in_hand["step"], &in_hand["back"]), (&0.into(), &true.into()), "{in_hand}");
    assert_eq!((call.await.unwrap(), other.await.unwrap()), (1, 2));
    assert_eq!(bench.account.call(Deal::Show).await.unwrap().value, 2);
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_a_request_has_return_is_undone_by_a_child_of_it() {
    let bench = bench().await;
    // It goes back by itself first.
    bench.town.fails.store(2, Ordering::SeqCst);
    let mut events = bench.system.events();
    let payer = bench.payer.clone();
    let call = tokio::spawn(async move { payer.call(()).await.unwrap().value });
    let back = tokio::time::timeout(20 * SECOND, events.wait_for(is_back)).await;
    let event = back.expect("it is not held up").unwrap().event;
    assert!(matches!(event, Event::ScopeRolledBack { undone: 1, .. }), "{event:?}");
    bench.ends(call).await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_fell_is_undone_by_a_child_of_it() {
    let bench = bench().await;
    let call = bench.pays().await;
    let mut events = bench.system.events();
    bench.system.kill("top/flow/payer").unwrap();
    let back = tokio::time::timeout(20 * SECOND, events.wait_for(is_back)).await;
    let event = back.expect("it is not held up").unwrap().event;
    assert!(matches!(event, Event::ScopeRolledBack { undone: 1, .. }), "{event:?}");
    bench.ends(call).await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_hangs_holds_nobody_up_for_longer_than_a_limit_and_is_done_later() {
    let bench = bench().await;
    let call = bench.pays().await;
    bench.town.hangs.store(true, Ordering::SeqCst);
    let mut events = bench.system.events();
    let begun = tokio::time::Instant::now();
    let error = bench.system.rollback("top/flow", To::Latest).await.unwrap_err();
    let RollbackError::TooLate { phase, .. } = error else { panic!("{error}") };
    assert_eq!((phase, begun.elapsed()), ("undoing effects", 30 * SECOND));
    let back = tokio::time::timeout(10 * SECOND, events.wait_for(is_back)).await;
    let event = back.expect("it has come to its end").unwrap().event;
    assert!(matches!(event, Event::ScopeRolledBack { unknown: 1, undone: 0, .. }), "{event:?}");
    assert_eq!(*bench.town.told.lock(), [(0, 0, 1)]);
    assert_eq!(bench.system.effects().counts().compensating, 1);
    // Nobody is kept from returning by it any more.
    let other = bench.system.rollback("top", To::Latest).await.unwrap_err();
    assert!(matches!(other, RollbackError::NoneValid { .. }), "{other}");
    bench.town.hangs.store(false, Ordering::SeqCst);
    bench.town.go.notify_waiters();
    bench.ends(call).await;
}
