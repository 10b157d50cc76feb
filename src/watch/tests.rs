//! The machine against a list of everything that ever happened, and its rules at their limits.

use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 6_000;
const WIDTH: u64 = WINDOW / 60;

const fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn spec() -> WatchSpec {
    WatchSpec::new().window(Duration::from_millis(WINDOW)).hold(Duration::from_secs(2))
}

fn watch(spec: WatchSpec) -> Watch {
    spec.validate().unwrap();
    Watch::new(spec, Moment::START)
}

fn fated(fate: Fate) -> Fated {
    Fated {
        fate,
        defaulted: false,
        failed_at: Moment::START,
        retried: true,
        failed_over: false,
        handed_on: None,
        rolled_back: false,
    }
}

fn totals(attempts: u64, accepted: u64, done: u64, failed: u64) -> Totals {
    let fates = FateCounts { accepted, done, failed, ..FateCounts::default() };
    Totals { attempts, fates, ..Totals::default() }
}

/// So many requests that were retried, of which so many were answered.
fn retried(watch: &mut Watch, all: u64, answered: u64, now: Moment) {
    for n in 0..all {
        let fate = if n < answered { Fate::Done } else { Fate::Failed };
        watch.on(Input::Fated(Fated { failed_at: now, ..fated(fate) }), now);
    }
}

fn names(changes: &[Change]) -> Vec<(&str, &str, Severity)> {
    let all = changes.iter().map(|change| match change {
        Change::Raised(alert) => ("raised", &*alert.rule, alert.severity),
        Change::Cleared(alert) => ("cleared", &*alert.rule, alert.severity),
    });
    all.collect()
}

#[test]
fn ten_percent_of_errors_are_no_alert_and_more_are() {
    for (failed, raised) in [(10, 0), (11, 1)] {
        let mut watch = watch(spec());
        for _ in 0..failed {
            watch.on(Input::Failed { class: Some(Class::Network), retried: false }, at(10));
        }
        watch.sample(totals(100, 100, 100, 0), at(20));
        let changes = watch.look(at(20));
        let alerts = names(&changes).into_iter().filter(|it| it.1 == "S88").count();
        assert_eq!(alerts, raised, "{failed}: {changes:?}");
    }
}

#[test]
fn a_rule_says_nothing_of_fewer_samples_than_it_wants() {
    for (samples, raised) in [(19, 0), (20, 1)] {
        let mut watch = watch(spec());
        retried(&mut watch, samples, 0, at(10));
        let changes = watch.look(at(10));
        let alerts = names(&changes).into_iter().filter(|it| it.1 == "S89").count();
        assert_eq!(alerts, raised, "{samples}");
    }
}

#[test]
fn between_target_and_alert_the_objective_burns() {
    // 80 % is no alert, and not the 95 % aimed at.
    let mut watch = watch(spec());
    retried(&mut watch, 20, 16, at(10));
    let changes = watch.look(at(10));
    let burning: Vec<_> = names(&changes).into_iter().filter(|it| it.1 == "S25").collect();
    assert_eq!(burning, [("raised", "S25", Severity::Info)]);
    assert!(names(&changes).iter().all(|it| it.1 != "S89"));
    // One more is lost: the alert takes the burn's place.
    retried(&mut watch, 1, 0, at(11));
    let changes = watch.look(at(11));
    let changed: Vec<_> = names(&changes);
    assert!(changed.contains(&("raised", "S89", Severity::Warning)), "{changed:?}");
    assert!(changed.contains(&("cleared", "S25", Severity::Info)), "{changed:?}");
    // At 95 % there is neither.
    let mut watch = Watch::new(spec(), Moment::START);
    retried(&mut watch, 100, 96, at(10));
    assert!(names(&watch.look(at(10))).iter().all(|it| it.1 != "S25"));
}

#[test]
fn a_value_at_the_limit_raises_and_clears_once() {
    let mut watch = watch(spec().hold(Duration::from_millis(500)));
    retried(&mut watch, 20, 15, at(10));
    let is_s89 = |changes: &[Change]| {
        names(changes).into_iter().filter(|it| it.1 == "S89").map(|it| it.0.to_owned()).collect()
    };
    let seen: Vec<String> = is_s89(&watch.look(at(10)));
    assert_eq!(seen, ["raised"]);
    // Up and down around 80 %, faster than the rule comes to rest.
    for turn in 0..10 {
        let now = at(20 + turn * 100);
        if turn % 2 == 0 {
            retried(&mut watch, 5, 5, now);
        } else {
            retried(&mut watch, 2, 0, now);
        }
        let seen: Vec<String> = is_s89(&watch.look(now));
        assert_eq!(seen, Vec::<String>::new(), "{turn}");
    }
    retried(&mut watch, 100, 100, at(2_000));
    let seen: Vec<String> = is_s89(&watch.look(at(2_000)));
    assert_eq!(seen, Vec::<String>::new());
    let seen: Vec<String> = is_s89(&watch.look(at(2_499)));
    assert_eq!(seen, Vec::<String>::new());
    let seen: Vec<String> = is_s89(&watch.look(at(2_500)));
    assert_eq!(seen, ["cleared"]);
    let seen: Vec<String> = is_s89(&watch.look(at(9_000)));
    assert_eq!(seen, Vec::<String>::new());
}

#[test]
fn a_failing_rollback_is_critical_and_times_are_told_by_scope() {
    let mut watch = watch(spec());
    for n in 0..20 {
        let reached = n < 18;
        let took = Duration::from_secs(n);
        watch.on(Input::RolledBack { scope: Scope::Transaction, reached, took }, at(10));
    }
    let changes = watch.look(at(10));
    assert!(names(&changes).contains(&("raised", "S90", Severity::Critical)), "{changes:?}");
    let metrics = watch.metrics(at(10));
    let counts = metrics.rollback_by_scope[&Scope::Transaction];
    assert_eq!((counts.entered, counts.recovered), (20, 18));
    let times = metrics.rollback_time[&Scope::Transaction];
    assert_eq!((times.count, times.max), (18, 17.0));
    assert_eq!(metrics.rollback_by_scope.len(), 1);
    assert_eq!(metrics.alerts[0].rule, "S90");
}

#[test]
fn a_default_value_is_no_success_unless_it_is_said_to_be() {
    for (counted, rate) in [(false, 0.5), (true, 1.0)] {
        let mut watch = watch(spec().count_defaulted(counted));
        let handed_on = Some((GroupKind::Output, at(5)));
        for defaulted in [false, true] {
            let fated = Fated {
                defaulted,
                retried: false,
                failed_over: true,
                handed_on,
                ..fated(Fate::Done)
            };
            watch.on(Input::Fated(fated), at(10));
        }
        let metrics = watch.metrics(at(10));
        let fallback = metrics.fallback_by_kind["output"];
        assert_eq!((fallback.entered, fallback.recovered, fallback.defaulted), (2, 1, 1));
        for measure in [Measure::FallbackSuccess, Measure::Recovery] {
            assert_eq!(metrics.measure(&measure).unwrap().value, rate, "{measure:?}");
        }
    }
}

#[test]
fn an_availability_of_a_group_leaves_its_defaults_out() {
    for (counted, rate) in [(false, 0.75), (true, 1.0)] {
        let mut watch = watch(spec().count_defaulted(counted));
        let mut totals = totals(4, 4, 4, 0);
        *totals.group(GroupKind::Output) = totals.fates;
        watch.on(
            Input::Impaired { kind: GroupKind::Output, degraded: true, defaulted: true },
            at(5),
        );
        watch.sample(totals, at(10));
        let metrics = watch.metrics(at(10));
        assert_eq!(metrics.slo("S32").unwrap().actual.unwrap().value, rate);
        assert_eq!(metrics.slo("S32").unwrap().met, Some(counted));
        assert_eq!(metrics.measure(&Measure::Degraded(GroupKind::Output)).unwrap().value, 0.25);
        assert_eq!(metrics.slo("S31").unwrap().actual, None);
    }
}

#[test]
fn whoever_was_stopped_or_cancelled_counts_nowhere() {
    let mut watch = watch(spec());
    for fate in [Fate::Stopped, Fate::Cancelled, Fate::Suspended] {
        watch.on(Input::Fated(fated(fate)), at(1));
    }
    watch.on(Input::Failed { class: Some(Class::Cancelled), retried: false }, at(1));
    watch.sample(totals(2, 2, 2, 0), at(2));
    let metrics = watch.metrics(at(2));
    assert_eq!(metrics.recovery, RungCounts::default());
    assert_eq!(metrics.measure(&Measure::ErrorRate).unwrap().value, 0.0);
    assert_eq!(metrics.failures[&Class::Cancelled], 1);
    assert!(metrics.failures_by_playbook.is_empty());
}

#[test]
fn signals_are_counted_if_something_asks_for_them() {
    let mut watch = watch(WatchSpec::profile(Profile::CustomerService));
    for n in 0..10 {
        let said = if n < 9 { Signal::Yes } else { Signal::No };
        assert!(watch.hear("satisfaction", said, at(1)));
        assert!(watch.hear("response", Signal::Took(Duration::from_secs(n)), at(1)));
    }
    assert!(!watch.hear("unheard of", Signal::Yes, at(1)));
    let metrics = watch.metrics(at(1));
    let satisfaction = metrics.slo("S65.satisfaction").unwrap();
    assert_eq!(satisfaction.actual.unwrap(), Sample { value: 0.9, samples: 10 });
    assert_eq!((satisfaction.met, &*satisfaction.actual_text()), (Some(false), "90.0 %"));
    assert_eq!(metrics.slo("S65.response").unwrap().actual.unwrap().value, 4.5);
    assert_eq!(metrics.slo("S65.intervention").unwrap().met, None);
}

#[test]
fn every_profile_adds_its_objectives_to_the_playbook() {
    let all = Slo::playbook().len();
    for (profile, own) in [
        (Profile::CustomerService, ["S65.satisfaction", "S65.intervention", "S65.response"]),
        (Profile::Finance, ["S71.success", "S71.rollback", "S71.loss"]),
        (Profile::Codegen, ["S77.usable", "S77.repair", "S77.generation"]),
    ] {
        let spec = WatchSpec::profile(profile);
        let ids: Vec<_> = spec.slos[all..].iter().map(|slo| &*slo.id).collect();
        assert_eq!(ids, own);
        assert_eq!(spec.alerts, AlertRule::playbook());
    }
}

#[test]
fn the_numbers_are_the_playbooks() {
    let texts: Vec<_> =
        Slo::playbook().iter().map(|slo| format!("{} {}", slo.id, slo.target_text())).collect();
    assert_eq!(
        texts,
        [
            "S94 < 10 %",
            "S25 > 95 %",
            "S26 < 5 s",
            "S27 < 2",
            "S37 > 90 %",
            "S38 < 3 s",
            "S39 > 95 %",
            "S28 < 5 %",
            "S29 > 90 %",
            "S30 > 80 %",
            "S31 > 95 %",
            "S32 > 98 %",
            "S97 > 99 %",
            "S51 < 30 s",
            "S52 > 99.9 %",
            "S98 > 98 %",
        ]
    );
    let rules = AlertRule::playbook();
    let texts: Vec<_> =
        rules.iter().map(|it| format!("{} {} {}", it.id, it.condition(), it.severity)).collect();
    assert_eq!(
        texts,
        [
            "S88 error rate > 10 % warning",
            "S89 retry success < 80 % warning",
            "R18 fallback success < 80 % warning",
            "S90 rollback success < 95 % critical",
            "4.5 attempts by request > 1.5 warning",
        ]
    );
    assert!(rules.iter().all(|rule| rule.min_samples == 20));
    let spec = WatchSpec::new();
    assert_eq!((spec.window, spec.hold), (Duration::from_secs(300), Duration::from_secs(30)));
}

#[test]
fn a_rule_can_be_replaced_added_and_left_out() {
    let rule = |limit| {
        AlertRule::new(
            "S89",
            "mine",
            Measure::RetrySuccess,
            Bound::Below(limit),
            Severity::Critical,
        )
        .min_samples(2)
    };
    let raised = |spec: WatchSpec| {
        let mut watch = watch(spec);
        retried(&mut watch, 2, 1, at(1));
        let changes = watch.look(at(1));
        names(&changes).into_iter().map(|it| (it.1.to_owned(), it.2)).collect::<Vec<_>>()
    };
    assert_eq!(raised(spec()), []);
    assert_eq!(raised(spec().alert(rule(0.8))), [("S89".to_owned(), Severity::Critical)]);
    assert_eq!(raised(spec().alert(rule(0.5))), []);
    assert_eq!(raised(spec().alert(rule(0.8)).without("S89")), []);
    let strict = Slo::new("S25", "mine", Measure::RetrySuccess, Bound::Above(0.4));
    let metrics = |spec| {
        let mut watch = watch(spec);
        retried(&mut watch, 2, 1, at(1));
        watch.metrics(at(1)).slo("S25").unwrap().met
    };
    assert_eq!((metrics(spec()), metrics(spec().slo(strict))), (Some(false), Some(true)));
}

#[test]
fn a_spec_that_cannot_be_watched_is_refused_by_name() {
    let refused = |spec: WatchSpec| spec.validate().unwrap_err().to_string();
    let short = refused(spec().window(Duration::from_millis(59)));
    assert_eq!(short, "\"watch\": the window is 59ms, from 60 ms to 24 h");
    let limit = Slo::new("mine", "mine", Measure::ErrorRate, Bound::Below(f64::NAN));
    assert_eq!(refused(spec().slo(limit)), "\"watch/mine\": the limit is NaN, a finite number");
    let mut never = spec();
    never.alerts[0].min_samples = 0;
    assert_eq!(refused(never), "\"watch/S88\": min_samples is zero");
}

#[test]
fn the_text_for_scrapers_has_a_line_for_each_number() {
    let mut watch = watch(
        spec().alert(
            AlertRule::new("a\"b", "x", Measure::ErrorRate, Bound::Above(0.0), Severity::Warning)
                .min_samples(1),
        ),
    );
    watch.on(Input::Failed { class: Some(Class::Timeout), retried: true }, at(1));
    retried(&mut watch, 1, 1, at(1));
    watch.sample(totals(4, 3, 3, 0), at(2));
    watch.look(at(2));
    let text = watch.metrics(at(2)).prometheus();
    for line in [
        "mainstay_window_seconds 6",
        "mainstay_attempts 4",
        "mainstay_failed_attempts{class=\"timeout\"} 1",
        "mainstay_requests{fate=\"done\"} 3",
        "mainstay_rung{rung=\"retry\",what=\"recovered\"} 1",
        "mainstay_latency_seconds{of=\"retry\",quantile=\"0.95\"} 0",
        "mainstay_slo_actual{slo=\"S94\"} 0.25",
        "mainstay_slo_met{slo=\"S94\"} 0",
        "mainstay_alert{rule=\"a\\\"b\",severity=\"warning\"} 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

/// One thing that happens, after so many milliseconds.
#[derive(Clone, Debug)]
enum Happens {
    Failed(usize, bool),
    Crashed,
    Fated { fate: usize, handed_on: bool, defaulted: bool, ago: u64 },
    RolledBack(bool, u64),
    Sampled { attempts: u64, done: u64, failed: u64 },
}

fn happens() -> impl Strategy<Value = (u64, Happens)> {
    let what = prop_oneof![
        (0..Class::ALL.len(), any::<bool>())
            .prop_map(|(class, again)| Happens::Failed(class, again)),
        Just(Happens::Crashed),
        (0..Fate::ALL.len(), any::<bool>(), any::<bool>(), 0..20_000u64).prop_map(
            |(fate, handed_on, defaulted, ago)| Happens::Fated { fate, handed_on, defaulted, ago }
        ),
        (any::<bool>(), 0..60_000u64)
            .prop_map(|(reached, took)| Happens::RolledBack(reached, took)),
        (0..9u64, 0..5u64, 0..3u64).prop_map(|(attempts, done, failed)| Happens::Sampled {
            attempts,
            done,
            failed
        }),
    ];
    (0..900u64, what)
}

proptest! {
    #[test]
    fn what_is_measured_is_what_happened_within_the_window(
        all in prop::collection::vec(happens(), 1..200),
    ) {
        let mut watch = watch(spec());
        let (mut now, mut sampled, mut sums) = (0, 0, totals(0, 0, 0, 0));
        // What happened, each with the moment it is counted at.
        let mut log: Vec<(u64, Happens)> = Vec::new();
        let mut held: BTreeMap<String, bool> = BTreeMap::new();
        for (pause, what) in all {
            now += pause;
            let mut counted_at = now;
            match &what {
                Happens::Failed(class, retried) => {
                    let class = Some(Class::ALL[*class]);
                    watch.on(Input::Failed { class, retried: *retried }, at(now));
                }
                Happens::Crashed => {
                    watch.on(Input::Failed { class: None, retried: false }, at(now));
                }
                Happens::Fated { fate, handed_on, defaulted, ago } => {
                    let since = at(now.saturating_sub(*ago));
                    let fated = Fated {
                        fate: Fate::ALL[*fate],
                        defaulted: *defaulted,
                        failed_at: since,
                        retried: !handed_on,
                        failed_over: *handed_on,
                        handed_on: handed_on.then_some((GroupKind::Tool, since)),
                        rolled_back: false,
                    };
                    watch.on(Input::Fated(fated), at(now));
                }
                Happens::RolledBack(reached, took) => {
                    let (reached, took) = (*reached, Duration::from_millis(*took));
                    watch.on(Input::RolledBack { scope: Scope::Flow, reached, took }, at(now));
                }
                Happens::Sampled { attempts, done, failed } => {
                    sums.attempts += attempts;
                    sums.fates.accepted += done + failed;
                    sums.fates.done += done;
                    sums.fates.failed += failed;
                    watch.sample(sums, at(now));
                    counted_at = (sampled + now) / 2;
                    sampled = now;
                }
            }
            log.push((counted_at, what));
            let within = |then: u64| now / WIDTH - then / WIDTH < 60;
            let seen = || log.iter().filter(|(then, _)| within(*then)).map(|(_, what)| what);
            let sum = |f: &dyn Fn(&Happens) -> u64| seen().map(f).sum::<u64>();
            let metrics = watch.metrics(at(now));
            let cancelled = Class::Cancelled as usize;
            let errors = sum(&|it| match it {
                Happens::Failed(class, _) => u64::from(*class != cancelled),
                Happens::Crashed => 1,
                _ => 0,
            });
            let attempts = sum(&|it| match it { Happens::Sampled { attempts, .. } => *attempts, _ => 0 });
            let retries = sum(&|it| u64::from(matches!(it, Happens::Failed(_, true))));
            let ended = |handed: bool, wanted: &dyn Fn(Fate, bool) -> bool| sum(&|it| match it {
                Happens::Fated { fate, handed_on, defaulted, .. } if *handed_on == handed => {
                    let fate = Fate::ALL[*fate];
                    let left = matches!(fate, Fate::Cancelled | Fate::Stopped | Fate::Suspended);
                    u64::from(!left && wanted(fate, *defaulted))
                }
                _ => 0,
            });
            let good = |fate| matches!(fate, Fate::Done | Fate::Unheard);
            prop_assert_eq!(metrics.retries, retries);
            prop_assert_eq!(metrics.attempts, attempts);
            let rate = metrics.measure(&Measure::ErrorRate).map(|it| it.value);
            let expected = (attempts > 0).then(|| (errors as f64 / attempts as f64).min(1.0));
            prop_assert_eq!(rate, expected);
            prop_assert_eq!(metrics.retry.entered, ended(false, &|_, _| true));
            prop_assert_eq!(metrics.retry.recovered, ended(false, &|fate, _| good(fate)));
            prop_assert_eq!(metrics.fallback.entered, ended(true, &|_, _| true));
            prop_assert_eq!(metrics.fallback.recovered, ended(true, &|fate, not| good(fate) && !not));
            prop_assert_eq!(metrics.fallback.defaulted, ended(true, &|fate, not| good(fate) && not));
            prop_assert_eq!(metrics.requests.failed, sum(&|it| match it {
                Happens::Sampled { failed, .. } => *failed,
                _ => 0,
            }));
            let mut took: Vec<_> = seen()
                .filter_map(|it| match it { Happens::RolledBack(true, took) => Some(*took), _ => None })
                .collect();
            took.sort_unstable();
            let rank = (took.len() * 95).div_ceil(100);
            match metrics.rollback_time.get(&Scope::Flow) {
                None => prop_assert!(took.is_empty()),
                Some(times) => {
                    let exact = Duration::from_millis(took[rank - 1]).as_secs_f64();
                    prop_assert!(times.p95 >= exact && times.p95 <= exact * 1.032 + 1e-5);
                }
            }
            // Raised and cleared take turns.
            for change in watch.look(at(now)) {
                let (alert, raised) = match change {
                    Change::Raised(alert) => (alert, true),
                    Change::Cleared(alert) => (alert, false),
                };
                let before = held.insert(alert.rule, raised).unwrap_or(false);
                prop_assert_ne!(before, raised);
            }
            let holding = held.values().filter(|held| **held).count();
            prop_assert_eq!(watch.metrics(at(now)).alerts.len(), holding);
        }
    }
}
