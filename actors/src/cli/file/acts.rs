//! What a tool does to the world, how that is undone, and how its outcome is found out.
//!
//! *Invariant.* What is asked to undo or to find out follows from the arguments of the call alone: it is
//! written down before the tool is asked, when there is no result yet.

use std::fmt;

use mainstay::fault::EffectKind;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use toml::Spanned;

/// A tool of a server: its kind alone, or a table.
#[derive(Debug)]
pub(crate) struct Act {
    pub(crate) kind: EffectKind,
    pub(crate) undo: Option<Spanned<Undo>>,
    pub(crate) verify: Option<Spanned<Question>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: EffectKind,
    undo: Option<Spanned<Undo>>,
    verify: Option<Spanned<Question>>,
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Act;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a kind of effect")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Act, E> {
                let kind = EffectKind::deserialize(StrDeserializer::new(word))?;
                Ok(Act { kind, undo: None, verify: None })
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Act, M::Error> {
                let Table { kind, undo, verify } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Act { kind, undo, verify })
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// What undoes a call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Undo {
    pub(crate) tool: Spanned<String>,
    pub(crate) arguments: Option<Spanned<toml::Table>>,
}

/// What tells whether a call has happened.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    pub(crate) tool: Spanned<String>,
    pub(crate) arguments: Option<Spanned<toml::Table>>,
    /// Where in the answer; else it is the answer itself.
    pub(crate) at: Option<Spanned<String>>,
    pub(crate) happened: Option<Spanned<Sign>>,
    pub(crate) not_happened: Option<Spanned<Sign>>,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sign {
    Present,
    Absent,
    OneOf(Vec<Value>),
}

impl<'de> Deserialize<'de> for Sign {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Sign;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"present\", \"absent\" or a list of values")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Sign, E> {
                match word {
                    "present" => Ok(Sign::Present),
                    "absent" => Ok(Sign::Absent),
                    other => Err(E::unknown_variant(other, &["present", "absent"])),
                }
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Sign, S::Error> {
                let mut values = Vec::new();
                while let Some(value) = seq.next_element::<toml::Value>()? {
                    values.push(json(value));
                }
                Ok(Sign::OneOf(values))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// The same value as tools see it. A date is the text that it is written with.
pub(crate) fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(truth) => Value::from(truth),
        toml::Value::Datetime(date) => Value::from(date.to_string()),
        toml::Value::Array(values) => values.into_iter().map(json).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(key, value)| (key, json(value))).collect())
        }
    }
}
