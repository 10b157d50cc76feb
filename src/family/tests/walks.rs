//! Walks through whatever may happen, with a runner that is legal and otherwise unpredictable.
//!
//! The world below knows nothing of strategies. It keeps who is really up, and what was promised.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::{Just, ProptestConfig, any, prop};
use proptest::strategy::Strategy as Generate;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;

/// One run as the runner carries it out.
struct Runner {
    run: RunId,
    all: BTreeSet<Key>,
    stop: VecDeque<Key>,
    start: VecDeque<(Key, Incarnation)>,
}

type Report = (RunId, Result<(), (Key, ExitCause)>);
type Exit = (Key, Incarnation, ExitCause, Option<Strategy>);

struct World {
    family: Family,
    now: Moment,
    /// Who is really up.
    up: BTreeMap<Key, Incarnation>,
    /// The last life that was handed out.
    handed: BTreeMap<Key, Incarnation>,
    runners: Vec<Runner>,
    /// Said by runners and lives, and not delivered yet. Also of runs that were called off since.
    reports: Vec<Report>,
    exits: Vec<Exit>,
    timers: Vec<(Token, Moment)>,
    /// Delivered once already: to be delivered again.
    old_reports: Vec<RunId>,
    old_exits: Vec<Exit>,
    old_timers: Vec<Token>,
    /// Tickets by number: answered?
    tickets: Vec<bool>,
    /// The ticket that asked for this child.
    asked: BTreeMap<Key, u64>,
    /// The child each `Terminate` was about, and each `Restart`.
    terminates: BTreeMap<u64, Key>,
    revivals: BTreeMap<u64, Key>,
    /// Whom only an operator may start, and the `Terminate` that said so, if it was one.
    parked: BTreeMap<Key, Option<u64>>,
    removed: BTreeSet<Key>,
    /// Restarts as the outputs say.
    restarts: Vec<Moment>,
    own: BTreeMap<Key, Vec<Moment>>,
    stopped: bool,
    hurried: bool,
    /// The run that stops everything has been handed out.
    ending: bool,
    finished: usize,
}

const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

impl World {
    fn new(options: FamilyOptions, children: &[ChildOptions]) -> Self {
        let mut family = Family::new(ChildPath::new("top"), options);
        for (options, id) in children.iter().zip(IDS) {
            family.add_static(id.into(), *options, Incarnation::NONE).unwrap();
        }
        Self {
            family,
            now: Moment::START,
            up: BTreeMap::new(),
            handed: BTreeMap::new(),
            runners: Vec::new(),
            reports: Vec::new(),
            exits: Vec::new(),
            timers: Vec::new(),
            old_reports: Vec::new(),
            old_exits: Vec::new(),
            old_timers: Vec::new(),
            tickets: Vec::new(),
            asked: BTreeMap::new(),
            terminates: BTreeMap::new(),
            revivals: BTreeMap::new(),
            parked: BTreeMap::new(),
            removed: BTreeSet::new(),
            restarts: Vec::new(),
            own: BTreeMap::new(),
            stopped: false,
            hurried: false,
            ending: false,
            finished: 0,
        }
    }

    fn feed(&mut self, input: Input) {
        self.stopped |= matches!(input, Input::Stop { .. });
        let kinds: BTreeMap<Key, ChildOptions> =
            self.family.which_children().into_iter().map(|i| (i.key, i.options)).collect();
        // Who asks a supervisor that is no more is told so; nothing else is said after the end.
        let late = (self.finished > 0).then(|| (self.tickets.len() as u64).wrapping_sub(1));
        for output in self.family.on(input, self.now) {
            let refused = matches!(
                output,
                Output::Reply {
                    ticket,
                    reply: Reply::StartRefused(StartError::SupervisorGone(_))
                        | Reply::ChildRefused(ChildError::SupervisorGone(_)),
                } if Some(ticket.0) == late
            );
            assert!(self.finished == 0 || refused, "said after the end: {output:?}");
            self.obey(output, &kinds);
        }
        self.check();
    }

    /// The first and the last `Restart` of this child that is not answered.
    fn wishes(&self, key: Key) -> (Option<u64>, Option<u64>) {
        let mut open = self
            .revivals
            .iter()
            .filter(|&(&ticket, &of)| of == key && !self.tickets[ticket as usize]);
        let first = open.next().map(|(&ticket, _)| ticket);
        (first, open.next_back().map(|(&ticket, _)| ticket).or(first))
    }

    fn within(&self, times: &[Moment], period: Duration) -> usize {
        times.iter().filter(|&&at| self.now.since(at) <= period).count()
    }

    fn limit(&self, options: ChildOptions) -> Option<Limit> {
        options.child_limit.or(self.family.options().child_limit)
    }

    fn obey(&mut self, output: Output, kinds: &BTreeMap<Key, ChildOptions>) {
        let intensity = self.family.options().intensity;
        match output {
            Output::Run { run, stop, start, parallel, until } => {
                self.run(run, &stop, &start, kinds);
                assert!(!parallel || start.is_empty() || until.is_some());
                assert!(until.is_none_or(|_| self.hurried), "nobody is in a hurry");
            }
            Output::CancelRun(run) => {
                let before = self.runners.len();
                self.runners.retain(|runner| runner.run != run);
                let reported = self.reports.iter().any(|(reported, _)| *reported == run);
                assert!(before > self.runners.len() || reported, "no run {run:?}");
                self.old_reports.push(run);
            }
            Output::Arm { token, at } => {
                assert!(at > self.now);
                self.timers.push((token, at));
            }
            Output::Quarantined { key, .. } => {
                let limit = self.limit(kinds[&key]).expect("a limit");
                let own = self.own.get(&key).map_or(0, |own| self.within(own, limit.period));
                assert_eq!(own, limit.count as usize, "quarantined early or late");
                self.parked.insert(key, None);
                assert!(!self.up.contains_key(&key));
            }
            Output::Rests { key, .. } => {
                assert!(!self.up.contains_key(&key), "rests and up");
            }
            Output::Removed { key, id } => {
                assert!(!self.up.contains_key(&key), "{id} was removed alive");
                assert!(self.removed.insert(key));
                assert_eq!(self.family.id_of(key), None);
            }
            Output::Reply { ticket, reply } => {
                let answered = &mut self.tickets[ticket.0 as usize];
                assert!(!*answered, "answered twice: {reply:?}");
                *answered = true;
                let asked = self.terminates.get(&ticket.0).or(self.revivals.get(&ticket.0));
                let Some(&key) = asked else { return };
                match reply {
                    Reply::Terminated => {
                        assert!(!self.up.contains_key(&key), "terminated and up");
                        let (waiting, _) = self.wishes(key);
                        assert!(waiting.is_none_or(|other| other > ticket.0), "out of order");
                        self.parked.insert(key, Some(ticket.0));
                    }
                    Reply::ChildRefused(ChildError::StartFailed { .. }) => {
                        self.parked.insert(key, Some(ticket.0));
                    }
                    _ => {}
                }
            }
            Output::Restarting { key, restarts, .. } => {
                self.restarts.push(self.now);
                assert_eq!(restarts as usize, self.within(&self.restarts, intensity.period));
                assert!(restarts <= intensity.count);
                self.own.entry(key).or_default().push(self.now);
                if let Some(limit) = self.limit(kinds[&key]) {
                    let own = self.within(&self.own[&key], limit.period);
                    assert!(own <= limit.count as usize, "one restart too many");
                }
            }
            Output::Booted => {}
            Output::Finished { cause, start_error } => {
                self.finished += 1;
                assert!(self.up.is_empty(), "up after the end: {:?}", self.up);
                assert!(self.runners.is_empty());
                assert!(start_error.is_none() || matches!(cause, ExitCause::StartFailed(_)));
                if let ExitCause::Intensity { restarts, .. } = cause {
                    assert_eq!(restarts, intensity.count + 1);
                }
            }
        }
    }

    fn run(
        &mut self,
        run: RunId,
        stop: &[(Key, bool)],
        start: &[(Key, Incarnation)],
        kinds: &BTreeMap<Key, ChildOptions>,
    ) {
        assert!(!stop.is_empty() || !start.is_empty(), "an empty run");
        assert!(stop.is_sorted_by(|a, b| a.0 > b.0), "stops in reverse order: {stop:?}");
        assert!(start.is_sorted_by(|a, b| a.0 < b.0), "starts in order: {start:?}");
        if matches!(self.family.jobs.get(&run), Some(Job::Last)) {
            assert!(self.runners.is_empty(), "runs that go on beside the end");
            self.ending = true;
        }
        assert!(!self.ending || start.is_empty(), "started after the end had begun");
        assert!(!self.stopped || stop.iter().all(|(_, follows)| !follows));
        let stops = stop.iter().map(|&(key, _)| key);
        let all: BTreeSet<Key> = stops.clone().chain(start.iter().map(|&(key, _)| key)).collect();
        for other in &self.runners {
            assert!(other.all.is_disjoint(&all), "a child in two runs");
        }
        for &(key, life) in start {
            if matches!(self.family.jobs.get(&run), Some(Job::Revive(..))) {
                self.own.remove(&key);
            }
            let handed = self.handed.entry(key).or_default();
            assert_eq!(life, handed.next(), "lives grow by one");
            if kinds.get(&key).is_some_and(|kind| kind.restart == RestartType::Temporary)
                && *handed != Incarnation::NONE
                && !matches!(self.family.jobs.get(&run), Some(Job::Reset(..)))
            {
                let ticket = self.asked.get(&key).expect("a static temporary child started twice");
                assert!(!self.tickets[*ticket as usize], "a temporary child was restarted");
            }
            *handed = life;
            // An operator's word is a `Restart` that is not answered yet, said after the `Terminate`.
            if let Some(word) = self.parked.remove(&key) {
                let (_, last) = self.wishes(key);
                let lifted = last.is_some_and(|restart| word.is_none_or(|word| restart > word));
                assert!(lifted, "started against an operator's word");
            }
        }
        let stop = stops.collect();
        self.runners.push(Runner { run, all, stop, start: start.iter().copied().collect() });
    }

    /// What must hold after every step.
    fn check(&self) {
        let infos = self.family.which_children();
        let counts = self.family.count_children();
        let active = infos.iter().filter(|i| i.status == ChildStatus::Running).count();
        let supervisors = infos.iter().filter(|i| i.options.is_supervisor).count();
        let workers = infos.len() - supervisors;
        assert_eq!(counts, ChildCounts { specs: infos.len(), active, supervisors, workers });
        let alive = |child: &Child| child.options.significant && child.phase.is_alive();
        let significant = self.family.children.values().filter(|child| alive(child)).count();
        assert_eq!(self.family.tally.significant, significant);
        for info in &infos {
            assert_eq!(self.family.key_of(&info.id), Some(info.key));
            assert!(!self.removed.contains(&info.key), "a key was used again");
        }
        if let Some(max) = self.family.options().max_children {
            assert!(infos.len() <= max.max(IDS.len()));
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets.push(false);
        Ticket(self.tickets.len() as u64 - 1)
    }

    /// The runner does its next stop or start, or reports.
    fn advance(&mut self, at: usize, fails: bool) {
        let Some(runner) = self.runners.get_mut(at) else { return };
        let run = runner.run;
        let result = if let Some(key) = runner.stop.pop_front() {
            if let Some(life) = self.up.remove(&key) {
                let cause = if fails { ExitCause::Killed } else { ExitCause::Stopped };
                self.exits.push((key, life, cause, None));
            }
            return;
        } else if let Some((key, life)) = runner.start.pop_front() {
            if fails {
                Err((key, ExitCause::StartFailed("no".into())))
            } else {
                assert_eq!(self.up.insert(key, life), None, "two lives of {key}");
                return;
            }
        } else {
            Ok(())
        };
        self.runners.remove(at);
        self.reports.push((run, result));
    }

    fn report(&mut self, at: usize) {
        let (run, result) = self.reports.remove(at);
        self.old_reports.push(run);
        self.feed(Input::RunDone { run, result });
    }

    fn deliver(&mut self, at: usize) {
        let (key, incarnation, cause, widen) = self.exits.remove(at);
        self.old_exits.push((key, incarnation, cause.clone(), widen));
        self.feed(Input::Exited { key, incarnation, cause, widen });
    }

    fn ring(&mut self, at: usize) {
        let (token, due) = self.timers.remove(at);
        self.now = Moment::from_nanos(self.now.as_nanos().max(due.as_nanos()));
        self.old_timers.push(token);
        self.feed(Input::Due { token });
    }

    fn operate(&mut self, what: u8, id: &'static str, options: ChildOptions) {
        let (ticket, id): (_, Arc<str>) = (self.ticket(), id.into());
        let key = self.family.key_of(&id);
        match what {
            0 => {
                let last = Incarnation::NONE;
                self.feed_start(
                    ticket,
                    Input::Start { ticket, id: id.clone(), options, last },
                    &id,
                );
            }
            1 => {
                self.terminates.extend(key.map(|key| (ticket.0, key)));
                self.feed(Input::Terminate { ticket, id });
            }
            2 => {
                self.revivals.extend(key.map(|key| (ticket.0, key)));
                self.feed(Input::Restart { ticket, id });
            }
            3 => self.feed(Input::Delete { ticket, id }),
            _ => {
                let id = key.filter(|_| options.significant).map(|_| id);
                let until = options.child_limit.map(|limit| self.now + limit.period);
                self.hurried |= until.is_some();
                self.feed(Input::Reset { ticket, id, until });
            }
        }
    }

    fn feed_start(&mut self, ticket: Ticket, input: Input, id: &str) {
        let before = self.family.key_of(id);
        self.feed(input);
        if let Some(key) = self.family.key_of(id)
            && before.is_none()
        {
            self.asked.insert(key, ticket.0);
        }
    }

    /// One step of the walk.
    fn step(&mut self, kind: u8, x: usize, options: ChildOptions) {
        let pick = |len: usize| (len > 0).then(|| x % len);
        match kind {
            0..40 => {
                if let Some(at) = pick(self.runners.len()) {
                    self.advance(at, kind >= 36);
                }
            }
            40..55 => {
                if let Some(at) = pick(self.reports.len()) {
                    self.report(at);
                }
            }
            55..70 => {
                if let Some((&key, &life)) = self.up.iter().nth(x % self.up.len().max(1)) {
                    self.up.remove(&key);
                    let cause = if x.is_multiple_of(3) { ExitCause::Normal } else { panic() };
                    let widen = match x % 11 {
                        0 => Some(Strategy::OneForAll),
                        1 => Some(Strategy::RestForOne),
                        _ => None,
                    };
                    self.exits.push((key, life, cause, widen));
                }
            }
            70..82 => {
                if let Some(at) = pick(self.exits.len()) {
                    self.deliver(at);
                }
            }
            82..88 => {
                if let Some(at) = pick(self.timers.len()) {
                    self.ring(at);
                }
            }
            88..98 => self.operate(kind % 5, IDS[x % IDS.len()], options),
            98 => self.now = self.now + Duration::from_millis(x as u64),
            _ => self.repeat(x),
        }
    }

    /// Says something again that has been said.
    fn repeat(&mut self, x: usize) {
        if let Some(&run) = self.old_reports.get(x % self.old_reports.len().max(1)) {
            self.feed(Input::RunDone { run, result: Ok(()) });
        }
        if let Some(exit) = self.old_exits.get(x % self.old_exits.len().max(1)).cloned() {
            let (key, incarnation, cause, widen) = exit;
            self.feed(Input::Exited { key, incarnation, cause, widen });
        }
        if let Some(&token) = self.old_timers.get(x % self.old_timers.len().max(1)) {
            self.feed(Input::Due { token });
        }
    }

    /// Nothing more goes wrong, and everything is delivered.
    fn calm(&mut self) {
        for _ in 0..10_000 {
            if !self.runners.is_empty() {
                self.advance(0, false);
            } else if !self.exits.is_empty() {
                self.deliver(0);
            } else if !self.reports.is_empty() {
                self.report(0);
            } else if !self.timers.is_empty() {
                self.ring(0);
            } else {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// What must hold once everything has come to rest.
    fn check_rest(&self) {
        assert!(self.tickets.iter().all(|answered| *answered), "a ticket without an answer");
        assert!(self.family.jobs.is_empty());
        assert!(self.family.queue.is_empty() && self.family.after.is_empty());
        for info in self.family.which_children() {
            let up = self.up.get(&info.key);
            match info.status {
                ChildStatus::Running => assert_eq!(up, Some(&info.incarnation)),
                ChildStatus::Stopped | ChildStatus::Quarantined => assert_eq!(up, None),
                other => panic!("{other} at rest"),
            }
        }
        let known = |key| self.family.id_of(key).is_some();
        assert!(self.up.keys().all(|&key| known(key)), "a life without a child");
    }
}

fn arb_child() -> impl Generate<Value = ChildOptions> {
    let restart = prop_oneof![
        3 => Just(RestartType::Permanent),
        2 => Just(RestartType::Transient),
        2 => Just(RestartType::Temporary),
    ];
    let limit = prop_oneof![5 => Just(None), 1 => (0..3_u32).prop_map(Some)];
    (restart, any::<bool>(), any::<bool>(), limit).prop_map(
        |(restart, significant, is_supervisor, limit)| {
            let child_limit = limit.map(|count| Limit::new(count, Duration::from_secs(3)));
            ChildOptions { restart, significant, is_supervisor, child_limit }
        },
    )
}

fn arb_options() -> impl Generate<Value = FamilyOptions> {
    let strategy = prop_oneof![
        Just(Strategy::OneForOne),
        Just(Strategy::RestForOne),
        Just(Strategy::OneForAll)
    ];
    let auto = prop_oneof![
        6 => Just(AutoShutdown::Never),
        1 => Just(AutoShutdown::AnySignificant),
        1 => Just(AutoShutdown::AllSignificant),
    ];
    let count = prop_oneof![Just(0_u32), 1..4_u32, Just(50)];
    let child = prop_oneof![3 => Just(None), 1 => (0..4_u32).prop_map(Some)];
    let backoff = prop_oneof![
        Just(None),
        Just(Some((Duration::from_millis(10), Duration::from_millis(100))))
    ];
    let max = prop_oneof![3 => Just(None), 1 => (3..9_usize).prop_map(Some)];
    (strategy, auto, count, child, backoff, max, any::<bool>()).prop_map(
        |(strategy, auto_shutdown, count, child, backoff, max_children, parallel_stop)| {
            FamilyOptions {
                strategy,
                intensity: Limit::new(count, Duration::from_secs(5)),
                child_limit: child.map(|count| Limit::new(count, Duration::from_secs(7))),
                auto_shutdown,
                max_children,
                parallel_stop,
                backoff,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_promises_are_kept(
        options in arb_options(),
        children in prop::collection::vec(arb_child(), 0..6),
        steps in prop::collection::vec((0..100_u8, any::<u16>(), arb_child()), 0..250),
        end in any::<bool>(),
    ) {
        let mut world = World::new(options, &children);
        world.feed(Input::Boot);
        for (kind, x, options) in steps {
            world.step(kind, usize::from(x), options);
        }
        if !end {
            world.calm();
            world.check_rest();
            let options = world.family.options().clone();
            for info in world.family.which_children() {
                let falls = world.finished > 0;
                if info.options.restart == RestartType::Permanent && !falls {
                    let parked = info.status != ChildStatus::Running;
                    let rest = world.family.children[&info.key].phase;
                    prop_assert!(!parked || rest != Phase::Idle(Rest::Ended), "lost: {options:?}");
                }
            }
        }
        world.feed(Input::Stop { cause: ExitCause::Stopped, until: None });
        world.calm();
        world.check_rest();
        prop_assert_eq!(world.finished, 1);
        prop_assert!(world.family.is_finished());
    }
}
