//! The mirror: what every slot publishes about its child, kept where a dump can read it without
//! asking anybody.
//!
//! Each supervisor and each group has a [`Roster`]. A child owns a [`RowHandle`] in it and publishes with
//! one or two stores of a word: its [`Status`], and its incarnation with its restarts. Rows stand in
//! pages of up to 1,024, words beside words and paths beside paths, so that a million rows are read by a
//! scan over contiguous memory and a page's paths are taken along by cloning one `Arc`. What does not
//! fit a word is asked of the child's [`Detail`], and only when the row says that there is something.
//! Dropping the handle frees the row.
//!
//! *Order.* A child stands where it was added. The row of a child that was removed is given to the next
//! one that is added, the first free row first, so a dynamic child may stand before an older one; when
//! no children are removed, order is order of start.
//!
//! *Cost.* 32 bytes a row (48 with a [`Detail`]) and 16 for the handle. The roster's lock is held for a
//! constant, short work when a child is added or removed, and by a dump only to clone two `Arc`s a page.
//!
//! *Invariant.* A slot never waits here to publish, and a dump never waits for a slot, except for the
//! details it asks for. A row that is read together with a path belongs to the child of that path, even
//! when rows are freed and given away meanwhile.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::fault::ExitKind;
use crate::id::{ChildPath, Incarnation};
use crate::moment::Moment;

mod facts;
mod tally;

pub use facts::{
    BudgetView, CheckpointView, ChildState, CircuitView, Detail, Facts, HedgeView, InFlight, Kind,
    LastCause, LineView, NodeDetail, Status,
};
pub use tally::Counts;
pub(crate) use tally::{CELLS, cell};

use tally::Tally;

/// Rows of the first page; each further page has twice as many, up to [`PAGE`].
const FIRST_PAGE: usize = 8;
/// Rows of a full-sized page.
const PAGE: usize = 1_024;
/// How often a page that changes under a dump is read again before the dump keeps others from
/// changing it.
const OPTIMISM: u32 = 3;

/// One row as it was read: `state u8, kind and two flags u8, in flight u16, mailbox u32`, and
/// `incarnation u32, restarts u32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    status: u64,
    life: u64,
}

const DETAIL: u64 = 1 << 15;
const DURABLE: u64 = 1 << 14;

impl Words {
    pub(crate) fn new(kind: Kind, status: Status, incarnation: Incarnation, restarts: u32) -> Self {
        Self { status: pack(kind, status), life: pack_life(incarnation, restarts) }
    }

    /// What it works on waits for others. Slots do not publish this, since it would cost every call that
    /// is made from a step two more stores and their lock; who asks for details is told.
    pub(crate) const fn set_waiting(&mut self) {
        if self.status as u8 == ChildState::Busy as u8 {
            self.status = self.status & !0xff | ChildState::Waiting as u64;
        }
    }

    /// The state; `None` for a free row.
    pub(crate) const fn state(self) -> Option<ChildState> {
        ChildState::from_code(self.status as u8)
    }

    pub(crate) const fn kind(self) -> Kind {
        Kind::from_code((self.status >> 8) as u8 & 0x3f)
    }

    /// Of a child that is durable, or is not.
    pub(crate) const fn with_durable(mut self, durable: bool) -> Self {
        if durable {
            self.status |= DURABLE;
        }
        self
    }

    pub(crate) const fn is_durable(self) -> bool {
        self.status & DURABLE != 0
    }

    pub(crate) const fn has_detail(self) -> bool {
        self.status & DETAIL != 0
    }

    pub(crate) const fn in_flight(self) -> u16 {
        (self.status >> 16) as u16
    }

    pub(crate) const fn mailbox(self) -> u32 {
        (self.status >> 32) as u32
    }

    pub(crate) const fn incarnation(self) -> Incarnation {
        Incarnation(self.life as u32)
    }

    pub(crate) const fn restarts(self) -> u32 {
        (self.life >> 32) as u32
    }

    /// Whether the same cell counts both, without working out which: asked at every request.
    const fn is_counted_as(self, other: Self) -> bool {
        const SERVING: u16 = 1 << ChildState::Idle as u16
            | 1 << ChildState::Busy as u16
            | 1 << ChildState::Waiting as u16;
        let (one, other) = (self.status as u8, other.status as u8);
        one == other || SERVING >> one & SERVING >> other & 1 != 0
    }

    /// The cell of the tally that counts this row.
    pub(crate) fn cell(self) -> usize {
        cell(self.kind(), self.state().unwrap_or_default())
    }
}

fn pack(kind: Kind, status: Status) -> u64 {
    let in_flight = u16::try_from(status.in_flight).unwrap_or(u16::MAX);
    let mailbox = u32::try_from(status.mailbox).unwrap_or(u32::MAX);
    let flag = if status.has_detail { DETAIL } else { 0 };
    status.state as u64
        | (kind as u64) << 8
        | flag
        | u64::from(in_flight) << 16
        | u64::from(mailbox) << 32
}

const fn pack_life(incarnation: Incarnation, restarts: u32) -> u64 {
    incarnation.0 as u64 | (restarts as u64) << 32
}

#[derive(Debug, Default)]
struct Row {
    status: AtomicU64,
    life: AtomicU64,
}

impl Row {
    fn load(&self) -> Words {
        Words { status: self.status.load(Relaxed), life: self.life.load(Relaxed) }
    }
}

/// The words of a page: what slots and dumps touch without a lock.
struct Chunk {
    roster: Weak<Shared>,
    tally: Arc<Tally>,
    page: u32,
    /// Grows whenever a row is given to a child or taken from it. Written under the roster's lock.
    changes: AtomicU32,
    rows: Box<[Row]>,
}

impl Chunk {
    /// Announces a change of who owns which row. A reader that sees any store made after this sees
    /// the new number too, once it has passed an acquire fence.
    fn change(&self) {
        self.changes.fetch_add(1, Relaxed);
        fence(Release);
    }
}

/// Which path each row of a page has; shared with the dumps that saw it.
pub(crate) type Names = Arc<Vec<Option<ChildPath>>>;

/// A page: its words, and what the roster's lock guards about them.
struct Page {
    chunk: Arc<Chunk>,
    names: Names,
    /// As long as the last row that ever had one.
    details: Vec<Option<Weak<dyn Detail>>>,
    nested: BTreeMap<u16, Roster>,
    free: BinaryHeap<Reverse<u16>>,
}

impl Page {
    fn live(&self) -> usize {
        self.names.len() - self.free.len()
    }

    fn is_full(&self) -> bool {
        self.live() == self.chunk.rows.len()
    }
}

/// What is known of the supervisor or group itself, as of its last word.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) facts: Arc<Facts>,
    pub(crate) words: Words,
    pub(crate) last_cause: Option<(ExitKind, Moment)>,
    pub(crate) line: Option<(LineView, Moment)>,
    pub(crate) detail: Option<Weak<dyn Detail>>,
}

struct Book {
    own: Own,
    /// Whether the parent has dropped its [`Nested`]: nothing is counted any more.
    gone: bool,
    pages: Vec<Page>,
    /// The pages that have a free row.
    open: BTreeSet<u32>,
}

struct Shared {
    tally: Arc<Tally>,
    book: Mutex<Book>,
}

/// The children of one supervisor or group, as they last described themselves. Clones are the same
/// roster.
#[derive(Clone)]
pub struct Roster {
    shared: Arc<Shared>,
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Roster {
    /// The roster of a root supervisor.
    pub fn root(facts: Facts) -> Self {
        Self::below(facts, None)
    }

    fn below(facts: Facts, above: Option<Arc<Tally>>) -> Self {
        let tally = Tally::below(above);
        let kind = facts.kind;
        let words = Words::new(kind, Status::default(), Incarnation::NONE, 0);
        // Above, its row in the parent's roster counts.
        tally.enter_here(words.cell());
        let own = Own { facts: Arc::new(facts), words, last_cause: None, line: None, detail: None };
        let book = Book { own, gone: false, pages: Vec::new(), open: BTreeSet::new() };
        Self { shared: Arc::new(Shared { tally, book: Mutex::new(book) }) }
    }

    /// The path of the supervisor or group.
    pub fn path(&self) -> ChildPath {
        self.shared.book.lock().own.facts.path.clone()
    }

    /// How many nodes there are at and below this one, without reading any row. Numbers that change
    /// meanwhile may be off by what changes.
    pub fn counts(&self) -> Counts {
        self.shared.tally.counts()
    }

    /// Adds a child, [`ChildState::Unstarted`]. Its row lasts as long as the handle.
    pub fn add(&self, path: ChildPath, kind: Kind) -> RowHandle {
        self.insert(path, kind, None)
    }

    /// Adds a supervisor or a group below this one. It is shown as long as the [`Nested`] lasts.
    pub fn nest(&self, facts: Facts) -> Nested {
        let (path, kind) = (facts.path.clone(), facts.kind);
        let roster = Self::below(facts, Some(self.shared.tally.clone()));
        let row = self.insert(path, kind, Some(roster.clone()));
        Nested { roster, row: Mutex::new(row) }
    }

    /// What the supervisor or group itself is doing. Takes the roster's lock.
    pub fn publish(&self, status: Status) {
        let mut book = self.shared.book.lock();
        let own = &mut book.own;
        own.words.status = pack(own.facts.kind, status);
    }

    /// Which life the supervisor or group is in. Takes the roster's lock.
    pub fn publish_life(&self, incarnation: Incarnation, restarts: u32) {
        let mut book = self.shared.book.lock();
        let before = book.own.words.restarts();
        book.own.words.life = pack_life(incarnation, restarts);
        if !book.gone {
            self.shared.tally.restarts(before, restarts);
        }
    }

    /// Why the supervisor's or group's last life ended, and when.
    pub fn publish_cause(&self, cause: ExitKind, at: Moment) {
        self.shared.book.lock().own.last_cause = Some((cause, at));
    }

    /// A recovery line was drawn for it at that moment.
    pub fn publish_line(&self, line: LineView, at: Moment) {
        self.shared.book.lock().own.line = Some((line, at));
    }

    /// Whom to ask about the supervisor or group itself: its requests in flight, its circuit, its
    /// budgets. Asked at every dump with details.
    pub fn set_detail(&self, detail: Weak<dyn Detail>) {
        self.shared.book.lock().own.detail = Some(detail);
    }

    fn insert(&self, path: ChildPath, kind: Kind, nested: Option<Self>) -> RowHandle {
        let tally = &self.shared.tally;
        let words = Words::new(kind, Status::default(), Incarnation::NONE, 0);
        let mut book = self.shared.book.lock();
        let at = match book.open.first() {
            Some(at) => *at,
            None => self.open_page(&mut book),
        };
        let page = &mut book.pages[at as usize];
        let chunk = page.chunk.clone();
        chunk.change();
        let names = Arc::make_mut(&mut page.names);
        let index = if let Some(Reverse(index)) = page.free.pop() {
            names[usize::from(index)] = Some(path);
            index
        } else {
            // A clone made for a dump has no room left.
            names.reserve_exact(chunk.rows.len() - names.len());
            names.push(Some(path));
            (names.len() - 1) as u16
        };
        if let Some(nested) = nested {
            page.nested.insert(index, nested);
        }
        let row = &chunk.rows[usize::from(index)];
        row.life.store(words.life, Release);
        row.status.store(words.status, Release);
        if page.is_full() {
            book.open.remove(&at);
        }
        drop(book);
        tally.enter(words.cell());
        RowHandle { chunk, index, kind, durable: false }
    }

    fn open_page(&self, book: &mut Book) -> u32 {
        let at = book.pages.len() as u32;
        let size = FIRST_PAGE.checked_shl(at).map_or(PAGE, |size| size.clamp(FIRST_PAGE, PAGE));
        let chunk = Chunk {
            roster: Arc::downgrade(&self.shared),
            tally: self.shared.tally.clone(),
            page: at,
            changes: AtomicU32::new(0),
            rows: std::iter::repeat_with(Row::default).take(size).collect(),
        };
        book.pages.push(Page {
            chunk: Arc::new(chunk),
            names: Arc::new(Vec::with_capacity(size)),
            details: Vec::new(),
            nested: BTreeMap::new(),
            free: BinaryHeap::new(),
        });
        book.open.insert(at);
        at
    }

    /// What the supervisor or group last said of itself.
    pub(crate) fn own(&self) -> Own {
        self.shared.book.lock().own.clone()
    }

    /// Reads one page; `None` behind the last.
    pub(crate) fn page(&self, at: usize, details: bool) -> Option<PageCopy> {
        for _ in 0..OPTIMISM {
            let (chunk, names, nested, changes) = {
                let book = self.shared.book.lock();
                let page = book.pages.get(at)?;
                let nested = nested_of(page);
                (page.chunk.clone(), page.names.clone(), nested, page.chunk.changes.load(Relaxed))
            };
            let mut copy = PageCopy::read(&chunk, names, nested);
            if details && copy.has_details() {
                let book = self.shared.book.lock();
                let page = book.pages.get(at)?;
                if Arc::ptr_eq(&page.chunk, &chunk) && chunk.changes.load(Relaxed) == changes {
                    copy.find_details(page);
                    return Some(copy);
                }
            } else {
                fence(Acquire);
                if chunk.changes.load(Relaxed) == changes {
                    return Some(copy);
                }
            }
        }
        let book = self.shared.book.lock();
        let page = book.pages.get(at)?;
        let mut copy = PageCopy::read(&page.chunk, page.names.clone(), nested_of(page));
        if details {
            copy.find_details(page);
        }
        Some(copy)
    }
}

fn nested_of(page: &Page) -> Vec<(u16, Roster)> {
    page.nested.iter().map(|(index, roster)| (*index, roster.clone())).collect()
}

/// A page as a dump read it: row `i` is the child `names[i]`.
pub(crate) struct PageCopy {
    pub(crate) names: Names,
    pub(crate) words: Box<[Words]>,
    /// How many rows are taken.
    pub(crate) live: usize,
    pub(crate) nested: Vec<(u16, Roster)>,
    /// Whom to ask, for the rows that say so.
    pub(crate) details: Vec<(u16, Arc<dyn Detail>)>,
    any_detail: bool,
}

impl PageCopy {
    fn read(chunk: &Chunk, names: Names, nested: Vec<(u16, Roster)>) -> Self {
        let mut live = 0;
        let mut flags = 0;
        let words = chunk.rows[..names.len()]
            .iter()
            .map(|row| {
                let words = row.load();
                live += usize::from(words.status != 0);
                flags |= words.status;
                words
            })
            .collect();
        let any_detail = flags & DETAIL != 0;
        let mut copy = Self { names, words, live, nested, details: Vec::new(), any_detail };
        // A hidden row hides what is below it.
        let words = &copy.words;
        copy.nested.retain(|(index, _)| words[usize::from(*index)].state().is_some());
        copy
    }

    const fn has_details(&self) -> bool {
        self.any_detail
    }

    fn find_details(&mut self, page: &Page) {
        for (index, (words, detail)) in self.words.iter().zip(&page.details).enumerate() {
            if words.has_detail()
                && let Some(detail) = detail.as_ref().and_then(Weak::upgrade)
            {
                self.details.push((index as u16, detail));
            }
        }
    }
}

/// A child's row. Dropping it removes the child from the roster.
///
/// Publishing takes `&mut self`: keep the handle inside what the slot's lock guards. Drop it where
/// taking the roster's lock for a moment is fine.
pub struct RowHandle {
    chunk: Arc<Chunk>,
    index: u16,
    kind: Kind,
    durable: bool,
}

impl RowHandle {
    fn row(&self) -> &Row {
        &self.chunk.rows[usize::from(self.index)]
    }

    /// What the child has accepted survives the process.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        let row = self.row();
        row.status.store(row.load().with_durable(true).status, Release);
        self
    }

    /// What the child is doing: one store; counters move only when it begins or ends to serve.
    pub fn publish(&mut self, status: Status) {
        let row = self.row();
        let before = row.load();
        let after = Words { status: pack(self.kind, status), life: before.life };
        let after = after.with_durable(self.durable);
        // Release, so that a dump that sees this store sees whose row it is. Free on x86.
        row.status.store(after.status, Release);
        if before.state().is_none() {
            self.chunk.tally.enter(after.cell());
            self.chunk.tally.restarts(0, after.restarts());
        } else if !before.is_counted_as(after) {
            self.chunk.tally.step(before.cell(), after.cell());
        }
    }

    /// Which life the child is in, and how many of its lives were restarts.
    pub fn publish_life(&mut self, incarnation: Incarnation, restarts: u32) {
        let row = self.row();
        let before = row.load();
        row.life.store(pack_life(incarnation, restarts), Release);
        if before.state().is_some() {
            self.chunk.tally.restarts(before.restarts(), restarts);
        }
    }

    /// The child is no part of the tree any more, although somebody still has its address. It is one
    /// again when it publishes the next time.
    pub fn hide(&mut self) {
        let last = self.row().load();
        if last.state().is_some() {
            self.row().status.store(0, Release);
            self.chunk.tally.leave(last.cell());
            self.chunk.tally.restarts(last.restarts(), 0);
        }
    }

    /// Whom to ask when the row says that there is something to say. Takes the roster's lock; call it
    /// once, when the slot is made.
    pub fn set_detail(&mut self, detail: Weak<dyn Detail>) {
        let Some(shared) = self.chunk.roster.upgrade() else { return };
        let index = usize::from(self.index);
        let mut book = shared.book.lock();
        let details = &mut book.pages[self.chunk.page as usize].details;
        if details.len() <= index {
            if details.capacity() <= index {
                details.reserve_exact(self.chunk.rows.len() - details.len());
            }
            details.resize(index + 1, None);
        }
        let before = details[index].replace(detail);
        drop(book);
        drop(before);
    }

    /// The state last published.
    pub fn state(&self) -> ChildState {
        self.row().load().state().unwrap_or_default()
    }
}

impl fmt::Debug for RowHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowHandle").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Drop for RowHandle {
    fn drop(&mut self) {
        self.hide();
        let Some(shared) = self.chunk.roster.upgrade() else { return };
        let index = usize::from(self.index);
        let mut book = shared.book.lock();
        let at = self.chunk.page;
        let page = &mut book.pages[at as usize];
        self.chunk.change();
        self.row().status.store(0, Release);
        self.row().life.store(0, Release);
        let name = Arc::make_mut(&mut page.names)[index].take();
        let detail = page.details.get_mut(index).and_then(Option::take);
        let nested = page.nested.remove(&self.index);
        page.free.push(Reverse(self.index));
        let empty = page.live() == 0;
        if empty {
            // Start in order again.
            Arc::make_mut(&mut page.names).clear();
            page.free.clear();
        }
        book.open.insert(at);
        let mut dropped = Vec::new();
        // One empty page is kept, so that a child that comes and goes costs no allocation.
        while let [.., one, other] = book.pages.as_slice()
            && one.live() == 0
            && other.live() == 0
        {
            dropped.extend(book.pages.pop());
            let behind = book.pages.len() as u32;
            book.open.remove(&behind);
        }
        drop(book);
        // What is dropped here may take other locks; none is held.
        drop((name, detail, nested, dropped));
    }
}

/// A supervisor or group within its parent. Dropping it removes it, with everything below it, from
/// what is shown.
#[derive(Debug)]
pub struct Nested {
    roster: Roster,
    row: Mutex<RowHandle>,
}

impl Nested {
    /// Its own roster.
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The supervisor is no part of the tree any more.
    pub fn hide(&self) {
        self.set_gone(true);
        self.row.lock().hide();
    }

    /// It is one again.
    pub fn show(&self) {
        self.row.lock().publish(Status::default());
        self.set_gone(false);
    }

    fn set_gone(&self, gone: bool) {
        let mut book = self.roster.shared.book.lock();
        if book.gone != gone {
            book.gone = gone;
            let restarts = book.own.words.restarts();
            let (from, to) = if gone { (restarts, 0) } else { (0, restarts) };
            self.roster.shared.tally.restarts(from, to);
        }
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        self.set_gone(true);
    }
}

#[cfg(test)]
mod tests;
