//! What a server's answers and silences mean.

use std::error::Error;
use std::iter;
use std::time::{Duration, SystemTime};

use mainstay::fault::{Class, Fault};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    RequestMetaObject, Tool,
};

use rmcp::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::bounded::{TOO_LONG, UNREADABLE, too_long};
use super::link::Verdict;
use crate::chat::ToolSpec;
use crate::exact;
use crate::http;
use crate::model::headers::{Headers, retry_after};
use crate::tool::{ToolReply, schema, told};
use proof::Voice;

/// Where a server finds the idempotency key of a call, a text: in the `_meta` of `tools/call`. Each attempt at the same
/// act has the same, in the next process too; a server that keeps the keys it has seen with what it answered can be
/// declared [`Idempotent`](mainstay::fault::EffectKind::Idempotent).
pub const IDEMPOTENCY_KEY: &str = "mainstay/idempotencyKey";
/// How the official libraries say that the other side of a connection is gone. A gateway in front of a
/// server that died says it of that server, with or without the code that goes with it.
const CLOSED: i32 = -32000;
/// The code of a call whose result is lost with a connection.
const LOST: &str = "connection_lost";
/// The code of a result that is not as the tool has promised.
const OUTPUT: &str = "output_invalid";
/// The code of a result that is longer than may be.
const TOO_LARGE: &str = "result_too_large";

/// The arguments of a call.
pub(super) fn object(text: &str) -> Result<JsonObject, Fault> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let bad = |what: String| Fault::input_validation(what).with_code("bad_arguments").not_applied();
    if let Some(number) = exact::too_long(text.as_bytes()) {
        // Read and written anew it would be another number: another account, another order.
        let why = "does not fit into 64 bits; write it as a text";
        return Err(bad(format!("arguments: the number {number} {why}")));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(_) => Err(bad("arguments: not a JSON object".to_owned())),
        Err(error) => Err(bad(format!("arguments: {error}"))),
    }
}

pub(super) fn call(name: &str, arguments: JsonObject, key: &str) -> CallToolRequestParams {
    let mut call = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
    let mut meta = RequestMetaObject::new();
    meta.0.insert(IDEMPOTENCY_KEY.to_owned(), Value::String(key.to_owned()));
    call.meta = Some(meta);
    call
}

pub(super) fn tool_spec(tool: &Tool) -> ToolSpec {
    ToolSpec::new(&*tool.name)
        .description(told::description(tool.description.as_deref().unwrap_or_default()))
        .parameters(parameters(&tool.name, &tool.input_schema))
}

/// The schema of a tool's arguments; that of any object where it is none that a provider takes, who refuses
/// the whole request for it, and all other tools with it.
fn parameters(name: &str, schema: &JsonObject) -> Value {
    let schema = schema.clone();
    let is_object = match schema.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
    };
    let schema = Value::Object(schema);
    if is_object && !has_loose_end(&schema, &schema) {
        return told::parameters(schema);
    }
    tracing::warn!(
        target: "mainstay", tool = name,
        "the tool's schema is none of an object; models are told that it takes any"
    );
    json!({ "type": "object", "properties": {} })
}

/// Whether a schema refers to what is not in it.
fn has_loose_end(part: &Value, whole: &Value) -> bool {
    match part {
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::String(place) if name == "$ref" => {
                place.strip_prefix('#').is_none_or(|place| whole.pointer(place).is_none())
            }
            value => has_loose_end(value, whole),
        }),
        Value::Array(items) => items.iter().any(|item| has_loose_end(item, whole)),
        _ => false,
    }
}

/// What is known of a tool that has answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a str,
    /// Whether its server has it in its list.
    pub(super) listed: bool,
    /// Whether its errors pass.
    pub(super) transient: bool,
    /// Whether its server is believed.
    pub(super) trusted: bool,
    /// The longest result, in bytes.
    pub(super) max: usize,
    /// The schema of its results, if it has declared one.
    pub(super) promised: Option<&'a Value>,
}

/// The result of a call, or the fault it stands for.
pub(super) fn reply(asked: Asked<'_>, outcome: CallToolResponse) -> Result<ToolReply, Fault> {
    let Asked { name, listed, transient, trusted, max, promised } = asked;
    let result = match outcome {
        CallToolResponse::Complete(result) => result,
        CallToolResponse::InputRequired(_) => {
            // It may have begun.
            return Err(Fault::business(format!(
                "\"{name}\" asks for a person's input, and nobody is there"
            ))
            .with_code("input_required")
            .effect_failed());
        }
        _ => {
            return Err(Fault::indeterminate(format!(
                "\"{name}\" goes on in the background, which is not followed"
            ))
            .with_code("unexpected_answer"));
        }
    };
    let bounded = |text: String| match text.len() {
        length if length > max => Err(too_large(format!("the result has {length} bytes"))),
        _ => Ok(text),
    };
    if result.is_error != Some(true) {
        if let Some(schema) = promised {
            keeps(name, schema, result.structured_content.as_ref())?;
        }
        return content(result).and_then(bounded).map(ToolReply::new);
    }
    let said = bounded(words(&result))?;
    if says_closed(&said) {
        return Err(lost_behind());
    }
    let (code, text) = proof::split(&said);
    let voice = Voice { trusted, in_result: true };
    if let Some(code) = code {
        return Err(protocol(name, code, said, voice).0);
    }
    if proof::is_about_output(name, text) {
        return Err(not_as_promised(said));
    }
    if proof::is_late(text) {
        return Err(Fault::timeout(said).with_code("behind_gateway").effect_unknown());
    }
    Err(match proof::refusal(name, text) {
        Some(refusal) => {
            let fault = Fault::input_validation(said).with_code(refusal.code);
            match proof::shows(voice, None, refusal) {
                true => fault.not_applied(),
                false => fault.effect_failed(),
            }
        }
        // It did what it did before it failed.
        None if !listed => Fault::input_validation(said).with_code("unknown_tool").effect_failed(),
        None if transient => Fault::tool_execution(said).with_code("tool_error").effect_failed(),
        None => Fault::business(said).with_code("tool_error").effect_failed(),
    })
}

fn says_closed(text: &str) -> bool {
    let (code, bare) = proof::split(text);
    code.is_none_or(|code| code == CLOSED) && bare.trim() == "Connection closed"
}

/// The tool has run, and what it has given is not what it said it would.
fn not_as_promised(what: String) -> Fault {
    Fault::output_invalid(what).with_code(OUTPUT).effect_unknown()
}

/// Holds what a tool has given against what it has promised: the protocol has servers give it, and clients see
/// that they did.
fn keeps(tool: &str, schema: &Value, given: Option<&Value>) -> Result<(), Fault> {
    // Servers that write out what they have not say null.
    let Some(given) = given.filter(|given| !given.is_null()) else {
        return Err(not_as_promised(format!(
            "\"{tool}\" has declared a schema of its results, and its result has nothing of it"
        )));
    };
    match schema::broken(schema, given) {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(not_as_promised(format!(
            "the result of \"{tool}\" is not of the schema that it has declared: {wrong}"
        ))),
    }
}

/// The gateway answers, the server behind it does not: nobody knows what that has done.
fn lost_behind() -> Fault {
    Fault::indeterminate("a gateway has lost the server behind it").with_code(LOST)
}

/// Whether an answer says that there is no server any more, so that the session is of no use.
pub(super) fn is_lost(fault: &Fault) -> bool {
    fault.code.as_deref() == Some(LOST)
}

/// It was answered, so something may have been done.
fn too_large(what: String) -> Fault {
    Fault::output_invalid(what).with_code(TOO_LARGE).effect_unknown()
}

/// A fault about the size of a result, with the tool and the limit; any other as it is.
pub(super) fn name(mut fault: Fault, tool: &str, max: usize) -> Fault {
    if fault.code.as_deref() == Some(TOO_LARGE) {
        let what = &fault.message;
        fault.message = format!("\"{tool}\": {what}; `max_result_bytes` is {max}").into();
    }
    fault
}

fn words(result: &CallToolResult) -> String {
    let words: Vec<_> = result
        .content
        .iter()
        .filter_map(|block| block.as_text().map(|text| text.text.as_str()))
        .filter(|text| !text.trim().is_empty())
        .collect();
    if words.is_empty() {
        "the tool failed and did not say why".to_owned()
    } else {
        words.join("\n")
    }
}

/// The result as JSON: what is structured as it is, a text as a string unless it is JSON itself. A text that
/// is JSON is kept as it was written: read and written anew, a number in it could be another one.
fn content(result: CallToolResult) -> Result<String, Fault> {
    let unwritable = |error| {
        Fault::internal(format!("the result cannot be written: {error}")).with_code("bad_result")
    };
    // Servers that write out what they have not say null.
    if let Some(value) = result.structured_content.filter(|value| !value.is_null()) {
        return structured(&value, &result.content);
    }
    let mut blocks = result.content.into_iter().map(|block| match block {
        ContentBlock::Text(text) => Ok(json_or_text(text.text)),
        other => serde_json::to_string(&other).map_err(unwritable),
    });
    match (blocks.next(), blocks.next()) {
        (None, _) => Ok("null".to_owned()),
        (Some(only), None) => only,
        (Some(first), Some(second)) => {
            let all: Result<Vec<_>, Fault> = [first, second].into_iter().chain(blocks).collect();
            Ok(format!("[{}]", all?.join(",")))
        }
    }
}

/// What is structured has been read already, and its numbers with it. Servers say the same in a text beside it,
/// and that is as it was written.
fn structured(value: &Value, blocks: &[ContentBlock]) -> Result<String, Fault> {
    let same = blocks.iter().filter_map(ContentBlock::as_text).find(|text| {
        serde_json::from_str::<Value>(&text.text).is_ok_and(|written| written == *value)
    });
    match same {
        Some(text) => Ok(text.text.trim().to_owned()),
        None if has_long_number(value) => Err(not_as_promised(
            "a number of the structured result does not fit into 64 bits, and no text says it"
                .to_owned(),
        )),
        None => Ok(value.to_string()),
    }
}

/// Whether a number in it may have been another one: a whole one that did not fit.
fn has_long_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            // 2^63, above which the digits of a whole number are not all kept.
            float.is_some_and(|float| float.abs() >= 9_223_372_036_854_775_808.0)
        }
        Value::Array(items) => items.iter().any(has_long_number),
        Value::Object(fields) => fields.values().any(has_long_number),
        _ => false,
    }
}

fn json_or_text(text: String) -> String {
    let json = text.trim();
    if json.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(json).is_ok() {
        return json.to_owned();
    }
    Value::String(text).to_string()
}

/// A call of this tool without a result, from a server that is believed or not.
pub(super) fn error(
    tool: &str,
    trusted: bool,
    error: ServiceError,
    wall: SystemTime,
) -> (Fault, Verdict) {
    match error {
        ServiceError::McpError(error) => {
            let voice = Voice { trusted, in_result: false };
            protocol(tool, error.code.0, error.message.into_owned(), voice)
        }
        ServiceError::TransportSend(error) => sending(&*error.error, wall),
        ServiceError::TransportClosed => (
            Fault::indeterminate("the connection ended before the result came").with_code(LOST),
            Verdict::Doubtful,
        ),
        ServiceError::Cancelled { .. } => {
            let fault = Fault::cancelled("the server called it off");
            (fault.effect_unknown(), Verdict::Answered)
        }
        ServiceError::Timeout { timeout } => {
            (Fault::timeout(format!("no result within {timeout:?}")), Verdict::Doubtful)
        }
        // It was answered, so something may have been done.
        other => (
            Fault::output_invalid(other.to_string())
                .with_code("unexpected_answer")
                .effect_unknown(),
            Verdict::Answered,
        ),
    }
}

/// Whether an error of this code says what became of a call, or what was wrong with it, also under a status of HTTP that
/// says that it may have been lost: -32603 and -32000 are said of anything.
pub(super) fn says_more(code: i32, message: &str) -> bool {
    proof::is_late_code(code)
        || matches!(code, -32700 | -32602..=-32600 | -32002 | -32022..=-32020)
        || code == CLOSED && says_closed(message)
        || proof::is_about_output("", proof::split(message).1)
}

/// A JSON-RPC error, or one that is told in a result.
fn protocol(tool: &str, code: i32, message: String, voice: Voice) -> (Fault, Verdict) {
    if code == TOO_LONG {
        return (too_large(message), Verdict::Answered);
    }
    if code == UNREADABLE {
        // It was answered, so something may have been done.
        let fault = Fault::output_invalid(message).with_code("unreadable").effect_unknown();
        return (fault, Verdict::Answered);
    }
    if code == CLOSED && says_closed(&message) {
        return (lost_behind(), Verdict::Useless);
    }
    // A library sends on an error that was thrown with its code in its text, too.
    let (_, text) = proof::split(&message);
    if proof::is_about_output(tool, text) {
        return (not_as_promised(message), Verdict::Answered);
    }
    let class = match code {
        _ if proof::is_late_code(code) => Class::Timeout,
        -32700 | -32600 | -32602 => Class::InputValidation,
        // It is not there: no use to ask again, and another server may have it.
        -32601 | -32002 => Class::Exhausted,
        -32603 => Class::ToolExecution,
        -32022..=-32020 => Class::ModelUnavailable,
        _ => Class::Unknown,
    };
    let verdict =
        if class == Class::ModelUnavailable { Verdict::Useless } else { Verdict::Answered };
    // A tool may be told this by whom it asks itself, and then it is mostly not said bare.
    let bare = code == -32601 && !voice.in_result && message == "Method not found";
    let refused = voice.trusted && bare
        || proof::refusal(tool, text).is_some_and(|it| proof::shows(voice, Some(code), it));
    let fault = Fault::new(class, message).with_code(code.to_string());
    let fault = match class {
        Class::Timeout => fault.effect_unknown(),
        _ if refused => fault.not_applied(),
        _ => fault.effect_failed(),
    };
    (fault, verdict)
}

/// A request that could not be sent, or, over HTTP, was sent and not answered.
fn sending(error: &(dyn Error + 'static), wall: SystemTime) -> (Fault, Verdict) {
    // No text of an error is taken over: it may hold a URL with a secret.
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = known(error, wall) {
            return found;
        }
        next = error.source();
    }
    broken()
}

fn broken() -> (Fault, Verdict) {
    let fault = Fault::indeterminate("the connection broke with the request under way");
    (fault.with_code(LOST), Verdict::Doubtful)
}

fn known(error: &(dyn Error + 'static), wall: SystemTime) -> Option<(Fault, Verdict)> {
    if let Some(error) = error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        return Some(over_http(error, wall).unwrap_or_else(broken));
    }
    // Over HTTP it says nothing about what was sent before, and is not looked for.
    if error.is::<std::io::Error>() {
        // A line that was not written whole is not read.
        let fault = Fault::network("the request could not be written").with_code("not_written");
        return Some((fault.not_applied(), Verdict::Doubtful));
    }
    None
}

fn over_http(
    error: &StreamableHttpError<reqwest::Error>,
    wall: SystemTime,
) -> Option<(Fault, Verdict)> {
    Some(match error {
        StreamableHttpError::SessionExpired => {
            let text = "the server has forgotten the session";
            (Fault::network(text).with_code("session_expired").not_applied(), Verdict::Useless)
        }
        StreamableHttpError::HttpStatus(error) => {
            // The transport hands on this one header alone.
            let after = error.retry_after.as_deref();
            let headers: Headers = after.map(|text| ("retry-after", text)).into_iter().collect();
            (status(error.status, retry_after(&headers, wall)), Verdict::Answered)
        }
        StreamableHttpError::AuthRequired(_) => (status(401, None), Verdict::Answered),
        StreamableHttpError::InsufficientScope(_) => (status(403, None), Verdict::Answered),
        StreamableHttpError::UnexpectedServerResponse(text) => by_text(text),
        StreamableHttpError::UnexpectedContentType(_) | StreamableHttpError::Deserialize(_) => {
            (unexpected(), Verdict::Answered)
        }
        StreamableHttpError::ResponseBodyTooLarge { max_size } => {
            (too_large(too_long(None, *max_size)), Verdict::Answered)
        }
        StreamableHttpError::Client(error) if error.is_connect() || error.is_builder() => {
            (unreached(error), Verdict::Doubtful)
        }
        StreamableHttpError::Client(error) if error.status().is_some() => {
            (status(error.status().map_or(0, |code| code.as_u16()), None), Verdict::Answered)
        }
        _ => return None,
    })
}

/// Whom, and why: of the URL the host alone, since the rest may hold a secret, and of the reasons the last, which is said by
/// the system or by who looks at certificates.
fn unreached(error: &reqwest::Error) -> Fault {
    let host = error.url().map(http::host).unwrap_or_default();
    let causes = iter::successors(error.source(), |&cause| cause.source());
    let why = causes.last().map(|cause| format!(": {cause}")).unwrap_or_default();
    let fault = Fault::network(format!("the server {host} cannot be reached{why}"));
    fault.with_code("not_connected").not_applied()
}

fn unexpected() -> Fault {
    Fault::output_invalid("the server's answer is no answer of the protocol")
        .with_code("unexpected_answer")
        .effect_unknown()
}

/// The transport tells other 4xx statuses in a text only.
fn by_text(text: &str) -> (Fault, Verdict) {
    // What comes behind it is the server's own, and any number may be in it.
    let code = text.strip_prefix("HTTP ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let code = code.filter(|code| (300..=599).contains(code));
    match code {
        Some(code @ 300..=399) => {
            let fault = status(code, None);
            let text = format!("{} and refers to elsewhere, which is not followed", fault.message);
            (Fault { message: text.into(), ..fault }, Verdict::Answered)
        }
        Some(code) => (status(code, None), Verdict::Answered),
        None => (unexpected(), Verdict::Answered),
    }
}

fn status(code: u16, retry_after: Option<Duration>) -> Fault {
    let class = match code {
        401 | 403 => Class::Permission,
        408 | 504 => Class::Timeout,
        429 => Class::RateLimit,
        503 => Class::Overloaded,
        500..=599 => Class::ServerTransient,
        400..=499 => Class::InputValidation,
        _ => Class::Unknown,
    };
    let mut fault = Fault::new(class, format!("the server answered with status {code}"))
        .with_code(code.to_string());
    fault.retry_after = retry_after;
    match class {
        _ if proof::is_refusal_status(code) => fault.not_applied(),
        // A gateway says so, too, when it has lost the server with the request.
        Class::Timeout | Class::ServerTransient | Class::Overloaded => fault.effect_unknown(),
        _ => fault.effect_failed(),
    }
}

mod proof;

#[cfg(test)]
mod tests;
