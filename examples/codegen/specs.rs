//! What is to be written: small specifications, one JSON object a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = include_str!("../data/functions.jsonl");
/// So many examples are shown to whoever writes the function; the others are only for its test.
const SHOWN: usize = 2;

/// A function to be written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) params: Vec<String>,
    /// What it returns, in words.
    pub(crate) says: String,
    /// When it raises a `ValueError`.
    pub(crate) refuses: Vec<Refusal>,
    /// What it begins with: names and their first values.
    pub(crate) keeps: Vec<(String, String)>,
    /// What it goes through.
    pub(crate) walks: Option<String>,
    /// What it does, for each or once.
    pub(crate) does: Vec<String>,
    /// What it returns, as an expression.
    pub(crate) gives: String,
    pub(crate) examples: Vec<Example>,
}

/// A case in which a function refuses its arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) when: String,
    pub(crate) because: String,
}

/// A call and what comes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Example {
    pub(crate) given: Vec<Value>,
    #[serde(default)]
    pub(crate) gives: Value,
    /// It raises a `ValueError` instead.
    #[serde(default)]
    pub(crate) raises: bool,
}

impl Spec {
    /// The examples that whoever writes it may know.
    pub(crate) fn shown(&self) -> &[Example] {
        &self.examples[..self.examples.len().min(SHOWN)]
    }

    /// Its first line.
    pub(crate) fn signature(&self) -> String {
        format!("def {}({}):", self.name, self.params.join(", "))
    }

    /// A call of it, as one writes it in Python.
    pub(crate) fn call(&self, example: &Example) -> String {
        let given: Vec<_> = example.given.iter().map(python).collect();
        format!("{}({})", self.name, given.join(", "))
    }
}

/// A value as one writes it in Python.
pub(crate) fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("{key:?}: {}", python(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

/// The specifications, or the first so many of them.
pub(crate) fn read(limit: Option<usize>) -> Result<Vec<Spec>, String> {
    FILE.lines()
        .take(limit.unwrap_or(usize::MAX))
        .enumerate()
        .map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| format!("functions.jsonl, line {}: {error}", index + 1))
        })
        .collect()
}
