//! The agent: moves money step by step, and when it was rolled back, tells the user instead.
//!
//! *Invariant.* A step only asks; the runtime acts. What a step has decided is in the state before it is
//! asked for, so that a life that begins in the middle asks for the same again.

use std::sync::Arc;

use mainstay::behavior::{Behavior, Call, Context, Performed, Stateful, Step, Turn};
use mainstay::checkpoint::{Schema, Snapshot};
use mainstay::error::CheckpointError;
use mainstay::fault::Fault;
use mainstay::port::{Needs, Port, Verified};
use serde::{Deserialize, Serialize};

use crate::bank::{Leg, Message, Notice};
use crate::plan::Transfer;

/// A tool that moves money: it answers the number of its entry.
pub(crate) type Posting = Port<Leg, u64>;
/// A tool that undoes.
pub(crate) type Undoing = Port<Leg, ()>;
/// The tool that writes to the outbox: it answers the number of the notice.
pub(crate) type Telling = Port<Message, u64>;
/// The question whether something was written to the outbox, and under which number.
pub(crate) type Asking = Port<Notice, Option<u64>>;

/// What is asked of the teller.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Errand {
    /// Move the money, and say so; or undo it, and say that.
    Move(Transfer),
    /// Say how a transfer ended whose own request could not.
    Tell(Message),
    /// Nothing: only what it has done so far.
    Count,
}

/// What the teller has done, over all its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Whether this errand moved money.
    pub(crate) moved: bool,
    /// Transfers that were done.
    pub(crate) transfers: u64,
    /// Cents that were moved.
    pub(crate) cents: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    Begin,
    Credit,
    /// The user is told: after success, or after it was given up.
    Tell {
        done: bool,
    },
}

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Teller {
    stage: Arc<Stage>,
    transfers: Arc<u64>,
    cents: Arc<i64>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self { stage: Arc::new(Stage::Begin), transfers: Arc::default(), cents: Arc::default() }
    }

    /// Takes the answer to what the last step asked for; whether the user knows now.
    fn hear(&mut self, performed: &Performed) -> Result<bool, Fault> {
        let next = match *self.stage {
            Stage::Begin => {
                performed.get::<u64>(0)?;
                Stage::Credit
            }
            Stage::Credit => {
                performed.get::<u64>(0)?;
                Stage::Tell { done: true }
            }
            Stage::Tell { .. } => {
                performed.get::<u64>(0)?;
                return Ok(true);
            }
        };
        self.stage = Arc::new(next);
        Ok(false)
    }

    fn finish(&mut self, errand: &Errand) -> Step<Done> {
        let told_done = matches!(*self.stage, Stage::Tell { done: true });
        let mut moved = false;
        if let (Errand::Move(transfer), true) = (errand, told_done) {
            moved = true;
            self.transfers = Arc::new(*self.transfers + 1);
            self.cents = Arc::new(*self.cents + transfer.amount);
        }
        self.stage = Arc::new(Stage::Begin);
        Step::Reply(Done { moved, transfers: *self.transfers, cents: *self.cents })
    }
}

impl Behavior for Teller {
    type Request = Errand;
    type Reply = Done;

    fn needs() -> Needs {
        Needs::none()
            .needs::<Posting>("debit")
            .needs::<Posting>("credit")
            .needs::<Undoing>("undo")
            .needs::<Telling>("notify")
            .needs::<Asking>("outbox")
    }
}

impl Stateful for Teller {
    async fn step(
        &mut self,
        errand: &Errand,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<Done>, Fault> {
        let told = match &turn {
            Turn::Performed(performed) => self.hear(performed)?,
            _ => false,
        };
        if told {
            return Ok(self.finish(errand));
        }
        // When nothing stands any more after a rollback, the transfer is given up. Otherwise it begins
        // again: what stands is not asked for twice.
        if let (Turn::RolledBack(undone), Errand::Move(_)) = (&turn, errand)
            && undone.kept.is_empty()
            && undone.unknown.is_empty()
        {
            self.stage = Arc::new(Stage::Tell { done: false });
        }
        let (transfer, number) = match (errand, *self.stage) {
            (Errand::Count, _) => return Ok(self.finish(errand)),
            (Errand::Tell(Message { notice, number }), stage) => {
                if stage == Stage::Begin {
                    self.stage = Arc::new(Stage::Tell { done: notice.done });
                }
                (notice.transfer, *number)
            }
            (Errand::Move(transfer), _) => (transfer.id, 0),
        };
        let call = match (errand, *self.stage) {
            (Errand::Move(transfer), Stage::Begin) => {
                let debit =
                    Leg { transfer: transfer.id, account: transfer.from, amount: -transfer.amount };
                post(ctx, "debit", debit)?
            }
            (Errand::Move(transfer), Stage::Credit) => {
                let credit =
                    Leg { transfer: transfer.id, account: transfer.to, amount: transfer.amount };
                post(ctx, "credit", credit)?
            }
            (_, Stage::Tell { done }) => {
                let (notify, outbox): (Telling, Asking) =
                    (ctx.port("notify")?, ctx.port("outbox")?);
                let notice = Notice { transfer, done };
                let told =
                    notify.effect(Message { notice, number }).verify(&outbox, notice, |number| {
                        match number {
                            Some(number) => Verified::Happened(*number),
                            None => Verified::NotHappened,
                        }
                    });
                Call::from(told)
            }
            (_, Stage::Begin | Stage::Credit) => {
                return Err(Fault::internal("only a transfer moves money"));
            }
        };
        Ok(Step::Perform(vec![call]))
    }

    fn schema() -> Option<Schema> {
        Some(
            Schema::new("finance.teller", 1)
                .field::<Stage>("stage")
                .field::<u64>("transfers")
                .field::<i64>("cents"),
        )
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(
            Snapshot::new("finance.teller", 1)
                .with("stage", Arc::clone(&self.stage))
                .with("transfers", Arc::clone(&self.transfers))
                .with("cents", Arc::clone(&self.cents)),
        )
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.stage = snapshot.get("stage")?;
        self.transfers = snapshot.get("transfers")?;
        self.cents = snapshot.get("cents")?;
        Ok(())
    }
}

/// One side of the transfer, and how it is taken back.
fn post(ctx: &Context, tool: &str, leg: Leg) -> Result<Call, Fault> {
    let (tool, undo): (Posting, Undoing) = (ctx.port(tool)?, ctx.port("undo")?);
    Ok(Call::from(tool.effect(leg).undo(&undo, leg)))
}
