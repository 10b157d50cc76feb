//! When a stream may be heard: held back, then let through, then over.
//!
//! ```text
//! Buffering --enough content, or a good end--> Committed --end--> Done
//!     \------------------ failure, nothing heard ------------------^
//! ```
//!
//! *Invariant.* Sans-IO: time is handed in, as time since the response began. Nothing is given before
//! the commit, everything once after it, in order.

use std::time::Duration;

use mainstay::fault::Fault;

/// Pieces that are held back before the commit, at most.
const MOST_PIECES: usize = 512;
/// Bytes that are held back before the commit, at most.
const MOST_BYTES: usize = 1024 * 1024;
/// See [`Model::idle_timeout`](super::Model::idle_timeout).
const IDLE: Duration = Duration::from_secs(15);

/// How much of a stream must have come before the listener hears of it: up to there, a failure can be
/// mended without anybody noticing, and the listener waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommitPoint {
    /// The first piece of text.
    #[default]
    FirstContent,
    /// So many characters, or so long after the first piece of text, whichever comes first.
    Probe {
        /// Characters.
        characters: usize,
        /// Time since the first piece.
        time: Duration,
    },
}

/// What is done when more is held back than may be: 512 pieces or 1 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// The listener hears what there is.
    #[default]
    Commit,
    /// The attempt fails, `OutputInvalid`.
    Fail,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) point: CommitPoint,
    pub(crate) when_full: WhenFull,
    pub(crate) idle: Duration,
    pub(crate) floor: Option<(usize, Duration)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            point: CommitPoint::default(),
            when_full: WhenFull::default(),
            idle: IDLE,
            floor: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// A frame with this text; empty for one without content.
    Frame(String),
    /// So many characters came in the frame that nobody hears: of tool calls, which are content, and of what was
    /// thought, after which there may be a pause.
    Brought { characters: usize, content: bool },
    /// Time has passed.
    Tick,
    /// So much time went by waiting for the listener, which is not the provider's fault.
    Held(Duration),
    /// The answer is over, well or not.
    End(Result<(), Fault>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Nothing yet.
    Wait,
    /// The listener hears this. The first time, this is the commit.
    Give(Vec<String>),
    /// The listener hears this, and that it is the end.
    Finish(Vec<String>),
    /// The attempt failed; whether the listener had heard something is `committed`.
    Fail { fault: Fault, committed: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Buffering,
    Committed,
    Done,
}

#[derive(Debug)]
pub(crate) struct Machine {
    rules: Rules,
    phase: Phase,
    held: Vec<String>,
    bytes: usize,
    characters: usize,
    first: Option<Duration>,
    beat: Duration,
    /// The span the floor is measured over: since when, and how many characters came.
    /// From the first content on.
    span: Option<(Duration, usize)>,
}

impl Machine {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            phase: Phase::Buffering,
            held: Vec::new(),
            bytes: 0,
            characters: 0,
            first: None,
            beat: Duration::ZERO,
            span: None,
        }
    }

    pub(crate) fn on(&mut self, input: Input, now: Duration) -> Output {
        if self.phase == Phase::Done {
            return Output::Wait;
        }
        match input {
            Input::Brought { characters, content } => {
                if content && characters > 0 {
                    self.span.get_or_insert((now, 0));
                }
                if let Some((_, came)) = &mut self.span {
                    *came += characters;
                }
                Output::Wait
            }
            Input::Held(time) => {
                self.beat += time;
                if let Some((since, _)) = &mut self.span {
                    *since += time;
                }
                Output::Wait
            }
            Input::End(Ok(())) => {
                self.phase = Phase::Done;
                Output::Finish(std::mem::take(&mut self.held))
            }
            Input::End(Err(fault)) => self.fail(fault),
            Input::Tick => match self.late(now) {
                Some(fault) => self.fail(fault),
                None => self.look(now),
            },
            Input::Frame(text) => {
                // Late is late, also when a frame is there by the time somebody looks.
                if let Some(fault) = self.late(now) {
                    return self.fail(fault);
                }
                self.beat = now;
                if text.is_empty() {
                    return self.look(now);
                }
                let characters = text.chars().count();
                self.first.get_or_insert(now);
                self.span.get_or_insert((now, 0)).1 += characters;
                if self.phase == Phase::Committed {
                    return Output::Give(vec![text]);
                }
                self.characters += characters;
                self.bytes += text.len();
                self.held.push(text);
                self.look(now)
            }
        }
    }

    /// When to look again even if nothing comes.
    pub(crate) fn next_tick(&self) -> Duration {
        // A time without end is added to: it stays one.
        let mut next = self.beat.saturating_add(self.rules.idle);
        if let (Some((_, span)), Some((since, _))) = (self.rules.floor, self.span) {
            next = next.min(since.saturating_add(span));
        }
        if let (Phase::Buffering, CommitPoint::Probe { time, .. }, Some(first)) =
            (self.phase, self.rules.point, self.first)
        {
            next = next.min(first.saturating_add(time));
        }
        next
    }

    fn look(&mut self, now: Duration) -> Output {
        let Some(first) = self.first.filter(|_| self.phase == Phase::Buffering) else {
            return Output::Wait;
        };
        let enough = match self.rules.point {
            CommitPoint::FirstContent => true,
            CommitPoint::Probe { characters, time } => {
                self.characters >= characters || now >= first.saturating_add(time)
            }
        };
        let full = self.held.len() >= MOST_PIECES || self.bytes >= MOST_BYTES;
        if full && !enough && self.rules.when_full == WhenFull::Fail {
            let text = "more was held back before the commit than may be";
            return self.fail(Fault::output_invalid(text).with_code("buffer_full"));
        }
        if !enough && !full {
            return Output::Wait;
        }
        self.phase = Phase::Committed;
        Output::Give(std::mem::take(&mut self.held))
    }

    fn late(&mut self, now: Duration) -> Option<Fault> {
        if now >= self.beat.saturating_add(self.rules.idle) {
            let text = format!("the stream paused for {:?}", self.rules.idle);
            return Some(Fault::timeout(text).with_code("idle"));
        }
        let (least, span) = self.rules.floor?;
        let (since, came) = self.span?;
        if now >= since.saturating_add(span) {
            if came < least {
                let text = format!("the stream brought fewer than {least} characters in {span:?}");
                return Some(Fault::timeout(text).with_code("too_slow"));
            }
            self.span = Some((now, 0));
        }
        None
    }

    fn fail(&mut self, fault: Fault) -> Output {
        let committed = self.phase == Phase::Committed;
        self.phase = Phase::Done;
        self.held.clear();
        Output::Fail { fault, committed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn frame(text: &str) -> Input {
        Input::Frame(text.to_owned())
    }

    fn give(texts: &[&str]) -> Output {
        Output::Give(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    fn gone() -> Fault {
        Fault::network("gone")
    }

    fn failed(code: &'static str) -> impl Fn(&Output) -> bool {
        move |output| matches!(output, Output::Fail { fault, .. } if fault.code.as_deref() == Some(code))
    }

    /// Feeds the inputs and compares each output.
    fn check(rules: Rules, table: &[(u64, Input, Output)]) {
        let mut machine = Machine::new(rules);
        for (line, (at, input, expected)) in table.iter().enumerate() {
            assert_eq!(machine.on(input.clone(), s(*at)), *expected, "line {line}: {input:?}");
        }
    }

    fn probe(characters: usize, time: u64) -> Rules {
        let point = CommitPoint::Probe { characters, time: s(time) };
        Rules { point, idle: s(1000), ..Rules::default() }
    }

    #[test]
    fn a_stream_of_nothing_but_a_call_is_held_to_the_floor_and_one_that_thinks_is_not() {
        let rules = Rules { floor: Some((10, s(5))), idle: s(1000), ..Rules::default() };
        for (content, late) in [(true, true), (false, false)] {
            let mut machine = Machine::new(rules);
            assert_eq!(machine.on(Input::Brought { characters: 0, content }, s(0)), Output::Wait);
            assert_eq!(machine.on(Input::Tick, s(90)), Output::Wait);
            assert_eq!(machine.on(Input::Brought { characters: 9, content }, s(100)), Output::Wait);
            assert_eq!(machine.next_tick(), if late { s(105) } else { s(1000) });
            let output = machine.on(Input::Tick, s(105));
            assert_eq!(failed("too_slow")(&output), late, "{output:?}");
        }
    }

    #[test]
    fn the_first_content_commits_and_frames_without_any_do_not() {
        check(
            Rules::default(),
            &[
                (0, frame(""), Output::Wait),
                (1, Input::Tick, Output::Wait),
                (2, frame("a"), give(&["a"])),
                (3, frame(""), Output::Wait),
                (4, frame("b"), give(&["b"])),
                (5, Input::End(Ok(())), Output::Finish(vec![])),
                (6, frame("c"), Output::Wait),
                (7, Input::End(Err(gone())), Output::Wait),
            ],
        );
    }

    #[test]
    fn a_failure_before_the_commit_gives_nothing_and_one_after_it_says_so() {
        let fail = |committed| Output::Fail { fault: gone(), committed };
        check(Rules::default(), &[(0, Input::End(Err(gone())), fail(false))]);
        check(
            probe(10, 5),
            &[
                (0, frame("abc"), Output::Wait),
                (1, Input::End(Err(gone())), fail(false)),
                (9, Input::Tick, Output::Wait),
            ],
        );
        check(
            Rules::default(),
            &[(0, frame("a"), give(&["a"])), (1, Input::End(Err(gone())), fail(true))],
        );
    }

    #[test]
    fn a_probe_commits_at_its_characters_at_its_time_or_at_a_good_end() {
        check(
            probe(4, 5),
            &[
                (0, frame("é"), Output::Wait),
                (1, frame("éé"), Output::Wait),
                (2, frame("é"), give(&["é", "éé", "é"])),
            ],
        );
        check(
            probe(4, 5),
            &[
                (1, frame("a"), Output::Wait),
                (5, Input::Tick, Output::Wait),
                (6, Input::Tick, give(&["a"])),
            ],
        );
        check(
            probe(4, 5),
            &[
                (0, frame("a"), Output::Wait),
                (1, Input::End(Ok(())), Output::Finish(vec!["a".to_owned()])),
            ],
        );
        // The time runs from the first content, not from the start.
        let mut machine = Machine::new(probe(4, 5));
        assert_eq!(machine.next_tick(), s(1000));
        machine.on(frame("a"), s(3));
        assert_eq!(machine.next_tick(), s(8));
    }

    #[test]
    fn a_full_buffer_commits_or_fails_as_it_is_told() {
        for (when_full, text) in [(WhenFull::Commit, "a"), (WhenFull::Fail, "a")] {
            let rules = Rules { when_full, ..probe(usize::MAX, 900) };
            let mut machine = Machine::new(rules);
            for _ in 1..MOST_PIECES {
                assert_eq!(machine.on(frame(text), s(0)), Output::Wait);
            }
            let output = machine.on(frame(text), s(0));
            match when_full {
                WhenFull::Commit => {
                    assert!(matches!(&output, Output::Give(all) if all.len() == MOST_PIECES));
                }
                WhenFull::Fail => assert!(failed("buffer_full")(&output)),
            }
        }
        let mut machine = Machine::new(probe(usize::MAX, 900));
        let large = "x".repeat(MOST_BYTES);
        assert!(matches!(machine.on(Input::Frame(large), s(0)), Output::Give(_)));
    }

    #[test]
    fn a_pause_is_a_timeout_that_heartbeats_prevent() {
        let mut machine = Machine::new(Rules { idle: s(3), ..Rules::default() });
        assert_eq!(machine.next_tick(), s(3));
        machine.on(frame("a"), s(2));
        machine.on(frame(""), s(4));
        assert_eq!(machine.next_tick(), s(7));
        assert_eq!(machine.on(Input::Tick, s(6)), Output::Wait);
        let output = machine.on(Input::Tick, s(7));
        assert!(failed("idle")(&output));
        assert!(matches!(output, Output::Fail { committed: true, .. }));
        // A frame that comes too late does not undo it.
        let mut machine = Machine::new(Rules { idle: s(3), ..Rules::default() });
        assert!(failed("idle")(&machine.on(frame("a"), s(3))));
    }

    #[test]
    fn time_spent_waiting_for_the_listener_is_not_counted() {
        let rules = Rules { idle: s(3), floor: Some((5, s(10))), ..Rules::default() };
        let mut machine = Machine::new(rules);
        machine.on(frame("a"), s(1));
        machine.on(Input::Held(s(60)), s(61));
        assert_eq!(machine.on(Input::Tick, s(63)), Output::Wait);
        assert!(failed("idle")(&machine.on(Input::Tick, s(64))));
    }

    #[test]
    fn a_trickle_is_a_timeout_from_the_first_content_on() {
        let rules = Rules { floor: Some((5, s(10))), idle: s(1000), ..Rules::default() };
        let mut machine = Machine::new(rules);
        // A long silence before the first word is the idle timeout's business.
        assert_eq!(machine.on(frame(""), s(500)), Output::Wait);
        machine.on(frame("12345"), s(501));
        assert_eq!(machine.next_tick(), s(511));
        assert_eq!(machine.on(Input::Tick, s(511)), Output::Wait);
        machine.on(frame("1234"), s(512));
        // Heartbeats are no content.
        machine.on(frame(""), s(520));
        assert!(failed("too_slow")(&machine.on(Input::Tick, s(521))));
    }

    #[test]
    fn whatever_comes_is_given_once_in_order_and_nothing_before_the_commit() {
        for seed in 0..2000_u64 {
            let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
            let mut random = |below: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % below
            };
            let characters = usize::try_from(random(30)).unwrap();
            let rules = Rules {
                floor: (random(2) == 0).then(|| (2, s(5))),
                idle: s(6),
                ..probe(characters, 1 + random(8))
            };
            let mut machine = Machine::new(rules);
            let (mut came, mut given, mut over, mut now) = (String::new(), String::new(), false, 0);
            for _ in 0..40 {
                now += random(3);
                let input = match random(12) {
                    0 => Input::Tick,
                    1 => frame(""),
                    2 if random(4) == 0 => Input::End(Ok(())),
                    3 if random(4) == 0 => Input::End(Err(gone())),
                    _ => frame(["a", "bc", "déf"][usize::try_from(random(3)).unwrap()]),
                };
                if let (Input::Frame(text), false) = (&input, over) {
                    came.push_str(text);
                }
                let ended_well = input == Input::End(Ok(()));
                let output = machine.on(input, s(now));
                assert!(!over || output == Output::Wait, "seed {seed}: something after the end");
                match output {
                    Output::Wait => {
                        assert!(over || given.is_empty() || given == came, "seed {seed}")
                    }
                    Output::Give(texts) => {
                        assert!(!texts.is_empty(), "seed {seed}: nothing was given");
                        given.push_str(&texts.concat());
                        assert_eq!(given, came, "seed {seed}: all that is held is given");
                    }
                    Output::Finish(texts) => {
                        assert!(ended_well, "seed {seed}");
                        given.push_str(&texts.concat());
                        assert_eq!(given, came, "seed {seed}: a good end gives everything");
                        over = true;
                    }
                    Output::Fail { committed, .. } => {
                        assert_eq!(committed, !given.is_empty(), "seed {seed}");
                        over = true;
                    }
                }
            }
        }
    }
}
