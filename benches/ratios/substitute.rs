//! P8: a sibling answers, because the primary is known to be down, or because it panics in the call.
//!
//! The price is that of the whole call. By hand, with ractor: ask the primary, and when it fails, ask
//! the other; a supervisor starts the primary again meanwhile.

use std::sync::Arc;
use std::time::Duration;

use mainstay::circuit::CircuitSpec;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use ractor::call;

use super::hand::{self, Address, Msg};
use super::meter::{Asks, Goal, Options, Side, Unit, alternate, ct, price, report};
use super::ours::{Ask, Cue, Stopwatch, no_retries, patient};

/// Asks the group, whose primary fails.
#[derive(Clone)]
struct Group(Port<Ask, u64>);

impl Asks for Group {
    async fn ask(&self) {
        let answer = self.0.call(Ask::PanicOnce).await.expect("the sibling answers");
        assert!(answer.degraded);
    }
}

/// Asks a group whose primary is isolated.
#[derive(Clone)]
struct Isolated(Port<Ask, u64>);

impl Asks for Isolated {
    async fn ask(&self) {
        let answer = self.0.call(Ask::Echo(7)).await.expect("the sibling answers");
        assert!(answer.degraded && answer.value == 8);
    }
}

/// Asks one, then the other.
#[derive(Clone)]
struct ByHand(Address, Address);

impl Asks for ByHand {
    async fn ask(&self) {
        let primary = hand::at(&self.0);
        assert!(call!(primary, Msg::Poison).is_err());
        let sibling = hand::at(&self.1);
        assert_eq!(call!(sibling, Msg::Echo, 7).expect("the sibling answers"), 8);
        while hand::at(&self.0).get_id() == primary.get_id() {
            tokio::task::yield_now().await;
        }
    }
}

/// Asks the other, since the one is known to be down.
#[derive(Clone)]
struct Other(Address);

impl Asks for Other {
    async fn ask(&self) {
        let sibling = hand::at(&self.0);
        assert_eq!(call!(sibling, Msg::Echo, 7).expect("the sibling answers"), 8);
    }
}

pub(crate) fn run(options: &Options) {
    let (mine, bare) = (ct(), ct());
    let member = |id: &str| {
        let cue = Cue::new(&Stopwatch::new());
        ChildSpec::stateless(id, move || cue.clone()).concurrency(64)
    };
    // A circuit that does not open, and no second try with the primary, so that each call finds it
    // serving, and panicking.
    let never = CircuitSpec::new()
        .with_threshold(100, u32::MAX)
        .with_window(Duration::from_secs(30), u32::MAX);
    let group = |id: &str| {
        GroupSpec::model(id)
            .circuit(never)
            .policy(no_retries())
            .intensity(u32::MAX, Duration::from_secs(1))
            .child_limit(u32::MAX, Duration::from_secs(1))
            .member_spec(member("first"))
            .member_spec(member("second"))
    };
    let spec = SupervisorSpec::one_for_one("top").group(group("panics")).group(group("isolated"));
    let system = mine.block_on(System::start(patient(spec))).expect("it starts");
    system.isolate("top/isolated/first").expect("it is there");
    let panics = Group(system.port("top/panics").expect("it is there"));
    let isolated = Isolated(system.port("top/isolated").expect("it is there"));
    let (addresses, nurse) = bare.block_on(hand::ward(&Stopwatch::new(), 2, false));
    let by_hand = ByHand(Arc::clone(&addresses[0]), Arc::clone(&addresses[1]));
    let other = Other(Arc::clone(&addresses[1]));

    let calls = options.size(100_000);
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| price(&mine, 1, calls, &isolated))),
        ("ractor by hand", Box::new(|| price(&bare, 1, calls, &other))),
    ];
    report("P8 primary known dead", Unit::Time, &alternate(options, sides), Goal::AtMost(5e3));
    let calls = options.size(20_000);
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| price(&mine, 1, calls, &panics))),
        ("ractor by hand", Box::new(|| price(&bare, 1, calls, &by_hand))),
    ];
    report("P8 primary panics", Unit::Time, &alternate(options, sides), Goal::AtMost(25e3));
    mine.block_on(system.stop());
    nurse.stop(None);
}
