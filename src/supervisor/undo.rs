//! Asking a tool to undo what it has done, until it has said what came of that.
//!
//! *Invariant.* Only the tool's own word makes an undo one that failed. One that was not asked, since the tool
//! is away or full or the system stops, is as if it had not been tried, and is gone on with.

use std::sync::Arc;
use std::time::Duration;

use crate::fate::Fate;
use crate::fault::Fault;
use crate::hub::Hub;
use crate::journal::Journaled;
use crate::ledger::{NOTHING_TO_UNDO, Undo};
use crate::port::{AcceptOptions, More, NotUndone};
use crate::spec::Codec;

/// How long is waited before a tool that is not there is asked again, at first and at most.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);
/// For how long that is tried: as long as a transaction may take to be rolled back.
const LONGEST: Duration = Duration::from_secs(30);

/// The tool that undoes.
pub(super) type Tool = (Arc<dyn std::any::Any + Send + Sync>, Codec);

/// Has `undo` done under this idempotency key. What a durable tool was asked under it before counts: when that
/// was done, it is; while it is under way, it is waited for.
pub(super) async fn undo(
    hub: &Arc<Hub>,
    (port, codec): Tool,
    undo: &Undo,
    key: &Arc<str>,
) -> Result<(), NotUndone> {
    let begun = hub.now();
    let mut pause = FIRST;
    loop {
        let fault = match hub.journal.get().and_then(|journal| Some((journal, journal.known(key)?)))
        {
            Some((_, Journaled::Fated(Fate::Done, _))) => return Ok(()),
            Some((_, Journaled::Fated(Fate::Quarantined, _))) => {
                let text = format!("\"{}\" has ended two lives over it", undo.tool);
                return Err(NotUndone::Failed(Fault::internal(text)));
            }
            Some((_, Journaled::Open)) => {
                Fault::internal(format!("\"{}\" still works on it", undo.tool))
            }
            earlier => {
                if let Some((journal, _)) = earlier {
                    // It ended without being done, and is asked for again.
                    if let Err(error) = journal.freed(key).await {
                        return Err(NotUndone::Later(crate::error::failed(&error)));
                    }
                }
                let more = More { key: Some(Arc::clone(key)), ..More::default() };
                let asked = (codec.call)(&port, &undo.request, AcceptOptions::with(more));
                match asked.map_err(|why| NotUndone::Failed(Fault::internal(why)))?.await {
                    Ok(()) => return Ok(()),
                    Err(NotUndone::Failed(fault))
                        if fault.code.as_deref() == Some(NOTHING_TO_UNDO) =>
                    {
                        return Ok(());
                    }
                    Err(NotUndone::Failed(fault)) => return Err(NotUndone::Failed(fault)),
                    Err(NotUndone::Later(fault)) => fault,
                }
            }
        };
        let now = hub.now();
        if hub.is_shutting_down() || hub.is_lost() || now.since(begun) >= LONGEST {
            return Err(NotUndone::Later(fault));
        }
        hub.clock.sleep_until(now + pause).await;
        pause = (pause * 2).min(MOST);
    }
}
