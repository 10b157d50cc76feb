//! One child between and across its lives.
//!
//! A machine: [`Lifecycle::on`] takes what happened and says whether it counts. Who was late is told
//! apart by the incarnation: a result, a start or an end that belongs to an earlier life changes
//! nothing.
//!
//! *Invariant.* It starts nothing and stops nothing; it knows no clock and no actor.

use crate::fault::ExitKind;
use crate::id::Incarnation;

#[cfg(test)]
mod tests;

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Never started; a lazy child waits here for its first request.
    Dormant,
    /// Its constructor or its start runs.
    Starting,
    /// It lives.
    Up,
    /// It was asked to stop and finishes its step.
    Stopping,
    /// Between two lives: its supervisor will start it again.
    Down,
    /// Stopped, and may be started again by hand.
    Stopped,
    /// Set aside after too many restarts, until an operator restarts it.
    Quarantined,
    /// Gone for good.
    Removed,
}

/// What happens to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// This life is to begin.
    Begin(Incarnation),
    /// This life has begun.
    Began(Incarnation),
    /// This life will not begin after all: a start that comes late is refused.
    Void(Incarnation),
    /// This life ended by itself or failed to begin.
    Exited(Incarnation, ExitKind),
    /// It is asked to stop; `restart` when another life is to follow.
    Stop {
        /// Whether another life is to follow.
        restart: bool,
    },
    /// It has stopped as asked.
    Ended,
    /// It restarted too often.
    Quarantine,
    /// Its supervisor waits before the next life, or is about to be restarted itself.
    AwaitRestart,
    /// No life will follow unless it is started by hand.
    GiveUp,
    /// It is removed.
    Remove,
    /// It was removed, and its supervisor starts again from a spec in which it stands.
    Revive,
}

/// What came of an [`Input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The child stands elsewhere now.
    Changed,
    /// The life is over, and its supervisor must hear of it.
    Report(Incarnation, ExitKind),
    /// It belongs to another life, or comes when it cannot happen: nothing changed.
    Ignored,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    stage: Stage,
    incarnation: Incarnation,
    /// No life up to this one may begin any more.
    void: Incarnation,
    /// What follows a stop that was asked for.
    restart_follows: bool,
    restarts: u32,
    last: Option<ExitKind>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            stage: Stage::Dormant,
            incarnation: Incarnation::NONE,
            void: Incarnation::NONE,
            restart_follows: false,
            restarts: 0,
            last: None,
        }
    }
}

impl Lifecycle {
    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The current life, or the last.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The last number that a life was given here, also one that was called off before it began: the
    /// next life has a higher one.
    pub fn last_given(&self) -> Incarnation {
        self.incarnation.max(self.void)
    }

    /// How many lives followed the first.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How the last life ended.
    pub fn last(&self) -> Option<ExitKind> {
        self.last
    }

    /// Whether requests are worked on.
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Whether another life will come without anybody asking, so that requests may wait for it.
    pub fn will_serve(&self) -> bool {
        match self.stage {
            Stage::Dormant | Stage::Starting | Stage::Up | Stage::Down => true,
            Stage::Stopping => self.restart_follows,
            Stage::Stopped | Stage::Quarantined | Stage::Removed => false,
        }
    }

    /// Whether it is between two lives.
    pub fn is_between_lives(&self) -> bool {
        match self.stage {
            Stage::Down => true,
            Stage::Starting => self.restarts > 0 || self.last.is_some(),
            Stage::Stopping => self.restart_follows,
            _ => false,
        }
    }

    /// Feeds one input.
    pub fn on(&mut self, input: Input) -> Output {
        use Stage::*;
        match (self.stage, input) {
            (Removed, Input::Revive) => self.go(Down),
            (Removed, _) | (_, Input::Revive) => Output::Ignored,
            (_, Input::Remove) => self.go(Removed),

            (Dormant | Down | Stopped | Quarantined, Input::Begin(next))
                if next > self.last_given() =>
            {
                if self.incarnation != Incarnation::NONE {
                    self.restarts = self.restarts.saturating_add(1);
                }
                self.incarnation = next;
                self.go(Starting)
            }
            (_, Input::Begin(_)) => Output::Ignored,

            (Starting, Input::Void(life)) if life == self.incarnation => {
                self.last = Some(ExitKind::Stopped);
                self.go(Down)
            }
            (_, Input::Void(life)) => {
                self.void = self.void.max(life);
                Output::Ignored
            }

            (Starting, Input::Began(life)) if life == self.incarnation => self.go(Up),
            (_, Input::Began(_)) => Output::Ignored,

            (Starting | Up, Input::Exited(life, cause)) if life == self.incarnation => {
                self.last = Some(cause);
                self.stage = Down;
                Output::Report(life, cause)
            }
            // It was stopping anyway: its end is what was asked for.
            (Stopping, Input::Exited(life, cause)) if life == self.incarnation => {
                self.last = Some(cause);
                self.ended()
            }
            (_, Input::Exited(..)) => Output::Ignored,

            (Up | Starting, Input::Stop { restart }) => {
                self.restart_follows = restart;
                self.go(Stopping)
            }
            (Stopping, Input::Stop { restart }) => {
                // A stop for good outlasts one for a restart.
                self.restart_follows &= restart;
                Output::Changed
            }
            (Down, Input::Stop { restart: true }) | (Dormant, Input::Stop { restart: true }) => {
                Output::Changed
            }
            (Down | Dormant, Input::Stop { restart: false }) => self.go(Stopped),
            (Stopped | Quarantined, Input::Stop { .. }) => Output::Ignored,

            (Stopping, Input::Ended) => {
                self.last = Some(ExitKind::Stopped);
                self.ended()
            }
            (_, Input::Ended) => Output::Ignored,

            // A life that an operator began meanwhile is not set aside for what the last one did.
            (Dormant | Down | Stopped | Quarantined, Input::Quarantine) => self.go(Quarantined),
            (_, Input::Quarantine) => Output::Ignored,
            (Dormant | Stopped, Input::AwaitRestart) => self.go(Down),
            (_, Input::AwaitRestart) => Output::Ignored,
            (Down | Dormant, Input::GiveUp) => self.go(Stopped),
            (_, Input::GiveUp) => Output::Ignored,
        }
    }

    /// A lazy child that is to be started with its next request rests as if it had never lived.
    pub fn rest_dormant(&mut self) {
        if matches!(self.stage, Stage::Down | Stage::Stopped | Stage::Quarantined) {
            self.stage = Stage::Dormant;
        }
    }

    fn ended(&mut self) -> Output {
        self.stage = if self.restart_follows { Stage::Down } else { Stage::Stopped };
        Output::Changed
    }

    fn go(&mut self, stage: Stage) -> Output {
        self.stage = stage;
        Output::Changed
    }
}
