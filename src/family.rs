//! One supervisor as a machine: who is started and stopped, when, in which order, and when it gives up.
//!
//! A [`Family`] is told what happened ([`Input`]) and says what to do ([`Output`]). It stops and starts
//! nobody itself: it hands out *runs*, lists of children to stop and then to start, and is told when a
//! run is done. So it never waits, and it can be asked and stopped at any time. Its words are OTP's
//! `supervisor`, and so is its behavior where this page does not say otherwise.
//!
//! | What happens | What follows |
//! |---|---|
//! | a child ends, and its [`RestartType`] says no | temporary: removed; else it rests ([`Output::Rests`]) |
//! | ... says yes | counted against its own limit, then against the family's; then restarted |
//! | its own limit exceeded | quarantined; not counted against the family; siblings go on |
//! | the family's limit exceeded | all stopped in reverse order; [`ExitCause::Intensity`] |
//! | a start fails in [`Input::Boot`] | those before it stopped in reverse order; the family ends |
//! | ... of a child that was started while an earlier life ran ([`Family::add_kept`]) | the others are started; once the boot is done, judged as below |
//! | ... of such a child in the boot or a restart, before it has been up in this life of the supervisor | counted against its own limit only, or, where it has none, against as much as the family is allowed; restarted alone after the backoff, or quarantined |
//! | ... of such a child that is lazy, with its first request | the same: what has ended with [`ExitCause::StartFailed`] has not been up |
//! | a start fails in [`Input::Start`] | refused, and the child is not kept |
//! | a start fails in a restart | counted like an exit, retried after the backoff |
//! | a child ends while a run stops it | expected; not counted |
//! | a child started by a restart of siblings ends before that is done, or one outside its scope does | counted; the restart is called off and done again for both scopes |
//! | a child started alone or by an operator ends before its run is reported | the start counts as done, then as any exit |
//! | a child ends while the boot is not done | judged once the boot is done |
//! | an operator resets a child, or all | stopped and started again, not counted |
//! | ... in a hurry | `one_for_one` stops all at the same time; the others in reverse order, as ever; nobody is waited for past the moment that was given |
//! | an operator terminates a child | it stays stopped until an operator restarts it, also when its siblings restart |
//!
//! While siblings restart (backoff included), and during the boot, `Start` waits, and so does
//! `Restart` of a stopped child; a start under way that falls into the scope of a restart is called
//! off and done again afterwards. `Terminate` waits only while a run holds the child. `Delete` and
//! `Restart` of a child between two lives are refused at once with
//! [`ChildError::Restarting`](crate::error::ChildError::Restarting).
//!
//! *Invariant.* Pure: no clock, no channel, no actor. A child is in at most one run at a time; what a
//! run that was called off may have started is stopped before anything else is started in its place.
//! Once the family ends, nothing is started.

mod child;
mod end;
mod limit;
mod operate;
mod reset;
mod restart;
mod run;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::error::StartError;
use crate::fault::ExitCause;
use crate::id::{ChildPath, Incarnation};
use crate::moment::Moment;

use child::{Child, Phase, Rest};
use limit::Log;
use operate::Op;
use run::Job;

pub use limit::Limit;
pub use words::{
    AutoShutdown, ChildCounts, ChildInfo, ChildOptions, ChildStatus, FamilyOptions, Input, Key,
    Output, Reply, RestartType, RunId, Shutdown, Strategy, Ticket, Token,
};

/// One supervisor: ordered children, what it does about their ends, and its own end.
///
/// A lookup is O(log n), the restart of one child too; a restart of siblings and the end are O(n).
#[derive(Clone, Debug)]
pub struct Family {
    path: ChildPath,
    options: FamilyOptions,
    stage: Stage,
    /// In the order of starts. Boxed: the leaves of a tree that is filled in order stay half empty.
    children: BTreeMap<Key, Box<Child>>,
    names: HashMap<Arc<str>, Key>,
    tally: Tally,
    /// All restarts that were counted.
    log: Log,
    /// Runs that are not done.
    jobs: BTreeMap<RunId, Job>,
    /// The restart of siblings that is under way. There is at most one, since all scopes end with the
    /// last child.
    group: Option<Group>,
    /// What operators want, and has to wait for the boot or for `group`.
    queue: Vec<Op>,
    /// What operators want of a child, and has to wait for what another operator wants of it.
    after: BTreeMap<Key, Vec<Op>>,
    /// Who waits for a reset, which is over with `group`.
    resets: Vec<Ticket>,
    next_key: u32,
    next_run: u64,
    next_token: u32,
    now: Moment,
    out: Vec<Output>,
}

/// How far the family's own life is.
#[derive(Clone, Debug)]
enum Stage {
    Fresh,
    Booting,
    Open,
    Ending {
        cause: ExitCause,
        start_error: Option<StartError>,
        /// Whether the children's mailboxes wait for the parent's decision.
        follows: bool,
    },
    Over,
}

/// A restart of siblings: all children from `from` on.
#[derive(Clone, Debug)]
struct Group {
    from: Key,
    strategy: Strategy,
    run: Option<RunId>,
    /// The backoff that is not over.
    token: Option<Token>,
    /// When it is over.
    at: Moment,
    /// Until when its stops may take.
    until: Option<Moment>,
}

/// Counts that would cost a walk through all children.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    active: usize,
    supervisors: usize,
    /// Significant children that still do their work, or will again.
    significant: usize,
    /// Children that wait for the restart of their siblings.
    held: usize,
}

impl Tally {
    /// Moves a child to another phase. The only writer of `phase`.
    fn shift(&mut self, child: &mut Child, phase: Phase) {
        self.active -= usize::from(child.phase == Phase::Up);
        self.active += usize::from(phase == Phase::Up);
        self.held -= usize::from(child.phase == Phase::Held);
        self.held += usize::from(phase == Phase::Held);
        if child.options.significant {
            self.significant -= usize::from(child.phase.is_alive());
            self.significant += usize::from(phase.is_alive());
        }
        child.phase = phase;
        if phase == Phase::Up {
            child.untried |= std::mem::take(&mut child.kept);
        }
    }
}

impl Family {
    /// A family without children. `path` is the supervisor's own address.
    pub fn new(path: ChildPath, options: FamilyOptions) -> Self {
        Self {
            path,
            options,
            stage: Stage::Fresh,
            children: BTreeMap::new(),
            names: HashMap::new(),
            tally: Tally::default(),
            log: Log::default(),
            jobs: BTreeMap::new(),
            group: None,
            queue: Vec::new(),
            after: BTreeMap::new(),
            resets: Vec::new(),
            next_key: 0,
            next_run: 0,
            next_token: 0,
            now: Moment::START,
            out: Vec::new(),
        }
    }

    /// Adds a child that [`Input::Boot`] starts. `last` is its last life: [`Incarnation::NONE`], unless
    /// the supervisor itself was restarted.
    ///
    /// # Errors
    /// The id is taken, or the family has booted.
    #[expect(clippy::result_unit_err, reason = "specs are checked before: there is no more to say")]
    pub fn add_static(
        &mut self,
        id: Arc<str>,
        options: ChildOptions,
        last: Incarnation,
    ) -> Result<Key, ()> {
        if !matches!(self.stage, Stage::Fresh) || self.names.contains_key(&id) {
            return Err(());
        }
        self.insert(id, options, last, Phase::Idle(Rest::Ended)).ok_or(())
    }

    /// As [`Family::add_static`], of a child that was started while an earlier life of the supervisor ran, and had
    /// begun well: should it not start, the boot goes on without it, and until it is up the family is not held to
    /// account for it. A lazy one is up once it has begun with its first request.
    ///
    /// # Errors
    /// As [`Family::add_static`].
    #[expect(clippy::result_unit_err, reason = "as above")]
    pub fn add_kept(
        &mut self,
        id: Arc<str>,
        options: ChildOptions,
        last: Incarnation,
    ) -> Result<Key, ()> {
        let key = self.add_static(id, options, last)?;
        if let Some(child) = self.children.get_mut(&key) {
            child.kept = true;
        }
        Ok(key)
    }

    /// One step. What is to be done is returned, in order.
    pub fn on(&mut self, input: Input, now: Moment) -> Vec<Output> {
        let mut out = Vec::new();
        self.on_into(input, now, &mut out);
        out
    }

    /// As [`Family::on`]; what is to be done is added to `out`.
    pub fn on_into(&mut self, input: Input, now: Moment, out: &mut Vec<Output>) {
        self.now = now;
        std::mem::swap(&mut self.out, out);
        match input {
            Input::Boot => self.boot(),
            Input::Start { ticket, id, options, last } => self.start(ticket, id, options, last),
            Input::Terminate { ticket, id } => self.operate(Op::terminate(ticket, id)),
            Input::Restart { ticket, id } => self.operate(Op::restart(ticket, id)),
            Input::Delete { ticket, id } => self.operate(Op::delete(ticket, id)),
            Input::Reset { ticket, id, until } => self.reset(ticket, id, until),
            Input::Exited { key, incarnation, cause, widen } => {
                self.exited(key, incarnation, cause, widen);
            }
            Input::RunDone { run, result } => self.run_done(run, result),
            Input::Due { token } => self.due(token),
            Input::Stop { cause, until } => self.stop(cause, until),
        }
        std::mem::swap(&mut self.out, out);
    }

    /// The supervisor's address.
    pub const fn path(&self) -> &ChildPath {
        &self.path
    }

    /// How the children are treated.
    pub const fn options(&self) -> &FamilyOptions {
        &self.options
    }

    /// The key that the next child to be added will have.
    pub const fn next_key(&self) -> Key {
        Key(self.next_key)
    }

    /// The child with this id.
    pub fn key_of(&self, id: &str) -> Option<Key> {
        self.names.get(id).copied()
    }

    /// The id of this child.
    pub fn id_of(&self, key: Key) -> Option<&Arc<str>> {
        self.children.get(&key).map(|child| &child.id)
    }

    /// What this child does.
    pub fn status(&self, key: Key) -> Option<ChildStatus> {
        self.children.get(&key).map(|child| self.status_of(child))
    }

    /// The child's present or last life, or the one it is being started as.
    pub fn incarnation_of(&self, key: Key) -> Option<Incarnation> {
        self.children.get(&key).map(|child| child.incarnation)
    }

    /// How this child is treated.
    pub fn options_of(&self, key: Key) -> Option<&ChildOptions> {
        self.children.get(&key).map(|child| &child.options)
    }

    /// The address of this child.
    pub fn path_of(&self, key: Key) -> Option<ChildPath> {
        self.children.get(&key).map(|child| self.path.join(&child.id))
    }

    /// All children in the order of their starts.
    pub fn which_children(&self) -> Vec<ChildInfo> {
        self.children
            .iter()
            .map(|(&key, child)| ChildInfo {
                key,
                id: Arc::clone(&child.id),
                status: self.status_of(child),
                incarnation: child.incarnation,
                options: child.options,
            })
            .collect()
    }

    /// How many children there are; O(1).
    pub fn count_children(&self) -> ChildCounts {
        let specs = self.children.len();
        ChildCounts {
            specs,
            active: self.tally.active,
            supervisors: self.tally.supervisors,
            workers: specs - self.tally.supervisors,
        }
    }

    /// Whether [`Output::Finished`] has been said.
    pub const fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    fn status_of(&self, child: &Child) -> ChildStatus {
        let first = match child.phase {
            Phase::Starting(run) => {
                !matches!(self.jobs.get(&run), Some(Job::Alone(_) | Job::Group { .. }) | None)
            }
            _ => false,
        };
        child.phase.status(first)
    }

    fn insert(
        &mut self,
        id: Arc<str>,
        options: ChildOptions,
        last: Incarnation,
        phase: Phase,
    ) -> Option<Key> {
        let key = Key(self.next_key);
        self.next_key = self.next_key.checked_add(1)?;
        let mut child = Child {
            id: Arc::clone(&id),
            options,
            incarnation: last,
            phase: Phase::Idle(Rest::Ended),
            kept: false,
            untried: false,
            log: None,
        };
        self.tally.shift(&mut child, phase);
        self.tally.supervisors += usize::from(options.is_supervisor);
        self.children.insert(key, Box::new(child));
        self.names.insert(id, key);
        Some(key)
    }

    /// Forgets a child that is not up.
    fn remove(&mut self, key: Key) {
        let Some(mut child) = self.children.remove(&key) else { return };
        self.tally.shift(&mut child, Phase::Idle(Rest::Ended));
        self.tally.supervisors -= usize::from(child.options.is_supervisor);
        self.names.remove(&child.id);
        self.out.push(Output::Removed { key, id: child.id });
    }

    fn shift(&mut self, key: Key, phase: Phase) {
        if let Some(child) = self.children.get_mut(&key) {
            self.tally.shift(child, phase);
        }
    }

    fn phase(&self, key: Key) -> Option<Phase> {
        self.children.get(&key).map(|child| child.phase)
    }

    /// The child's path, also for one that is gone.
    fn child_path(&self, key: Key) -> ChildPath {
        self.path_of(key).unwrap_or_else(|| self.path.clone())
    }

    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    fn new_run(&mut self) -> RunId {
        self.next_run += 1;
        RunId(self.next_run)
    }

    /// A timer's name holds its child, so that no table of timers is needed.
    fn new_token(&mut self, key: Key) -> Token {
        self.next_token = self.next_token.wrapping_add(1);
        Token(u64::from(self.next_token) << 32 | u64::from(key.0))
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.out.push(Output::Reply { ticket, reply });
    }
}
