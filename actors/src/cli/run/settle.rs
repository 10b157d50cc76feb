//! `/effects`: what nobody knows the outcome of, and a person's word on it.

use std::fmt::Write;

use mainstay::id::EffectKey;
use mainstay::system::System;
use serde_json::{Value, json};

/// How many digits of a key are shown; any beginning that fits one effect is enough to name it.
const SHOWN: usize = 12;
const HOW: &str = "\
/effects happened KEY [RESULT]  it did happen, with this result (JSON, or the text a tool would give)
/effects did-not-happen KEY     it did not, and will not: who asks for it again has it take place
/effects undone KEY             its undo, which is stuck, was made by hand";

/// Does what stands behind `/effects`, and says what came of it.
pub(super) async fn command(system: &System, words: &str) -> String {
    let mut words = words.trim().splitn(3, char::is_whitespace);
    let (verb, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let result = words.next().unwrap_or_default().trim();
    if verb.is_empty() {
        return list(system);
    }
    if !["happened", "did-not-happen", "undone"].contains(&verb) {
        return format!("there is no `{verb}`\n{HOW}");
    }
    let effects = system.effects();
    let key = match find(system, key) {
        Ok(key) => key,
        Err(why) => return why,
    };
    let settled = match verb {
        "happened" => effects.happened(key, &reply(result)).await,
        "did-not-happen" => effects.did_not_happen(key).await,
        _ => effects.undone(key).await,
    };
    match settled {
        Ok(()) => format!("settled: {} {verb}", short(key)),
        Err(error) => format!("not settled: {error}"),
    }
}

/// What a tool would have answered.
fn reply(result: &str) -> Value {
    match serde_json::from_str(result) {
        Ok(Value::Object(object)) if object.contains_key("content") => Value::Object(object),
        _ => json!({"content": result}),
    }
}

fn short(key: EffectKey) -> String {
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
