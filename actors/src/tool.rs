//! Tools: what an agent can do in the world. [`tool`] makes one from an async function with typed
//! arguments and a typed result.
//!
//! All tools share one port, `Port<ToolRequest, ToolReply>`, so that an agent can call any of them by
//! name and one can stand in for another.
//!
//! ```
//! use mainstay::fault::Fault;
//! use mainstay::spec::acting::Read;
//! use mainstay_actors::tool::{ToolContext, tool};
//!
//! #[derive(serde::Deserialize)]
//! struct Query {
//!     order: u32,
//! }
//!
//! let spec = tool("query_order", Read, async |query: Query, _: ToolContext| {
//!     Ok::<_, Fault>(format!("order {} is on its way", query.order))
//! });
//! assert_eq!(spec.id(), "query_order");
//! ```
//!
//! *Invariant.* A tool that does not say what it does to the world cannot be written: the kind of its
//! effect is a parameter. One that is irreversible cannot be told to retry: its spec has no way to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fate::Cost;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::{ChildPath, Delivery, RequestId};
use mainstay::moment::Moment;
use mainstay::spec::acting::{AtRunTime, Declares};
use mainstay::spec::{ChildSpec, Kind};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::chat::ToolSpec;
/// The crate that [`Tool::typed`] takes its schemas from. Derive with
/// `#[schemars(crate = "mainstay_actors::tool::schemars")]`, or depend on it yourself.
pub use schemars;

pub(crate) mod schema;
pub(crate) mod told;

/// Attempts at a time of a child made by [`tool`].
pub const CONCURRENCY: u32 = 8;

/// What a tool is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolRequest {
    /// The name it was called by. A tool that stands in for another is called by the other's name.
    pub name: String,
    /// The arguments: a JSON object as text.
    pub arguments: String,
}

impl ToolRequest {
    /// A call of this tool with these arguments, JSON as text.
    pub fn new(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { name: name.into(), arguments: arguments.into() }
    }
}

/// What a tool answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolReply {
    /// The result: JSON as text.
    pub content: String,
}

impl ToolReply {
    /// A result, JSON as text.
    pub fn new(content: impl Into<String>) -> Self {
        Self { content: content.into() }
    }
}

/// A child of this id from an async function. Its kind is `tool`; [`CONCURRENCY`] calls run at a
/// time; everything can be changed on the spec.
///
/// The arguments are read as `A`, the result is written as JSON. Empty arguments are read as `{}`.
///
/// What it does to the world is one of the types in [`mainstay::spec::acting`], so a tool that may be
/// told to retry can be given a policy of its own:
///
/// ```
/// use mainstay::fault::Fault;
/// use mainstay::policy::Policy;
/// use mainstay::spec::acting::Idempotent;
/// use mainstay_actors::tool::{ToolContext, tool};
///
/// let remind = async |_: u32, _: ToolContext| Ok::<_, Fault>(());
/// let spec = tool("remind", Idempotent, remind).policy(Policy::new());
/// ```
///
/// One that is irreversible cannot, and no policy above it has it retried:
///
/// ```compile_fail,E0599
/// use mainstay::fault::Fault;
/// use mainstay::policy::Policy;
/// use mainstay::spec::acting::Irreversible;
/// use mainstay_actors::tool::{ToolContext, tool};
///
/// let pay = async |_: u32, _: ToolContext| Ok::<_, Fault>(());
/// let spec = tool("pay", Irreversible, pay).policy(Policy::new());
/// ```
///
/// A kind that is known only while the program runs is wrapped in
/// [`AtRunTime`]; without it, the value is no kind:
///
/// ```compile_fail,E0277
/// use mainstay::fault::{EffectKind, Fault};
/// use mainstay_actors::tool::{ToolContext, tool};
///
/// let pay = async |_: u32, _: ToolContext| Ok::<_, Fault>(());
/// let spec = tool("pay", EffectKind::Irreversible, pay);
/// ```
///
/// # Errors
/// What the function returns, and `InputValidation` with code `bad_arguments`, naming the field, for
/// arguments that are not an `A`; the function is not called then. A result that cannot be written
/// is `Internal`: the function has run, so its effect is not known to anybody else.
pub fn tool<K, A, R, F, T>(name: impl Into<String>, effect: K, function: F) -> K::Spec
where
    K: Declares,
    A: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
    F: Fn(A, ToolContext) -> T + Send + Sync + 'static,
    T: Future<Output = Result<R, Fault>> + Send + 'static,
{
    let name = name.into();
    Tool::new(name.clone(), effect, function).spec(name)
}

type Run = dyn Fn(String, ToolContext) -> Pin<Box<dyn Future<Output = Result<String, Fault>> + Send>>
    + Send
    + Sync;

/// A tool as a behavior. [`tool`] is the short way.
///
/// Put it into a group with [`Tool::spec`] and `member_spec`: the spec carries the kind of its effect, `K`.
#[derive(Clone)]
pub struct Tool<K = AtRunTime> {
    name: Arc<str>,
    effect: K,
    description: Arc<str>,
    schema: Option<Arc<Value>>,
    run: Arc<Run>,
}

impl<K: Declares> Tool<K> {
    /// A tool that says of itself what it is for and which arguments it takes: [`Tool::offer`].
    ///
    /// Arguments that the schema forbids are refused before the function is called, all at once and
    /// each by its name, so that a model can mend them in one go. With `deny_unknown_fields` on `A`
    /// that includes arguments nobody knows.
    ///
    /// ```
    /// use mainstay::fault::Fault;
    /// use mainstay::spec::acting::Read;
    /// use mainstay_actors::tool::{Tool, ToolContext, schemars};
    ///
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// #[schemars(crate = "schemars")]
    /// struct Query {
    ///     /// The order's number.
    ///     order: u32,
    /// }
    ///
    /// let find = async |query: Query, _: ToolContext| Ok::<_, Fault>(query.order);
    /// let tool = Tool::typed("query_order", "Looks an order up.", Read, find);
    /// assert!(tool.offer().parameters.contains("The order's number."));
    /// ```
    pub fn typed<A, R, F, T>(
        name: impl Into<String>,
        description: impl AsRef<str>,
        effect: K,
        function: F,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(A, ToolContext) -> T + Send + Sync + 'static,
        T: Future<Output = Result<R, Fault>> + Send + 'static,
    {
        Self {
            description: Arc::from(description.as_ref()),
            schema: Some(Arc::new(schema::of::<A>())),
            ..Self::new(name, effect, function)
        }
    }

    /// Gives it this JSON schema of its arguments, where the type has none to give: it is told of, and arguments
    /// that it forbids are refused as by [`Tool::typed`], before they are read as the type.
    ///
    /// # Default
    /// That of the type, for [`Tool::typed`]; else none: what is wrong with the arguments is told one at a time,
    /// by who reads them.
    #[must_use]
    pub fn parameters(self, schema: Value) -> Self {
        Self { schema: Some(Arc::new(schema)), ..self }
    }

    /// What a model is told about it. One made with [`Tool::new`] has no description and takes any
    /// object, unless its [parameters](Tool::parameters) are given.
    pub fn offer(&self) -> ToolSpec {
        let spec = ToolSpec::new(&*self.name).description(&*self.description);
        match &self.schema {
            Some(schema) => spec.parameters(told::parameters(Value::clone(schema))),
            None => spec,
        }
    }

    /// A tool from an async function; see [`tool`].
    pub fn new<A, R, F, T>(name: impl Into<String>, effect: K, function: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(A, ToolContext) -> T + Send + Sync + 'static,
        T: Future<Output = Result<R, Fault>> + Send + 'static,
    {
        let function = Arc::new(function);
        let run = move |text: String, ctx: ToolContext| {
            let function = Arc::clone(&function);
            Box::pin(async move {
                let arguments = arguments(&text)?;
                let result = function(arguments, ctx).await?;
                serde_json::to_string(&result).map_err(|error| {
                    Fault::internal(format!("the result cannot be written: {error}"))
                        .with_code("bad_result")
                })
            }) as Pin<Box<dyn Future<Output = _> + Send>>
        };
        Self {
            name: name.into().into(),
            effect,
            description: Arc::from(""),
            schema: None,
            run: Arc::new(run),
        }
    }

    /// The child spec under this id.
    pub fn spec(self, id: impl AsRef<str>) -> K::Spec {
        let effect = self.effect.clone();
        let spec = ChildSpec::stateless(id, move || self.clone())
            .kind(Kind::Tool)
            .concurrency(CONCURRENCY)
            // So that it can be asked to undo what another did, also by another process.
            .recorded::<Self>();
        effect.declare(spec)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it once, supervised by nobody.
    ///
    /// # Errors
    /// See [`tool`].
    pub async fn run(&self, request: &ToolRequest, ctx: ToolContext) -> Result<ToolReply, Fault> {
        if let Some(schema) = &self.schema {
            // What is not JSON is told by who reads it.
            let text = request.arguments.trim();
            let value = serde_json::from_str(if text.is_empty() { "{}" } else { text });
            if let Ok(value) = value {
                let problems = schema::problems(schema, &value);
                if !problems.is_empty() {
                    return Err(bad_arguments(problems));
                }
            }
        }
        (self.run)(request.arguments.clone(), ctx).await.map(ToolReply::new)
    }
}

impl<K: Declares> fmt::Debug for Tool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool")
            .field("name", &self.name)
            .field("effect", &self.effect.kind())
            .finish_non_exhaustive()
    }
}

impl<K: Declares> Behavior for Tool<K> {
    type Request = ToolRequest;
    type Reply = ToolReply;
}

impl<K: Declares> Stateless for Tool<K> {
    async fn serve(&self, request: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        let mine = ToolContext::of(ctx);
        let said = Arc::clone(&mine.said);
        let result = self.run(request, mine).await;
        let said = said.lock();
        ctx.spend(said.cost);
        if said.degraded {
            ctx.mark_degraded();
        }
        result.map_err(|fault| seen_by(self.effect.kind(), fault))
    }
}

/// The fault of a tool of this kind: one that does nothing to the world has done nothing when it fails, however it
/// does.
pub(crate) fn seen_by(kind: EffectKind, fault: Fault) -> Fault {
    match kind {
        EffectKind::Pure | EffectKind::Read => fault.not_applied(),
        _ => fault,
    }
}

fn arguments<A: DeserializeOwned>(text: &str) -> Result<A, Fault> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let bad = bad_arguments;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // A field that is missing is named by the message, any other by the path.
        if path == "." {
            bad(format!("arguments: {inner}"))
        } else {
            bad(format!("argument \"{path}\": {inner}"))
        }
    })?;
    reader.end().map_err(|error| bad(format!("arguments: {error}")))?;
    Ok(read)
}

fn bad_arguments(what: String) -> Fault {
    Fault::input_validation(what).with_code("bad_arguments").not_applied()
}

#[derive(Debug, Default)]
struct Said {
    cost: Cost,
    degraded: bool,
}

/// What a tool's function knows of its call, as its own value: it may outlive the call.
#[derive(Clone, Debug)]
pub struct ToolContext {
    child: ChildPath,
    request: RequestId,
    attempt: u32,
    delivery: Delivery,
    key: String,
    deadline: Moment,
    time_left: Duration,
    said: Arc<Mutex<Said>>,
}

impl ToolContext {
    fn of(ctx: &Context) -> Self {
        Self {
            child: ctx.path().clone(),
            request: ctx.request(),
            attempt: ctx.attempt(),
            delivery: ctx.delivery(),
            key: ctx.key(),
            deadline: ctx.deadline(),
            time_left: ctx.time_left(),
            said: Arc::default(),
        }
    }

    /// A context for [`Tool::run`], outside of any system: first attempt, no deadline, this key.
    pub fn alone(key: impl Into<String>) -> Self {
        Self {
            child: ChildPath::new("alone"),
            request: RequestId(0),
            attempt: 1,
            delivery: Delivery(1),
            key: key.into(),
            deadline: Moment::NEVER,
            time_left: Duration::MAX,
            said: Arc::default(),
        }
    }

    /// The tool's path.
    pub fn path(&self) -> &ChildPath {
        &self.child
    }

    /// The request. The same over all attempts.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Which hand-out of the request this is, from 1.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The idempotency key, for a target that takes one. The same over retries and substitutes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// When the request must have its fate.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// Time that was left to the deadline when this attempt began; [`Duration::MAX`] when there is
    /// none.
    pub fn time_left_at_start(&self) -> Duration {
        self.time_left
    }

    /// Adds to what the answer cost. Counted when the function has returned; an attempt that is cut
    /// short loses it.
    pub fn spend(&self, cost: Cost) {
        self.said.lock().cost.add(cost);
    }

    /// Marks the answer as degraded.
    pub fn mark_degraded(&self) {
        self.said.lock().degraded = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::fault::{Class, EffectState};
    use mainstay::spec::acting::{Pure, Read};

    #[derive(Deserialize)]
    struct Transfer {
        from: String,
        amount: u32,
        #[serde(default)]
        to: Vec<u8>,
    }

    async fn run(arguments: &str) -> Result<String, Fault> {
        let tool = Tool::new("t", Read, async |it: Transfer, ctx: ToolContext| {
            ctx.spend(Cost { tokens: 1, money_micros: 0 });
            if it.amount > 100 {
                return Err(Fault::business("too much"));
            }
            Ok((it.from, it.amount, it.to.len()))
        });
        let request = ToolRequest::new("t", arguments);
        tool.run(&request, ToolContext::alone("k")).await.map(|reply| reply.content)
    }

    #[tokio::test]
    async fn typed_arguments_go_in_and_json_comes_out() {
        assert_eq!(run(r#"{"from":"a","amount":3}"#).await.unwrap(), r#"["a",3,0]"#);
        assert_eq!(run(r#"{"from":"a","amount":300}"#).await.unwrap_err().class, Class::Business);
    }

    #[tokio::test]
    async fn bad_arguments_name_the_field_and_change_nothing() {
        for (text, named) in [
            (r#"{"from":"a"}"#, "amount"),
            (r#"{"from":"a","amount":"x"}"#, "amount"),
            (r#"{"from":7,"amount":1}"#, "from"),
            (r#"{"from":"a","amount":1,"to":[1,999]}"#, "to[1]"),
            ("", "from"),
        ] {
            let fault = run(text).await.unwrap_err();
            assert_eq!(
                (fault.class, fault.effect),
                (Class::InputValidation, EffectState::NotApplied)
            );
            assert_eq!(fault.code.as_deref(), Some("bad_arguments"));
            assert!(fault.message.contains(named), "{text}: {}", fault.message);
        }
        let tool =
            Tool::new("t", Read, async |it: Transfer, _: ToolContext| Ok::<_, Fault>(it.amount));
        let tool = tool.parameters(serde_json::json!({
            "properties": {"from": {"type": "string"}, "amount": {"type": "integer"}},
            "required": ["from", "amount"],
        }));
        assert!(tool.offer().parameters.contains(r#""required":["from","amount"]"#));
        let request = ToolRequest::new("t", r#"{"amount":"x","from":7}"#);
        let fault = tool.run(&request, ToolContext::alone("k")).await.unwrap_err();
        assert_eq!(
            fault.message,
            "argument \"from\" is of type integer, not string; \
             argument \"amount\" is of type string, not integer"
        );
        for text in ["{", "[]", "null", r#"{"from":"a","amount":1} x"#] {
            assert_eq!(run(text).await.unwrap_err().class, Class::InputValidation, "{text}");
        }
    }

    #[tokio::test]
    async fn a_tool_without_arguments_takes_empty_ones() {
        #[derive(Deserialize)]
        struct Nothing {}
        let tool = Tool::new("t", Pure, async |_: Nothing, ctx: ToolContext| {
            Ok::<_, Fault>(ctx.key().to_owned())
        });
        let reply = tool.run(&ToolRequest::new("t", " "), ToolContext::alone("k")).await.unwrap();
        assert_eq!(reply.content, r#""k""#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tool_that_only_reads_has_done_nothing_when_it_fails() {
        use mainstay::error::CallError;
        use mainstay::spec::SupervisorSpec;
        use mainstay::spec::acting::Irreversible;
        use mainstay::system::System;
        async fn fails(_: Value, _: ToolContext) -> Result<(), Fault> {
            Err(Fault::indeterminate("no answer"))
        }
        let root = SupervisorSpec::one_for_one("root")
            .child(tool("look", Read, fails))
            .child(tool("pay", Irreversible, fails));
        let system = System::start(root).await.unwrap();
        let ask = async |name: &str| {
            let port = system.port::<ToolRequest, ToolReply>(format!("root/{name}")).unwrap();
            port.call(ToolRequest::new(name, "{}")).await.unwrap_err()
        };
        let CallError::RecoveryExhausted { fault, .. } = ask("look").await else { panic!() };
        assert_eq!((fault.class, fault.effect), (Class::Indeterminate, EffectState::NotApplied));
        let CallError::Unknown { .. } = ask("pay").await else { panic!() };
        system.stop().await;
    }

    #[tokio::test]
    async fn a_typed_tool_is_not_called_with_arguments_its_schema_forbids() {
        use std::sync::atomic::{AtomicU32, Ordering};
        #[derive(Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct Query {
            order: u32,
            reason: String,
        }
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let tool = Tool::typed("t", "Does it.", Read, move |it: Query, _: ToolContext| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Fault>(format!("{} {}", it.order, it.reason)) }
        });
        let offer = tool.offer();
        assert_eq!((&*offer.name, &*offer.description), ("t", "Does it."));
        assert!(offer.parameters.contains(r#""required":["order","reason"]"#), "{offer:?}");
        let run = async |text: &str| {
            tool.run(&ToolRequest::new("t", text), ToolContext::alone("k")).await
        };
        let fault = run(r#"{"order":"x","raeson":"y"}"#).await.unwrap_err();
        assert_eq!(
            (fault.class, fault.code.as_deref()),
            (Class::InputValidation, Some("bad_arguments"))
        );
        for name in
            ["\"order\" is of type string", "\"reason\" is missing", "\"raeson\" is not known"]
        {
            assert!(fault.message.contains(name), "{}", fault.message);
        }
        assert_eq!(run("{").await.unwrap_err().class, Class::InputValidation);
        // The schema allows what the type does not: then the type says no.
        assert_eq!(
            run(r#"{"order":1e30,"reason":""}"#).await.unwrap_err().class,
            Class::InputValidation
        );
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        assert_eq!(run(r#"{"order":1,"reason":"y"}"#).await.unwrap().content, "\"1 y\"");
    }
}
