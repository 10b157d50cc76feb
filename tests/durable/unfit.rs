//! Children that cannot go on from what they have, or cannot start, in a program with a defect.

use std::sync::atomic::AtomicU64;

use mainstay::behavior::StartContext;
use mainstay::checkpoint::{Batch, Draft, Durability, Now};
use mainstay::error::ChildError;
use mainstay::family::{ChildStatus, Strategy};
use mainstay::id::ChildPath;
use mainstay::moment::Moment;
use mainstay::system::SupervisorRef;

use super::*;

/// What is wrong with the program.
#[derive(Default)]
struct Defects {
    /// So many starts fail.
    starts: AtomicU32,
    /// The state with this sum cannot be restored; all of them, if it is [`ALL`].
    restore: AtomicU64,
}

const ALL: u64 = u64::MAX;

#[derive(Clone)]
struct Sum {
    sum: Arc<u64>,
    defects: Arc<Defects>,
}

impl Behavior for Sum {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Sum {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        let fails = self.defects.starts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            if left == u32::MAX { Some(left) } else { left.checked_sub(1) }
        });
        if fails.is_ok() { Err(Fault::internal("no luck")) } else { Ok(()) }
    }

    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.sum = Arc::new(*self.sum + request);
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sum", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        let sum: Arc<u64> = snapshot.get("sum")?;
        let bad = self.defects.restore.load(Ordering::SeqCst);
        assert!(bad != ALL && bad != *sum, "not of {sum}");
        self.sum = sum;
        Ok(())
    }
}

fn sum(defects: &Arc<Defects>) -> ChildSpec {
    let sum = Sum { sum: Arc::default(), defects: Arc::clone(defects) };
    ChildSpec::stateful("sum", move || sum.clone()).effect(EffectKind::Pure).durable::<Sum>()
}

fn sound() -> Arc<Defects> {
    let defects = Defects::default();
    defects.restore.store(1_000, Ordering::SeqCst);
    Arc::new(defects)
}

async fn quarantined(events: &mut mainstay::event::EventStream) {
    let is = |event: &Event| matches!(event, Event::ChildQuarantined { .. });
    // By then it has been tried as often as it may.
    let waits = tokio::time::timeout(Duration::from_secs(600), events.wait_for(is));
    waits.await.unwrap().unwrap();
}

async fn ask(system: &System, child: &str, request: u64) -> u64 {
    system.port::<u64, u64>(child).unwrap().call(request).await.unwrap().value
}

#[test]
fn a_program_that_can_restore_nothing_sets_nothing_aside_and_says_so() {
    let (store, defects) = (store(), sound());
    runtime().block_on(async {
        let spec = || SupervisorSpec::one_for_one("desk").child(sum(&defects));
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        for request in [1, 2, 3] {
            ask(&system, "desk/sum", request).await;
        }
        let states = || store.checkpoints(&ChildPath::new("desk/sum")).unwrap().len();
        let (before, mut events) = (states(), system.events());
        assert!(before > 2);
        defects.restore.store(ALL, Ordering::SeqCst);
        system.kill("desk/sum").unwrap();
        quarantined(&mut events).await;
        let desk = system.supervisor("desk").unwrap();
        let told = desk.restart_child("sum").await.unwrap_err();
        let ChildError::StartFailed { cause, .. } = &told else { panic!("{told:?}") };
        let cause = cause.to_string();
        for part in ["no state can be restored", "not of 6", "none is set aside"] {
            assert!(cause.contains(part), "{cause}");
        }
        assert!(store.quarantined().unwrap().is_empty());
        assert_eq!(states(), before);
        // Mended, it has all that it had.
        defects.restore.store(1_000, Ordering::SeqCst);
        desk.restart_child("sum").await.unwrap();
        assert_eq!(ask(&system, "desk/sum", 1).await, 7);
    });
}

#[test]
fn a_state_that_cannot_be_restored_where_another_can_is_set_aside_still() {
    let (store, defects) = (store(), sound());
    runtime().block_on(async {
        let spec = || SupervisorSpec::one_for_one("desk").child(sum(&defects));
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        for request in [1, 2, 3] {
            ask(&system, "desk/sum", request).await;
        }
        defects.restore.store(6, Ordering::SeqCst);
        system.kill("desk/sum").unwrap();
        // It is done again on the one before.
        assert_eq!(ask(&system, "desk/sum", 1).await, 7);
        let bad = store.quarantined().unwrap();
        assert_eq!(bad.len(), 1);
        assert!(bad[0].bad.as_ref().unwrap().contains("not of 6"), "{bad:?}");
    });
}

#[test]
fn a_child_of_a_template_that_does_not_start_at_a_recovery_is_restarted_and_the_others_go_on() {
    let (store, defects) = (store(), sound());
    let others = sound();
    let spec = || {
        let (defects, others) = (Arc::clone(&defects), Arc::clone(&others));
        SupervisorSpec::one_for_one("desk")
            .template("weak", move |(): &()| sum(&defects))
            .template("other", move |(): &()| sum(&others))
    };
    let up = async || {
        let (system, recovered, events) =
            System::recover_observed(spec(), Arc::clone(&store), RecoverOptions::default())
                .await
                .unwrap();
        let desk: SupervisorRef = system.supervisor("desk").unwrap();
        (system, recovered, events, desk)
    };
    runtime().block_on(async {
        let (system, _, _, desk) = up().await;
        for (id, template) in [("a", "other"), ("weak", "weak"), ("z", "other")] {
            desk.start_from(template, id, &()).await.unwrap();
            assert_eq!(ask(&system, &format!("desk/{id}"), 5).await, 5);
        }
    });
    runtime().block_on(async {
        defects.starts.store(1, Ordering::SeqCst);
        let (system, recovered, mut events, _) = up().await;
        assert_eq!(recovered.made.len(), 3);
        for id in ["a", "weak", "z"] {
            assert_eq!(ask(&system, &format!("desk/{id}"), 1).await, 6, "{id}");
        }
        let again = |event: &Event| matches!(event, Event::Restarting { child, .. } if child.id() == "weak");
        events.wait_for(again).await.unwrap();
    });
    runtime().block_on(async {
        defects.starts.store(u32::MAX, Ordering::SeqCst);
        let (system, _, mut events, desk) = up().await;
        quarantined(&mut events).await;
        for id in ["a", "z"] {
            assert_eq!(ask(&system, &format!("desk/{id}"), 1).await, 7, "{id}");
        }
        let children = desk.which_children().await.unwrap();
        let aside = |it: &&mainstay::family::ChildInfo| it.status == ChildStatus::Quarantined;
        let aside: Vec<_> = children.iter().filter(aside).map(|it| &*it.id).collect();
        assert_eq!(aside, ["weak"]);
        defects.starts.store(0, Ordering::SeqCst);
        desk.restart_child("weak").await.unwrap();
        assert_eq!(ask(&system, "desk/weak", 1).await, 7);
    });
}

#[test]
fn children_of_a_template_whose_common_server_is_down_take_no_supervisor_down_with_them() {
    let strategies = [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll];
    // Those that are lazy find that out with their first requests.
    for (strategy, is_lazy) in strategies.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let (store, defects, others) = (store(), sound(), sound());
        let spec = || {
            let (defects, others) = (Arc::clone(&defects), Arc::clone(&others));
            let desk = match strategy {
                Strategy::OneForOne => SupervisorSpec::one_for_one("desk"),
                Strategy::RestForOne => SupervisorSpec::rest_for_one("desk"),
                Strategy::OneForAll => SupervisorSpec::one_for_all("desk"),
            };
            desk.child(sum(&others)).template("weak", move |(): &()| match sum(&defects) {
                weak if is_lazy => weak.lazy(),
                weak => weak,
            })
        };
        let weak = ["a", "b", "c"];
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            let desk = system.supervisor("desk").unwrap();
            for id in weak {
                desk.start_from("weak", id, &()).await.unwrap();
            }
            assert_eq!(ask(&system, "desk/sum", 1).await, 1);
        });
        runtime().block_on(async {
            defects.starts.store(u32::MAX, Ordering::SeqCst);
            let options = RecoverOptions::default();
            let (system, _, mut events) =
                System::recover_observed(spec(), Arc::clone(&store), options).await.unwrap();
            for id in weak {
                if is_lazy {
                    let port = system.port::<u64, u64>(format!("desk/{id}")).unwrap();
                    port.submit(1_u64, CallOptions::new()).await.unwrap();
                }
                quarantined(&mut events).await;
            }
            assert_eq!(ask(&system, "desk/sum", 1).await, 2, "{strategy}");
            // Nobody else has been restarted, and the next crash is the first.
            let again = |event: &Event| matches!(event, Event::Restarting { .. });
            system.kill("desk/sum").unwrap();
            let restart = events.wait_for(again).await.unwrap();
            assert!(
                matches!(&restart.event, Event::Restarting { child, restarts: 1, .. } if child.id() == "sum"),
                "{strategy} {restart:?}"
            );
            assert_eq!(ask(&system, "desk/sum", 1).await, 3, "{strategy}");
            defects.starts.store(0, Ordering::SeqCst);
            let desk = system.supervisor("desk").unwrap();
            desk.restart_child("b").await.unwrap();
            assert_eq!(ask(&system, "desk/b", 1).await, 1);
        });
    }
}

#[test]
fn who_is_let_go_is_told_by_the_process_whose_tree_starts() {
    let (store, defects, others) = (store(), sound(), sound());
    let desk = || SupervisorSpec::one_for_one("desk").child(sum(&defects));
    runtime().block_on(async {
        let others = Arc::clone(&others);
        let spec = desk().template("other", move |(): &()| sum(&others));
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        system.supervisor("desk").unwrap().start_from("other", "a", &()).await.unwrap();
    });
    let let_go = async || {
        let mut options = RecoverOptions::default();
        options.adopt_topology = true;
        let recovered = System::recover_with(desk(), Arc::clone(&store), options).await;
        recovered.map(|(_, recovered)| recovered.let_go.len())
    };
    runtime().block_on(async {
        defects.starts.store(1, Ordering::SeqCst);
        assert!(matches!(let_go().await, Err(RecoverError::Start(_))));
    });
    for told in [1, 0] {
        assert_eq!(runtime().block_on(let_go()).unwrap(), told);
    }
}

/// Leaves a state of the sum whose request in hand is these bytes.
fn in_hand(store: &Arc<dyn Store>, bytes: &[u8]) {
    let child = ChildPath::new("desk/sum");
    let last = store.checkpoints(&child).unwrap().remove(0).checkpoint;
    let now = Now { wall: last.created_at, moment: Moment::START };
    let snapshot = Snapshot::new("sum", 1).with("sum", Arc::new(7_u64));
    let draft = Draft::new(child, snapshot, now).after(&last).at(last.incarnation, last.step + 1);
    let draft =
        draft.topology(last.topology).mailbox_cut(last.mailbox_cut).envelope(bytes.to_vec());
    let batch = Batch::new().checkpoint(&draft.seal().unwrap());
    store.commit(batch, Durability::Sync).wait().unwrap();
}

/// What a request in hand may say, with one thing in it that it never does.
fn any_in_hand() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    use proptest::prelude::*;
    let keys = prop_oneof![Just("one"), Just("two"), Just("nobody's"), Just("")];
    let odd = prop_oneof![
        Just(serde_json::json!(null)),
        Just(serde_json::json!(-1)),
        Just(serde_json::json!(u64::MAX)),
        Just(serde_json::json!([])),
        Just(serde_json::json!("Later")),
        Just(serde_json::json!("")),
    ];
    let undo = prop_oneof![Just("No"), Just("Due"), Just("Done")];
    let fields = prop_oneof![Just("key"), Just("step"), Just("back"), Just("undo"), Just("other")];
    let said = (keys, 0..4_u64, any::<bool>(), undo, proptest::option::of((fields, odd)));
    let said = said.prop_map(|(key, step, back, undo, odd)| {
        let mut said = serde_json::json!({"key": key, "step": step, "back": back, "undo": undo});
        if let Some((field, odd)) = odd {
            said[field] = odd;
        }
        serde_json::to_vec(&said).unwrap()
    });
    prop_oneof![4 => said, 1 => proptest::collection::vec(any::<u8>(), 0..60)]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_a_state_says_of_its_request_in_hand_it_is_gone_on_with_or_refused_by_name(
        bytes in any_in_hand(),
    ) {
        let (store, defects) = (store(), sound());
        let spec = || SupervisorSpec::one_for_one("desk").child(sum(&defects));
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            let port = system.port::<u64, u64>("desk/sum").unwrap();
            for key in ["one", "two"] {
                port.call_with(2_u64, CallOptions::new().key(key)).await.unwrap();
            }
            system.stop().await;
        });
        in_hand(&store, &bytes);
        runtime().block_on(async {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            match System::recover(spec(), Arc::clone(&store)).await {
                Ok((system, _)) => {
                    let port = system.port::<u64, u64>("desk/sum").unwrap();
                    let asked = port.call_with(1_u64, CallOptions::new().key("three"));
                    let answer = tokio::time::timeout(Duration::from_secs(600), asked).await;
                    let sum = answer.unwrap_or_else(|_| panic!("no answer after {text}"));
                    assert!([5, 8].contains(&sum.unwrap().value), "{text}");
                }
                Err(error @ RecoverError::State { .. }) => {
                    let said = error.to_string();
                    assert!(said.contains("desk/sum"), "{text}: {said}");
                }
                Err(other) => panic!("{text}: {other}"),
            }
        });
    }
}
