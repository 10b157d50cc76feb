//! What ends a request while its answer is on its way into the store: there is one fate, and the world, the state
//! and the store agree with it.

use mainstay::error::CallError;
use mainstay::spec::GroupSpec;
use tokio::task::JoinHandle;

use super::late::{Mover, Run};
use super::moody::{Mood, Moody};
use super::*;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A durable child within a transaction.
    Durable,
    /// A durable child that a group has asked which is not: the answer is not recorded, the state is.
    Member,
    /// The same, in a group that is durable.
    Group,
    /// A durable child without a transaction.
    Alone,
}

/// What becomes of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Succeeds,
    Fails,
    /// The store answers when the attempt is over.
    IsLate,
    /// The life is killed after the deadline, and the store answers then.
    IsKilled,
    /// The store never answers, and has written nothing when the process ends.
    Hangs,
}

/// What ends it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// An operator kills the life.
    Kill,
    /// An operator stops the child, and the store is silent for longer than that waits.
    Stop,
    /// The caller leaves, and the write succeeds.
    Leaves,
    /// The caller leaves, and the write fails.
    LeavesInVain,
}

struct Desk {
    run: Run,
    moody: Arc<Moody>,
    who: Who,
}

impl Desk {
    fn new(who: Who) -> Self {
        let moody = Moody::new();
        let mut run = Run::new();
        run.store = Arc::clone(&moody) as Arc<dyn Store>;
        Self { run, moody, who }
    }

    async fn open(&self) -> (System, Port<u32, u32>) {
        let mover = self.run.mover(true).durable::<Mover>();
        let mut spec = self.run.top();
        if self.who != Who::Alone {
            spec = spec.scope(Scope::Transaction);
        }
        let spec = match self.who {
            Who::Member => spec.group(GroupSpec::step("group").member_spec(mover)),
            Who::Group => {
                spec.group(GroupSpec::step("group").durable::<Mover>().member_spec(mover))
            }
            _ => spec.child(mover),
        };
        let is_member = matches!(self.who, Who::Member | Who::Group);
        let path = if is_member { "top/group" } else { "top/mover" };
        let (system, _) = System::recover(spec, Arc::clone(&self.run.store)).await.unwrap();
        let port = system.port(path).unwrap();
        (system, port)
    }

    /// Asks for 5, until the answer waits for the store.
    async fn ask(
        &self,
        system: &System,
        port: &Port<u32, u32>,
    ) -> JoinHandle<Result<u32, Option<Fate>>> {
        let port = port.clone();
        let options = CallOptions::new().key("k").deadline(Duration::from_secs(10));
        let call = tokio::spawn(async move {
            let answer = port.call_with(5_u32, options).await;
            answer.map(|answer| answer.value).map_err(|error: CallError<u32>| error.fate())
        });
        // It has moved, and its outcome is recorded.
        quiet(system).await;
        assert_eq!(*self.run.moves.log.lock(), ["move 5"]);
        self.moody.turn(Mood::Silent);
        self.run.finishes.notify_one();
        self.moody.held(1).await;
        call
    }

    fn becomes(&self, write: Write) {
        match write {
            Write::Succeeds | Write::IsLate | Write::IsKilled => self.moody.turn(Mood::Well),
            Write::Fails => {
                self.moody.turn(Mood::Full);
                self.moody.turn(Mood::Well);
            }
            Write::Hangs => {}
        }
    }
}

/// Until nothing happens any more.
pub(super) async fn quiet(system: &System) {
    let mut events = system.events();
    while tokio::time::timeout(Duration::from_secs(1), events.next()).await.is_ok() {}
}

async fn fated(system: &System) {
    let mut events = system.events();
    while system.fates().open > 0 {
        events.next().await.unwrap();
    }
}

#[test]
fn a_deadline_within_the_write_of_an_answer_leaves_one_fate() {
    for who in [Who::Durable, Who::Member, Who::Alone] {
        let writes = [Write::Succeeds, Write::Fails, Write::IsLate, Write::IsKilled, Write::Hangs];
        for write in writes {
            let case = format!("{who:?} {write:?}");
            let desk = Desk::new(who);
            let done = write == Write::Succeeds;
            let undone = !done && who != Who::Alone;
            let world: &[&str] = if undone { &["move 5", "undo 5"] } else { &["move 5"] };
            let state = if done { 5 } else { 0 };
            let known = match (who, done) {
                (Who::Member, _) => None,
                (_, true) => Some(Journaled::Fated(Fate::Done, Some("5".to_owned()))),
                (_, false) => Some(Journaled::Fated(Fate::Expired, None)),
            };
            runtime().block_on(async {
                let (system, port) = desk.open().await;
                let began = system.clock().now();
                let call = desk.ask(&system, &port).await;
                // The caller hears of the deadline, and that nobody knows yet; there is no fate.
                assert_eq!(call.await.unwrap(), Err(Some(Fate::Unknown)), "{case}");
                assert_eq!(system.clock().now().since(began), Duration::from_secs(10), "{case}");
                assert_eq!(system.fates().open, 1, "{case}");
                assert!(system.fates().is_balanced(), "{case}");
                match write {
                    Write::Succeeds | Write::Fails => desk.becomes(write),
                    Write::IsKilled if who == Who::Member => {
                        system.kill("top/group/mover").unwrap();
                    }
                    Write::IsKilled => system.kill("top/mover").unwrap(),
                    Write::IsLate | Write::Hangs => {}
                }
                fated(&system).await;
                // It is over with the attempt at the latest.
                let limit = Duration::from_secs(32);
                assert!(system.clock().now().since(began) <= limit, "{case}");
                let fates = system.fates();
                let (unheard, expired) = (u64::from(done), u64::from(!done));
                assert_eq!((fates.unheard, fates.expired), (unheard, expired), "{case} {fates:?}");
                if write == Write::Hangs {
                    // As by kill -9.
                    return;
                }
                desk.becomes(write);
                quiet(&system).await;
                if who != Who::Member {
                    assert_eq!(system.journaled("k"), known, "{case}");
                }
                assert_eq!(*desk.run.moves.log.lock(), world, "{case}");
            });
            desk.moody.lose();
            runtime().block_on(async {
                let (system, port) = desk.open().await;
                quiet(&system).await;
                if write != Write::Hangs && who != Who::Member {
                    assert_eq!(system.journaled("k"), known, "{case}");
                }
                if write != Write::Hangs {
                    assert_eq!(*desk.run.moves.log.lock(), world, "{case}, reopened");
                    assert_eq!(port.call(0_u32).await.unwrap().value, state, "{case}, reopened");
                }
            });
        }
    }
}

#[test]
fn whatever_else_falls_into_the_write_of_an_answer_leaves_one_fate() {
    for who in [Who::Durable, Who::Member, Who::Alone] {
        for end in [End::Kill, End::Stop, End::Leaves, End::LeavesInVain] {
            let path = if who == Who::Member { "top/group" } else { "top" };
            let case = format!("{who:?} {end:?}");
            let desk = Desk::new(who);
            let (fate, done) = match end {
                End::Kill | End::Leaves => (Fate::Done, true),
                End::Stop => (Fate::Stopped, false),
                End::LeavesInVain => (Fate::Cancelled, false),
            };
            let undone = !done && who != Who::Alone;
            let world: &[&str] = if undone { &["move 5", "undo 5"] } else { &["move 5"] };
            let reply = done.then(|| "5".to_owned());
            let known = (who != Who::Member).then_some(Journaled::Fated(fate, reply));
            runtime().block_on(async {
                let (system, port) = desk.open().await;
                let call = desk.ask(&system, &port).await;
                match end {
                    End::Kill => {
                        system.kill(format!("{path}/mover")).unwrap();
                        desk.becomes(Write::Succeeds);
                        desk.run.finishes.notify_one();
                        assert_eq!(call.await.unwrap(), Ok(5), "{case}");
                    }
                    End::Stop => {
                        let top = system.supervisor(path).unwrap();
                        top.terminate_child("mover").await.unwrap();
                        assert_eq!(call.await.unwrap(), Err(Some(Fate::Stopped)), "{case}");
                        desk.becomes(Write::IsLate);
                        quiet(&system).await;
                        top.restart_child("mover").await.unwrap();
                    }
                    End::Leaves | End::LeavesInVain => {
                        call.abort();
                        let _ = call.await;
                        let fails = end == End::LeavesInVain;
                        desk.becomes(if fails { Write::Fails } else { Write::Succeeds });
                    }
                }
                quiet(&system).await;
                assert_eq!(system.journaled("k"), known, "{case}");
                assert_eq!(*desk.run.moves.log.lock(), world, "{case}");
                let fates = system.fates();
                assert!(fates.is_balanced(), "{case} {fates:?}");
                let heard = if end == End::Leaves { Fate::Unheard } else { fate };
                // What moves has answered, too.
                let count = if heard == Fate::Done { 2 } else { 1 };
                assert_eq!((fates.of(heard), fates.open), (count, 0), "{case} {fates:?}");
                if done {
                    // What is not, is not overwritten by the next answer before the store is opened again.
                    assert_eq!(port.call(0_u32).await.unwrap().value, 5, "{case}");
                }
            });
            desk.moody.lose();
            runtime().block_on(async {
                let (system, port) = desk.open().await;
                assert_eq!(system.journaled("k"), known, "{case}, reopened");
                let state = if done { 5 } else { 0 };
                assert_eq!(port.call(0_u32).await.unwrap().value, state, "{case}, reopened");
            });
        }
    }
}

/// The next process finds the answer, and nothing is undone of what was answered.
#[test]
fn an_answer_that_the_store_has_after_all_is_not_undone_where_it_does_not_take_another_fate() {
    let desk = Desk::new(Who::Durable);
    let done = Some(Journaled::Fated(Fate::Done, Some("5".to_owned())));
    runtime().block_on(async {
        let (system, port) = desk.open().await;
        let call = desk.ask(&system, &port).await;
        system.supervisor("top").unwrap().terminate_child("mover").await.unwrap();
        assert_eq!(call.await.unwrap(), Err(Some(Fate::Stopped)));
        desk.moody.held(2).await;
        desk.moody.refuse_last();
        quiet(&system).await;
        assert_eq!(system.journaled("k"), done);
        assert_eq!(*desk.run.moves.log.lock(), ["move 5"]);
    });
    desk.moody.lose();
    runtime().block_on(async {
        let (system, port) = desk.open().await;
        assert_eq!(system.journaled("k"), done);
        assert_eq!(port.call(0_u32).await.unwrap().value, 5);
        assert_eq!(*desk.run.moves.log.lock(), ["move 5"]);
    });
}

/// The next process goes on with it.
#[test]
fn what_a_group_ends_is_not_undone_where_the_store_does_not_take_its_fate() {
    for is_taken in [true, false] {
        let desk = Desk::new(Who::Group);
        runtime().block_on(async {
            let (system, port) = desk.open().await;
            let options = CallOptions::new().key("k");
            let call = tokio::spawn(async move { port.call_with(5_u32, options).await.is_ok() });
            quiet(&system).await;
            desk.moody.refuse(usize::from(!is_taken));
            system.supervisor("top/group").unwrap().terminate_child("mover").await.unwrap();
            assert!(!call.await.unwrap());
            assert!(!desk.moody.refuses(), "it was the fate");
            quiet(&system).await;
            let world: &[&str] = if is_taken { &["move 5", "undo 5"] } else { &["move 5"] };
            assert_eq!(*desk.run.moves.log.lock(), world);
        });
        desk.moody.lose();
        runtime().block_on(async {
            let (system, _) = desk.open().await;
            desk.run.finishes.notify_one();
            quiet(&system).await;
            let fate = if is_taken { Fate::Stopped } else { Fate::Done };
            let reply = (!is_taken).then(|| "5".to_owned());
            assert_eq!(system.journaled("k"), Some(Journaled::Fated(fate, reply)));
        });
    }
}

/// Pays, once it is told to.
#[derive(Clone)]
struct Till(Arc<Notify>);

impl Behavior for Till {
    type Request = u32;
    type Reply = u32;
}

impl Stateless for Till {
    async fn serve(&self, amount: &u32, _: &Context) -> Result<u32, Fault> {
        self.0.notified().await;
        Ok(*amount)
    }
}

/// Has the till pay.
#[derive(Clone)]
struct Payer;

impl Behavior for Payer {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("till")
    }
}

impl Stateful for Payer {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        match turn {
            Turn::Performed(performed) => Ok(Step::Reply(*performed.get::<u32>(0)?.value)),
            _ => {
                let pay = ctx.port::<u32, u32>("till")?.effect(*amount);
                Ok(Step::Perform(vec![Call::from(pay)]))
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asked_for_an_act_hears_of_an_outcome_that_was_being_kept_at_the_deadline() {
    let (moody, pays) = (Moody::new(), Arc::<Notify>::default());
    let till = Till(Arc::clone(&pays));
    let till = ChildSpec::stateless("till", move || till.clone())
        .effect(EffectKind::Irreversible)
        .durable::<Till>()
        .deadline(Duration::from_secs(5));
    let payer = ChildSpec::stateful("payer", || Payer);
    let spec = SupervisorSpec::one_for_one("top").child(till).child(payer);
    let store = Arc::clone(&moody) as Arc<dyn Store>;
    let (system, _) = System::recover(spec, store).await.unwrap();
    let payer = system.port::<u32, u32>("top/payer").unwrap();
    let call = tokio::spawn(async move { payer.call(3_u32).await.map(|answer| answer.value) });
    quiet(&system).await;
    moody.turn(Mood::Silent);
    pays.notify_one();
    moody.held(1).await;
    // The till's own deadline passes.
    let open = tokio::time::timeout(Duration::from_secs(10), fated(&system)).await;
    assert!(open.is_err(), "neither has a fate");
    moody.turn(Mood::Well);
    assert_eq!(call.await.unwrap().unwrap(), 3);
    assert_eq!(system.effects().counts().unknown, 0);
}

#[tokio::test(start_paused = true)]
async fn a_tool_whose_life_ends_within_the_write_of_its_answer_has_one_fate_and_serves_again() {
    for (stops, fate, reply) in
        [(false, Fate::Done, Some("3".to_owned())), (true, Fate::Stopped, None)]
    {
        let (moody, pays) = (Moody::new(), Arc::<Notify>::default());
        let till = Till(Arc::clone(&pays));
        let till = ChildSpec::stateless("till", move || till.clone())
            .effect(EffectKind::Idempotent)
            .concurrency(1)
            .durable::<Till>();
        let spec = SupervisorSpec::one_for_one("top").child(till);
        let store = Arc::clone(&moody) as Arc<dyn Store>;
        let (system, _) = System::recover(spec, store).await.unwrap();
        let till = system.port::<u32, u32>("top/till").unwrap();
        let ask = |amount: u32, key: &'static str| {
            let till = till.clone();
            pays.notify_one();
            tokio::spawn(async move {
                let answer = till.call_with(amount, CallOptions::new().key(key)).await;
                answer.map(|answer| answer.value).map_err(|error| error.fate())
            })
        };
        moody.silent_after(1);
        let call = ask(3, "k");
        moody.held(1).await;
        if stops {
            let top = system.supervisor("top").unwrap();
            top.terminate_child("till").await.unwrap();
            assert_eq!(call.await.unwrap(), Err(Some(Fate::Stopped)));
            moody.turn(Mood::Well);
            top.restart_child("till").await.unwrap();
        } else {
            system.kill("top/till").unwrap();
            moody.turn(Mood::Well);
            assert_eq!(call.await.unwrap(), Ok(3));
        }
        quiet(&system).await;
        assert_eq!(system.journaled("k"), Some(Journaled::Fated(fate, reply)), "stops: {stops}");
        assert_eq!(ask(4, "next").await.unwrap(), Ok(4), "stops: {stops}");
        assert!(system.fates().is_balanced());
    }
}

#[test]
fn a_system_that_stops_within_the_write_of_an_answer_leaves_it_to_the_next() {
    for answers in [true, false] {
        let desk = Desk::new(Who::Durable);
        let done = Some(Journaled::Fated(Fate::Done, Some("5".to_owned())));
        runtime().block_on(async {
            let (system, port) = desk.open().await;
            let call = desk.ask(&system, &port).await;
            let stopping = tokio::spawn({
                let system = system.clone();
                async move { system.stop().await }
            });
            assert_eq!(call.await.unwrap(), Err(Some(Fate::Suspended)), "{answers}");
            if answers {
                desk.becomes(Write::IsLate);
                stopping.await.unwrap();
            }
        });
        desk.moody.lose();
        runtime().block_on(async {
            let (system, port) = desk.open().await;
            if !answers {
                desk.run.finishes.notify_one();
                fated(&system).await;
            }
            assert_eq!(system.journaled("k"), done, "{answers}");
            assert_eq!(port.call(0_u32).await.unwrap().value, 5, "{answers}");
            assert_eq!(*desk.run.moves.log.lock(), ["move 5"], "{answers}");
        });
    }
}
