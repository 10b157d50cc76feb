//! The numbers that [`decide`](super::decide) follows: caps, schedules, limits, and their defaults.
//!
//! *Invariant.* A validated policy cannot be configured into an avalanche: a class cap is at most the
//! global cap, and the global cap is at most 3 unless somebody asked for unsafe limits by name.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::Scope;
use crate::error::SpecError;
use crate::fault::Class;
use crate::id::Delivery;
use crate::policy::accumulator::Tolerance;
use crate::policy::backoff::{self, Backoff, Jitter};
use crate::policy::history::History;
use crate::policy::strategy::What;

/// How one class is treated.
///
/// # Default
///
/// Never retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The most retries of one request after faults of this class.
    pub cap: u32,
    /// The waits before them.
    pub backoff: Backoff,
    /// What a retry starts again.
    pub what: What,
}

impl Rule {
    /// At most `cap` retries on this schedule, each starting the attempt again.
    pub const fn new(cap: u32, backoff: Backoff) -> Self {
        Self { cap, backoff, what: What::Attempt }
    }

    /// The same rule, starting this again.
    #[must_use]
    pub const fn with_what(mut self, what: What) -> Self {
        self.what = what;
        self
    }
}

/// How failures are answered. Plain data; [`Policy::validate`] it before use.
///
/// # Default
///
/// The playbook's numbers, with jitter: the table at the head of [`crate::policy`], at most 3 retries a
/// request, waits up to 30 s, attempts up to 30 s with 1 s of grace, 5 hand-outs, 1 redelivery after a
/// crash, 5 substitutes, up to 20 % jitter, 1 ms for an attempt to be worth a retry, 20 soft failures of a task in 60 s, rollbacks for a
/// request as wide as its class reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Policy {
    rules: Rules,
    /// The most retries of one request over all classes and members.
    pub global_cap: u32,
    /// The longest wait before a retry, and the longest wait asked for that is accepted.
    pub max_delay: Duration,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How long an attempt may go on after its timeout before it counts as hanging.
    pub hang_grace: Duration,
    /// The least time an attempt needs; a retry that would have less is not waited for.
    pub min_attempt: Duration,
    /// How often a request is handed out, substitutes not counted: the first time, retries and
    /// interruptions.
    pub delivery_cap: u32,
    /// How often a request that ended a life is handed out again. The next life it ends quarantines it.
    pub crash_redeliveries: u32,
    /// The longest chain of substitutes.
    pub depth_limit: u32,
    /// How much later than the schedule a retry may come.
    pub jitter: Jitter,
    /// How many soft failures of a task are mended one by one. Once they have added up, a fault is not
    /// retried: it goes to the next rung, a sibling, a rollback or the parent's ladder.
    pub tolerance: Tolerance,
    /// The widest scope that is rolled back for a request without a person, where its class would have
    /// a wider one ([`reach`](crate::policy::reach)).
    pub widest_rollback: Scope,
    unsafe_limits: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// The ceilings that only [`Policy::unsafe_limits`] lifts: retries a request.
    pub const GLOBAL_CAP: u32 = 3;
    /// The ceiling of [`Policy::max_delay`].
    pub const MAX_DELAY: Duration = Duration::from_secs(30);
    /// The ceiling of [`Policy::depth_limit`].
    pub const DEPTH_LIMIT: u32 = 5;
    /// The ceiling of [`Policy::crash_redeliveries`].
    pub const CRASH_REDELIVERIES: u32 = 1;
    /// The ceiling of the global cap that nothing lifts: beyond it a cap no longer bounds anything.
    pub const HARD_CAP: u32 = 100;

    /// The default policy.
    pub const fn new() -> Self {
        Self {
            rules: Rules::PLAYBOOK,
            global_cap: Self::GLOBAL_CAP,
            max_delay: Self::MAX_DELAY,
            attempt_timeout: Duration::from_secs(30),
            hang_grace: Duration::from_secs(1),
            // Not zero: an attempt that would start at the deadline itself cannot be answered in
            // time, and a sibling can be asked now.
            min_attempt: Duration::from_millis(1),
            delivery_cap: 5,
            crash_redeliveries: Self::CRASH_REDELIVERIES,
            depth_limit: Self::DEPTH_LIMIT,
            jitter: Jitter::Ratio { percent: 20 },
            tolerance: Tolerance::new(20, Duration::from_secs(60)),
            widest_rollback: Scope::System,
            unsafe_limits: false,
        }
    }

    /// The playbook to the letter: the default without jitter.
    pub const fn playbook_exact() -> Self {
        Self::new().with_jitter(Jitter::None)
    }

    /// No retries of any class, and no second delivery after a crash.
    pub const fn without_retries() -> Self {
        Self::new().once()
    }

    /// The same policy, without retries of any class and without a second delivery after a crash.
    #[must_use]
    pub const fn once(self) -> Self {
        let mut policy = self.with_global_cap(0).with_crash_redeliveries(0);
        let mut class = 0;
        while class < policy.rules.0.len() {
            policy.rules.0[class].cap = 0;
            class += 1;
        }
        policy
    }

    /// Whether any request is handed out a second time under it, but for one that was interrupted.
    pub const fn retries(&self) -> bool {
        let mut class = 0;
        while class < self.rules.0.len() {
            if self.rules.0[class].cap > 0 && self.global_cap > 0 {
                return true;
            }
            class += 1;
        }
        self.crash_redeliveries > 0
    }

    /// For generators of code: an answer that did not pass is generated again up to twice, at once,
    /// provided that the request changes (feedback is added).
    pub const fn code_generation() -> Self {
        Self::new().with_rule(Class::OutputInvalid, Rule::new(2, Backoff::None))
    }

    /// The rule of a class.
    pub const fn rule(&self, class: Class) -> Rule {
        self.rules.0[class as usize]
    }

    /// What a retry of this class starts again.
    pub const fn what(&self, class: Class) -> What {
        self.rule(class).what
    }

    /// The same policy with this rule for a class.
    #[must_use]
    pub const fn with_rule(mut self, class: Class, rule: Rule) -> Self {
        self.rules.0[class as usize] = rule;
        self
    }

    /// The same policy with this cap for a class.
    #[must_use]
    pub const fn with_cap(mut self, class: Class, cap: u32) -> Self {
        self.rules.0[class as usize].cap = cap;
        self
    }

    /// The same policy with this schedule for a class.
    #[must_use]
    pub const fn with_backoff(mut self, class: Class, backoff: Backoff) -> Self {
        self.rules.0[class as usize].backoff = backoff;
        self
    }

    /// The same policy, starting this again after faults of a class.
    #[must_use]
    pub const fn with_what(mut self, class: Class, what: What) -> Self {
        self.rules.0[class as usize].what = what;
        self
    }

    /// The same policy with this cap over all classes.
    #[must_use]
    pub const fn with_global_cap(mut self, cap: u32) -> Self {
        self.global_cap = cap;
        self
    }

    /// The same policy with this longest wait.
    #[must_use]
    pub const fn with_max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The same policy with this attempt timeout.
    #[must_use]
    pub const fn with_attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// The same policy with this grace before an attempt counts as hanging.
    #[must_use]
    pub const fn with_hang_grace(mut self, grace: Duration) -> Self {
        self.hang_grace = grace;
        self
    }

    /// The same policy with this least time for an attempt.
    #[must_use]
    pub const fn with_min_attempt(mut self, least: Duration) -> Self {
        self.min_attempt = least;
        self
    }

    /// The same policy with this cap on hand-outs.
    #[must_use]
    pub const fn with_delivery_cap(mut self, cap: u32) -> Self {
        self.delivery_cap = cap;
        self
    }

    /// The same policy with this many redeliveries after a crash: 0 or 1.
    #[must_use]
    pub const fn with_crash_redeliveries(mut self, redeliveries: u32) -> Self {
        self.crash_redeliveries = redeliveries;
        self
    }

    /// The same policy with this longest chain of substitutes.
    #[must_use]
    pub const fn with_depth_limit(mut self, limit: u32) -> Self {
        self.depth_limit = limit;
        self
    }

    /// The same policy with this jitter.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The same policy, mending so many soft failures of a task within this window one by one.
    #[must_use]
    pub const fn with_tolerance(mut self, failures: u32, window: Duration) -> Self {
        self.tolerance = Tolerance::new(failures, window);
        self
    }

    /// The same policy, rolling back at most this scope for a request by itself.
    /// [`Scope::Step`]: only what the request itself has done.
    #[must_use]
    pub const fn with_widest_rollback(mut self, scope: Scope) -> Self {
        self.widest_rollback = scope;
        self
    }

    /// The same policy without the ceilings of safety: a global cap above 3, waits above 30 s, longer
    /// chains, more redeliveries after crashes. Whoever runs such a policy logs it.
    #[must_use]
    pub const fn unsafe_limits(mut self) -> Self {
        self.unsafe_limits = true;
        self
    }

    /// Whether [`Policy::unsafe_limits`] was asked for.
    pub const fn has_unsafe_limits(&self) -> bool {
        self.unsafe_limits
    }

    /// The wait before retry `n` of a class, without jitter; `None` past the cap: then there is no
    /// retry, and nothing to wait for.
    pub fn delay(&self, class: Class, n: NonZeroU32) -> Option<Duration> {
        let rule = self.rule(class);
        (n.get() <= rule.cap && may_be_retried(class))
            .then(|| rule.backoff.delay(n.get(), self.max_delay))
    }

    /// Whether a request that was handed out as `delivery` may be handed out once more to somebody
    /// other than a substitute: for a retry, or after an interruption.
    ///
    /// Substitutes are bounded by the depth and by the allow-list. Counted here as well, they would
    /// cut a chain short: three retries and two substitutes are six hand-outs.
    pub const fn may_hand_out(&self, delivery: Delivery, history: &History) -> bool {
        delivery.0.saturating_sub(history.substitutions()) < self.delivery_cap
    }

    /// How long a request may take at worst in a group of `members` (1 for a child alone): an attempt
    /// timeout for the first attempt, each retry and each substitute, and the longest waits that the
    /// global cap allows, with jitter. What another side asks us to wait is not in it: such a wait is
    /// accepted only as far as the deadline allows.
    pub fn worst_case(&self, members: usize) -> Duration {
        let extra = u32::try_from(members.saturating_sub(1)).unwrap_or(u32::MAX);
        let attempts =
            self.global_cap.saturating_add(1).saturating_add(extra.min(self.depth_limit));
        self.attempt_timeout.saturating_mul(attempts).saturating_add(self.longest_waits())
    }

    /// The largest sum of waits that one request can collect: a choice of at most `global_cap` retries
    /// over all classes, each class from its first wait on.
    fn longest_waits(&self) -> Duration {
        let cap = self.global_cap.min(Self::HARD_CAP) as usize;
        let mut best = vec![Duration::ZERO; cap + 1];
        for class in Class::ALL {
            // Overloaded waits as rate limit does when it waits at all.
            let waits = if matches!(class, Class::Overloaded) { Class::RateLimit } else { class };
            let mut sums = vec![Duration::ZERO];
            for n in (1..=cap as u32).map_while(NonZeroU32::new) {
                let Some(delay) = self.delay(waits, n) else { break };
                let wait = backoff::whole_millis(self.jitter.longest(delay).min(self.max_delay));
                sums.push(sums[sums.len() - 1].saturating_add(wait));
            }
            for total in (1..=cap).rev() {
                for (used, sum) in sums.iter().enumerate().take(total + 1) {
                    best[total] = best[total].max(best[total - used].saturating_add(*sum));
                }
            }
        }
        best[cap]
    }

    /// Whether this policy can be run. `path` names the child or supervisor in the error.
    ///
    /// # Errors
    ///
    /// The first value that cannot be, with where it stands.
    pub fn validate(&self, path: &str) -> Result<(), SpecError> {
        let zero = |what| Err(SpecError::Zero { path: path.to_owned(), what });
        let range = |what, value: String, expected: &str| {
            let expected = expected.to_owned();
            Err(SpecError::OutOfRange { path: path.to_owned(), what, value, expected })
        };
        if self.global_cap > Self::HARD_CAP {
            return range("the global retry cap", self.global_cap.to_string(), "at most 100");
        }
        if !self.unsafe_limits {
            const HOW: &str = "(or ask for `unsafe_limits`)";
            if self.global_cap > Self::GLOBAL_CAP {
                let value = self.global_cap.to_string();
                return range("the global retry cap", value, &format!("at most 3 {HOW}"));
            }
            if self.max_delay > Self::MAX_DELAY {
                let value = format!("{:?}", self.max_delay);
                return range("the longest delay", value, &format!("at most 30s {HOW}"));
            }
            if self.depth_limit > Self::DEPTH_LIMIT {
                let value = self.depth_limit.to_string();
                return range("the depth limit", value, &format!("at most 5 {HOW}"));
            }
            if self.crash_redeliveries > Self::CRASH_REDELIVERIES {
                let value = self.crash_redeliveries.to_string();
                return range("the crash redeliveries", value, &format!("at most 1 {HOW}"));
            }
        }
        if self.max_delay.is_zero() {
            return zero("the longest delay");
        }
        if self.attempt_timeout.is_zero() {
            return zero("the attempt timeout");
        }
        if self.delivery_cap == 0 {
            return zero("the delivery cap");
        }
        if self.tolerance.failures == 0 {
            return zero("the tolerance of soft failures");
        }
        if self.tolerance.failures > Tolerance::MOST {
            let value = self.tolerance.failures.to_string();
            return range("the tolerance of soft failures", value, "at most 10000");
        }
        if self.tolerance.window.is_zero() {
            return zero("the window of the tolerance");
        }
        if self.min_attempt > self.attempt_timeout {
            let value = format!("{:?}", self.min_attempt);
            return range("the least time for an attempt", value, "at most the attempt timeout");
        }
        if let Jitter::Ratio { percent: percent @ 101.. } = self.jitter {
            return range("the jitter", format!("{percent} %"), "at most 100 %");
        }
        for class in Class::ALL {
            let Rule { cap, backoff, .. } = self.rule(class);
            if cap > 0 && !may_be_retried(class) {
                return range("the retry cap", format!("{cap} for {class}"), "0: never retried");
            }
            if cap > self.global_cap {
                return Err(SpecError::CapAboveGlobal {
                    path: path.to_owned(),
                    class,
                    cap,
                    global: self.global_cap,
                });
            }
            match backoff {
                Backoff::Exponential { factor, .. } if !(factor.is_finite() && factor >= 1.0) => {
                    return range(
                        "a backoff factor",
                        format!("{factor} for {class}"),
                        "at least 1",
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a policy may grant retries to this class at all. For the others a cap is a `SpecError`,
/// and one that got in unvalidated is not followed.
pub(crate) const fn may_be_retried(class: Class) -> bool {
    matches!(
        class,
        Class::Network
            | Class::ServerTransient
            | Class::Timeout
            | Class::Indeterminate
            | Class::RateLimit
            | Class::Overloaded
            | Class::ToolExecution
            | Class::OutputInvalid
    )
}

/// One rule a class. Stored by name; a class that is missing has the playbook's rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Class, Rule>", into = "BTreeMap<Class, Rule>")]
struct Rules([Rule; Class::ALL.len()]);

impl Rules {
    const PLAYBOOK: Self = {
        const NEVER: Rule = Rule::new(0, Backoff::None);
        const NETWORK: Rule = Rule::new(3, Backoff::doubling(Backoff::BASE));
        const TIMEOUT: Rule = Rule::new(2, Backoff::doubling(Duration::from_millis(500)));
        let mut rules = [NEVER; Class::ALL.len()];
        rules[Class::Network as usize] = NETWORK;
        rules[Class::ServerTransient as usize] = NETWORK;
        rules[Class::Timeout as usize] = TIMEOUT;
        rules[Class::Indeterminate as usize] = TIMEOUT;
        rules[Class::RateLimit as usize] = Rule::new(1, Backoff::Fixed(Duration::from_secs(2)));
        rules[Class::ToolExecution as usize] = Rule::new(2, Backoff::doubling(Backoff::BASE));
        Self(rules)
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::PLAYBOOK
    }
}

impl From<BTreeMap<Class, Rule>> for Rules {
    fn from(map: BTreeMap<Class, Rule>) -> Self {
        let mut rules = Self::PLAYBOOK;
        for (class, rule) in map {
            rules.0[class as usize] = rule;
        }
        rules
    }
}

impl From<Rules> for BTreeMap<Class, Rule> {
    fn from(rules: Rules) -> Self {
        Class::ALL.into_iter().map(|class| (class, rules.0[class as usize])).collect()
    }
}
