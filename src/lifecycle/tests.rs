//! The lifecycle against a plain account of one child's lives, and stories.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

/// What is known of a child without its stages: which life there is, whether it lives, what was asked.
#[derive(Clone, Debug)]
struct Model {
    life: u32,
    void: u32,
    begun: u32,
    /// Whether the life is there, and whether it has come up.
    alive: Option<bool>,
    /// It was asked to stop, and whether another follows.
    stop: Option<bool>,
    /// What follows while there is no life: `None` before the first.
    after: After,
    last: Option<ExitKind>,
    said: Output,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    First,
    Another,
    ByHand,
    SetAside,
    Gone,
}

impl Model {
    fn stage(&self) -> Stage {
        match (self.after, self.alive, self.stop) {
            (After::Gone, ..) => Stage::Removed,
            (_, Some(_), Some(_)) => Stage::Stopping,
            (_, Some(true), None) => Stage::Up,
            (_, Some(false), None) => Stage::Starting,
            (After::First, None, _) => Stage::Dormant,
            (After::Another, None, _) => Stage::Down,
            (After::ByHand, None, _) => Stage::Stopped,
            (After::SetAside, None, _) => Stage::Quarantined,
        }
    }

    fn dies(&mut self, kind: ExitKind) {
        self.last = Some(kind);
        self.alive = None;
        let restart = self.stop.take().unwrap_or(true);
        self.after = if restart { After::Another } else { After::ByHand };
    }

    fn rests(&mut self, after: After) -> Output {
        self.after = after;
        Output::Changed
    }

    fn tell(&mut self, input: Input) -> Output {
        let (lives, current) = (self.alive.is_some(), Incarnation(self.life));
        if self.after == After::Gone {
            return Output::Ignored;
        }
        match input {
            Input::Remove => self.after = After::Gone,
            Input::Void(life) if life == current && self.stage() == Stage::Starting => {
                self.dies(ExitKind::Stopped);
            }
            Input::Void(life) => {
                self.void = self.void.max(life.0);
                return Output::Ignored;
            }
            Input::Begin(life) if !lives && life.0 > self.life.max(self.void) => {
                self.begun += 1;
                self.life = life.0;
                self.alive = Some(false);
            }
            Input::Began(life) if life == current && self.stage() == Stage::Starting => {
                self.alive = Some(true);
            }
            Input::Exited(life, kind) if lives && life == current => {
                let asked = self.stop.is_some();
                self.dies(kind);
                return if asked { Output::Changed } else { Output::Report(life, kind) };
            }
            Input::Stop { restart } if lives => {
                self.stop = Some(self.stop.unwrap_or(true) && restart);
            }
            Input::Stop { restart } => match self.after {
                After::ByHand | After::SetAside => return Output::Ignored,
                _ if restart => {}
                _ => self.after = After::ByHand,
            },
            Input::Ended if self.stop.is_some() => self.dies(ExitKind::Stopped),
            Input::Quarantine if !lives => return self.rests(After::SetAside),
            Input::AwaitRestart if !lives && matches!(self.after, After::First | After::ByHand) => {
                return self.rests(After::Another);
            }
            Input::GiveUp if !lives && matches!(self.after, After::First | After::Another) => {
                return self.rests(After::ByHand);
            }
            _ => return Output::Ignored,
        }
        Output::Changed
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Input;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self {
            life: 0,
            void: 0,
            begun: 0,
            alive: None,
            stop: None,
            after: After::First,
            last: None,
            said: Output::Ignored,
        })
        .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Input> {
        // The current life, one that is over, and the next two.
        let life = (state.life.saturating_sub(1)..state.life + 3).prop_map(Incarnation);
        let kind = prop_oneof![Just(ExitKind::Panic), Just(ExitKind::Killed), Just(ExitKind::Hang)];
        prop_oneof![
            8 => life.clone().prop_map(Input::Begin),
            8 => life.clone().prop_map(Input::Began),
            2 => life.clone().prop_map(Input::Void),
            6 => (life, kind).prop_map(|(life, kind)| Input::Exited(life, kind)),
            3 => any::<bool>().prop_map(|restart| Input::Stop { restart }),
            3 => Just(Input::Ended),
            1 => Just(Input::Quarantine),
            1 => Just(Input::AwaitRestart),
            1 => Just(Input::GiveUp),
            1 => prop::bool::weighted(0.1).prop_map(|gone| {
                if gone { Input::Remove } else { Input::Ended }
            }),
        ]
        .boxed()
    }

    fn apply(mut state: Self, input: &Input) -> Self {
        state.said = state.tell(*input);
        state
    }
}

struct Lifecycles;

impl StateMachineTest for Lifecycles {
    type SystemUnderTest = Lifecycle;
    type Reference = Model;

    fn init_test(_: &Model) -> Lifecycle {
        Lifecycle::default()
    }

    fn apply(mut child: Lifecycle, model: &Model, input: Input) -> Lifecycle {
        let before = child.incarnation();
        assert_eq!(child.on(input), model.said);
        // Lives only grow, and only by a beginning.
        assert!(child.incarnation() == before || matches!(input, Input::Begin(_)));
        assert!(child.incarnation() >= before);
        child
    }

    fn check_invariants(child: &Lifecycle, model: &Model) {
        assert_eq!(child.stage(), model.stage());
        assert_eq!(child.incarnation().0, model.life);
        // Whoever begins the next life asks for this number, so it has to count what was called off.
        assert_eq!(child.last_given().0, model.life.max(model.void));
        assert_eq!(child.restarts(), model.begun.saturating_sub(1));
        assert_eq!(child.last(), model.last);
        assert_eq!(child.is_up(), model.stage() == Stage::Up);
        let alive = model.alive.is_some() && model.after != After::Gone;
        let comes = match model.after {
            _ if alive => model.stop.unwrap_or(true),
            After::First | After::Another => true,
            After::ByHand | After::SetAside | After::Gone => false,
        };
        assert_eq!(child.will_serve(), comes);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_child_stands_where_the_account_of_its_lives_says(sequential 1..60 => Lifecycles);
}

const fn life(number: u32) -> Incarnation {
    Incarnation(number)
}

#[test]
fn a_start_that_was_called_off_does_not_begin_when_it_comes_late() {
    let mut child = Lifecycle::default();
    assert_eq!(child.on(Input::Void(life(1))), Output::Ignored);
    assert_eq!(child.on(Input::Begin(life(1))), Output::Ignored);
    assert_eq!(child.last_given(), life(1));
    assert_eq!(child.on(Input::Begin(life(2))), Output::Changed);
    assert_eq!((child.stage(), child.restarts()), (Stage::Starting, 0));
    assert_eq!(child.on(Input::Void(life(2))), Output::Changed);
    assert_eq!(child.on(Input::Began(life(2))), Output::Ignored);
    assert_eq!(child.stage(), Stage::Down);
}

#[test]
fn a_life_that_was_begun_by_hand_is_not_set_aside_for_the_last_one() {
    let mut child = Lifecycle::default();
    child.on(Input::Begin(life(1)));
    child.on(Input::Exited(life(1), ExitKind::Panic));
    child.on(Input::Begin(life(2)));
    assert_eq!(child.on(Input::Quarantine), Output::Ignored);
    assert_eq!(child.on(Input::Began(life(2))), Output::Changed);
    assert!(child.is_up());
}

#[test]
fn a_lazy_child_rests_as_if_it_had_never_lived_and_may_be_between_lives_after_that() {
    let mut child = Lifecycle::default();
    child.on(Input::Begin(life(1)));
    assert!(!child.is_between_lives());
    child.on(Input::Exited(life(1), ExitKind::Panic));
    assert!(child.is_between_lives());
    child.rest_dormant();
    assert_eq!((child.stage(), child.is_between_lives()), (Stage::Dormant, false));
    child.on(Input::Begin(life(2)));
    assert!(child.is_between_lives());
}
