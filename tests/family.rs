//! What a family costs. Bounds are wide: they catch a square, not a slow machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::family::{
    ChildOptions, Family, FamilyOptions, Input, Key, Limit, Output, RestartType, Strategy, Ticket,
};
use mainstay::fault::ExitCause;
use mainstay::id::{ChildPath, Incarnation};
use mainstay::moment::Moment;

const MANY: u32 = 10_000;

fn panicked() -> ExitCause {
    ExitCause::Panic("boom".into())
}

fn options(strategy: Strategy) -> FamilyOptions {
    let intensity = Limit::new(u32::MAX, Duration::from_secs(5));
    FamilyOptions { strategy, intensity, ..FamilyOptions::default() }
}

/// Feeds one input, and the reports of all runs that follow from it; returns how many there were.
fn settle(family: &mut Family, input: Input, out: &mut Vec<Output>) -> usize {
    family.on_into(input, Moment::START, out);
    let mut runs = 0;
    while let Some(output) = out.pop() {
        if let Output::Run { run, .. } = output {
            runs += 1;
            family.on_into(Input::RunDone { run, result: Ok(()) }, Moment::START, out);
        }
    }
    runs
}

fn many(strategy: Strategy) -> Family {
    let mut family = Family::new(ChildPath::new("top"), options(strategy));
    for n in 0..MANY {
        let options = ChildOptions::default();
        family.add_static(n.to_string().into(), options, Incarnation::NONE).unwrap();
    }
    settle(&mut family, Input::Boot, &mut Vec::new());
    family
}

/// All first lives end before any run is done; returns how many runs the last report needed.
fn exit_all(mut family: Family) -> usize {
    let mut out = Vec::new();
    for n in 0..MANY {
        let (key, incarnation) = (Key(n), Incarnation(1));
        let exited = Input::Exited { key, incarnation, cause: panicked(), widen: None };
        family.on_into(exited, Moment::START, &mut out);
    }
    let mut runs = 0;
    while let Some(output) = out.pop() {
        if let Output::Run { run, .. } = output {
            let done = Input::RunDone { run, result: Ok(()) };
            runs += 1 + settle(&mut family, done, &mut Vec::new());
        }
    }
    assert_eq!(family.count_children().active, MANY as usize);
    runs
}

#[test]
fn ten_thousand_children_that_exit_at_once_cost_no_square() {
    let begun = Instant::now();
    assert_eq!(exit_all(many(Strategy::OneForOne)), MANY as usize);
    assert_eq!(exit_all(many(Strategy::OneForAll)), 1);
    assert_eq!(exit_all(many(Strategy::RestForOne)), 1);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn dynamic_children_come_and_go_without_leaving_a_trace() {
    let mut family = Family::new(ChildPath::new("top"), options(Strategy::OneForOne));
    let mut out = Vec::new();
    settle(&mut family, Input::Boot, &mut out);
    let ids: Vec<Arc<str>> = (0..MANY).map(|n| n.to_string().into()).collect();
    let begun = Instant::now();
    for round in 0..4_u32 {
        for id in &ids {
            let start = Input::Start {
                ticket: Ticket(0),
                id: Arc::clone(id),
                options: ChildOptions {
                    restart: RestartType::Temporary,
                    ..ChildOptions::default()
                },
                last: Incarnation::NONE,
            };
            assert_eq!(settle(&mut family, start, &mut out), 1);
        }
        assert_eq!(family.count_children().active, MANY as usize);
        for n in 0..MANY {
            let (key, incarnation) = (Key(round * MANY + n), Incarnation(1));
            let exited = Input::Exited { key, incarnation, cause: panicked(), widen: None };
            family.on_into(exited, Moment::START, &mut out);
            assert!(matches!(out.pop(), Some(Output::Removed { .. })));
        }
        assert_eq!(family.count_children().specs, 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
