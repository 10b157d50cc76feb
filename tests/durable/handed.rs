//! Requests that code had begun with which acts on the world by itself, when the process ended.

use std::future::pending;
use std::sync::atomic::AtomicBool;

use mainstay::behavior::StartContext;
use mainstay::error::QuarantineError;
use mainstay::port::Verified;
use mainstay::spec::Shutdown;
use mainstay::system::{Recovered, Upkeep};

use super::*;

/// Pays what it is asked, and as long as it is slow it never comes back from that.
#[derive(Clone, Default)]
struct Till {
    paid: Arc<Mutex<Vec<u64>>>,
    /// What it has refused, and refuses no more.
    refused: Arc<Mutex<Vec<u64>>>,
    slow: Arc<AtomicBool>,
}

/// What is refused when it is asked first.
const DEAR: u64 = 1000;

impl Till {
    fn slow() -> Self {
        let till = Self::default();
        till.slow.store(true, Ordering::SeqCst);
        till
    }

    fn paid(&self) -> Vec<u64> {
        self.paid.lock().clone()
    }
}

impl Behavior for Till {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Till {
    async fn serve(&self, request: &u64, _: &Context) -> Result<u64, Fault> {
        if *request >= DEAR && !self.refused.lock().contains(request) {
            self.refused.lock().push(*request);
            return Err(Fault::network("nobody is there"));
        }
        self.paid.lock().push(*request);
        if self.slow.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        Ok(*request)
    }
}

fn till(till: &Till) -> ChildSpec {
    let till = till.clone();
    let child = ChildSpec::stateless("till", move || till.clone());
    child.attempt_timeout(Duration::from_secs(3600)).policy(Policy::without_retries())
}

fn desk(child: ChildSpec) -> SupervisorSpec {
    SupervisorSpec::one_for_one("desk").child(child)
}

/// A process, which ends as by `kill -9` when `work` is over.
fn process<T>(
    store: &Arc<dyn Store>,
    spec: SupervisorSpec,
    work: impl AsyncFnOnce(&System, Recovered) -> T,
) -> T {
    runtime().block_on(async {
        let (system, recovered) = System::recover(spec, Arc::clone(store)).await.unwrap();
        // Nobody who is killed lets go of anything in order.
        std::mem::forget(system.clone());
        work(&system, recovered).await
    })
}

async fn submit(system: &System, path: &str, request: u64, key: &str) {
    let port: Port<u64, u64> = system.port(path).unwrap();
    port.submit(request, CallOptions::new().key(key)).await.unwrap();
    settle().await;
}

/// On a paused clock time passes when nobody has anything to do any more: whatever goes on by itself has gone on.
async fn settle() {
    pass(Duration::from_millis(200)).await;
}

async fn pass(time: Duration) {
    let _ = tokio::time::timeout(time, pending::<()>()).await;
}

fn keys(requests: &[mainstay::system::RecoveredRequest]) -> Vec<&str> {
    requests.iter().map(|it| &*it.key).collect()
}

const UNKNOWN: Option<Journaled> = Some(Journaled::Fated(Fate::Unknown, None));

fn done(reply: u64) -> Option<Journaled> {
    Some(Journaled::Fated(Fate::Done, Some(reply.to_string())))
}

#[test]
fn what_may_not_be_repeated_is_not_begun_again_by_the_next_process_and_a_person_is_called() {
    use EffectKind::{Compensable, Idempotent, Irreversible, Pure, Read, Verifiable};
    let kinds = [None, Some(Verifiable), Some(Compensable), Some(Irreversible)];
    for kind in kinds.into_iter().chain([Pure, Read, Idempotent].map(Some)) {
        let again = kind.is_some_and(EffectKind::is_replay_safe);
        let (store, world) = (store(), Till::slow());
        let spec = || {
            let child = till(&world).concurrency(2).durable::<Till>();
            desk(match kind {
                Some(kind) => child.effect(kind),
                None => child,
            })
        };
        process(&store, spec(), async |system, _| {
            for (request, key) in [(1, "one"), (2, "two"), (3, "waits")] {
                submit(system, "desk/till", request, key).await;
            }
        });
        assert_eq!(world.paid(), [1, 2], "{kind:?}");
        world.slow.store(false, Ordering::SeqCst);
        runtime().block_on(async {
            let (system, recovered, mut events) =
                System::recover_observed(spec(), Arc::clone(&store), RecoverOptions::default())
                    .await
                    .unwrap();
            settle().await;
            if again {
                assert_eq!(recovered.requests, 3, "{kind:?}");
                assert!(recovered.in_doubt.is_empty());
                assert_eq!(world.paid(), [1, 2, 1, 2, 3]);
                assert_eq!(system.journaled("one"), done(1));
                return;
            }
            assert_eq!(keys(&recovered.in_doubt), ["one", "two"], "{kind:?}");
            assert_eq!(recovered.in_doubt[0].request, "1");
            assert_eq!(keys(&recovered.open), ["waits"]);
            assert_eq!(world.paid(), [1, 2, 3]);
            assert_eq!([system.journaled("one"), system.journaled("two")], [UNKNOWN; 2]);
            assert_eq!(system.journaled("waits"), done(3));
            let counts = system.fates();
            assert_eq!((counts.accepted, counts.unknown, counts.open), (3, 2, 0));
            let (mut alerts, mut unknown) = (0, 0);
            while let Some(stamped) = events.try_next() {
                match stamped.event {
                    Event::Alert { ended, .. } => {
                        alerts += 1;
                        assert!(format!("{ended:?}").contains("process_ended"), "{ended:?}");
                    }
                    Event::Fated { fate: Fate::Unknown, .. } => unknown += 1,
                    _ => {}
                }
            }
            assert_eq!((alerts, unknown), (2, 2));
        });
        // Told once.
        process(&store, spec(), async |_, recovered| {
            assert_eq!((recovered.in_doubt.len(), recovered.requests), (0, 0), "{kind:?}");
        });
    }
}

#[test]
fn what_was_refused_and_waits_to_be_tried_again_is_tried_by_the_next_process() {
    let (store, world) = (store(), Till::slow());
    let spec = || {
        let policy = Policy::playbook_exact().with_attempt_timeout(Duration::from_secs(3600));
        desk(till(&world).policy(policy).effect(EffectKind::Verifiable).durable::<Till>())
    };
    process(&store, spec(), async |system, _| submit(system, "desk/till", DEAR, "one").await);
    assert_eq!((world.paid(), world.refused.lock().len()), (vec![], 1));
    process(&store, spec(), async |system, recovered| {
        assert_eq!((recovered.in_doubt.len(), recovered.requests), (0, 1));
        settle().await;
        assert_eq!(system.journaled("one"), Some(Journaled::Open));
    });
    assert_eq!(world.paid(), [DEAR]);
    // That was the end of a process in the middle of it.
    process(&store, spec(), async |system, recovered| {
        assert_eq!(keys(&recovered.in_doubt), ["one"]);
        settle().await;
        assert_eq!(system.journaled("one"), UNKNOWN);
    });
    assert_eq!(world.paid(), [DEAR]);
}

#[test]
fn what_a_process_that_stops_in_order_cuts_off_is_in_doubt_and_what_waits_is_not() {
    let (store, world) = (store(), Till::slow());
    let child = || till(&world).shutdown(Shutdown::Timeout(Duration::from_millis(5)));
    let spec = || desk(child().durable::<Till>());
    process(&store, spec(), async |system, _| {
        submit(system, "desk/till", 1, "one").await;
        submit(system, "desk/till", 2, "waits").await;
        system.stop().await;
    });
    world.slow.store(false, Ordering::SeqCst);
    process(&store, spec(), async |system, recovered| {
        settle().await;
        assert_eq!(system.journaled("one"), UNKNOWN, "{recovered:?}");
        assert_eq!(system.journaled("waits"), done(2));
    });
    assert_eq!(world.paid(), [1, 2]);
}

#[test]
fn a_group_is_as_careful_as_the_member_that_was_at_work() {
    let store = store();
    // The first acts by itself, the second may be repeated.
    let (first, second) = (Till::slow(), Till::slow());
    second.refused.lock().push(DEAR);
    let spec = || {
        let named = |it: &Till, name: &str, kind| {
            let it = it.clone();
            let child = ChildSpec::stateless(name, move || it.clone()).effect(kind).concurrency(2);
            child.attempt_timeout(Duration::from_secs(3600)).policy(Policy::without_retries())
        };
        let group = GroupSpec::model("tills")
            .member_spec(named(&first, "first", EffectKind::Irreversible))
            .member_spec(named(&second, "second", EffectKind::Idempotent));
        SupervisorSpec::one_for_one("desk").group(group.durable::<Till>())
    };
    process(&store, spec(), async |system, _| {
        submit(system, "desk/tills", 1, "first").await;
        submit(system, "desk/tills", DEAR, "second").await;
    });
    assert_eq!((first.paid(), second.paid(), first.refused.lock().len()), (vec![1], vec![DEAR], 1));
    process(&store, spec(), async |system, recovered| {
        assert_eq!(keys(&recovered.in_doubt), ["first"]);
        assert_eq!(keys(&recovered.open), ["second"]);
        settle().await;
        assert_eq!(system.journaled("first"), UNKNOWN);
    });
}

#[test]
fn wherever_the_store_ends_it_is_paid_once_or_a_person_is_called() {
    let (mut points, mut doubts) = (0, 0);
    for last in [false, true] {
        for commits in 0..20 {
            let (kept, world) = (store(), Till::default());
            let spec = || desk(till(&world).durable::<Till>());
            let dying: Arc<dyn Store> = Arc::new(Dying::new(&kept, commits, last));
            let accepted = runtime().block_on(async {
                let limit = Duration::from_secs(1);
                let recovered = System::recover(spec(), Arc::clone(&dying));
                let Ok(recovered) = tokio::time::timeout(limit, recovered).await else {
                    return false;
                };
                let (system, _) = recovered.unwrap();
                let port: Port<u64, u64> = system.port("desk/till").unwrap();
                let asked = port.submit(5_u64, CallOptions::new().key("k"));
                let accepted = tokio::time::timeout(limit, asked).await.is_ok();
                settle().await;
                accepted
            });
            let before = world.paid().len();
            let (recovered, known) = process(&kept, spec(), async |system, recovered| {
                settle().await;
                (recovered, system.journaled("k"))
            });
            let what = format!("{commits} commits, one more: {last}, {known:?}, {before} before");
            assert!(world.paid().len() <= 1, "{what}: paid twice");
            match (recovered.in_doubt.len(), &known) {
                (1, _) => assert_eq!(known, UNKNOWN, "{what}"),
                (_, None) => assert!(!accepted && world.paid().is_empty(), "{what}"),
                (_, known) => assert_eq!((known, world.paid()), (&done(5), vec![5]), "{what}"),
            }
            // Nothing was begun before the store has said that it was.
            assert!(
                before == 0 || recovered.in_doubt.len() == 1 || recovered.requests == 0,
                "{what}"
            );
            points += 1;
            doubts += recovered.in_doubt.len();
            if known == done(5) && recovered.requests == 0 {
                break;
            }
        }
    }
    // Before and after it was paid.
    assert!(points > 6 && doubts >= 2, "{points} {doubts}");
}

#[test]
fn what_may_be_repeated_costs_no_commit_more() {
    let commits = |kind| {
        let (store, world) = (store(), Till::default());
        let counted: Arc<dyn Store> = Arc::new(Dying::new(&store, 1000, false));
        process(&counted, desk(till(&world).effect(kind).durable::<Till>()), async |system, _| {
            submit(system, "desk/till", 1, "one").await;
            assert_eq!(system.journaled("one"), done(1));
        });
        store.streams().unwrap().iter().find(|(name, _)| **name == *"mainstay").unwrap().1
    };
    assert_eq!(commits(EffectKind::Irreversible), commits(EffectKind::Idempotent) + 1);
}

#[test]
fn a_child_that_is_declared_otherwise_since_is_believed_for_what_it_will_do_and_not_for_what_it_did()
 {
    let run = |before: EffectKind, after: EffectKind| {
        let (store, world) = (store(), Till::slow());
        let spec = |kind| desk(till(&world).effect(kind).durable::<Till>());
        process(&store, spec(before), async |system, _| {
            submit(system, "desk/till", 1, "one").await;
        });
        world.slow.store(false, Ordering::SeqCst);
        process(&store, spec(after), async |system, _| {
            settle().await;
            (world.paid(), system.journaled("one"))
        })
    };
    let (pays, looks) = (EffectKind::Irreversible, EffectKind::Read);
    assert_eq!(run(pays, looks), (vec![1], UNKNOWN));
    assert_eq!(run(looks, pays), (vec![1, 1], done(1)));
}

#[test]
fn a_child_that_is_gone_leaves_what_it_had_begun_in_doubt_and_nothing_to_be_released() {
    let (store, world) = (store(), Till::slow());
    process(&store, desk(till(&world).durable::<Till>()), async |system, _| {
        submit(system, "desk/till", 1, "one").await;
        submit(system, "desk/till", 2, "waits").await;
    });
    runtime().block_on(async {
        let options = || {
            let mut options = RecoverOptions::default();
            options.adopt_topology = true;
            options
        };
        let other = world.clone();
        let spec = desk(ChildSpec::stateless("other", move || other.clone()).durable::<Till>());
        let (system, recovered) =
            System::recover_with(spec, Arc::clone(&store), options()).await.unwrap();
        assert_eq!(keys(&recovered.in_doubt), ["one"]);
        assert_eq!(keys(&recovered.set_aside), ["waits"]);
        assert_eq!(system.journaled("one"), UNKNOWN);
        let aside: Vec<_> = system.quarantine().requests().into_iter().map(|it| it.id).collect();
        assert_eq!(aside, [Arc::from("waits")]);
    });
}

#[test]
fn a_person_who_has_looked_frees_the_key_in_a_running_system_and_in_a_store() {
    let (store, world) = (store(), Till::slow());
    let spec = || desk(till(&world).concurrency(3).durable::<Till>());
    process(&store, spec(), async |system, _| {
        for (request, key) in [(1, "one"), (2, "two"), (3, "three")] {
            submit(system, "desk/till", request, key).await;
        }
    });
    world.slow.store(false, Ordering::SeqCst);
    process(&store, spec(), async |system, _| {
        let port: Port<u64, u64> = system.port("desk/till").unwrap();
        let again = || port.call_with(1_u64, CallOptions::new().key("one"));
        assert!(again().await.is_err(), "it is not asked again unlooked");
        system.did_not_happen("one").await.unwrap();
        assert_eq!(again().await.unwrap().value, 1);
        for key in ["one", "never seen"] {
            let refused = system.did_not_happen(key).await.unwrap_err();
            assert_eq!(refused, QuarantineError::NotInDoubt(key.to_owned()));
        }
    });
    runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        assert_eq!(upkeep.in_doubt(), [Arc::from("two"), Arc::from("three")]);
        upkeep.did_not_happen("two").await.unwrap();
        assert!(upkeep.did_not_happen("two").await.is_err());
        assert_eq!(upkeep.in_doubt(), [Arc::from("three")]);
        assert!(upkeep.did_not_happen("never seen").await.is_err());
    });
    process(&store, spec(), async |system, _| {
        submit(system, "desk/till", 2, "two").await;
        assert_eq!([system.journaled("two"), system.journaled("three")], [done(2), UNKNOWN]);
    });
    assert_eq!(world.paid(), [1, 2, 3, 1, 2]);
}

/// Has a durable till pay, by an effect, and asks the books about it.
#[derive(Clone)]
struct Careful {
    asks: bool,
}

impl Behavior for Careful {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("till").needs::<Port<u64, bool>>("books")
    }
}

impl Stateful for Careful {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if let Turn::Performed(performed) = turn {
            return Ok(Step::Reply(*performed.get::<u64>(0)?.value));
        }
        let (till, books) = (ctx.port::<u64, u64>("till")?, ctx.port::<u64, bool>("books")?);
        let act = till.effect(*request);
        let paid = *request;
        Ok(Step::Perform(vec![Call::from(match self.asks {
            true => act.verify(&books, paid, move |happened| match happened {
                true => Verified::Happened(paid),
                false => Verified::NotHappened,
            }),
            false => act,
        })]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("careful", 1))
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), CheckpointError> {
        Ok(())
    }
}

/// What the till has paid.
#[derive(Clone)]
struct Books(Till);

impl Behavior for Books {
    type Request = u64;
    type Reply = bool;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Books {
    async fn serve(&self, request: &u64, _: &Context) -> Result<bool, Fault> {
        Ok(self.0.paid().contains(request))
    }
}

#[test]
fn whoever_asked_for_it_hears_that_nobody_knows_or_what_the_answer_to_its_question_is() {
    for (kind, asks) in [(EffectKind::Irreversible, false), (EffectKind::Verifiable, true)] {
        for last in [false, true] {
            // In the till's hands, or on its way to the till.
            for held in [false, true] {
                let (kept, world) = (store(), Till::slow());
                let spec = || {
                    let books = Books(world.clone());
                    desk(till(&world).effect(kind).durable::<Till>())
                        .child(ChildSpec::stateless("books", move || books.clone()))
                        .child(
                            ChildSpec::stateful("agent", move || Careful { asks })
                                .durable::<Careful>()
                                .policy(Policy::without_retries()),
                        )
                };
                // The topology, the request, the state, the intent, the till's request, its hand-out.
                let commits = if held { 5 } else { 1000 };
                let dying: Arc<dyn Store> = Arc::new(Dying::new(&kept, commits, last));
                process(&dying, spec(), async |system, _| {
                    submit(system, "desk/agent", 7, "task").await;
                });
                let what = format!("{kind:?}, last: {last}, held: {held}");
                let before = world.paid().len();
                assert_eq!(before, usize::from(!held), "{what}");
                world.slow.store(false, Ordering::SeqCst);
                let doubts = usize::from(!held || last);
                let (known, unknown) = process(&kept, spec(), async |system, recovered| {
                    assert_eq!(recovered.in_doubt.len(), doubts, "{what}: {recovered:?}");
                    settle().await;
                    (system.journaled("task"), system.effects().counts().unknown)
                });
                assert!(world.paid().len() <= 1, "{what}: paid twice");
                match (doubts, asks) {
                    (1, false) => assert_eq!((known, unknown), (UNKNOWN, 1), "{what}"),
                    (_, true) => {
                        assert_eq!((known, unknown), (done(7), 0), "{what}");
                        assert_eq!(world.paid(), [7], "{what}");
                    }
                    _ => assert!(known == UNKNOWN || known == done(7), "{what}: {known:?}"),
                }
            }
        }
    }
}

/// Pays in its second step, and says that itself.
#[derive(Clone)]
struct Teller {
    till: Till,
    steps: Arc<u64>,
}

impl Behavior for Teller {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Irreversible);
}

impl Stateful for Teller {
    async fn step(&mut self, request: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.steps = Arc::new(*self.steps + 1);
        match turn {
            // Long enough to be stopped meanwhile.
            Turn::First => pass(Duration::from_millis(300)).await,
            _ => {
                self.till.paid.lock().push(*request);
                if self.till.slow.load(Ordering::SeqCst) {
                    pending::<()>().await;
                }
                return Ok(Step::Reply(*self.steps));
            }
        }
        Ok(Step::Continue)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("teller", 1).with("steps", Arc::clone(&self.steps)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.steps = snapshot.get("steps")?;
        Ok(())
    }
}

#[test]
fn steps_that_act_by_themselves_are_begun_once_and_gone_on_with_after_a_stop_in_order() {
    let (store, world) = (store(), Till::slow());
    let spec = || {
        let teller = Teller { till: world.clone(), steps: Arc::new(0) };
        let child = ChildSpec::stateful("till", move || teller.clone()).durable::<Teller>();
        desk(child.checkpoint(Interval::Steps(1)).policy(Policy::without_retries()))
    };
    process(&store, spec(), async |system, _| {
        submit(system, "desk/till", 1, "one").await;
        system.stop().await;
    });
    assert!(world.paid().is_empty(), "it was stopped after its first step");
    process(&store, spec(), async |_, recovered| {
        assert_eq!((recovered.in_doubt.len(), keys(&recovered.open)), (0, vec!["one"]));
        settle().await;
    });
    assert_eq!(world.paid(), [1], "it has gone on, and was killed");
    world.slow.store(false, Ordering::SeqCst);
    process(&store, spec(), async |system, recovered| {
        assert_eq!(keys(&recovered.in_doubt), ["one"]);
        submit(system, "desk/till", 2, "two").await;
        pass(Duration::from_secs(1)).await;
        assert_eq!(system.journaled("one"), UNKNOWN);
        // Nothing is left in its state of the request that was given up.
        assert_eq!(system.journaled("two"), done(2));
    });
    assert_eq!(world.paid(), [1, 2]);
}

#[test]
fn a_person_who_has_looked_before_the_next_process_begins_has_that_do_it() {
    let (store, world) = (store(), Till::slow());
    let spec = || desk(till(&world).concurrency(2).durable::<Till>());
    process(&store, spec(), async |system, _| {
        for (request, key) in [(1, "one"), (2, "two"), (3, "waits")] {
            submit(system, "desk/till", request, key).await;
        }
    });
    world.slow.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        assert_eq!(upkeep.in_doubt(), [Arc::from("one"), Arc::from("two")]);
        upkeep.did_not_happen("one").await.unwrap();
        assert!(upkeep.did_not_happen("waits").await.is_err());
    });
    process(&store, spec(), async |system, recovered| {
        assert_eq!(keys(&recovered.open), ["one", "waits"]);
        assert_eq!(keys(&recovered.in_doubt), ["two"]);
        settle().await;
        assert_eq!(system.journaled("one"), done(1));
    });
    assert_eq!(world.paid(), [1, 2, 1, 3]);
}

#[test]
fn what_was_accepted_by_a_child_that_keeps_nothing_any_more_is_set_aside_and_not_done_in_every_process()
 {
    let (store, world) = (store(), Till::slow());
    process(&store, desk(till(&world).durable::<Till>()), async |system, _| {
        submit(system, "desk/till", 1, "one").await;
        submit(system, "desk/till", 2, "waits").await;
    });
    world.slow.store(false, Ordering::SeqCst);
    let plain = || desk(till(&world).recorded::<Till>());
    for first in [true, false] {
        runtime().block_on(async {
            let mut options = RecoverOptions::default();
            options.adopt_topology = true;
            let (system, recovered) =
                System::recover_with(plain(), Arc::clone(&store), options).await.unwrap();
            settle().await;
            assert_eq!(keys(&recovered.set_aside), if first { vec!["waits"] } else { vec![] });
            assert_eq!(recovered.requests, 0);
            assert!(system.quarantine().release("waits").await.is_err());
        });
    }
    assert_eq!(world.paid(), [1]);
    process_with_topology(&store, desk(till(&world).durable::<Till>()), async |system| {
        system.quarantine().release("waits").await.unwrap();
        settle().await;
        assert_eq!(system.journaled("waits"), done(2));
    });
    assert_eq!(world.paid(), [1, 2]);
}

fn process_with_topology<T>(
    store: &Arc<dyn Store>,
    spec: SupervisorSpec,
    work: impl AsyncFnOnce(&System) -> T,
) -> T {
    runtime().block_on(async {
        let mut options = RecoverOptions::default();
        options.adopt_topology = true;
        let (system, _) = System::recover_with(spec, Arc::clone(store), options).await.unwrap();
        work(&system).await
    })
}

/// Does not start.
struct Stuck;

impl Behavior for Stuck {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Stuck {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        Err(Fault::internal("as asked"))
    }

    async fn serve(&self, request: &u64, _: &Context) -> Result<u64, Fault> {
        Ok(*request)
    }
}

#[test]
fn a_tree_that_does_not_start_leaves_everything_to_the_next_process() {
    for kind in [EffectKind::Idempotent, EffectKind::Irreversible] {
        let (store, world) = (store(), Till::default());
        world.slow.store(true, Ordering::SeqCst);
        let child = || till(&world).effect(kind).durable::<Till>();
        process(&store, desk(child()), async |system, _| {
            for (request, key) in [(1, "one"), (2, "two"), (3, "three")] {
                submit(system, "desk/till", request, key).await;
            }
        });
        world.slow.store(false, Ordering::SeqCst);
        let acts = !kind.is_replay_safe();
        runtime().block_on(async {
            let stuck = ChildSpec::stateless("stuck", || Stuck);
            let started = System::recover(desk(child()).child(stuck), Arc::clone(&store)).await;
            assert!(matches!(started, Err(RecoverError::Start(_))), "{started:?}");
            settle().await;
        });
        process(&store, desk(child()), async |system, _| {
            settle().await;
            let first = if acts { UNKNOWN } else { done(1) };
            let known = ["one", "two", "three"].map(|key| system.journaled(key));
            assert_eq!(known, [first, done(2), done(3)], "{kind:?}");
        });
        let (mut paid, mut twice) = (world.paid(), Vec::new());
        paid.sort_unstable();
        for both in paid.windows(2).filter(|both| both[0] == both[1]) {
            twice.push(both[0]);
        }
        assert!(!acts || twice.is_empty(), "{kind:?}: paid twice: {twice:?}");
    }
}
