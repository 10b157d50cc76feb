//! Both machines against models small enough to be believed.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

/// The circuit written down plainly: a log of everything, searched each time.
#[derive(Clone, Debug)]
struct Model {
    spec: CircuitSpec,
    now: u64,
    state: State,
    log: Vec<(u64, bool)>,
    run: u32,
    last_open: u64,
    hold_until: u64,
    probes: Vec<(u64, u64)>,
    successes: u32,
}

#[derive(Clone, Debug)]
enum Move {
    Wait(u64),
    Tell(Input),
}

impl Model {
    /// What is seen from outside: an open circuit whose time is over is half-open.
    fn seen(&self) -> State {
        match self.state {
            State::Open { until } if until <= at(self.now) => State::HalfOpen,
            state => state,
        }
    }

    fn millis(duration: Duration) -> u64 {
        duration.as_millis() as u64
    }

    fn open(&mut self, again: bool) {
        let first = Self::millis(self.spec.open);
        let twice = (self.last_open * 2).clamp(first, Self::millis(self.spec.open_max));
        self.last_open = if again { twice } else { first };
        self.state = State::Open { until: at(self.now + self.last_open) };
        self.probes.clear();
    }

    fn tell(&mut self, input: Input) {
        let now = self.now;
        if self.state != State::HalfOpen && self.seen() == State::HalfOpen {
            self.state = State::HalfOpen;
            self.successes = 0;
        }
        self.probes.retain(|(_, until)| *until > now);
        match input {
            Input::Isolate => {
                self.state = State::Isolated;
                self.probes.clear();
            }
            Input::Release if self.state != State::Closed => {
                *self = Self { now, ..Self::fresh(self.spec) };
            }
            Input::Rest(until)
                if self.state != State::Isolated
                    && until > at(now)
                    && !matches!(self.state, State::Open { until: old } if old >= until) =>
            {
                self.state = State::Open { until };
                self.probes.clear();
            }
            Input::Probe(id)
                if self.state == State::HalfOpen
                    && self.probes.len() < self.spec.max_probes as usize =>
            {
                self.probes.push((id.0, now + Self::millis(self.spec.probe_timeout)));
            }
            Input::Probe(id)
                if matches!(self.state, State::Open { .. }) && self.probes.is_empty() =>
            {
                self.probes.push((id.0, now + Self::millis(self.spec.probe_timeout)));
            }
            Input::Ended { request, verdict } => self.ended(request.0, verdict),
            _ => {}
        }
    }

    fn ended(&mut self, request: u64, verdict: Verdict) {
        let probe = self.probes.iter().position(|(id, _)| *id == request);
        if let Some(probe) = probe {
            self.probes.remove(probe);
        }
        let bad = match verdict {
            Verdict::Success => false,
            Verdict::Fault(class) if !class.tells_of_health() => return,
            _ => true,
        };
        match self.state {
            State::HalfOpen if probe.is_some() => {
                if bad {
                    self.open(true);
                } else {
                    self.successes += 1;
                    if self.successes == self.spec.probe_successes {
                        let hold_until = self.now + Self::millis(self.spec.hold);
                        let (now, last_open) = (self.now, self.last_open);
                        *self = Self { now, last_open, hold_until, ..Self::fresh(self.spec) };
                    }
                }
            }
            State::Closed => {
                let window = Self::millis(self.spec.window);
                let silent = self.log.last().is_none_or(|(last, _)| self.now - last >= window);
                self.run = if bad { if silent { 1 } else { self.run + 1 } } else { 0 };
                self.log.push((self.now, bad));
                // Ten slices: what happened in the last ten of them counts.
                let slice = |time: u64| time / (window / 10);
                let recent = |time: u64| slice(time) + 10 > slice(self.now);
                let inside: Vec<_> = self.log.iter().filter(|(time, _)| recent(*time)).collect();
                let failures = inside.iter().filter(|(_, bad)| *bad).count();
                let many = inside.len() >= self.spec.min_requests as usize;
                let share = failures * 100 >= inside.len() * self.spec.failure_percent as usize;
                if bad && (self.run >= self.spec.consecutive || (many && share)) {
                    self.open(self.now < self.hold_until);
                }
            }
            _ => {}
        }
    }

    fn fresh(spec: CircuitSpec) -> Self {
        Self {
            spec,
            now: 0,
            state: State::Closed,
            log: Vec::new(),
            run: 0,
            last_open: 0,
            hold_until: 0,
            probes: Vec::new(),
            successes: 0,
        }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Self> {
        (1u32..4, 1u32..3, 1u32..7, 30u8..80)
            .prop_map(|(successes, probes, least, percent)| {
                Self::fresh(
                    CircuitSpec::default()
                        .with_probes(successes, probes)
                        .with_window(ms(10_000), least)
                        .with_threshold(percent, 4),
                )
            })
            .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Move> {
        let now = state.now;
        let verdict = prop_oneof![
            3 => Just(Verdict::Success),
            3 => Just(Verdict::Fault(Class::Network)),
            1 => Just(Verdict::Fault(Class::InputValidation)),
            1 => Just(Verdict::Crash),
        ];
        prop_oneof![
            3 => prop_oneof![0u64..500, 500u64..12_000, 12_000u64..70_000].prop_map(Move::Wait),
            8 => (0u64..4, verdict).prop_map(|(id, verdict)| Move::Tell(ended(id, verdict))),
            5 => (0u64..4).prop_map(|id| Move::Tell(Input::Probe(RequestId(id)))),
            1 => (0u64..20_000).prop_map(move |rest| Move::Tell(Input::Rest(at(now + rest)))),
            1 => Just(Move::Tell(Input::Isolate)),
            2 => Just(Move::Tell(Input::Release)),
        ]
        .boxed()
    }

    fn apply(mut state: Self, transition: &Move) -> Self {
        match transition {
            Move::Wait(time) => state.now += time,
            Move::Tell(input) => state.tell(*input),
        }
        state
    }

    /// A request is out once: nobody sends one as a probe while it is one.
    fn preconditions(state: &Self, transition: &Move) -> bool {
        match transition {
            Move::Tell(Input::Probe(id)) => state.probes.iter().all(|(out, _)| *out != id.0),
            _ => true,
        }
    }
}

struct Circuits;

impl StateMachineTest for Circuits {
    type SystemUnderTest = Circuit;
    type Reference = Model;

    fn init_test(model: &Model) -> Circuit {
        Circuit::new(Arc::new(model.spec))
    }

    fn apply(mut circuit: Circuit, model: &Model, transition: Move) -> Circuit {
        let now = at(model.now);
        if let Move::Tell(input) = transition {
            let before = circuit.state(now);
            circuit.on(input, now);
            // Until the promised moment, only a hand opens or isolates it.
            if let State::Open { until } = before {
                match circuit.state(now) {
                    State::Open { until: later } => assert!(later >= until),
                    _ => assert!(matches!(input, Input::Isolate | Input::Release)),
                }
            }
        }
        circuit
    }

    fn check_invariants(circuit: &Circuit, model: &Model) {
        let now = at(model.now);
        assert_eq!(circuit.state(now), model.seen());
        let out: Vec<_> =
            model.probes.iter().map(|(_, until)| at(*until)).filter(|until| *until > now).collect();
        let expected = match model.seen() {
            State::Closed => Admission::Yes,
            State::Open { until } => Admission::No { until },
            State::Isolated => Admission::No { until: Moment::NEVER },
            State::HalfOpen if out.len() < model.spec.max_probes as usize => Admission::Probe,
            State::HalfOpen => Admission::No { until: *out.iter().min().unwrap() },
        };
        assert_eq!(circuit.admits(now), expected);
    }
}

/// The domain written down plainly: the latest moment anybody asked for.
#[derive(Clone, Debug)]
struct Book {
    now: u64,
    open_at: u64,
}

#[derive(Clone, Debug)]
enum Ask {
    Wait(u64),
    Limited(Option<u64>),
    Permit,
}

impl ReferenceStateMachine for Book {
    type State = Self;
    type Transition = Ask;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { now: 1, open_at: 0 }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Ask> {
        prop_oneof![
            3 => (0u64..3000).prop_map(Ask::Wait),
            1 => prop::option::of(0u64..400_000).prop_map(Ask::Limited),
            8 => Just(Ask::Permit),
        ]
        .boxed()
    }

    fn apply(mut state: Self, transition: &Ask) -> Self {
        match transition {
            Ask::Wait(time) => state.now += time,
            Ask::Limited(wait) => {
                let until = state.now + wait.unwrap_or(0).clamp(2000, 300_000);
                state.open_at = state.open_at.max(until);
            }
            Ask::Permit => {}
        }
        state
    }
}

struct Domains;

impl StateMachineTest for Domains {
    /// The domain and the moments it gave since it was last closed.
    type SystemUnderTest = (Domain, Vec<Moment>);
    type Reference = Book;

    fn init_test(_: &Book) -> Self::SystemUnderTest {
        (Domain::default(), Vec::new())
    }

    fn apply(
        (mut domain, mut given): Self::SystemUnderTest,
        book: &Book,
        transition: Ask,
    ) -> Self::SystemUnderTest {
        let now = at(book.now);
        match transition {
            Ask::Wait(_) => {}
            Ask::Limited(wait) => {
                let before = domain.open_at();
                domain.rate_limited(wait.map(ms), now);
                if domain.open_at() > before {
                    given.clear();
                }
            }
            Ask::Permit => {
                let slot = match domain.permit(now) {
                    Permit::Now => now,
                    Permit::At(slot) => {
                        assert!(slot.at > now);
                        slot.at
                    }
                };
                // Never while closed, and never before anybody who asked earlier.
                assert!(slot >= at(book.open_at));
                assert!(given.last().is_none_or(|last| *last <= slot));
                // While the ramp lasts, spaced by the rate of the last one's second. The very first is
                // the only one who is spaced from nobody.
                let ramp = book.open_at > 0 && slot < at(book.open_at + 5000);
                if let Some(last) = given.last().filter(|last| ramp && **last >= at(book.open_at)) {
                    let second = last.since(at(book.open_at)).as_secs();
                    let rate = 10 << second;
                    assert!(slot.since(*last) >= Duration::from_nanos(1_000_000_000 / rate));
                }
                // Nobody waits for nothing.
                if book.open_at == 0 {
                    assert_eq!(slot, now);
                }
                given.push(slot);
            }
        }
        assert_eq!(domain.open_at(), at(book.open_at));
        (domain, given)
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_circuit_behaves_like_a_plain_log_of_what_ended(sequential 1..80 => Circuits);

    #[test]
    fn a_domain_lets_nobody_in_early_and_nobody_in_at_once(sequential 1..80 => Domains);
}
