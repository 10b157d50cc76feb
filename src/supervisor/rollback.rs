//! Recovery lines and rollbacks of a whole subtree: what is asked of many children as one.
//!
//! Everything takes place in tasks of its own; the supervisor is only asked to stop and start its
//! children in order, as it is by an operator.
//!
//! *Invariant.* Nothing is stopped before everything that is to be restored was validated and has
//! become a life that works. Nobody works between the first life that is stopped and the last one that
//! has begun.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Ask, Entry, Registry, Supervisor};
use crate::checkpoint::{Now, Refused, Risk, Rules, Schemas, Scope, Store, Validated, Validator};
use crate::error::{CheckpointError, ChildError, LookupError};
use crate::event::Event;
use crate::hub::Asks;
use crate::id::{CheckpointId, ChildPath, LineId};
use crate::journal::{Footing, Journal};
use crate::slot::{Held, Look, Prepared};

mod draw;
mod fall;
mod lines;
mod lives;
mod options;
mod progress;
mod scopes;
mod settle;
mod since;
mod words;

use draw::Draw;
pub(crate) use fall::Fallen;
pub(crate) use lines::Lines;
pub(crate) use lives::Lives;
use lives::set_aside;
use options::{Wanted, check_owner, has_in_hand, is_used_up, used_up};
use progress::Phase;
pub(crate) use progress::Rollbacks;
use since::{Missing, Since};
pub use words::{Report, RollbackError, To, Wider};

/// What is rolled back: a subtree, or one child of a supervisor.
#[derive(Clone)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    node: Arc<Supervisor>,
    child: Option<Arc<dyn Look>>,
}

type Line = (Option<LineId>, Vec<(Arc<dyn Look>, Option<Validated>)>);

/// What is returned to.
struct Choice {
    line: Option<LineId>,
    /// With the lives that follow.
    lives: Vec<(Arc<dyn Look>, Option<CheckpointId>, Prepared)>,
    /// What would have been returned to before it.
    refused: Vec<Refused>,
    /// Until what they have become is stored.
    footing: Footing,
}

impl Place {
    pub(crate) fn find(registry: &Arc<Registry>, path: &ChildPath) -> Result<Self, RollbackError> {
        let missing = || LookupError::NotFound(path.clone());
        let (node, child) = match registry.get(path).ok_or_else(missing)? {
            Entry::Supervisor(node) => (node, None),
            Entry::Group(group) => (Arc::clone(&group.node), None),
            Entry::Child { slot, .. } => {
                let above = path.parent().and_then(|above| registry.supervisor(&above));
                (above.ok_or_else(missing)?, Some(slot))
            }
        };
        Ok(Self { registry: Arc::clone(registry), node, child })
    }

    pub(crate) fn of(node: &Arc<Supervisor>) -> Self {
        Self { registry: Arc::clone(&node.registry), node: Arc::clone(node), child: None }
    }

    fn at(&self) -> &ChildPath {
        self.child.as_ref().map_or(&self.node.path, |child| child.path())
    }

    pub(crate) fn scope(&self) -> Scope {
        self.node.within.scope
    }

    /// Whether it may return without anybody's approval.
    pub(crate) fn may_return_by_itself(&self) -> Result<(), RollbackError> {
        let (at, scope) = (self.at().clone(), self.scope());
        if self.registry.approvals && scope.risk() == Risk::High {
            return Err(RollbackError::NeedsApproval { at, scope });
        }
        Ok(())
    }

    /// The next wider scope, and who has it.
    fn wider(&self) -> Option<Wider> {
        let scope = self.scope();
        let mut above = self.at().parent();
        while let Some(path) = above {
            if let Some(node) = self.registry.supervisor(&path)
                && (node.within.scope > scope || (self.child.is_some() && path == self.node.path))
            {
                return Some(Wider { scope: node.within.scope, at: Some(path) });
            }
            above = path.parent();
        }
        scope.wider().map(|scope| Wider { scope, at: None })
    }

    fn journal(&self) -> Result<Arc<Journal>, RollbackError> {
        self.node.hub.journal.get().cloned().ok_or(RollbackError::NoStore)
    }

    fn store(&self) -> Result<Arc<dyn Store>, RollbackError> {
        Ok(Arc::clone(&self.journal()?.store))
    }

    /// Who has a state to go back to. Runs user code.
    fn children(&self) -> Result<Vec<Arc<dyn Look>>, RollbackError> {
        let mut children = Vec::new();
        for child in self.registry.durable_below(self.at()) {
            // One that cannot say it is not left out: the others would return without it.
            if child.spec().stateful && child.schema().map_err(RollbackError::NoLife)?.is_some() {
                children.push(child);
            }
        }
        if children.is_empty() {
            return Err(RollbackError::NoState(self.at().clone()));
        }
        Ok(children)
    }

    fn too_late(&self, limit: Duration, phase: &'static str) -> RollbackError {
        RollbackError::TooLate {
            at: self.at().clone(),
            scope: self.scope(),
            limit,
            phase,
            wider: self.wider(),
        }
    }

    /// Runs `work` in a task of its own, within this limit. What has begun to change the children
    /// when that has passed is ended all the same: given up half-way, it would let them go on with effects
    /// that are not settled.
    async fn within<T: Send + 'static>(
        self,
        limit: Duration,
        work: impl Work<T>,
    ) -> Result<T, RollbackError> {
        let hub = Arc::clone(&self.node.hub);
        let gone = RollbackError::Restart(ChildError::SupervisorGone(self.node.path.clone()));
        let task = hub.runtime.clone().spawn(async move {
            let over = hub.clock.sleep_until(hub.now() + limit);
            let phase = Phase::default();
            let mut work = Box::pin(work.run(self.clone(), phase.clone()));
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = over => {}
            }
            let late = self.too_late(limit, phase.get());
            if !phase.give_up() {
                hub.runtime.clone().spawn(async move {
                    if let Err(error) = work.await {
                        tracing::error!(target: "mainstay", at = %self.at(), %error, "a late rollback did not end well");
                    }
                });
            }
            Err(late)
        });
        task.await.unwrap_or(Err(gone))
    }

    /// Draws a line.
    pub(crate) async fn draw(self) -> Result<LineId, RollbackError> {
        if self.child.is_some() {
            return Err(RollbackError::WrongTarget {
                at: self.at().clone(),
                found: "a child",
                wanted: "a line is drawn for a supervisor",
            });
        }
        let limit = self.scope().limit();
        self.within(limit, Draw).await
    }

    /// Returns to what is stored.
    pub(crate) async fn roll_back(
        self,
        to: To,
        approved_by: Option<(String, String)>,
    ) -> Result<Report, RollbackError> {
        self.returned(Back { to, approved_by, asked: None }).await
    }

    async fn returned(self, back: Back) -> Result<Report, RollbackError> {
        let (hub, at, scope) = (Arc::clone(&self.node.hub), self.at().clone(), self.scope());
        let began = hub.now();
        let wider = self.wider().map(|wider| wider.scope);
        let done = self.within(scope.limit(), back).await;
        if done.as_ref().err().is_none_or(RollbackError::has_tried) {
            hub.count_rollback(scope, done.is_ok(), began);
        }
        let asked_in_vain = |error: &&RollbackError| {
            matches!(error, RollbackError::Returned(_) | RollbackError::Unwanted(_))
        };
        if let Some(error) = done.as_ref().err().filter(|error| !asked_in_vain(error)) {
            let reason = error.to_string();
            hub.emit(Event::RollbackFailed { at, scope, wider, reason });
        }
        done
    }

    async fn roll_back_now(
        self,
        phase: Phase,
        to: To,
        asked: Option<Asks>,
    ) -> Result<Report, RollbackError> {
        let hub = &self.node.hub;
        let begun = hub.now();
        let journal = self.journal()?;
        let store = Arc::clone(&journal.store);
        phase.set("waiting for another rollback");
        let _turn = self.registry.rollbacks.turn.lock().await;
        self.is_wanted(asked.as_ref())?;
        phase.set("making the lives that follow");
        let Choice { line, lives: chosen, refused, footing: _footing } =
            self.choose(&store, to, asked.as_ref()).await?;
        let children: Vec<_> = chosen.iter().map(|(child, ..)| Arc::clone(child)).collect();
        let returned: Vec<_> =
            chosen.iter().map(|(child, id, _)| (child.path().clone(), *id)).collect();
        let lives = chosen.into_iter().map(|(child, _, life)| (child, life)).collect();
        let held = Held::new(children.clone());
        self.takes_over();
        let reset = match self.reset(lives, asked.as_ref(), begun, &phase).await {
            Err(error) if !phase.has_begun() => return Err(error),
            done => done,
        };
        self.registry.rollbacks.note(self.at());
        // What the lives that were stopped have stored to their last is of the future that is given up, too.
        let used = used_up(&journal, &returned);
        journal.use_up(used.iter().copied());
        let (since, replayed, missing) = Since::of(&self, &journal, used, &returned, &children);
        let missing = Missing::noted(&journal, missing);
        // Also where not all have come up again: those that have would go on with effects that are not settled.
        let told = self.settle(&journal, &held, since, &phase).await;
        drop(held);
        reset?;
        let told = told?;
        let missing = missing.told(hub, &journal);
        Ok(Report {
            at: self.at().clone(),
            scope: self.scope(),
            line,
            children: returned,
            refused,
            kept: told.kept,
            undone: told.undone,
            unknown: told.unknown,
            replayed,
            missing,
            elapsed: hub.now().since(begun),
        })
    }

    /// The first that passes every check and becomes lives that work. For a request that asks, none
    /// that is younger than its failure or has it in its middle, nor older than one that was returned to before.
    async fn choose(
        &self,
        store: &Arc<dyn Store>,
        to: To,
        asked: Option<&Asks>,
    ) -> Result<Choice, RollbackError> {
        let journal = self.journal()?;
        let children = self.children()?;
        let mut refused = Vec::new();
        // Passed every check, and are no states all the same, if another one is: where none is, it is the program
        // that cannot restore them.
        let mut bad = Vec::new();
        let named = to != To::Latest;
        for option in self.options(&**store, to)? {
            if asked.is_some_and(|asked| option.is_younger(asked.failed, &self.registry.rollbacks))
            {
                continue;
            }
            let members = self.members(&option);
            // Before it is looked at: what is there then stays, whoever makes room meanwhile.
            let ids = members.iter().map(|(_, id)| *id);
            let footing = journal.hold(&self.node.hub.runtime, ids).await;
            let tried = match self.validate(&**store, &children, (&option, &members)) {
                Ok((_, lives)) if asked.is_some_and(|asked| has_in_hand(&lives, asked)) => continue,
                Ok((line, lives)) => self.prepare(lives, &mut bad).await.map(|lives| (line, lives)),
                Err(why) => Err(why),
            };
            match tried {
                Ok((line, lives)) => {
                    set_aside(store, bad).await;
                    return Ok(Choice { line, lives, refused, footing });
                }
                Err(it) if it.why.is_retryable() => return Err(RollbackError::Store(it.why)),
                // An older state would fare no better.
                Err(it) if matches!(it.why, CheckpointError::NoLife { .. }) => {
                    return Err(RollbackError::NoLife(it.why));
                }
                Err(it) if named => {
                    set_aside(store, bad).await;
                    return Err(RollbackError::Refused(it));
                }
                Err(it) => {
                    let used = matches!(it.why, CheckpointError::Used { .. });
                    refused.push(*it);
                    if used && asked.is_some() {
                        break;
                    }
                }
            }
        }
        let (at, scope) = (self.at().clone(), self.scope());
        Err(RollbackError::NoneValid { at, scope, refused, wider: self.wider() })
    }

    /// What may be returned to, the newest first.
    fn options(&self, store: &dyn Store, to: To) -> Result<Vec<Wanted>, RollbackError> {
        let at = self.at();
        let wrong = |found, wanted| RollbackError::WrongTarget { at: at.clone(), found, wanted };
        match (&self.child, to) {
            (Some(_), To::Line(_)) => {
                Err(wrong("a child", "a line is returned to by its supervisor"))
            }
            (None, To::Checkpoint(_)) => Err(wrong(
                "a supervisor",
                "it returns to a line, since checkpoints agree by chance",
            )),
            (Some(_), To::Checkpoint(id)) => Ok(vec![Wanted::Checkpoint(id)]),
            (Some(_), To::Latest) => {
                let all = self.journal()?.states(at)?;
                Ok(all.into_iter().map(|it| Wanted::Checkpoint(it.checkpoint.id)).collect())
            }
            (None, to) => {
                let lines = store.lines(self.scope(), at)?;
                match to {
                    To::Line(line) => {
                        let found = lines.into_iter().find(|it| it.id == line);
                        let found = found.ok_or(RollbackError::NoLine { line, at: at.clone() })?;
                        Ok(vec![Wanted::Line(found)])
                    }
                    _ => Ok(lines.into_iter().map(Wanted::Line).collect()),
                }
            }
        }
    }

    /// Who returns by this, and to which state.
    fn members(&self, wanted: &Wanted) -> Vec<(ChildPath, CheckpointId)> {
        match wanted {
            Wanted::Checkpoint(id) => vec![(self.at().clone(), *id)],
            Wanted::Line(line) => {
                let lives = line.members.iter().filter(|(path, id)| !self.is_gone(line, path, *id));
                lives.cloned().collect()
            }
        }
    }

    fn validate(
        &self,
        store: &dyn Store,
        children: &[Arc<dyn Look>],
        (wanted, members): (&Wanted, &[(ChildPath, CheckpointId)]),
    ) -> Result<Line, Box<Refused>> {
        let mut lives: Vec<(Arc<dyn Look>, Option<Validated>)> = Vec::with_capacity(children.len());
        let now = Now::read(&*self.node.hub.clock);
        let pinned = match wanted {
            Wanted::Line(line) => {
                Validator::new(store, &Schemas::new(), Rules::at(now)).holds(line)
            }
            Wanted::Checkpoint(_) => false,
        };
        let known: HashMap<_, _> = children.iter().map(|child| (child.path(), child)).collect();
        for (path, id) in members {
            let refuse = |why| Box::new(Refused { checkpoint: *id, child: path.clone(), why });
            let Some(child) = known.get(path).copied() else {
                return Err(refuse(CheckpointError::Incompatible {
                    what: "a member of the line".to_owned(),
                    found: path.to_string(),
                    expected: "a child that is there, durable and stateful".to_owned(),
                }));
            };
            let journal = self.node.hub.journal.get();
            let owned = check_owner(store, journal.map(|it| &**it), (path, *id));
            owned.map_err(refuse)?;
            if journal.is_some_and(|journal| is_used_up(journal, path, *id)) {
                return Err(refuse(CheckpointError::Used { checkpoint: *id }));
            }
            let mut schemas = Schemas::new();
            if let Some(schema) = child.schema().map_err(refuse)? {
                schemas = schemas.register(schema).map_err(|error| {
                    refuse(CheckpointError::Incompatible {
                        what: "schema".to_owned(),
                        found: error.to_string(),
                        expected: "one that can be used".to_owned(),
                    })
                })?;
            }
            let topology = self.node.hub.topology.get().copied();
            let ledger = self.node.hub.journal.get().map_or(0, |journal| journal.position());
            let rules = Rules { topology, ledger, ..Rules::at(now) };
            let validator = Validator::new(store, &schemas, rules);
            let validated = validator.member(*id, pinned).map_err(refuse)?;
            lives.push((Arc::clone(child), Some(validated)));
        }
        // Those that had not lived when the line was drawn begin anew.
        let members: HashSet<_> = members.iter().map(|(path, _)| path).collect();
        for child in children {
            if !members.contains(child.path()) {
                lives.push((Arc::clone(child), None));
            }
        }
        let line = match wanted {
            Wanted::Line(line) => Some(line.id),
            Wanted::Checkpoint(_) => None,
        };
        Ok((line, lives))
    }

    /// Makes the lives, each in a task of its own, while the old ones go on.
    async fn prepare(
        &self,
        lives: Vec<(Arc<dyn Look>, Option<Validated>)>,
        bad: &mut Vec<(CheckpointId, String)>,
    ) -> Result<Vec<(Arc<dyn Look>, Option<CheckpointId>, Prepared)>, Box<Refused>> {
        let runtime = &self.node.hub.runtime;
        let tasks: Vec<_> = lives
            .into_iter()
            .map(|(child, validated)| {
                let id = validated.as_ref().map(|it| it.checkpoint().id);
                let maker = Arc::clone(&child);
                (child, id, runtime.spawn(async move { maker.prepare(validated.as_ref()) }))
            })
            .collect();
        let mut ready = Vec::with_capacity(tasks.len());
        let mut failed = None;
        for (child, id, task) in tasks {
            // Not by the state, whose panics are caught.
            let lost = |panic: String| CheckpointError::NoLife {
                child: child.path().clone(),
                what: "preparation",
                panic,
            };
            let made = task.await.unwrap_or_else(|error| Err(lost(error.to_string())));
            match (made, id) {
                (Ok(prepared), id) => ready.push((child, id, prepared)),
                (Err(why), id) if failed.is_none() => {
                    if let Some(id) = id
                        && !why.is_retryable()
                        && !matches!(
                            why,
                            CheckpointError::Incompatible { .. } | CheckpointError::NoLife { .. }
                        )
                    {
                        bad.push((id, why.to_string()));
                    }
                    let checkpoint = id.unwrap_or(CheckpointId(0));
                    failed = Some(Refused { checkpoint, child: child.path().clone(), why });
                }
                _ => {}
            }
        }
        match failed {
            Some(refused) => Err(Box::new(refused)),
            None => Ok(ready),
        }
    }

    /// Tells that it could not be returned, and why.
    fn failed(&self, error: &RollbackError) -> String {
        let (at, scope) = (self.at().clone(), self.scope());
        let reason = error.to_string();
        let wider = self.wider().map(|wider| wider.scope);
        self.node.hub.emit(Event::RollbackFailed { at, scope, wider, reason: reason.clone() });
        reason
    }
}

impl Report {
    fn event(&self, approved_by: Option<(String, String)>) -> Event {
        Event::ScopeRolledBack {
            at: self.at.clone(),
            scope: self.scope,
            line: self.line,
            children: self.children.len(),
            refused: self.refused.iter().map(ToString::to_string).collect(),
            kept: self.kept.len(),
            undone: self.undone.len(),
            unknown: self.unknown.len(),
            replayed: self.replayed.len(),
            missing: self.missing.len(),
            approved_by,
            elapsed: self.elapsed,
        }
    }
}

/// Work on a place.
trait Work<T>: Send + 'static {
    fn run(
        self,
        place: Place,
        phase: Phase,
    ) -> impl Future<Output = Result<T, RollbackError>> + Send;
}

struct Back {
    to: To,
    approved_by: Option<(String, String)>,
    /// The request that it is for.
    asked: Option<Asks>,
}

impl Work<Report> for Back {
    async fn run(self, place: Place, phase: Phase) -> Result<Report, RollbackError> {
        let hub = Arc::clone(&place.node.hub);
        let report = place.roll_back_now(phase, self.to, self.asked).await?;
        hub.emit(report.event(self.approved_by));
        Ok(report)
    }
}
