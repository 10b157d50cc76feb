//! The calls of a step.
//!
//! *Invariant.* All are made at once, and the step goes on when the last has its outcome. A step that is cut
//! short leaves acts that may not be repeated to their ends, and the others as lost, never as failed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use crate::behavior::{Call, Context, Performed};
use crate::checkpoint::Budgets;
use crate::effects::Site;
use crate::fate::Cost;
use crate::fault::Fault;
use crate::port::{Cut, Outcome};
use crate::slot::{Slot, Watched, Worker, watched};

/// Makes the calls of a step in parallel, and has its effects take place. The attempt's clock stands
/// still meanwhile.
pub(super) async fn perform<W: Worker>(
    slot: &Slot<W>,
    calls: Vec<Call>,
    context: &Context,
    step: u64,
    (acted, before): (bool, Budgets),
) -> Result<Performed, Cut> {
    let heard = &[Cut::Kill, Cut::Stop, Cut::Cancel];
    // What was asked while the step computed: nothing is begun for a request that has its fate.
    if let Some(cut) = context.flight.asked(heard) {
        return Err(cut);
    }
    let tie = context.tie();
    tie.waits_for(calls.iter().map(|call| call.target().clone()).collect());
    let _paused = tie.pause();
    let called = tie.called();
    let before = Cost { tokens: before.tokens, money_micros: before.money_micros };
    // Also of a task that its asker has named: it is asked again under the same name.
    let is_kept = slot.spec.durable || context.key.is_some();
    let recorded =
        |call: &Call| call.act.is_some() || (is_kept && (call.is_written() || call.is_joined()));
    let recorded = calls.iter().any(recorded);
    let task: Option<Arc<str>> = recorded.then(|| context.task());
    let making = |(ordinal, call): (usize, Call)| -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        match &task {
            Some(task) => {
                let site = Site {
                    task: Arc::clone(task),
                    owner: slot.path.clone(),
                    step,
                    ordinal: ordinal as u32,
                    before: slot.spec.durable.then_some(before),
                };
                let effects = Arc::clone(&slot.hub.effects);
                if call.act.is_some() {
                    Box::pin(effects.act(site, call, Arc::clone(tie)))
                } else {
                    Box::pin(effects.ask(site, call, Arc::clone(tie)))
                }
            }
            None => {
                let made = call.make(Arc::clone(tie), None);
                Box::pin(async move { made.await.map_err(Fault::from) })
            }
        }
    };
    let mut pending: Vec<_> = calls.into_iter().enumerate().map(making).map(Some).collect();
    let mut outcomes: Vec<_> = pending.iter().map(|_| None).collect();
    let mut open = pending.len();
    let all = poll_fn(|task| {
        for (call, outcome) in pending.iter_mut().zip(&mut outcomes) {
            let Some(future) = call else { continue };
            if let Poll::Ready(result) = future.as_mut().poll(task) {
                *outcome = Some(result);
                *call = None;
                open -= 1;
            }
        }
        if open == 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    let result = watched(|| all, std::convert::identity, &context.flight, heard).await;
    tie.waits_for(Vec::new());
    let cost = tie.called().without(called);
    match result {
        Watched::Done(()) => {
            Ok(Performed::new(outcomes.into_iter().flatten().collect(), acted, cost))
        }
        Watched::Panicked(text) => {
            // A reply that panics when it is dropped is the only user code in there.
            Ok(Performed::new(vec![Err(Fault::internal(text))], acted, cost))
        }
        Watched::Cut(cut) => Err(cut),
    }
}
