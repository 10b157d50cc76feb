//! What a provider's answer means: status, headers and body become a [`Fault`].
//!
//! The rules, the first that applies wins:
//!
//! 1. The server's own verdict, `x-should-retry`.
//! 2. The code in the body. Generic types (`invalid_request_error`, `api_error`) are no code: Ollama's
//!    compatible layer sends nothing else, whatever happened.
//! 3. Where the body has no code, phrases of its message, each only with the statuses it comes with:
//!    gateways drop codes, and a message may quote the user.
//! 4. The status.
//! 5. Nothing known: [`Class::Unknown`], which is not retried.
//!
//! *Invariant.* Pure: the clock is handed in, nothing is asked.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use mainstay::fault::{Class, Fault};
use serde_json::Value;

use super::headers::{Headers, reset_hint, retry_after, seconds};

/// The longest message that is kept, in bytes.
const MESSAGE: usize = 512;
/// The longest code that is kept, in bytes.
const CODE: usize = 64;
/// Our code for Google's daily quota, which is told from the one by the minute only by its name.
const PER_DAY: &str = "quota_per_day";

/// Classifies a response. The fault carries the code of the body, or the status as its code, and the
/// wait that was asked for, but of a quota that is used up: waiting does not help.
///
/// A response that is no error, 2xx without an error in its body, is `Unknown`: do not ask.
///
/// # Limits
/// The server's own word comes first: `x-should-retry: true` makes a `Network`-like
/// [`Class::ServerTransient`] of what would not be retried, and a rate limit of a quota, which is tried
/// once more after its wait and goes to the same siblings. Three are left as they are, because more than
/// a retry hangs on them: a header must not open the way to a sibling where permission was refused or
/// content filtered, and a prompt that is too long is as long the next time.
pub fn classify(status: u16, headers: &Headers, body: &[u8], wall: SystemTime) -> Fault {
    let report = Report::read(body);
    // Some gateways answer 200 with the real status in the body.
    let status = match report.number {
        Some(number) if status < 400 => number,
        _ => status,
    };
    let class = verdict(headers, judge(status, &report));
    let code = match report.code() {
        Some(code) => Cow::Owned(code.to_owned()),
        None => Cow::Owned(status.to_string()),
    };
    let mut fault = Fault::new(class, clip(&report.message, MESSAGE)).with_code(code);
    fault.retry_after = retry_after(headers, wall).or(report.wait).or_else(|| {
        // When the window is full again, from a provider that does not say how long to wait.
        reset_hint(headers, wall).filter(|_| class == Class::RateLimit)
    });
    if class == Class::QuotaExhausted {
        // It does not come back in that time, and whoever is told one asks a dead account again and again.
        fault.retry_after = None;
    }
    fault
}

/// Whether the body of a response with status 200 is an error all the same.
pub(crate) fn is_error(body: &Value) -> bool {
    // Google wraps the object in a list, where it would have answered with one.
    let body = body.get(0).unwrap_or(body);
    // Mistral's and vLLM's are wrapped in nothing.
    if body.get("object").is_some_and(|object| object == "error") {
        return true;
    }
    body.get("error").is_some_and(|error| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    })
}

/// Whether this looks like a code, and not like what somebody has said.
pub(crate) fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= CODE
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

fn judge(status: u16, report: &Report) -> Class {
    // More than the limit of a minute lets through at all: it is as long the next time, whatever the code says.
    if matches!(status, 413 | 429) && report.message.to_lowercase().contains("request too large") {
        return Class::ContextLength;
    }
    report
        .codes()
        .find_map(by_code)
        .or_else(|| report.is_missing_at_google(status).then_some(Class::ModelUnavailable))
        .or_else(|| by_message(status, &report.message.to_lowercase()))
        .or_else(|| by_status(status))
        .or_else(|| report.codes().find_map(by_type))
        .unwrap_or(Class::Unknown)
}

fn verdict(headers: &Headers, class: Class) -> Class {
    match headers.get("x-should-retry").map(str::trim) {
        Some(text) if text.eq_ignore_ascii_case("true") => match class {
            Class::InputValidation
            | Class::ModelUnavailable
            | Class::Overloaded
            | Class::Unknown => Class::ServerTransient,
            Class::QuotaExhausted => Class::RateLimit,
            class => class,
        },
        Some(text) if text.eq_ignore_ascii_case("false") => match class {
            // It asks for fewer requests and says that waiting will not help.
            Class::RateLimit => Class::QuotaExhausted,
            Class::Overloaded => Class::ModelUnavailable,
            class if class.is_retryable() => Class::ModelUnavailable,
            class => class,
        },
        _ => class,
    }
}

/// Codes that say one thing only. Compared in lower case.
fn by_code(code: &str) -> Option<Class> {
    Some(match code.to_ascii_lowercase().as_str() {
        "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_spend_limit_exceeded"
        | "project_spend_limit_exceeded"
        | "organization_usage_limit_exceeded"
        | "enforced_spend_limit_reached"
        | "billing_hard_limit_reached"
        | "billing_not_active"
        | "billing_error"
        | "insufficient_balance"
        | "insufficient_credits"
        | PER_DAY => Class::QuotaExhausted,
        "context_length_exceeded"
        | "context_window_exceeded"
        | "exceed_context_size_error"
        | "model_context_window_exceeded"
        | "request_too_large" => Class::ContextLength,
        "content_filter"
        | "content_filtered"
        | "content_policy_violation"
        | "moderation_blocked"
        | "image_content_policy_violation"
        | "cyber_policy"
        | "bio_policy"
        | "responsibleaipolicyviolation" => Class::ContentFiltered,
        "invalid_api_key"
        | "incorrect_api_key"
        | "api_key_invalid"
        | "authentication_error"
        | "permission_error"
        | "permission_denied"
        | "unauthenticated"
        | "unsupported_country_region_territory"
        | "account_deactivated"
        | "invalid_organization"
        | "upstream_credentials_exhausted"
        | "failed_precondition" => Class::Permission,
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "slow_down"
        | "resource_exhausted"
        | "too_many_requests" => Class::RateLimit,
        "model_not_found"
        | "model_not_available"
        | "model_decommissioned"
        | "deploymentnotfound" => Class::ModelUnavailable,
        "overloaded_error"
        | "overloaded"
        | "engine_overloaded"
        | "engine_overloaded_error"
        | "server_overloaded"
        | "server_busy"
        | "unavailable_error"
        | "unavailable" => Class::Overloaded,
        "timeout_error" | "deadline_exceeded" | "request_timeout" | "vector_store_timeout" => {
            Class::Timeout
        }
        _ => return None,
    })
}

/// Types that say so little that the status comes first.
fn by_type(code: &str) -> Option<Class> {
    Some(match code.to_ascii_lowercase().as_str() {
        // From `invalid_prompt` on, OpenAI's for a response that has failed, of which no status says anything. Of a
        // prompt that was flagged it says the same, and only its message the rest.
        "invalid_request_error"
        | "badrequesterror"
        | "invalid_argument"
        | "invalid_prompt"
        | "failed_to_download_image"
        | "empty_image_file"
        | "unsupported_image_media_type" => Class::InputValidation,
        image
            if ["invalid_image", "invalid_base64_image", "image_"]
                .iter()
                .any(|it| image.starts_with(it)) =>
        {
            Class::InputValidation
        }
        "not_found_error" | "notfounderror" | "not_found" => Class::ModelUnavailable,
        "api_error" | "server_error" | "internal_server_error" | "internal" => {
            Class::ServerTransient
        }
        "timeout" => Class::Timeout,
        _ => return None,
    })
}

fn by_message(status: u16, message: &str) -> Option<Class> {
    // The order is from the most specific to the least.
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    // An error inside a 200 says nothing by its status.
    let unstated = (200..300).contains(&status);
    if (unstated || matches!(status, 400 | 413 | 422 | 500))
        && has(&[
            "maximum context length",
            "context_length_exceeded",
            "exceed_context_size_error",
            "context size",
            "context length",
            "context window",
            "exceed context limit",
            "maximum prompt length",
            "`inputs` tokens +",
            "prompt is too long",
            "prompt too long",
            "input is too long",
            "input too long",
            "input token count",
            "too many tokens",
            "maximum number of tokens",
        ])
    {
        return Some(Class::ContextLength);
    }
    // Gateways pass it on with any status.
    if has(&["flagged as potentially violating our usage policy"]) {
        return Some(Class::ContentFiltered);
    }
    if (unstated || matches!(status, 400 | 403 | 422))
        && has(&[
            "content policy",
            "content_policy",
            "content management policy",
            "content filter",
            "content_filter",
            "safety system",
            "usage policies",
            "usage policy",
            // OpenRouter's, of a model whose provider has its input looked at.
            "your input was flagged",
        ])
    {
        return Some(Class::ContentFiltered);
    }
    if (unstated || matches!(status, 400 | 403 | 429))
        && has(&[
            "insufficient_quota",
            "exceeded your current quota",
            "credit balance",
            "api usage limits",
            "spend limit",
            "spending limit",
            "insufficient credits",
            "insufficient balance",
            "billing details",
        ])
        || status == 400 && has(&["usage limit"])
    {
        return Some(Class::QuotaExhausted);
    }
    if (unstated || matches!(status, 400 | 404))
        && has(&["model", "deployment", "no endpoints found", "try pulling it"])
        && (status == 404
            || has(&[
                "not found",
                "does not exist",
                "not loaded",
                "decommissioned",
                "is no longer supported",
                "not a valid model",
            ]))
    {
        return Some(Class::ModelUnavailable);
    }
    // Ollama's for a model that it cannot load at all.
    let failed = has(&["error loading model", "failed to load"]);
    if (unstated || matches!(status, 500 | 502))
        && !failed
        && has(&["server busy", "maximum pending requests", "overloaded", "loading model"])
    {
        return Some(Class::Overloaded);
    }
    if unstated && has(&["rate limit", "too many requests"]) {
        return Some(Class::RateLimit);
    }
    // Ollama's words for a model that died while it spoke.
    if unstated
        && (failed
            || has(&["runner process has terminated", "unexpected server status", "llama runner"]))
    {
        return Some(Class::ServerTransient);
    }
    None
}

fn by_status(status: u16) -> Option<Class> {
    Some(match status {
        // 409 is for `x-should-retry: true` to promote.
        400 | 404 | 405 | 406 | 409 | 411 | 415 | 422 | 431 => Class::InputValidation,
        401 | 403 | 407 => Class::Permission,
        402 => Class::QuotaExhausted,
        // The last four are what gateways say of the server behind them.
        408 | 504 | 522 | 524 | 598 | 599 => Class::Timeout,
        410 => Class::ModelUnavailable,
        413 => Class::ContextLength,
        429 => Class::RateLimit,
        425 | 500 | 502 | 520 | 521 | 523 | 530 => Class::ServerTransient,
        503 | 529 => Class::Overloaded,
        // A redirect to somewhere else, which is not followed: the endpoint is not here.
        300..=399 => Class::ModelUnavailable,
        _ => return None,
    })
}

/// What the body of an error says, in whichever of the known shapes.
#[derive(Debug, Default)]
struct Report {
    inner: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    message: String,
    number: Option<u16>,
    wait: Option<Duration>,
}

impl Report {
    fn read(body: &[u8]) -> Self {
        let value = serde_json::from_slice::<Value>(body).ok().or_else(|| framed(body));
        let Some(value) = value else {
            return Self {
                message: String::from_utf8_lossy(body.get(..MESSAGE * 2).unwrap_or(body))
                    .into_owned(),
                ..Self::default()
            };
        };
        // Google's compatible layer wraps the object in a list.
        let value = value.get(0).unwrap_or(&value);
        let error = match value.get("error") {
            Some(error) if !error.is_null() => error,
            _ => value,
        };
        let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
        let message = error
            .as_str()
            .map(str::to_owned)
            .or_else(|| text("message"))
            .or_else(|| text("detail"))
            .or_else(|| error.get("detail").map(Value::to_string))
            .unwrap_or_default();
        let number = error.get("code").and_then(|code| {
            let number = code.as_u64().or_else(|| code.as_str()?.parse().ok())?;
            u16::try_from(number).ok().filter(|number| (400..600).contains(number))
        });
        let mut google = Google::read(error);
        let kind = text("type").or_else(|| text("status"));
        if kind.as_deref() == Some("RESOURCE_EXHAUSTED") && is_of_a_day(&message) {
            google.reason = Some(PER_DAY.to_owned());
        }
        Self {
            // Azure says more inside, and so does Anthropic of a limit that is one of money.
            inner: ["/innererror/code", "/details/error_code"]
                .into_iter()
                .find_map(|place| error.pointer(place)?.as_str())
                .map(str::to_owned)
                .or(google.reason),
            wait: google.wait,
            code: text("code").filter(|code| code.parse::<u64>().is_err()),
            kind,
            message,
            number,
        }
    }

    /// Whether Google says in its own word, whatever its message, that there is nothing of this name: of the models of a
    /// request to one. `not_found_error` is Anthropic's, and its own of a path, too.
    fn is_missing_at_google(&self, status: u16) -> bool {
        status == 404 && self.kind.as_deref() == Some("NOT_FOUND")
    }

    fn codes(&self) -> impl Iterator<Item = &str> {
        [&self.inner, &self.code, &self.kind].into_iter().flatten().map(String::as_str)
    }

    /// The code for events: only one that looks like one, since events hold no user data.
    fn code(&self) -> Option<&str> {
        let plain = |code: &&str| is_code(code);
        // The one the class came from, if it came from one, else the first.
        let mut codes = self.codes().filter(plain);
        self.codes().filter(plain).find(|code| by_code(code).is_some()).or_else(|| codes.next())
    }
}

/// What the first event of a stream says: some gateways answer with one whatever happened.
fn framed(body: &[u8]) -> Option<Value> {
    let mut lines = body.split(|byte| matches!(byte, b'\n' | b'\r'));
    serde_json::from_slice(lines.find_map(|line| line.strip_prefix(b"data:"))?).ok()
}

/// What Google's errors say in their details.
#[derive(Debug, Default)]
struct Google {
    reason: Option<String>,
    wait: Option<Duration>,
}

impl Google {
    fn read(error: &Value) -> Self {
        let mut found = Self::default();
        for detail in error.get("details").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| detail.get(key).and_then(Value::as_str);
            if let Some(delay) = text("retryDelay") {
                found.wait = delay.strip_suffix('s').and_then(|delay| seconds(delay, 1.0));
            }
            let violations = detail.get("violations").and_then(Value::as_array);
            let names = ["quotaId", "quotaMetric", "quota_limit", "quota_metric", "description"];
            let mut said = violations.into_iter().flatten().chain(detail.get("metadata"));
            let daily = said.any(|said| {
                let words = names.iter().filter_map(|name| said.get(name)?.as_str());
                words.into_iter().any(is_of_a_day)
            });
            if daily {
                found.reason = Some(PER_DAY.to_owned());
            } else if found.reason.is_none() {
                found.reason = text("reason").map(str::to_owned);
            }
        }
        found
    }
}

/// Whether a limit of this name is one of a day.
fn is_of_a_day(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["perday", "per_day", "per day"].iter().any(|day| text.contains(day))
}

fn clip(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
