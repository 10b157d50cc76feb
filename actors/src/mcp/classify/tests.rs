use std::any::TypeId;
use std::collections::BTreeSet;
use std::sync::Arc;

use mainstay::fault::{EffectKind, EffectState};

use rmcp::model::{ErrorCode, ErrorData, InputRequiredResult};
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::HttpStatusError;
use serde::Deserialize;

use super::*;

/// What a server says, or how it falls silent, and what is made of it.
#[derive(Deserialize)]
struct Row {
    name: String,
    rpc: Option<i32>,
    says: Option<String>,
    http: Option<u16>,
    retry_after: Option<String>,
    text: Option<String>,
    result: Option<String>,
    #[serde(default)]
    listed: bool,
    #[serde(default)]
    transient: bool,
    #[serde(default)]
    trusted: bool,
    other: Option<String>,
    class: Class,
    code: Option<String>,
    wait_ms: Option<u64>,
    /// What is shown of the act.
    effect: EffectState,
}

fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("../../../tests/fixtures/mcp.json")).unwrap()
}

fn over(error: StreamableHttpError<reqwest::Error>) -> ServiceError {
    let error = Box::new(error);
    ServiceError::TransportSend(DynamicTransportError::from_parts(
        "http",
        TypeId::of::<()>(),
        error,
    ))
}

impl Row {
    fn fault(&self) -> Fault {
        let wall = httpdate::parse_http_date("Tue, 24 Nov 2026 06:00:00 GMT").unwrap();
        let asked = Asked {
            name: "x",
            listed: self.listed,
            transient: self.transient,
            trusted: self.trusted,
            max: 1000,
            promised: None,
        };
        let outcome = |outcome| reply(asked, outcome).unwrap_err();
        if let Some(text) = &self.result {
            let result = CallToolResult::error(vec![ContentBlock::text(text.clone())]);
            return outcome(CallToolResponse::Complete(result));
        }
        if self.other.as_deref() == Some("input_required") {
            return outcome(CallToolResponse::InputRequired(
                InputRequiredResult::from_request_state("state"),
            ));
        }
        let failed = if let Some(code) = self.rpc {
            let text = self.says.clone().unwrap_or_else(|| "as the table says".to_owned());
            ServiceError::McpError(ErrorData::new(ErrorCode(code), text, None))
        } else if let Some(code) = self.http {
            let status = HttpStatusError::new(code, self.retry_after.clone());
            over(StreamableHttpError::HttpStatus(status))
        } else if let Some(text) = &self.text {
            over(StreamableHttpError::UnexpectedServerResponse(text.clone().into()))
        } else {
            match self.other.as_deref() {
                Some("session_expired") => over(StreamableHttpError::SessionExpired),
                Some("broken") => {
                    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    over(StreamableHttpError::Io(reset))
                }
                Some("closed") => ServiceError::TransportClosed,
                Some("cancelled") => ServiceError::Cancelled { reason: None },
                Some("timeout") => ServiceError::Timeout { timeout: Duration::from_secs(1) },
                Some("unexpected") => ServiceError::UnexpectedResponse,
                other => panic!("{}: {other:?} says nothing", self.name),
            }
        };
        error("x", self.trusted, failed, wall).0
    }
}

#[test]
fn every_answer_and_every_silence_of_a_server_gets_its_class() {
    let mut wrong = Vec::new();
    for row in rows() {
        let fault = row.fault();
        let wait = row.wait_ms.map(Duration::from_millis);
        let code = row.code.as_deref();
        let differs = code.is_some() && fault.code.as_deref() != code;
        let as_told = fault.class == row.class && fault.effect == row.effect;
        if !as_told || differs || fault.retry_after != wait {
            wrong.push(format!("{}: {fault:?}, not {} {:?}", row.name, row.class, row.effect));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_row_of_the_table_is_missing_and_none_stands_twice() {
    let rows = rows();
    let names: BTreeSet<_> = rows.iter().map(|row| &row.name).collect();
    assert_eq!(names.len(), rows.len());
    for code in [-32700, -32600, -32602, -32601, -32002, -32603, -32020, -32021, -32022, -32001] {
        assert!(rows.iter().any(|row| row.rpc == Some(code)), "{code}");
    }
    for code in [400, 401, 403, 404, 408, 409, 410, 422, 429, 500, 502, 503, 504] {
        assert!(rows.iter().any(|row| row.http == Some(code)), "{code}");
    }
    for code in ["session_expired", "input_required", "unexpected_answer", "connection_lost"] {
        assert!(rows.iter().any(|row| row.code.as_deref() == Some(code)), "{code}");
    }
}

#[test]
fn what_is_not_known_is_not_retried() {
    for code in (-33000..-32000).chain(-5..5) {
        let known = [-32700, -32600, -32601, -32602, -32603, -32002, -32020, -32021, -32022];
        let (fault, _) = protocol("x", code, String::new(), Voice::default());
        let listed = known.contains(&code) || proof::is_late_code(code) || code == TOO_LONG;
        assert_eq!(fault.class == Class::Unknown, !listed, "{code}");
        assert!(!fault.is_replay_safe(EffectKind::Irreversible), "{code} alone shows nothing");
    }
    assert!(!Class::Unknown.is_retryable());
}

#[test]
fn no_status_but_those_that_refuse_lets_an_act_be_made_again() {
    for code in 300..600 {
        let fault = status(code, None);
        let again = fault.is_replay_safe(EffectKind::Irreversible);
        assert_eq!(again, proof::is_refusal_status(code), "{code}");
        assert!(fault.is_replay_safe(EffectKind::Read), "{code}");
        let held = matches!(code, 408 | 500..);
        assert_eq!(fault.leaves_unknown(EffectKind::Irreversible), held, "{code}");
    }
}

#[test]
fn a_number_that_would_become_another_one_is_refused_before_anything_is_asked() {
    for (text, fits) in [
        ("{\"a\":18446744073709551615,\"b\":\"123456789012345678901234567890\"}", true),
        ("{\"a\":123456789012345678901234567890}", false),
        ("{\"f\":907.3038322028689}", true),
    ] {
        match object(text) {
            Ok(arguments) => {
                assert!(fits, "{text}");
                assert_eq!(Value::Object(arguments).to_string(), text);
            }
            Err(fault) => {
                assert!(!fits, "{text}");
                assert_eq!(fault.code.as_deref(), Some("bad_arguments"));
                assert_eq!(fault.effect, EffectState::NotApplied);
                assert!(fault.message.contains("write it as a text"), "{}", fault.message);
            }
        }
    }
}

#[test]
fn a_schema_that_no_provider_takes_is_told_as_that_of_any_object() {
    let any = json!({"type": "object", "properties": {}});
    let good = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"properties": {"$ref": {"type": "string"}}}},
        "$defs": {"a": {"type": "string"}}});
    let untyped = json!({"properties": {"a": {}}});
    let typed = json!({"properties": {"a": {}}, "type": "object"});
    let cases = [
        (good.clone(), good),
        (untyped, typed.clone()),
        (json!({"properties": {"a": {}}, "type": ["object", "null"]}), typed),
        (json!({}), any.clone()),
        (json!({"type": "string"}), any.clone()),
        (json!({"type": ["string", "null"]}), any.clone()),
        (json!({"type": 7}), any.clone()),
        (json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}), any.clone()),
        (json!({"type": "object", "allOf": [{"$ref": "http://elsewhere/x"}]}), any),
        (
            json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "array"}}, "required": ["a"]}]}),
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}, "required": ["a"]}),
        ),
    ];
    for (listed, told) in cases {
        let tool = Tool::new("t", "does", Arc::new(listed.as_object().unwrap().clone()));
        let spec = tool_spec(&tool);
        assert_eq!(serde_json::from_str::<Value>(&spec.parameters).unwrap(), told, "{listed}");
        assert_eq!((&*spec.name, &*spec.description), ("t", "does"));
    }
    let tool = Tool::new("t", "x".repeat(3000), Arc::new(JsonObject::new()));
    assert_eq!(tool_spec(&tool).description.chars().count(), 1024);
}
