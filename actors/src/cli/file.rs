//! The tree file: what may stand in it, with the places of everything that can be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use mainstay::checkpoint::Scope;
use mainstay::fault::Class;
use serde::Deserialize;
use toml::Spanned;

use super::points::Points;
use super::profile::Profile;
use super::snag::{Snag, list, meant};
use super::watch::Watch;

mod acts;
pub(crate) mod lists;
mod span;
pub(crate) mod tools;

pub(crate) use acts::{Act, Question, Sign, Undo, json};
pub(crate) use span::{After, Span};

pub(crate) type Named<T> = BTreeMap<Spanned<String>, T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeFile {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) profile: Option<Spanned<Profile>>,
    pub(crate) entry: Option<Spanned<String>>,
    pub(crate) ask: Option<Spanned<Ask>>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) policy: Option<PolicySection>,
    pub(crate) store: Option<Spanned<Store>>,
    pub(crate) points: Option<Spanned<Points>>,
    pub(crate) watch: Option<Spanned<Watch>>,
    #[serde(default)]
    pub(crate) models: Named<Model>,
    #[serde(default)]
    pub(crate) groups: Named<Group>,
    #[serde(default)]
    pub(crate) tools: Named<Tool>,
    #[serde(default)]
    pub(crate) people: Named<Person>,
    #[serde(default)]
    pub(crate) agents: Named<Agent>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strategy {
    #[default]
    OneForOne,
    OneForAll,
    RestForOne,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Supervisor {
    #[serde(default)]
    pub(crate) strategy: Strategy,
    pub(crate) restarts: Option<u32>,
    pub(crate) period: Option<Spanned<Span>>,
    pub(crate) scope: Option<Spanned<Scope>>,
    pub(crate) lines_every: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicySection {
    pub(crate) max_retries: Option<Spanned<u32>>,
    #[serde(default)]
    pub(crate) retries: BTreeMap<Spanned<Class>, u32>,
    pub(crate) attempt_timeout: Option<Spanned<Span>>,
    pub(crate) max_delay: Option<Spanned<Span>>,
    pub(crate) jitter_percent: Option<Spanned<u8>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durability {
    #[default]
    Sync,
    Async,
    Memory,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) path: Option<Spanned<PathBuf>>,
    pub(crate) durability: Option<Spanned<Durability>>,
    pub(crate) process_deaths: Option<Spanned<NonZeroU32>>,
}

/// How a model is asked where no agent does it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    pub(crate) system: Option<String>,
    pub(crate) max_tokens: Option<Spanned<u32>>,
    pub(crate) temperature: Option<Spanned<f32>>,
    pub(crate) response_format: Option<Spanned<Answering>>,
    pub(crate) schema: Option<Spanned<PathBuf>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answering {
    #[default]
    Text,
    Json,
    Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ModelKind {
    Openai,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
    OllamaNative,
    Local,
    Default,
    Template,
}

impl ModelKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::OllamaNative => "ollama-native",
            Self::Local => "local",
            Self::Default => "default",
            Self::Template => "template",
        }
    }

    /// Where endpoints of this kind are, for a hint; `None` for what is no endpoint.
    pub(crate) const fn example(self) -> Option<&'static str> {
        match self {
            Self::Openai | Self::Responses => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com/v1"),
            Self::Gemini => Some("https://generativelanguage.googleapis.com/v1beta"),
            Self::Ollama => Some("http://127.0.0.1:11434/v1"),
            Self::OllamaNative => Some("http://127.0.0.1:11434"),
            Self::Local | Self::Default | Self::Template => None,
        }
    }

    /// Whether it says the text of its section, and asks nobody.
    pub(crate) const fn gives_text(self) -> bool {
        matches!(self, Self::Default | Self::Template)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) kind: Spanned<ModelKind>,
    pub(crate) base_url: Option<Spanned<String>>,
    pub(crate) model: Option<Spanned<String>>,
    pub(crate) key_env: Option<Spanned<String>>,
    pub(crate) text: Option<Spanned<String>>,
    pub(crate) timeout: Option<Spanned<Span>>,
    pub(crate) idle_timeout: Option<Spanned<Span>>,
    pub(crate) answer_tokens: Option<Spanned<NonZeroU32>>,
    pub(crate) token_limit: Option<Spanned<LimitName>>,
    pub(crate) structured_output: Option<Spanned<bool>>,
    pub(crate) headers: Headers,
    pub(crate) headers_env: Headers,
    pub(crate) concurrency: Option<Spanned<u32>>,
    pub(crate) price_per_million: Option<Spanned<Price>>,
    pub(crate) limits: Option<Spanned<Limits>>,
    pub(crate) quota_domain: Option<Spanned<String>>,
    pub(crate) provider: Option<Spanned<String>>,
    pub(crate) guardrail: Option<Spanned<u8>>,
    pub(crate) residency: Option<Spanned<String>>,
    pub(crate) context_window: Option<Spanned<NonZeroU32>>,
    pub(crate) price_cap: Option<Spanned<f64>>,
    pub(crate) tool_rights: Option<Spanned<BTreeSet<String>>>,
}

/// What chat completions call the token limit of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LimitName {
    MaxTokens,
    MaxCompletionTokens,
}

/// What a million tokens cost, in the currency.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    pub(crate) input: f64,
    pub(crate) output: f64,
}

/// In millionths of the currency; `None` for what is no price.
pub(crate) fn micros(price: f64) -> Option<u64> {
    let micros = (price * 1e6).round();
    // Far below what loses digits.
    (micros.is_finite() && (0.0..1e15).contains(&micros)).then_some(micros as u64)
}

/// What an endpoint, or all of a quota domain together, keep to.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) requests_per_minute: Option<u32>,
    pub(crate) tokens_per_minute: Option<u64>,
    pub(crate) concurrent: Option<u32>,
    pub(crate) max_wait: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GroupKind {
    Model,
    Tool,
    Step,
    Data,
    Output,
}

impl GroupKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Model, Self::Tool, Self::Step, Self::Data, Self::Output];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Step => "step",
            Self::Data => "data",
            Self::Output => "output",
        }
    }

    /// Whether its members take the requests of models.
    pub(crate) const fn is_of_models(self) -> bool {
        matches!(self, Self::Model | Self::Output)
    }

    /// Whether its members take the calls of tools.
    pub(crate) const fn is_of_tools(self) -> bool {
        matches!(self, Self::Tool | Self::Data)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) kind: Spanned<GroupKind>,
    pub(crate) members: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(crate) grants: BTreeMap<Spanned<String>, Grant>,
    pub(crate) hedge: Option<Spanned<Hedging>>,
    pub(crate) durable: Option<Spanned<bool>>,
    pub(crate) all_down: Option<Spanned<AllDown>>,
    /// Of what it is asked, whoever has served.
    pub(crate) undo: Option<Spanned<Undo>>,
    pub(crate) verify: Option<Spanned<Question>>,
}

/// What becomes of a new request while every member of a group rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AllDown {
    LastResort,
    WaitUntil,
    Fail,
}

/// When a slow request is also given to the next member.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hedging {
    pub(crate) after: After,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    pub(crate) owner: Spanned<String>,
    pub(crate) reason: Spanned<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Builtin {
    QueryOrder,
    Refund,
    TakeBack,
    Escalate,
    VectorSearch,
    ExactSearch,
    Default,
}

/// Headers by their names: their values, or the variables that have them.
pub(crate) type Headers = Option<Spanned<BTreeMap<Spanned<String>, Spanned<String>>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) builtin: Option<Spanned<Builtin>>,
    pub(crate) data: Option<Spanned<PathBuf>>,
    pub(crate) documents: Option<Spanned<PathBuf>>,
    pub(crate) text: Option<Spanned<String>>,
    pub(crate) command: Option<Spanned<Vec<String>>>,
    pub(crate) url: Option<Spanned<String>>,
    pub(crate) env: Option<Spanned<BTreeMap<String, Spanned<String>>>>,
    #[serde(default)]
    pub(crate) env_from: Vec<Spanned<String>>,
    pub(crate) bearer_env: Option<Spanned<String>>,
    pub(crate) headers: Headers,
    pub(crate) headers_env: Headers,
    pub(crate) dir: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(crate) effects: Named<Act>,
    /// Of a built-in tool; a tool of a server has its own.
    pub(crate) undo: Option<Spanned<Undo>>,
    pub(crate) trusted: Option<Spanned<bool>>,
    pub(crate) timeout: Option<Spanned<Span>>,
    pub(crate) max_result_bytes: Option<Spanned<NonZeroUsize>>,
    pub(crate) connect_wait: Option<Spanned<Span>>,
    pub(crate) start_timeout: Option<Spanned<Span>>,
    pub(crate) ping_timeout: Option<Spanned<Span>>,
    pub(crate) errors_are_transient: Option<Spanned<bool>>,
}

/// What happens when a person does not decide in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Otherwise {
    #[default]
    Refuse,
    PassOn,
    Answer,
}

/// A person who stands in: the manual override.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Person {
    pub(crate) expiry: Option<Spanned<Span>>,
    pub(crate) otherwise: Option<Spanned<Otherwise>>,
    pub(crate) text: Option<Spanned<String>>,
}

impl Person {
    /// How long a person has, unless the file says so.
    const EXPIRY: Duration = Duration::from_secs(600);

    pub(crate) fn expiry(&self) -> Duration {
        self.expiry.as_ref().map_or(Self::EXPIRY, |span| span.get_ref().0)
    }

    pub(crate) fn otherwise(&self) -> Otherwise {
        self.otherwise.as_ref().map(|it| *it.get_ref()).unwrap_or_default()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    pub(crate) model: Spanned<String>,
    pub(crate) system: Option<String>,
    /// What an agent that gives it tasks is told about it.
    pub(crate) description: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) tools: Vec<Spanned<String>>,
    /// Those it can start one of for a task.
    #[serde(default)]
    pub(crate) agents: Vec<Spanned<String>>,
    pub(crate) max_steps: Option<Spanned<u32>>,
    pub(crate) max_tokens: Option<Spanned<u32>>,
    pub(crate) temperature: Option<Spanned<f32>>,
    /// A file with the JSON schema of its answers.
    pub(crate) answer_schema: Option<Spanned<PathBuf>>,
    pub(crate) budget: Option<Spanned<Budget>>,
    pub(crate) checkpoint: Option<Spanned<Checkpoint>>,
}

/// What one task may spend, all calls included.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) tokens: Option<Spanned<u64>>,
    /// In the currency of the prices.
    pub(crate) money: Option<Spanned<f64>>,
    pub(crate) time: Option<Span>,
}

/// When an agent's state is stored, besides before each act.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    pub(crate) steps: Option<NonZeroU32>,
    pub(crate) lines: Option<NonZeroU32>,
    pub(crate) effects: Option<bool>,
}

/// Reads a file's text.
pub(crate) fn read(text: &str) -> Result<TreeFile, Snag> {
    if let Some(snag) = lists::misplaced(text) {
        return Err(snag);
    }
    toml::from_str(text).map_err(|error| refused(text, error.message(), error.span()))
}

/// The `[store]` of a file, whatever else stands there.
pub(crate) fn read_store(text: &str) -> Result<Option<Spanned<Store>>, Snag> {
    #[derive(Deserialize)]
    struct Only {
        store: Option<Spanned<Store>>,
    }
    let read = toml::from_str(text).map(|Only { store }| store);
    read.map_err(|error| refused(text, error.message(), error.span()))
}

/// What the reader says, in our words.
fn refused(text: &str, message: &str, span: Option<Range<usize>>) -> Snag {
    // The names that a message lists, between backticks.
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let Some(([wrong], known)) = message
        .starts_with("unknown ")
        .then(|| names.split_at_checked(1))
        .flatten()
        .and_then(|(wrong, known)| Some((<[&str; 1]>::try_from(wrong).ok()?, known)))
    {
        let what = if message.starts_with("unknown field") { "key" } else { "value" };
        let span = if what == "key" { key_at(text, wrong, span) } else { span };
        let help = match meant(wrong, known.iter().copied()) {
            _ if what == "key" && is_key(wrong) && known.iter().any(|it| it.ends_with("_env")) => {
                let name = if known.contains(&"key_env") { "key_env" } else { "bearer_env" };
                format!(
                    "a key stands in no file: write `{name} = \"VARIABLE\"`, and set this environment variable to it before the start"
                )
            }
            Some(name) => {
                format!("did you mean `{name}`? known here: {}", list(known.iter().copied()))
            }
            None => format!("known here: {}", list(known.iter().copied())),
        };
        return Snag::new(
            span,
            format!("unknown {what} `{wrong}`"),
            format!("not a {what} of this place"),
            help,
        );
    }
    if let ([missing], true) = (&names[..], message.starts_with("missing field")) {
        let message = format!("the key `{missing}` is missing");
        let hint = format!("add a line `{missing} = ...`");
        return Snag::new(span, message, "in this table", hint);
    }
    if let Some((found, expected)) = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.split_once(", expected "))
    {
        let section = expected.strip_prefix("struct ").map(|kind| Section::of(kind, text, &span));
        if let Some(Section { what, hint }) = section {
            return Snag::new(span, format!("{found} where {what} is expected"), "", hint);
        }
        let hint = match expected {
            "a string" | "path string" => "put it into quotes".to_owned(),
            "a map" => "write a table: [SECTION.NAME], and its keys below".to_owned(),
            "u8" => "write a whole number from 0 to 255, without quotes".to_owned(),
            "u32" => "write a whole number from 0 to 4294967295, without quotes".to_owned(),
            "a sequence" => "put it into brackets: [\"a\", \"b\"]".to_owned(),
            other if other.starts_with("a nonzero") => {
                "write a whole number above 0, without quotes".to_owned()
            }
            "a boolean" => "write true or false, without quotes".to_owned(),
            "u64" => "write a whole number, not below 0, without quotes".to_owned(),
            "f32" | "f64" => "write a number, without quotes".to_owned(),
            "a kind of effect" => {
                "write a word such as \"read\", or { kind = \"compensable\", undo = { tool = \"...\" } }"
                    .to_owned()
            }
            other if other.contains("\"p95\"") => {
                "write a time such as \"300ms\", or \"p95\": longer than 95 of 100 requests took"
                    .to_owned()
            }
            other if other.starts_with("a duration") => {
                "write a whole number above 0 and a unit: \"500ms\", \"30s\", \"2m\" or \"1h\"; at most a year"
                    .to_owned()
            }
            other => format!("write {other}"),
        };
        let found = found.strip_suffix(" as i128").unwrap_or(found);
        let found = match found {
            "map" => "a table",
            "sequence" => "a list",
            other => other,
        };
        let expected = match expected {
            "u64" | "u32" | "u8" => "a whole number",
            "f32" | "f64" => "a number",
            other if other.starts_with("a nonzero") => "a whole number above 0",
            "a sequence" => "a list",
            "a map" => "a table",
            "path string" => "a path",
            other => other,
        };
        return Snag::new(
            span,
            format!("{found} where {expected} is expected"),
            format!("expected {expected}"),
            hint,
        );
    }
    not_toml(text, message.lines().next().unwrap_or_default(), span)
}

/// Whether somebody means to write down a key under this name.
fn is_key(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "key",
        "apikey",
        "token",
        "apitoken",
        "accesstoken",
        "secret",
        "secretkey",
        "bearer",
        "bearertoken",
        "authorization",
        "password",
        "auth",
    ];
    let plain = name.to_ascii_lowercase().replace(['_', '-'], "");
    NAMES.contains(&plain.as_str())
}

/// What a section is, where something else stands in its place.
struct Section {
    what: &'static str,
    hint: String,
}

impl Section {
    /// The reader names our own types, which nobody else has seen.
    fn of(kind: &str, text: &str, span: &Option<Range<usize>>) -> Self {
        let (what, hint) = match kind {
            "Price" => ("a table of prices", "write { input = 2.5, output = 10.0 }"),
            "Limits" => ("a table of limits", "write { requests_per_minute = 60, concurrent = 4 }"),
            "Hedging" => ("a hedge", "write { after = \"300ms\" } or { after = \"p95\" }"),
            "Budget" => ("a budget", "write { tokens = 50000, money = 0.5, time = \"2m\" }"),
            "Undo" => {
                ("an undo", "write { tool = \"SERVER.TOOL\", arguments = { id = \"{id}\" } }")
            }
            "Question" => (
                "a question",
                "write { tool = \"SERVER.TOOL\", at = \"state\", happened = [\"paid\"], not_happened = [\"open\"] }",
            ),
            "Checkpoint" => ("a checkpoint's interval", "write { steps = 5 }"),
            "Grant" => ("a grant", "write { owner = \"...\", reason = \"...\" }"),
            "Ask" | "Supervisor" | "PolicySection" | "Store" | "Points" | "Watch" => {
                ("a section", "write it as [NAME], and its keys below")
            }
            _ => {
                let before = span.as_ref().and_then(|span| text.get(..span.start));
                let open = before
                    .and_then(|text| text.rfind("\n[").or(text.starts_with('[').then_some(0)));
                let head = open.and_then(|at| text[at..].trim_start().strip_prefix('['));
                let head = head.and_then(|text| text.split(']').next()).unwrap_or("models");
                let hint = format!("write [{head}.NAME], and the keys of that one below");
                return Self { what: "a section with a name", hint };
            }
        };
        Self { what, hint: hint.to_owned() }
    }
}

/// What is wrong where the text cannot even be read.
fn not_toml(text: &str, message: &str, span: Option<Range<usize>>) -> Snag {
    let rest = span.as_ref().and_then(|span| text.get(span.start..)).unwrap_or_default();
    let (said, hint) = match message {
        _ if message.starts_with("string values must be quoted") => {
            if rest.lines().next().is_none_or(|line| line.trim().is_empty()) {
                ("a key without a value", "write a value behind the `=`, or remove the line")
            } else {
                ("a text without quotes", "put it into quotes")
            }
        }
        _ if message.starts_with("key with no value") => {
            ("a key without a value", "write `key = value`")
        }
        _ if message.starts_with("unclosed table") => {
            ("a section's name that does not end", "end it with `]`")
        }
        _ if message.contains("string") && message.contains("expected `") => {
            ("a text that does not end", "end it with the quote that it begins with")
        }
        _ if message.contains("visible characters") => (
            "a control character in a text",
            "write it as it is written in TOML: \\t, \\n, \\u0000",
        ),
        _ if message.starts_with("carriage return") => {
            ("half the end of a line", "end each line with a newline, as every editor can")
        }
        "duplicate key" => ("it stands above already", "keep one of the two"),
        "wanted string or table" => {
            ("something else where one word is expected", "write one word in quotes")
        }
        other => (other, "this is not TOML; see the example in `mainstay help check`"),
    };
    Snag::new(span, said, "here", hint)
}

/// The key itself, where the reader marks the whole table.
fn key_at(text: &str, key: &str, span: Option<Range<usize>>) -> Option<Range<usize>> {
    let span = span?;
    if text.get(span.clone()) == Some(key) {
        return Some(span);
    }
    let at = text.get(span.start..)?.find(key)? + span.start;
    Some(at..at + key.len())
}
