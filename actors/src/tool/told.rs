//! The schema of a tool's arguments as providers take it. One that they do not take has a whole request refused,
//! with all the other tools in it.
//!
//! *Invariant.* What the tool takes can be written under what is told of it; more than that may be.

use std::cell::Cell;

use serde_json::{Map, Value, json};

/// How deep a schema is looked at; beyond, it is told as it is.
const DEEPEST: usize = 32;
/// How often choices and references may stand in each other at the top.
const LAYERS: usize = 8;
/// How many of them are looked at, also where they stand in themselves.
const MOST: usize = 2000;
/// The longest description of a tool that all providers take, in characters.
const LONGEST: usize = 1024;
/// The longest name of an argument that all of them take, in bytes.
const LONGEST_NAME: usize = 64;
/// What all providers but few refuse at the top.
const AT_THE_TOP: [&str; 10] =
    ["anyOf", "oneOf", "allOf", "enum", "const", "not", "if", "then", "else", "$ref"];

/// A description that is not too long.
pub(crate) fn description(text: &str) -> String {
    if text.chars().nth(LONGEST).is_none() {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(LONGEST - 1).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('\u{2026}');
    cut
}

/// The schema without what is refused: choices at the top are told as one object with what is in any of them,
/// arrays have items, and arguments with odd names are told in words.
pub(crate) fn parameters(mut schema: Value) -> Value {
    mend(&mut schema, 0);
    let whole = schema.clone();
    let Some(top) = schema.as_object_mut() else { return schema };
    let mut notes = Vec::new();
    if AT_THE_TOP.iter().any(|word| top.contains_key(*word)) {
        let left = Cell::new(MOST);
        let Shape { properties, required } = shape(&whole, &whole, LAYERS, &left);
        let choices = ["anyOf", "oneOf"].iter().filter_map(|word| whole[*word].as_array());
        for choices in choices {
            let sets = choices.iter().map(|choice| shape(choice, &whole, LAYERS - 1, &left));
            let sets: Vec<_> = sets
                .map(|set| Vec::from_iter(set.properties.keys().map(String::as_str)).join(", "))
                .filter(|names| !names.is_empty())
                .collect();
            if sets.len() > 1 {
                notes.push(format!("One of these sets of arguments: {}.", sets.join("; or ")));
            }
        }
        top.retain(|word, _| !AT_THE_TOP.contains(&&**word));
        // It was said of a part of them.
        if top.get("additionalProperties") == Some(&Value::Bool(false)) {
            top.remove("additionalProperties");
        }
        top.insert("properties".to_owned(), properties.into());
        top.remove("required");
        if !required.is_empty() {
            top.insert("required".to_owned(), required.into());
        }
    }
    top.insert("type".to_owned(), "object".into());
    let named = top.entry("properties").or_insert_with(|| Map::new().into());
    if !named.is_object() {
        *named = Map::new().into();
    }
    if let Some(named) = named.as_object_mut() {
        let odd: Vec<_> = named.keys().filter(|name| !is_taken(name)).cloned().collect();
        for name in &odd {
            let schema = named.remove(name).unwrap_or_default();
            notes.push(format!("Takes also an argument {}: {schema}.", Value::from(&**name)));
        }
        if !odd.is_empty() {
            top.remove("additionalProperties");
            if let Some(required) = top.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name.as_str().is_none_or(is_taken));
            }
        }
    }
    if !notes.is_empty() {
        let said = top.get("description").and_then(Value::as_str).map(str::to_owned);
        let text = said.into_iter().chain(notes).collect::<Vec<_>>().join(" ");
        top.insert("description".to_owned(), description(&text).into());
    }
    schema
}

fn is_taken(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// Gives arrays their items, wherever a schema stands in this one.
fn mend(schema: &mut Value, depth: usize) {
    let Some(words) = schema.as_object_mut().filter(|_| depth < DEEPEST) else { return };
    let is_array = match words.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "array"),
        kind => kind.is_some_and(|kind| kind == "array"),
    };
    if is_array {
        let items = words.entry("items").or_insert_with(|| json!({}));
        // An older way to write those of a list of fixed length.
        if let Value::Array(places) = items {
            let places = std::mem::take(places);
            *items = if places.is_empty() { json!({}) } else { json!({ "anyOf": places }) };
        }
    }
    for (word, inner) in words {
        match (&**word, inner) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
                Value::Object(inner),
            ) => inner.values_mut().for_each(|inner| mend(inner, depth + 1)),
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(inner)) => {
                inner.iter_mut().for_each(|inner| mend(inner, depth + 1));
            }
            (
                "items" | "additionalProperties" | "contains" | "not" | "if" | "then" | "else",
                inner,
            ) => mend(inner, depth + 1),
            _ => {}
        }
    }
}

/// What an object may have, and what it must have.
#[derive(Default)]
struct Shape {
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl Shape {
    /// What may be in either, and must be in both.
    fn or(mut self, other: Self) -> Self {
        self.required.retain(|name| other.required.contains(name));
        self.take(other.properties);
        self
    }

    /// What may be in either, and must be in one.
    fn and(mut self, other: Self) -> Self {
        let news = other.required.into_iter().filter(|name| !self.required.contains(name));
        let news: Vec<_> = news.collect();
        self.required.extend(news);
        self.take(other.properties);
        self
    }

    fn take(&mut self, others: Map<String, Value>) {
        for (name, other) in others {
            let Some(mine) = self.properties.get_mut(&name) else {
                self.properties.insert(name, other);
                continue;
            };
            if *mine == other {
                continue;
            }
            match mine.get_mut("anyOf").and_then(Value::as_array_mut) {
                Some(all) if all.contains(&other) => {}
                Some(all) => all.push(other),
                None => *mine = json!({ "anyOf": [mine.take(), other] }),
            }
        }
    }
}

/// The schema as one of an object, with what may be looked at on the way: `left` schemas, `layers` deep.
fn shape(schema: &Value, whole: &Value, layers: usize, left: &Cell<usize>) -> Shape {
    let mut shape = Shape::default();
    let Some(rest) = left.get().checked_sub(1) else { return shape };
    left.set(rest);
    if let Some(properties) = schema["properties"].as_object() {
        shape.properties.clone_from(properties);
    }
    let required = schema["required"].as_array().into_iter().flatten();
    shape.required.extend(required.filter_map(Value::as_str).map(str::to_owned));
    let Some(inner) = layers.checked_sub(1) else { return shape };
    let place = schema["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
    if let Some(target) = place.and_then(|place| whole.pointer(place))
        && !std::ptr::eq(target, schema)
    {
        shape = shape.and(self::shape(target, whole, inner, left));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        shape = shape.and(self::shape(part, whole, inner, left));
    }
    for word in ["anyOf", "oneOf"] {
        let choices = schema[word].as_array().into_iter().flatten();
        let choices = choices.map(|choice| self::shape(choice, whole, inner, left));
        if let Some(either) = choices.reduce(Shape::or) {
            shape = shape.and(either);
        }
    }
    for word in ["then", "else"] {
        shape.take(self::shape(&schema[word], whole, inner, left).properties);
    }
    shape
}

#[cfg(test)]
mod tests {
    use mainstay::spec::acting::Read;

    use super::*;
    use crate::tool::Tool;

    #[test]
    fn choices_at_the_top_are_told_as_one_object_with_what_any_of_them_has() {
        for word in ["anyOf", "oneOf"] {
            let told = parameters(json!({
                "type": "object", "additionalProperties": false,
                "properties": {"dry": {"type": "boolean"}}, "required": ["dry"],
                "$defs": {"by_id": {"properties": {"id": {"type": "integer"}, "of": {"const": "x"}},
                    "required": ["id", "of"]}},
                word: [
                    {"$ref": "#/$defs/by_id"},
                    {"type": "object", "properties": {"name": {"type": "string"}, "of": {"const": "y"}},
                        "required": ["name", "of"], "additionalProperties": false},
                ],
            }));
            assert!(AT_THE_TOP.iter().all(|word| told.get(word).is_none()), "{told}");
            assert_eq!(told["type"], "object");
            assert_eq!(told["required"], json!(["dry", "of"]));
            let expected = json!({"dry": {"type": "boolean"}, "id": {"type": "integer"},
                "name": {"type": "string"}, "of": {"anyOf": [{"const": "x"}, {"const": "y"}]}});
            assert_eq!(told["properties"], expected);
            assert_eq!(told.get("additionalProperties"), None);
            let sets = "One of these sets of arguments: id, of; or name, of.";
            assert_eq!(told["description"], sets);
        }
        let both = json!({"allOf": [
            {"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]});
        let told = parameters(both);
        let expected =
            json!({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]});
        assert_eq!(told, expected);
    }

    #[test]
    fn a_tool_whose_arguments_are_an_enum_is_offered_as_an_object() {
        #[derive(serde::Deserialize, schemars::JsonSchema)]
        #[serde(tag = "by")]
        enum Search {
            Id { id: u32 },
            Name { name: String },
        }
        let tool = Tool::typed("search", "Searches.", Read, async |search: Search, _| {
            Ok(match search {
                Search::Id { id } => id.to_string(),
                Search::Name { name } => name,
            })
        });
        let told: Value = serde_json::from_str(&tool.offer().parameters).unwrap();
        assert!(AT_THE_TOP.iter().all(|word| told.get(word).is_none()), "{told}");
        assert_eq!(told["required"], json!(["by"]));
        let names: Vec<_> = told["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["by", "id", "name"]);
    }

    #[test]
    fn a_schema_that_refers_to_itself_is_told_in_the_end() {
        let told = parameters(json!({"anyOf": [{"$ref": "#"}, {"properties": {"a": {}}}]}));
        assert_eq!(told["properties"], json!({"a": {}}));
        // Nor does it take for ever where it does so many times.
        let again = vec![json!({"$ref": "#"}); 500];
        let told = parameters(json!({"properties": {"a": {}}, "anyOf": again, "oneOf": again}));
        assert_eq!(told["properties"], json!({"a": {}}));
    }

    #[test]
    fn arrays_have_items_and_what_only_looks_like_one_is_left_alone() {
        let told = parameters(json!({"type": "object", "properties": {
            "type": {"type": "array"},
            "pair": {"type": ["array", "null"], "items": [{"type": "string"}, {"type": "array"}]},
            "deep": {"anyOf": [{"type": "array", "items": {"type": "array"}}]},
            "fixed": {"default": {"type": "array"}, "enum": [{"type": "array"}]},
        }}));
        let expected = json!({"type": "object", "properties": {
            "type": {"type": "array", "items": {}},
            "pair": {"type": ["array", "null"], "items": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]}},
            "deep": {"anyOf": [{"type": "array", "items": {"type": "array", "items": {}}}]},
            "fixed": {"default": {"type": "array"}, "enum": [{"type": "array"}]},
        }});
        assert_eq!(told, expected);
    }

    #[test]
    fn an_argument_with_a_name_that_is_refused_is_told_in_words() {
        let told = parameters(
            json!({"type": "object", "description": "What.", "additionalProperties": false,
            "properties": {"a": {}, "b b": {"type": "string"}}, "required": ["a", "b b"]}),
        );
        let expected = json!({"type": "object", "properties": {"a": {}}, "required": ["a"],
            "description": "What. Takes also an argument \"b b\": {\"type\":\"string\"}."});
        assert_eq!(told, expected);
    }

    #[test]
    fn a_description_is_cut_where_the_strictest_provider_would_refuse_it() {
        let most = "\u{e9}".repeat(LONGEST);
        assert_eq!(description(&most), most);
        let cut = description(&(most.clone() + "x"));
        assert_eq!((cut.chars().count(), cut.chars().last()), (LONGEST, Some('\u{2026}')));
        assert!(most.starts_with(cut.trim_end_matches('\u{2026}')));
    }
}
