//! Who is fit to serve: a [`Circuit`] for each member, a [`Domain`] for each set of limits they share.
//!
//! A circuit says whether a member is offered work. It counts *logical requests*: one input for each
//! request that ended there, whatever number of attempts it took, so that no request opens a circuit
//! on itself, and it gates admission, not retries already granted. A quota domain says when work may
//! be sent at all to what shares an account, a key or a model family.
//!
//! *Invariant.* Both are machines of values: time is handed in, nothing is scheduled, and neither
//! knows a child. What is closed until a moment never opens earlier than the latest moment asked for.
//!
//! | State | Admits | Leaves it |
//! |---|---|---|
//! | closed | everybody | opens at 3 failures in a row, or at 50 % of at least 5 requests in 30 s |
//! | open | nobody; as the last resort of a group one at a time, which changes nothing | half-open when its time is over |
//! | half-open | a few probes | closes at 2 successes; opens at one failure, for twice as long |
//! | isolated | nobody | by hand only |

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;
use crate::fault::Class;
use crate::id::RequestId;
use crate::moment::Moment;

mod domain;
mod window;

#[cfg(test)]
mod tests;

pub use self::domain::{Domain, DomainSpec, Permit, Slot};
use self::window::Window;

/// When a circuit opens and closes.
///
/// # Default
///
/// A window of 30 s, at least 5 requests, 50 %, 3 in a row; open for 5 s, doubling to 60 s; 2
/// successful probes to close, 1 at a time, each given up after 60 s; 30 s of hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CircuitSpec {
    /// How far back requests count. They are counted in ten slices of it, so the oldest tenth leaves
    /// at once.
    pub window: Duration,
    /// The fewest requests in the window of which a share is taken.
    pub min_requests: u32,
    /// The share of failures that opens the circuit, in percent.
    pub failure_percent: u8,
    /// So many failures in a row open it however few requests there were. A run is over when nothing
    /// was counted for a whole window.
    pub consecutive: u32,
    /// How long it stays open the first time.
    pub open: Duration,
    /// The longest it stays open.
    pub open_max: Duration,
    /// So many successful probes close it.
    pub probe_successes: u32,
    /// So many probes may be out at a time.
    pub max_probes: u32,
    /// A probe that has not come back by then is given up: its permit is free, and what it brings
    /// later is ignored.
    pub probe_timeout: Duration,
    /// For so long after it closed, opening again is a relapse: the open time doubles as after a
    /// failed probe. Later it starts from [`CircuitSpec::open`] again.
    pub hold: Duration,
}

impl Default for CircuitSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl CircuitSpec {
    /// The default.
    pub const fn new() -> Self {
        Self {
            window: Duration::from_secs(30),
            min_requests: 5,
            failure_percent: 50,
            consecutive: 3,
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            probe_successes: 2,
            max_probes: 1,
            probe_timeout: Duration::from_secs(60),
            hold: Duration::from_secs(30),
        }
    }

    /// The same spec with this window and least number of requests.
    #[must_use]
    pub const fn with_window(mut self, window: Duration, min_requests: u32) -> Self {
        self.window = window;
        self.min_requests = min_requests;
        self
    }

    /// The same spec, opening at this share of failures or this many in a row.
    #[must_use]
    pub const fn with_threshold(mut self, failure_percent: u8, consecutive: u32) -> Self {
        self.failure_percent = failure_percent;
        self.consecutive = consecutive;
        self
    }

    /// The same spec, open at first for `open` and never longer than `max`.
    #[must_use]
    pub const fn with_open(mut self, open: Duration, max: Duration) -> Self {
        self.open = open;
        self.open_max = max;
        self
    }

    /// The same spec, closing after so many successful probes, so many at a time.
    #[must_use]
    pub const fn with_probes(mut self, successes: u32, at_a_time: u32) -> Self {
        self.probe_successes = successes;
        self.max_probes = at_a_time;
        self
    }

    /// The same spec, giving a probe up after this time.
    #[must_use]
    pub const fn with_probe_timeout(mut self, timeout: Duration) -> Self {
        self.probe_timeout = timeout;
        self
    }

    /// The same spec with this hold time.
    #[must_use]
    pub const fn with_hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// Whether a circuit can run by this. `path` names the member in the error.
    ///
    /// # Errors
    ///
    /// The first value that cannot be.
    pub fn validate(&self, path: &str) -> Result<(), SpecError> {
        let path = || path.to_owned();
        let zeros = [
            ("the circuit's window", self.window.is_zero()),
            ("the circuit's least number of requests", self.min_requests == 0),
            ("the circuit's failures in a row", self.consecutive == 0),
            ("the circuit's open time", self.open.is_zero()),
            ("the circuit's probe successes", self.probe_successes == 0),
            ("the circuit's probes at a time", self.max_probes == 0),
            ("the circuit's probe timeout", self.probe_timeout.is_zero()),
        ];
        if let Some((what, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
            return Err(SpecError::Zero { path: path(), what });
        }
        if !(1..=100).contains(&self.failure_percent) {
            return Err(SpecError::OutOfRange {
                path: path(),
                what: "the circuit's failure share",
                value: format!("{} %", self.failure_percent),
                expected: "from 1 to 100 %".to_owned(),
            });
        }
        if self.open > self.open_max {
            return Err(SpecError::OutOfRange {
                path: path(),
                what: "the circuit's open time",
                value: format!("{:?}", self.open),
                expected: format!("at most {:?}, its longest", self.open_max),
            });
        }
        Ok(())
    }
}

/// What a circuit is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input {
    /// This request is sent as a probe. Only after [`Admission::Probe`]; otherwise nothing happens.
    Probe(RequestId),
    /// This logical request ended here.
    Ended {
        /// The request.
        request: RequestId,
        /// How.
        verdict: Verdict,
    },
    /// The member is known to be out until then, from outside: the circuit opens, or stays open.
    Rest(Moment),
    /// Taken out by hand.
    Isolate,
    /// Put back by hand: closed, with nothing remembered.
    Release,
}

/// What the end of a logical request says about the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered.
    Success,
    /// It failed for good there, the last time with this class. Some classes say nothing:
    /// [`Class::tells_of_health`].
    Fault(Class),
    /// It ended the life of the member.
    Crash,
}

impl Verdict {
    /// Whether this is a failure of the member; `None` when it says nothing about it.
    const fn is_failure(self) -> Option<bool> {
        match self {
            Self::Success => Some(false),
            Self::Fault(class) if !class.tells_of_health() => None,
            Self::Fault(_) | Self::Crash => Some(true),
        }
    }
}

/// The state of a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Offered work.
    #[default]
    Closed,
    /// Not offered work.
    Open {
        /// Until then.
        until: Moment,
    },
    /// Offered a probe at a time.
    HalfOpen,
    /// Taken out by hand.
    Isolated,
}

/// Whether a member may be sent a new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Yes,
    /// As a probe: say so with [`Input::Probe`].
    Probe,
    /// It may not.
    No {
        /// When asking again makes sense.
        until: Moment,
    },
}

/// A change of state, for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
}

/// Whether one member is offered work. Two words while nothing has ended there.
#[derive(Clone, Debug)]
pub struct Circuit {
    spec: Arc<CircuitSpec>,
    inner: Option<Box<Inner>>,
}

#[derive(Clone, Debug)]
struct Inner {
    state: State,
    window: Window,
    /// Failures since the last success.
    run: u32,
    /// When something was last counted.
    counted_at: Moment,
    /// How long it was open the last time; zero before the first.
    last_open: Duration,
    /// A relapse before this moment doubles the open time.
    hold_until: Moment,
    /// Probes out, with the moment each is given up.
    probes: Vec<(RequestId, Moment)>,
    /// Probes that came back well since it was half-opened.
    successes: u32,
}

impl Circuit {
    /// A closed circuit.
    pub const fn new(spec: Arc<CircuitSpec>) -> Self {
        Self { spec, inner: None }
    }

    /// Its state. An open circuit whose time is over is half-open.
    pub fn state(&self, now: Moment) -> State {
        match self.inner.as_ref().map(|inner| inner.state) {
            None => State::Closed,
            Some(State::Open { until }) if until <= now => State::HalfOpen,
            Some(state) => state,
        }
    }

    /// Probes that are out.
    pub fn probes(&self, now: Moment) -> usize {
        let probes = self.inner.as_ref().map_or(&[][..], |inner| &inner.probes);
        probes.iter().filter(|(_, until)| *until > now).count()
    }

    /// Whether a request may be sent although the circuit is open, since nobody else is left and the time
    /// is not over before its deadline: one at a time. It takes its permit with [`Input::Probe`], and what
    /// it brings says nothing while the circuit is open.
    pub fn admits_last_resort(&self, now: Moment) -> bool {
        matches!(self.state(now), State::Open { .. }) && self.probes(now) == 0
    }

    /// Whether a new request may be sent now. Changes nothing: a probe takes its permit with
    /// [`Input::Probe`].
    pub fn admits(&self, now: Moment) -> Admission {
        match self.state(now) {
            State::Closed => Admission::Yes,
            State::Open { until } => Admission::No { until },
            State::Isolated => Admission::No { until: Moment::NEVER },
            State::HalfOpen => {
                let probes = self.inner.as_ref().map_or(&[][..], |inner| &inner.probes);
                let out = probes.iter().map(|(_, until)| *until).filter(|until| *until > now);
                if out.clone().count() < self.spec.max_probes as usize {
                    Admission::Probe
                } else {
                    Admission::No { until: out.min().unwrap_or(Moment::NEVER) }
                }
            }
        }
    }

    /// Takes an input. The transition is `Some` when the state changed; that an open circuit's time is
    /// over is reported with the first input after it.
    pub fn on(&mut self, input: Input, now: Moment) -> Option<Transition> {
        let spec = *self.spec;
        let inner = self.inner.get_or_insert_with(|| Box::new(Inner::new(&spec)));
        let from = inner.state;
        inner.on(input, &spec, now);
        (inner.state != from).then_some(Transition { from, to: inner.state })
    }
}

impl Inner {
    const fn new(spec: &CircuitSpec) -> Self {
        Self {
            state: State::Closed,
            window: Window::new(spec.window),
            run: 0,
            counted_at: Moment::START,
            last_open: Duration::ZERO,
            hold_until: Moment::START,
            probes: Vec::new(),
            successes: 0,
        }
    }

    fn on(&mut self, input: Input, spec: &CircuitSpec, now: Moment) {
        self.probes.retain(|(_, until)| *until > now);
        if let State::Open { until } = self.state
            && until <= now
        {
            self.state = State::HalfOpen;
            self.successes = 0;
        }
        match (input, self.state) {
            (Input::Release, State::Isolated | State::Open { .. } | State::HalfOpen) => {
                *self = Self::new(spec);
            }
            (Input::Isolate, _) => {
                self.state = State::Isolated;
                self.probes.clear();
            }
            (Input::Rest(until), State::Closed | State::HalfOpen) if until > now => {
                self.rest(until);
            }
            (Input::Rest(until), State::Open { until: old }) if until > old => self.rest(until),
            (Input::Probe(request), State::HalfOpen)
                if self.probes.len() < spec.max_probes as usize =>
            {
                self.probes.push((request, now + spec.probe_timeout));
            }
            (Input::Probe(request), State::Open { .. }) if self.probes.is_empty() => {
                self.probes.push((request, now + spec.probe_timeout));
            }
            (Input::Ended { request, .. }, State::Open { .. }) => {
                self.probes.retain(|(id, _)| *id != request);
            }
            (Input::Ended { verdict, .. }, State::Closed) => {
                if let Some(failed) = verdict.is_failure() {
                    self.count(failed, spec, now);
                }
            }
            (Input::Ended { request, verdict }, State::HalfOpen) => {
                // Whoever is no probe was admitted before the circuit opened, and says nothing about
                // the member now.
                let Some(at) = self.probes.iter().position(|(id, _)| *id == request) else {
                    return;
                };
                self.probes.swap_remove(at);
                match verdict.is_failure() {
                    Some(true) => self.open(true, spec, now),
                    Some(false) => {
                        self.successes += 1;
                        if self.successes >= spec.probe_successes {
                            self.close(spec, now);
                        }
                    }
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, failed: bool, spec: &CircuitSpec, now: Moment) {
        if now.since(self.counted_at) >= spec.window {
            self.run = 0;
        }
        self.counted_at = now;
        self.window.count(failed, now);
        if !failed {
            self.run = 0;
            return;
        }
        self.run = self.run.saturating_add(1);
        let (total, failures) = self.window.totals(now);
        let share = failures * 100 >= total * u64::from(spec.failure_percent);
        if self.run >= spec.consecutive || (total >= u64::from(spec.min_requests) && share) {
            self.open(now < self.hold_until, spec, now);
        }
    }

    /// Opens: for twice the last time after a failed probe or a relapse, else for the first time.
    fn open(&mut self, again: bool, spec: &CircuitSpec, now: Moment) {
        let time = if again { self.last_open.saturating_mul(2) } else { Duration::ZERO };
        self.last_open = time.clamp(spec.open, spec.open_max.max(spec.open));
        self.rest(now + self.last_open);
    }

    fn rest(&mut self, until: Moment) {
        self.state = State::Open { until };
        self.probes.clear();
        self.successes = 0;
    }

    fn close(&mut self, spec: &CircuitSpec, now: Moment) {
        self.state = State::Closed;
        self.window = Window::new(spec.window);
        self.run = 0;
        self.probes.clear();
        self.hold_until = now + spec.hold;
    }
}
