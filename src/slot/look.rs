//! Looking into a slot without disturbing it, and what a system does with one whose types it does not
//! know.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::hold::Hold;
use super::line::{Kept, Prepared};
use super::state::{Begun, StoredInHand, Undoing};
use super::{Desk, Mail, Managed, Slot};
use crate::behavior::{Place, Turn, Undone};
use crate::checkpoint::{Digest, Now, Schema, Scope, Sealed, Validated};
use crate::error::CheckpointError;
use crate::fate::Fate;
use crate::fault::Fault;
use crate::id::{CheckpointId, RequestId};
use crate::lifecycle::Stage;
use crate::mirror::{BudgetView, CheckpointView, Detail, InFlight, LastCause, NodeDetail};
use crate::moment::Moment;
use crate::port::{Accept, Envelope, Port, PortTable};
use crate::slot::Adopted;
use crate::slot::worker::{Worker, dropped, unwound};
use crate::spec::ChildSpec;

/// A slot, type erased.
pub(crate) trait Look: Managed {
    fn spec(&self) -> &Arc<ChildSpec>;
    fn set_ports(&self, ports: PortTable);
    /// The [`Port`] of this child.
    fn port_any(&self) -> Option<Arc<dyn Any + Send + Sync>>;
    fn port_type(&self) -> TypeId;
    fn kill(&self);
    /// What its snapshots must look like; where it does not say, what a new life gives. Runs user code, which may
    /// panic ([`CheckpointError::NoLife`]).
    fn schema(&self) -> Result<Option<Schema>, CheckpointError>;
    /// Takes up a state another process has left: see [`Slot::adopt_state`].
    fn adopt(
        &self,
        validated: &Validated,
        open: &dyn Fn(&Begun) -> bool,
    ) -> Result<Adopted, String>;
    /// Whether a life can have this state, found out with one that is dropped again. Runs user code. A constructor
    /// that panics says nothing about it.
    fn can_restore(&self, validated: &Validated) -> Result<(), CheckpointError>;
    /// Whether what a request that ends without an answer has done to the world is undone.
    fn in_transaction(&self) -> bool;
    /// Its state is one of before requests that were answered: see [`Slot::replays`].
    fn fall_behind(&self);
    /// A request of before has this fate without being handed out.
    fn count_ended(&self, fate: Fate);
    /// There is no state from before the request in hand.
    fn adopt_beginning(&self, oldest: CheckpointId);
    /// The request in whose middle this state is, by its key.
    fn in_hand(&self, validated: &Validated) -> Option<Begun>;
    /// Whether a state that was taken under this policy is taken up under another one.
    fn has_other_policy(&self, policy: Digest) -> bool;
    /// Hands out no work and begins no step from now on.
    fn hold(&self, hold: &Arc<Hold>);
    fn unhold(&self, hold: &Arc<Hold>);
    /// Whether it is between two steps.
    fn is_still(&self) -> bool;
    /// What it has become, as a checkpoint that is not in the store yet; `None` when it never lived.
    /// Runs user code.
    /// `undoing` is the request whose effects are about to be undone, or are undone by now: a process that ends
    /// meanwhile, or before the request knows, is gone on with from there.
    fn capture(
        &self,
        scope: Scope,
        undoing: Option<(&str, Undoing)>,
    ) -> Result<Option<Sealed>, CheckpointError>;
    /// What was captured is in the store.
    fn captured(&self, sealed: &Sealed);
    /// Whether the store has what it has become.
    fn kept(&self) -> Kept;
    /// A life with this state, or as it is at the very beginning, while the old one goes on. Runs user
    /// code.
    fn prepare(&self, validated: Option<&Validated>) -> Result<Prepared, CheckpointError>;
    /// The next life is this one.
    fn install(&self, prepared: Prepared);
    /// The requests that are open here: their idempotency keys, and the step at which the next life
    /// goes on with the one it has in hand.
    fn open_tasks(&self) -> Vec<(RequestId, String, u64)>;
    /// Whether anything is charged to this open request by now.
    fn has_spent(&self, request: RequestId) -> bool;
    /// The next step of this request, which goes on after so many, is told what a rollback has done to its
    /// effects.
    fn tell_undone(&self, request: RequestId, step: u64, undone: Arc<Undone>);
}

impl<W: Worker> Look for Slot<W> {
    fn spec(&self) -> &Arc<ChildSpec> {
        &self.spec
    }

    fn set_ports(&self, ports: PortTable) {
        let _ = self.ports.set(Box::new(ports));
    }

    fn port_any(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        let me = self.me.upgrade()? as Arc<dyn Accept<W::Request, W::Reply>>;
        Some(Arc::new(Port::new(me)))
    }

    fn port_type(&self) -> TypeId {
        TypeId::of::<Port<W::Request, W::Reply>>()
    }

    fn kill(&self) {
        Slot::kill(self);
    }

    fn schema(&self) -> Result<Option<Schema>, CheckpointError> {
        if let Some(schema) = W::schema() {
            return Ok(Some(schema));
        }
        let life = self.new_life()?;
        let taken = unwound(|| W::snapshot(&life));
        dropped(life).ok();
        let taken = taken.map_err(|panic| self.no_life("snapshot", panic))?;
        Ok(taken.map(|snapshot| {
            let id = snapshot.schema();
            Schema::new(id.name.clone(), id.version)
        }))
    }

    fn adopt(
        &self,
        validated: &Validated,
        open: &dyn Fn(&Begun) -> bool,
    ) -> Result<Adopted, String> {
        self.adopt_state(validated, open)
    }

    fn can_restore(&self, validated: &Validated) -> Result<(), CheckpointError> {
        match self.life_with(validated) {
            Ok(life) => {
                let _ = dropped(life);
                Ok(())
            }
            Err(CheckpointError::NoLife { .. }) => Ok(()),
            Err(why) => Err(why),
        }
    }

    fn in_transaction(&self) -> bool {
        self.rules.in_transaction
    }

    fn fall_behind(&self) {
        self.desk().rare().behind = true;
    }

    fn count_ended(&self, fate: Fate) {
        let mut desk = self.desk();
        desk.counts.accepted += 1;
        desk.counts.add(fate);
        self.publish(&mut desk);
    }

    fn adopt_beginning(&self, oldest: CheckpointId) {
        Slot::adopt_beginning(self, oldest);
    }

    fn in_hand(&self, validated: &Validated) -> Option<Begun> {
        StoredInHand::of(validated).map(|it| Begun { key: it.key, round: it.round })
    }

    fn has_other_policy(&self, policy: Digest) -> bool {
        self.is_other_policy(policy)
    }

    fn hold(&self, hold: &Arc<Hold>) {
        self.hold_still(hold);
    }

    fn unhold(&self, hold: &Arc<Hold>) {
        self.go_on(hold);
    }

    fn is_still(&self) -> bool {
        self.stands_still()
    }

    fn capture(
        &self,
        scope: Scope,
        undoing: Option<(&str, Undoing)>,
    ) -> Result<Option<Sealed>, CheckpointError> {
        self.capture_state(scope, undoing)
    }

    fn kept(&self) -> Kept {
        self.state_kept()
    }

    fn captured(&self, sealed: &Sealed) {
        self.state_captured(sealed);
    }

    fn prepare(&self, validated: Option<&Validated>) -> Result<Prepared, CheckpointError> {
        self.prepare_life(validated)
    }

    fn install(&self, prepared: Prepared) {
        self.install_life(prepared);
    }

    fn open_tasks(&self) -> Vec<(RequestId, String, u64)> {
        self.tasks()
    }

    fn has_spent(&self, request: RequestId) -> bool {
        let desk = self.desk();
        let has = |mail: &Mail<W>| mail.id == request && mail.has_spent();
        desk.mailbox.any_waiting(has) || desk.mailbox.flights().any(|it| has(it.payload))
    }

    fn tell_undone(&self, request: RequestId, step: u64, undone: Arc<Undone>) {
        let is_told = {
            let mut desk = self.desk();
            let Desk { rare, mailbox, .. } = &mut *desk;
            let continues = rare.as_mut().and_then(|rare| rare.continues.as_mut());
            continues.is_some_and(|continues| {
                let told = RefCell::new(continues);
                mailbox.any_waiting(|mail| {
                    mail.id == request && told.borrow_mut().tell::<W>(mail, &undone)
                })
            })
        };
        if is_told || step > 0 {
            return;
        }
        let turn = Turn::RolledBack(undone);
        let place = Place { turn, ..Place::START };
        let before = self.desk().rare().resume.replace(Box::new((request, place)));
        let _ = dropped(before);
    }
}

/// Apart, so that it is compiled once and not for each behavior.
fn oldest_first(flights: &mut [InFlight]) {
    flights.sort_by_key(|flight| std::cmp::Reverse(flight.age));
}

impl<W: Worker> Detail for Slot<W> {
    fn detail(&self, now: Moment) -> NodeDetail {
        let desk = self.desk();
        let mut detail = NodeDetail::default();
        for flight in desk.mailbox.flights() {
            detail.in_flight.push(InFlight {
                request: flight.ticket.lease.request,
                attempt: flight.payload.attempt().0,
                delivery: flight.ticket.lease.delivery,
                age: now.since(flight.since),
            });
        }
        oldest_first(&mut detail.in_flight);
        for out in &desk.out {
            if let Some(tie) = desk.flight(out.ticket).and_then(|flight| flight.tie()) {
                detail.waits_for.extend(tie.waiting_for());
            }
        }
        if let Some(last) = desk.last_cause.as_deref() {
            let age = now.since(last.at);
            detail.last_cause = Some(LastCause { ended: last.ended.clone(), age });
        }
        let last = desk.saved.as_ref().and_then(|saved| saved.last_checkpoint());
        detail.checkpoint = last.map(|last| {
            let age = last.age(Now { wall: self.hub.clock.wall().into(), moment: now });
            CheckpointView { id: last.id.to_string(), age, step: last.step }
        });
        let resumes = match desk.life.stage() {
            Stage::Down => desk.last_cause.as_ref().and_then(|last| last.resumes),
            // Nothing is under way: all that is left to do waits for its next attempt.
            Stage::Up if desk.mailbox.in_flight() == 0 => desk.mailbox.held_until(),
            _ => None,
        };
        detail.zombies = desk.zombies() as u32;
        drop(desk);
        let resumes = match resumes {
            // Until it is decided, and not for a time.
            Some(Moment::NEVER) => self.hub.points.next_end(&self.path),
            resumes => resumes,
        };
        detail.resumes_in = resumes.filter(|at| *at > now).map(|at| at.left(now));
        if let Some(domain) = self.known_domain() {
            let (left, limit) = {
                let retries = &domain.lock().retries;
                (retries.tokens(), retries.capacity())
            };
            // A full one has nothing to say.
            if left < limit {
                let name = "retries".to_owned();
                detail.budgets.push(BudgetView {
                    name,
                    left: left.into(),
                    limit: Some(limit.into()),
                });
            }
        }
        if let Some(member) = self.member.get()
            && let Some(group) = member.group.upgrade()
        {
            detail.circuit = group.circuit(member.index, now);
        }
        detail
    }
}

impl<W: Worker> Slot<W> {
    /// How long until whoever could have answered is offered work again: the siblings, when it has some;
    /// else this child, or whoever it asked in vain.
    pub(super) fn rests(
        &self,
        mail: &Envelope<W::Request, W::Reply>,
        fault: &Fault,
        now: Moment,
    ) -> Option<Duration> {
        if let Some(group) = &mail.home {
            // Members that keep to limits of their own take others, and are not known to rest.
            let own = || fault.retry_after.filter(|_| fault.own_limits);
            return group.rests(now).or_else(own);
        }
        let open_at = self.known_domain().map_or(now, |domain| domain.lock().open_at());
        if open_at > now { Some(open_at.left(now)) } else { fault.retry_after_known() }
    }
}
