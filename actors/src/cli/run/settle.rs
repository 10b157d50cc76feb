//! `/effects`: what nobody knows the outcome of, and a person's word on it.

use std::collections::HashSet;
use std::fmt::Write;

use mainstay::error::ResolveError;
use mainstay::id::EffectKey;
use mainstay::system::{EffectView, System};
use serde_json::{Value, json};

use super::super::aside::speaking;

/// How many digits of a key are shown; any beginning that fits one effect is enough to name it.
const SHOWN: usize = 12;
/// How many effects are named in a line.
const NAMED: usize = 5;
const HOW: &str = "\
/effects happened KEY [RESULT]  it did happen, with this result (JSON, or the text a tool would give)
/effects did-not-happen KEY     it did not, and will not: who asks for it again has it take place
/effects undone KEY             its undo, which is stuck or stopped before it, was made by hand
/effects stands KEY             it was left standing where an undo stopped, and rightly so";

/// Does what stands behind `/effects`, and says what came of it.
pub(super) async fn command(system: &System, words: &str) -> String {
    let mut words = words.trim().splitn(3, char::is_whitespace);
    let (verb, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let result = words.next().unwrap_or_default().trim();
    if verb.is_empty() {
        return list(system);
    }
    if !["happened", "did-not-happen", "undone", "stands"].contains(&verb) {
        return format!("there is no `{verb}`\n{HOW}");
    }
    let effects = speaking(system.effects(), None, None);
    let key = match find(system, key) {
        Ok(key) => key,
        Err(why) => return why,
    };
    let settled = match verb {
        "happened" => effects.happened(key, &reply(result)).await,
        "did-not-happen" => effects.did_not_happen(key).await,
        "stands" => effects.stands(key).await,
        _ => effects.undone(key).await,
    };
    match settled {
        Ok(()) => format!("settled: {} {verb}", short(key)),
        Err(error) => format!("not settled: {}", unfit(error)),
    }
}

/// Why a word settles nothing, and which does.
pub(crate) fn unfit(error: ResolveError) -> String {
    let ResolveError::NotOpen { key, status } = &error else { return error.to_string() };
    let words = match *status {
        "unknown" => "`happened` or `did-not-happen`",
        "left" => "`undone` or `stands`",
        "stuck" => "`undone`",
        _ => return error.to_string(),
    };
    format!("effect {key} is {status}, which is settled by {words}")
}

/// What a tool would have answered.
pub(crate) fn reply(result: &str) -> Value {
    match serde_json::from_str(result) {
        // Anything else with such a field is what a tool says of itself.
        Ok(Value::Object(object))
            if object.len() == 1 && object.get("content").is_some_and(Value::is_string) =>
        {
            Value::Object(object)
        }
        _ => json!({"content": result}),
    }
}

/// What there is to know, when a run ends, of what it did to the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// Whether whatever was in flight has ended, or is known to be unknown: the tree was stopped in order.
    pub(super) in_order: bool,
    /// Whether a store on disk has it, where `mainstay store` finds it.
    pub(super) is_kept: bool,
}

/// What still waits for a person, or for the next start, when a run ends.
pub(super) fn left(system: &System, rest: Rest) -> Vec<String> {
    let (open, flying) = found(system, rest);
    let waits = |effect: &EffectView| format!("{} is {}", named(effect), effect.status);
    let flies = |effect: &EffectView| match effect.status {
        UNDONE => format!("the undo of {}", named(effect)),
        _ => named(effect),
    };
    let (shown, later) = match rest.is_kept {
        true => ("`mainstay store` shows how", "the next start, or `mainstay store`, tells more"),
        false => ("and nothing is kept of it, so look there yourself", "look there yourself"),
    };
    let open =
        (!open.is_empty()).then(|| format!("not settled, {shown}: {}", listed(&open, waits)));
    let flying = (!flying.is_empty())
        .then(|| format!("in flight, and may have happened; {later}: {}", listed(&flying, flies)));
    let owed = system.effects().owed();
    let undoes = match rest.is_kept {
        true => "which the next start does",
        false => "and nothing is kept of it, so do that yourself",
    };
    let owed = (!owed.is_empty())
        .then(|| format!("still to be undone, {undoes}: {}", listed(&owed, named)));
    open.into_iter().chain(flying).chain(owed).collect()
}

/// The same for a program.
pub(super) fn unsettled(system: &System, rest: Rest) -> Vec<Value> {
    let one = |effect: &EffectView, status: &str| json!({"key": effect.key.to_string(), "tool": effect.tool, "owner": effect.owner, "status": status});
    let (open, flying) = found(system, rest);
    let all = open.iter().chain(&flying).map(|effect| one(effect, effect.status));
    all.chain(system.effects().owed().iter().map(|effect| one(effect, OWED))).collect()
}

/// What is named so or so.
pub(super) fn keys(system: &System, rest: Rest) -> HashSet<EffectKey> {
    let (open, flying) = found(system, rest);
    let owed = system.effects().owed();
    open.iter().chain(&flying).chain(&owed).map(|effect| effect.key).collect()
}

/// What waits for a person; and the acts and undos whose tools were not waited for, each of which may have happened.
/// What may be repeated is nobody's to settle.
fn found(system: &System, rest: Rest) -> (Vec<EffectView>, Vec<EffectView>) {
    // Looked at first: what ends meanwhile is in both, and never in neither.
    let mut all = if rest.in_order { Vec::new() } else { system.effects().list() };
    let open = system.effects().open();
    all.retain(|effect| {
        let flies = match effect.status {
            ACTED => !effect.kind.is_replay_safe(),
            status => status == UNDONE,
        };
        flies && !open.iter().any(|other| other.key == effect.key)
    });
    (open, all)
}

/// The status of an act that was begun, and of one whose undo was.
const ACTED: &str = "intended";
const UNDONE: &str = "compensating";
/// What a program is told of an act that stands and is to be undone, whatever is known of it besides.
const OWED: &str = "owed";

pub(super) fn named(effect: &EffectView) -> String {
    format!("{} {}", short(effect.key), effect.tool)
}

pub(super) fn listed(effects: &[EffectView], one: impl Fn(&EffectView) -> String) -> String {
    let named: Vec<_> = effects.iter().take(NAMED).map(one).collect();
    let more = effects.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &more
}

pub(crate) fn short(key: EffectKey) -> String {
    key.to_string().chars().take(SHOWN).collect()
}

fn find(system: &System, begin: &str) -> Result<EffectKey, String> {
    let open = system.effects().open();
    let fits = |key: &EffectKey| !begin.is_empty() && key.to_string().starts_with(begin);
    let found: Vec<_> = open.iter().map(|effect| effect.key).filter(fits).collect();
    match found[..] {
        [key] => Ok(key),
        [] => Err(format!("no open effect has a key that begins with `{begin}`\n{}", list(system))),
        _ => Err(format!("{} open effects have keys that begin with `{begin}`", found.len())),
    }
}

fn list(system: &System) -> String {
    let effects = system.effects();
    let counts = effects.counts();
    let mut text = format!(
        "{} confirmed, {} intended, {} unknown, {} stuck, {} undone",
        counts.confirmed, counts.intended, counts.unknown, counts.stuck, counts.compensated
    );
    let open = effects.open();
    if open.is_empty() {
        text.push_str("; none waits for a person");
        return text;
    }
    for effect in open {
        let _ = write!(
            text,
            "\n{}  {}  {} for {} ({:?})",
            short(effect.key),
            effect.status,
            effect.tool,
            effect.owner,
            effect.kind
        );
        if let Some(request) = effects.request(effect.key) {
            let _ = write!(text, "\n    asked: {request}");
        }
    }
    let _ = write!(text, "\n{HOW}");
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
    use mainstay::error::CallError;
    use mainstay::fault::Fault;
    use mainstay::port::{Call, Port};
    use mainstay::spec::acting::Irreversible;
    use mainstay::spec::{ChildSpec, SupervisorSpec};
    use mainstay_actors::tool::{Tool, ToolContext, ToolReply, ToolRequest};

    use super::*;

    /// Acts once a request, and says what the tool said.
    #[derive(Clone)]
    struct Actor;

    impl Behavior for Actor {
        type Request = u32;
        type Reply = String;
    }

    impl Stateful for Actor {
        async fn step(
            &mut self,
            _: &u32,
            turn: Turn,
            ctx: &Context,
        ) -> Result<Step<String>, Fault> {
            if let Turn::Performed(performed) = turn {
                return Ok(Step::Reply(performed.get::<ToolReply>(0)?.value.content.clone()));
            }
            let tool = ctx.port::<ToolRequest, ToolReply>("pay")?;
            let act = tool.effect(ToolRequest::new("pay", "{\"sum\":7}"));
            Ok(Step::Perform(vec![Call::from(act)]))
        }
    }

    async fn with_an_unknown_payment() -> (System, Arc<AtomicU32>) {
        let paid = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&paid);
        let pay = Tool::new("pay", Irreversible, move |_: Value, _: ToolContext| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Err::<Value, _>(Fault::indeterminate("the answer is lost")) }
        });
        let actor = ChildSpec::stateful("actor", || Actor);
        let actor = actor.needs::<Port<ToolRequest, ToolReply>>("pay");
        let spec = SupervisorSpec::one_for_one("t").child(pay.spec("pay")).child(actor);
        let system = System::start(spec).await.unwrap();
        let asked = system.child::<Actor>("t/actor").unwrap().call(1_u32).await;
        assert!(matches!(asked, Err(CallError::Unknown { .. })), "{asked:?}");
        (system, paid)
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_effect_is_shown_and_settled_by_a_persons_word() {
        for (word, status) in [("happened", "1 confirmed"), ("did-not-happen", "0 confirmed")] {
            let (system, paid) = with_an_unknown_payment().await;
            let shown = command(&system, "").await;
            assert!(shown.contains("unknown  t/pay for t/actor (Irreversible)"), "{shown}");
            assert!(shown.contains("sum") && shown.contains(HOW), "{shown}");
            let key = system.effects().open()[0].key.to_string();
            let wrong = command(&system, &format!("undone {}", &key[..8])).await;
            let words = "is unknown, which is settled by `happened` or `did-not-happen`";
            assert!(wrong.starts_with("not settled: ") && wrong.ends_with(words), "{wrong}");
            let done = command(&system, &format!("{word} {} paid by hand", &key[..8])).await;
            assert_eq!(done, format!("settled: {} {word}", &key[..SHOWN]));
            let shown = command(&system, "").await;
            assert!(
                shown.starts_with(status) && shown.ends_with("none waits for a person"),
                "{shown}"
            );
            assert_eq!(paid.load(Ordering::SeqCst), 1);
            let again = command(&system, &format!("{word} {key}")).await;
            assert!(again.starts_with("no open effect has a key that begins with"), "{again}");
            system.stop().await;
        }
    }

    #[test]
    fn a_result_is_taken_as_a_tool_would_give_it() {
        assert_eq!(reply("paid"), json!({"content": "paid"}));
        assert_eq!(reply("{\"id\":1}"), json!({"content": "{\"id\":1}"}));
        assert_eq!(reply("{\"content\":\"x\"}"), json!({"content": "x"}));
        for result in ["{\"content\":7}", "{\"content\":\"x\",\"path\":\"y\"}"] {
            assert_eq!(reply(result), json!({"content": result}));
            serde_json::from_value::<ToolReply>(reply(result)).unwrap();
        }
    }
}
