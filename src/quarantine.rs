//! Requests that ended two lives and were set aside, until a person looks.
//!
//! Those of durable children and groups are in the journal; the others lie here, for as long as the
//! system lives and there is room.
//!
//! *Invariant.* What was asked leaves only by [`Held::post`], to be done after all, or where a person asks
//! for an export. User values are never dropped here: whoever pushes one out gets it to drop.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::checkpoint::Wall;
use crate::error::CallError;
use crate::fate::Trail;
use crate::id::{ChildPath, RequestId};
use crate::port::{AcceptOptions, Envelope, Kept, Port};

/// Requests that are kept although they are not durable. The oldest goes when another comes.
pub(crate) const ROOM: usize = 1000;

/// A request that was set aside. What was asked is not in it: see
/// [`QuarantineRef::export`](crate::system::QuarantineRef::export).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Quarantined {
    /// What it is released by. For a durable request its idempotency key, which outlives the process;
    /// otherwise a name within this system.
    pub id: Arc<str>,
    /// The child or group that had accepted it.
    pub child: ChildPath,
    /// Its number in this system; `None` for a durable one, whose number may be of an earlier process.
    pub request: Option<RequestId>,
    /// When it was set aside, in milliseconds since 1970.
    pub at: Wall,
    /// What has failed, the lives that it ended among it; with what failed before earlier releases.
    pub trail: Trail,
    /// Whether it is still there after the end of the process.
    pub durable: bool,
}

/// Why a request in hand could not be handed over again; it is handed back.
pub(crate) struct Unposted {
    pub(crate) held: Box<dyn Held>,
    pub(crate) why: Stays,
}

/// Why a request stays set aside.
pub(crate) enum Stays {
    /// Somebody still works on it, or its caller has not taken the answer.
    InUse,
    /// It is not taken, for this reason.
    Refused(String),
}

/// A request in hand, its types erased.
pub(crate) trait Held: Send {
    /// What was asked, when its type can be written down by whoever knows it.
    fn with_request(&self, look: &mut dyn FnMut(&dyn Any));
    /// Hands it over again, as a new request.
    fn post(
        self: Box<Self>,
        port: &(dyn Any + Send + Sync),
        options: AcceptOptions,
    ) -> Result<RequestId, Unposted>;
}

enum Parcel<Q, R> {
    /// As it was sent.
    Mail(Arc<Envelope<Q, R>>),
    /// Taken out of its envelope, and handed back.
    Loose(Kept<Q>),
}

/// Keeps a request.
pub(crate) fn hold<Q: Send + Sync + 'static, R: Send + 'static>(
    mail: Arc<Envelope<Q, R>>,
) -> Box<dyn Held> {
    Box::new(Parcel::Mail(mail))
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Held for Parcel<Q, R> {
    fn with_request(&self, look: &mut dyn FnMut(&dyn Any)) {
        match self {
            Self::Mail(mail) => look(&*mail.request as &dyn Any),
            Self::Loose(request) => look(&**request as &dyn Any),
        }
    }

    fn post(
        self: Box<Self>,
        port: &(dyn Any + Send + Sync),
        options: AcceptOptions,
    ) -> Result<RequestId, Unposted> {
        let Some(port) = port.downcast_ref::<Port<Q, R>>() else {
            let why = Stays::Refused("what has its path takes other requests now".to_owned());
            return Err(Unposted { held: self, why });
        };
        let request = match *self {
            Self::Loose(request) => request.into_inner(),
            Self::Mail(mail) => match Arc::try_unwrap(mail) {
                Ok(mail) => mail.into_request(),
                Err(mail) => {
                    return Err(Unposted { held: Box::new(Self::Mail(mail)), why: Stays::InUse });
                }
            },
        };
        port.post(request, options).map_err(|error| {
            let why = Stays::Refused(error.to_string());
            let request = match error {
                CallError::Full { message, .. } | CallError::Refused { message, .. } => {
                    Some(message)
                }
                _ => None,
            };
            match request {
                Some(request) => {
                    let held: Box<dyn Held> = Box::new(Parcel::<Q, R>::Loose(Kept::new(request)));
                    Unposted { held, why }
                }
                None => Unposted { held: Box::new(Gone), why },
            }
        })
    }
}

/// A request that was taken by a child which then did not want it.
struct Gone;

impl Held for Gone {
    fn with_request(&self, look: &mut dyn FnMut(&dyn Any)) {
        look(&() as &dyn Any);
    }

    fn post(
        self: Box<Self>,
        _: &(dyn Any + Send + Sync),
        _: AcceptOptions,
    ) -> Result<RequestId, Unposted> {
        Err(Unposted { held: self, why: Stays::Refused("it was lost".to_owned()) })
    }
}

/// A request on the shelf.
pub(crate) struct Shelved {
    pub(crate) told: Quarantined,
    /// What the ledger knows it by: it keeps this name when it is done after all.
    pub(crate) task: Arc<str>,
    /// Its child was started while the system ran and is gone: another of its path is not whom it was for.
    pub(crate) deleted: bool,
    pub(crate) held: Box<dyn Held>,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Shelf(Mutex<State>);

#[derive(Default)]
struct State {
    shelved: BTreeMap<u64, Shelved>,
    places: HashMap<Arc<str>, u64>,
    /// Who was taken out and may be put back: whose, and whether that child is gone since.
    out: BTreeMap<u64, (ChildPath, bool)>,
    next: u64,
    dropped: u64,
    /// What had failed of those that were released and have no fate yet, by task.
    earlier: HashMap<Arc<str>, Trail>,
    closed: bool,
}

impl Shelf {
    /// Puts a request there. Returns what had to go, for the caller to drop without a lock.
    pub(crate) fn put(&self, mut shelved: Shelved) -> Option<Shelved> {
        let mut state = self.0.lock();
        if state.closed {
            return Some(shelved);
        }
        if let Some(mut earlier) = state.earlier.remove(&shelved.task) {
            earlier.0.append(&mut shelved.told.trail.0);
            shelved.told.trail = earlier;
        }
        state.next += 1;
        let place = state.next;
        state.insert(place, shelved);
        if state.shelved.len() <= ROOM {
            return None;
        }
        state.dropped += 1;
        let (_, oldest) = state.shelved.pop_first()?;
        state.places.remove(&oldest.told.id);
        Some(oldest)
    }

    /// Puts back what [`Shelf::take`] took.
    pub(crate) fn put_back(&self, place: u64, mut shelved: Shelved) -> Option<Shelved> {
        let mut state = self.0.lock();
        shelved.deleted |= state.out.remove(&place).is_some_and(|(_, gone)| gone);
        state.earlier.remove(&shelved.task);
        if state.closed {
            return Some(shelved);
        }
        state.insert(place, shelved);
        None
    }

    /// The child with this path is gone, and does not come back.
    pub(crate) fn lets_go_of(&self, child: &ChildPath) {
        let mut state = self.0.lock();
        let its = state.shelved.values_mut().filter(|shelved| shelved.told.child == *child);
        its.for_each(|shelved| shelved.deleted = true);
        state.out.values_mut().for_each(|(whose, gone)| *gone |= whose == child);
    }

    pub(crate) fn list(&self) -> Vec<Quarantined> {
        self.0.lock().shelved.values().map(|shelved| shelved.told.clone()).collect()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }

    /// Takes one out, to be [put back](Shelf::put_back) or [let out](Shelf::lets_out).
    pub(crate) fn take(&self, id: &str) -> Option<(u64, Shelved)> {
        let mut state = self.0.lock();
        let place = state.places.remove(id)?;
        let shelved = state.shelved.remove(&place)?;
        state.out.insert(place, (shelved.told.child.clone(), false));
        Some((place, shelved))
    }

    /// One that was taken out does not come back.
    pub(crate) fn lets_out(&self, place: u64) {
        self.0.lock().out.remove(&place);
    }

    /// One of them is about to be handed over again: what had failed comes along.
    pub(crate) fn remember(&self, task: &Arc<str>, trail: &Trail) {
        self.0.lock().earlier.insert(Arc::clone(task), trail.clone());
    }

    /// A request has another fate.
    pub(crate) fn forget(&self, task: &str) {
        self.0.lock().earlier.remove(task);
    }

    /// Whether some were released that have no fate yet.
    pub(crate) fn remembers(&self) -> bool {
        !self.0.lock().earlier.is_empty()
    }

    /// Nothing is kept from now on: the requests here may hold on to the system. They are for the caller
    /// to drop.
    pub(crate) fn close(&self) -> Vec<Shelved> {
        let mut state = self.0.lock();
        state.closed = true;
        state.places.clear();
        std::mem::take(&mut state.shelved).into_values().collect()
    }
}

impl State {
    fn insert(&mut self, place: u64, shelved: Shelved) {
        self.places.insert(Arc::clone(&shelved.told.id), place);
        self.shelved.insert(place, shelved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_out_while_its_child_went_is_not_for_another_of_its_path() {
        let shelf = Shelf::default();
        let told = Quarantined {
            id: Arc::from("one"),
            child: ChildPath::new("desk/agent"),
            request: None,
            at: Wall(1),
            trail: Trail::default(),
            durable: false,
        };
        let task = Arc::from("one");
        drop(shelf.put(Shelved { told, task, deleted: false, held: Box::new(Gone) }));
        let (place, shelved) = shelf.take("one").unwrap();
        shelf.lets_go_of(&ChildPath::new("desk/other"));
        assert!(shelf.put_back(place, shelved).is_none());
        let (place, shelved) = shelf.take("one").unwrap();
        assert!(!shelved.deleted);
        shelf.lets_go_of(&shelved.told.child);
        assert!(shelf.put_back(place, shelved).is_none());
        let (place, shelved) = shelf.take("one").unwrap();
        assert!(shelved.deleted);
        drop(shelved);
        shelf.lets_out(place);
        assert!(shelf.0.lock().out.is_empty());
    }
}
