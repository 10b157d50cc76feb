//! The retry budget, the amplification, and the purse.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;
use crate::fate::Cost;
use crate::policy::budget::{Amplification, Denied, Limits, Purse, Resource, RetryBudget, Spent};

const fn cost(tokens: u64, money_micros: u64) -> Cost {
    Cost { tokens, money_micros }
}

#[test]
fn the_retry_budget_has_the_numbers_of_the_aws_sdks() {
    let mut budget = RetryBudget::default();
    assert_eq!((budget.tokens(), budget.capacity()), (500, 500));
    let cost = |class| RetryBudget::cost(&Cause::Fault(&Fault::new(class, "")));
    assert_eq!(cost(Class::Timeout), 14);
    assert_eq!(cost(Class::ServerTransient), 14);
    assert_eq!(cost(Class::RateLimit), 5);
    // A redelivery after a crash is one for each request, and a burst of them must lose nothing.
    assert_eq!(RetryBudget::cost(&Cause::Exit(&ExitCause::Hang)), 0);
    let granted = (0..).take_while(|_| budget.withdraw(14)).count();
    assert_eq!((granted, budget.tokens()), (35, 10));
    assert!(budget.withdraw(5));
    budget.deposit();
    assert_eq!(budget.tokens(), 6);
    // A retry that has helped has cost nothing.
    budget.repay(14);
    assert_eq!(budget.tokens(), 20);
    budget.repay(0);
    assert_eq!(budget.tokens(), 21);
    budget.repay(500);
    assert_eq!(budget.tokens(), 500);
}

#[test]
fn amplification_is_above_its_cap_only_strictly() {
    let mut amplification = Amplification::default();
    assert_eq!(amplification.ratio(), None);
    for _ in 0..2 {
        amplification.request();
    }
    for _ in 0..3 {
        amplification.attempt();
    }
    assert_eq!(amplification.ratio(), Some(1.5));
    assert!(!amplification.is_above_cap());
    amplification.attempt();
    assert!(amplification.is_above_cap());
}

#[test]
fn a_purse_reserves_before_and_settles_after() {
    let limits = Limits { attempts: Some(3), tokens: Some(100), ..Limits::default() };
    let purse = Purse::new(limits);
    let first = purse.reserve(cost(60, 0), NOW).unwrap();
    let denied = purse.reserve(cost(41, 0), NOW).unwrap_err();
    assert_eq!(denied, Denied { what: Resource::Tokens, asked: 41, left: 40 });
    assert_eq!(denied.to_string(), "budget denied: 41 tokens asked for, 40 left");
    assert!(purse.covers(cost(40, 0), NOW));
    first.settle(cost(10, 7));
    assert_eq!(purse.spent(), Spent { attempts: 1, cost: cost(10, 7) });
    purse.reserve(cost(90, 0), NOW).unwrap().release();
    assert_eq!(purse.spent().attempts, 1);
    drop(purse.reserve(cost(20, 0), NOW).unwrap());
    assert_eq!(purse.spent(), Spent { attempts: 2, cost: cost(30, 7) });
    purse.reserve(cost(0, 0), NOW).unwrap().settle(cost(500, 0));
    let denied = purse.reserve(cost(0, 0), NOW).unwrap_err();
    assert_eq!(denied, Denied { what: Resource::Attempts, asked: 1, left: 0 });
    assert_eq!(Fault::from(denied).class, Class::BudgetDenied);
}

#[test]
fn a_child_purse_is_never_wider_than_its_parent_and_charges_it() {
    let parent = Purse::new(Limits {
        money_micros: Some(100),
        deadline: NOW + ms(1000),
        ..Limits::default()
    });
    let child = parent.child(Limits { money_micros: Some(1000), ..Limits::default() });
    assert_eq!(child.limits().deadline, NOW + ms(1000));
    let denied = child.reserve(cost(0, 101), NOW).unwrap_err();
    assert_eq!(denied, Denied { what: Resource::Money, asked: 101, left: 100 });
    // A refusal by the parent leaves nothing reserved in the child.
    child.reserve(cost(0, 100), NOW).unwrap().settle(cost(0, 80));
    assert_eq!(parent.spent(), Spent { attempts: 1, cost: cost(0, 80) });
    let tight = parent.child(Limits { money_micros: Some(10), ..Limits::default() });
    assert_eq!(tight.reserve(cost(0, 15), NOW).unwrap_err().left, 10);
    assert_eq!(child.reserve(cost(0, 1), NOW + ms(1000)).unwrap_err().what, Resource::Time);
    assert!(!child.covers(cost(0, 1), NOW + ms(1000)));
}

#[test]
fn what_is_reserved_on_the_way_is_settled_with_its_attempt() {
    let parent = Purse::new(Limits { money_micros: Some(50), ..Limits::default() });
    let limits = Limits { attempts: Some(1), tokens: Some(100), ..Limits::default() };
    let purse = parent.child(limits);
    assert_eq!(purse.left(), Limits { money_micros: Some(50), ..limits });
    let mut attempt = purse.reserve(cost(0, 0), NOW).unwrap();
    // The last attempt is under way, and may still be found to cost something.
    attempt.join(purse.reserve_more(cost(70, 40), NOW).unwrap());
    let left = purse.left();
    assert_eq!((left.attempts, left.tokens, left.money_micros), (Some(0), Some(30), Some(10)));
    for (more, what, left) in
        [(cost(31, 0), Resource::Tokens, 30), (cost(0, 11), Resource::Money, 10)]
    {
        let denied = purse.reserve_more(more, NOW).unwrap_err();
        assert_eq!((denied.what, denied.left), (what, left));
    }
    attempt.join(purse.reserve_more(cost(30, 0), NOW).unwrap());
    assert_eq!(attempt.cost(), cost(100, 40));
    attempt.settle(cost(20, 5));
    assert_eq!(purse.spent(), Spent { attempts: 1, cost: cost(20, 5) });
    assert_eq!((purse.left().tokens, parent.left().money_micros), (Some(80), Some(45)));
    // Lost with its attempt, it is charged in full.
    let mut lost = parent.reserve(cost(0, 0), NOW).unwrap();
    lost.join(parent.reserve_more(cost(9, 25), NOW).unwrap());
    drop(lost);
    assert_eq!((parent.left().money_micros, parent.spent().attempts), (Some(20), 2));
}

#[test]
fn what_was_spent_before_a_crash_stays_spent() {
    let limits = Limits { attempts: Some(2), ..Limits::default() };
    let purse = Purse::resumed(limits, Spent { attempts: 2, cost: Cost::default() });
    assert_eq!(purse.reserve(Cost::default(), NOW).unwrap_err().what, Resource::Attempts);
}

proptest! {
    #[test]
    fn a_purse_never_grants_more_than_its_tightest_limit(
        limit in 0u64..200,
        inner in 0u64..200,
        asks in prop::collection::vec((0u64..60, any::<bool>()), 0..40),
    ) {
        let parent = Purse::new(Limits { tokens: Some(limit), ..Limits::default() });
        let child = parent.child(Limits { tokens: Some(inner), ..Limits::default() });
        let (mut by_parent, mut by_child) = (0, 0);
        for (tokens, through_child) in asks {
            let purse = if through_child { &child } else { &parent };
            // Also for one that may cost nothing: with nothing left, none is begun.
            let room = |spent: u64, limit| spent + tokens <= limit && (spent == 0 || spent < limit);
            let fits = room(by_parent, limit) && (!through_child || room(by_child, inner));
            let granted = purse.reserve(cost(tokens, 0), NOW);
            prop_assert_eq!(granted.is_ok(), fits);
            if let Ok(granted) = granted {
                granted.settle(cost(tokens, 0));
                by_parent += tokens;
                by_child += if through_child { tokens } else { 0 };
            }
            prop_assert_eq!(parent.spent().cost.tokens, by_parent);
            prop_assert_eq!(child.spent().cost.tokens, by_child);
        }
    }
}

/// The obvious model: a signed number kept between zero and the capacity.
#[derive(Clone, Debug)]
struct Tokens {
    capacity: i64,
    left: i64,
}

#[derive(Clone, Debug)]
enum Move {
    Withdraw(u32),
    Deposit,
}

impl ReferenceStateMachine for Tokens {
    type State = Self;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Self> {
        (0i64..600).prop_map(|capacity| Self { capacity, left: capacity }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Move> {
        prop_oneof![
            prop_oneof![Just(5), Just(14), 0u32..700].prop_map(Move::Withdraw),
            Just(Move::Deposit),
        ]
        .boxed()
    }

    fn apply(mut state: Self, transition: &Move) -> Self {
        match transition {
            Move::Withdraw(cost) if state.left >= i64::from(*cost) => {
                state.left -= i64::from(*cost)
            }
            Move::Withdraw(_) => {}
            Move::Deposit => state.left = (state.left + 1).min(state.capacity),
        }
        state
    }
}

struct Budgets;

impl StateMachineTest for Budgets {
    type SystemUnderTest = RetryBudget;
    type Reference = Tokens;

    fn init_test(state: &Tokens) -> RetryBudget {
        RetryBudget::new(state.capacity as u32)
    }

    fn apply(mut budget: RetryBudget, state: &Tokens, transition: Move) -> RetryBudget {
        match transition {
            Move::Withdraw(cost) => {
                let before = i64::from(budget.tokens());
                assert_eq!(budget.withdraw(cost), before >= i64::from(cost));
            }
            Move::Deposit => budget.deposit(),
        }
        assert_eq!(i64::from(budget.tokens()), state.left);
        budget
    }
}

prop_state_machine! {
    #[test]
    fn a_retry_budget_behaves_like_a_bounded_number(sequential 1..60 => Budgets);
}
