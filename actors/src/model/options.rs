//! What an endpoint is told about itself: what it may cost, how much it takes, and how it wants to be asked.

use std::borrow::Cow;

use mainstay::fault::Fault;
use mainstay::spec::Capabilities;

use super::key::Key;
use super::wire::Wire;
use super::{Model, credentials};
use crate::chat::{ChatRequest, Message, ResponseFormat};

/// What a prompt has of bytes for each of its tokens, at most: prose has four, code fewer.
const BYTES_A_TOKEN: u64 = 6;

/// What chat completions call the token limit of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenLimit {
    /// `max_tokens`, which nearly every server knows, and OpenAI's newer models refuse.
    MaxTokens,
    /// `max_completion_tokens`, as OpenAI's own API calls it.
    MaxCompletionTokens,
}

impl TokenLimit {
    /// What the server at this host calls it, unless somebody says so.
    pub(super) fn of(host: Option<&str>) -> Self {
        if is_openai(host) { Self::MaxCompletionTokens } else { Self::MaxTokens }
    }
}

/// Whether OpenAI's own API is at this host.
pub(super) fn is_openai(host: Option<&str>) -> bool {
    host.is_some_and(|host| host == "api.openai.com" || host.ends_with(".api.openai.com"))
}

impl Model {
    /// The most that one request may cost, in millionths of the currency, at the
    /// [price](Model::price_per_million): with a token for four bytes of the request, and all tokens that its
    /// answer may have. One that may cost more is not sent, and a cheaper sibling may be asked; one without a
    /// limit of its own is given what the cap covers, at most [`answer_tokens`](Model::answer_tokens). It is
    /// also what the child says of itself ([`Capabilities::price_cap_micros`]), until
    /// [`ChildSpec::capabilities`](mainstay::spec::ChildSpec::capabilities) says something else.
    ///
    /// # Errors
    /// Without a price the endpoint does not start: `InputValidation`, `no_price`. Say a price of 0 of what
    /// costs nothing.
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn price_cap(mut self, micros: u64) -> Self {
        self.price_cap = Some(micros);
        self
    }

    /// How many tokens the model takes, prompt and answer together; at least 1. A prompt that has no room in it even
    /// at six bytes a token, which few texts have, is not sent: the fault is `ContextLength`, so that a sibling
    /// with a larger window is asked, or an agent shortens what it asks. Ollama's own API is told to make the
    /// window so large (`num_ctx`), and says itself what does not fit; unless it is told, its window is small. It is
    /// also what the child says of itself ([`Capabilities::context_window`]), until
    /// [`ChildSpec::capabilities`](mainstay::spec::ChildSpec::capabilities) says something else.
    ///
    /// # Default
    /// Not known: whatever the server makes of it.
    #[must_use]
    pub fn context_window(mut self, tokens: u32) -> Self {
        self.window = Some(tokens.max(1));
        self
    }

    /// What the token limit of an answer is called, in chat completions; other APIs have one name for it.
    ///
    /// # Default
    /// [`TokenLimit::MaxCompletionTokens`] for `api.openai.com` and the hosts below it, and else
    /// [`TokenLimit::MaxTokens`].
    #[must_use]
    pub fn token_limit(mut self, name: TokenLimit) -> Self {
        self.token_limit = Some(name);
        self
    }

    /// Whether the provider is asked for JSON by its structured output ([`ChatRequest::response_format`]).
    /// For servers that refuse a JSON schema, or all of it: the model is told in words then, and the answer is looked
    /// at as ever.
    ///
    /// # Default
    /// It is.
    #[must_use]
    pub fn structured_output(mut self, asked: bool) -> Self {
        self.structured = asked;
        self
    }

    /// Sends this header with every request, in the place of one of the same name that would be sent anyway.
    /// Its value is shown nowhere; where its name is that of a secret, it is taken out of faults and answers like
    /// the key. It goes where the key goes, and does not follow a redirect elsewhere.
    ///
    /// # Errors
    /// The endpoint does not start (`InputValidation`, `bad_header`) with a name or value that no header can have,
    /// or one of those that HTTP itself sets: `host`, `content-type`, `content-length`, `connection`,
    /// `transfer-encoding`, `te`, `upgrade`, `expect`, `proxy-authorization`.
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), Key::Given(value.into().into())));
        self
    }

    /// The same with a value from this environment variable, read at each start of a life. It is taken for a
    /// secret whatever its name. A variable that is not set fails the start with `Permission`, naming it.
    #[must_use]
    pub fn header_env(mut self, name: impl Into<String>, variable: impl Into<String>) -> Self {
        self.headers.push((name.into(), Key::Env(variable.into())));
        self
    }

    /// Whether a header of this name can be [set](Model::header).
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn takes_header(name: &str) -> Result<(), String> {
        credentials::header(name, "").map(drop).map_err(|fault| fault.message.into_owned())
    }

    /// The request as the provider is asked: in words, where it has no structured output, or wants to be asked in
    /// words as well.
    pub(super) fn in_words<'a>(&self, told: Cow<'a, ChatRequest>) -> Cow<'a, ChatRequest> {
        let words = match &told.response_format {
            ResponseFormat::Text => return told,
            ResponseFormat::Json if self.structured && !self.wants_word(&told) => return told,
            ResponseFormat::Json => "Answer with one JSON value and nothing else.".to_owned(),
            ResponseFormat::Schema { .. } if self.structured => return told,
            ResponseFormat::Schema { schema, .. } => {
                format!("Answer with one JSON value of this JSON schema and nothing else: {schema}")
            }
        };
        let mut told = told.into_owned();
        if !self.structured {
            told.response_format = ResponseFormat::Text;
        }
        match told.messages.first_mut().filter(|first| first.role == crate::chat::Role::System) {
            Some(first) => first.text = format!("{}\n\n{words}", first.text),
            None => told.messages.insert(0, Message::system(words)),
        }
        Cow::Owned(told)
    }

    /// Whether the provider refuses JSON of any shape where no message has that word in it.
    fn wants_word(&self, told: &ChatRequest) -> bool {
        let has_word = |message: &Message| {
            message.text.as_bytes().windows(4).any(|it| it.eq_ignore_ascii_case(b"json"))
        };
        matches!(self.wire, Wire::Chat | Wire::Responses) && !told.messages.iter().any(has_word)
    }

    /// Whether a request of so many bytes has room in the window, if that is known.
    pub(super) fn fits_window(&self, bytes: usize) -> Result<(), Fault> {
        let Some(window) = self.window else { return Ok(()) };
        if (bytes as u64).div_ceil(BYTES_A_TOKEN) <= u64::from(window) {
            return Ok(());
        }
        let text = format!("a request of {bytes} bytes has no room in a window of {window} tokens");
        Err(Fault::context_length(text).with_code("context_window").not_applied())
    }

    /// What it says of itself to a group; `None` for nothing.
    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        let stated = Capabilities {
            price_cap_micros: self.price_cap,
            context_window: self.window,
            ..Capabilities::default()
        };
        (stated != Capabilities::default()).then_some(stated)
    }

    /// Whether its options go together.
    pub(super) fn fits(&self) -> Result<(), Fault> {
        if self.price_cap.is_some() && self.price.is_none() {
            let text = "a price cap without prices limits nothing: set `price_per_million`, to 0 for what is free";
            return Err(Fault::input_validation(text).with_code("no_price"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_limit_is_called_as_the_server_calls_it() {
        for (host, expected) in [
            (Some("api.openai.com"), TokenLimit::MaxCompletionTokens),
            (Some("eu.api.openai.com"), TokenLimit::MaxCompletionTokens),
            (Some("notapi.openai.com"), TokenLimit::MaxTokens),
            (Some("api.openai.com.example"), TokenLimit::MaxTokens),
            (Some("127.0.0.1"), TokenLimit::MaxTokens),
            (None, TokenLimit::MaxTokens),
        ] {
            assert_eq!(TokenLimit::of(host), expected, "{host:?}");
        }
    }
}
