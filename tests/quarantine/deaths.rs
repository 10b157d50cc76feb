//! Requests that end the process itself: real processes that abort, and others that are killed from outside.
//! After a few ends the guilty request is set aside, alone, and those that were in hand with it are answered.

use std::fs::OpenOptions;
use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{FileStore, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

const FOLDER: &str = "DEATHS_FOLDER";
const STORY: &str = "DEATHS_STORY";
/// What this process does: it accepts and dies, goes on, is the first that goes on, or answers what it has
/// left open otherwise.
const ROLE: &str = "DEATHS_ROLE";
const LIMIT: &str = "DEATHS_LIMIT";
/// The file in which it stands what was paid.
const PAID: &str = "DEATHS_PAID";

fn role() -> String {
    std::env::var(ROLE).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    Add(u32),
    /// Ends the process.
    Abort,
    /// Ends the process once it is answered.
    AskThenAbort,
    /// Takes another step.
    Walk,
    /// Waits for a person.
    Ask,
    /// Has a tool called that ends the process.
    Break,
    /// Waits for the world.
    Rest,
    /// Is at work for long, in the first process that goes on.
    Long(u32),
}

/// Requests that are at work for long.
static LONG: AtomicU32 = AtomicU32::new(0);

/// Keeps a sum.
#[derive(Clone, Default)]
struct Clerk {
    sum: Arc<u32>,
}

impl Behavior for Clerk {
    type Request = Order;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("person").needs::<Port<u32, u32>>("model")
    }
}

impl Stateful for Clerk {
    async fn step(&mut self, order: &Order, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if role() == "accepts" {
            pending::<()>().await;
        }
        let asked = matches!(turn, Turn::Performed(_));
        match order {
            Order::Add(n) => {
                self.sum = Arc::new(*self.sum + n);
                return Ok(Step::Reply(*self.sum));
            }
            Order::AskThenAbort if !asked => {
                return Ok(Step::Perform(vec![ctx.port::<u32, u32>("model")?.ask(1_u32)]));
            }
            Order::Break if !asked => {
                return Ok(Step::Perform(vec![ctx.port::<u32, u32>("model")?.ask(BREAKS)]));
            }
            Order::Ask if !asked => {
                return Ok(Step::Perform(vec![ctx.port::<u32, u32>("person")?.ask(1_u32)]));
            }
            Order::Walk if !matches!(turn, Turn::Again) => return Ok(Step::Continue),
            Order::Walk if role() != "answers" => pending::<()>().await,
            Order::Abort | Order::AskThenAbort => std::process::abort(),
            _ => {}
        }
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("clerk", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        Ok(())
    }
}

/// What no tool survives, nor the process.
const BREAKS: u32 = 13;

/// Works on several orders at a time.
struct Hand;

impl Behavior for Hand {
    type Request = Order;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("model")
    }
}

impl Stateless for Hand {
    async fn serve(&self, order: &Order, ctx: &Context) -> Result<u32, Fault> {
        match (order, &*role()) {
            (_, "accepts") => pending().await,
            (Order::Long(_), "first") => {
                LONG.fetch_add(1, Ordering::SeqCst);
                pending().await
            }
            (Order::Long(n), _) => Ok(*n),
            (Order::Break, _) => Ok(ctx.port::<u32, u32>("model")?.call(BREAKS).await?.value),
            (Order::Rest, "answers") => Ok(0),
            (Order::Rest, _) => pending().await,
            (_, role) => {
                // In the first process that goes on all are in hand when it ends.
                while role == "first" && LONG.load(Ordering::SeqCst) < 3 {
                    tokio::task::yield_now().await;
                }
                std::process::abort()
            }
        }
    }
}

/// Answers at once, or never.
struct Other {
    answers: bool,
}

impl Behavior for Other {
    type Request = u32;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Other {
    async fn serve(&self, asked: &u32, _: &Context) -> Result<u32, Fault> {
        if *asked == BREAKS {
            std::process::abort();
        }
        if !self.answers && role() != "answers" {
            pending::<()>().await;
        }
        Ok(*asked)
    }
}

/// Pays, which may not be repeated, and one of its orders ends the process when it is paid.
struct Payer;

impl Behavior for Payer {
    type Request = Order;
    type Reply = u32;
}

impl Stateless for Payer {
    async fn serve(&self, order: &Order, _: &Context) -> Result<u32, Fault> {
        if role() == "accepts" {
            pending::<()>().await;
        }
        let path = std::env::var_os(PAID).unwrap();
        let mut paid = OpenOptions::new().create(true).append(true).open(path).unwrap();
        paid.write_all(format!("{order:?}\n").as_bytes()).unwrap();
        match order {
            Order::Add(n) => Ok(*n),
            _ => std::process::abort(),
        }
    }
}

/// Key, child and order of each request of a story.
fn story() -> Vec<(&'static str, &'static str, Order)> {
    let clerk = |key, order| (key, "top/clerk", order);
    let hand = |key, order| (key, "top/hand", order);
    match &*std::env::var(STORY).unwrap() {
        "abort" => vec![
            clerk("before", Order::Add(1)),
            clerk("poison", Order::Abort),
            clerk("behind", Order::Add(2)),
        ],
        "ask" => vec![clerk("poison", Order::AskThenAbort), clerk("behind", Order::Add(2))],
        "hand" => vec![
            hand("one", Order::Long(1)),
            hand("two", Order::Long(2)),
            hand("poison", Order::Abort),
            hand("three", Order::Long(3)),
        ],
        "pay" => vec![
            ("held", "top/payer", Order::Add(1)),
            ("poison", "top/payer", Order::Abort),
            ("behind", "top/payer", Order::Add(2)),
        ],
        "walk" => vec![clerk("walk", Order::Walk)],
        "person" => vec![clerk("person", Order::Ask)],
        "world" => vec![hand("world", Order::Rest)],
        "tool" => vec![clerk("poison", Order::Break), clerk("behind", Order::Add(2))],
        "tool of a tool" => vec![hand("poison", Order::Break), hand("behind", Order::Long(2))],
        story => panic!("{story:?}"),
    }
}

async fn process(folder: &Path) {
    let limit = std::env::var(LIMIT).unwrap().parse().unwrap();
    let store: Arc<dyn Store> = Arc::new(FileStore::open(folder).unwrap());
    let reader = Arc::clone(&store);
    let before = hands(&*reader).len();
    let durable = |child: ChildSpec| child.process_deaths(limit);
    let tree = SupervisorSpec::one_for_one("top")
        .child(ChildSpec::stateless("person", || Other { answers: false }))
        .child(ChildSpec::stateless("model", || Other { answers: true }))
        .child(
            ChildSpec::stateless("payer", || Payer)
                .policy(Policy::without_retries())
                .durable::<Payer>(),
        )
        .child(durable(ChildSpec::stateful("clerk", Clerk::default).durable::<Clerk>()))
        .child(durable(ChildSpec::stateless("hand", || Hand).concurrency(4).durable::<Hand>()));
    let options = RecoverOptions::default();
    let (system, recovered, mut events) =
        System::recover_observed(tree, store, options).await.unwrap();
    let role = role();
    if role == "accepts" {
        for (key, child, order) in story() {
            let port = system.port::<Order, u32>(child).unwrap();
            port.submit(order, CallOptions::new().key(key)).await.unwrap();
        }
        std::process::abort();
    }
    for request in &recovered.ended_processes {
        assert_eq!(system.journaled(&request.key), fated(Fate::Quarantined));
        let fates = system.fates();
        assert_eq!(fates.quarantined, 1, "{fates:?}");
        println!("\nset aside {} of {}", request.key, request.child);
    }
    if role == "releases" {
        system.quarantine().release("poison").await.unwrap();
    }
    let (mut told, mut is_under_way) = (Vec::new(), false);
    while story().iter().any(|(key, ..)| system.journaled(key) == Some(Journaled::Open)) {
        // The fate itself is told by no event that could not be missed.
        if let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_millis(50), events.next()).await
        {
            told.push(event.event);
        }
        let hands = hands(&*reader);
        // Taken up by this process, and put down for good: by the clerk and then by the person whom it asks.
        let all = if story()[0].0 == "person" { 4 } else { 2 };
        let rests = hands.last().is_some_and(|last| last.contains("\"n\":0"));
        if !is_under_way && rests && hands.len() >= before + all {
            is_under_way = true;
            println!("\nunder way");
        }
    }
    told.extend(std::iter::from_fn(|| events.try_next()).map(|event| event.event));
    let mut alerts = told.iter().filter(|event| matches!(event, Event::Alert { .. }));
    let mut aside = told.iter().filter(|event| {
        matches!(event, Event::Fated { fate: Fate::Quarantined, attempts, .. } if *attempts >= limit)
    });
    for request in &recovered.ended_processes {
        assert_eq!(alerts.next().and_then(Event::path), Some(&request.child));
        assert_eq!(aside.next().and_then(Event::path), Some(&request.child));
    }
    for request in &recovered.in_doubt {
        println!("\nin doubt: {}", request.key);
        assert_eq!(alerts.next().and_then(Event::path), Some(&request.child));
    }
    assert_eq!((alerts.next(), aside.next()), (None, None));
    let alerts = recovered.ended_processes.len() + recovered.in_doubt.len();
    assert_eq!(system.stats().alerts, alerts as u64);
    for (key, ..) in story() {
        println!("\n{key}: {:?}", system.journaled(key).unwrap());
    }
    for aside in system.quarantine().requests() {
        println!("\ntrail: {}", aside.trail);
        println!("\nexport: {}", system.quarantine().export(&aside.id).unwrap());
    }
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
    system.stop().await;
    println!("\nended well");
}

/// What was written of requests in some hand.
fn hands(store: &dyn Store) -> Vec<String> {
    let records = store.scan("mainstay", 1, 10_000).unwrap();
    let texts = records.iter().map(|record| String::from_utf8_lossy(&record.bytes).into_owned());
    texts.filter(|text| text.contains("taken_up")).collect()
}

fn fated(fate: Fate) -> Option<Journaled> {
    Some(Journaled::Fated(fate, None))
}

/// One process of this story.
fn process_of(folder: &TempDir, story: &str, role: &str, limit: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "deaths::a_process_of_a_story", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(STORY, story)
        .env(ROLE, role)
        .env(LIMIT, limit.to_string())
        .env(PAID, folder.path().with_extension("paid"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How it ended: what it has said, unless it was ended.
fn ran(folder: &TempDir, story: &str, role: &str, limit: u32) -> Option<String> {
    let output = process_of(folder, story, role, limit).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code().is_none() {
        assert!(!text.contains("ended well"), "{text}{errors}");
        return None;
    }
    assert!(output.status.success() && text.contains("ended well"), "{text}{errors}");
    Some(text)
}

/// How many processes that go on are ended before one is not, and what that one says.
fn goes_on(folder: &TempDir, story: &str, limit: u32) -> (u32, String) {
    for ended in 0..12 {
        let role = if ended == 0 { "first" } else { "goes on" };
        if let Some(text) = ran(folder, story, role, limit) {
            return (ended, text);
        }
    }
    panic!("{story}: it ends every process");
}

fn accepted(story: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    assert_eq!(ran(&folder, story, "accepts", 3), None);
    folder
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|it| it == *line), "{line}: {text}");
    }
}

/// The trail of a request with which the process has ended three times, and was set aside, so often.
fn trail(times: usize) -> String {
    let ended = |n: usize| {
        let action = if n.is_multiple_of(3) { "quarantine" } else { "retry" };
        format!("attempt {n} at top/clerk: internal (process_ended) -> {action}")
    };
    format!("trail: {}", (1..=3 * times).map(ended).collect::<Vec<_>>().join("; "))
}

/// What is run in a process of its own.
#[test]
fn a_process_of_a_story() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(process(Path::new(&folder)));
}

#[test]
fn a_request_that_aborts_the_process_is_set_aside_with_its_trail_and_the_others_go_on() {
    let folder = accepted("abort");
    let (ended, text) = goes_on(&folder, "abort", 3);
    assert_eq!(ended, 3);
    let done = |key: &str, reply| format!("{key}: Fated(Done, Some(\"{reply}\"))");
    says(&text, &["set aside poison of top/clerk", "poison: Fated(Quarantined, None)"]);
    // The state of before it is kept.
    says(&text, &[&done("before", 1), &done("behind", 3), &trail(1)]);
    let export = text.lines().find(|line| line.starts_with("export: ")).unwrap();
    assert!(export.contains("\"Abort\"") && export.contains("process_ended"), "{export}");
    // Later processes leave it there; released it is counted anew.
    let (ended, text) = goes_on(&folder, "abort", 3);
    assert_eq!(ended, 0);
    assert!(!text.contains("set aside"), "{text}");
    assert_eq!(ran(&folder, "abort", "releases", 3), None);
    let (ended, text) = goes_on(&folder, "abort", 3);
    assert_eq!(ended, 3);
    says(&text, &[&trail(2)]);
}

#[test]
fn a_payment_that_ends_the_process_is_not_made_again_and_a_person_is_called() {
    let folder = accepted("pay");
    let (ended, text) = goes_on(&folder, "pay", 3);
    assert_eq!(ended, 1, "{text}");
    says(
        &text,
        &["in doubt: poison", "held: Fated(Unknown, None)", "poison: Fated(Unknown, None)"],
    );
    says(&text, &["behind: Fated(Done, Some(\"2\"))"]);
    let paid = folder.path().with_extension("paid");
    // The one that was held had not paid when its process ended, which nobody but a person can see.
    assert_eq!(std::fs::read_to_string(&paid).unwrap(), "Abort\nAdd(2)\n");
    std::fs::remove_file(paid).unwrap();
}

#[test]
fn how_often_a_request_may_end_the_process_is_as_its_child_says() {
    let folder = accepted("abort");
    assert_eq!(goes_on(&folder, "abort", 1).0, 1);
    let folder = accepted("hand");
    assert_eq!(goes_on(&folder, "hand", 5).0, 5);
}

#[test]
fn a_request_that_ends_the_process_once_it_is_answered_is_set_aside() {
    let folder = accepted("ask");
    let (ended, text) = goes_on(&folder, "ask", 3);
    assert_eq!(ended, 3);
    says(&text, &["set aside poison of top/clerk", "behind: Fated(Done, Some(\"2\"))"]);
}

#[test]
fn a_request_whose_tool_ends_the_process_is_set_aside() {
    for (story, child) in [("tool", "top/clerk"), ("tool of a tool", "top/hand")] {
        let folder = accepted(story);
        let (ended, text) = goes_on(&folder, story, 3);
        assert_eq!(ended, 3, "{story}");
        says(&text, &[&format!("set aside poison of {child}")]);
        says(&text, &["behind: Fated(Done, Some(\"2\"))"]);
    }
}

#[test]
fn those_that_were_in_hand_with_it_at_the_end_of_the_process_are_answered() {
    let folder = accepted("hand");
    let (ended, text) = goes_on(&folder, "hand", 3);
    assert_eq!(ended, 3);
    let all = ["one: Fated(Done, Some(\"1\"))", "two: Fated(Done, Some(\"2\"))"];
    says(&text, &["set aside poison of top/hand", "three: Fated(Done, Some(\"3\"))"]);
    says(&text, &all);
    assert_eq!(text.matches("set aside").count(), 1, "{text}");
}

#[test]
fn a_request_under_way_or_waiting_is_never_set_aside_however_often_the_process_is_killed() {
    for story in ["walk", "person", "world"] {
        let folder = accepted(story);
        for _ in 0..4 {
            let mut child = process_of(&folder, story, "goes on", 1);
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line == "under way"), "{story}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let text = ran(&folder, story, "answers", 1).unwrap();
        says(&text, &[&format!("{story}: Fated(Done, Some(\"0\"))")]);
        assert!(!text.contains("set aside"), "{text}");
    }
}
