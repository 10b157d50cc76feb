//! What an agent is told after a rollback, read so that it and its model can act on it.
//!
//! *Invariant.* What stands is never done again because a model forgot it, and what nobody knows is
//! never done again at all.

use mainstay::behavior::{Call, Context, PastAct, Undone};
use mainstay::port::CallOptions;
use serde_json::json;

use super::reach::Reach;
use super::state::{Same, Stands};
use crate::chat::{ToolCall, ToolSpec};
use crate::tool::{ToolReply, ToolRequest};

/// Longest arguments in the note, in bytes.
const SHOWN: usize = 512;

pub(super) struct Told {
    /// Served from the record when they are asked for again.
    pub(super) stands: Vec<Stands>,
    /// Refused when they are asked for again.
    pub(super) unknown: Vec<Same>,
    /// For the conversation; `None` when nothing had been done.
    pub(super) note: Option<String>,
}

pub(super) fn read(undone: &Undone) -> Told {
    let mut told = Told { stands: Vec::new(), unknown: Vec::new(), note: None };
    let (mut kept, mut reversed, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for act in &undone.acts {
        let Some(request) = request(act) else { continue };
        let mut arguments = request.arguments.clone();
        super::context::cut(&mut arguments, SHOWN);
        let shown = json!({ "tool": request.name, "arguments": arguments });
        let same = Same::of(&request.name, &request.arguments);
        if undone.kept.contains(&act.key) {
            kept.push(shown);
            let result = act.result.as_deref();
            if let Some(reply) =
                result.and_then(|text| serde_json::from_str::<ToolReply>(text).ok())
            {
                told.stands.push(Stands { same, content: reply.content });
            }
        } else if undone.undone.contains(&act.key) {
            reversed.push(shown);
        } else {
            open.push(shown);
            told.unknown.push(same);
        }
    }
    if kept.len() + reversed.len() + open.len() > 0 {
        let list = json!({ "kept": kept, "undone": reversed, "unknown": open });
        told.note = Some(format!(
            "This task was taken back to its beginning after a failure. Of the tool calls made before, \
             those under \"kept\" have taken effect and stand: asking for one again returns its recorded \
             result. Those under \"undone\" were reversed. Of those under \"unknown\" nobody knows yet \
             whether they took effect: do not ask for them again. {list}"
        ));
    }
    told
}

/// The call by which one of these tools would be asked for this, with its question.
pub(super) fn question(tools: &[(ToolSpec, Reach)], act: &PastAct, ctx: &Context) -> Option<Call> {
    let ToolRequest { name, arguments } = request(act)?;
    let (_, reach) = tools.iter().find(|(spec, _)| spec.name == name)?;
    let call = ToolCall { id: String::new(), name, arguments };
    reach.effect(call, CallOptions::new(), ctx).ok()
}

/// An act of an agent is a tool call; anything else is not its own.
fn request(act: &PastAct) -> Option<ToolRequest> {
    serde_json::from_str(&act.request).ok()
}
