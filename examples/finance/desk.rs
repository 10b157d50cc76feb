//! The tree: the tools on the bank, and the teller in a transaction above them.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::checkpoint::{Durability, Interval, Scope};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::{Backoff, Policy, Rule};
use mainstay::spec::{ChildSpec, SupervisorSpec};

use crate::bank::{Bank, Leg, Message, Notice, Refused};
use crate::plan::{Plan, Strike, Tool};
use crate::teller::Teller;

/// How often in a row the process may end with a transfer in hand. No transfer can end it by itself: a disk that is
/// full does, as often as it is begun again without room.
const ENDS: u32 = 100;

/// Whom transfers are handed to.
pub(crate) const TELLER: &str = "finance/transfers/teller";

/// What every tool has.
#[derive(Clone)]
struct Counter {
    bank: Arc<Bank>,
    plan: Plan,
    tool: Tool,
}

impl Counter {
    /// Acts, unless this attempt is to fail.
    fn act<T>(
        &self,
        transfer: u32,
        ctx: &Context,
        act: impl FnOnce(bool) -> Result<T, Refused>,
    ) -> Result<T, Fault> {
        self.act_unless(self.plan.strike(self.tool, transfer, ctx.attempt()), act)
    }

    fn act_unless<T>(
        &self,
        strike: Option<Strike>,
        act: impl FnOnce(bool) -> Result<T, Refused>,
    ) -> Result<T, Fault> {
        if strike == Some(Strike::Refused) {
            return Err(Fault::network("connection refused"));
        }
        let done = act(strike == Some(Strike::Aborted)).map_err(fault)?;
        if strike == Some(Strike::AnswerLost) {
            return Err(Fault::indeterminate("the connection broke before the answer"));
        }
        Ok(done)
    }
}

fn fault(refused: Refused) -> Fault {
    let text = refused.to_string();
    match refused {
        Refused::Rule(_) => Fault::business(text),
        Refused::Aborted => Fault::tool_execution(text).with_code("aborted").not_applied(),
        // It ends the run before it comes to this. A commit that failed may yet be found on the disk.
        Refused::Database(_) => Fault::indeterminate(text).with_code("database"),
    }
}

/// Takes from an account, or gives to one. The bank takes idempotency keys.
#[derive(Clone)]
struct Post(Counter);

impl Behavior for Post {
    type Request = Leg;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Post {
    async fn serve(&self, leg: &Leg, ctx: &Context) -> Result<u64, Fault> {
        self.0.act(leg.transfer, ctx, |abort| self.0.bank.post(&ctx.key(), *leg, abort))
    }
}

/// Undoes a posting: by the key under which it was made.
#[derive(Clone)]
struct Undo(Counter);

impl Behavior for Undo {
    type Request = Leg;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Undo {
    async fn serve(&self, leg: &Leg, ctx: &Context) -> Result<(), Fault> {
        let key = ctx.key();
        let Some(posted) = key.strip_prefix("undo-") else {
            return Err(Fault::input_validation("this is no undo of anything"));
        };
        self.0.act(leg.transfer, ctx, |_| self.0.bank.undo(posted, *leg))
    }
}

/// Writes to the outbox, which takes no keys: what it did can only be looked up.
#[derive(Clone)]
struct Notify(Counter);

impl Behavior for Notify {
    type Request = Message;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Verifiable);
}

impl Stateless for Notify {
    async fn serve(&self, message: &Message, ctx: &Context) -> Result<u64, Fault> {
        let Message { notice, number } = *message;
        let strike = self.0.plan.strike_message(notice.transfer, number, ctx.attempt());
        self.0.act_unless(strike, |_| self.0.bank.notify(notice))
    }
}

/// Looks into the outbox.
#[derive(Clone)]
struct Outbox(Arc<Bank>);

impl Behavior for Outbox {
    type Request = Notice;
    type Reply = Option<u64>;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Outbox {
    async fn serve(&self, notice: &Notice, _: &Context) -> Result<Option<u64>, Fault> {
        self.0.noticed(*notice).map_err(fault)
    }
}

/// The whole tree. The database blocks its callers until the disk has it, so its tools have threads of
/// their own.
pub(crate) fn spec(
    bank: &Arc<Bank>,
    plan: Plan,
    backoff: Option<Duration>,
    deaths: Option<u32>,
) -> SupervisorSpec {
    let counter = |tool| Counter { bank: Arc::clone(bank), plan, tool };
    let (debit, credit) = (Post(counter(Tool::Debit)), Post(counter(Tool::Credit)));
    let (undo, notify) = (Undo(counter(Tool::Undo)), Notify(counter(Tool::Notify)));
    let outbox = Outbox(Arc::clone(bank));
    let mut root = SupervisorSpec::one_for_one("finance");
    if let Some(base) = backoff {
        root = root.policy(quicker(base));
    }
    let transfers = SupervisorSpec::one_for_one("transfers").scope(Scope::Transaction).child(
        ChildSpec::stateful("teller", Teller::new)
            .durable::<Teller>()
            .durability(Durability::Sync)
            .checkpoint(Interval::Steps(1))
            .process_deaths(deaths.unwrap_or(ENDS)),
    );
    root.child(ChildSpec::stateless("debit", move || debit.clone()).recorded::<Post>().blocking())
        .child(ChildSpec::stateless("credit", move || credit.clone()).recorded::<Post>().blocking())
        .child(ChildSpec::stateless("undo", move || undo.clone()).recorded::<Undo>().blocking())
        .child(ChildSpec::stateless("notify", move || notify.clone()).blocking())
        .child(ChildSpec::stateless("outbox", move || outbox.clone()).blocking())
        .supervisor(transfers)
}

/// The playbook's policy with other waits.
fn quicker(base: Duration) -> Policy {
    Policy::new()
        .with_rule(Class::Network, Rule::new(3, Backoff::doubling(base)))
        .with_rule(Class::ToolExecution, Rule::new(2, Backoff::doubling(base)))
        .with_rule(Class::Indeterminate, Rule::new(2, Backoff::doubling(base / 2)))
}
