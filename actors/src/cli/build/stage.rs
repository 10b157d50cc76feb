//! Who plays the models and tools of a tree that is tried: nothing outside is asked, and nothing is done.
//!
//! *Invariant.* Whether a play fails depends on the seed, on who is asked, what, and for which time; on
//! no clock and no order of tasks.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fate::Cost;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::spec::acting::AtRunTime;
use mainstay::spec::{ChildSpec, Kind};
use mainstay_actors::chat::{ChatReply, ChatRequest, ResponseFormat, Role, ToolCall, Usage};
use mainstay_actors::model::CONCURRENCY;
use mainstay_actors::scripted::{Draw, Rates};
use mainstay_actors::tool::{Tool, ToolContext};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::super::file::{self, TreeFile};
use super::super::profile::On;

/// How long a model takes that does not fail, by the clock of the trial.
pub(crate) const MODEL_TAKES: Duration = Duration::from_millis(400);
/// How long a tool takes.
pub(crate) const TOOL_TAKES: Duration = Duration::from_millis(100);
/// Tools that are called for one question.
const CALLS: usize = 2;
/// How deep an example of a schema goes.
const DEEPEST: u32 = 8;

/// A failure that is injected, and how often: a share of the attempts, of agents of the questions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) class: Class,
    pub(crate) on: On,
    pub(crate) rate: f64,
}

/// What all that play have in common. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Stage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    models: Rates,
    tools: Rates,
    /// What is wrong with a question, and not with whoever is asked: it fails every time.
    questions: Rates,
    calls: usize,
    /// How often each of them was asked each thing.
    asked: Mutex<HashMap<u64, u32>>,
    injected: Mutex<BTreeMap<&'static str, u64>>,
}

impl Stage {
    pub(crate) fn new(seed: u64, injections: &[Injection], file: &TreeFile) -> Self {
        let rates = |fits: &dyn Fn(On) -> bool| Rates {
            others: injections
                .iter()
                .filter(|it| fits(it.on))
                .map(|it| (it.class, it.rate))
                .collect(),
            ..Rates::seeded(seed)
        };
        // Who has few steps must have one left to answer in.
        let steps = file.agents.values().filter_map(|agent| agent.max_steps.as_ref());
        let fewest = steps.map(|steps| *steps.get_ref() as usize).min().unwrap_or(usize::MAX);
        Self(Arc::new(Inner {
            models: rates(&|on| matches!(on, On::Models | On::Everything)),
            tools: rates(&|on| matches!(on, On::Tools | On::Everything)),
            questions: rates(&|on| on == On::Agents && !file.agents.is_empty()),
            calls: CALLS.min(fewest.saturating_sub(1)),
            asked: Mutex::default(),
            injected: Mutex::default(),
        }))
    }

    /// Failures so far, by the name of their class.
    pub(crate) fn injected(&self) -> BTreeMap<&'static str, u64> {
        self.0.injected.lock().clone()
    }

    /// Whether nobody can answer this question, as is said of it and not of who is asked.
    pub(crate) fn dooms(&self, question: &str) -> bool {
        matches!(self.0.questions.draw(hash(&question), 1), Draw::Fail(_))
    }

    /// One who is asked this once more: whether it fails.
    async fn fate(&self, rates: &Rates, who: &str, what: &impl Hash) -> Result<(), Fault> {
        let number = hash(&(who, hash(what)));
        let time = {
            let mut asked = self.0.asked.lock();
            let times = asked.entry(number).or_default();
            *times += 1;
            *times
        };
        self.draw(rates, number, time).await
    }

    async fn draw(&self, rates: &Rates, number: u64, time: u32) -> Result<(), Fault> {
        let Draw::Fail(class) = rates.draw(number, time) else { return Ok(()) };
        *self.0.injected.lock().entry(class.name()).or_default() += 1;
        if class == Class::Timeout {
            // Found by its deadline, as it would be.
            std::future::pending::<()>().await;
        }
        let fault = Fault::new(class, "injected").with_code("injected");
        if class == Class::OutputInvalid {
            // As a model's, which is told something else each time.
            return Err(fault.with_feedback(format!("injected, time {time}")));
        }
        Err(fault)
    }

    /// One who plays a model.
    pub(super) fn model(&self, name: &str, model: &file::Model) -> ChildSpec {
        let micros = |price| file::micros(price).unwrap_or_default();
        let price = model.price_per_million.as_ref().map(|price| *price.get_ref());
        let player = Player {
            stage: self.clone(),
            name: name.into(),
            price: price.map_or((0, 0), |price| (micros(price.input), micros(price.output))),
        };
        ChildSpec::stateless(name, move || player.clone())
            .kind(Kind::Model)
            .concurrency(CONCURRENCY)
    }

    /// One who plays a tool.
    pub(super) fn tool(&self, name: &str, effect: EffectKind) -> ChildSpec {
        let (stage, who) = (self.clone(), Arc::<str>::from(name));
        let tool = Tool::new(name, AtRunTime(effect), move |arguments: Value, _: ToolContext| {
            let (stage, who) = (stage.clone(), Arc::clone(&who));
            async move {
                tokio::time::sleep(TOOL_TAKES).await;
                stage.fate(&stage.0.tools, &who, &arguments.to_string()).await?;
                Ok(json!({"done": true}))
            }
        });
        tool.spec(name)
    }
}

fn hash(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Plays a model: it has its tools called, and then answers.
#[derive(Clone, Debug)]
struct Player {
    stage: Stage,
    name: Arc<str>,
    price: (u64, u64),
}

impl Player {
    fn reply(&self, request: &ChatRequest) -> ChatReply {
        let asked = request.last_user_text();
        let after = request.messages.iter().rev().take_while(|message| message.role != Role::User);
        let called = after.filter(|message| message.role == Role::Tool).count();
        let tools = &request.tools;
        if called < self.stage.0.calls.min(tools.len()) {
            // Others for other questions, so that each is called.
            let first = hash(&asked) as usize % tools.len();
            let tool = &tools[(first + called) % tools.len()];
            let schema = serde_json::from_str(&tool.parameters).unwrap_or_default();
            return ChatReply::calls([ToolCall {
                id: format!("call-{called}"),
                name: tool.name.clone(),
                arguments: example(&schema, &schema, asked, 0).to_string(),
            }]);
        }
        let text = match &request.response_format {
            ResponseFormat::Json => json!({"answer": asked}).to_string(),
            ResponseFormat::Schema { schema, .. } => {
                let schema = serde_json::from_str(schema).unwrap_or_default();
                example(&schema, &schema, asked, 0).to_string()
            }
            _ => format!("answered: {asked}"),
        };
        ChatReply::text(text)
    }
}

impl Behavior for Player {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Player {
    async fn serve(&self, request: &ChatRequest, ctx: &Context) -> Result<ChatReply, Fault> {
        tokio::time::sleep(MODEL_TAKES).await;
        let stage = &self.stage;
        stage.draw(&stage.0.questions, hash(&request.last_user_text()), 1).await?;
        let said: Vec<_> = request.messages.iter().map(|it| (it.role.name(), &it.text)).collect();
        stage.fate(&stage.0.models, &self.name, &said).await?;
        let mut reply = self.reply(request);
        let length = said.iter().map(|(_, text)| text.len()).sum::<usize>();
        let tokens = |bytes: usize| u64::try_from(bytes / 4 + 1).unwrap_or(u64::MAX);
        reply.usage =
            Usage { input: tokens(length), output: tokens(reply.text.len()), estimated: true };
        let (read, written) = self.price;
        let money = reply.usage.input * read + reply.usage.output * written;
        ctx.spend(Cost { tokens: reply.usage.total(), money_micros: money / 1_000_000 });
        Ok(reply)
    }
}

/// A value of a schema, with this text where a text is wanted. Where a schema says more than types,
/// bounds, choices and what is required, it may not be one.
fn example(root: &Value, schema: &Value, text: &str, depth: u32) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    let inner = |schema: &Value| example(root, schema, text, depth + 1);
    if let Some(other) = schema["$ref"].as_str().and_then(|it| root.pointer(it.strip_prefix('#')?))
    {
        return inner(other);
    }
    if let Some(value) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return value.clone();
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(first) = schema[choice].get(0) {
            return inner(first);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    let least = |key: &str| schema[key].as_u64().and_then(|least| usize::try_from(least).ok());
    match kind.unwrap_or("object") {
        "string" => {
            let most = least("maxLength").unwrap_or(usize::MAX);
            let shortest = least("minLength").unwrap_or(0).min(most);
            let mut words: String = text.chars().take(most).collect();
            words.extend(std::iter::repeat_n('.', shortest.saturating_sub(words.chars().count())));
            json!(words)
        }
        "integer" | "number" => {
            let above = schema["exclusiveMinimum"].as_f64().map(|bound| bound + 1.0);
            let least = schema["minimum"].as_f64().or(above);
            let most = schema["maximum"].as_f64();
            let number = least.unwrap_or_else(|| most.unwrap_or(1.0).min(1.0)).ceil();
            json!(number as i64)
        }
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => {
            let items = least("minItems").unwrap_or(0).min(16);
            Value::Array((0..items).map(|_| inner(&schema["items"])).collect())
        }
        _ => {
            let required = schema["required"].as_array().into_iter().flatten();
            let names = required.filter_map(Value::as_str);
            let fields = names.map(|name| (name.to_owned(), inner(&schema["properties"][name])));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_a_value_of_its_schema() {
        let schema = json!({
            "type": "object", "required": ["who", "count", "kind", "items", "inner"],
            "properties": {
                "who": {"type": "string", "minLength": 6, "maxLength": 8},
                "count": {"type": "integer", "minimum": 3},
                "kind": {"enum": ["a", "b"]},
                "items": {"type": "array", "minItems": 2, "items": {"type": "boolean"}},
                "inner": {"$ref": "#/$defs/inner"},
                "not_required": {"type": "string"},
            },
            "$defs": {"inner": {"type": ["null", "string"]}},
        });
        let expected = json!({
            "who": "hi....", "count": 3, "kind": "a", "items": [true, true], "inner": null,
        });
        assert_eq!(example(&schema, &schema, "hi", 0), expected);
        let endless =
            json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}});
        assert!(example(&endless, &endless, "hi", 0).is_object());
    }
}
