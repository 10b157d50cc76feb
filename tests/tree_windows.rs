//! The live tree as people and programs read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay::behavior::{Behavior, Context, Performed, Stateful, Stateless, Step, Turn};
use mainstay::circuit::CircuitSpec;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::{Backoff, Jitter, Policy};
use mainstay::port::{Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay::tree::TreeDump;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, Kit, pass, secs, settle, with, worker};

/// A model that is well, is down, or never answers.
#[derive(Clone, Copy, PartialEq)]
enum Model {
    Down,
    Slow,
    Well,
}

impl Behavior for Model {
    type Request = String;
    type Reply = String;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Model {
    async fn serve(&self, request: &String, _: &Context) -> Result<String, Fault> {
        match self {
            Self::Down => Err(Fault::model_unavailable("secret prompt inside").with_code("503")),
            Self::Slow => std::future::pending().await,
            Self::Well => Ok(request.clone()),
        }
    }
}

/// Asks its model once.
#[derive(Clone, Default)]
struct Agent;

impl Behavior for Agent {
    type Request = String;
    type Reply = String;

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, String>>("llm")
    }
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &String,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<String>, Fault> {
        match turn {
            Turn::Performed(outcomes) => {
                let outcomes: Performed = outcomes;
                Ok(Step::Reply(outcomes.get::<String>(0)?.value.clone()))
            }
            _ => {
                let llm = ctx.port::<String, String>("llm")?;
                Ok(Step::Perform(vec![llm.ask(request.clone())]))
            }
        }
    }
}

/// Nested, with a group whose first circuit is open, requests in flight, a child in backoff, one set
/// aside, one stopped, and children that come and go.
async fn realistic(kit: &Kit) -> System {
    let desk = with(SupervisorSpec::one_for_one("desk"), kit, "ab")
        .child(kit.child("loop").child_limit(0, secs(60)))
        .child(kit.child("off"))
        .intensity(5, secs(60))
        .restart_backoff(secs(20), secs(20));
    let spec = SupervisorSpec::one_for_one("support")
        .group(
            GroupSpec::model("llm")
                .member("claude", Model::Down)
                .member("gpt", Model::Slow)
                .member("local", Model::Well)
                .circuit(CircuitSpec::new().with_open(secs(40), secs(60))),
        )
        .child(ChildSpec::stateful("agent", Agent::default))
        .supervisor(desk)
        .supervisor(SupervisorSpec::dynamic("tickets"));
    let system = System::start(spec).await.unwrap();
    let tickets = system.supervisor("support/tickets").unwrap();
    for n in 1..=30 {
        tickets.start_child(kit.child(&format!("t{n:02}"))).await.unwrap();
    }
    for n in 0..4 {
        let agent = system.child::<Agent>("support/agent").unwrap();
        agent.cast(format!("secret prompt {n}")).unwrap();
    }
    worker(&system, "support/tickets/t07").cast(Do::Hang).unwrap();
    worker(&system, "support/tickets/t07").cast(Do::Ping).unwrap();
    let desk = system.supervisor("support/desk").unwrap();
    let llm = system.port::<String, String>("support/llm").unwrap();
    for n in 0..3 {
        llm.cast(format!("secret prompt {n}")).unwrap();
    }
    settle(&desk).await;
    pass(secs(12)).await;
    settle(&desk).await;
    system.kill("support/desk/loop").unwrap();
    system.kill("support/desk/b").unwrap();
    desk.terminate_child("off").await.unwrap();
    settle(&desk).await;
    pass(secs(2)).await;
    settle(&desk).await;
    system
}

const TEXT: &str = "\
name                  kind                    state           life  mailbox  in flight          circuit   last cause                    waits for
support               supervisor one_for_one  running         #1
├─ llm                model group             running         #1
│  ├─ claude          model                   idle            #1                                open 26s  model_unavailable (503), 14s
│  ├─ gpt             model                   busy            #1             attempt 2, 14s +3  closed
│  └─ local           model                   idle            #1                                closed
├─ agent              stateful                waiting         #1          3  attempt 1, 14s                                             support/llm
├─ desk               supervisor one_for_one  running         #1
│  ├─ a               stateful                idle            #1
│  ├─ b               stateful                restarting 18s  #1                                          killed, 2s
│  ├─ loop            stateful                quarantined     #1                                          killed, 2s
│  └─ off             stateful                stopped         #1
└─ tickets            supervisor dynamic      running         #1
   ├─ t01             stateful                idle            #1
   ├─ t02             stateful                idle            #1
   ├─ t03             stateful                idle            #1
   ├─ t04             stateful                idle            #1
   ├─ t05             stateful                idle            #1
   ├─ t06             stateful                idle            #1
   ├─ t07             stateful                busy            #1          1  attempt 1, 14s
   ├─ t08             stateful                idle            #1
   ├─ t09             stateful                idle            #1
   ├─ t10             stateful                idle            #1
   ├─ t11             stateful                idle            #1
   └─ … 19 more idle
3 supervisors, 1 group, 38 children: 35 serving, 1 restarting, 1 stopped, 1 quarantined
";

#[tokio::test(start_paused = true)]
async fn a_tree_in_trouble_reads_as_a_table() {
    let system = realistic(&Kit::new()).await;
    assert_eq!(system.tree().to_string(), TEXT);
    let all = format!("{:#}", system.tree());
    assert_eq!(all.lines().count(), 1 + 42 + 1, "nothing is summed up: {all}");
    assert!(all.contains("5 in 60s"), "{all}");
    assert_eq!(system.tree().counts(), system.counts());
}

#[tokio::test(start_paused = true)]
async fn a_dump_goes_through_serde_and_comes_back_the_same() {
    let system = realistic(&Kit::new()).await;
    let dump = system.tree();
    let json = dump.to_json();
    let back: TreeDump = serde_json::from_str(&json).unwrap();
    assert_eq!(back.to_json(), json);
    assert_eq!(back.to_string(), TEXT);
    assert_eq!((back.to_dot(), back.to_mermaid()), (dump.to_dot(), dump.to_mermaid()));
    assert_eq!((back.at(), back.len(), back.counts()), (dump.at(), dump.len(), dump.counts()));
    let pretty = serde_json::to_string_pretty(&dump).unwrap();
    let back: TreeDump = serde_json::from_str(&pretty).unwrap();
    assert_eq!(back.to_json(), json);

    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let claude = &value["root"]["children"][0]["children"][0];
    assert_eq!(claude["path"], "support/llm/claude");
    assert_eq!(claude["circuit"]["state"], "open");
    let b = &value["root"]["children"][2]["children"][1];
    assert_eq!((&b["state"], &b["resumes_in_ms"]), (&"restarting".into(), &18_000.into()));
    let agent = &value["root"]["children"][1];
    assert_eq!(agent["state"], "waiting");
    assert_eq!((&agent["mailbox"], &agent["waits_for"][0]), (&3.into(), &"support/llm".into()));
    assert_eq!(agent["in_flight"][0]["age_ms"], 14_000);
}

#[tokio::test(start_paused = true)]
async fn graphs_show_trouble_in_color() {
    let system = realistic(&Kit::new()).await;
    let dot = system.tree().to_dot();
    let bad = "style=\"rounded,filled\", fillcolor=\"#f8d7da\", color=\"#b02a37\"";
    for line in [
        format!(
            "  n5 [label=\"claude\\nmodel\\nidle #1\\ncircuit open 26s\\nlast: model_unavailable (503), 14s\", {bad}];\n"
        ),
        "  n4 [label=\"tickets\\nsupervisor dynamic\\nrunning #1\"];\n".to_owned(),
        "  n1 -> n5;\n".to_owned(),
        "  n2 -> n1 [style=dashed, constraint=false, label=\"waits for\"];\n".to_owned(),
    ] {
        assert!(dot.contains(&line), "{line} in {dot}");
    }
    assert_eq!(dot.matches("fillcolor").count(), 3, "claude, b and loop: {dot}");
    let mermaid = system.tree().to_mermaid();
    assert!(mermaid.starts_with("flowchart LR\n"), "{mermaid}");
    for line in [
        "  n9(\"b<br/>stateful<br/>restarting 18s #35;1<br/>last: killed, 2s\"):::uneasy\n",
        "  n10(\"loop<br/>stateful<br/>quarantined #35;1<br/>last: killed, 2s\"):::bad\n",
        "  n2 -. waits for .-> n1\n",
        "  classDef bad fill:#f8d7da,stroke:#b02a37\n",
    ] {
        assert!(mermaid.contains(line), "{line} in {mermaid}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_window_shows_what_users_said() {
    let system = realistic(&Kit::new()).await;
    let dump = system.tree();
    let windows = [
        dump.to_string(),
        format!("{dump:#} {dump:?}"),
        dump.to_json(),
        dump.to_dot(),
        dump.to_mermaid(),
    ];
    for window in windows {
        assert!(!window.contains("secret") && !window.contains("prompt"), "{window}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_backs_off_and_a_life_that_does_say_when_they_go_on() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a")
        .child(
            ChildSpec::stateless("slow", || Model::Slow)
                .policy(
                    Policy::new()
                        .with_jitter(Jitter::None)
                        .with_attempt_timeout(secs(1))
                        .with_backoff(Class::Timeout, Backoff::Fixed(secs(9))),
                )
                .effect(EffectKind::Pure),
        )
        .restart_backoff(secs(7), secs(7));
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    system.port::<String, String>("top/slow").unwrap().cast("x".to_owned()).unwrap();
    settle(&top).await;
    pass(secs(1)).await;
    settle(&top).await;
    system.kill("top/a").unwrap();
    settle(&top).await;
    pass(secs(2)).await;
    let dump = system.tree();
    let left = |path: &str| dump.find(&path.into()).unwrap().detail().and_then(|d| d.resumes_in);
    assert_eq!(left("top/slow"), Some(secs(7)), "{dump}");
    assert_eq!(left("top/a"), Some(secs(5)), "{dump}");
    assert!(dump.to_string().contains("backing off 7s"), "{dump}");
    pass(secs(7)).await;
    settle(&top).await;
    let dump = system.tree();
    assert!(
        !dump.to_string().contains("restarting") && !dump.to_string().contains("backing off"),
        "{dump}"
    );
}

/// Many threads look while children come and go, crash and work: each dump is sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_can_be_looked_at_from_many_threads_while_it_changes() {
    let kit = Kit::new();
    let spec = SupervisorSpec::dynamic("top").intensity(u32::MAX, secs(5)).no_child_limit();
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let looks: Vec<_> = (0..3)
        .map(|_| {
            let (system, over) = (system.clone(), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut looks = 0;
                while !over.load(Ordering::Relaxed) || looks == 0 {
                    let dump = system.tree();
                    let paths: Vec<_> = dump.nodes().map(|node| node.path().clone()).collect();
                    assert_eq!(paths.len(), dump.len());
                    assert!(paths[1..].iter().all(|path| path.as_str().starts_with("top/t")));
                    let back: TreeDump = serde_json::from_str(&dump.to_json()).unwrap();
                    assert_eq!(back.to_string(), dump.to_string());
                    looks += 1;
                }
                looks
            })
        })
        .collect();
    for round in 0..40 {
        for n in 0..20 {
            let id = format!("t{round}-{n}");
            top.start_child(kit.child(&id).temporary()).await.unwrap();
            worker(&system, &format!("top/{id}")).cast(Do::Ping).unwrap();
        }
        for n in 0..20 {
            let path = format!("top/t{round}-{n}");
            if n % 2 == 0 {
                system.kill(path.as_str()).unwrap();
            } else {
                top.terminate_child(format!("t{round}-{n}")).await.unwrap();
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for look in looks {
        assert!(look.join().unwrap() > 0);
    }
    system.stop().await;
    assert!(system.fates().is_balanced());
    assert_eq!((system.fates().accepted, system.fates().open), (800, 0));
}
