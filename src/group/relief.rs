//! What waits for a member that is not offered work any more.
//!
//! *Invariant.* Only what has not been tried there moves, and only to somebody who takes it now: nobody
//! loses a place, and a retry that was granted is made.

use super::{Group, LOOK_AGAIN};
use crate::circuit::Admission;
use crate::policy::Standing;
use crate::policy::eligibility::Role;

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    /// This member is not offered work any more, so what waits for it in vain goes to whoever takes it
    /// now. Where nobody does, it keeps its place.
    pub(super) fn relieve(&self, member: usize) {
        let now = self.hub.now();
        let elsewhere = self.seats.iter().enumerate().any(|(index, seat)| {
            index != member
                && seat.member.standing() == Standing::Ready
                && self.domain_closed(seat, now).is_none()
                && self.desk.lock().circuits[index].admits(now) == Admission::Yes
        });
        // What waits for a person's leave is nobody else's.
        if !elsewhere || self.seats[member].role == Role::Human {
            return;
        }
        for mail in self.seats[member].member.withdraw() {
            let errand = self.order(&mail, now).0;
            self.unmark(&mail, member, errand);
            let (order, leave) = self.order(&mail, now).1;
            let others = order.into_iter().filter(|index| *index != member);
            if self.offer(&mail, errand, (others, leave), now).is_ok() {
                self.follow_up(&mail);
                continue;
            }
            mail.set_member(member);
            self.mark(&mail, member, errand);
            if self.seats[member].member.post(&mail, true, now).is_ok() {
                self.follow_up(&mail);
            } else {
                self.unmark(&mail, member, errand);
                self.hold(mail, now + LOOK_AGAIN);
            }
        }
    }
}
