//! Requests to a group survive the process: they are journaled at the group, whoever serves, delivered
//! again, and have one fate.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mainstay::checkpoint::{FileStore, MemoryStore, Store};
use mainstay::error::{CallError, RecoverError, StartError, Unavailable};
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{Class, EffectKind};
use mainstay::journal::Journaled;
use mainstay::policy::{Hedge, Policy};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, Recovered, System};
use mainstay_actors::scripted::{Cue, Script, Scripted};
use tokio::runtime::Runtime;

use dying::Dying;

#[path = "common/dying.rs"]
mod dying;

type Model = Scripted<String, String>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn group(first: &Script, second: &Script) -> GroupSpec {
    let member = |script: &Script, id| {
        script.stateless(id).effect(EffectKind::Idempotent).concurrency(8).mailbox(4)
    };
    GroupSpec::model("llm")
        .member_spec(member(first, "first"))
        .member_spec(member(second, "second"))
        .policy(Policy::playbook_exact())
        .durable::<Model>()
}

fn spec(first: &Script, second: &Script) -> SupervisorSpec {
    SupervisorSpec::one_for_one("app").group(group(first, second))
}

async fn recover(
    spec: SupervisorSpec,
    store: &Arc<dyn Store>,
) -> (System, Recovered, Port<String, String>) {
    let (system, recovered) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port("app/llm").unwrap();
    (system, recovered, port)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn named(key: &str) -> CallOptions {
    CallOptions::new().key(key)
}

fn done(reply: &str) -> Option<Journaled> {
    Some(Journaled::Fated(Fate::Done, Some(format!("\"{reply}\""))))
}

/// Until no request is open here.
async fn settled(system: &System) {
    let mut events = system.events();
    while system.fates().open > 0 {
        events.next().await.unwrap();
    }
}

#[test]
fn what_a_group_has_accepted_is_done_by_the_next_process() {
    let (store, first, second) = (store(), Script::echo(), Script::echo());
    runtime().block_on(async {
        first.otherwise(|| Cue::Hang);
        let (_system, recovered, port) = recover(spec(&first, &second), &store).await;
        assert_eq!(recovered.requests, 0);
        for key in ["a", "b", "c"] {
            port.submit(key, named(key)).await.unwrap();
        }
        let again = port.submit("other", named("a")).await.unwrap_err();
        assert!(
            matches!(&again, CallError::Refused { child, why: Unavailable::Duplicate, .. } if *child == "app/llm"),
            "{again}"
        );
    });
    // The first process is gone; in the second the primary is down, and a sibling serves.
    first.otherwise_fail(Class::ModelUnavailable);
    second.otherwise_usual();
    runtime().block_on(async {
        let (system, recovered, port) = recover(spec(&first, &second), &store).await;
        let open: Vec<_> =
            recovered.open.iter().map(|open| (&*open.key, open.child.as_str())).collect();
        assert_eq!(open, [("a", "app/llm"), ("b", "app/llm"), ("c", "app/llm")]);
        settled(&system).await;
        let fates = system.fates();
        assert_eq!((fates.accepted, fates.done), (3, 3), "counted once, at the group");
        for key in ["a", "b", "c"] {
            assert_eq!(system.journaled(key), done(key));
        }
        let keys: Vec<_> = second.attempts().iter().map(|attempt| attempt.key.clone()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        // A caller hears of an answer only once it is in the store.
        let answer = port.call_with("d", named("d")).await.unwrap();
        assert_eq!(answer.served_by, "app/llm/second");
        assert_eq!(system.journaled("d"), done("d"));
    });
    runtime().block_on(async {
        let (system, recovered, port) = recover(spec(&first, &second), &store).await;
        assert_eq!(recovered.requests, 0);
        assert_eq!(system.journaled("a"), done("a"));
        port.submit("a", named("a")).await.unwrap_err();
    });
}

#[test]
fn who_answered_what_was_taken_up_is_heard_of_from_the_start() {
    let (store, first, second) = (store(), Script::echo(), Script::echo());
    runtime().block_on(async {
        first.otherwise(|| Cue::Hang);
        let (_system, _, port) = recover(spec(&first, &second), &store).await;
        port.submit("a", named("a")).await.unwrap();
    });
    first.otherwise_fail(Class::ModelUnavailable);
    runtime().block_on(async {
        let options = RecoverOptions::default();
        let (system, recovered, mut events) =
            System::recover_observed(spec(&first, &second), Arc::clone(&store), options)
                .await
                .unwrap();
        assert_eq!(recovered.requests, 1);
        // Long after the answer.
        settled(&system).await;
        assert_eq!(system.journaled("a"), done("a"));
        let fated = events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        let Event::Fated { child, served_by, degraded, .. } = fated.event else { unreachable!() };
        assert_eq!((child.as_str(), degraded), ("app/llm", true));
        assert_eq!(served_by.unwrap().as_str(), "app/llm/second");
    });
}

#[test]
fn the_allow_list_of_a_group_is_told_before_it_takes_requests_and_can_be_looked_at() {
    let (first, second) = (Script::echo(), Script::echo());
    let told = |spec: SupervisorSpec| {
        runtime().block_on(async {
            let options = RecoverOptions::default();
            let (system, _, mut events) =
                System::recover_observed(spec, store(), options).await.unwrap();
            let begun = events.next().await.unwrap().event;
            let Event::AllowList { group, digest } = begun else { panic!("{begun:?}") };
            let list = system.allow_list(group.clone()).unwrap();
            assert_eq!((group.as_str(), digest, list.lines.len()), ("app/llm", list.digest, 2));
            assert!(system.allow_list("app/llm/first").is_none());
            (digest, list.lines)
        })
    };
    let (digest, lines) = told(spec(&first, &second));
    assert!(lines[0].contains(r#""targets":["second"]"#), "{lines:?}");
    // The same in every process; another one where anything of it is another.
    assert_eq!(told(spec(&first, &second)).0, digest);
    let member = |script: &Script, id| script.stateless(id).effect(EffectKind::Idempotent);
    let group = GroupSpec::model("llm")
        .member_spec(member(&second, "second"))
        .member_spec(member(&first, "first"));
    assert_ne!(told(SupervisorSpec::one_for_one("app").group(group)).0, digest);
}

#[test]
fn wherever_the_process_ends_each_accepted_request_gets_one_fate() {
    for last in [false, true] {
        let mut ends = 0;
        for limit in 0.. {
            let inner = store();
            let dying = Arc::new(Dying::new(&inner, limit, last));
            let scripts = || {
                let (first, second) = (Script::echo(), Script::echo());
                first.then_fail(Class::ModelUnavailable);
                first.then_fail(Class::Network);
                (first, second)
            };
            let finished = runtime().block_on(async {
                let (first, second) = scripts();
                let store: Arc<dyn Store> = Arc::clone(&dying) as Arc<dyn Store>;
                let work = async {
                    let (_system, _, port) = recover(spec(&first, &second), &store).await;
                    for key in ["a", "b", "c"] {
                        port.submit(key, named(key)).await.unwrap();
                        port.call_with("x", named(&format!("{key}-call"))).await.unwrap();
                    }
                };
                tokio::time::timeout(Duration::from_secs(60), work).await.is_ok()
            });
            runtime().block_on(async {
                let (first, second) = scripts();
                let (system, recovered, _) = recover(spec(&first, &second), &inner).await;
                settled(&system).await;
                let fates = system.fates();
                assert_eq!(
                    (fates.accepted, fates.done),
                    (recovered.requests as u64, fates.accepted)
                );
                for open in &recovered.open {
                    let reply = open.request.trim_matches('"');
                    assert_eq!(system.journaled(&open.key), done(reply), "limit {limit}");
                }
                if finished {
                    assert_eq!(recovered.requests, 0);
                    assert!(["a", "b", "c"].iter().all(|key| system.journaled(key) == done(key)));
                }
            });
            ends += 1;
            if finished {
                break;
            }
        }
        assert!(ends > 10, "{ends} ends");
    }
}

#[test]
fn a_request_without_an_answer_has_its_fate_in_the_journal_too() {
    let (store, first, second) = (store(), Script::echo(), Script::echo());
    runtime().block_on(async {
        let (system, _, port) = recover(spec(&first, &second), &store).await;
        first.then_fail(Class::Permission);
        port.call_with("q", named("failed")).await.unwrap_err();
        first.then_hang();
        port.call_with("q", named("late").deadline(ms(100))).await.unwrap_err();
        for (key, fate) in [("failed", Fate::Failed), ("late", Fate::Expired)] {
            assert_eq!(system.journaled(key), Some(Journaled::Fated(fate, None)), "{key}");
        }
    });
    runtime().block_on(async {
        let (_system, recovered, _) = recover(spec(&first, &second), &store).await;
        assert_eq!(recovered.requests, 0);
    });
}

#[test]
fn a_request_that_no_member_takes_may_come_again_under_its_key() {
    let (store, first, second) = (store(), Script::echo(), Script::echo());
    runtime().block_on(async {
        let (system, _, port) = recover(spec(&first, &second), &store).await;
        // Both members are out of service: nobody takes it, and nothing is said of it in the journal.
        let members = system.supervisor("app/llm").unwrap();
        for member in ["first", "second"] {
            members.terminate_child(member).await.unwrap();
        }
        for key in ["again", "later", "again", "again"] {
            let refused = port.submit("q", named(key)).await.unwrap_err();
            assert!(
                matches!(refused, CallError::Refused { why: Unavailable::Stopped, .. }),
                "{refused}"
            );
            assert_eq!(system.journaled(key), None);
        }
        members.restart_child("second").await.unwrap();
        port.call_with("q", named("again")).await.unwrap();
        assert_eq!(system.journaled("again"), done("q"));
        let twice = port.submit("q", named("again")).await.unwrap_err();
        assert!(matches!(twice, CallError::Refused { why: Unavailable::Duplicate, .. }), "{twice}");
    });
    runtime().block_on(async {
        let (system, recovered, port) = recover(spec(&first, &second), &store).await;
        assert_eq!((recovered.requests, system.journaled("again")), (0, done("q")));
        port.call_with("q", named("later")).await.unwrap();
    });
}

#[test]
fn a_request_that_a_child_does_not_take_may_come_again_under_its_key() {
    let (store, script): (_, Script) = (store(), Script::echo());
    let spec = || {
        let child = script.stateless("tool").durable::<Model>();
        SupervisorSpec::one_for_one("app").child(child.mailbox_bytes(5, String::len))
    };
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let port = system.port::<String, String>("app/tool").unwrap();
        // It has room by number, and none by weight.
        let full = port.submit("too long", named("full")).await.unwrap_err();
        assert!(matches!(full, CallError::Full { .. }), "{full}");
        assert_eq!(port.call_with("short", named("full")).await.unwrap().value, "short");
        let root = system.supervisor("app").unwrap();
        root.terminate_child("tool").await.unwrap();
        port.submit("q", named("k")).await.unwrap_err();
        port.submit("q", named("later")).await.unwrap_err();
        root.restart_child("tool").await.unwrap();
        port.call_with("q", named("k")).await.unwrap();
        assert_eq!((system.journaled("k"), system.journaled("later")), (done("q"), None));
    });
    runtime().block_on(async {
        let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!((recovered.requests, system.journaled("k")), (0, done("q")));
        let port = system.port::<String, String>("app/tool").unwrap();
        port.call_with("q", named("later")).await.unwrap();
    });
}

#[test]
fn a_stop_in_order_leaves_open_requests_for_the_next_process() {
    let (store, first, second) = (store(), Script::echo(), Script::echo());
    runtime().block_on(async {
        first.otherwise(|| Cue::Hang);
        let (system, _, port) = recover(spec(&first, &second), &store).await;
        let call = tokio::spawn({
            let port = port.clone();
            async move { port.call_with("q", named("open")).await }
        });
        port.submit("r", named("other")).await.unwrap();
        system.stop().await;
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(&error, CallError::Suspended { child } if *child == "app/llm"), "{error}");
        assert_eq!((system.fates().suspended, system.fates().open), (2, 0));
    });
    first.otherwise_usual();
    runtime().block_on(async {
        let (system, recovered, _) = recover(spec(&first, &second), &store).await;
        assert_eq!(recovered.requests, 2);
        settled(&system).await;
        assert_eq!((system.journaled("open"), system.journaled("other")), (done("q"), done("r")));
    });
}

#[test]
fn more_open_requests_than_may_wait_are_taken_up_all_the_same() {
    let (store, first, second) = (store(), Script::echo(), Script::echo());
    runtime().block_on(async {
        first.otherwise(|| Cue::Hang);
        second.otherwise(|| Cue::Hang);
        let (_system, _, port) = recover(spec(&first, &second), &store).await;
        // 8 at work and 4 that wait, twice.
        let mut accepted = 0;
        for n in 0..40 {
            accepted += usize::from(port.submit("q", named(&n.to_string())).await.is_ok());
        }
        assert_eq!(accepted, 24);
    });
    first.otherwise_usual();
    second.otherwise_usual();
    runtime().block_on(async {
        let (system, recovered, _) = recover(spec(&first, &second), &store).await;
        assert_eq!(recovered.requests, 24);
        settled(&system).await;
        assert_eq!(system.fates().done, 24);
    });
}

#[test]
fn a_child_takes_up_more_open_requests_than_may_wait() {
    let (store, script): (_, Script) = (store(), Script::echo());
    let spec = |mailbox, bytes| {
        let child = script.stateless("tool").durable::<Model>().effect(EffectKind::Idempotent);
        let child = child.concurrency(8).mailbox(mailbox).mailbox_bytes(bytes, String::len);
        SupervisorSpec::one_for_one("app").child(child)
    };
    let submitted = async |system: &System, from: u32| {
        let port = system.port::<String, String>("app/tool").unwrap();
        let mut keys = Vec::new();
        for n in from..from + 40 {
            let key = n.to_string();
            if port.submit("long", named(&key)).await.is_ok() {
                keys.push(key);
            }
        }
        keys
    };
    script.otherwise(|| Cue::Hang);
    let mut keys = runtime().block_on(async {
        let (system, _) = System::recover(spec(4, 1000), Arc::clone(&store)).await.unwrap();
        submitted(&system, 0).await
    });
    assert_eq!(keys.len(), 8 + 4, "at work and waiting");
    // It has less room in the second process, which takes no more than that anew.
    keys.extend(runtime().block_on(async {
        let (system, recovered) = System::recover(spec(2, 9), Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.requests, 12);
        let more = submitted(&system, 100).await;
        assert!(more.len() <= 2, "{more:?}");
        assert_eq!(system.fates().open, 12 + more.len() as u64);
        more
    }));
    script.otherwise_usual();
    runtime().block_on(async {
        let (system, recovered) = System::recover(spec(2, 9), Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.requests, keys.len());
        settled(&system).await;
        assert!(keys.iter().all(|key| system.journaled(key) == done("long")), "{keys:?}");
    });
}

#[test]
fn a_durable_group_needs_a_store_its_own_types_and_no_hedge() {
    runtime().block_on(async {
        let (first, second) = (Script::echo(), Script::echo());
        let error = System::start(spec(&first, &second)).await.unwrap_err();
        assert!(
            matches!(&error, StartError::Spec(error) if error.to_string().contains("app/llm")),
            "{error}"
        );
        let numbers = group(&first, &second).durable::<Scripted<u64, u64>>();
        let error = SupervisorSpec::one_for_one("app").group(numbers).validate().unwrap_err();
        assert!(error.to_string().contains("app/llm"), "{error}");
        let hedged = group(&first, &second).hedge(Hedge::after(ms(1)));
        let error = SupervisorSpec::one_for_one("app").group(hedged).validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"app/llm\": a hedge and a durable group exclude each other"
        );
        // A tree without it is another tree.
        let store = store();
        drop(recover(spec(&first, &second), &store).await);
        let plain = SupervisorSpec::one_for_one("app")
            .group(GroupSpec::model("llm").member_spec(first.stateless("first")));
        let error = System::recover(plain, store).await.unwrap_err();
        let RecoverError::Topology { difference } = &error else { panic!("{error}") };
        assert!(difference.iter().any(|line| line.contains("app/llm group")), "{difference:?}");
    });
}

const CHILD: &str = "MAINSTAY_GROUP_CHILD";
/// More than one member takes.
const ACCEPTED: usize = 17;

/// On its own: requests to a group over a store in a folder are done. In the process that the next test
/// kills: they are accepted for ever and not done.
#[test]
fn requests_to_a_group_over_a_folder_are_done() {
    let folder = std::env::var_os(CHILD).map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let place = folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (first, second) = (Script::echo(), Script::echo());
        let store: Arc<dyn Store> = Arc::new(FileStore::open(place).unwrap());
        let (system, _, port) = recover(spec(&first, &second), &store).await;
        if folder.is_some() {
            first.otherwise(|| Cue::Hang);
            second.otherwise(|| Cue::Hang);
            for n in 0..ACCEPTED {
                // There is no room for a moment where members have not begun with what they have.
                while port.submit("q", named(&format!("key {n}"))).await.is_err() {
                    tokio::task::yield_now().await;
                }
                println!("accepted {n}");
            }
            // Until it is killed, or whoever should have done that is gone.
            std::io::read_to_string(std::io::stdin()).unwrap();
            return;
        }
        for n in 0..5 {
            port.call_with("q", named(&format!("key {n}"))).await.unwrap();
            assert_eq!(system.journaled(&format!("key {n}")), done("q"));
        }
        system.stop().await;
    });
}

#[test]
fn what_a_group_has_accepted_survives_the_death_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "requests_to_a_group_over_a_folder_are_done", "--nocapture"])
        .env(CHILD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut accepted = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some((_, n)) = line.unwrap().split_once("accepted ") {
            accepted.push(n.trim().parse::<u64>().unwrap());
        }
        if accepted.len() == ACCEPTED {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (first, second) = (Script::echo(), Script::echo());
        let store: Arc<dyn Store> = Arc::new(FileStore::open(folder.path()).unwrap());
        let (system, recovered, _) = recover(spec(&first, &second), &store).await;
        assert!(recovered.requests >= ACCEPTED, "{}", recovered.requests);
        settled(&system).await;
        for n in accepted {
            assert_eq!(system.journaled(&format!("key {n}")), done("q"), "{n}");
        }
        assert_eq!(system.fates().done, recovered.requests as u64);
        system.stop().await;
    });
}

#[test]
fn the_answer_of_a_stateless_durable_child_is_in_the_store_before_it_is_heard() {
    let (store, script): (_, Script) = (store(), Script::echo());
    let spec = || {
        let child = script.stateless("tool").durable::<Model>();
        SupervisorSpec::one_for_one("app").child(child)
    };
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let port = system.port::<String, String>("app/tool").unwrap();
        port.call_with("q", named("k")).await.unwrap();
    });
    runtime().block_on(async {
        let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!((recovered.requests, system.journaled("k")), (0, done("q")));
    });
}
