//! A storm on real threads: who works, who asks, who interferes, and who counts.

use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::task::Poll;
use std::time::{Duration, Instant};

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::circuit::DomainSpec;
use mainstay::error::{CallError, ChildError, StartError};
use mainstay::event::Event;
use mainstay::fate::{Answer, Fate};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::backoff::Backoff;
use mainstay::policy::{Hedge, Policy};
use mainstay::port::{CallOptions, Needs, Port, Receipt};
use mainstay::spec::{ChildSpec, GroupSpec, Shutdown, SupervisorSpec};
use mainstay::system::{System, SystemOptions};

use super::support::{Chance, ms, pass, secs};

pub(crate) const CALLERS: u64 = 64;
/// Requests that ask for work once the storm is over.
const AFTER: u64 = 640;
/// What nobody may take: real machines are slow at times, but not as slow as that.
const WATCHDOG: Duration = Duration::from_secs(60);
/// How much later than its deadline a caller may be told.
const SLACK: Duration = Duration::from_secs(20);

const FIXED: [&str; 5] = ["top/clerk-a", "top/hand-a", "top/clerk-b", "top/hand-b", "top/llm"];
const MEMBERS: [&str; 3] = ["top/llm/first", "top/llm/second", "top/llm/third"];
const POOL: u64 = 6;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was done for one request.
#[derive(Debug, Default)]
struct Done {
    /// Each hand-out that was begun: its number, and who had it.
    begun: Vec<(u32, String)>,
    /// Its caller has heard an answer; so many hand-outs had begun by then.
    heard: bool,
    /// Hand-outs newer than all before, begun after its caller had heard the answer.
    after: u32,
}

/// What was done for each request. A lock for each, so that looking orders nothing between two.
pub(crate) struct Records(Vec<Mutex<Done>>);

impl Records {
    fn new(requests: u64) -> Arc<Self> {
        Arc::new(Self((0..requests).map(|_| Mutex::default()).collect()))
    }

    /// The last request: only a copy of it is answered.
    fn slow(&self) -> u64 {
        self.0.len() as u64 - 1
    }

    fn begin(&self, id: u64, ctx: &Context) {
        // What an agent asks for on its way is its own matter.
        let Some(done) = self.0.get(id as usize) else { return };
        let mut done = locked(done);
        let number = ctx.delivery().0;
        let newest = done.begun.iter().all(|(before, _)| *before < number);
        done.after += u32::from(done.heard && newest);
        done.begun.push((number, ctx.path().to_string()));
    }

    fn hear(&self, id: u64) {
        locked(&self.0[id as usize]).heard = true;
    }
}

/// What all who work have in common.
#[derive(Clone)]
struct Common {
    chance: Arc<Chance>,
    records: Arc<Records>,
    calm: Arc<AtomicBool>,
}

impl Common {
    async fn work(&self, id: u64) -> Result<u64, Fault> {
        if self.calm.load(Ordering::Relaxed) {
            return Ok(id);
        }
        match self.chance.below(1000) {
            0..10 => panic!("request {id} was told to"),
            10..20 => pending().await,
            20..35 => return Err(Fault::new(Class::Network, "as told")),
            35..45 => return Err(Fault::new(Class::InputValidation, "as told")),
            // It does not yield: a hang, if it takes longer than its grace.
            45..47 => std::thread::park_timeout(ms(60)),
            47..300 => pass(1 + self.chance.below(6)).await,
            300..400 => tokio::task::yield_now().await,
            _ => {}
        }
        Ok(id)
    }
}

#[derive(Clone)]
struct Hand(Common);

impl Behavior for Hand {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Hand {
    async fn serve(&self, id: &u64, ctx: &Context) -> Result<u64, Fault> {
        self.0.records.begin(*id, ctx);
        if *id == self.0.records.slow() && !ctx.is_hedge() {
            pending::<()>().await;
        }
        self.0.work(*id).await
    }
}

#[derive(Clone)]
struct Clerk(Common);

impl Behavior for Clerk {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Clerk {
    async fn step(&mut self, id: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if matches!(turn, Turn::First) {
            self.0.records.begin(*id, ctx);
            return Ok(Step::Continue);
        }
        Ok(Step::Reply(self.0.work(*id).await?))
    }
}

/// Asks the group and a hand at once before it answers, and has neither's answer mistaken for the other's.
#[derive(Clone)]
struct Agent(Common);

/// Beyond every request that is recorded.
const ON_THE_WAY: u64 = 1 << 40;

impl Behavior for Agent {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("llm").needs::<Port<u64, u64>>("hand-a")
    }
}

impl Stateful for Agent {
    async fn step(&mut self, id: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        let asked = [ON_THE_WAY + 2 * id, ON_THE_WAY + 2 * id + 1];
        let Turn::Performed(outcomes) = turn else {
            self.0.records.begin(*id, ctx);
            let calls = [("llm", asked[0]), ("hand-a", asked[1])];
            let call = |(need, id)| Ok(ctx.port::<u64, u64>(need)?.ask(id));
            return Ok(Step::Perform(calls.into_iter().map(call).collect::<Result<_, Fault>>()?));
        };
        for (at, id) in asked.iter().enumerate() {
            assert_eq!(outcomes.get::<u64>(at)?.value, id, "the answer to another call");
        }
        Ok(Step::Reply(self.0.work(*id).await?))
    }
}

fn hand(id: &str, common: &Common) -> ChildSpec {
    let hand = Hand(common.clone());
    let spec = ChildSpec::stateless(id, move || hand.clone()).concurrency(8);
    spec.shutdown(Shutdown::Timeout(ms(20)))
}

fn clerk(id: &str, common: &Common) -> ChildSpec {
    let clerk = Clerk(common.clone());
    ChildSpec::stateful(id, move || clerk.clone()).shutdown(Shutdown::Timeout(ms(20)))
}

pub(crate) type Strategy = fn(&'static str) -> SupervisorSpec;

fn tree(strategy: Strategy, nested: bool, common: &Common) -> SupervisorSpec {
    let policy = Policy::default()
        .with_attempt_timeout(ms(40))
        .with_hang_grace(ms(15))
        .with_backoff(Class::Network, Backoff::doubling(ms(2)))
        .with_backoff(Class::Timeout, Backoff::doubling(ms(2)));
    // A purse that a storm does not empty, so that all of it is hedged.
    let rich = DomainSpec::new().with_retries(1_000_000, 1);
    let member = |id| hand(id, common).quota_domain("provider");
    let llm = GroupSpec::model("llm")
        .quota_domain("provider", rich)
        .member_spec(member("first"))
        .member_spec(member("second"))
        .member_spec(member("third"))
        .hedge(Hedge::after(ms(2)))
        .intensity(u32::MAX, secs(1))
        .child_limit(u32::MAX, secs(1));
    let pool = SupervisorSpec::dynamic("pool").intensity(u32::MAX, secs(1)).no_child_limit();
    let clerk_a = if nested {
        let agent = Agent(common.clone());
        let spec = ChildSpec::stateful("clerk-a", move || agent.clone());
        spec.shutdown(Shutdown::Timeout(ms(20)))
    } else {
        clerk("clerk-a", common)
    };
    strategy("top")
        .intensity(u32::MAX, secs(1))
        .no_child_limit()
        .policy(policy)
        .child(clerk_a)
        .child(hand("hand-a", common))
        .group(llm)
        .supervisor(pool)
        .child(clerk("clerk-b", common).lazy())
        .child(hand("hand-b", common))
}

/// What callers heard.
#[derive(Default)]
struct Heard {
    fates: [AtomicU64; Fate::ALL.len()],
    refused: AtomicU64,
    /// There was nobody of that name.
    absent: AtomicU64,
    left: AtomicU64,
    casts: Mutex<Vec<Receipt>>,
}

impl Heard {
    fn fate(&self, fate: Fate) {
        let at = Fate::ALL.iter().position(|each| *each == fate).unwrap();
        self.fates[at].fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self) -> u64 {
        self.fates.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

struct Storm {
    system: System,
    common: Common,
    heard: Heard,
    /// Callers who are not done.
    asking: AtomicUsize,
    /// The system is being stopped.
    stopped: AtomicBool,
    calls: u64,
}

type Outcome = Result<Answer<u64>, CallError<u64>>;

impl Storm {
    fn over(&self) -> bool {
        self.asking.load(Ordering::Acquire) == 0
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Stops everything while it is at its worst.
    async fn stopper(self: Arc<Self>) {
        // A third of what will be asked has been accepted; a storm that comes to less ends by itself.
        while !self.over() && self.system.fates().accepted < CALLERS * self.calls / 3 {
            pass(1).await;
        }
        self.stopped.store(true, Ordering::Release);
        self.system.stop().await;
        // Who asks a group just now may be between being counted and being refused, on another thread.
        while self.system.fates().open > 0 {
            tokio::task::yield_now().await;
        }
    }

    fn hear(&self, id: u64, outcome: Outcome, deadline: Duration) {
        let fate = match outcome {
            Ok(answer) => {
                assert_eq!(answer.value, id, "the answer to another request");
                self.common.records.hear(id);
                Fate::Done
            }
            Err(
                CallError::Full { message: back, .. } | CallError::Refused { message: back, .. },
            ) => {
                assert_eq!(back, id, "another message came back");
                self.heard.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(CallError::Expired { waited, .. }) => {
                assert!(waited >= deadline, "expired after {waited:?} of {deadline:?}");
                Fate::Expired
            }
            Err(CallError::RecoveryExhausted { .. }) => Fate::Failed,
            Err(CallError::Unknown { .. }) => Fate::Unknown,
            Err(CallError::Quarantined { .. }) => Fate::Quarantined,
            Err(CallError::Cancelled { .. }) => Fate::Cancelled,
            Err(CallError::Suspended { .. }) => Fate::Suspended,
            Err(CallError::Stopped { .. }) => Fate::Stopped,
            Err(error) => panic!("{error}"),
        };
        self.heard.fate(fate);
    }

    fn port(&self, kept: &[Port<u64, u64>]) -> Option<Port<u64, u64>> {
        let chance = &self.common.chance;
        match chance.below(8) {
            0 => self.system.port(format!("top/pool/{}", chance.below(POOL))).ok(),
            1..=3 => kept.last().cloned(),
            _ => Some(kept[chance.below(kept.len() as u64) as usize].clone()),
        }
    }

    async fn ask(&self, id: u64, port: Port<u64, u64>) {
        let chance = &self.common.chance;
        let deadline = ms(60 + 40 * chance.below(8));
        let options = CallOptions::new().deadline(deadline);
        let began = Instant::now();
        let left = match chance.below(100) {
            0..8 => match port.cast_with(id, options) {
                Ok(receipt) => {
                    locked(&self.heard.casts).push(receipt);
                    false
                }
                Err(error) => {
                    self.hear(id, Err(error), deadline);
                    false
                }
            },
            8..12 => {
                // Polled a few times, and dropped where it stands.
                let mut call = std::pin::pin!(port.call_with(id, options));
                let mut polls = chance.below(3);
                let outcome = poll_fn(|cx| match call.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                    Poll::Pending if polls == 0 => Poll::Ready(None),
                    Poll::Pending => {
                        polls -= 1;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                });
                outcome.await.map(|outcome| self.hear(id, outcome, deadline)).is_none()
            }
            12..16 => {
                let call = port.call_with(id, options);
                let outcome = tokio::time::timeout(ms(chance.below(6)), call).await;
                outcome.map(|outcome| self.hear(id, outcome, deadline)).is_err()
            }
            16..20 => {
                // Dropped by another thread than the one that polls it.
                let call = tokio::spawn(async move { port.call_with(id, options).await });
                for _ in 0..chance.below(3) {
                    tokio::task::yield_now().await;
                }
                call.abort();
                call.await.map(|outcome| self.hear(id, outcome, deadline)).is_err()
            }
            20..24 => {
                // It moves to another task, and another waker, on the way.
                let mut call = Box::pin(async move { port.call_with(id, options).await });
                let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
                let outcome = match first {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => tokio::spawn(call).await.unwrap(),
                };
                self.hear(id, outcome, deadline);
                false
            }
            _ => {
                self.hear(id, port.call_with(id, options).await, deadline);
                false
            }
        };
        let waited = began.elapsed();
        assert!(waited <= deadline + SLACK, "waited {waited:?} of {deadline:?}");
        self.heard.left.fetch_add(u64::from(left), Ordering::Relaxed);
    }

    async fn caller(self: Arc<Self>, kept: Vec<Port<u64, u64>>, first: u64) {
        for id in first..first + self.calls {
            match self.port(&kept) {
                Some(port) => self.ask(id, port).await,
                None => drop(self.heard.absent.fetch_add(1, Ordering::Relaxed)),
            }
        }
        self.asking.fetch_sub(1, Ordering::AcqRel);
    }

    /// Kills, and takes members out and puts them back.
    async fn killer(self: Arc<Self>) {
        let chance = &self.common.chance;
        while !self.over() {
            pass(1 + chance.below(3)).await;
            let member = MEMBERS[chance.below(3) as usize];
            match chance.below(8) {
                0..=1 => drop(self.system.isolate(member)),
                2..=4 => drop(self.system.release(member)),
                5 => drop(self.system.kill(member)),
                6 => drop(self.system.kill(format!("top/pool/{}", chance.below(POOL)))),
                _ => drop(self.system.kill(FIXED[chance.below(4) as usize])),
            }
        }
    }

    /// Starts, stops, starts again and deletes children that come and go.
    async fn pool(self: Arc<Self>) {
        let chance = &self.common.chance;
        let pool = self.system.supervisor("top/pool").unwrap();
        while !self.over() {
            let id = chance.below(POOL).to_string();
            let answer = match chance.below(6) {
                0..=2 => match pool.start_child(hand(&id, &self.common)).await {
                    Ok(path) => {
                        assert_eq!(path.id(), id);
                        Ok(())
                    }
                    Err(StartError::AlreadyStarted(_) | StartError::AlreadyPresent(_)) => Ok(()),
                    Err(StartError::SupervisorGone(path)) => Err(ChildError::SupervisorGone(path)),
                    Err(StartError::Child { .. }) if self.stopped() => Ok(()),
                    Err(error) => panic!("{error}"),
                },
                3 => pool.terminate_child(&id).await,
                4 => pool.restart_child(&id).await,
                _ => pool.delete_child(&id).await,
            };
            let failed = matches!(answer, Err(ChildError::StartFailed { .. }));
            assert!(!failed || self.stopped(), "{answer:?}");
            pass(chance.below(2)).await;
        }
    }

    /// Stops children that stand in the spec, the whole group and the whole pool, and starts them again.
    async fn operator(self: Arc<Self>) {
        let chance = &self.common.chance;
        let top = self.system.supervisor("top").unwrap();
        let llm = self.system.supervisor("top/llm").unwrap();
        let ids = ["clerk-a", "hand-a", "clerk-b", "hand-b", "llm", "pool"];
        while !self.over() {
            pass(4 + chance.below(8)).await;
            let id = ids[chance.below(6) as usize];
            if chance.below(4) == 0 {
                let _ = llm.terminate_child("second").await;
                let _ = llm.restart_child("second").await;
            } else {
                let _ = top.terminate_child(id).await;
                let _ = top.restart_child(id).await;
            }
        }
    }

    /// Looks at everything.
    async fn looker(self: Arc<Self>) {
        let mut round = 0_u64;
        while !self.over() {
            let dump = self.system.tree();
            let text = match round % 4 {
                0 => dump.to_string(),
                1 => dump.to_json(),
                2 => dump.to_dot(),
                _ => dump.to_mermaid(),
            };
            assert!(text.contains("clerk-a") || self.stopped(), "{text}");
            let metrics = self.system.metrics();
            assert!(!format!("{metrics:?}").is_empty());
            round += 1;
            pass(2).await;
        }
        assert!(round > 1);
    }

    /// Everybody is there again and works.
    async fn mend(&self) {
        let top = self.system.supervisor("top").unwrap();
        for id in ["clerk-a", "hand-a", "llm", "pool", "clerk-b", "hand-b"] {
            let _ = top.restart_child(id).await;
        }
        let llm = self.system.supervisor("top/llm").unwrap();
        for member in MEMBERS {
            let _ = llm.restart_child(member.rsplit('/').next().unwrap()).await;
            self.system.release(member).unwrap();
        }
    }
}

/// What the threads of one storm have come to.
pub(crate) struct Weather {
    pub(crate) looks: u64,
    pub(crate) answers: u64,
    pub(crate) crashes: u64,
    pub(crate) hedges: u64,
}

/// Counts all the time, from a thread of its own, until told to stop.
fn watch(system: System, stop: mpsc::Receiver<()>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut looks = 0;
        while let Err(mpsc::RecvTimeoutError::Timeout) =
            stop.recv_timeout(Duration::from_micros(50))
        {
            let fates = system.fates();
            looks += 1;
            assert!(fates.is_balanced(), "at look {looks}: {fates:?}");
        }
        looks
    })
}

async fn run(wild: Wild, shown: Arc<OnceLock<System>>) -> Weather {
    let Wild { strategy, seed, calls, stops, nested, .. } = wild;
    let chance = Chance::new(seed);
    let asked = CALLERS * calls;
    let records = Records::new(asked + AFTER + 1);
    let common = Common { chance, records, calm: Arc::default() };
    let options = SystemOptions::new().event_capacity(1 << 17);
    let system = System::start_with(tree(strategy, nested, &common), options).await.unwrap();
    let _ = shown.set(system.clone());
    // Half of the storms are listened to; without a listener, some paths are shorter.
    let events = seed.is_multiple_of(2).then(|| system.events());
    let (stop, stopped) = mpsc::channel();
    let watcher = watch(system.clone(), stopped);
    let storm = Arc::new(Storm {
        system: system.clone(),
        common,
        heard: Heard::default(),
        asking: AtomicUsize::new(CALLERS as usize),
        stopped: AtomicBool::new(false),
        calls,
    });
    let kept: Vec<Port<u64, u64>> = FIXED.iter().map(|path| system.port(*path).unwrap()).collect();
    let mut tasks: Vec<_> = (0..CALLERS)
        .map(|n| tokio::spawn(Arc::clone(&storm).caller(kept.clone(), n * calls)))
        .collect();
    if stops {
        tasks.push(tokio::spawn(Arc::clone(&storm).stopper()));
    }
    tasks.push(tokio::spawn(Arc::clone(&storm).killer()));
    tasks.push(tokio::spawn(Arc::clone(&storm).pool()));
    tasks.push(tokio::spawn(Arc::clone(&storm).operator()));
    tasks.push(tokio::spawn(Arc::clone(&storm).looker()));
    for task in tasks {
        task.await.unwrap();
    }
    storm.common.calm.store(true, Ordering::Relaxed);
    if !stops {
        storm.mend().await;
    }
    // Whatever was left behind by its callers ends by itself, at the latest by its deadline.
    while system.fates().open > 0 {
        pass(2).await;
    }
    let before = system.fates();
    if !stops {
        afterwards(&storm, asked).await;
    }
    system.stop().await;
    drop(stop);
    let looks = watcher.join().expect("accepted is fates and open, always");

    let (fates, stats) = (system.fates(), system.stats());
    assert!(fates.is_balanced() && fates.open == 0, "{fates:?}");
    let heard = &storm.heard;
    let [refused, absent, left] =
        [&heard.refused, &heard.absent, &heard.left].map(|count| count.load(Ordering::Relaxed));
    let casts = std::mem::take(&mut *locked(&heard.casts));
    println!("{before:?} refused {refused} absent {absent} left {left} looks {looks}");
    // One outcome each: heard, asked for later, given back, or left.
    let known = heard.sum() + casts.len() as u64;
    assert_eq!(known + refused + absent + left, asked);
    // Agents ask, too.
    let most = if nested { u64::MAX } else { left };
    assert!(known <= before.accepted && before.accepted - known <= most);
    let mut cast = [0; Fate::ALL.len()];
    for receipt in casts {
        let fate = system.fate(receipt).flatten().expect("the fate of a cast is known");
        cast[Fate::ALL.iter().position(|each| *each == fate).unwrap()] += 1;
    }
    for (at, fate) in Fate::ALL.into_iter().enumerate() {
        let told = heard.fates[at].load(Ordering::Relaxed) + cast[at];
        let counted = before.of(fate);
        let fits = told <= counted && counted - told <= most;
        assert!(fits, "{fate}: {told} told, {counted} counted");
    }
    let hedges = stats.hedges.values().sum();
    check_runs(&storm.common.records, hedges);
    if let Some(mut events) = events {
        let mut fated: HashMap<_, u32> = HashMap::new();
        while let Some(stamped) = events.try_next() {
            if let Event::Fated { request, .. } = stamped.event {
                *fated.entry(request).or_default() += 1;
            }
        }
        assert_eq!(stats.events_lagged, 0);
        assert!(fated.values().all(|times| *times == 1), "a request with two fates");
        assert_eq!(fated.len() as u64, fates.accepted);
    }
    Weather { looks, answers: before.done, crashes: stats.crashes, hedges }
}

/// Everybody works as if nothing had been: no wake was lost, no place in a mailbox, no turn.
async fn afterwards(storm: &Arc<Storm>, first: u64) {
    let calls: Vec<_> = (0..AFTER)
        .map(|n| {
            let port: Port<u64, u64> = storm.system.port(FIXED[n as usize % FIXED.len()]).unwrap();
            let (id, options) = (first + n, CallOptions::new().deadline(secs(30)));
            tokio::spawn(
                async move { (port.path().clone(), port.call_with(id, options).await, id) },
            )
        })
        .collect();
    for call in calls {
        let (path, outcome, id) = call.await.unwrap();
        let answer = outcome.unwrap_or_else(|error| {
            panic!("{path} afterwards: {error}\n{:#}", storm.system.tree());
        });
        assert_eq!(answer.value, id);
    }
    // What the storm had under way more than once is not counted for ever: there is room for a copy.
    let slow = storm.common.records.slow();
    let port: Port<u64, u64> = storm.system.port("top/llm").unwrap();
    let options = CallOptions::new().deadline(secs(30));
    let mut events = storm.system.events();
    let answer = port.call_with(slow, options).await.unwrap_or_else(|error| {
        let seen = std::iter::from_fn(|| events.try_next());
        let why = seen.map(|stamped| stamped.event).find(|e| matches!(e, Event::NotHedged { .. }));
        panic!("{error}, {why:?}");
    });
    assert_eq!((answer.value, answer.served_by.id()), (slow, "second"));
}

fn check_runs(records: &Records, hedges: u64) {
    let mut after = 0;
    for (id, done) in records.0.iter().enumerate() {
        let done = locked(done);
        let mut numbers: Vec<_> = done.begun.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        // Five hand-outs, two substitutes, and one copy, at the very most.
        assert!(numbers.len() <= 8, "request {id}: {numbers:?}");
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{id} twice by {:?}", done.begun);
        after += u64::from(done.after);
    }
    // Nothing is handed out for a request that was answered. A copy may be taken up on one thread just
    // when the other one is answered on another, and there are no more of those than copies.
    assert!(after <= hedges, "{after} hand-outs of what was answered, {hedges} hedges");
}

/// Which storm.
#[derive(Clone, Copy)]
pub(crate) struct Wild {
    pub(crate) strategy: Strategy,
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// What each caller asks for.
    pub(crate) calls: u64,
    /// The system is stopped in the middle of it.
    pub(crate) stops: bool,
    /// One child asks others before it answers.
    pub(crate) nested: bool,
}

/// Runs a storm on threads of its own, and says how things stand if it does not end.
pub(crate) fn storm(wild: Wild) -> Weather {
    let (tell, told) = mpsc::channel();
    let shown: Arc<OnceLock<System>> = Arc::default();
    let seen = Arc::clone(&shown);
    let thread = std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(wild.workers).enable_all().build().unwrap();
        let weather = runtime.block_on(run(wild, seen));
        let _ = tell.send(weather);
    });
    match told.recv_timeout(WATCHDOG) {
        Ok(weather) => {
            thread.join().unwrap();
            weather
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it tells before it ends"),
        },
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let system = shown.get().expect("it started");
            let (seed, fates) = (wild.seed, system.fates());
            panic!("seed {seed} does not end: {fates:?}\n{:#}", system.tree())
        }
    }
}
