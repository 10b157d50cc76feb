//! What the schemas of tools say, and what is held against them.

use super::*;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct Transfer {
    /// Whose account pays.
    from: String,
    #[schemars(range(min = 1, max = 1000))]
    amount: u32,
    currency: Option<Currency>,
    parts: Vec<Part>,
}

#[derive(Deserialize, JsonSchema)]
enum Currency {
    Eur,
    Usd,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct Part {
    to: String,
    note: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[test]
fn a_type_becomes_a_schema_that_says_what_its_fields_are_for() {
    let schema = of::<Transfer>();
    assert_eq!(schema["properties"]["from"]["description"], "Whose account pays.");
    assert_eq!(schema["required"], json!(["from", "amount", "parts"]));
    assert!(schema.get("$schema").is_none() && !schema.to_string().contains("$ref"), "{schema}");
    assert_eq!(of::<Nothing>()["properties"], json!({}));
    assert_eq!(of::<Nothing>()["type"], "object");
}

#[test]
fn a_schema_that_names_itself_twice_is_looked_at_for_so_long_and_no_longer() {
    let twice = json!({"allOf": [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}]});
    // It would take 2^32 looks otherwise, and not end.
    assert_eq!(problems(&twice, &json!({})), "");
    assert!(faults(&twice, &json!({})).contains("too deep to be checked"));
}

#[test]
fn what_is_said_of_anothers_result_has_a_limit_and_is_looked_for_so_long() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    assert_eq!(broken(&schema, &json!({"a": "b", "c": 1})), "");
    assert_eq!(broken(&schema, &json!({"a": 1})), "member \"a\" is of type integer, not string");
    assert_eq!(broken(&schema, &json!([])), "it is of type array, not object");
    let closed = json!({"additionalProperties": false});
    let said = broken(&closed, &json!({"ä".repeat(2000): 1}));
    assert!(said.ends_with('\u{2026}') && said.len() <= LONGEST_TOLD + 3, "{}", said.len());
    // Ours would be refused; of another's that is not known.
    let twice = json!({"allOf": [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}]});
    assert_eq!(broken(&twice, &json!({})), "");
    let items: Vec<u32> = (0..100_000).collect();
    let unique = json!({"uniqueItems": true, "items": {"enum": items}});
    let mut again = items.clone();
    again.push(7);
    assert_eq!(broken(&unique, &json!(items)), "");
    assert_eq!(broken(&unique, &json!(again)), "it has the same item twice");
}

#[test]
fn a_result_is_only_refused_for_what_is_certain() {
    let deep =
        json!({"$defs": {"t": {"items": {"$ref": "#/$defs/t"}}}, "not": {"$ref": "#/$defs/t"}});
    let nested = (0..70).fold(json!([]), |inner, _| json!([inner]));
    let doubt = json!({"pattern": "^x"});
    let either = |one: Value, other: Value| json!({"oneOf": [one, other]});
    for (schema, good) in [
        (
            json!({"patternProperties": {"^x-": {}}, "additionalProperties": false}),
            json!({"x-a": 1}),
        ),
        (
            json!({"patternProperties": {"^x-": {}}, "additionalProperties": {"type": "null"}}),
            json!({"x-a": 1}),
        ),
        (json!({"prefixItems": [{"type": "string"}, {}], "items": false}), json!(["a", 1])),
        (json!({"prefixItems": [{}], "items": {"type": "null"}}), json!([1, null])),
        (json!({"not": doubt}), json!("a")),
        (json!({"not": {"contains": {"const": 1}}}), json!([2])),
        (json!({"not": {"if": {"type": "string"}, "then": false}}), json!("a")),
        (json!({"not": {"format": "date"}}), json!("a")),
        (json!({"not": {"not": {"not": doubt}}}), json!("a")),
        (json!({"not": {"anyOf": [doubt, {"type": "null"}]}}), json!("a")),
        (json!({"not": {"properties": {"a": doubt}}}), json!({"a": "b"})),
        (json!({"not": {"$ref": "other.json"}}), json!(1)),
        (json!({"not": {"$ref": "#/$defs/none"}}), json!(1)),
        (json!({"not": {"type": "date"}}), json!(1)),
        (json!({"not": {"minimum": "1"}}), json!(1)),
        (json!({"not": {"multipleOf": 0.1}}), json!(0.3)),
        (json!({"not": {"uniqueItems": true}}), json!([1, 1.0])),
        (json!({"not": {"oneOf": [{"type": "null"}]}}), json!(1)),
        (json!({"not": {"maximum": 9_007_199_254_740_992_u64}}), json!(9_007_199_254_740_993_u64)),
        (json!({"exclusiveMinimum": 9_007_199_254_740_992_u64}), json!(9_007_199_254_740_993_u64)),
        (either(doubt.clone(), json!({"pattern": "^a"})), json!("a")),
        (either(doubt.clone(), json!({"type": "string"})), json!("a")),
        (
            either(json!({"prefixItems": [{"const": 1}]}), json!({"prefixItems": [{"const": 2}]})),
            json!([2]),
        ),
        (either(deep.clone(), json!({})), nested.clone()),
        (deep, nested),
        (json!({"const": 1.0}), json!(1)),
        (json!({"enum": [{"a": [1]}]}), json!({"a": [1.0]})),
        (json!({"multipleOf": 5}), json!(10_000_000_000_u64)),
        (json!({"type": ["string", "money"]}), json!(1)),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"items": [{"type": "string"}]}), json!([1])),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {}},
                "properties": {"a": {"$ref": "#/definitions/n", "minimum": 2}}}),
            json!({"a": 1}),
        ),
        (
            json!({"properties": {"a": {"$id": "b", "$defs": {"n": {}}, "$ref": "#/$defs/n"}}, "$defs": {"n": false}}),
            json!({"a": 1}),
        ),
    ] {
        assert_eq!(broken(&schema, &good), "", "{schema}: {good}");
    }
    // What is not known of one word leaves what is known of the others.
    for (schema, bad, said) in [
        (json!({"pattern": "^x", "type": "string"}), json!(1), "it is of type integer"),
        (json!({"prefixItems": [{"type": "string"}]}), json!([1]), "member \"[0]\" is of type"),
        (json!({"prefixItems": [{}], "items": false}), json!([1, 2]), "member \"[1]\" must not"),
        (json!({"oneOf": [{"type": "null"}]}), json!(1), "it is of type integer, not null"),
        (json!({"not": {"not": {"type": "null"}}}), json!(1), "it is what it must not be"),
        (
            either(json!({"pattern": "x", "type": "string"}), json!({"type": "null"})),
            json!(1),
            "not string",
        ),
        (json!({"const": 1.5}), json!(1), "it is not 1.5"),
        (json!({"multipleOf": 2}), json!(10_000_000_001_u64), "it is no multiple of 2"),
        (
            json!({"patternProperties": {}, "additionalProperties": false}),
            json!({"a": 1}),
            "is not known",
        ),
    ] {
        assert!(broken(&schema, &bad).contains(said), "{schema}: {}", broken(&schema, &bad));
    }
}

#[test]
fn every_problem_names_its_argument() {
    let schema = of::<Transfer>();
    let good = json!({"from": "a", "amount": 5, "currency": "Eur", "parts": [{"to": "b"}]});
    assert_eq!(problems(&schema, &good), "");
    let none = json!({"from": "a", "amount": 5, "currency": null, "parts": []});
    assert_eq!(problems(&schema, &none), "");
    let bad = json!({
        "amount": 5000, "currency": "Yen", "parts": [{"to": "b"}, {"note": 7}], "form": "a",
    });
    let text = problems(&schema, &bad);
    for part in [
        "argument \"from\" is missing",
        "argument \"amount\" is above 1000",
        "argument \"currency\" is none of \"Eur\", \"Usd\"",
        "argument \"parts[1].to\" is missing",
        "argument \"parts[1].note\" is of type integer, not string",
        "argument \"form\" is not known; there are: ",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(problems(&schema, &json!([])), "arguments: is of type array, not object");
    // In the order in which the type has them, and not of the letters or of what was written.
    let order = json!({"parts": [7], "nobody": 1, "currency": 7, "from": 1, "amount": "x"});
    assert_eq!(
        problems(&schema, &order),
        "argument \"from\" is of type integer, not string; \
         argument \"amount\" is of type string, not integer; \
         argument \"parts[0]\" is of type integer, not object; \
         argument \"currency\" is of type integer, not string; \
         argument \"nobody\" is not known; there are: amount, currency, from, parts"
    );
    let many = json!({"from": 1, "amount": "x", "parts": vec![json!({}); 20]});
    assert!(problems(&schema, &many).ends_with("; and 14 more"), "{}", problems(&schema, &many));
}

#[test]
fn a_value_that_is_none_of_an_enum_is_told_all_of_them() {
    /// What they are for stands in the schema of each.
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Speed {
        /// By foot.
        Slow,
        /// By train.
        Fast,
    }
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Way {
        Here,
        Post(String),
        Train { to: u32 },
    }
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Trip {
        way: Way,
        speed: Speed,
    }
    let schema = of::<Trip>();
    let none = "argument \"way\" is none of \"Here\", {\"Post\": \u{2026}}, {\"Train\": \u{2026}}";
    for (way, told) in [
        (json!("Here"), ""),
        (json!({"Post": "a"}), ""),
        (json!({"Train": {"to": 1}}), ""),
        (json!("There"), none),
        (json!("Post"), none),
        (json!({"Plane": 1}), none),
        (json!(7), none),
        (json!({"Post": 7}), "argument \"way.Post\" is of type integer, not string"),
        (json!({"Train": {}}), "argument \"way.Train.to\" is missing"),
    ] {
        let trip = json!({"way": way, "speed": "Fast"});
        assert_eq!(problems(&schema, &trip), told, "{way}");
    }
    let trip = json!({"way": "Here", "speed": "Medium"});
    let told = "argument \"speed\" is none of \"Slow\", \"Fast\"";
    assert_eq!(problems(&schema, &trip), told, "{schema}");
}

#[test]
fn every_word_of_a_schema_that_is_checked_forbids_something() {
    let tree = json!({"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"});
    let deep = (0..70).fold(json!([]), |inner, _| json!([inner]));
    for (schema, good, bad, said) in [
        (json!({"exclusiveMinimum": 1}), json!(1.5), json!(1), "it is not above 1"),
        (json!({"exclusiveMaximum": 1}), json!(0.5), json!(1), "it is not below 1"),
        (json!({"multipleOf": 0.1}), json!(0.3), json!(0.35), "it is no multiple of 0.1"),
        (json!({"minLength": 2}), json!("äö"), json!("ä"), "it has fewer than 2 characters"),
        (json!({"maxLength": 1}), json!("ä"), json!("ab"), "it has more than 1 characters"),
        (json!({"minItems": 1}), json!([1]), json!([]), "it has fewer than 1 items"),
        (json!({"maxItems": 1}), json!([1]), json!([1, 2]), "it has more than 1 items"),
        (
            json!({"uniqueItems": true}),
            json!([1, 2]),
            json!([1, 2, 1]),
            "it has the same item twice",
        ),
        (json!({"minProperties": 1}), json!({"a": 1}), json!({}), "it has fewer than 1 fields"),
        (json!({"maxProperties": 0}), json!({}), json!({"a": 1}), "it has more than 0 fields"),
        (json!({"not": {"type": "null"}}), json!(1), json!(null), "it is what it must not be"),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!(1), json!(3), "it is above 2"),
        (
            json!({"oneOf": [{"minimum": 1}, {"maximum": 2}]}),
            json!(3),
            json!(1),
            "fits more than one",
        ),
        (
            json!({"oneOf": [{"type": "null"}], "anyOf": [{"minimum": 1}, {}]}),
            json!(null),
            json!(0),
            "",
        ),
        (
            json!({"additionalProperties": {"type": "null"}}),
            json!({"a": null}),
            json!({"a": 1}),
            "field \"a\" is of type",
        ),
        (
            json!({"properties": {"a": false}}),
            json!({"b": 1}),
            json!({"a": 1}),
            "field \"a\" must not be there",
        ),
        (
            json!({"$defs": {"n": {"type": "number"}}, "$ref": "#/$defs/n", "minimum": 2}),
            json!(2),
            json!(1),
            "it is below 2",
        ),
        (tree, json!([[], [[]]]), deep, "is nested too deep"),
    ] {
        assert_eq!(known::checkable(&schema), Ok(()));
        assert_eq!(faults(&schema, &good), "", "{schema}");
        assert!(faults(&schema, &bad).contains(said), "{schema}: {}", faults(&schema, &bad));
    }
}
