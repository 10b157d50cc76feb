//! Manual points: where a person may decide what becomes of a request that a rung of the ladder could
//! not help.
//!
//! A point opens when retries, substitutes or a rollback have failed, or at once where none of them may
//! help, and only where [`PointSpec`] gives people time. It is seen as an [`Event::PointOpened`](crate::event::Event::PointOpened) and in
//! [`PointsRef::open`]; the request waits as it would for a retry. When nobody decides in time, the
//! ladder goes on as it would have.
//!
//! *Invariant.* No code of the user's runs here: a point is data, and a decision comes from outside. It is
//! about the one request that was shown, and is taken once. Nothing that is kept holds user data but what
//! a person said.

use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::decision::{Action, Rung};
use crate::fate::Trail;
use crate::fault::Class;
use crate::id::{CheckpointId, ChildPath, LineId, RequestId};
use crate::moment::Moment;
use crate::policy::History;

/// Decisions that are remembered, the latest.
pub const LOG: usize = 1024;

/// What a person can say, but for an answer of their own ([`PointsRef::answer`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Choice {
    /// The ladder goes on as it would have.
    Continue,
    /// The request fails here, with its trail. Not where the outcome of an effect is unknown: that is
    /// never reported as failed.
    Abort,
    /// Once more to the same child, without being counted as a hand-out. Only where a repeat is safe.
    RetryAgain,
    /// On to this member of the group: one on the allow-list of the member that failed, which has not had
    /// the request, takes work now and is fit for the class.
    Substitute(ChildPath),
    /// The child goes back to where the request began, and does it again; in a transaction, what the
    /// request has done to the world is undone first. Only once a request, and only where a repeat is
    /// safe or undone.
    RollBack,
}

impl Choice {
    /// Its name in events.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Abort => "abort",
            Self::RetryAgain => "retry_again",
            Self::Substitute(_) => "substitute",
            Self::RollBack => "roll_back",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Substitute(member) => write!(f, " {member}"),
            _ => Ok(()),
        }
    }
}

/// After which rungs people are asked, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PointSpec {
    /// How long a request waits when no rung may help it, whatever was tried before: a permission is
    /// missing, the input is not valid and there is no simpler flow left, or nobody knows whether its
    /// effect has happened. `None` for not at all.
    ///
    /// # Default
    /// `None`.
    pub at_once: Option<Duration>,
    /// How long a request waits after its retries have failed; `None` for not at all.
    ///
    /// # Default
    /// `None`.
    pub after_retry: Option<Duration>,
    /// The same after its substitutes have failed.
    ///
    /// # Default
    /// `None`.
    pub after_substitute: Option<Duration>,
    /// The same after its rollback has failed. People are told in any case.
    ///
    /// # Default
    /// `None`.
    pub after_rollback: Option<Duration>,
    /// What is done when nobody decides in time. What is not offered at a point is [`Choice::Continue`]
    /// there.
    ///
    /// # Default
    /// [`Choice::Continue`].
    pub otherwise: Choice,
}

impl Default for PointSpec {
    fn default() -> Self {
        Self {
            at_once: None,
            after_retry: None,
            after_substitute: None,
            after_rollback: None,
            otherwise: Choice::Continue,
        }
    }
}

impl PointSpec {
    /// Nobody is asked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks people, for so long, at once where no rung may help, and after retries, substitutes and
    /// rollbacks.
    pub fn everywhere(wait: Duration) -> Self {
        Self::new().at_once(wait).after_retry(wait).after_substitute(wait).after_rollback(wait)
    }

    /// Sets [`PointSpec::at_once`].
    #[must_use]
    pub const fn at_once(mut self, wait: Duration) -> Self {
        self.at_once = Some(wait);
        self
    }

    /// Sets [`PointSpec::after_retry`].
    #[must_use]
    pub const fn after_retry(mut self, wait: Duration) -> Self {
        self.after_retry = Some(wait);
        self
    }

    /// Sets [`PointSpec::after_substitute`].
    #[must_use]
    pub const fn after_substitute(mut self, wait: Duration) -> Self {
        self.after_substitute = Some(wait);
        self
    }

    /// Sets [`PointSpec::after_rollback`].
    #[must_use]
    pub const fn after_rollback(mut self, wait: Duration) -> Self {
        self.after_rollback = Some(wait);
        self
    }

    /// Sets [`PointSpec::otherwise`].
    #[must_use]
    pub fn otherwise(mut self, choice: Choice) -> Self {
        self.otherwise = choice;
        self
    }

    /// How long people have after this rung has failed; `None` when they are not even told.
    pub(crate) const fn wait(&self, rung: Rung) -> Option<Duration> {
        match rung {
            Rung::Retry => self.after_retry,
            Rung::Substitute => self.after_substitute,
            Rung::Rollback => Some(match self.after_rollback {
                Some(wait) => wait,
                None => Duration::ZERO,
            }),
            Rung::Escalate => None,
        }
    }

    /// Whether people are asked before this is done, and for how long: after which rung, or at once.
    /// `history` is what was before this failure.
    pub(crate) fn due(
        &self,
        history: &History,
        class: Option<Class>,
        action: Action,
    ) -> Option<(Option<Rung>, Duration)> {
        let hopeless = match class {
            _ if action == Action::HoldUnknown => true,
            Some(Class::Permission | Class::InputValidation) => {
                matches!(action, Action::Rollback | Action::Widen | Action::Escalate | Action::Fail)
            }
            _ => false,
        };
        if hopeless && let Some(wait) = self.at_once {
            return Some((None, wait));
        }
        let after = failed(history, action)?;
        Some((Some(after), self.wait(after)?))
    }
}

/// Which rung has failed for good, when this is what comes next.
const fn failed(history: &History, action: Action) -> Option<Rung> {
    let (retried, handed_on) = (history.retries() > 0, history.substitutions() > 0);
    match action {
        Action::Substitute { .. } | Action::AwaitSibling { .. } if retried && !handed_on => {
            Some(Rung::Retry)
        }
        Action::Rollback | Action::Widen | Action::Escalate | Action::Fail => {
            if history.rollbacks() > 0 {
                Some(Rung::Rollback)
            } else if handed_on {
                Some(Rung::Substitute)
            } else if retried {
                Some(Rung::Retry)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// A request that waits for a decision. Holds no user data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Point {
    /// Names it in [`PointsRef::decide`].
    pub id: u64,
    /// The child where it failed.
    pub child: ChildPath,
    /// The request.
    pub request: RequestId,
    /// What has failed; `None` when no rung may help ([`PointSpec::at_once`]).
    pub after: Option<Rung>,
    /// The class of the last failure; `None` for the end of a life.
    pub class: Option<Class>,
    /// Every failed attempt, and what was decided after it. The last decision is the one that waits.
    pub trail: Trail,
    /// What the ladder does next, if nobody objects.
    pub proposed: &'static str,
    /// What can be chosen.
    pub choices: Vec<Choice>,
    /// Since when it waits.
    pub since: Moment,
    /// When it is decided without anybody: at most when half of the time to the request's deadline has
    /// passed, so that what comes then has time, too.
    pub until: Moment,
    /// Checkpoints of the child that are pinned while the request waits, 24 h at most: what it began with, and the
    /// child's newest. None where the child has no state in a store.
    pub pinned: Vec<CheckpointId>,
    /// Recovery lines of the scopes above that are pinned so, too: what those may return to if it is decided.
    pub lines: Vec<LineId>,
}

/// A decision that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PointDecided {
    /// The point.
    pub point: u64,
    /// The child.
    pub child: ChildPath,
    /// The request.
    pub request: RequestId,
    /// `continue`, `abort`, `retry_again`, `substitute`, `roll_back` or `answer`.
    pub what: &'static str,
    /// Who; `None` when nobody did in time.
    pub by: Option<String>,
    /// Why.
    pub why: String,
}

/// Why a decision was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PointError {
    /// It was decided, its time has passed, or its request has its fate.
    #[error("no decision {0} is waited for")]
    NotOpen(u64),
    /// That cannot be chosen there.
    #[error("point {point} does not offer {choice}")]
    NotOffered {
        /// The point.
        point: u64,
        /// What was chosen.
        choice: Choice,
    },
    /// The answer is of another type than the child's.
    #[error("point {point} takes an answer of type {wanted}, not {found}")]
    WrongType {
        /// The point.
        point: u64,
        /// The child's type.
        wanted: &'static str,
        /// The type that was given.
        found: &'static str,
    },
}

/// What was said at a point.
pub(crate) enum Said {
    Choice(Choice),
    Answer(Box<dyn Any + Send>),
}

/// The type of a child's reply, and whether its request still waits.
pub(crate) struct Asked {
    pub(crate) reply: TypeId,
    pub(crate) reply_name: &'static str,
    pub(crate) waits: Box<dyn Fn() -> bool + Send + Sync>,
}

struct Open {
    shown: Point,
    asked: Asked,
    say: oneshot::Sender<Said>,
}

#[derive(Default)]
struct State {
    last: u64,
    open: BTreeMap<u64, Open>,
    log: VecDeque<PointDecided>,
}

/// The points of a system.
pub(crate) struct Points {
    pub(crate) spec: PointSpec,
    state: Mutex<State>,
}

impl Points {
    pub(crate) fn new(spec: PointSpec) -> Arc<Self> {
        Arc::new(Self { spec, state: Mutex::default() })
    }

    /// Opens a point, which gets its number here.
    pub(crate) fn open(&self, mut shown: Point, asked: Asked) -> (u64, oneshot::Receiver<Said>) {
        let (say, hear) = oneshot::channel();
        let mut state = self.state.lock();
        state.last += 1;
        shown.id = state.last;
        let id = shown.id;
        state.open.insert(id, Open { shown, asked, say });
        (id, hear)
    }

    /// The number of a point at which nobody is waited for.
    pub(crate) fn tell(&self, child: ChildPath, request: RequestId) -> u64 {
        let mut state = self.state.lock();
        state.last += 1;
        let (point, what) = (state.last, Choice::Continue.name());
        let why = "people are only told".to_owned();
        state.keep(PointDecided { point, child, request, what, by: None, why });
        point
    }

    /// When the first decision about a request of this child falls to its default; `None` where none is waited for.
    pub(crate) fn next_end(&self, child: &ChildPath) -> Option<Moment> {
        let state = self.state.lock();
        let its = state.open.values().filter(|it| it.shown.child == *child && (it.asked.waits)());
        its.map(|open| open.shown.until).min()
    }

    /// Nobody has decided in time; false when somebody just has, and was or will be heard.
    pub(crate) fn expire(&self, id: u64, what: &'static str) -> bool {
        let mut state = self.state.lock();
        let Some(open) = state.open.remove(&id) else { return false };
        state.note(&open.shown, what, None, "nobody has decided in time".to_owned());
        true
    }
}

impl State {
    fn note(&mut self, point: &Point, what: &'static str, by: Option<String>, why: String) {
        let Point { id, child, request, .. } = point;
        let (child, request) = (child.clone(), *request);
        self.keep(PointDecided { point: *id, child, request, what, by, why });
    }

    fn keep(&mut self, decided: PointDecided) {
        self.log.push_back(decided);
        if self.log.len() > LOG {
            self.log.pop_front();
        }
    }
}

/// The manual points of a system: what waits for a person, and how it is decided.
#[derive(Clone)]
pub struct PointsRef(Arc<Points>);

impl fmt::Debug for PointsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PointsRef").field("open", &self.0.state.lock().open.len()).finish()
    }
}

impl PointsRef {
    pub(crate) const fn new(points: Arc<Points>) -> Self {
        Self(points)
    }

    /// What waits for a decision, the longest first.
    pub fn open(&self) -> Vec<Point> {
        let mut state = self.0.state.lock();
        state.open.retain(|_, open| (open.asked.waits)());
        state.open.values().map(|open| open.shown.clone()).collect()
    }

    /// The latest decisions, at most [`LOG`], the oldest first.
    pub fn log(&self) -> Vec<PointDecided> {
        self.0.state.lock().log.iter().cloned().collect()
    }

    /// Decides a point, and writes down who did and why.
    ///
    /// # Errors
    /// It does not wait, or does not offer that.
    pub fn decide(
        &self,
        point: u64,
        choice: Choice,
        by: impl Into<String>,
        why: impl Into<String>,
    ) -> Result<(), PointError> {
        let offered = |open: &Open| match open.shown.choices.contains(&choice) {
            true => Ok(()),
            false => Err(PointError::NotOffered { point, choice: choice.clone() }),
        };
        let (what, said) = (choice.name(), Said::Choice(choice.clone()));
        self.say(point, what, said, offered, by.into(), why.into())
    }

    /// Answers the request in the place of the child. The answer is marked as degraded.
    ///
    /// # Errors
    /// It does not wait, or the child's answers are of another type.
    pub fn answer<R: Send + 'static>(
        &self,
        point: u64,
        value: R,
        by: impl Into<String>,
        why: impl Into<String>,
    ) -> Result<(), PointError> {
        let fits = |open: &Open| match open.asked.reply == TypeId::of::<R>() {
            true => Ok(()),
            false => {
                let (wanted, found) = (open.asked.reply_name, type_name::<R>());
                Err(PointError::WrongType { point, wanted, found })
            }
        };
        self.say(point, "answer", Said::Answer(Box::new(value)), fits, by.into(), why.into())
    }

    fn say(
        &self,
        point: u64,
        what: &'static str,
        said: Said,
        check: impl FnOnce(&Open) -> Result<(), PointError>,
        by: String,
        why: String,
    ) -> Result<(), PointError> {
        let mut state = self.0.state.lock();
        let open = state.open.get(&point).filter(|open| (open.asked.waits)());
        check(open.ok_or(PointError::NotOpen(point))?)?;
        let open = state.open.remove(&point).ok_or(PointError::NotOpen(point))?;
        // Its task listens until it has taken the point out itself, so this is heard, unless the request
        // is gone; then it was not decided either.
        let sent = open.say.send(said);
        if sent.is_ok() {
            state.note(&open.shown, what, Some(by), why);
        }
        drop(state);
        sent.map_err(|_| PointError::NotOpen(point))
    }
}
