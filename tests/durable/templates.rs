//! Durable children that are started while the system runs, from templates.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use mainstay::behavior::StartContext;
use mainstay::checkpoint::{Batch, Durability, Pin, Scope, Wall};
use mainstay::error::{
    ChildError, QuarantineError, RecoverError, SpecError, StartError, TemplateError,
};
use mainstay::id::ChildPath;
use mainstay::spec::RestartType;
use mainstay::system::{Recovered, SupervisorRef, To, Upkeep};

use super::moody::{Mood, Moody};
use super::*;

/// Adds up what it is asked, from `first` on; hangs when it is asked 77, until the process ends, and dies of 66.
#[derive(Clone)]
struct Sum(Arc<u64>);

impl Behavior for Sum {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Sum {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        if *self.0 == 13 { Err(Fault::internal("no luck")) } else { Ok(()) }
    }

    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        match request {
            66 => panic!("66"),
            77 => std::future::pending().await,
            _ => {}
        }
        self.0 = Arc::new(*self.0 + request);
        Ok(Step::Reply(*self.0))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sum", 1).with("sum", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("sum")?;
        Ok(())
    }
}

fn sum(first: u64) -> ChildSpec {
    ChildSpec::stateful("", move || Sum(Arc::new(first)))
        .effect(EffectKind::Pure)
        .attempt_timeout(Duration::from_secs(3600))
}

fn pool() -> SupervisorSpec {
    SupervisorSpec::dynamic("pool")
        .intensity(1, Duration::from_secs(5))
        .template("sum", |first: &u64| sum(*first).durable::<Sum>())
        .template("other", |first: &u64| sum(1000 + *first).durable::<Sum>())
        .template("brief", |first: &u64| sum(*first).durable::<Sum>().temporary())
        .template("plain", |first: &u64| sum(*first))
}

fn desk() -> SupervisorSpec {
    SupervisorSpec::one_for_one("desk")
        .intensity(10, Duration::from_secs(5))
        .child(ChildSpec::stateful("fixed", || Sum(Arc::new(0))).durable::<Sum>())
        .supervisor(pool())
}

async fn up(store: &Arc<dyn Store>) -> (System, Recovered, SupervisorRef) {
    let (system, recovered) = System::recover(desk(), Arc::clone(store)).await.unwrap();
    let pool = system.supervisor("desk/pool").unwrap();
    (system, recovered, pool)
}

fn port(system: &System, id: &str) -> Port<u64, u64> {
    system.port::<u64, u64>(format!("desk/pool/{id}")).unwrap()
}

async fn ask(system: &System, id: &str, request: u64) -> u64 {
    port(system, id).call(request).await.unwrap().value
}

async fn delete(pool: &SupervisorRef, id: &str) {
    pool.terminate_child(id).await.unwrap();
    pool.delete_child(id).await.unwrap();
}

/// A person holds the newest state of this child.
fn pin(store: &Arc<dyn Store>, child: &str) {
    let newest = store.checkpoints(&ChildPath::new(child)).unwrap().remove(0);
    let (owner, reason) = ("ann".to_owned(), "to look at".to_owned());
    let (since, until) = (newest.checkpoint.created_at, Wall(u64::MAX));
    let batch = Batch::new().pin(newest.checkpoint.id, Pin { owner, reason, since, until });
    store.commit(batch, Durability::Sync).wait().unwrap();
}

fn records(store: &Arc<dyn Store>, kind: &str) -> usize {
    let all = store.scan("mainstay", 1, usize::MAX).unwrap();
    let kind = format!("{{\"{kind}\":").into_bytes();
    all.iter().filter(|it| it.bytes.windows(kind.len()).any(|part| part == kind)).count()
}

#[test]
fn a_child_of_a_template_survives_the_process_with_its_state_and_its_open_requests() {
    let store = store();
    runtime().block_on(async {
        let dying = Arc::new(Dying::new(&store, u32::MAX, false));
        let (system, recovered, pool) = up(&(Arc::clone(&dying) as Arc<dyn Store>)).await;
        assert!(recovered.made.is_empty());
        let path = pool.start_from("sum", "b", &100_u64).await.unwrap();
        assert_eq!(path, ChildPath::new("desk/pool/b"));
        pool.start_from("other", "a", &1_u64).await.unwrap();
        assert_eq!(ask(&system, "b", 5).await, 105);
        assert!(system.tree().find(&path).unwrap().is_durable());
        // Both are accepted, and nobody hears of more.
        dying.dies_after(2);
        port(&system, "a").submit(77_u64, CallOptions::new().key("hangs")).await.unwrap();
        port(&system, "b").submit(2_u64, CallOptions::new().key("two")).await.unwrap();
    });
    runtime().block_on(async {
        let (system, recovered, _) = up(&store).await;
        // The first that was started comes first.
        let made: Vec<_> = recovered.made.iter().map(|path| path.id().to_owned()).collect();
        assert_eq!(made, ["b", "a"]);
        assert_eq!(recovered.requests, 2);
        assert_eq!(ask(&system, "b", 1).await, 108);
        let two = Journaled::Fated(Fate::Done, Some("107".to_owned()));
        assert_eq!(system.journaled("two"), Some(two));
        assert_eq!(system.journaled("hangs"), Some(Journaled::Open));
    });
    // And once more, with what this process has made of it.
    runtime().block_on(async {
        let (system, recovered, _) = up(&store).await;
        assert_eq!((recovered.made.len(), recovered.requests), (2, 1));
        assert_eq!(ask(&system, "b", 1).await, 109);
        system.stop().await;
    });
    assert_eq!((records(&store, "made"), records(&store, "unmade")), (2, 0));
}

#[test]
fn a_child_that_was_deleted_does_not_come_back_and_leaves_its_path_clean() {
    let store = store();
    runtime().block_on(async {
        let (system, _, pool) = up(&store).await;
        pool.start_from("sum", "a", &100_u64).await.unwrap();
        assert_eq!(ask(&system, "a", 5).await, 105);
        // One that a person holds stays.
        pin(&store, "desk/pool/a");
        port(&system, "a").submit(77_u64, CallOptions::new().key("hangs")).await.unwrap();
        port(&system, "a").submit(1_u64, CallOptions::new().key("waits")).await.unwrap();
        delete(&pool, "a").await;
        for key in ["hangs", "waits"] {
            assert!(matches!(system.journaled(key), Some(Journaled::Fated(Fate::Stopped, _))));
        }
        assert_eq!(records(&store, "unmade"), 1);
    });
    runtime().block_on(async {
        let (system, recovered, pool) = up(&store).await;
        assert!(recovered.made.is_empty() && recovered.requests == 0, "{recovered:?}");
        assert!(system.port::<u64, u64>("desk/pool/a").is_err());
        // Another takes nothing up, here or in the next process.
        pool.start_from("other", "a", &0_u64).await.unwrap();
        assert_eq!(store.checkpoints(&ChildPath::new("desk/pool/a")).unwrap().len(), 1);
        system.kill("desk/pool/a").unwrap();
    });
    runtime().block_on(async {
        let (system, recovered, pool) = up(&store).await;
        assert_eq!((recovered.made.len(), recovered.children.len()), (1, 0), "{recovered:?}");
        assert!(recovered.missing.is_empty() && recovered.replayed.is_empty());
        assert_eq!(ask(&system, "a", 1).await, 1001);
        delete(&pool, "a").await;
        pool.start_from("sum", "a", &7_u64).await.unwrap();
    });
    runtime().block_on(async {
        let (system, _, _) = up(&store).await;
        assert_eq!(ask(&system, "a", 1).await, 8);
    });
}

#[test]
fn wherever_the_process_ends_a_start_and_a_deletion_are_whole_or_not() {
    let mut ends = 0;
    for last_commit_is_made in [false, true] {
        for limit in 0.. {
            let inner = store();
            let told = Arc::new(Mutex::new(BTreeSet::new()));
            let dying = Arc::new(Dying::new(&inner, limit, last_commit_is_made));
            let finished = runtime().block_on(async {
                let store: Arc<dyn Store> = Arc::clone(&dying) as Arc<dyn Store>;
                let work = async {
                    let (system, _, pool) = up(&store).await;
                    pool.start_from("sum", "a", &100_u64).await.unwrap();
                    told.lock().insert("started");
                    ask(&system, "a", 5).await;
                    told.lock().insert("answered");
                    port(&system, "a")
                        .submit(77_u64, CallOptions::new().key("hangs"))
                        .await
                        .unwrap();
                    told.lock().insert("deleting");
                    delete(&pool, "a").await;
                    told.lock().insert("deleted");
                    pool.start_from("other", "a", &0_u64).await.unwrap();
                    told.lock().insert("again");
                };
                tokio::time::timeout(Duration::from_secs(60), work).await.is_ok()
            });
            runtime().block_on(async {
                let (system, recovered, _) = up(&inner).await;
                let told = told.lock().clone();
                let is = |what| told.contains(what);
                let there = recovered.made.len();
                assert!(there == 1 || !is("started") || is("deleting"), "{limit} {told:?}");
                assert!(there == 1 || !is("again"), "{limit} {told:?}");
                if there == 1 {
                    // A request that hangs is in hand: it is not asked.
                    if system.journaled("hangs") != Some(Journaled::Open) {
                        let found = ask(&system, "a", 0).await;
                        let (first, second) = ([100, 105], 1000);
                        let fits = if is("deleted") {
                            found == second
                        } else if is("answered") {
                            found == 105
                        } else {
                            first.contains(&found)
                        };
                        assert!(fits, "{found}, {limit} {told:?}");
                    }
                } else {
                    assert_ne!(system.journaled("hangs"), Some(Journaled::Open));
                }
            });
            ends += 1;
            if finished {
                break;
            }
        }
    }
    assert!(ends > 14, "only {ends} places to end at");
}

#[test]
fn a_child_that_is_written_down_and_was_not_started_is_started_by_the_next_process() {
    let inner = store();
    runtime().block_on(async {
        let dying = Arc::new(Dying::new(&inner, u32::MAX, true));
        let (_system, _, pool) = up(&(Arc::clone(&dying) as Arc<dyn Store>)).await;
        dying.dies_after(0);
        let start = pool.start_from("sum", "a", &3_u64);
        assert!(tokio::time::timeout(Duration::from_secs(9), start).await.is_err());
        assert_eq!(
            pool.count_children().await.unwrap().specs,
            0,
            "nothing before the store's answer"
        );
    });
    runtime().block_on(async {
        let (system, recovered, _) = up(&inner).await;
        assert_eq!(recovered.made.len(), 1);
        assert_eq!(ask(&system, "a", 1).await, 4);
    });
}

#[test]
fn a_start_that_fails_or_is_refused_leaves_no_record() {
    let store = store();
    runtime().block_on(async {
        let (system, _, pool) = up(&store).await;
        let failed = pool.start_from("sum", "a", &13_u64).await;
        assert!(
            matches!(&failed, Err(StartError::Child { child, .. }) if child.id() == "a"),
            "{failed:?}"
        );
        assert_eq!((records(&store, "made"), records(&store, "unmade")), (1, 1));
        // Its id is free again.
        pool.start_from("sum", "a", &1_u64).await.unwrap();
        let path = ChildPath::new("desk/pool/a");
        let taken = pool.start_from("other", "a", &1_u64).await;
        assert_eq!(taken, Err(StartError::AlreadyStarted(path.clone())));
        pool.terminate_child("a").await.unwrap();
        let taken = pool.start_from("other", "a", &1_u64).await;
        assert_eq!(taken, Err(StartError::AlreadyPresent(path)));
        pool.restart_child("a").await.unwrap();
        pool.start_child(sum(0).with_id("plain")).await.unwrap();
        let taken = pool.start_from("sum", "plain", &1_u64).await;
        assert!(matches!(taken, Err(StartError::AlreadyStarted(_))), "{taken:?}");
        let bad = pool.start_from("sum", "a/b", &1_u64).await;
        assert!(matches!(bad, Err(StartError::Spec(SpecError::InvalidId { .. }))), "{bad:?}");
        assert_eq!(records(&store, "made"), 2);
        // As one that needs none.
        pool.start_from("plain", "p", &1_u64).await.unwrap();
        assert_eq!((ask(&system, "p", 1).await, records(&store, "made")), (2, 2));
    });
    runtime().block_on(async {
        let (_, recovered, _) = up(&store).await;
        assert_eq!(recovered.made, [ChildPath::new("desk/pool/a")]);
    });
}

#[test]
fn a_start_that_nobody_carries_out_leaves_no_record() {
    let store = store();
    let spec =
        || desk_of(Some(pool().max_children(NonZeroUsize::MIN).restart(RestartType::Temporary)));
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let pool = system.supervisor("desk/pool").unwrap();
        pool.start_from("sum", "a", &1_u64).await.unwrap();
        let full = pool.start_from("sum", "b", &1_u64).await;
        assert!(matches!(full, Err(StartError::MaxChildren { limit: 1, .. })), "{full:?}");
        assert_eq!((records(&store, "made"), records(&store, "unmade")), (2, 1));
        let desk = system.supervisor("desk").unwrap();
        desk.terminate_child("pool").await.unwrap();
        let gone = pool.start_from("sum", "c", &1_u64).await;
        assert!(matches!(gone, Err(StartError::SupervisorGone(_))), "{gone:?}");
        assert_eq!((records(&store, "made"), records(&store, "unmade")), (3, 2));
    });
    runtime().block_on(async {
        // Its supervisor stands in the spec, and so it is there again.
        let (_, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.made, [ChildPath::new("desk/pool/a")]);
    });
}

#[test]
fn what_cannot_be_made_is_refused_by_name() {
    let store = store();
    runtime().block_on(async {
        let spec = desk().template("f", |_: &f64| sum(1).durable::<Sum>());
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let (desk, pool) =
            (system.supervisor("desk").unwrap(), system.supervisor("desk/pool").unwrap());
        let said = |result: Result<ChildPath, StartError>| result.unwrap_err().to_string();
        assert_eq!(
            said(pool.start_from("nobody", "a", &1_u64).await),
            "supervisor \"desk/pool\" has no template \"nobody\"; it has sum, other, brief, plain"
        );
        assert_eq!(
            said(pool.start_from("sum", "a", &1_i8).await),
            "template \"sum\" of \"desk/pool\" takes u64, not i8"
        );
        let nan = said(desk.start_from("f", "a", &f64::NAN).await);
        assert!(nan.starts_with("child \"desk/a\" cannot be made from template \"f\""), "{nan}");
        let fixed = desk.start_from("f", "fixed", &1.0).await;
        assert_eq!(fixed, Err(StartError::AlreadyStarted(ChildPath::new("desk/fixed"))));
        assert_eq!(records(&store, "made"), 0);

        // Deleted, it comes back with its supervisor.
        desk.terminate_child("fixed").await.unwrap();
        desk.delete_child("fixed").await.unwrap();
        assert!(desk.start_from("f", "fixed", &1.0).await.is_err());

        let two = desk_with_two().validate().unwrap_err().to_string();
        assert!(two.contains("a template \"sum\"") && two.contains("\"pool\""), "{two}");

        let system = System::start(self::pool()).await.unwrap();
        let refused = system.supervisor("pool").unwrap().start_from("sum", "a", &1_u64).await;
        let path = "pool/a".to_owned();
        assert_eq!(refused, Err(StartError::Spec(SpecError::NoStore { path })));
    });
}

fn desk_with_two() -> SupervisorSpec {
    pool().template("sum", |first: &u64| sum(*first))
}

#[test]
fn a_record_that_does_not_fit_the_tree_is_refused_by_name_and_can_be_let_go() {
    let no_template = || {
        let pool = SupervisorSpec::dynamic("pool").template("new", |_: &u64| sum(0));
        desk_of(Some(pool))
    };
    let other_arguments = || {
        let pool =
            SupervisorSpec::dynamic("pool").template("sum", |_: &String| sum(0).durable::<Sum>());
        desk_of(Some(pool))
    };
    let not_durable =
        || desk_of(Some(SupervisorSpec::dynamic("pool").template("sum", |_: &u64| sum(0))));
    let panics = || {
        let pool = SupervisorSpec::dynamic("pool").template("sum", |first: &u64| {
            assert!(*first > 9, "too small");
            sum(*first)
        });
        desk_of(Some(pool))
    };
    let id_taken = || desk_of(Some(pool().child(sum(0).with_id("a"))));
    let cases: [(&dyn Fn() -> SupervisorSpec, &str); 6] = [
        (&|| desk_of(None), "no such supervisor"),
        (&no_template, "has no template \"sum\"; it has new"),
        (&other_arguments, "invalid type: integer"),
        (&not_durable, "not durable any more"),
        (&panics, "too small"),
        (&id_taken, "stands twice"),
    ];
    for (spec, why) in cases {
        let store = store();
        runtime().block_on(async {
            let (system, _, pool) = up(&store).await;
            pool.start_from("sum", "a", &5_u64).await.unwrap();
            port(&system, "a").submit(77_u64, CallOptions::new().key("open")).await.unwrap();
        });
        runtime().block_on(async {
            let before = store.scan("mainstay", 1, usize::MAX).unwrap().len();
            let refused = System::recover(spec(), Arc::clone(&store)).await.unwrap_err();
            let RecoverError::Child { child, template, supervisor, .. } = &refused else {
                panic!("{refused:?}")
            };
            let names = (child.as_str(), &**template, supervisor.as_str());
            assert_eq!(names, ("desk/pool/a", "sum", "desk/pool"));
            let said = refused.to_string();
            // Whoever reads it may have a command line, and no options of ours.
            assert!(said.contains(why) && !said.contains("adopt_topology"), "{said}");
            assert_eq!(store.scan("mainstay", 1, usize::MAX).unwrap().len(), before);
            let mut options = RecoverOptions::default();
            options.adopt_topology = true;
            let (_, recovered) =
                System::recover_with(spec(), Arc::clone(&store), options).await.unwrap();
            let gone = &recovered.let_go[0];
            assert_eq!((gone.child.as_str(), &*gone.arguments), ("desk/pool/a", "5"));
            assert!(!format!("{gone:?}").contains("arguments"), "{gone:?}");
            assert_eq!(recovered.set_aside.len(), 1, "{recovered:?}");
        });
        runtime().block_on(async {
            // Nothing is left that would be refused.
            let (_, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            assert!(recovered.let_go.is_empty() && recovered.made.is_empty());
        });
    }
}

fn desk_of(pool: Option<SupervisorSpec>) -> SupervisorSpec {
    let desk = SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateful("fixed", || Sum(Arc::new(0))).durable::<Sum>());
    match pool {
        Some(pool) => desk.supervisor(pool),
        None => desk,
    }
}

#[test]
fn a_restart_of_its_supervisor_keeps_a_child_of_a_template_with_its_requests() {
    let store = store();
    runtime().block_on(async {
        let (system, _, pool) = up(&store).await;
        pool.start_from("sum", "a", &100_u64).await.unwrap();
        pool.start_from("plain", "p", &0_u64).await.unwrap();
        assert_eq!(ask(&system, "a", 5).await, 105);
        let (a, mut events) = (port(&system, "a"), system.events());
        // The supervisor's intensity is exceeded, and not by this child.
        pool.start_child(sum(0).with_id("c").child_limit(9, Duration::from_secs(5))).await.unwrap();
        let waits = {
            let a = a.clone();
            tokio::spawn(async move { a.call(1_u64).await })
        };
        tokio::task::yield_now().await;
        for id in ["c", "p", "c"] {
            drop(system.kill(format!("desk/pool/{id}")));
        }
        loop {
            let event = events.next().await.unwrap().event;
            if matches!(event, Event::SupervisorEnded { supervisor, .. } if supervisor.id() == "pool") {
                break;
            }
        }
        assert_eq!(waits.await.unwrap().unwrap().value, 106);
        assert_eq!(a.call(1_u64).await.unwrap().value, 107);
        assert!(system.port::<u64, u64>("desk/pool/p").is_err(), "it had nothing to come back from");
        assert_eq!(pool.count_children().await.unwrap().specs, 1);
        // It is a child of the new life like any other.
        delete(&pool, "a").await;
        assert_eq!(records(&store, "unmade"), 1);
    });
}

#[test]
fn a_temporary_child_that_ends_is_gone_for_the_next_process_too() {
    let store = store();
    runtime().block_on(async {
        let (system, _, pool) = up(&store).await;
        pool.start_from("brief", "a", &1_u64).await.unwrap();
        pool.start_from("brief", "b", &1_u64).await.unwrap();
        system.kill("desk/pool/a").unwrap();
        // Its id is free once its end is written.
        pool.start_from("brief", "a", &5_u64).await.ok();
        pool.terminate_child("b").await.unwrap();
        assert!(matches!(pool.delete_child("b").await, Err(ChildError::NotFound(_))));
        system.stop().await;
    });
    runtime().block_on(async {
        // One that a stop in order ends is not gone.
        let (system, recovered, _) = up(&store).await;
        assert_eq!(recovered.made.len(), 1, "{recovered:?}");
        assert_eq!(ask(&system, "a", 1).await, 6);
    });
}

#[test]
fn a_store_that_refuses_the_record_starts_nobody_and_one_that_refuses_the_end_is_told() {
    runtime().block_on(async {
        let moody = Moody::new();
        let store: Arc<dyn Store> = Arc::clone(&moody) as Arc<dyn Store>;
        let (system, _, pool) = up(&store).await;
        moody.refuse(1);
        let refused = pool.start_from("sum", "a", &1_u64).await;
        let Err(StartError::Template(TemplateError::Store { child, .. })) = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(child, &ChildPath::new("desk/pool/a"));
        assert_eq!(pool.count_children().await.unwrap().specs, 0);
        pool.start_from("sum", "a", &1_u64).await.unwrap();
        assert_eq!(ask(&system, "a", 1).await, 2);
        pool.terminate_child("a").await.unwrap();
        moody.refuse(1);
        let told = pool.delete_child("a").await;
        assert!(
            matches!(&told, Err(ChildError::Recorded(child, _)) if child.id() == "a"),
            "{told:?}"
        );
        pool.start_from("sum", "a", &5_u64).await.unwrap();
        assert_eq!(ask(&system, "a", 1).await, 6);
    });
}

/// A child `a` of template `sum` has died twice of the request `bad`, which is set aside.
async fn set_aside(store: &Arc<dyn Store>) -> (System, SupervisorRef) {
    let spec = desk_of(Some(pool().intensity(10, Duration::from_secs(5))));
    let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let pool = system.supervisor("desk/pool").unwrap();
    pool.start_from("sum", "a", &1_u64).await.unwrap();
    let dead = port(&system, "a").call_with(66_u64, CallOptions::new().key("bad")).await;
    assert!(dead.is_err() && system.quarantine().requests().len() == 1, "{dead:?}");
    (system, pool)
}

#[test]
fn what_a_child_of_a_template_has_left_set_aside_is_released_while_no_system_runs() {
    let store = store();
    runtime().block_on(async { drop(set_aside(&store).await) });
    runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        upkeep.release("bad").await.unwrap();
        assert_eq!(upkeep.open_requests(), 1);
    });
    runtime().block_on(async {
        let (_, recovered, _) = up(&store).await;
        assert_eq!((recovered.made.len(), recovered.requests), (1, 1));
    });
}

#[test]
fn what_a_deleted_child_has_left_set_aside_is_not_for_another_of_its_path() {
    let store = store();
    let why = |released: Result<(), QuarantineError>| match released {
        Err(QuarantineError::Refused { id, why }) if &*id == "bad" => why,
        other => panic!("{other:?}"),
    };
    let deleted = "its child was deleted, or has ended for good, and another has its path";
    runtime().block_on(async {
        let (system, pool) = set_aside(&store).await;
        delete(&pool, "a").await;
        let quarantine = system.quarantine();
        let nobody = why(quarantine.release("bad").await.map(drop));
        assert_eq!(nobody, "nothing durable is at \"desk/pool/a\"");
        pool.start_from("other", "a", &0_u64).await.unwrap();
        assert_eq!(why(quarantine.release("bad").await.map(drop)), deleted);
    });
    runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        assert_eq!(why(upkeep.release("bad").await), deleted);
    });
    runtime().block_on(async {
        let (system, recovered, _) = up(&store).await;
        assert_eq!((recovered.made.len(), recovered.requests), (1, 0));
        let quarantine = system.quarantine();
        assert_eq!(why(quarantine.release("bad").await.map(drop)), deleted);
        assert!(quarantine.export("bad").unwrap().contains("\"request\":66"));
        quarantine.discard("bad").await.unwrap();
        assert!(quarantine.requests().is_empty());
    });
}

#[test]
fn a_deletion_that_its_supervisor_does_not_live_to_see_the_end_of_is_answered() {
    runtime().block_on(async {
        let moody = Moody::new();
        let store: Arc<dyn Store> = Arc::clone(&moody) as Arc<dyn Store>;
        let top = SupervisorSpec::one_for_all("top")
            .intensity(10, Duration::from_secs(5))
            .child(ChildSpec::stateful("falls", || Sum(Arc::new(0))))
            .supervisor(pool());
        let (system, _) = System::recover(top, Arc::clone(&store)).await.unwrap();
        let pool = system.supervisor("top/pool").unwrap();
        for refused in [false, true] {
            pool.start_from("sum", "a", &1_u64).await.unwrap();
            pool.terminate_child("a").await.unwrap();
            moody.turn(Mood::Silent);
            let deletes = {
                let pool = pool.clone();
                tokio::spawn(async move { pool.delete_child("a").await })
            };
            moody.held(1).await;
            // The supervisor that was asked is restarted, as its sibling is.
            let mut events = system.events();
            system.kill("top/falls").unwrap();
            loop {
                let event = events.next().await.unwrap().event;
                if matches!(event, Event::SupervisorEnded { supervisor, .. } if supervisor.id() == "pool")
                {
                    break;
                }
            }
            while pool.count_children().await.is_err() {
                tokio::task::yield_now().await;
            }
            assert!(!deletes.is_finished(), "the store has not answered");
            moody.turn(if refused { Mood::Full } else { Mood::Well });
            let told = deletes.await.unwrap();
            let fits = match &told {
                Ok(()) => !refused,
                Err(ChildError::Recorded(..)) => refused,
                _ => false,
            };
            assert!(fits, "{told:?}");
            assert_eq!(pool.count_children().await.unwrap().specs, 0);
            moody.turn(Mood::Well);
        }
    });
}

#[test]
fn a_rollback_takes_the_children_there_are_and_a_line_is_not_held_up_by_one_that_is_gone() {
    let store = store();
    let spec = || desk().scope(Scope::Session);
    let line = runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let pool = system.supervisor("desk/pool").unwrap();
        for id in ["gone", "other", "stays"] {
            pool.start_from("sum", id, &100_u64).await.unwrap();
            assert_eq!(ask(&system, id, 1).await, 101);
        }
        let line = system.checkpoint("desk").await.unwrap();
        delete(&pool, "gone").await;
        delete(&pool, "other").await;
        pool.start_from("other", "other", &0_u64).await.unwrap();
        pool.start_from("sum", "later", &50_u64).await.unwrap();
        for (id, sum) in [("stays", 102), ("other", 1001), ("later", 51)] {
            assert_eq!(ask(&system, id, 1).await, sum);
        }
        line
    });
    // In this process's next one, which knows nothing of those that are gone.
    runtime().block_on(async {
        let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.made.len(), 3);
        let report = system.rollback("desk", To::Line(line)).await.unwrap();
        let mut back: Vec<_> =
            report.children.iter().map(|(path, id)| (path.id().to_owned(), id.is_some())).collect();
        back.sort();
        let all = [("fixed", true), ("later", false), ("other", false), ("stays", true)];
        let all: Vec<_> = all.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect();
        assert_eq!(back, all);
        // What they had done since is done again, and nothing of those that had their paths.
        for (id, sum) in [("stays", 102), ("other", 1001), ("later", 51)] {
            assert_eq!(ask(&system, id, 0).await, sum, "{id}");
        }
        let pool = system.supervisor("desk/pool").unwrap();
        delete(&pool, "stays").await;
        let none = system.rollback("desk/pool/other", To::Latest).await;
        assert!(none.is_ok(), "{none:?}");
        assert_eq!(ask(&system, "other", 0).await, 1001);
    });
}
