//! What the event stream says: retries by class, fallbacks by group, who recovered from what and how
//! fast. Rates have the denominators of the playbook: recovered by those that entered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use mainstay::decision::Action;
use mainstay::event::{Event, EventStream, Stamped};
use mainstay::fate::Fate;
use mainstay::fault::Class;
use mainstay::id::{ChildPath, RequestId};
use mainstay::moment::Moment;

/// Lines that are kept of what happened last.
const NEWS: usize = 5;

/// Counts, from events.
#[derive(Debug)]
pub(crate) struct Watch {
    events: EventStream,
    open: HashMap<RequestId, Trouble>,
    /// By the child or group that was called.
    pub(crate) homes: BTreeMap<String, Home>,
    /// By class; a request whose worker crashed counts under `crash`.
    pub(crate) retries: BTreeMap<&'static str, u64>,
    pub(crate) fallbacks: BTreeMap<String, u64>,
    /// Failed attempts by class.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    pub(crate) entered_retry: u64,
    /// From the first failure to the answer, of those that only a retry recovered.
    pub(crate) recovered_by_retry: Vec<Duration>,
    pub(crate) entered_fallback: u64,
    /// From the decision to the answer; default values are not counted.
    pub(crate) recovered_by_fallback: Vec<Duration>,
    pub(crate) restarts: u64,
    pub(crate) alerts: u64,
    /// What happened last, newest last.
    pub(crate) news: VecDeque<String>,
}

/// What became of the requests to one child or group. Those that an operator's stop ended are left out:
/// nobody failed them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Home {
    pub(crate) ended: u64,
    pub(crate) answered: u64,
    pub(crate) degraded: u64,
    pub(crate) defaulted: u64,
    /// That went to a substitute after a failure, and those of them it answered.
    pub(crate) handed_on: u64,
    pub(crate) handed_on_answered: u64,
}

/// A request that has failed at least once.
#[derive(Debug)]
struct Trouble {
    first: Moment,
    retries: u64,
    handed_on: Option<Moment>,
}

impl Watch {
    pub(crate) fn new(events: EventStream) -> Self {
        Self {
            events,
            open: HashMap::new(),
            homes: BTreeMap::new(),
            retries: BTreeMap::new(),
            fallbacks: BTreeMap::new(),
            failures: BTreeMap::new(),
            entered_retry: 0,
            recovered_by_retry: Vec::new(),
            entered_fallback: 0,
            recovered_by_fallback: Vec::new(),
            restarts: 0,
            alerts: 0,
            news: VecDeque::new(),
        }
    }

    /// Reads what has come since the last time.
    pub(crate) fn catch_up(&mut self) {
        while let Some(stamped) = self.events.try_next() {
            self.on(&stamped);
        }
    }

    /// Events that came faster than they were read: then the counts here are too low.
    pub(crate) fn missed(&self) -> u64 {
        self.events.lagged()
    }

    /// Retries and fallbacks in all.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.retries.values().sum(), self.fallbacks.values().sum())
    }

    pub(crate) fn home(&self, path: &str) -> Home {
        self.homes.get(path).copied().unwrap_or_default()
    }

    fn on(&mut self, stamped: &Stamped) {
        let at = stamped.at;
        match &stamped.event {
            Event::Failed { request, ended, .. } => {
                let class = match ended {
                    mainstay::fate::Ended::Fault { class, .. } => class.name(),
                    mainstay::fate::Ended::Exit(_) => "crash",
                };
                *self.failures.entry(class).or_default() += 1;
                let new = Trouble { first: at, retries: 0, handed_on: None };
                self.open.entry(*request).or_insert(new);
            }
            Event::Decided { child, request, decision, to, class } => {
                self.decided(at, child, *request, decision.action, to.as_ref(), *class);
            }
            Event::Fated { child, request, fate, degraded, defaulted, .. } => {
                self.fated(at, child, *request, *fate, (*degraded, *defaulted));
            }
            Event::Restarting { supervisor, child, cause, scope, .. } => {
                self.restarts += *scope as u64;
                self.tell(at, format!("{supervisor} restarts {} ({cause})", child.id()));
            }
            Event::Circuit { child, state } => {
                self.tell(at, format!("the circuit of {} is {state}", child.id()));
            }
            Event::DomainClosed { domain, until } => {
                let left = until.left(at).as_secs_f64();
                self.tell(at, format!("{} rests for {left:.1}s", last(domain)));
            }
            Event::Alert { child, ended, .. } => {
                self.alerts += 1;
                self.tell(at, format!("alert: {} gave a request up ({ended})", child.id()));
            }
            _ => {}
        }
    }

    fn decided(
        &mut self,
        at: Moment,
        child: &ChildPath,
        request: RequestId,
        action: Action,
        to: Option<&ChildPath>,
        class: Option<Class>,
    ) {
        let class = class.map_or("crash", Class::name);
        let Some(trouble) = self.open.get_mut(&request) else { return };
        match (action, to) {
            (Action::Retry { delay, .. }, _) => {
                trouble.retries += 1;
                *self.retries.entry(class).or_default() += 1;
                let wait = delay.as_secs_f64();
                self.tell(at, format!("{}: {class}, again in {wait:.1}s", child.id()));
            }
            (Action::Substitute { .. }, Some(to)) => {
                trouble.handed_on.get_or_insert(at);
                let group = to.parent().unwrap_or_else(|| to.clone());
                *self.fallbacks.entry(group.to_string()).or_default() += 1;
                self.tell(at, format!("{}: {class}, {} takes over", child.id(), to.id()));
            }
            _ => {}
        }
    }

    fn fated(
        &mut self,
        at: Moment,
        child: &ChildPath,
        request: RequestId,
        fate: Fate,
        (degraded, defaulted): (bool, bool),
    ) {
        let trouble = self.open.remove(&request);
        if matches!(fate, Fate::Stopped | Fate::Cancelled) {
            return;
        }
        let answered = matches!(fate, Fate::Done | Fate::Unheard);
        let home = self.homes.entry(child.to_string()).or_default();
        home.ended += 1;
        home.answered += u64::from(answered);
        home.degraded += u64::from(answered && degraded);
        home.defaulted += u64::from(answered && defaulted);
        let Some(trouble) = trouble else { return };
        if trouble.retries > 0 {
            self.entered_retry += 1;
            if answered && trouble.handed_on.is_none() {
                self.recovered_by_retry.push(at.since(trouble.first));
            }
        }
        if let Some(decided) = trouble.handed_on {
            home.handed_on += 1;
            self.entered_fallback += 1;
            if answered && !defaulted {
                home.handed_on_answered += 1;
                self.recovered_by_fallback.push(at.since(decided));
            }
        }
    }

    fn tell(&mut self, at: Moment, what: String) {
        if self.news.len() == NEWS {
            self.news.pop_front();
        }
        self.news.push_back(format!("{:6.1}s  {what}", at.since_start().as_secs_f64()));
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
