//! Limits an endpoint keeps to by itself: requests and tokens a minute, and requests at a time.
//!
//! *Invariant.* In no span of 60 seconds are more requests let through, or more tokens as far as they
//! were known, than the limits say; and those who wait go in the order they came. The window is
//! sans-IO; only [`RateLimits::admit`] waits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay::fault::Fault;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

const MINUTE: Duration = Duration::from_secs(60);
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Limits, and what was used of them. Clones share the account: give the same to every endpoint that
/// is paid from it. Set the limits before cloning.
#[derive(Clone)]
pub struct RateLimits {
    requests: Option<u64>,
    tokens: Option<u64>,
    max_wait: Duration,
    slots: Option<Arc<Semaphore>>,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    window: Window,
    /// What the window's times count from.
    start: Option<Instant>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl RateLimits {
    /// No limits yet.
    pub fn new() -> Self {
        Self {
            requests: None,
            tokens: None,
            max_wait: MAX_WAIT,
            slots: None,
            shared: Arc::new(Mutex::new(Shared { window: Window::default(), start: None })),
        }
    }

    /// Requests in any minute; at least one.
    ///
    /// # Default
    /// Any number.
    #[must_use]
    pub fn requests_per_minute(mut self, requests: u32) -> Self {
        self.requests = Some(u64::from(requests.max(1)));
        self
    }

    /// Tokens in any minute, read and written. A request counts with an estimate (a token for four
    /// bytes, and the tokens its answer may have) until its answer says what it was. One that is larger
    /// than the limit is let through when nothing else is counted.
    ///
    /// # Default
    /// Any number.
    #[must_use]
    pub fn tokens_per_minute(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens.max(1));
        self
    }

    /// Requests at a time, over all endpoints that share these limits; at least one.
    ///
    /// # Default
    /// Any number; each child has its own
    /// [`concurrency`](mainstay::spec::ChildSpec::concurrency).
    #[must_use]
    pub fn concurrent(mut self, requests: u32) -> Self {
        let requests = usize::try_from(requests.max(1)).unwrap_or(usize::MAX);
        self.slots = Some(Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))));
        self
    }

    /// How long a request may wait for its turn. Where it would be longer, or beyond the deadline, the
    /// request is refused at once, so that a sibling can take it. That closes the quota domain to nobody:
    /// a smaller request may fit. The attempt's own timeout runs while
    /// it waits.
    ///
    /// # Default
    /// 10 s.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Waits for the turn of a request of so many tokens.
    ///
    /// # Errors
    /// `RateLimit`, `local_limit`, not applied: the turn would come too late. It carries the wait where
    /// that is known, and says that these are [own limits](Fault::by_own_limits): others may have room.
    pub async fn admit(&self, tokens: u64, time_left: Duration) -> Result<Permit, Fault> {
        let begun = Instant::now();
        let most = self.max_wait.min(time_left);
        let refused = |text: String| {
            Fault::rate_limit(text).with_code("local_limit").not_applied().by_own_limits()
        };
        let slot = match &self.slots {
            None => None,
            Some(slots) => match timeout(most, Arc::clone(slots).acquire_owned()).await {
                Ok(Ok(slot)) => Some(slot),
                // It is never closed.
                Ok(Err(_)) => None,
                Err(_) => {
                    let text = format!("no request of the endpoint ended within {most:?}");
                    return Err(refused(text));
                }
            },
        };
        let most = most.saturating_sub(begun.elapsed());
        let (turn, wait) = {
            let mut shared = self.shared.lock();
            let now = Instant::now();
            let now = now - *shared.start.get_or_insert(now);
            let limits = (self.requests, self.tokens);
            let (number, at) =
                shared.window.reserve(now, tokens, limits, most).map_err(|wait| {
                    refused(format!("the endpoint's own limits leave room in {wait:?}"))
                        .with_retry_after(wait)
                })?;
            let turn = Turn { number, shared: Arc::clone(&self.shared), taken: false };
            (turn, at.saturating_sub(now))
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(Permit { turn: turn.take(), _slot: slot })
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits")
            .field("requests_per_minute", &self.requests)
            .field("tokens_per_minute", &self.tokens)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}

/// A request that was let through. Dropped without [`Permit::settle`] or [`Permit::give_back`], its estimate
/// stands.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    turn: Turn,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Gives its place back: nothing was sent.
    pub fn give_back(mut self) {
        self.turn.taken = false;
    }

    /// Says what it really used.
    pub fn settle(self, tokens: u64) {
        self.turn.shared.lock().window.settle(self.turn.number, tokens);
    }
}

/// A place in the window. Given back when whoever waits for it goes away, or has not sent anything.
struct Turn {
    number: u64,
    shared: Arc<Mutex<Shared>>,
    taken: bool,
}

impl Turn {
    fn take(mut self) -> Self {
        self.taken = true;
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.taken {
            self.shared.lock().window.give_back(self.number);
        }
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({})", self.number)
    }
}

/// What was let through in the last minute, and what is promised, in order of time and number.
#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Entry>,
    /// Of all entries. Wider than theirs, since a provider can say any number.
    tokens: u128,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    at: Duration,
    tokens: u64,
}

impl Window {
    /// Reserves the first time that keeps the limits, not before those who came earlier.
    ///
    /// # Errors
    /// That time is further away than `most`: how far.
    fn reserve(
        &mut self,
        now: Duration,
        tokens: u64,
        (requests, most_tokens): (Option<u64>, Option<u64>),
        most: Duration,
    ) -> Result<(u64, Duration), Duration> {
        while self.entries.front().is_some_and(|entry| entry.at + MINUTE <= now) {
            let gone = self.entries.pop_front();
            self.tokens -= gone.map_or(0, |entry| u128::from(entry.tokens));
        }
        let need = tokens.min(most_tokens.unwrap_or(u64::MAX));
        let mut at = self.entries.back().map_or(now, |last| last.at.max(now));
        let mut count = self.entries.len() as u64;
        let mut sum = self.tokens;
        for entry in &self.entries {
            let over = requests.is_some_and(|most| count >= most)
                || most_tokens.is_some_and(|most| sum + u128::from(need) > u128::from(most));
            // Those that are out of the window by then count no more.
            if !over && entry.at + MINUTE > at {
                break;
            }
            at = at.max(entry.at + MINUTE);
            count -= 1;
            sum -= u128::from(entry.tokens);
        }
        let wait = at.saturating_sub(now);
        if wait > most {
            return Err(wait);
        }
        let number = self.next;
        self.next += 1;
        self.entries.push_back(Entry { number, at, tokens: need });
        self.tokens += u128::from(need);
        Ok((number, at))
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    fn settle(&mut self, number: u64, tokens: u64) {
        if let Some(index) = self.find(number) {
            self.tokens -= u128::from(self.entries[index].tokens);
            self.tokens += u128::from(tokens);
            self.entries[index].tokens = tokens;
        }
    }

    fn give_back(&mut self, number: u64) {
        if let Some(entry) = self.find(number).and_then(|index| self.entries.remove(index)) {
            self.tokens -= u128::from(entry.tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::fault::{Class, EffectState};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn no_minute_holds_more_than_the_limits_and_nobody_waits_longer_than_needed() {
        for seed in 0..200_u64 {
            let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % below
            };
            let (requests, tokens) = (1 + random(8), 100 + random(1000));
            let mut window = Window::default();
            let mut now = Duration::ZERO;
            let mut let_through: Vec<(Duration, u64)> = Vec::new();
            for _ in 0..200 {
                now += Duration::from_millis(random(20_000));
                let need = random(150).min(tokens);
                let limits = (Some(requests), Some(tokens));
                let (_, at) = window.reserve(now, need, limits, Duration::MAX).unwrap();
                // The first moment that fits, tried by brute force over the moments that matter.
                let earliest = let_through.last().map_or(now, |(last, _)| now.max(*last));
                let mut moments: Vec<_> = let_through.iter().map(|(at, _)| *at + MINUTE).collect();
                moments.push(earliest);
                moments.retain(|at| *at >= earliest);
                moments.sort();
                let fits = |at: Duration| {
                    let within = let_through.iter().filter(|(other, _)| *other + MINUTE > at);
                    let (count, sum) =
                        within.fold((1, need), |(count, sum), (_, one)| (count + 1, sum + one));
                    count <= requests && sum <= tokens
                };
                let expected = moments.into_iter().find(|at| fits(*at)).unwrap();
                assert_eq!(at, expected, "seed {seed}");
                let_through.push((at, need));
            }
        }
    }

    #[test]
    fn what_was_really_used_counts_and_what_was_given_back_does_not() {
        let limits = (None, Some(100));
        let mut window = Window::default();
        let (first, _) = window.reserve(s(0), 100, limits, s(0)).unwrap();
        assert_eq!(window.reserve(s(1), 50, limits, s(10)), Err(s(59)));
        window.settle(first, 40);
        let (second, at) = window.reserve(s(1), 50, limits, s(10)).unwrap();
        assert_eq!(at, s(1));
        window.give_back(second);
        assert!(window.reserve(s(1), 60, limits, s(0)).is_ok());
        // More than there is goes alone.
        assert_eq!(window.reserve(s(2), 1000, limits, s(100)).unwrap().1, s(61));
        // Whatever a provider says it used.
        let (third, _) = window.reserve(s(200), 1, limits, s(0)).unwrap();
        window.settle(third, u64::MAX);
        let (fourth, at) = window.reserve(s(200), u64::MAX, limits, s(100)).unwrap();
        assert_eq!(at, s(260));
        window.settle(fourth, u64::MAX);
        // Long gone: nothing to settle.
        window.settle(first, 1_000_000);
        assert!(window.reserve(s(500), 100, limits, s(0)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_its_turn_or_is_refused_with_the_time() {
        let limits = RateLimits::new().requests_per_minute(2).max_wait(s(100));
        let start = Instant::now();
        for expected in [0, 0, 60, 60] {
            limits.admit(1, Duration::MAX).await.unwrap().settle(1);
            assert_eq!(start.elapsed(), s(expected));
        }
        // The deadline is nearer than the turn.
        let fault = limits.admit(1, s(59)).await.unwrap_err();
        assert_eq!((fault.class, fault.effect), (Class::RateLimit, EffectState::NotApplied));
        assert_eq!((fault.retry_after, fault.code.as_deref()), (Some(s(60)), Some("local_limit")));
        assert_eq!(start.elapsed(), s(60), "a refusal does not wait");
        let impatient = limits.clone().max_wait(s(1));
        assert!(impatient.admit(1, Duration::MAX).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_leaves_the_turn_to_the_next() {
        let limits = RateLimits::new().requests_per_minute(1).max_wait(s(300));
        let _first = limits.admit(1, Duration::MAX).await.unwrap();
        let start = Instant::now();
        timeout(s(1), limits.admit(1, Duration::MAX)).await.unwrap_err();
        let _second = limits.admit(1, Duration::MAX).await.unwrap();
        assert_eq!(start.elapsed(), s(60));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_let_in_by_rate_in_the_order_they_came() {
        let limits =
            RateLimits::new().requests_per_minute(3).tokens_per_minute(100).max_wait(s(300));
        let start = Instant::now();
        for second in [0, 10, 20] {
            tokio::time::advance(s(second).saturating_sub(start.elapsed())).await;
            limits.admit(10, Duration::MAX).await.unwrap().settle(10);
        }
        let waiters: Vec<_> = (0..6)
            .map(|n| {
                let limits = limits.clone();
                // The fourth asks for so many tokens that it waits for two others to be forgotten.
                let tokens = if n == 3 { 90 } else { 10 };
                async move {
                    let permit = limits.admit(tokens, Duration::MAX).await.unwrap();
                    permit.settle(tokens);
                    (n, start.elapsed())
                }
            })
            .map(tokio::spawn)
            .collect();
        let mut seen = Vec::new();
        for waiter in waiters {
            seen.push(waiter.await.unwrap());
        }
        let times = [60, 70, 80, 130, 140, 190];
        assert_eq!(seen, (0..6).zip(times.map(s)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn at_its_deadline_a_request_leaves_the_queue_and_holds_nobody_up() {
        let limits = RateLimits::new().requests_per_minute(1).concurrent(1).max_wait(s(300));
        let first = limits.admit(1, Duration::MAX).await.unwrap();
        let start = Instant::now();
        let ask = |left: u64| {
            let limits = limits.clone();
            tokio::spawn(async move {
                let outcome = limits.admit(1, s(left)).await.map(|permit| permit.settle(1));
                (outcome.map_err(|fault| fault.code), start.elapsed())
            })
        };
        // Behind the slot: one whose time is over first, one that waits for slot and rate, and one whose
        // deadline is nearer than its turn.
        let (soon, patient, late) = (ask(5), ask(200), ask(100));
        let local = || Err(Some("local_limit".into()));
        assert_eq!(soon.await.unwrap(), (local(), s(5)));
        drop(first);
        assert_eq!(patient.await.unwrap(), (Ok(()), s(60)));
        // It had the slot after the other, at 60 s, and is told at once that 120 s would be too late.
        assert_eq!(late.await.unwrap(), (local(), s(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_a_time_are_counted_over_all_who_share() {
        let limits = RateLimits::new().concurrent(1);
        let other = limits.clone();
        let permit = limits.admit(1, Duration::MAX).await.unwrap();
        let start = Instant::now();
        let fault = other.admit(1, s(3)).await.unwrap_err();
        assert_eq!((fault.class, start.elapsed()), (Class::RateLimit, s(3)));
        drop(permit);
        assert!(other.admit(1, s(0)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_counted_by_the_minute() {
        let limits = RateLimits::new().tokens_per_minute(100).max_wait(s(60));
        let start = Instant::now();
        limits.admit(80, Duration::MAX).await.unwrap().settle(80);
        let _second = limits.admit(80, Duration::MAX).await.unwrap();
        assert_eq!(start.elapsed(), s(60));
        assert!(!format!("{limits:?}").is_empty());
    }
}
