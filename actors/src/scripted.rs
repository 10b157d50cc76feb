//! Behaviors that do what a test says: answer, fail, panic, hang, block, lie; on cue, or at rates from
//! a seed.
//!
//! A [`Script`] is the test's end. It makes the child, tells it what to do, and keeps every attempt.
//!
//! ```
//! use mainstay::fault::Class;
//! use mainstay_actors::scripted::{Rates, Script};
//!
//! // Says "hello, you" to everybody, after one failure.
//! let script = Script::<String, String>::new(|name| format!("hello, {name}"));
//! script.then_fail(Class::Network);
//! let spec = script.stateless("greeter").concurrency(4);
//!
//! // Fails at the rates of a playbook, the same ones in every run.
//! script.rates(Rates { timeout: 0.05, tool_failure: 0.02, ..Rates::seeded(7) });
//! # drop(spec);
//! ```
//!
//! Each attempt of a [`Scripted`], each step of a [`ScriptedState`], takes the next [`Cue`]. Without
//! a cue it draws from the [`Rates`], if there are any; where those say well, it does what
//! [`Script::otherwise`] says, and that is by default the usual answer.
//!
//! *Invariant.* A script outlives every life and every clone of the state, so nothing recorded is
//! undone by a rollback.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::behavior::Context;
use mainstay::fault::{Class, ExitKind, Fault};
use mainstay::id::{ChildPath, Delivery, Incarnation, RequestId};
use mainstay::moment::Moment;
use mainstay::spec::ChildSpec;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

mod cue;
mod play;
mod rates;

pub use cue::{Birth, Cue, Did, Payload, StepCue};
pub use play::{Scripted, ScriptedState};
pub use rates::{Draw, Rates};

/// One attempt of a [`Scripted`], or one step of a [`ScriptedState`], written down as it began.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attempt {
    /// Who made it.
    pub child: ChildPath,
    /// In which life.
    pub life: Incarnation,
    /// At which request.
    pub request: RequestId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Which hand-out, from 1.
    pub delivery: Delivery,
    /// When.
    pub at: Moment,
    /// The idempotency key.
    pub key: String,
    /// Why it was called.
    pub seen: Seen,
    /// The state's counter before the step; 0 for a [`Scripted`].
    pub counter: u64,
    /// What it did.
    pub did: Did,
}

/// Why a scripted behavior was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// A stateless attempt.
    Serve,
    /// The first step of a stateful attempt.
    First,
    /// Another step.
    Again,
    /// A step with the outcomes of calls.
    Performed,
}

type Usual<Q, R> = Box<dyn Fn(&Q, u64) -> R + Send + Sync>;
type Lies<Q, R> = Arc<dyn Fn(&Q) -> R + Send + Sync>;
type Otherwise<Q, R> = Arc<dyn Fn() -> Cue<Q, R> + Send + Sync>;
type KeyBy<Q> = Arc<dyn Fn(&Q) -> u64 + Send + Sync>;

struct Inner<Q, R> {
    usual: Usual<Q, R>,
    cues: Mutex<VecDeque<Cue<Q, R>>>,
    otherwise: Mutex<Option<Otherwise<Q, R>>>,
    rates: Mutex<Option<(Rates, Option<KeyBy<Q>>)>>,
    lies: Mutex<Option<Lies<Q, R>>>,
    births: Mutex<VecDeque<Birth>>,
    births_otherwise: Mutex<Birth>,
    attempts: Mutex<Vec<Attempt>>,
    lives: Mutex<Vec<Incarnation>>,
    stops: Mutex<Vec<ExitKind>>,
    built: AtomicU64,
    served: AtomicU64,
    drop_panics: AtomicU64,
    stop_hangs: AtomicBool,
    gate: watch::Sender<u64>,
    // Blocked threads cannot wait on the channel: it has no wait without a runtime.
    blocked: Mutex<u64>,
    unblocked: Condvar,
}

/// The test's end of a scripted behavior. Cheap to clone; every clone is the same script.
pub struct Script<Q = String, R = String>(Arc<Inner<Q, R>>);

impl<Q, R> Clone for Script<Q, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, R> fmt::Debug for Script<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("cues", &self.0.cues.lock().len())
            .field("attempts", &self.0.attempts.lock().len())
            .finish_non_exhaustive()
    }
}

impl<Q: 'static, R: 'static> Script<Q, R> {
    /// A script whose usual answer is what this function says.
    pub fn new(answer: impl Fn(&Q) -> R + Send + Sync + 'static) -> Self {
        Self::counting(move |request, _| answer(request))
    }

    /// As [`Script::new`], with a number: for a [`ScriptedState`] its counter, this step included; for
    /// a [`Scripted`] how many attempts there have been, this one included.
    pub fn counting(answer: impl Fn(&Q, u64) -> R + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            usual: Box::new(answer),
            cues: Mutex::default(),
            otherwise: Mutex::new(None),
            rates: Mutex::new(None),
            lies: Mutex::new(None),
            births: Mutex::default(),
            births_otherwise: Mutex::default(),
            attempts: Mutex::default(),
            lives: Mutex::default(),
            stops: Mutex::default(),
            built: AtomicU64::new(0),
            served: AtomicU64::new(0),
            drop_panics: AtomicU64::new(0),
            stop_hangs: AtomicBool::new(false),
            gate: watch::Sender::new(0),
            blocked: Mutex::new(0),
            unblocked: Condvar::new(),
        }))
    }

    /// A script that always gives this answer.
    pub fn always(reply: R) -> Self
    where
        R: Clone + Send + Sync,
    {
        Self::new(move |_| reply.clone())
    }
}

impl<Q: Clone + 'static> Script<Q, Q> {
    /// A script that gives back what it is asked.
    pub fn echo() -> Self {
        Self::new(Q::clone)
    }
}

/// Making the child.
impl<Q: Send + Sync + 'static, R: Send + 'static> Script<Q, R> {
    /// A stateless child that plays this script. Its effect is `Pure` unless the spec says otherwise.
    pub fn stateless(&self, id: impl AsRef<str>) -> ChildSpec {
        let script = self.clone();
        ChildSpec::stateless(id, move || Scripted::born(script.clone()))
    }

    /// A stateful child that plays this script.
    pub fn stateful(&self, id: impl AsRef<str>) -> ChildSpec {
        let script = self.clone();
        ChildSpec::stateful(id, move || ScriptedState::born(script.clone()))
    }

    /// A stateless behavior to be cloned, one clone a life, as the members of a group are.
    pub fn behavior(&self) -> Scripted<Q, R> {
        Scripted::template(self.clone())
    }
}

/// Saying what happens next.
impl<Q, R> Script<Q, R> {
    /// The next attempt or step that has no cue yet does this.
    pub fn then(&self, cue: Cue<Q, R>) {
        self.0.cues.lock().push_back(cue);
    }

    /// The next one gives this answer.
    pub fn then_reply(&self, reply: R) {
        self.then(Cue::Reply(reply));
    }

    /// The next one gives this answer, which is wrong.
    pub fn then_lie(&self, reply: R) {
        self.then(Cue::Lie(reply));
    }

    /// The next one fails with this class and code `scripted`.
    pub fn then_fail(&self, class: Class) {
        self.then(Cue::fail(class));
    }

    /// The next one fails with this fault.
    pub fn then_fault(&self, fault: Fault) {
        self.then(Cue::Fail(fault));
    }

    /// The next one panics with the text `scripted`.
    pub fn then_panic(&self) {
        self.then(Cue::Panic(Payload::Text("scripted".to_owned())));
    }

    /// The next one panics with a number, of which no text can be made.
    pub fn then_panic_number(&self) {
        self.then(Cue::Panic(Payload::Number(42)));
    }

    /// The next one never ends; it can be dropped at any time.
    pub fn then_hang(&self) {
        self.then(Cue::Hang);
    }

    /// The next one waits for [`Script::release`], then gives the usual answer.
    pub fn then_wait(&self) {
        self.then(Cue::Wait);
    }

    /// The next one blocks its thread for so long by the real clock, then gives the usual answer.
    pub fn then_block(&self, time: Duration) {
        self.then(Cue::Block(time));
    }

    /// The next one blocks its thread until [`Script::release`], then gives the usual answer. A
    /// runtime that is dropped waits for it: release it before the test ends.
    pub fn then_block_until_released(&self) {
        self.then(Cue::BlockUntilReleased);
    }

    /// The next step asks for another.
    pub fn then_continue(&self) {
        self.then(Cue::Continue);
    }

    /// The next one does as if nothing were scripted.
    pub fn then_usual(&self) {
        self.then(Cue::Usual);
    }

    /// What an attempt does that has no cue and that the rates leave alone.
    ///
    /// # Default
    /// [`Cue::Usual`].
    pub fn otherwise(&self, cue: impl Fn() -> Cue<Q, R> + Send + Sync + 'static) {
        *self.0.otherwise.lock() = Some(Arc::new(cue));
    }

    /// Every attempt without a cue fails with this class.
    pub fn otherwise_fail(&self, class: Class) {
        self.otherwise(move || Cue::fail(class));
    }

    /// Every attempt without a cue gives the usual answer again.
    pub fn otherwise_usual(&self) {
        *self.0.otherwise.lock() = None;
    }

    /// Attempts without a cue fail at these rates, by the number of their request. Request numbers
    /// follow the order of acceptance: with several callers at once, use [`Script::rates_by`].
    pub fn rates(&self, rates: Rates) {
        *self.0.rates.lock() = Some((rates, None));
    }

    /// Attempts without a cue fail at these rates, by a number made from the request itself.
    pub fn rates_by(&self, rates: Rates, key: impl Fn(&Q) -> u64 + Send + Sync + 'static) {
        *self.0.rates.lock() = Some((rates, Some(Arc::new(key))));
    }

    /// What is said where the rates say [`Draw::Lie`]. Without it, the usual answer is.
    pub fn lies_with(&self, lie: impl Fn(&Q) -> R + Send + Sync + 'static) {
        *self.0.lies.lock() = Some(Arc::new(lie));
    }

    /// The next life that has no birth yet begins so.
    pub fn then_born(&self, birth: Birth) {
        self.0.births.lock().push_back(birth);
    }

    /// How lives begin that nothing else is said of.
    ///
    /// # Default
    /// [`Birth::Well`].
    pub fn otherwise_born(&self, birth: Birth) {
        *self.0.births_otherwise.lock() = birth;
    }

    /// The next so many drops panic, unless the thread is panicking already. Every clone of a
    /// [`ScriptedState`] is dropped, too.
    pub fn drops_panic(&self, times: u64) {
        self.0.drop_panics.store(times, Ordering::SeqCst);
    }

    /// Whether the end of a life in order hangs, in `stop`.
    pub fn stops_hang(&self, hang: bool) {
        self.0.stop_hangs.store(hang, Ordering::SeqCst);
    }

    /// Lets go of everything that waits or blocks now; what comes later waits again.
    pub fn release(&self) {
        self.0.gate.send_modify(|released| *released += 1);
        *self.0.blocked.lock() += 1;
        self.0.unblocked.notify_all();
    }
}

/// Looking at what happened.
impl<Q, R> Script<Q, R> {
    /// Every attempt and step so far, in the order they began.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.0.attempts.lock().clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.attempts.lock().len()
    }

    /// When each began.
    pub fn times(&self) -> Vec<Moment> {
        self.0.attempts.lock().iter().map(|attempt| attempt.at).collect()
    }

    /// The lives that came to their `start`.
    pub fn lives(&self) -> Vec<Incarnation> {
        self.0.lives.lock().clone()
    }

    /// How often a behavior was constructed, those whose constructor panicked included.
    pub fn built(&self) -> u64 {
        self.0.built.load(Ordering::SeqCst)
    }

    /// The ends of lives in order, with their causes.
    pub fn stops(&self) -> Vec<ExitKind> {
        self.0.stops.lock().clone()
    }

    /// Cues not taken yet.
    pub fn cues_left(&self) -> usize {
        self.0.cues.lock().len()
    }

    /// Forgets every attempt, life and stop.
    pub fn forget(&self) {
        self.0.attempts.lock().clear();
        self.0.lives.lock().clear();
        self.0.stops.lock().clear();
    }
}

/// What the behaviors do with it.
impl<Q, R> Script<Q, R> {
    fn born(&self) -> Birth {
        self.0.built.fetch_add(1, Ordering::SeqCst);
        let next = self.0.births.lock().pop_front();
        let birth = next.unwrap_or_else(|| self.0.births_otherwise.lock().clone());
        if let Birth::ConstructorPanics = birth {
            Payload::Text("scripted constructor".to_owned()).panic();
        }
        birth
    }

    async fn started(&self, birth: Birth, life: Incarnation) -> Result<(), Fault> {
        self.0.lives.lock().push(life);
        match birth {
            Birth::Well | Birth::ConstructorPanics => Ok(()),
            Birth::StartFails(fault) => Err(fault),
            Birth::StartPanics => Payload::Text("scripted start".to_owned()).panic(),
            Birth::StartHangs => std::future::pending().await,
        }
    }

    async fn stopped(&self, kind: ExitKind) {
        self.0.stops.lock().push(kind);
        if self.0.stop_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn dropped(&self) {
        let counts = &self.0.drop_panics;
        // A panic while a thread unwinds would end the process.
        if !std::thread::panicking()
            && counts
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
        {
            Payload::Text("scripted drop".to_owned()).panic();
        }
    }

    /// Takes the next cue and writes it down.
    fn next(
        &self,
        request: &Q,
        ctx: &Context,
        life: Incarnation,
        seen: Seen,
        counter: u64,
    ) -> Act<Q, R> {
        let next = self.0.cues.lock().pop_front();
        let cue = match next {
            Some(Cue::Usual) | None => self.unscripted(request, ctx),
            Some(cue) => cue,
        };
        let act = Act {
            // Before anybody can see the attempt: a release from then on is for it.
            released: self.0.gate.subscribe(),
            unblocked: *self.0.blocked.lock(),
            number: self.0.served.fetch_add(1, Ordering::SeqCst) + 1,
            did: cue.did(),
            cue,
        };
        self.0.attempts.lock().push(Attempt {
            child: ctx.path().clone(),
            life,
            request: ctx.request(),
            attempt: ctx.attempt(),
            delivery: ctx.delivery(),
            at: ctx.now(),
            key: ctx.key(),
            seen,
            counter,
            did: act.did,
        });
        act
    }

    fn unscripted(&self, request: &Q, ctx: &Context) -> Cue<Q, R> {
        let rates = self.0.rates.lock().clone();
        if let Some((rates, key)) = rates {
            let number = key.map_or(ctx.request().0, |key| key(request));
            match rates.draw(number, ctx.attempt()) {
                Draw::Well => {}
                Draw::Fail(class) => return Cue::fail(class),
                Draw::Panic => return Cue::Panic(Payload::Text("scripted rate".to_owned())),
                Draw::Hang => return Cue::Hang,
                Draw::Lie => {
                    let lies = self.0.lies.lock().clone();
                    if let Some(lies) = lies {
                        return Cue::Lie(lies(request));
                    }
                }
            }
        }
        // Not called under the lock: the function may speak to the script.
        let otherwise = self.0.otherwise.lock().clone();
        otherwise.map_or(Cue::Usual, |otherwise| otherwise())
    }

    /// Does what takes time or does not come back; gives what is left to do.
    async fn wait(&self, act: Act<Q, R>) -> Cue<Q, R> {
        let Act { mut cue, mut released, unblocked, .. } = act;
        while let Cue::After(delay, next) = cue {
            tokio::time::sleep(delay).await;
            cue = *next;
        }
        match cue {
            Cue::Panic(payload) => payload.panic(),
            Cue::Hang => std::future::pending().await,
            Cue::Wait => {
                // An error only says that the script is gone, which this borrow of it rules out.
                let _ = released.changed().await;
                Cue::Usual
            }
            Cue::Block(time) => {
                std::thread::sleep(time);
                Cue::Usual
            }
            Cue::BlockUntilReleased => {
                self.block(unblocked);
                Cue::Usual
            }
            cue => cue,
        }
    }

    fn block(&self, before: u64) {
        let mut now = self.0.blocked.lock();
        while *now == before {
            self.0.unblocked.wait(&mut now);
        }
    }

    fn answer(&self, request: &Q, number: u64) -> R {
        (self.0.usual)(request, number)
    }
}

/// A cue on its way to being done.
struct Act<Q, R> {
    cue: Cue<Q, R>,
    did: Did,
    /// Counts attempts of this script, from 1.
    number: u64,
    released: watch::Receiver<u64>,
    unblocked: u64,
}
