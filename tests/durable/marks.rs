//! What a checkpoint says beside the state: the policy it was taken under, what had been spent, and how many
//! requests are in it; and what the next process makes of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{Budgets, Checkpoint, Digest, Interval, Scope, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fate::{Cost, Fate};
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::policy::budget::Limits;
use mainstay::policy::{Capabilities, Policy};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, Recovered, System};
use tokio::sync::Notify;

use super::{Tool, World, runtime, store};

/// Spends 6 tokens and 2 millionths in each of three steps.
#[derive(Clone)]
struct Spender(Arc<Hangs>, Arc<u64>);

/// How many second steps come to no end.
#[derive(Default)]
struct Hangs(AtomicU32, Notify);

impl Behavior for Spender {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Spender {
    async fn step(&mut self, _: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if !matches!(turn, Turn::First) && self.0.0.load(Ordering::SeqCst) > 0 {
            self.0.0.fetch_sub(1, Ordering::SeqCst);
            self.0.1.notify_one();
            std::future::pending::<()>().await;
        }
        ctx.spend(Cost { tokens: 6, money_micros: 2 });
        self.1 = Arc::new(*self.1 + 1);
        match *self.1 % 3 {
            0 => Ok(Step::Reply(*self.1)),
            _ => Ok(Step::Continue),
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("spender", 1).with("steps", Arc::clone(&self.1)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.1 = snapshot.get("steps")?;
        Ok(())
    }
}

/// How the tree differs from the plain one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum But {
    Nothing,
    Policy,
    Effect,
    AttemptTimeout,
    Scope,
    AllowList,
    Order,
    Guardrail,
}

const DIFFERENCES: [But; 7] = [
    But::Policy,
    But::Effect,
    But::AttemptTimeout,
    But::Scope,
    But::AllowList,
    But::Order,
    But::Guardrail,
];

fn spec(hangs: &Arc<Hangs>, but: But) -> SupervisorSpec {
    let made = Spender(Arc::clone(hangs), Arc::default());
    let spender = ChildSpec::stateful("spender", move || made.clone())
        .durable::<Spender>()
        .checkpoint(Interval::Steps(1));
    let spender = match but {
        But::Policy => spender.policy(Policy::playbook_exact()),
        But::Effect => spender.effect(EffectKind::Read),
        But::AttemptTimeout => spender.attempt_timeout(std::time::Duration::from_secs(7)),
        _ => spender,
    };
    let member = |id: &'static str| {
        let tool = Tool(Arc::<World>::default());
        ChildSpec::stateless(id, move || tool.clone()).effect(EffectKind::Read)
    };
    let first = match but {
        But::Guardrail => member("one").capabilities(Capabilities {
            guardrail: 0,
            context_window: Some(9),
            ..Capabilities::default()
        }),
        _ => member("one"),
    };
    let group = GroupSpec::tool("tools");
    let group = match but {
        But::Order => group.member_spec(member("two")).member_spec(first),
        _ => group.member_spec(first).member_spec(member("two")),
    };
    let group = match but {
        But::AllowList => group.allow("one", Vec::<String>::new()),
        _ => group,
    };
    let top = SupervisorSpec::one_for_one("top").child(spender).group(group);
    if but == But::Scope { top.scope(Scope::Session) } else { top }
}

async fn recover(
    hangs: &Arc<Hangs>,
    store: &Arc<dyn Store>,
    but: But,
) -> (System, Recovered, Port<u64, u64>) {
    let spec = spec(hangs, but);
    let (system, recovered) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port("top/spender").unwrap();
    (system, recovered, port)
}

/// The newest last.
fn taken(store: &Arc<dyn Store>) -> Vec<Arc<Checkpoint>> {
    let listed = store.checkpoints(&"top/spender".into()).unwrap();
    listed.into_iter().rev().map(|listed| listed.checkpoint).collect()
}

#[test]
fn a_checkpoint_says_what_was_spent_and_how_many_requests_are_in_it() {
    let (store, hangs) = (store(), Arc::<Hangs>::default());
    runtime().block_on(async {
        let (system, _, spender) = recover(&hangs, &store, But::Nothing).await;
        spender.call(0_u64).await.unwrap();
        spender.call(0_u64).await.unwrap();
        let told: Vec<_> = taken(&store)
            .iter()
            .map(|it| {
                (it.mailbox_cut, it.budgets.attempts, it.budgets.tokens, it.budgets.money_micros)
            })
            .collect();
        let of = |answered| [(answered, 1, 6, 2), (answered, 1, 12, 4), (answered + 1, 1, 18, 6)];
        assert_eq!(told, [of(0), of(1)].concat());
        // A line takes it from the child as it stands.
        system.checkpoint("top").await.unwrap();
        let last = taken(&store).pop().unwrap();
        assert_eq!((last.mailbox_cut, last.budgets), (2, Budgets::default()));
        assert_ne!(last.policy, Digest::NONE);
        let line = last.to_string();
        assert!(line.contains("2 requests answered") && line.contains("tokens 0"), "{line}");
    });
    // Counted over all processes.
    runtime().block_on(async {
        let (_system, recovered, spender) = recover(&hangs, &store, But::Nothing).await;
        assert_eq!(recovered.children[0].answered, 2);
        spender.call(0_u64).await.unwrap();
        assert_eq!(taken(&store).pop().unwrap().mailbox_cut, 3);
    });
}

#[test]
fn a_checkpoint_says_which_policy_it_was_taken_under() {
    let policy = |but| {
        let (store, hangs) = (store(), Arc::<Hangs>::default());
        runtime().block_on(async {
            let (_system, _, spender) = recover(&hangs, &store, but).await;
            spender.call(0_u64).await.unwrap();
        });
        let all = taken(&store);
        assert!(all.iter().all(|it| it.policy == all[0].policy), "{but:?}");
        all[0].policy.to_string()
    };
    let plain = policy(But::Nothing);
    assert_eq!(plain, policy(But::Nothing));
    // The same in every build, too: when this changes, every store is told that its policy has.
    assert_eq!(plain, "a915d38082e4ff1a34d89763ac352b3c4a2d4f23d1f3d0b5bf3f780f32d8d0e4");
    let mut others: Vec<_> = DIFFERENCES.into_iter().map(policy).chain([plain]).collect();
    others.sort();
    others.dedup();
    assert_eq!(others.len(), DIFFERENCES.len() + 1);
}

#[test]
fn a_state_of_another_policy_is_taken_up_and_that_is_told() {
    for but in [But::Nothing, But::Policy, But::AllowList] {
        let (store, hangs) = (store(), Arc::<Hangs>::default());
        runtime().block_on(async {
            let (_system, recovered, spender) = recover(&hangs, &store, But::Nothing).await;
            assert!(recovered.children.is_empty());
            assert_eq!(spender.call(0_u64).await.unwrap().value, 3);
        });
        runtime().block_on(async {
            let spec = spec(&hangs, but);
            let options = RecoverOptions::default();
            let (system, recovered, mut events) =
                System::recover_observed(spec, Arc::clone(&store), options).await.unwrap();
            assert_eq!(recovered.children[0].policy_changed, but != But::Nothing, "{but:?}");
            let port = system.port::<u64, u64>("top/spender").unwrap();
            assert_eq!(port.call(0_u64).await.unwrap().value, 6, "its state goes on");
            let mut told = Vec::new();
            while let Some(event) = events.try_next() {
                if let Event::PolicyChanged { child, checkpoint } = event.event {
                    told.push((child, checkpoint));
                }
            }
            let (child, checkpoint) = ("top/spender".into(), recovered.children[0].checkpoint);
            let expected = (but != But::Nothing).then_some((child, checkpoint));
            assert_eq!(told, Vec::from_iter(expected), "{but:?}");
        });
        // Its next states are of this policy.
        runtime().block_on(async {
            let (_system, recovered, _) = recover(&hangs, &store, but).await;
            assert!(!recovered.children[0].policy_changed, "{but:?}");
        });
    }
}

/// Fails with its second step. Once it has gone back it comes to no end in the first process, and fails once more
/// in the second.
#[derive(Clone)]
struct Returner(Arc<Hangs>, Arc<u64>, Arc<AtomicU32>);

impl Behavior for Returner {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Returner {
    async fn step(&mut self, _: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        match turn {
            Turn::First => {
                self.1 = Arc::new(*self.1 + 1);
                Ok(Step::Continue)
            }
            Turn::RolledBack(_) => {
                if self.0.0.load(Ordering::SeqCst) > 0 {
                    self.0.0.fetch_sub(1, Ordering::SeqCst);
                    self.0.1.notify_one();
                    std::future::pending::<()>().await;
                }
                if self.2.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err(Fault::network("nobody is there"));
                }
                Ok(Step::Reply(*self.1))
            }
            _ => Err(Fault::business("it cannot be done")),
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("returner", 1).with("steps", Arc::clone(&self.1)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.1 = snapshot.get("steps")?;
        Ok(())
    }
}

#[test]
fn what_was_spent_before_a_rollback_does_not_come_back_with_the_next_process() {
    for (limit, expected) in [(2, Fate::Failed), (3, Fate::Done)] {
        let (store, hangs) = (store(), Arc::<Hangs>::default());
        hangs.0.store(1, Ordering::SeqCst);
        let spec = || {
            let made = Returner(Arc::clone(&hangs), Arc::default(), Arc::default());
            let returner = ChildSpec::stateful("returner", move || made.clone())
                .durable::<Returner>()
                .checkpoint(Interval::Steps(1));
            SupervisorSpec::one_for_one("top").scope(Scope::Transaction).child(returner)
        };
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            let limits = Limits { attempts: Some(limit), ..Limits::default() };
            let options = CallOptions::new().key("one").budget(limits);
            let port = system.port::<u64, u64>("top/returner").unwrap();
            port.submit(0_u64, options).await.unwrap();
            // The second attempt, which begins where the first did.
            hangs.1.notified().await;
        });
        runtime().block_on(async {
            let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            assert_eq!(recovered.children[0].spent.attempts, 2);
            let mut events = system.events();
            let fate = loop {
                match system.journaled("one") {
                    Some(Journaled::Fated(fate, _)) => break fate,
                    _ => drop(events.next().await.unwrap()),
                }
            };
            assert_eq!(fate, expected, "{limit}");
        });
    }
}

#[test]
fn what_was_spent_does_not_come_back_with_the_next_process() {
    for (limit, done) in [(6, false), (13, true)] {
        let (store, hangs) = (store(), Arc::<Hangs>::default());
        hangs.0.store(1, Ordering::SeqCst);
        runtime().block_on(async {
            let (_system, _, spender) = recover(&hangs, &store, But::Nothing).await;
            let limits = Limits { tokens: Some(limit), ..Limits::default() };
            let options = CallOptions::new().key("one").budget(limits);
            spender.submit(0_u64, options).await.unwrap();
            hangs.1.notified().await;
        });
        runtime().block_on(async {
            let (system, recovered, _) = recover(&hangs, &store, But::Nothing).await;
            let spent = recovered.children[0].spent;
            assert_eq!((spent.attempts, spent.tokens, spent.money_micros), (1, 6, 2));
            let mut events = system.events();
            let fate = loop {
                match system.journaled("one") {
                    Some(Journaled::Fated(fate, _)) => break fate,
                    _ => drop(events.next().await.unwrap()),
                }
            };
            assert_eq!(fate, if done { Fate::Done } else { Fate::Failed }, "{limit}");
            if done {
                // In both processes together.
                let spent = taken(&store).pop().unwrap().budgets;
                assert_eq!((spent.attempts, spent.tokens), (1, 18));
            }
        });
    }
}
