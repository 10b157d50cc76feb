//! What the journal says of requests, and what it will say once the store has answered.
//!
//! *Invariant.* A change is made when it is handed to the store, so that the next one builds on it; until
//! the store has answered, whoever asks hears what was so before. A change the store has refused is taken
//! back.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::line::{Line, key_of};
use super::made::{Children, Made};
use super::nested::Nested;
use super::past::{Past, Works};
use super::{End, Hand, Journaled, Open};
use crate::checkpoint::Wall;
use crate::fate::{Fate, Trail};
use crate::id::{CheckpointId, ChildPath};
use crate::ledger::Record;
use crate::port::Back;

mod aside;
mod given;
mod lines;

pub(super) use lines::{fated, quarantined, returned};

/// Fates that are remembered after the request, by its key, so that it is not accepted twice.
const REMEMBERED: usize = 65_536;

/// What the replies that are remembered may weigh.
pub(super) const REPLY_BYTES: usize = 64 * MIB;

/// The unit of what weighs much. Tests make do with less.
pub(super) const MIB: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// Children whose oldest states are looked for when the journal is written anew.
const ASKED_ABOUT: usize = 256;

/// A request that was set aside.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    /// With all that has failed.
    pub(crate) open: Open,
    pub(crate) at: Wall,
    /// Its child is gone for good: another of its path is not whom it was for.
    pub(crate) deleted: bool,
}

impl Aside {
    /// It is open again, and this is the time under its key that it is.
    pub(super) fn released(self, round: u64) -> Open {
        Open { deadline: None, round, ..self.open }
    }
}

/// What is known of a key.
pub(super) enum Known {
    Nothing,
    /// In this place among those that are open.
    Open(u64, Open),
    Fated(Fate, End),
    /// In this place among those that were set aside.
    Aside(u64, Aside),
}

struct Unsure {
    serial: u64,
    /// What is certain.
    before: Known,
    /// What an earlier change, whose answer is still to come, has made of it.
    under: Option<(u64, Known)>,
}

/// A change that was handed to the store.
pub(super) struct Token {
    key: Arc<str>,
    serial: u64,
    tidied: u64,
}

impl Token {
    /// Whose change it is.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.key
    }
}

struct Remembered {
    stamp: u64,
    fate: Fate,
    end: End,
}

#[derive(Default)]
pub(super) struct State {
    /// In the order of acceptance.
    open: BTreeMap<u64, Open>,
    places: HashMap<Arc<str>, u64>,
    fated: HashMap<Arc<str>, Remembered>,
    order: VecDeque<(u64, Arc<str>)>,
    /// Those whose reply is remembered, too, and what these weigh.
    replies: VecDeque<(u64, Arc<str>)>,
    reply_bytes: usize,
    /// In the order in which they were set aside.
    aside: BTreeMap<u64, Aside>,
    aside_places: HashMap<Arc<str>, u64>,
    unsure: HashMap<Arc<str>, Unsure>,
    /// Of all these keys, those that may be of what steps of other requests asked for.
    nested: Nested,
    /// What was returned to.
    returned: BTreeSet<CheckpointId>,
    /// In whose state, and after how many steps, the work of a request that was answered is.
    work: Works,
    /// Of those whose work is in no state any more, and of whom that was not told yet: where it was.
    untold: BTreeMap<Arc<str>, (ChildPath, u64)>,
    /// Requests whose work is in a state, to be replayed when that goes back.
    past: Past,
    /// Made from templates.
    pub(super) children: Children,
    /// Counts places, stamps and changes.
    next: u64,
    /// How often the journal was written anew.
    tidied: u64,
}

impl State {
    /// Takes up a record that was read.
    pub(super) fn read(&mut self, line: Line) -> Result<Option<Record>, String> {
        match line {
            line @ Line::Accepted { .. } => {
                if let Some(open) = line.into_open()
                    && !self.places.contains_key(&open.key)
                {
                    let key = Arc::clone(&open.key);
                    let known = self.opens(open);
                    self.take(&key);
                    self.put_read(key, known);
                }
            }
            Line::Fated { key, fate: Fate::Quarantined, at, trail, deleted, .. } => {
                let before = self.take(&key);
                let mut after = self.sets_aside(&before, trail, at.unwrap_or_default());
                after.with_aside(|aside| aside.deleted |= deleted);
                self.put(key, after);
            }
            Line::Fated { key, fate, reply, work, given, .. } => {
                self.works(&key, work);
                self.take(&key);
                self.put(key, Known::Fated(fate, End { reply, given }));
            }
            Line::Released { key, round } => {
                let before = self.take(&key);
                let after = self.releases(before, round);
                self.put_read(key, after);
            }
            Line::Discarded { key } => {
                self.take(&key);
                self.put(key, Known::Fated(Fate::Quarantined, End::default()));
            }
            Line::Withdrawn { key } => drop(self.take(&key)),
            Line::TakenUp { key, n } => drop(self.counts(&key, |_| n)),
            Line::WentBack { key, to } => self.goes_back(&key, to),
            Line::HandedOut { key, out } => {
                self.hands(&key, if out { Hand::Out } else { Hand::In });
            }
            Line::Intent(stored) => return Ok(Some(stored.into_record()?)),
            Line::Status { key, status, said } => {
                let (key, status) = (key_of(&key)?, status.into());
                return Ok(Some(match said {
                    Some(said) => Record::Said(key, status, said),
                    None => Record::Status(key, status),
                }));
            }
            Line::Returned { checkpoints, missing, replayed } => {
                self.use_up(checkpoints);
                self.note_missing(&missing);
                self.note_replayed(&replayed);
            }
            Line::Asked { task, key, status } => {
                return Ok(Some(Record::Asked(task, key_of(&key)?, status.into())));
            }
            Line::Retired { task } => return Ok(Some(Record::Retired(task))),
            Line::Owes { task, owes } => return Ok(Some(Record::Owes(task, owes))),
            Line::Made { again: true, child, .. } if self.children.has(&child) => {}
            Line::Made { child, template, arguments, before, .. } => {
                if self.children.has(&child) {
                    // The store has refused the end of the one before it, whose requests and work are not its.
                    self.unmakes(&child, true);
                }
                let before = before.into_iter().collect();
                let serial = self.number();
                self.children.put(serial, Made { child, template, arguments, before });
            }
            Line::Unmade { child, deleted } => self.unmakes(&child, deleted),
        }
        Ok(None)
    }

    /// As [`State::put`], of a request that is open as was read.
    fn put_read(&mut self, key: Arc<str>, known: Known) {
        if let Known::Open(place, open) = &known {
            self.children.note_read(&open.child, *place);
        }
        self.put(key, known);
    }

    /// The request that is open in this place.
    pub(super) fn open_at(&self, place: u64) -> Option<&Open> {
        self.open.get(&place)
    }

    /// The keys below this one under which a request is open or was answered, in their order, and whether it was.
    pub(super) fn asked(&self, task: &str) -> Vec<(Arc<str>, bool)> {
        let known = |key: &Arc<str>| {
            let answered = self.fated.get(key).is_some_and(|known| known.fate == Fate::Done);
            (answered || self.places.contains_key(key)).then(|| (Arc::clone(key), answered))
        };
        self.nested.below(task).filter_map(known).collect()
    }

    /// How many keys are looked through for [`State::asked`] at most.
    #[cfg(test)]
    pub(super) fn nested(&self) -> usize {
        self.nested.len()
    }

    /// An open request has this fate.
    pub(super) fn ends(&mut self, key: Arc<str>, fate: Fate) {
        self.take(&key);
        self.put(key, Known::Fated(fate, End::default()));
    }

    /// A child is gone. A later one of its path has not done what was its work.
    pub(super) fn lets_go_of(&mut self, child: &ChildPath) {
        self.children.remove(child);
        for (_, key) in self.work.all_of(child) {
            self.work.remove(&key);
            self.past.remove(&key);
        }
        self.untold.retain(|_, (at, _)| at != child);
    }

    /// Nothing is said of a request any more.
    pub(super) fn let_go(&mut self, key: &str) {
        self.take(key);
        self.work.remove(key);
        self.past.remove(key);
    }

    /// What is certain about a key.
    pub(super) fn known(&self, key: &str) -> Option<Journaled> {
        if let Some(unsure) = self.unsure.get(key) {
            return match &unsure.before {
                Known::Nothing => None,
                Known::Open(..) => Some(Journaled::Open),
                Known::Fated(fate, end) => Some(Journaled::Fated(*fate, end.reply.clone())),
                Known::Aside(..) => Some(Journaled::Fated(Fate::Quarantined, None)),
            };
        }
        if let Some(known) = self.fated.get(key) {
            return Some(Journaled::Fated(known.fate, known.end.reply.clone()));
        }
        if self.aside_places.contains_key(key) {
            return Some(Journaled::Fated(Fate::Quarantined, None));
        }
        self.places.contains_key(key).then_some(Journaled::Open)
    }

    /// Whether nothing is said about a key, nor is about to be.
    pub(super) fn is_free(&self, key: &str) -> bool {
        !self.fated.contains_key(key)
            && !self.places.contains_key(key)
            && !self.aside_places.contains_key(key)
    }

    /// Whether a request with this key is open, or about to be.
    pub(super) fn is_open(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Whether a fate can be given to it: it is open, or has one that may be another by now.
    pub(super) fn is_running(&self, key: &str) -> bool {
        self.places.contains_key(key) || self.fated.contains_key(key)
    }

    /// Whether the store has answered to all that was said of this request.
    pub(super) fn is_certain(&self, key: &str) -> bool {
        !self.unsure.contains_key(key)
    }

    pub(super) fn opened(&self) -> impl Iterator<Item = &Open> {
        self.open.values()
    }

    /// Those set aside for certain, the oldest first.
    pub(super) fn set_aside(&self) -> impl Iterator<Item = &Aside> {
        self.aside.values().filter(|aside| !self.unsure.contains_key(&aside.open.key))
    }

    pub(super) fn aside(&self, key: &str) -> Option<&Aside> {
        self.aside.get(self.aside_places.get(key)?).filter(|_| !self.unsure.contains_key(key))
    }

    /// Of all that were set aside, also of those that are so again should the store refuse what came after that.
    pub(super) fn each_aside(&mut self, mut then: impl FnMut(&mut Aside)) {
        self.aside.values_mut().for_each(&mut then);
        for unsure in self.unsure.values_mut() {
            unsure.before.with_aside(&mut then);
            unsure.under.iter_mut().for_each(|(_, known)| known.with_aside(&mut then));
        }
    }

    /// The records that say all this. Whatever changes later is handed over later.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = self.made_lines();
        let fated = self.order.iter().filter_map(|(stamp, key)| {
            let known = self.fated.get(key).filter(|known| known.stamp == *stamp)?;
            let work = self.work.get(key).or_else(|| self.untold.get(key)).cloned();
            let line = fated(key, known.fate, known.end.clone(), work);
            Some(self.past.get(key).map(Line::from).into_iter().chain([line]))
        });
        lines.extend(fated.flatten());
        for aside in self.aside.values() {
            lines.push(Line::from(&aside.open));
            lines.push(aside.line());
        }
        lines.extend(self.open.values().map(Line::from));
        let used: Vec<_> = self.returned.iter().copied().collect();
        let untold: Vec<_> = self.untold.keys().map(Arc::clone).collect();
        lines.extend(returned(&used, &untold, &[]));
        lines
    }

    /// How many of these there are at least.
    pub(super) fn least(&self) -> usize {
        self.fated.len() + self.past.len() + self.open.len() + self.children.len()
    }

    /// Where the work of a request that is answered is.
    pub(super) fn works(&mut self, key: &Arc<str>, work: Option<(ChildPath, u64)>) {
        let Some(work) = work else {
            self.work.remove(key);
            self.past.remove(key);
            return;
        };
        if let Some(open) = self.places.get(key).and_then(|place| self.open.get(place)) {
            self.past.keep(open);
        }
        self.work.insert(key, work);
    }

    /// The request that was answered with this key, if it can be handled again.
    pub(super) fn past(&self, key: &str) -> Option<&Open> {
        self.past.get(key)
    }

    pub(super) fn work_of(&self, key: &str) -> Option<(ChildPath, u64)> {
        self.work.get(key).cloned()
    }

    /// The requests whose work is in the state of this child after more than so many steps, in the order in
    /// which it came there.
    pub(super) fn after(&self, child: &ChildPath, step: u64) -> Vec<(u64, Arc<str>)> {
        let here = self.work.after(child, step);
        here.filter(|(_, key)| self.fated.contains_key(key)).cloned().collect()
    }

    /// Whose work is at a step that no state of its child is before, by what `oldest` says of a child, is
    /// never replayed. Of many children nobody is asked about each: there is a bound on all of them anyway.
    pub(super) fn retain_past(&mut self, oldest: impl Fn(&ChildPath) -> Option<u64>) {
        let work = &self.work;
        let mut known: HashMap<&ChildPath, Option<u64>> = HashMap::new();
        for child in self.past.keys().filter_map(|key| Some(&work.get(key)?.0)) {
            known.entry(child).or_default();
            if known.len() > ASKED_ABOUT {
                return;
            }
        }
        for (child, step) in &mut known {
            *step = oldest(child);
        }
        self.past.retain(|key| {
            work.get(key).is_some_and(|(child, step)| {
                known.get(child).copied().flatten().is_none_or(|oldest| *step > oldest)
            })
        });
    }

    /// The work of these is in no state any more, which somebody is still to be told.
    pub(super) fn note_missing(&mut self, keys: &[Arc<str>]) {
        for key in keys {
            if let Some(work) = self.work.get(key).filter(|_| self.fated.contains_key(key)) {
                self.untold.insert(Arc::clone(key), work.clone());
            }
            self.work.remove(key);
            self.past.remove(key);
        }
    }

    /// The work of these is in a state again. Should that go back once more, they are not handled a third
    /// time: the state may be one that their work makes unusable. Or it is missing, and that was told.
    pub(super) fn note_replayed(&mut self, keys: &[Arc<str>]) {
        for key in keys {
            self.past.remove(key);
            self.untold.remove(key);
        }
    }

    /// Whose work is in no state any more, in the order of the keys, as far as nobody was told.
    pub(super) fn untold(&self) -> Vec<(ChildPath, Arc<str>)> {
        self.untold.iter().map(|(key, (child, _))| (child.clone(), Arc::clone(key))).collect()
    }

    /// The requests, in the order of their answers, whose work is in none of these states.
    pub(super) fn work_since(
        &self,
        states: &HashMap<ChildPath, u64>,
    ) -> Vec<(ChildPath, Arc<str>)> {
        let answered = states.iter().flat_map(|(child, state)| {
            let here = self.work.after(child, *state).map(move |(_, key)| (child, key));
            here.filter_map(|(child, key)| {
                let known = self.fated.get(key).filter(|known| known.fate == Fate::Done)?;
                Some((known.stamp, child, key))
            })
        });
        let mut answered: Vec<_> = answered.collect();
        answered.sort_unstable_by_key(|(stamp, ..)| *stamp);
        answered.into_iter().map(|(_, child, key)| (child.clone(), Arc::clone(key))).collect()
    }

    /// These count as returned to from now on, also before the store says so.
    pub(super) fn use_up(&mut self, ids: impl IntoIterator<Item = CheckpointId>) {
        self.returned.extend(ids);
    }

    pub(super) fn is_used_up(&self, id: CheckpointId) -> bool {
        self.returned.contains(&id)
    }

    /// Forgets those that are no more.
    pub(super) fn retain_used(&mut self, is_there: impl Fn(CheckpointId) -> bool) {
        self.returned.retain(|id| is_there(*id));
        self.children.retain_before(is_there);
    }

    /// How often the journal was written anew.
    pub(super) const fn tidied(&self) -> u64 {
        self.tidied
    }

    /// The journal is written anew, from [`State::lines`].
    pub(super) fn note_tidied(&mut self) {
        self.tidied += 1;
    }

    /// How often the process has ended with this request in hand, should it end now; `None` when it is not
    /// open, or that has not changed.
    pub(super) fn counts(&mut self, key: &str, to: impl FnOnce(u32) -> u32) -> Option<u32> {
        let open = self.open.get_mut(self.places.get(key)?)?;
        let before = open.taken;
        open.taken = to(before);
        (open.taken != before).then_some(open.taken)
    }

    /// Those that nobody knows whether they were done: in the order in which they ended, and then those that are
    /// open.
    pub(super) fn in_doubt(&self) -> Vec<Arc<str>> {
        let unknown = self.order.iter().filter(|(stamp, key)| {
            let known = self.fated.get(key).filter(|known| known.stamp == *stamp);
            known.is_some_and(|known| known.fate == Fate::Unknown)
        });
        let out = self.open.values().filter(|open| open.hand == Hand::Out);
        let out = out.map(|open| &open.key);
        unknown.map(|(_, key)| key).chain(out).map(Arc::clone).collect()
    }

    /// Whether somebody may have acted on this request, which is open.
    pub(super) fn is_out(&self, key: &str) -> bool {
        let open = self.places.get(key).and_then(|place| self.open.get(place));
        open.is_some_and(|open| open.hand == Hand::Out)
    }

    /// What is known of whoever works on this request; whether it is open, and that has changed.
    pub(super) fn hands(&mut self, key: &str, hand: Hand) -> bool {
        let open = self.places.get(key).and_then(|place| self.open.get_mut(place));
        open.is_some_and(|open| std::mem::replace(&mut open.hand, hand) != hand)
    }

    /// A request goes back to where it began, or the supervisor with this path is to return for it.
    pub(super) fn goes_back(&mut self, key: &str, to: Option<ChildPath>) {
        let Some(place) = self.places.get(key) else { return };
        let Some(open) = self.open.get_mut(place) else { return };
        match to {
            None => open.back.own = true,
            to => open.back.widest = to,
        }
    }

    pub(super) fn accept(&mut self, open: Open) -> Token {
        let key = Arc::clone(&open.key);
        let known = self.opens(open);
        self.change(key, |_, _| known)
    }

    pub(super) fn withdraw(&mut self, key: &Arc<str>) -> Token {
        self.change(Arc::clone(key), |_, _| Known::Nothing)
    }

    pub(super) fn fate(&mut self, key: &Arc<str>, fate: Fate, end: End) -> Token {
        self.change(Arc::clone(key), |_, _| Known::Fated(fate, end))
    }

    pub(super) fn quarantine(&mut self, key: &Arc<str>, trail: Trail, at: Wall) -> Token {
        self.change(Arc::clone(key), |state, before| state.sets_aside(before, trail, at))
    }

    pub(super) fn release(&mut self, open: Open) -> Token {
        let key = Arc::clone(&open.key);
        let known = self.opens(open);
        self.change(key, |_, _| known)
    }

    pub(super) fn discard(&mut self, key: &Arc<str>) -> Token {
        self.change(Arc::clone(key), |_, _| Known::Fated(Fate::Quarantined, End::default()))
    }

    /// The store has answered. Returns the records that have to be written because the journal was
    /// written anew with a change that the store has refused.
    pub(super) fn answered(&mut self, token: &Token, made: bool) -> Vec<Line> {
        let Some(unsure) = self.unsure.get_mut(&token.key) else { return Vec::new() };
        if unsure.serial != token.serial {
            let earlier = unsure.under.take_if(|(serial, _)| *serial == token.serial);
            if let (Some((_, known)), true) = (earlier, made) {
                unsure.before = known;
            }
            return Vec::new();
        }
        let Some(unsure) = self.unsure.remove(&token.key) else { return Vec::new() };
        if made {
            return Vec::new();
        }
        self.take(&token.key);
        let mut lines = Vec::new();
        if token.tidied != self.tidied {
            lines.push(Line::Withdrawn { key: Arc::clone(&token.key) });
            match &unsure.before {
                Known::Nothing => {}
                Known::Open(_, open) => lines.push(Line::from(open)),
                Known::Fated(fate, end) => {
                    let work = self.work.get(&token.key).cloned();
                    lines.push(fated(&token.key, *fate, end.clone(), work));
                }
                Known::Aside(_, aside) => {
                    lines.push(Line::from(&aside.open));
                    lines.push(aside.line());
                }
            }
        }
        self.put(Arc::clone(&token.key), unsure.before);
        lines
    }

    fn change(&mut self, key: Arc<str>, to: impl FnOnce(&mut Self, &Known) -> Known) -> Token {
        let before = self.take(&key);
        let after = to(self, &before);
        self.put(Arc::clone(&key), after);
        let serial = self.number();
        let unsure = match self.unsure.remove(&key) {
            None => Unsure { serial, before, under: None },
            Some(old) => Unsure { serial, before: old.before, under: Some((old.serial, before)) },
        };
        self.unsure.insert(Arc::clone(&key), unsure);
        Token { key, serial, tidied: self.tidied }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn opens(&mut self, open: Open) -> Known {
        Known::Open(self.number(), open)
    }

    /// One whose text is gone only has its fate.
    fn sets_aside(&mut self, before: &Known, trail: Trail, at: Wall) -> Known {
        match before {
            Known::Open(_, open) => {
                let mut open = open.clone();
                open.trail.0.extend(trail.0);
                // Should it be released, all of this begins anew.
                (open.taken, open.back) = (0, Back::default());
                open.hand = open.hand.released();
                Known::Aside(self.number(), Aside { open, at, deleted: false })
            }
            Known::Aside(place, aside) => Known::Aside(*place, aside.clone()),
            Known::Nothing | Known::Fated(..) => Known::Fated(Fate::Quarantined, End::default()),
        }
    }

    fn releases(&mut self, before: Known, round: u64) -> Known {
        match before {
            Known::Aside(_, aside) => self.opens(aside.released(round)),
            other => other,
        }
    }

    fn take(&mut self, key: &str) -> Known {
        self.nested.remove(key);
        if let Some(place) = self.places.remove(key) {
            return self
                .open
                .remove(&place)
                .map_or(Known::Nothing, |open| Known::Open(place, open));
        }
        if let Some(place) = self.aside_places.remove(key) {
            let aside = self.aside.remove(&place);
            return aside.map_or(Known::Nothing, |aside| Known::Aside(place, aside));
        }
        match self.forget(key) {
            Some(known) => Known::Fated(known.fate, known.end),
            None => Known::Nothing,
        }
    }

    fn forget(&mut self, key: &str) -> Option<Remembered> {
        let known = self.fated.remove(key)?;
        self.nested.remove(key);
        self.reply_bytes -= known.end.reply.as_ref().map_or(0, String::len);
        Some(known)
    }

    /// There is no room for all that is remembered: the older half goes of the replies, whose fates stay, and of
    /// what is kept for replays.
    pub(super) fn forget_older_texts(&mut self) {
        self.bound_replies(self.reply_bytes / 2);
        self.past.halve();
    }

    /// The oldest replies go when all of them weigh too much; their fates stay.
    fn bound_replies(&mut self, bytes: usize) {
        while self.reply_bytes > bytes && self.replies.len() > 1 {
            let Some((stamp, key)) = self.replies.pop_front() else { break };
            let known = self.fated.get_mut(&key).filter(|known| known.stamp == stamp);
            if let Some(reply) = known.and_then(|known| known.end.reply.take()) {
                self.reply_bytes -= reply.len();
            }
        }
        // Those that were forgotten in between leave their places behind.
        if self.replies.len() > 2 * self.fated.len() + 64 {
            let fated = &self.fated;
            self.replies.retain(|(stamp, key)| fated.get(key).is_some_and(|it| it.stamp == *stamp));
        }
    }

    fn put(&mut self, key: Arc<str>, known: Known) {
        self.nested.put(&key);
        match known {
            Known::Nothing => self.nested.remove(&key),
            Known::Open(place, open) => {
                self.places.insert(key, place);
                self.open.insert(place, open);
            }
            Known::Aside(place, aside) => {
                self.aside_places.insert(key, place);
                self.aside.insert(place, aside);
            }
            Known::Fated(fate, end) => {
                let stamp = self.number();
                if let Some(reply) = &end.reply {
                    self.reply_bytes += reply.len();
                    self.replies.push_back((stamp, Arc::clone(&key)));
                }
                self.fated.insert(Arc::clone(&key), Remembered { stamp, fate, end });
                self.bound_replies(REPLY_BYTES);
                self.order.push_back((stamp, key));
                while self.order.len() > REMEMBERED {
                    let Some((stamp, old)) = self.order.pop_front() else { break };
                    if self.fated.get(&old).is_some_and(|known| known.stamp == stamp) {
                        self.forget(&old);
                        self.work.remove(&old);
                        self.untold.remove(&old);
                        self.past.remove(&old);
                    }
                }
            }
        }
    }
}
