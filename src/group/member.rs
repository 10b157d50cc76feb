//! A member of a group: what the group may ask of its slot.
//!
//! *Invariant.* A group gives and takes back requests; it starts and stops nothing.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::circuit::Domain;
use crate::fate::{Cost, Fate};
use crate::fault::EffectKind;
use crate::id::{ChildPath, Delivery};
use crate::moment::Moment;
use crate::policy::{Capabilities, Standing};
use crate::port::Envelope;
use crate::slot::{Membership, Refusal, Room, Slot, Worker};
use crate::spec::Role;

/// A member as its group sees it.
pub(crate) trait Member<Q, R>: Send + Sync {
    fn path(&self) -> &ChildPath;
    fn join(&self, membership: Membership<Q, R>);
    fn post(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        substitute: bool,
        now: Moment,
    ) -> Result<(), Refusal>;
    /// Takes a second copy, whose hand-out follows this number.
    fn post_copy(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        delivery: Delivery,
        now: Moment,
    ) -> Result<(), Refusal>;
    /// The number under which it has handed a request out, and whether that may be done twice.
    fn hand_out(&self, mail: &Arc<Envelope<Q, R>>) -> Option<(Delivery, bool)>;
    /// Another copy has won. What this one has cost so far.
    fn call_off(&self, mail: &Arc<Envelope<Q, R>>, now: Moment) -> Cost;
    fn standing(&self) -> Standing;
    fn cancel(&self, mail: &Arc<Envelope<Q, R>>);
    /// The group ends what this member had last. The fate that it has, as far as this member knows.
    fn ends(&self, mail: &Arc<Envelope<Q, R>>, fate: Fate) -> Fate;
    /// It has ended it with this fate, which may be on its way into the store: what is to be undone is.
    fn undoes(&self, mail: &Arc<Envelope<Q, R>>, fate: Fate, is_written: bool);
    /// Takes it out, and ends it, if it waits here and has never been handed out; whether it did.
    fn take_back(&self, mail: &Arc<Envelope<Q, R>>) -> bool;
    /// Gives back the requests of the group that wait here and have not been tried here.
    fn withdraw(&self) -> Vec<Arc<Envelope<Q, R>>>;
    /// The quota domain, made if there was none.
    fn own_domain(&self) -> Arc<Mutex<Domain>>;
    fn min_attempt(&self) -> Duration;
    fn domain(&self) -> Option<Arc<Mutex<Domain>>>;
    fn domain_name(&self) -> Arc<str>;
    fn capabilities(&self) -> Option<Arc<Capabilities>>;
    fn role(&self) -> Role;
    fn effect_kind(&self) -> EffectKind;
}

impl<W: Worker> Member<W::Request, W::Reply> for Slot<W> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn join(&self, membership: Membership<W::Request, W::Reply>) {
        let _ = self.member.set(Box::new(membership));
    }

    fn post(
        &self,
        mail: &Arc<Envelope<W::Request, W::Reply>>,
        substitute: bool,
        now: Moment,
    ) -> Result<(), Refusal> {
        let room = if substitute { Room::Reserve } else { Room::Own };
        self.post(mail, Some(mail.deliveries()), room, now)
    }

    fn post_copy(
        &self,
        mail: &Arc<Envelope<W::Request, W::Reply>>,
        delivery: Delivery,
        now: Moment,
    ) -> Result<(), Refusal> {
        self.post(mail, Some(delivery), Room::Own, now)
    }

    fn hand_out(&self, mail: &Arc<Envelope<W::Request, W::Reply>>) -> Option<(Delivery, bool)> {
        Slot::hand_out(self, mail)
    }

    fn ends(&self, mail: &Arc<Envelope<W::Request, W::Reply>>, fate: Fate) -> Fate {
        self.ended_by_group(mail, fate)
    }

    fn undoes(&self, mail: &Arc<Envelope<W::Request, W::Reply>>, fate: Fate, is_written: bool) {
        self.undone_for_group(mail, fate, is_written);
    }

    fn take_back(&self, mail: &Arc<Envelope<W::Request, W::Reply>>) -> bool {
        self.take_untried(mail)
    }

    fn call_off(&self, mail: &Arc<Envelope<W::Request, W::Reply>>, now: Moment) -> Cost {
        Slot::call_off(self, mail, now)
    }

    fn own_domain(&self) -> Arc<Mutex<Domain>> {
        Arc::clone(Slot::domain(self))
    }

    fn min_attempt(&self) -> Duration {
        self.rules.policy.min_attempt
    }

    fn standing(&self) -> Standing {
        let desk = self.desk();
        if !desk.life.will_serve() {
            Standing::OutOfService
        } else if desk.mailbox.depth() >= self.rules.bounds.count + self.rules.bounds.reserve {
            Standing::Full
        } else {
            Standing::Ready
        }
    }

    fn cancel(&self, mail: &Arc<Envelope<W::Request, W::Reply>>) {
        self.cancel_mail(mail);
    }

    fn withdraw(&self) -> Vec<Arc<Envelope<W::Request, W::Reply>>> {
        self.withdraw_untried()
    }

    fn domain(&self) -> Option<Arc<Mutex<Domain>>> {
        self.known_domain()
    }

    fn domain_name(&self) -> Arc<str> {
        self.spec.quota_domain.clone().unwrap_or_else(|| Arc::from(self.path.as_str()))
    }

    fn capabilities(&self) -> Option<Arc<Capabilities>> {
        self.spec.capabilities.clone()
    }

    fn role(&self) -> Role {
        self.spec.role
    }

    fn effect_kind(&self) -> EffectKind {
        self.effect()
    }
}
