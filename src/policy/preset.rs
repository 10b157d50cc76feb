//! The playbook's chains by name.
//!
//! *Invariant.* Names only: a chain becomes a group when a spec binds each name to a child.

use serde::{Deserialize, Serialize};

/// The model chain of the playbook's table: the best model, another provider, an older model.
pub const MODEL_CHAIN: [&str; 3] = ["gpt-4", "claude", "gpt-3.5"];

/// The siblings of the language model service in the playbook's code.
pub const LLM_SERVICE: [&str; 3] = ["claude_service", "openai_service", "local_model"];

/// The siblings of a tool in the playbook's code; the last is a person.
pub const TOOL_EXECUTION: [&str; 2] = ["fallback_tool", "manual_override"];

/// The only sibling of an operation of no known kind.
pub const ERROR_HANDLER: [&str; 1] = ["error_handler"];

/// What kind of work failed. The class of the fault does not choose the chain; it only filters it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OperationKind {
    /// A call to a language model.
    LlmService,
    /// A call to a tool.
    ToolExecution,
    /// Anything else.
    #[default]
    Unknown,
}

impl From<&str> for OperationKind {
    /// By the playbook's names `llm_service` and `tool_execution`.
    fn from(name: &str) -> Self {
        match name {
            "llm_service" => Self::LlmService,
            "tool_execution" => Self::ToolExecution,
            _ => Self::Unknown,
        }
    }
}

/// The chain for this kind of work, first choice first.
pub const fn select_fallback(kind: OperationKind) -> &'static [&'static str] {
    match kind {
        OperationKind::LlmService => &LLM_SERVICE,
        OperationKind::ToolExecution => &TOOL_EXECUTION,
        OperationKind::Unknown => &ERROR_HANDLER,
    }
}

/// The static priority of a member by its name in the playbook: claude 1, openai 2, local 3, any
/// other 4. Smaller comes first.
///
/// [`LLM_SERVICE`] stands in this order; [`MODEL_CHAIN`] has one of its own, as in the playbook. A group asks
/// its members in the order of its spec or of its allow-list and does not sort them by name; from the
/// second attempt on, those of the provider that failed come after the others. Latency decides nothing.
pub fn priority(name: &str) -> u32 {
    match name {
        "claude" | "claude_service" => 1,
        "openai" | "openai_service" => 2,
        "local" | "local_model" => 3,
        _ => 4,
    }
}
