//! What a checkpoint says beside the state: under which policy it was taken, what the request in hand had
//! spent, and how many requests are in it.
//!
//! *Invariant.* The same tree gives the same digest of a policy, in every process and every build of the same
//! version. Nothing of it is restored with the state: it is compared, told, and charged to the budget.

use std::sync::Arc;
use std::time::Duration;

use super::{Desk, Job, Mail, Slot};
use crate::behavior::Context;
use crate::checkpoint::{Budgets, Digest};
use crate::event::Event;
use crate::fate::{Cost, Given};
use crate::hub::Deciding;
use crate::id::CheckpointId;
use crate::port::Envelope;
use crate::slot::worker::Worker;

impl<W: Worker> Slot<W> {
    /// The digest of all that decides about failures of this child: its policy, what its work does to the
    /// world, its scope, its limits of time, and whom the groups of the tree allow to stand in for whom.
    pub(crate) fn policy_digest(&self) -> Digest {
        *self.rules.digest.get_or_init(|| {
            let rules = &*self.rules;
            self.hub.digests.of(Deciding {
                policy: Arc::clone(&rules.policy),
                effect: self.spec.effect,
                attempt_timeout: rules.attempt_timeout,
                deadline: rules.deadline,
                scope: rules.scope,
                in_transaction: rules.in_transaction,
                allowed: self.hub.allowed.get().copied(),
            })
        })
    }

    /// How the answer of this attempt is given, and what its request has cost, also in processes before this one.
    pub(super) fn given(&self, job: &Job<W>, context: &Context) -> Given {
        let Budgets { tokens, money_micros, .. } = self.spent(job, context);
        let index = self.member.get().map_or(0, |member| member.index);
        let is_member = job.mail.home.is_some();
        Given {
            served_by: is_member.then(|| self.path.clone()),
            degraded: context.is_degraded() || (is_member && index > 0),
            defaulted: context.is_defaulted(),
            attempts: job.attempt,
            cost: Cost { tokens, money_micros },
        }
    }

    /// The same of what a person has answered in its place.
    pub(super) fn given_by_person(&self, mail: &Mail<W>) -> Given {
        let attempts = mail.trail().0.len() as u32;
        let Budgets { tokens, money_micros, .. } =
            self.spent_by(mail, attempts.into(), Cost::default());
        Given {
            served_by: mail.home.is_some().then(|| self.path.clone()),
            degraded: true,
            defaulted: false,
            attempts,
            cost: Cost { tokens, money_micros },
        }
    }

    /// What the request of this job has spent so far, also in processes before this one.
    pub(super) fn spent(&self, job: &Job<W>, context: &Context) -> Budgets {
        self.spent_by(&job.mail, job.attempt.into(), context.cost())
    }

    /// The same of a request that is not in anybody's hands here: `running` is what its attempt has cost.
    pub(super) fn spent_by(&self, mail: &Mail<W>, attempts: u64, running: Cost) -> Budgets {
        let before = mail.before();
        let mut cost = mail.spent();
        cost.add(running);
        let time = self.hub.now().since(mail.accepted_at);
        Budgets {
            attempts: before.attempts.saturating_add(attempts),
            tokens: before.tokens.saturating_add(cost.tokens),
            money_micros: before.money_micros.saturating_add(cost.money_micros),
            wall_millis: before.wall_millis.saturating_add(millis(time)),
        }
    }

    /// The same of a request that waits, or is out.
    pub(super) fn spent_in_hand(&self, desk: &Desk<W>, mail: &Mail<W>) -> Budgets {
        let failed = mail.book().map_or(0, |book| book.trail.0.len());
        let out = desk.out.iter().find(|out| out.ticket.lease.request == mail.id);
        let tie = out.and_then(|out| desk.flight_of(out)?.tie());
        let running = tie.map_or_else(Cost::default, |tie| tie.so_far());
        self.spent_by(mail, failed as u64 + 1, running)
    }

    /// Whether a state that was taken under this policy is taken up under another one.
    pub(super) fn is_other_policy(&self, policy: Digest) -> bool {
        policy != Digest::NONE && policy != self.policy_digest()
    }

    /// A life began with what this checkpoint holds: tells when it was taken under another policy.
    pub(super) fn tell_policy(&self, checkpoint: Option<CheckpointId>) {
        let desk = self.desk();
        let parent = desk.saved.as_ref().and_then(|saved| saved.last_checkpoint().cloned());
        drop(desk);
        let Some(taken) = parent.filter(|parent| Some(parent.id) == checkpoint) else { return };
        if self.is_other_policy(taken.policy) {
            self.hub.emit(Event::PolicyChanged { child: self.path.clone(), checkpoint: taken.id });
        }
    }
}

impl<Q, R> Envelope<Q, R> {
    /// Whether anything is charged to it that the attempt it waits for, or is in, does not bring along.
    pub(super) fn has_spent(&self) -> bool {
        let book = self.book();
        let is = book.is_some_and(|it| !it.trail.0.is_empty() || it.spent != Cost::default());
        is || self.before() != Budgets::default()
    }

    /// What the attempts before this one have cost, also in processes before this one.
    pub(super) fn spent_in_all(&self) -> Cost {
        let Budgets { tokens, money_micros, .. } = self.before();
        let mut cost = Cost { tokens, money_micros };
        cost.add(self.spent());
        cost
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
