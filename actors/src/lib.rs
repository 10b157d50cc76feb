//! Ready-made agents, tools and model endpoints for [`mainstay`].
//!
//! # When to use which
//!
//! | You want | Take |
//! |---|---|
//! | an agent: a model that calls tools until it has an answer | [`agent::Agent`] |
//! | a model at OpenAI, behind a gateway, or on your own server (llama.cpp, vLLM) | [`model::Model::openai`] |
//! | OpenAI's responses API, Anthropic, Gemini | [`model::Model::responses`], [`anthropic`](model::Model::anthropic), [`gemini`](model::Model::gemini) |
//! | a model of a local Ollama | [`model::Model::ollama_native`], or [`model::Model::ollama`] for its compatible API |
//! | to hear an answer while it is written | [`chat::stream`] |
//! | a model that works without network, key or weights, as the last of a chain or in an example | [`local::LocalModel`] |
//! | an async function as a tool, with typed arguments | [`tool::tool`] |
//! | the tools of a server of the Model Context Protocol, over stdio or HTTP | [`mcp::McpServer`] |
//! | an agent whose work survives the process | [`agent::Agent::durable_spec`] |
//! | an agent as a tool of another | [`agent::AgentTool`], or [`agent::Team`] for one started for each task |
//! | to find documents by similarity, and by words when that fails | [`search::VectorSearch`], [`search::ExactSearch`] |
//! | a person who decides when nothing else can | [`human::HumanDesk`] |
//! | an answer when nobody else has one | [`default::DefaultAnswer`] |
//! | to test how your tree behaves when a child fails, hangs or panics | [`scripted::Script`] |
//! | to test what is really sent to a model endpoint | [`stub_server::StubServer`] |
//!
//! Each has a `spec(id)` that makes a [`ChildSpec`](mainstay::spec::ChildSpec) with sensible defaults;
//! whatever they set can be set again.
//!
//! Models share one port, `Port<ChatRequest, ChatReply>`, and tools another, `Port<ToolRequest,
//! ToolReply>`, so each can stand in for its like in a group:
//!
//! ```
//! use mainstay::fault::Fault;
//! use mainstay::spec::acting::Read;
//! use mainstay::spec::{GroupSpec, SupervisorSpec};
//! use mainstay_actors::agent::Agent;
//! use mainstay_actors::chat::ToolSpec;
//! use mainstay_actors::local::LocalModel;
//! use mainstay_actors::model::Model;
//! use mainstay_actors::tool::{ToolContext, tool};
//!
//! #[derive(serde::Deserialize)]
//! struct Query {
//!     order: u32,
//! }
//!
//! let llm = GroupSpec::model("llm")
//!     .member_spec(Model::openai("https://api.openai.com/v1", "gpt-4o").key_env("KEY").spec("openai"))
//!     .member_spec(LocalModel::default().spec("local"));
//! let query_order = tool("query_order", Read, async |query: Query, _: ToolContext| {
//!     Ok::<_, Fault>(format!("order {} is on its way", query.order))
//! });
//! let agent = Agent::new("llm")
//!     .system("You answer customers of a shop.")
//!     .tool(ToolSpec::new("query_order").description("Finds an order"), "query_order");
//! let desk = SupervisorSpec::one_for_one("desk")
//!     .group(llm)
//!     .child(query_order)
//!     .child(agent.spec("agent"));
//! # drop(desk);
//! ```
//!
//! # The rules they all keep
//!
//! - One attempt is one attempt: nothing in here retries. The supervisor's policy does, once, for all.
//! - A failure is a [`Fault`](mainstay::fault::Fault) of the class its cause has, from types, codes and
//!   statuses, from texts only as a last resort; what is not known is `Unknown` and not retried.
//! - This crate uses the runtime's public API and nothing else: what it can do, yours can.

pub mod agent;
pub mod chat;
pub mod default;
mod exact;
mod http;
pub mod human;
pub mod local;
pub mod mcp;
pub mod model;
pub mod scripted;
pub mod search;
mod names;
mod secrets;
pub mod stub_server;
pub mod tool;
