//! Taking up what another process has left: the widest rollback there is.
//!
//! *Invariant.* Everything is read and doubted before the first life begins. What does not fit is
//! refused by name, and the store is left as it was.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{System, SystemOptions};
use crate::checkpoint::validate::{Refused, Rules, Schemas, Validator};
use crate::checkpoint::{Batch, Budgets, Durability, Now, Store, Topology, Wall};
use crate::effects::{AskKey, Keep, Unwind, Written};
use crate::error::{CheckpointError, RecoverError};
use crate::event::EventStream;
use crate::fate::{Fate, Given};
use crate::hub::Claim;
use crate::id::{CheckpointId, ChildPath, EffectKey};
use crate::journal::{Journal, Journaled, Open, Serial};
use crate::ledger::{EffectCounts, EffectStatus, Entry, Ledger};
use crate::port::{AcceptOptions, More, Soft};
use crate::slot::{Adopted, Begun, Look, given_up, is_returned, told_apart};
use crate::spec::SupervisorSpec;

/// How a system takes up a store.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoverOptions {
    /// How the system runs.
    ///
    /// # Default
    /// As [`System::start`].
    pub system: SystemOptions,
    /// How old a child's last state may be. An older one is refused, and the child begins anew. What the request
    /// in its middle began with may be older.
    ///
    /// # Default
    /// `None`: of any age. The hour after which a checkpoint is not rolled back to does not bind here:
    /// this is not a step back but the latest there is, and a machine may be down for longer.
    pub max_age: Option<Duration>,
    /// Whether a store of a tree with other durable children is taken up all the same. The state of
    /// children that are no more stays in the store; open requests to them are set aside
    /// ([`System::quarantine`]) and told ([`Recovered::set_aside`]). And whether children that were started from
    /// templates ([`SupervisorSpec::template`]) and cannot be made again are let go ([`Recovered::let_go`]): their
    /// supervisor or template is gone, or it does not take their arguments any more.
    ///
    /// # Default
    /// No: it is refused, with the difference named, or such a child ([`RecoverError::Child`]).
    pub adopt_topology: bool,
    /// Whether children begin anew that have states and none that can be taken up. This program cannot read what
    /// another version of it has written (of a later schema, of one it does not know or has no migration from, with
    /// fields that are missing or are something else), its migration fails, or all are damaged. Their states stay in
    /// the store, until retention drops them.
    ///
    /// # Default
    /// No: the store is refused, with the child, what was found and what is expected.
    pub give_up_states: bool,
    /// Whether open requests are set aside ([`System::quarantine`], [`Recovered::set_aside`]) that cannot be
    /// read, since another version of this program wrote them.
    ///
    /// # Default
    /// No: the store is refused, with the request's child and key, and what is wrong.
    pub set_unreadable_aside: bool,
}

/// What was taken up.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// Accepted requests without a fate, which are delivered again.
    pub requests: usize,
    /// The same requests, the oldest first, for whoever wants to know what becomes of them
    /// ([`System::journaled`]): whoever asked is gone.
    pub open: Vec<RecoveredRequest>,
    /// Accepted requests without a fate to children that are no more, or that cannot read them, which were set
    /// aside: see [`System::quarantine`]. Only with [`RecoverOptions::adopt_topology`] and
    /// [`RecoverOptions::set_unreadable_aside`].
    pub set_aside: Vec<RecoveredRequest>,
    /// Accepted requests without a fate with which in hand the process has ended too often
    /// ([`ChildSpec::process_deaths`](crate::spec::ChildSpec::process_deaths)), which were set aside: see
    /// [`System::quarantine`], where their trails say how often that was.
    pub ended_processes: Vec<RecoveredRequest>,
    /// Accepted requests without a fate that may have been done, and may not be done again: code that acts on
    /// the world had begun with them when the process ended ([`ChildSpec::effect`](crate::spec::ChildSpec::effect)).
    /// Their fate is `Unknown` now, and a person has to find out what has become of them
    /// ([`System::did_not_happen`]).
    pub in_doubt: Vec<RecoveredRequest>,
    /// The children that were started from templates ([`SupervisorSpec::template`]) and were made again, those first
    /// that were started first.
    pub made: Vec<ChildPath>,
    /// Such children that cannot be made again, which are no more from now on. Only with
    /// [`RecoverOptions::adopt_topology`].
    pub let_go: Vec<LetGo>,
    /// The children that go on with a state of before.
    pub children: Vec<RecoveredChild>,
    /// The checkpoints that were refused, and why.
    pub refused: Vec<Refused>,
    /// Requests that were answered after the states that were taken up, as newer ones were refused: before
    /// its next request each child handles them again ([`Event::Replayed`](crate::event::Event::Replayed)).
    /// By child and idempotency key.
    pub replayed: Vec<(ChildPath, Arc<str>)>,
    /// Such requests that are not handled again, as they are not kept any more or their child acts on the
    /// world by itself: what they have done to the states is not there. By child and idempotency key. They are named
    /// again by the next process if this one ends within 10 s and not in order ([`System::stop`]): it may not have
    /// come to say so.
    pub missing: Vec<(ChildPath, Arc<str>)>,
    /// Effects that are known, by status.
    pub effects: EffectCounts,
}

/// What requests in hand have spent in processes before this one.
type Charged = HashMap<Arc<str>, Budgets>;

/// What an earlier process has not come to the end of undoing.
struct Orphans {
    /// With the epochs that are undone: what was done since is not.
    undoing: Vec<(EffectKey, u32)>,
    /// Requests that have their fates, and owe it to the world to be undone.
    owing: Vec<(Arc<str>, Unwind)>,
    /// The same, with tools at work for them.
    late: Vec<(Arc<str>, Unwind)>,
    /// Acts that nobody asks for again, and whose tools work on their own requests.
    waiting: Vec<EffectKey>,
    /// Requests that have ended, and whose undo has stopped.
    halted: halted::Halted,
    /// Requests within a transaction whose fate is unknown.
    doubted: BTreeSet<Arc<str>>,
}

/// A request of before that is delivered again.
#[derive(Clone)]
#[non_exhaustive]
pub struct RecoveredRequest {
    /// Who had accepted it.
    pub child: ChildPath,
    /// Its idempotency key.
    pub key: Arc<str>,
    /// What is asked, as JSON. Holds user data.
    pub request: String,
}

impl std::fmt::Debug for RecoveredRequest {
    /// Without what is asked.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecoveredRequest")
            .field("child", &self.child)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A child that goes on with a state of before.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecoveredChild {
    /// The child.
    pub child: ChildPath,
    /// Its state.
    pub checkpoint: CheckpointId,
    /// How old it is.
    pub age: Duration,
    /// How many requests the child had answered, whose work is in it.
    pub answered: u64,
    /// What the request in hand had spent, if there is one; the last one that was answered, if not.
    pub spent: Budgets,
    /// Whether it was taken under another policy, or with other allow-lists in the tree, than there are now: what
    /// is decided about failures may be something else than before. No reason to refuse it.
    pub policy_changed: bool,
}

impl System {
    /// Starts a tree on a store, and takes up what another process has left there: the states of its
    /// durable children, the requests they had accepted, and the ledger of effects. On an empty store it
    /// is [`System::start`].
    ///
    /// Effects that were confirmed are not repeated. Those whose outcome was not known when the process
    /// ended are asked for again, verified, or left for a person
    /// ([`System::effects`]), as their kind allows.
    ///
    /// A store has one living system at a time. One that was dropped or is being stopped is waited for, for up to
    /// 30 s; one whose end is not known, 1 s, by the clock of the new system, and then the new one is refused.
    /// The store is free once [`System::stop`] has returned, the root has ended by itself, or its runtime is gone.
    /// It is known by its `Arc`: that two wrappers of your own are around one store is not seen.
    ///
    /// # Errors
    /// A store that has a living system in this process ([`StoreError::InUse`](crate::error::StoreError::InUse));
    /// a spec that cannot be run or does not start; a store that cannot be read, belongs to another
    /// tree, or holds a request that cannot be delivered again. The store is left as it was, but by a tree that
    /// does not start: then it is that tree's, and what was set aside, or has the fate `Unknown` now, is so
    /// ([`System::quarantine`], [`System::in_doubt`]).
    pub async fn recover(
        spec: SupervisorSpec,
        store: Arc<dyn Store>,
    ) -> Result<(Self, Recovered), RecoverError> {
        Self::recover_with(spec, store, RecoverOptions::default()).await
    }

    /// [`System::recover`] with options.
    ///
    /// # Errors
    /// As [`System::recover`].
    pub async fn recover_with(
        spec: SupervisorSpec,
        store: Arc<dyn Store>,
        options: RecoverOptions,
    ) -> Result<(Self, Recovered), RecoverError> {
        let system = Self::assemble(spec, options.system.clone())?;
        system.taken_up(store, &options).await
    }

    /// [`System::recover_with`], and every event from before the first request is delivered again: one
    /// that is answered at once is missed by who subscribes afterwards.
    ///
    /// # Errors
    /// As [`System::recover`].
    pub async fn recover_observed(
        spec: SupervisorSpec,
        store: Arc<dyn Store>,
        options: RecoverOptions,
    ) -> Result<(Self, Recovered, EventStream), RecoverError> {
        let system = Self::assemble(spec, options.system.clone())?;
        let events = system.events();
        let (system, recovered) = system.taken_up(store, &options).await?;
        Ok((system, recovered, events))
    }

    async fn taken_up(
        self,
        store: Arc<dyn Store>,
        options: &RecoverOptions,
    ) -> Result<(Self, Recovered), RecoverError> {
        match self.take_up(store, options).await {
            Ok((recovered, orphans, unmade)) => {
                let system = self.boot().await?;
                // Those that undo are there by now.
                system.undo_orphans(orphans);
                let hub = &system.inner.hub;
                if let Some(journal) = hub.journal.get() {
                    let missing = recovered.missing.iter().map(|(_, key)| Arc::clone(key));
                    journal.tells(&hub.runtime, missing.collect());
                    let let_go = recovered.let_go.iter().zip(unmade);
                    let unmaking: Vec<_> =
                        let_go.filter_map(|(it, of)| journal.unmakes(&it.child, of)).collect();
                    for one in unmaking {
                        // Of one that the store does not take the next process says it once more.
                        drop(one.done().await);
                    }
                }
                Ok((system, recovered))
            }
            Err(error) => {
                self.inner.hub.begin_shutdown();
                self.inner.registry.clear();
                Err(error)
            }
        }
    }

    async fn take_up(
        &self,
        store: Arc<dyn Store>,
        options: &RecoverOptions,
    ) -> Result<(Recovered, Orphans, Vec<Serial>), RecoverError> {
        let hub = &self.inner.hub;
        let claim = Claim::take(&store, &self.inner.root.path, &*hub.clock).await?;
        let _ = hub.claim.set(Arc::downgrade(&claim));
        *self.inner.claim.lock() = Some(claim);
        let children = self.inner.registry.durable();
        let topology = children.iter().map(|child| {
            let kind = if child.spec().stateful { "stateful" } else { "stateless" };
            format!("{} {kind}", child.path())
        });
        let groups = self.inner.registry.durable_groups();
        let topology =
            Topology::new(topology.chain(groups.iter().map(|path| format!("{path} group"))));
        let known = store.info()?.topology;
        if let Some(known) = &known
            && known.digest != topology.digest
            && !options.adopt_topology
        {
            return Err(RecoverError::Topology { difference: known.difference(&topology) });
        }
        store.taken_up();
        let (journal, records) = Journal::open(Arc::clone(&store), Arc::clone(&hub.clock))?;
        // Who was started while an earlier process ran is no part of the tree's shape.
        let (made, let_go) = self.make_again(&journal, options)?;
        let children = self.inner.registry.durable();
        let ledger = Ledger::replayed(records);
        let _ = hub.allowed.set(self.inner.registry.allowed().digest);
        let mut spent = HashMap::new();
        let effects = ledger.counts();
        let mut recovered = Recovered { effects, made, ..Recovered::default() };
        // Of a request that is not handed out again, no state in the middle is taken up.
        let ended = self.ended_with(journal.open_requests());
        let (again, gone): (Vec<_>, Vec<_>) =
            journal.open_requests().into_iter().filter(|it| !ended.has(&it.key)).partition(
                |open| match self.inner.registry.durable_at(&open.child) {
                    None => !options.adopt_topology,
                    Some(_) => !options.set_unreadable_aside || self.check_request(open).is_ok(),
                },
            );
        for request in &again {
            self.check_request(request)?;
        }
        let rounds: HashMap<_, _> =
            again.iter().map(|it| (Arc::clone(&it.key), it.round)).collect();
        let open = |begun: &Begun| rounds.get(&begun.key) == Some(&begun.round);
        for child in &children {
            if child.spec().stateful {
                // Nor is one of a course that another member of the group has taken over, and acted in.
                let open = |begun: &Begun| {
                    open(begun) && !self.is_overtaken(&ledger, &begun.key, child.path())
                };
                self.find_state(&**child, &journal, options, &open, (&mut recovered, &mut spent))?;
            }
        }
        let mut states: HashMap<_, _> = children.iter().map(|it| (it.path().clone(), 0)).collect();
        for taken in &recovered.children {
            let step = store.find(taken.checkpoint).map_or(0, |listed| listed.checkpoint.step);
            states.insert(taken.child.clone(), step);
        }
        let find = |path: &ChildPath| {
            let at = children.binary_search_by(|child| child.path().cmp(path)).ok()?;
            Some(&*children[at])
        };
        (recovered.replayed, recovered.missing) =
            told_apart(&journal, journal.work_since(&states), find);
        // And what a rollback has lost in whose middle the process ended.
        recovered.missing.extend(journal.untold());
        let open = again;
        let records = || ledger.records();
        // Nothing has been written so far.
        if known.as_ref().is_none_or(|known| known.digest != topology.digest) {
            let batch = || Batch::new().topology(topology.clone());
            hub.with_room(&journal, &records, || store.commit(batch(), Durability::Sync)).await?;
        }
        if !recovered.missing.is_empty() {
            // Written down as what is still to be told: this process may not come to it.
            let missing: Vec<_> =
                recovered.missing.iter().map(|(_, key)| Arc::clone(key)).collect();
            hub.with_room(&journal, &records, || journal.is_missing(&missing)).await?;
            for (child, key) in &recovered.missing {
                journal.note_lost(child, vec![Arc::clone(key)]);
            }
        }
        hub.with_room(&journal, &records, || journal.tidy(&records)).await?;
        hub.make_room(&journal).await;
        *hub.effects.ledger.lock() = ledger;
        let _ = hub.topology.set(topology.digest);
        let _ = hub.journal.set(Arc::clone(&journal));
        hub.effects.attach(Arc::clone(&journal) as Arc<dyn Keep>);
        self.settle_ended(&journal, &gone, &ended).await?;
        let (unmade, let_go): (Vec<_>, _) = let_go.into_iter().unzip();
        recovered.let_go = let_go;
        // What was set aside may be released, and is not over.
        hub.effects.take_up(|task| {
            journal.known(task) != Some(Journaled::Open) && journal.aside(task).is_none()
        });
        recovered.requests = open.len();
        let told = |open: &Open| RecoveredRequest {
            child: open.child.clone(),
            key: Arc::clone(&open.key),
            request: open.request.clone(),
        };
        recovered.open = open.iter().map(told).collect();
        recovered.set_aside = gone.iter().map(told).collect();
        recovered.ended_processes = ended.deadly.iter().map(told).collect();
        recovered.in_doubt = ended.in_doubt.iter().map(told).collect();
        let orphans = self.settle_orphans(&journal);
        for request in open {
            let before = spent.get(&request.key).copied().unwrap_or_default();
            self.deliver_again(&journal, request, before)?;
        }
        Ok((recovered, orphans, unmade))
    }

    /// The newest state of a child that passes every check; and for one in the middle of a request, the
    /// one it goes back to.
    fn find_state(
        &self,
        child: &dyn Look,
        journal: &Journal,
        options: &RecoverOptions,
        open: &dyn Fn(&Begun) -> bool,
        (recovered, spent): (&mut Recovered, &mut Charged),
    ) -> Result<(), RecoverError> {
        let path = child.path().clone();
        let failed = |why: CheckpointError| RecoverError::State { child: path.clone(), why };
        let store = &*journal.store;
        let now = Now::read(&*self.inner.hub.clock);
        let all = journal.states(&path)?;
        if all.is_empty() {
            return Ok(());
        }
        let mut schemas = Schemas::new();
        if let Some(schema) = child.schema().map_err(failed)? {
            schemas = schemas.register(schema).map_err(crate::error::StartError::from)?;
        }
        let given_up = given_up(journal, &all, all.first().map(|listed| listed.checkpoint.id));
        let (mut oldest, mut unfit, mut is_doubted) = (None, None, false);
        // How many requests were answered before the newest that is of use; and before the one in whose middle it
        // is gone on.
        let (mut newest, mut middle) = (None, None);
        for listed in all {
            let taken = &listed.checkpoint;
            let id = taken.id;
            oldest = Some((id, taken.lineage.parent));
            if given_up.contains(&id) || middle.is_some_and(|answered| taken.mailbox_cut > answered)
            {
                continue;
            }
            if middle.is_some_and(|answered| taken.mailbox_cut < answered) {
                // It did not begin with this one: returned to it, it would lose what was answered since.
                return Ok(());
            }
            let rules = Rules { ledger: journal.position(), ..Rules::of_any_age(taken) };
            let age = now.wall.since(taken.created_at);
            let result = match options.max_age {
                // What a request began with is of use as long as the state in its middle is.
                Some(limit) if age > limit && newest.is_none() => {
                    Err(CheckpointError::Expired { checkpoint: id, age, limit })
                }
                _ => Validator::new(store, &schemas, rules).validate(id),
            };
            // Not by the first life: what this program cannot restore, the one before it may, and it would find
            // all set aside. What the one in the middle goes back to is tried when it does.
            // And what a request that is over has left half-way is passed over.
            let result = result.and_then(|validated| {
                let is_tried = middle.is_none()
                    && (is_returned(&validated)
                        || child.in_hand(&validated).is_none_or(|it| open(&it)));
                if is_tried {
                    child.can_restore(&validated).map(|()| validated)
                } else {
                    Ok(validated)
                }
            });
            let why = match result {
                Ok(validated) => match child.adopt(&validated, open) {
                    Ok(Adopted::PassedOver) => {
                        newest.get_or_insert(taken.mailbox_cut);
                        continue;
                    }
                    Ok(adopted) => {
                        if recovered.children.last().is_none_or(|last| last.child != path) {
                            recovered.children.push(RecoveredChild {
                                child: path.clone(),
                                checkpoint: id,
                                age,
                                answered: taken.mailbox_cut,
                                spent: taken.budgets,
                                policy_changed: child.has_other_policy(taken.policy),
                            });
                            // Also of one that goes back to where it began: money does not.
                            let here = child.in_hand(&validated).filter(|it| open(it));
                            if let Some(begun) = here {
                                // Two members of a group may have had it, and the later one knows more.
                                let known: &mut Budgets = spent.entry(begun.key).or_default();
                                *known = known.most(taken.budgets);
                            }
                        }
                        if adopted == Adopted::Between {
                            return Ok(());
                        }
                        middle = Some(taken.mailbox_cut);
                        newest = newest.or(middle);
                        continue;
                    }
                    Err(what) => CheckpointError::Corrupt { place: id.to_string(), what },
                },
                Err(why) if why.is_retryable() => return Err(failed(why)),
                // The states before it may be of a version that fits, and are older.
                Err(why)
                    if matches!(why, CheckpointError::Incompatible { .. })
                        && !options.give_up_states
                        && recovered.children.last().is_none_or(|last| last.child != path) =>
                {
                    // Who mends what is wrong with an older one is refused again for the newest.
                    return Err(failed(unfit.unwrap_or(why)));
                }
                Err(why) => why,
            };
            is_doubted = true;
            // What is too old was said to be of no use. What was set aside was so by a program that could not
            // restore it, and a person may release it.
            if !matches!(why, CheckpointError::Expired { .. }) {
                unfit.get_or_insert_with(|| why.clone());
            }
            recovered.refused.push(Refused { checkpoint: id, child: path.clone(), why });
        }
        let is_first = newest == Some(0);
        let anew = middle.is_none() && !is_first;
        if let Some(why) = unfit.filter(|_| anew && !options.give_up_states) {
            // It has a state, and would begin anew unasked.
            return Err(failed(why));
        }
        if let Some((oldest, None)) = oldest
            && (is_first || anew && !is_doubted)
        {
            child.adopt_beginning(oldest);
        }
        Ok(())
    }

    /// Nothing in this tree has its path, or what has cannot read it, and a person has said that the tree is
    /// right: the request is for a person, too.
    fn check_request(&self, request: &Open) -> Result<(), RecoverError> {
        match self.inner.registry.durable_at(&request.child) {
            Some((_, codec)) => (codec.read_request)(request.request.as_bytes())
                .map(drop)
                .map_err(|why| refused(request, why)),
            None => Err(refused(request, "nothing durable has this path".to_owned())),
        }
    }

    /// Whether a step of another request that is open has asked for this, and joins it.
    fn is_nested(&self, request: &Open, journal: &Journal) -> bool {
        let is_open = |task: &str| journal.known(task) == Some(Journaled::Open);
        match AskKey::verified(&request.key, &request.child, request.request.as_bytes()) {
            Some(asked) => is_open(asked.task),
            None => self.inner.hub.effects.waits_for(&request.key, is_open),
        }
    }

    fn deliver_again(
        &self,
        journal: &Arc<Journal>,
        request: Open,
        before: Budgets,
    ) -> Result<(), RecoverError> {
        let Some((port, codec)) = self.inner.registry.durable_at(&request.child) else {
            return Err(refused(&request, "nothing durable has this path".to_owned()));
        };
        let now = Now::read(&*self.inner.hub.clock);
        // What its ladder cannot mend is then for the ladder of whoever asked.
        let nested = self.is_nested(&request, journal);
        let options = AcceptOptions::with(More {
            soft: nested.then(Soft::default),
            // One whose time is over gets its fate at once.
            deadline: request.deadline.map(|deadline| Wall(deadline).since(now.wall)),
            key: Some(Arc::clone(&request.key)),
            recovered: true,
            budget: request.budget,
            // The attempt that was under way goes on, and is no new one.
            before: Budgets { attempts: before.attempts.saturating_sub(1), ..before },
            trial: Some(self.on_trial(journal, &request)),
            back: request.back.clone(),
            round: request.round,
            // Also where fewer may wait now, or fewer than were waited for and at work together.
            has_place: true,
            ..More::default()
        });
        (codec.post)(&port, request.request.as_bytes(), options)
            .map(drop)
            .map_err(|why| refused(&request, why))
    }

    /// Effects without an outcome whose request nobody will work on again wait for a person; undos that
    /// were interrupted go on, and those that a transaction without an answer still owes are begun.
    fn settle_orphans(&self, journal: &Journal) -> Orphans {
        let effects = Arc::clone(&self.inner.hub.effects);
        let (mut waiting, mut undoing, mut owing) = (Vec::new(), Vec::new(), BTreeSet::new());
        // Not under the lock: a journal that is written anew takes both the other way round.
        let (entries, failed): (Vec<_>, _) = {
            let ledger = effects.ledger.lock();
            (ledger.entries().into_iter().cloned().collect(), ledger.owing().clone())
        };
        // Where the undoing has stopped, a person was called.
        let stopped: BTreeSet<_> =
            entries.iter().filter(|it| it.stops()).map(|entry| &entry.intent.task).collect();
        for entry in &entries {
            let task = &entry.intent.task;
            let known = journal.known(task);
            match entry.status {
                EffectStatus::Failed(_) | EffectStatus::Unknown
                    if !stopped.contains(task)
                        && self.owes_undo(entry, known.as_ref(), &failed) =>
                {
                    owing.insert(Arc::clone(task));
                }
                EffectStatus::Intended | EffectStatus::Confirmed(_)
                    if self.owes_undo(entry, known.as_ref(), &failed) =>
                {
                    owing.insert(Arc::clone(task));
                }
                EffectStatus::Intended | EffectStatus::Unknown
                    if known != Some(Journaled::Open) =>
                {
                    waiting.push(entry.intent.key);
                }
                EffectStatus::Compensating => undoing.push((entry.intent.key, entry.epoch)),
                _ => {}
            }
        }
        waiting.retain(|key| {
            let waits = effects.is_key_with_tool(*key);
            if !waits {
                effects.orphaned(*key);
            }
            waits
        });
        // From now on whoever asks for one of these anew, under the same key, acts once it is undone.
        let unwind = |task: &Arc<str>| -> (Arc<str>, Unwind) {
            (Arc::clone(task), Box::pin(effects.unwind(task, Written::No)))
        };
        // Nobody else waits for a tool that takes its time.
        let (late, owing): (Vec<_>, Vec<_>) =
            owing.iter().partition(|task| effects.is_task_with_tools(task));
        let [late, owing] = [late, owing].map(|tasks| tasks.into_iter().map(unwind).collect());
        let (halted, doubted) = self.halted(&entries, journal, &failed);
        Orphans { undoing, owing, late, waiting, halted, doubted }
    }

    /// Goes on with the undos that an earlier process has begun, or owes.
    fn undo_orphans(&self, orphans: Orphans) {
        let Orphans { undoing, owing, late, waiting, halted, doubted } = orphans;
        let (effects, runtime) = (&self.inner.hub.effects, &self.inner.hub.runtime);
        for (task, ends) in halted {
            effects.halts(&task, ends);
        }
        for task in doubted {
            effects.leave(&task);
        }
        for key in waiting {
            let effects = Arc::clone(effects);
            runtime.spawn(async move { effects.settle_orphan(key).await });
        }
        for (_, unwinds) in late {
            runtime.spawn(unwinds);
        }
        effects.undo_beside(undoing, owing, runtime);
    }

    /// Whether the process ended between a request's fate and the undo of what it had done. `failed`: those of which
    /// the ledger says so, as the journal knows nothing of them.
    fn owes_undo(
        &self,
        entry: &Entry,
        known: Option<&Journaled>,
        failed: &BTreeSet<Arc<str>>,
    ) -> bool {
        if entry.intent.undo.is_none() || entry.status.stands() {
            return false;
        }
        match known {
            // Whoever did it may be gone, as one is that was started for it.
            None => failed.contains(&entry.intent.task),
            Some(Journaled::Open) => false,
            Some(Journaled::Fated(fate, _)) => {
                !matches!(fate, Fate::Done | Fate::Unheard | Fate::Unknown | Fate::Suspended)
                    && self.is_in_transaction(&entry.intent.owner)
            }
        }
    }

    /// What the journal knows of a request to a durable child, by its idempotency key: `None` for a key
    /// it has never seen, or has forgotten. The last 65,536 fates are remembered.
    pub fn journaled(&self, key: &str) -> Option<Journaled> {
        self.inner.hub.journal.get()?.known(key)
    }

    /// How the answer was given that the journal has of a request to a durable child or group, by its
    /// idempotency key: `None` where it has none, and of one that a version before journals of version 10 wrote.
    /// Of a request without an answer, what it has cost, if that is anything.
    pub fn given(&self, key: &str) -> Option<Given> {
        self.inner.hub.journal.get()?.given_of(key)
    }

    /// The requests that were answered and whose work is in no state any more, by child and idempotency key:
    /// a state went back to before them, by hand, by a ladder or at the start of this process, and they could not
    /// be replayed ([`Event::Replayed`](crate::event::Event::Replayed)) or are not kept for that. The last 10,000
    /// of this process, the oldest first.
    pub fn lost_work(&self) -> Vec<(ChildPath, Arc<str>)> {
        self.inner.hub.journal.get().map_or_else(Vec::new, |journal| journal.lost())
    }
}

fn refused(request: &Open, why: String) -> RecoverError {
    RecoverError::Request { child: request.child.clone(), key: request.key.to_string(), why }
}

mod deadly;
mod halted;
mod made;
mod overtaken;

pub use made::LetGo;

#[cfg(test)]
mod tests;
