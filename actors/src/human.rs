//! A person as the last substitute: [`HumanDesk`] holds what waits for a decision until somebody
//! decides, or the default does.
//!
//! The child made by [`HumanDesk::spec`] stands last in a group; the desk itself is the operator's end:
//! it lists what is pending and takes decisions.
//!
//! ```
//! use std::time::Duration;
//! use mainstay::spec::GroupSpec;
//! use mainstay_actors::human::{Decision, HumanDesk};
//! use mainstay_actors::tool::{ToolReply, ToolRequest};
//!
//! # fn group(refund: mainstay::spec::ChildSpec) {
//! let desk = HumanDesk::<ToolRequest, ToolReply>::new(Duration::from_secs(3600));
//! let refunds = GroupSpec::tool("refunds").member_spec(refund).member_spec(desk.spec("person"));
//! // Later, from a console or a web page:
//! for point in desk.pending() {
//!     let answer = Decision::Answer(ToolReply::new("\"refunded by hand\""));
//!     let _ = desk.decide(point.id, answer, "ada", "customer called");
//! }
//! # drop(refunds);
//! # }
//! ```
//!
//! *Invariant.* A decision is about the very request that was shown: it is taken by the id of one point,
//! once, and a request that comes again under the same key but asks something else is a new point.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::ChildPath;
use mainstay::moment::Moment;
use mainstay::spec::{ChildSpec, Kind, Role, Shutdown};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

/// Decisions that are remembered, the latest.
pub const LOG: usize = 1024;
/// Requests that can wait at a time.
pub const WAITING: u32 = 4096;

/// What a person says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decision<R> {
    /// This is the answer.
    Answer(R),
    /// No: the request fails as `Permission` with code `refused_by_person`, and this text. Nobody else
    /// is asked, here or further out.
    Refuse(String),
    /// It cannot be done here: the request fails as `Exhausted` with code `not_by_person`, and
    /// whoever comes after the person in the group is asked.
    PassOn(String),
}

impl<R> Decision<R> {
    const fn name(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Refuse(_) => "refuse",
            Self::PassOn(_) => "pass_on",
        }
    }

    fn outcome(self) -> Result<R, Fault> {
        match self {
            Self::Answer(reply) => Ok(reply),
            Self::Refuse(why) => {
                Err(Fault::permission(why).with_code("refused_by_person").not_applied())
            }
            Self::PassOn(why) => {
                Err(Fault::exhausted(why).with_code("not_by_person").not_applied())
            }
        }
    }
}

/// One decision that is waited for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pending<Q> {
    /// Names it in [`HumanDesk::decide`].
    pub id: u64,
    /// The child that waits.
    pub child: ChildPath,
    /// The idempotency key of the request.
    pub key: String,
    /// What was asked.
    pub request: Q,
    /// Since when it waits.
    pub since: Moment,
    /// When the default decides.
    pub until: Moment,
}

/// A decision that was made. Holds no user data but what the person said why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// The point.
    pub id: u64,
    /// The idempotency key of the request.
    pub key: String,
    /// `answer`, `refuse` or `pass_on`.
    pub what: &'static str,
    /// Who decided; `None` when nobody did in time, and the default was taken.
    pub by: Option<String>,
    /// Why.
    pub why: String,
}

/// There is no such point: it was decided, has expired, or its caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NotPending(pub u64);

impl fmt::Display for NotPending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no decision {} is waited for", self.0)
    }
}

impl std::error::Error for NotPending {}

struct Point<Q, R> {
    shown: Pending<Q>,
    say: oneshot::Sender<Taken<Q, R>>,
}

/// A decision, and what it was about.
type Taken<Q, R> = (Pending<Q>, Decision<R>);

struct State<Q, R> {
    next: u64,
    points: BTreeMap<u64, Point<Q, R>>,
    log: VecDeque<Decided>,
    /// Decisions that nobody has heard, since the attempt that waited was cut off just then: each is for the next
    /// attempt at the same request, up to when the default would have decided.
    unheard: VecDeque<Taken<Q, R>>,
}

struct Shared<Q, R> {
    expiry: Duration,
    default: Decision<R>,
    state: Mutex<State<Q, R>>,
    changed: watch::Sender<u64>,
}

/// Where decisions are waited for and made. Cheap to clone; every clone is the same desk.
///
/// What waits is not stored: a durable caller asks again in the next process, and the point is there
/// again, under another id; also where this stands in a group before an act that may not be repeated, which is held
/// ([`Context::hold`]) until somebody decides. Whoever decides once the caller has left comes too late: nothing is done.
pub struct HumanDesk<Q, R>(Arc<Shared<Q, R>>);

impl<Q, R> Clone for HumanDesk<Q, R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q, R> fmt::Debug for HumanDesk<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HumanDesk")
            .field("expiry", &self.0.expiry)
            .field("pending", &self.0.state.lock().points.len())
            .finish_non_exhaustive()
    }
}

impl<Q, R> HumanDesk<Q, R>
where
    Q: Clone + PartialEq + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    /// A desk where each request waits so long for a decision, and is refused then.
    pub fn new(expiry: Duration) -> Self {
        Self::with_default(expiry, Decision::Refuse("nobody has decided in time".to_owned()))
    }

    /// A desk where each request waits so long, and then this is decided. An answer that nobody gave is
    /// marked as defaulted.
    pub fn with_default(expiry: Duration, default: Decision<R>) -> Self {
        let state = State {
            next: 1,
            points: BTreeMap::new(),
            log: VecDeque::new(),
            unheard: VecDeque::new(),
        };
        let (changed, _) = watch::channel(0);
        Self(Arc::new(Shared { expiry, default, state: Mutex::new(state), changed }))
    }

    /// The child spec: stateless, of the role of a person, with room for [`WAITING`] requests and an
    /// attempt timeout that leaves the default the time to decide.
    pub fn spec(&self, id: impl AsRef<str>) -> ChildSpec {
        let desk = self.clone();
        let limit = self.0.expiry.saturating_add(Duration::from_secs(5));
        ChildSpec::stateless(id, move || desk.clone())
            .kind(Kind::Tool)
            .concurrency(WAITING)
            .mailbox(WAITING)
            // What waits does nothing, and nobody decides any more.
            .shutdown(Shutdown::Timeout(Duration::ZERO))
            .attempt_timeout(limit)
            .deadline(limit.saturating_add(Duration::from_secs(5)))
    }

    /// What waits for a decision, the longest first.
    pub fn pending(&self) -> Vec<Pending<Q>> {
        self.0.state.lock().points.values().map(|point| point.shown.clone()).collect()
    }

    /// Decides a point, and writes down who did and why.
    ///
    /// # Errors
    /// It does not wait.
    pub fn decide(
        &self,
        id: u64,
        decision: Decision<R>,
        by: impl Into<String>,
        why: impl Into<String>,
    ) -> Result<(), NotPending> {
        {
            let mut state = self.0.state.lock();
            let point = state.points.remove(&id).ok_or(NotPending(id))?;
            let decided = Decided {
                id,
                key: point.shown.key.clone(),
                what: decision.name(),
                by: Some(by.into()),
                why: why.into(),
            };
            state.note(decided);
            // Whoever waits is there as long as the point is; where it is cut off now, it keeps this as it leaves.
            let _ = point.say.send((point.shown, decision));
        }
        self.changed();
        Ok(())
    }

    /// The latest decisions, at most [`LOG`], the oldest first.
    pub fn log(&self) -> Vec<Decided> {
        self.0.state.lock().log.iter().cloned().collect()
    }

    /// Changes with everything that begins to wait or is decided: how a console learns that there is
    /// something to do. The number means nothing.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn changed(&self) {
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits for the decision at a new point; at once for one that was made before.
    fn open(
        &self,
        request: &Q,
        child: &ChildPath,
        key: String,
        now: Moment,
    ) -> Result<Wait<Q, R>, Decision<R>> {
        let (say, hear) = oneshot::channel();
        let id = {
            let mut state = self.0.state.lock();
            state.unheard.retain(|(shown, _)| shown.until > now);
            let made = |(shown, _): &Taken<Q, R>| shown.key == key && shown.request == *request;
            if let Some(at) = state.unheard.iter().position(made)
                && let Some((_, decision)) = state.unheard.remove(at)
            {
                return Err(decision);
            }
            let id = state.next;
            state.next += 1;
            let (child, request) = (child.clone(), request.clone());
            let until = now.after(self.0.expiry);
            let shown = Pending { id, child, key, request, since: now, until };
            state.points.insert(id, Point { shown, say });
            id
        };
        self.changed();
        Ok(Wait { desk: self.clone(), id, hear })
    }
}

impl<Q, R> State<Q, R> {
    fn note(&mut self, decided: Decided) {
        self.log.push_back(decided);
        if self.log.len() > LOG {
            self.log.pop_front();
        }
    }
}

/// A request at its point; leaves when it does not wait any more.
struct Wait<Q, R> {
    desk: HumanDesk<Q, R>,
    id: u64,
    hear: oneshot::Receiver<Taken<Q, R>>,
}

impl<Q, R> Wait<Q, R> {
    /// From now on nobody decides any more: what was decided until now.
    fn close(&mut self) -> Option<Taken<Q, R>> {
        let mut state = self.desk.0.state.lock();
        if state.points.remove(&self.id).is_none() {
            // Said while the lock was held.
            return self.hear.try_recv().ok();
        }
        drop(state);
        self.desk.0.changed.send_modify(|count| *count = count.wrapping_add(1));
        None
    }
}

impl<Q, R> Drop for Wait<Q, R> {
    fn drop(&mut self) {
        let Some(taken) = self.close() else { return };
        let mut state = self.desk.0.state.lock();
        state.unheard.push_back(taken);
        if state.unheard.len() > LOG {
            state.unheard.pop_front();
        }
    }
}

impl<Q, R> Behavior for HumanDesk<Q, R>
where
    Q: Clone + PartialEq + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    type Request = Q;
    type Reply = R;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
    const ROLE: Role = Role::Human;
}

impl<Q, R> Stateless for HumanDesk<Q, R>
where
    Q: Clone + PartialEq + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    async fn serve(&self, request: &Q, ctx: &Context) -> Result<R, Fault> {
        // In a group before an act that may not be repeated, it has not happened as long as this waits.
        let hold = ctx.hold().await?;
        let decision = self.decision(request, ctx).await?;
        // What is refused does not happen.
        if !matches!(decision, Decision::Refuse(_)) {
            hold.goes_on().await?;
        }
        decision.outcome()
    }
}

impl<Q, R> HumanDesk<Q, R>
where
    Q: Clone + PartialEq + Send + Sync + 'static,
    R: Clone + Send + Sync + 'static,
{
    /// What somebody decides, or is to be done where nobody does.
    async fn decision(&self, request: &Q, ctx: &Context) -> Result<Decision<R>, Fault> {
        let mut wait = match self.open(request, ctx.path(), ctx.key(), ctx.now()) {
            Ok(wait) => wait,
            Err(decision) => return Ok(decision),
        };
        tracing::warn!(target: "mainstay", child = %ctx.path(), point = wait.id, "a person is asked");
        let expiry = tokio::time::sleep(self.0.expiry);
        tokio::select! {
            biased;
            said = &mut wait.hear => {
                let gone = || Fault::internal("the decision was lost").with_code("decision_lost");
                Ok(said.map_err(|_| gone())?.1)
            }
            () = expiry => {
                // In the last moment.
                if let Some((_, decision)) = wait.close() {
                    return Ok(decision);
                }
                let default = self.0.default.clone();
                let decided = Decided {
                    id: wait.id,
                    key: ctx.key(),
                    what: default.name(),
                    by: None,
                    why: "nobody has decided in time".to_owned(),
                };
                self.0.state.lock().note(decided);
                if matches!(default, Decision::Answer(_)) {
                    ctx.mark_defaulted();
                }
                Ok(default)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Desk = HumanDesk<String, u32>;

    fn open(desk: &Desk, key: &str, at: u64) -> Result<Wait<String, u32>, Decision<u32>> {
        let now = Moment::from_millis(at);
        desk.open(&"pay 7".to_owned(), &ChildPath::from("desk/person"), key.to_owned(), now)
    }

    fn decide(desk: &Desk, wait: &Wait<String, u32>) -> Result<(), NotPending> {
        desk.decide(wait.id, Decision::Answer(7), "ada", "")
    }

    #[test]
    fn a_decision_counts_that_was_taken_when_the_time_was_over_just_then() {
        let desk = Desk::new(Duration::from_secs(60));
        let mut wait = open(&desk, "k", 0).unwrap();
        decide(&desk, &wait).unwrap();
        assert_eq!(wait.close().unwrap().1, Decision::Answer(7));
        drop(wait);
        // It was heard once.
        let mut late = open(&desk, "k", 0).unwrap();
        assert_eq!(late.close(), None);
        assert_eq!(decide(&desk, &late), Err(NotPending(late.id)));
        assert_eq!(desk.log().len(), 1);
    }

    #[test]
    fn a_decision_on_an_attempt_that_is_cut_off_is_for_the_next_one_within_its_time() {
        let desk = Desk::new(Duration::from_secs(60));
        for (key, at, heard) in [("k", 59_999, true), ("k", 60_000, false), ("other", 1, false)] {
            let cut_off = open(&desk, "k", 0).unwrap();
            decide(&desk, &cut_off).unwrap();
            drop(cut_off);
            let next = open(&desk, key, at);
            assert_eq!(next.is_err(), heard, "{key} at {at}");
            assert_eq!(next.err(), heard.then_some(Decision::Answer(7)));
        }
        assert!(open(&desk, "k", 60_000).is_ok(), "no decision is served for ever");
        assert_eq!(desk.pending(), []);
    }
}
