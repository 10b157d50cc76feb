//! Stories of both machines, with numbers; [`models`] has what always holds.

use super::*;

mod models;

const fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn ended(request: u64, verdict: Verdict) -> Input {
    Input::Ended { request: RequestId(request), verdict }
}

const fn failed() -> Input {
    ended(1, Verdict::Fault(Class::Network))
}

const fn answered() -> Input {
    ended(1, Verdict::Success)
}

fn circuit() -> Circuit {
    Circuit::new(Arc::new(CircuitSpec::default()))
}

/// A circuit that opened at this moment by three failures in a row.
fn opened(millis: u64) -> Circuit {
    let mut circuit = circuit();
    for _ in 0..3 {
        circuit.on(failed(), at(millis));
    }
    assert!(matches!(circuit.state(at(millis)), State::Open { .. }));
    circuit
}

/// Sends a probe and lets it end like this.
fn probe(circuit: &mut Circuit, verdict: Verdict, millis: u64) {
    assert_eq!(circuit.admits(at(millis)), Admission::Probe);
    circuit.on(Input::Probe(RequestId(millis)), at(millis));
    circuit.on(ended(millis, verdict), at(millis));
}

fn open_until(circuit: &Circuit, now: u64) -> Moment {
    match circuit.state(at(now)) {
        State::Open { until } => until,
        state => panic!("{state:?}"),
    }
}

#[test]
fn the_defaults_are_those_of_the_contract_and_valid() {
    let spec = CircuitSpec::default();
    assert_eq!((spec.window, spec.min_requests), (ms(30_000), 5));
    assert_eq!((spec.failure_percent, spec.consecutive), (50, 3));
    assert_eq!((spec.open, spec.open_max), (ms(5000), ms(60_000)));
    assert_eq!((spec.probe_successes, spec.max_probes), (2, 1));
    assert_eq!((spec.probe_timeout, spec.hold), (ms(60_000), ms(30_000)));
    assert_eq!(spec.validate("llm"), Ok(()));
    for bad in [
        spec.with_window(Duration::ZERO, 5),
        spec.with_window(ms(1), 0),
        spec.with_threshold(0, 3),
        spec.with_threshold(101, 3),
        spec.with_threshold(50, 0),
        spec.with_open(Duration::ZERO, ms(1)),
        spec.with_open(ms(2), ms(1)),
        spec.with_probes(0, 1),
        spec.with_probes(1, 0),
        spec.with_probe_timeout(Duration::ZERO),
    ] {
        assert!(bad.validate("llm").is_err(), "{bad:?}");
    }
    let domain = DomainSpec::default();
    assert_eq!((domain.min_close, domain.max_close), (ms(2000), ms(300_000)));
    assert_eq!((domain.ramp_rate, domain.ramp), (10, ms(5000)));
    assert_eq!(domain.validate("acme"), Ok(()));
    assert!(domain.with_ramp(0, ms(1)).validate("acme").is_err());
    assert!(domain.with_close(ms(2), ms(1)).validate("acme").is_err());
}

#[test]
fn a_circuit_that_nobody_used_is_two_words() {
    assert!(size_of::<Circuit>() <= 2 * size_of::<usize>());
    assert!(circuit().inner.is_none());
}

#[test]
fn three_failures_in_a_row_open_it_and_two_do_not() {
    let mut circuit = circuit();
    circuit.on(failed(), at(0));
    assert_eq!(circuit.on(failed(), at(0)), None);
    let opened = Transition { from: State::Closed, to: State::Open { until: at(5000) } };
    assert_eq!(circuit.on(failed(), at(0)), Some(opened));
    assert_eq!(circuit.admits(at(4999)), Admission::No { until: at(5000) });
    assert_eq!(circuit.admits(at(5000)), Admission::Probe);
}

#[test]
fn a_run_of_failures_ends_with_a_success_or_a_silent_window() {
    let mut circuit = circuit();
    for input in [failed(), failed(), answered(), failed(), answered(), answered()] {
        circuit.on(input, at(0));
    }
    // Three of six failed at this point, but what counts is judged when something fails.
    assert_eq!(circuit.state(at(0)), State::Closed);
    let mut circuit = self::circuit();
    circuit.on(failed(), at(0));
    circuit.on(failed(), at(0));
    circuit.on(failed(), at(30_000));
    assert_eq!(circuit.state(at(30_000)), State::Closed);
}

#[test]
fn half_of_at_least_five_requests_open_it() {
    let feed = |inputs: &[Input]| {
        let mut circuit = circuit();
        for input in inputs {
            circuit.on(*input, at(0));
        }
        circuit.state(at(0)) == State::Closed
    };
    let (f, s) = (failed(), answered());
    assert!(feed(&[f, s, f, f]));
    assert!(!feed(&[f, s, f, s, f]));
    assert!(feed(&[s, s, s, f, f]));
    assert!(!feed(&[s, s, f, f, s, f]));
    assert!(feed(&[s, s, s, s, f, s, f, f]));
}

#[test]
fn what_left_the_window_no_longer_counts() {
    let mut circuit = circuit();
    for input in [failed(), answered(), failed(), answered()] {
        circuit.on(input, at(0));
    }
    circuit.on(failed(), at(30_000));
    assert_eq!(circuit.state(at(30_000)), State::Closed);
}

#[test]
fn the_callers_own_faults_and_missing_permission_never_open_it() {
    let mut circuit = circuit();
    for class in Class::ALL.into_iter().filter(|class| !class.tells_of_health()) {
        for _ in 0..20 {
            circuit.on(ended(1, Verdict::Fault(class)), at(0));
        }
    }
    assert_eq!(circuit.state(at(0)), State::Closed);
    circuit.on(ended(1, Verdict::Crash), at(0));
    circuit.on(ended(1, Verdict::Crash), at(0));
    circuit.on(ended(1, Verdict::Crash), at(0));
    assert!(matches!(circuit.state(at(0)), State::Open { .. }));
}

#[test]
fn a_last_resort_is_asked_one_at_a_time_and_changes_nothing() {
    let mut circuit = opened(0);
    assert!(circuit.admits_last_resort(at(100)));
    circuit.on(Input::Probe(RequestId(7)), at(100));
    assert!(!circuit.admits_last_resort(at(101)));
    circuit.on(Input::Probe(RequestId(8)), at(101));
    assert_eq!(circuit.probes(at(101)), 1);
    // Nobody else gives its permit back; good or bad, the circuit opens no earlier and no later.
    circuit.on(ended(8, Verdict::Success), at(102));
    assert!(!circuit.admits_last_resort(at(102)));
    assert_eq!(circuit.on(ended(7, Verdict::Success), at(103)), None);
    assert_eq!(circuit.state(at(103)), State::Open { until: at(5000) });
    circuit.on(Input::Probe(RequestId(9)), at(104));
    circuit.on(ended(9, Verdict::Fault(Class::Timeout)), at(105));
    assert_eq!(circuit.state(at(105)), State::Open { until: at(5000) });
    // It is for open circuits only.
    assert!(!circuit.admits_last_resort(at(5000)));
    circuit.on(Input::Isolate, at(106));
    assert!(!circuit.admits_last_resort(at(106)));
}

#[test]
fn two_good_probes_close_it_one_at_a_time() {
    let mut circuit = opened(0);
    probe(&mut circuit, Verdict::Success, 5000);
    circuit.on(Input::Probe(RequestId(9)), at(5000));
    assert_eq!(circuit.admits(at(5000)), Admission::No { until: at(65_000) });
    // One that is no probe says nothing.
    assert_eq!(circuit.on(ended(1, Verdict::Fault(Class::Timeout)), at(5000)), None);
    let closed = Transition { from: State::HalfOpen, to: State::Closed };
    assert_eq!(circuit.on(ended(9, Verdict::Success), at(5001)), Some(closed));
}

#[test]
fn a_bad_probe_doubles_the_open_time_up_to_a_minute() {
    let mut circuit = opened(0);
    let mut now = 5000;
    for expected in [10, 20, 40, 60, 60] {
        probe(&mut circuit, Verdict::Crash, now);
        assert_eq!(open_until(&circuit, now), at(now + expected * 1000));
        now += expected * 1000;
    }
}

#[test]
fn a_relapse_within_the_hold_doubles_as_a_bad_probe_would_and_a_later_one_starts_anew() {
    let heal = |circuit: &mut Circuit, now| {
        probe(circuit, Verdict::Success, now);
        probe(circuit, Verdict::Success, now);
        assert_eq!(circuit.state(at(now)), State::Closed);
    };
    let relapse = |circuit: &mut Circuit, now| {
        for _ in 0..3 {
            circuit.on(failed(), at(now));
        }
        open_until(circuit, now)
    };
    let mut circuit = opened(0);
    heal(&mut circuit, 5000);
    assert_eq!(relapse(&mut circuit, 34_999), at(34_999 + 10_000));
    heal(&mut circuit, 45_000);
    assert_eq!(relapse(&mut circuit, 50_000), at(50_000 + 20_000));
    heal(&mut circuit, 70_000);
    assert_eq!(relapse(&mut circuit, 100_000), at(100_000 + 5000));
}

#[test]
fn a_hold_is_as_long_as_it_is_told_to_be() {
    for (hold, opened_for) in [(0, 5000), (1000, 5000), (1001, 10_000)] {
        let mut circuit = Circuit::new(Arc::new(CircuitSpec::default().with_hold(ms(hold))));
        for _ in 0..3 {
            circuit.on(failed(), at(0));
        }
        probe(&mut circuit, Verdict::Success, 5000);
        probe(&mut circuit, Verdict::Success, 5000);
        for _ in 0..3 {
            circuit.on(failed(), at(6000));
        }
        assert_eq!(open_until(&circuit, 6000), at(6000 + opened_for), "held for {hold} ms");
    }
}

#[test]
fn what_opened_it_is_forgotten_when_it_closes() {
    let mut circuit = opened(0);
    probe(&mut circuit, Verdict::Success, 5000);
    probe(&mut circuit, Verdict::Success, 5000);
    circuit.on(failed(), at(5000));
    circuit.on(failed(), at(5000));
    assert_eq!(circuit.state(at(5000)), State::Closed);
}

#[test]
fn a_probe_that_never_comes_back_frees_its_permit() {
    let mut circuit = opened(0);
    circuit.on(Input::Probe(RequestId(9)), at(5000));
    assert_eq!(circuit.admits(at(64_999)), Admission::No { until: at(65_000) });
    assert_eq!(circuit.admits(at(65_000)), Admission::Probe);
    // What it brings later is ignored.
    circuit.on(Input::Probe(RequestId(10)), at(65_000));
    circuit.on(ended(9, Verdict::Fault(Class::Timeout)), at(65_001));
    assert_eq!(circuit.state(at(65_001)), State::HalfOpen);
    assert_eq!(circuit.admits(at(65_001)), Admission::No { until: at(125_000) });
}

#[test]
fn a_probe_that_ends_by_the_callers_fault_frees_its_permit_and_counts_for_nothing() {
    let mut circuit = opened(0);
    probe(&mut circuit, Verdict::Fault(Class::InputValidation), 5000);
    assert_eq!(circuit.admits(at(5000)), Admission::Probe);
    probe(&mut circuit, Verdict::Success, 5000);
    assert_eq!(circuit.state(at(5000)), State::HalfOpen);
}

#[test]
fn a_rest_from_outside_is_never_shortened() {
    let mut circuit = circuit();
    circuit.on(Input::Rest(at(8000)), at(0));
    circuit.on(Input::Rest(at(3000)), at(1));
    assert_eq!(open_until(&circuit, 1), at(8000));
    circuit.on(Input::Rest(at(9000)), at(2));
    assert_eq!(open_until(&circuit, 2), at(9000));
    // A first bad probe after it opens for the first time, not for twice nothing.
    probe(&mut circuit, Verdict::Crash, 9000);
    assert_eq!(open_until(&circuit, 9000), at(14_000));
}

#[test]
fn what_was_taken_out_by_hand_comes_back_only_by_hand() {
    let mut circuit = opened(0);
    circuit.on(Input::Isolate, at(0));
    for input in [answered(), failed(), Input::Rest(at(9)), Input::Probe(RequestId(1))] {
        assert_eq!(circuit.on(input, at(100_000)), None);
    }
    assert_eq!(circuit.admits(at(100_000)), Admission::No { until: Moment::NEVER });
    let back = Transition { from: State::Isolated, to: State::Closed };
    assert_eq!(circuit.on(Input::Release, at(100_000)), Some(back));
    assert_eq!(circuit.admits(at(100_000)), Admission::Yes);
}

#[test]
fn a_domain_closes_at_least_two_seconds_and_never_opens_earlier_than_promised() {
    let mut domain = Domain::default();
    assert!(domain.is_open(at(0)));
    domain.rate_limited(None, at(1000));
    assert_eq!(domain.open_at(), at(3000));
    domain.rate_limited(Some(ms(10_000)), at(1000));
    domain.rate_limited(Some(ms(1)), at(1000));
    assert_eq!(domain.open_at(), at(11_000));
    domain.rate_limited(Some(Duration::MAX), at(1000));
    assert_eq!(domain.open_at(), at(301_000));
    assert_eq!(domain.retries.tokens(), 500);
    assert_eq!(domain.amplification.ratio(), None);
}

#[test]
fn a_wait_that_was_asked_for_closes_a_domain_whatever_the_class_but_only_for_that_wait() {
    let now = Moment::from_millis(1000);
    let mut domain = Domain::default();
    assert!(!domain.told(Class::Overloaded, None, now));
    assert!(!domain.told(Class::Overloaded, Some(Duration::ZERO), now));
    assert!(domain.is_open(now));
    assert!(domain.told(Class::Overloaded, Some(Duration::from_millis(500)), now));
    assert_eq!(domain.open_at(), Moment::from_millis(1500));
    assert!(domain.told(Class::RateLimit, None, now));
    assert_eq!(domain.open_at(), Moment::from_millis(3000));
    assert!(domain.told(Class::ServerTransient, Some(Duration::MAX), now));
    assert_eq!(domain.open_at(), Moment::from_millis(301_000));
}

#[test]
fn a_domain_that_was_never_closed_spaces_nobody() {
    let mut domain = Domain::default();
    for _ in 0..1000 {
        assert_eq!(domain.permit(at(0)), Permit::Now);
    }
}

#[test]
fn waiters_are_let_in_one_by_one_and_ever_faster() {
    let mut domain = Domain::default();
    domain.rate_limited(None, at(0));
    let mut slots = Vec::new();
    for _ in 0..5000 {
        match domain.permit(at(500)) {
            Permit::At(slot) => slots.push(slot.at),
            Permit::Now => panic!("the domain is closed"),
        }
    }
    let within = |second: u64| {
        let (from, to) = (at(2000 + second * 1000), at(3000 + second * 1000));
        slots.iter().filter(|slot| **slot >= from && **slot < to).count()
    };
    assert_eq!([within(0), within(1), within(2), within(3)], [10, 20, 40, 80]);
    assert!(slots.is_sorted() && slots[0] == at(2000));
    assert!(*slots.last().unwrap() < at(12_000));
    // A newcomer after the ramp queues behind those who still wait, and nobody waits for ever.
    assert!(
        matches!(domain.permit(at(7500)), Permit::At(slot) if slot.at >= *slots.last().unwrap())
    );
    assert_eq!(domain.permit(at(12_000)), Permit::Now);
    assert_eq!(domain.permit(at(12_000)), Permit::Now);
}

#[test]
fn a_kept_moment_holds_unless_the_domain_closed_again() {
    let mut domain = Domain::default();
    domain.rate_limited(None, at(0));
    let [first, second] = [place(domain.permit(at(0))), place(domain.permit(at(0)))];
    assert_eq!((first.at, second.at), (at(2000), at(2100)));
    assert_eq!(domain.redeem(first, at(1000)), Permit::At(first));
    assert_eq!(domain.redeem(first, at(2000)), Permit::Now);
    domain.rate_limited(None, at(2050));
    let third = place(domain.redeem(second, at(2100)));
    assert_eq!(third.at, at(4050));
    assert_eq!(domain.redeem(third, at(4050)), Permit::Now);
}

#[test]
fn those_who_waited_long_are_no_burst_when_the_domain_closes_again() {
    let mut domain = Domain::default();
    domain.rate_limited(None, at(0));
    let slots: Vec<_> = (0..1000).map(|_| place(domain.permit(at(0)))).collect();
    // The last places of this ramp are dense, and lie after the next opening.
    domain.rate_limited(None, at(4000));
    let dense: Vec<_> = slots.into_iter().filter(|slot| slot.at >= at(6000)).collect();
    let again: Vec<_> =
        dense.iter().take(3).map(|slot| place(domain.redeem(*slot, at(5000))).at).collect();
    assert_eq!(again, [at(6000), at(6100), at(6200)]);
}

fn place(permit: Permit) -> Slot {
    match permit {
        Permit::At(slot) => slot,
        Permit::Now => panic!("let in at once"),
    }
}
