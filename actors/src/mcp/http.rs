//! A server reached over streamable HTTP.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use mainstay::fault::Fault;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url, retry};
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, ServerJsonRpcMessage,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    HttpStatusError, StreamableHttpClient, StreamableHttpClientTransportConfig,
    StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};

use super::events::{Answer, Events};
use super::link::Owed;
use super::{Plan, classify, headers};
use crate::http;

pub(super) fn transport(
    plan: &Plan,
    address: &str,
    owed: Owed,
) -> Result<StreamableHttpClientTransport<Attentive>, Fault> {
    let url = Url::parse(address)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Fault::input_validation("the server's URL is not an http(s) URL"))?;
    // Nothing is sent twice: it only looks.
    let looks = retry::never().classify_fn(|answer| {
        // Without a scope nobody asks.
        let _ = STATUS.try_with(|status| status.set(answer.status()));
        answer.success()
    });
    let client = http::builder(&url)?.retry(looks);
    let client = client.build().map_err(|error| http::no_client(&error))?;
    // A session that the server has forgotten is a life that is over, and the supervisor's to mend.
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .reinit_on_expired_session(false)
        .custom_headers(headers::of(plan)?)
        .max_json_response_size(plan.longest())
        .max_sse_event_size(plan.longest());
    if let Some(bearer) = &plan.bearer {
        let bearer = bearer.read()?;
        // The transport would find it out when it is sent, and take it for a server that is not there.
        if HeaderValue::try_from(format!("Bearer {}", bearer.trim())).is_err() {
            let text = "the bearer token cannot be sent: no header can have it";
            return Err(Fault::input_validation(text).with_code("bad_header"));
        }
        config = config.auth_header(bearer.trim());
    }
    Ok(StreamableHttpClientTransport::with_client(Attentive { client, owed }, config))
}

tokio::task_local! {
    /// The status of the answer to what this task is posting. The transport hands on an error in JSON without it.
    static STATUS: Cell<Option<StatusCode>>;
}

/// A client that hears an error of nobody's request, and what is no answer. The protocol leaves the id out where a
/// server could not read the request, and the transport hands such an error to nobody; over HTTP it stands in the
/// answer to one.
#[derive(Clone, Debug)]
pub(super) struct Attentive {
    client: Client,
    owed: Owed,
}

/// The word that a call is off, on its way. However that ends, it was given.
struct CalledOff<'a>(&'a Owed);

impl Drop for CalledOff<'_> {
    fn drop(&mut self) {
        self.0.paid();
    }
}

type Posted = Result<StreamableHttpPostResponse, StreamableHttpError<reqwest::Error>>;
type Headers = HashMap<HeaderName, HeaderValue>;

impl StreamableHttpClient for Attentive {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Posted {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limits,
        )
        .await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Posted {
        let _told = matches!(&message, ClientJsonRpcMessage::Notification(it)
            if matches!(it.notification, ClientNotification::CancelledNotification(_)))
        .then(|| CalledOff(&self.owed));
        let asked = match &message {
            ClientJsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let is_call = matches!(&message, ClientJsonRpcMessage::Request(request)
            if matches!(request.request, ClientRequest::CallToolRequest(_)));
        let (in_session, longest) = (session_id.is_some(), limits.max_sse_event_size);
        let post = self.client.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            limits,
        );
        let heard = async { (post.await, STATUS.with(Cell::get)) };
        let (posted, status) = STATUS.scope(Cell::new(None), heard).await;
        let mut posted = posted?;
        if let Some(asked) = &asked
            && let StreamableHttpPostResponse::Sse(events, session) = posted
        {
            let answer = Answer::new(events, asked.clone(), longest);
            return Ok(StreamableHttpPostResponse::Sse(Box::pin(answer), session));
        }
        if let StreamableHttpPostResponse::Json(ServerJsonRpcMessage::Error(error), _) = &mut posted
        {
            // What was answered in any other way was the call's, whatever it speaks of, and may have been done.
            let is_refused = status == Some(StatusCode::BAD_REQUEST);
            if in_session && is_refused && is_about_session(&error.error, error.id.is_none()) {
                return Err(StreamableHttpError::SessionExpired);
            }
            // A gateway that has lost a call says so in the words of the protocol, too: its code says nothing of it.
            if let Some(status) = status.filter(|status| is_call && may_be_done(*status))
                && !classify::says_more(error.error.code.0, &error.error.message)
            {
                return Err(HttpStatusError::new(status.as_u16(), None).into());
            }
            error.id = error.id.take().or(asked);
        }
        Ok(posted)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<(), StreamableHttpError<reqwest::Error>> {
        self.client.delete_session(uri, session_id, auth_header, custom_headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Result<Events, StreamableHttpError<reqwest::Error>> {
        self.client.get_stream(uri, session_id, last_event_id, auth_header, custom_headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max_sse_event_size: usize,
    ) -> Result<Events, StreamableHttpError<reqwest::Error>> {
        self.client
            .get_stream_with_max_sse_event_size(
                uri,
                session_id,
                last_event_id,
                auth_header,
                custom_headers,
                max_sse_event_size,
            )
            .await
    }
}

/// Whether whoever answers with this status may have handed the request on before.
fn may_be_done(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// What the official library's servers say, with a status of 400, of a session that they do not know. Some say
/// it under the id of the request; a tool may speak of sessions, too, so that it has to be in their words then.
fn is_about_session(error: &ErrorData, to_nobody: bool) -> bool {
    let said = error.message.to_ascii_lowercase();
    let words = ["no valid session id", "invalid session id", "session not found"];
    let theirs = error.code.0 == -32000 || error.code.0 == -32001;
    said.contains("session")
        && (to_nobody || theirs && words.iter().any(|word| said.contains(word)))
}
