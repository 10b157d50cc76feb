//! A person says what came of the act at which the undo of a transaction had stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Interval, Scope, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::EffectKey;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{EffectsRef, System, Upkeep};

use super::Order::{Credit, Debit, Told, UndoDebit};
use super::dying::Dying;
use super::{Bank, DOUBTFUL, Goes, Order, STUCK, TWICE, runtime, settled, store};

const KIND: EffectKind = EffectKind::Compensable;

async fn open(bank: &Arc<Bank>, store: &Arc<dyn Store>, tells: bool) -> System {
    super::open_as(KIND, bank, store, tells, Interval::Steps(1)).await.0
}

/// What waits for a person, by status: `left` and `unknown`.
fn waiting(effects: &EffectsRef) -> Vec<(&'static str, EffectKey)> {
    effects.open().into_iter().map(|view| (view.status, view.key)).collect()
}

fn statuses(effects: &EffectsRef) -> Vec<&'static str> {
    waiting(effects).into_iter().map(|(status, _)| status).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    DidNotHappen,
    Happened,
}

/// One transfer of which nobody knows whether it was credited.
async fn stops(system: &System, bank: &Arc<Bank>) {
    bank.credits.lock().extend([Goes::Lost]);
    let teller: Port<u32, u32> = system.port("bank/teller").unwrap();
    teller.submit(DOUBTFUL, CallOptions::new().key("it")).await.unwrap();
    assert_eq!(settled(system, "it").await, Fate::Unknown);
    assert_eq!(statuses(&system.effects()), ["left", "unknown"]);
    assert_eq!(bank.count(UndoDebit(DOUBTFUL)), 0);
}

async fn says(effects: &EffectsRef, word: Word) {
    let unknown = waiting(effects)[1].1;
    match word {
        Word::DidNotHappen => effects.did_not_happen(unknown).await.unwrap(),
        Word::Happened => effects.happened(unknown, &()).await.unwrap(),
    }
}

/// What has become of the debit, once nothing moves.
async fn goes_on(system: &System, bank: &Arc<Bank>, word: Word) {
    let effects = system.effects();
    assert_eq!(settled(system, "it").await, Fate::Unknown);
    if word == Word::Happened {
        // It cannot be undone, so that what came before stands until it is.
        assert_eq!(statuses(&effects), ["left", "left"]);
        assert_eq!(bank.count(UndoDebit(DOUBTFUL)), 0);
        effects.undone(waiting(&effects)[1].1).await.unwrap();
        settled(system, "it").await;
    }
    assert_eq!(waiting(&effects), [], "nothing is left");
    assert_eq!(bank.log(), [Debit(DOUBTFUL), Credit(DOUBTFUL), UndoDebit(DOUBTFUL)]);
}

#[test]
fn what_stands_is_undone_once_a_person_has_spoken_on_the_act_it_stopped_at() {
    for word in [Word::DidNotHappen, Word::Happened] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        runtime().block_on(async {
            let system = open(&bank, &store, false).await;
            stops(&system, &bank).await;
            says(&system.effects(), word).await;
            goes_on(&system, &bank, word).await;
        });
        runtime().block_on(async {
            let system = open(&bank, &store, false).await;
            settled(&system, "it").await;
            assert_eq!(bank.count(UndoDebit(DOUBTFUL)), 1, "not undone again");
        });
    }
}

#[test]
fn the_word_may_be_given_to_the_next_process_or_to_none() {
    for word in [Word::DidNotHappen, Word::Happened] {
        for upkeep in [false, true] {
            let (bank, store) = (Arc::new(Bank::default()), store());
            runtime().block_on(async {
                let system = open(&bank, &store, false).await;
                stops(&system, &bank).await;
            });
            if upkeep {
                runtime().block_on(async {
                    let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
                    says(&upkeep.effects(), word).await;
                    assert_eq!(bank.count(UndoDebit(DOUBTFUL)), 0, "no tool is asked here");
                });
            }
            runtime().block_on(async {
                let system = open(&bank, &store, false).await;
                if !upkeep {
                    settled(&system, "it").await;
                    assert_eq!(statuses(&system.effects()), ["left", "unknown"]);
                    says(&system.effects(), word).await;
                }
                goes_on(&system, &bank, word).await;
            });
        }
    }
}

/// A request that was rolled back where an undo failed, and was answered all the same.
#[test]
fn what_is_left_of_before_a_rollback_is_undone_and_what_was_done_since_stands() {
    for word_in in ["this process", "the next one", "none"] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        let done = [Debit(STUCK), Credit(STUCK), Told { done: false }];
        let undone = [&done[..], &[UndoDebit(STUCK)]].concat();
        let speaks = |effects: EffectsRef| async move {
            assert_eq!(statuses(&effects), ["left", "stuck"]);
            effects.undone(waiting(&effects)[1].1).await.unwrap();
        };
        runtime().block_on(async {
            let system = open(&bank, &store, true).await;
            bank.credits.lock().extend([Goes::Half, Goes::No]);
            let teller: Port<u32, u32> = system.port("bank/teller").unwrap();
            teller.submit(STUCK, CallOptions::new().key("it")).await.unwrap();
            assert_eq!(settled(&system, "it").await, Fate::Done);
            assert_eq!(bank.log(), done);
            if word_in == "this process" {
                speaks(system.effects()).await;
                settled(&system, "it").await;
                assert_eq!(bank.log(), undone);
            }
        });
        if word_in == "none" {
            let said = async { speaks(Upkeep::of(Arc::clone(&store)).unwrap().effects()).await };
            runtime().block_on(said);
        }
        for process in 0..2 {
            runtime().block_on(async {
                let system = open(&bank, &store, true).await;
                settled(&system, "it").await;
                if word_in == "the next one" && process == 0 {
                    assert_eq!(bank.log(), done);
                    speaks(system.effects()).await;
                    settled(&system, "it").await;
                }
                assert_eq!(bank.log(), undone, "{word_in}");
                assert_eq!(waiting(&system.effects()), []);
            });
        }
    }
}

#[test]
fn what_a_person_lets_stand_does_not_undo_what_was_left_before_it() {
    let (bank, store) = (Arc::new(Bank::default()), store());
    for process in 0..2 {
        runtime().block_on(async {
            let system = open(&bank, &store, false).await;
            if process == 0 {
                stops(&system, &bank).await;
                says(&system.effects(), Word::Happened).await;
                let credit = waiting(&system.effects())[1].1;
                system.effects().stands(credit).await.unwrap();
            }
            settled(&system, "it").await;
            assert_eq!(statuses(&system.effects()), ["left"]);
        });
    }
    assert_eq!(bank.log(), [Debit(DOUBTFUL), Credit(DOUBTFUL)]);
}

/// Credits for good, in its own code, and ends its process within that.
#[derive(Clone)]
struct Abroad(Arc<Bank>);

impl Behavior for Abroad {
    type Request = Order;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Compensable);
}

impl Stateless for Abroad {
    async fn serve(&self, _: &Order, _: &Context) -> Result<(), Fault> {
        self.0.hung.notify_one();
        std::future::pending().await
    }
}

/// Debits here, and credits abroad.
#[derive(Clone, Default)]
struct Sender(Arc<u32>);

impl Behavior for Sender {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        super::Teller::needs().needs::<Port<Order, ()>>("abroad")
    }
}

impl Stateful for Sender {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if let Turn::Performed(performed) = &turn {
            performed.get::<()>(0)?;
            self.0 = Arc::new(*self.0 + 1);
        }
        let undoer = ctx.port::<Order, ()>("undoer")?;
        Ok(Step::Perform(vec![match *self.0 {
            0 => {
                let bank = ctx.port::<Order, ()>("bank")?;
                Call::from(bank.effect(Debit(*amount)).undo(&undoer, UndoDebit(*amount)))
            }
            1 => Call::from(ctx.port::<Order, ()>("abroad")?.effect(Credit(*amount))),
            _ => return Ok(Step::Reply(*amount)),
        }]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sender", 1).with("stage", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("stage")?;
        Ok(())
    }
}

fn abroad(bank: &Arc<Bank>) -> SupervisorSpec {
    let (desk, undoes, far) =
        (super::Desk(Arc::clone(bank)), super::Desk(Arc::clone(bank)), Abroad(Arc::clone(bank)));
    SupervisorSpec::one_for_one("bank")
        .scope(Scope::Transaction)
        .child(ChildSpec::stateless("undoer", move || undoes.clone()).durable::<super::Desk>())
        .child(
            ChildSpec::stateless("bank", move || desk.clone())
                .effect(KIND)
                .recorded::<super::Desk>(),
        )
        .child(ChildSpec::stateless("abroad", move || far.clone()).durable::<Abroad>())
        .child(
            ChildSpec::stateful("sender", Sender::default)
                .durable::<Sender>()
                .checkpoint(Interval::Steps(1)),
        )
}

#[test]
fn the_word_on_a_request_in_doubt_is_one_on_the_act_it_was_asked_for() {
    let (bank, store) = (Arc::new(Bank::default()), store());
    let dying = Arc::new(Dying::new(&store, 1000, false));
    runtime().block_on(async {
        let kept: Arc<dyn Store> = Arc::clone(&dying) as _;
        let (system, _) = System::recover(abroad(&bank), kept).await.unwrap();
        let sender: Port<u32, u32> = system.port("bank/sender").unwrap();
        sender.submit(5_u32, CallOptions::new().key("it")).await.unwrap();
        bank.hung.notified().await;
        dying.dies_after(0);
    });
    runtime().block_on(async {
        let (system, recovered) = System::recover(abroad(&bank), Arc::clone(&store)).await.unwrap();
        let [in_doubt] = &recovered.in_doubt[..] else { panic!("{recovered:?}") };
        assert_eq!(in_doubt.child.as_str(), "bank/abroad");
        assert_eq!(settled(&system, "it").await, Fate::Unknown);
        assert_eq!(statuses(&system.effects()), ["left", "unknown"]);
        let mut events = system.events();
        system.did_not_happen(&in_doubt.key).await.unwrap();
        let undone = |event: &Event| matches!(event, Event::Effect { status: "compensated", .. });
        events.wait_for(undone).await.unwrap();
        assert_eq!(waiting(&system.effects()), []);
        assert_eq!(bank.log(), [Debit(5), UndoDebit(5)]);
    });
}

/// Whoever is not answered until then says it again to the next process.
const PATIENCE: Duration = Duration::from_secs(120);

/// Says what of this is open; whether a person has undone the debit by hand.
async fn says_all(system: &System, by_hand: bool) {
    let effects = system.effects();
    for (status, key) in waiting(&effects) {
        if status == "left" && by_hand {
            let _ = tokio::time::timeout(PATIENCE, effects.undone(key)).await;
        }
        if status == "unknown" {
            let _ = tokio::time::timeout(PATIENCE, effects.did_not_happen(key)).await;
        }
    }
}

#[test]
fn wherever_the_process_ends_around_a_word_it_is_undone_once_and_never_after_a_person() {
    for (by_hand, last) in [(false, false), (false, true), (true, false), (true, true)] {
        for commits in 0..20 {
            let (bank, store) = (Arc::new(Bank::default()), store());
            runtime().block_on(async {
                let system = open(&bank, &store, false).await;
                stops(&system, &bank).await;
            });
            let dying = Arc::new(Dying::new(&store, 1000, last));
            let kept: Arc<dyn Store> = Arc::clone(&dying) as _;
            runtime().block_on(async {
                let system = open(&bank, &kept, false).await;
                settled(&system, "it").await;
                dying.dies_after(commits);
                says_all(&system, by_hand).await;
                // Of a dead machine nothing comes any more.
                let _ = tokio::time::timeout(PATIENCE, settled(&system, "it")).await;
            });
            let lived = dying.left.load(Ordering::SeqCst) > 0;
            for _ in 0..2 {
                runtime().block_on(async {
                    let system = open(&bank, &store, false).await;
                    settled(&system, "it").await;
                    says_all(&system, by_hand).await;
                    settled(&system, "it").await;
                    assert_eq!(waiting(&system.effects()), [], "{by_hand} {last} {commits}");
                });
            }
            let undone = bank.count(UndoDebit(DOUBTFUL));
            assert_eq!(undone, usize::from(!by_hand), "{by_hand} {last} {commits}");
            if lived {
                assert!(commits > 1, "there are points between");
                break;
            }
            assert!(commits < 19, "it goes through in the end");
        }
    }
}

/// The process ends while several acts are undone after the word: the next one undoes the rest, unasked.
#[test]
fn wherever_the_process_ends_in_an_undo_of_several_acts_the_next_one_undoes_the_rest() {
    for last in [false, true] {
        for commits in 0..20 {
            let (bank, store) = (Arc::new(Bank::default()), store());
            runtime().block_on(async {
                let system = open(&bank, &store, false).await;
                bank.credits.lock().extend([Goes::Lost]);
                let teller: Port<u32, u32> = system.port("bank/teller").unwrap();
                teller.submit(TWICE, CallOptions::new().key("it")).await.unwrap();
                assert_eq!(settled(&system, "it").await, Fate::Unknown);
                assert_eq!(statuses(&system.effects()), ["left", "left", "unknown"]);
            });
            let dying = Arc::new(Dying::new(&store, 1000, last));
            let kept: Arc<dyn Store> = Arc::clone(&dying) as _;
            runtime().block_on(async {
                let system = open(&bank, &kept, false).await;
                settled(&system, "it").await;
                dying.dies_after(commits);
                says_all(&system, false).await;
                let _ = tokio::time::timeout(PATIENCE, settled(&system, "it")).await;
            });
            let lived = dying.left.load(Ordering::SeqCst) > 0;
            runtime().block_on(async {
                let system = open(&bank, &store, false).await;
                settled(&system, "it").await;
                says_all(&system, false).await;
                settled(&system, "it").await;
                assert_eq!(waiting(&system.effects()), [], "{last} {commits}");
            });
            for account in [TWICE, TWICE + 1] {
                assert_eq!(bank.count(UndoDebit(account)), 1, "{last} {commits}");
            }
            if lived {
                assert!(commits > 2, "there are points between");
                break;
            }
            assert!(commits < 19, "it goes through in the end");
        }
    }
}
