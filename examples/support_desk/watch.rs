//! What the event stream says: retries by class, fallbacks by group, what became of requests, and what
//! happened last. Rates and latencies are the runtime's own (`System::metrics`).

use std::collections::{BTreeMap, VecDeque};

use mainstay::decision::Action;
use mainstay::event::{Event, EventStream, Stamped};
use mainstay::fate::Fate;
use mainstay::fault::Class;
use mainstay::id::ChildPath;
use mainstay::moment::Moment;

/// Lines that are kept of what happened last.
const NEWS: usize = 5;

/// Counts, from events.
#[derive(Debug)]
pub(crate) struct Watch {
    events: EventStream,
    /// By the child or group that was called.
    pub(crate) homes: BTreeMap<String, Home>,
    /// By class; a request whose worker crashed counts under `crash`.
    pub(crate) retries: BTreeMap<&'static str, u64>,
    pub(crate) fallbacks: BTreeMap<String, u64>,
    /// Failed attempts by class.
    pub(crate) failures: BTreeMap<&'static str, u64>,
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
}

impl Watch {
    pub(crate) fn new(events: EventStream) -> Self {
        Self {
            events,
            homes: BTreeMap::new(),
            retries: BTreeMap::new(),
            fallbacks: BTreeMap::new(),
            failures: BTreeMap::new(),
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
            Event::Failed { ended, .. } => {
                let class = match ended {
                    mainstay::fate::Ended::Fault { class, .. } => class.name(),
                    mainstay::fate::Ended::Exit(_) => "crash",
                };
                *self.failures.entry(class).or_default() += 1;
            }
            Event::Decided { child, decision, to, class, .. } => {
                self.decided(at, child, decision.action, to.as_ref(), *class);
            }
            Event::Fated { child, fate, degraded, defaulted, .. } => {
                self.fated(child, *fate, (*degraded, *defaulted));
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
            Event::Raised { alert } => self.tell(at, format!("{}: {}", alert.severity, alert.rule)),
            _ => {}
        }
    }

    fn decided(
        &mut self,
        at: Moment,
        child: &ChildPath,
        action: Action,
        to: Option<&ChildPath>,
        class: Option<Class>,
    ) {
        let class = class.map_or("crash", Class::name);
        match (action, to) {
            (Action::Retry { delay, .. }, _) => {
                *self.retries.entry(class).or_default() += 1;
                let wait = delay.as_secs_f64();
                self.tell(at, format!("{}: {class}, again in {wait:.1}s", child.id()));
            }
            (Action::Substitute { .. }, Some(to)) => {
                let group = to.parent().unwrap_or_else(|| to.clone());
                *self.fallbacks.entry(group.to_string()).or_default() += 1;
                self.tell(at, format!("{}: {class}, {} takes over", child.id(), to.id()));
            }
            _ => {}
        }
    }

    fn fated(&mut self, child: &ChildPath, fate: Fate, (degraded, defaulted): (bool, bool)) {
        if matches!(fate, Fate::Stopped | Fate::Cancelled) {
            return;
        }
        let answered = matches!(fate, Fate::Done | Fate::Unheard);
        let home = self.homes.entry(child.to_string()).or_default();
        home.ended += 1;
        home.answered += u64::from(answered);
        home.degraded += u64::from(answered && degraded);
        home.defaulted += u64::from(answered && defaulted);
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
