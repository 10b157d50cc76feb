//! The tools that need no server: those of a support desk over a file of orders.
//!
//! *Invariant.* The file is read and never written: a refund is made in memory, once for each key.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use mainstay::fault::{EffectKind, Fault};
use mainstay::spec::ChildSpec;
use mainstay::spec::acting::AtRunTime;
use mainstay_actors::tool::{Tool, ToolContext, ToolSpec};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::file::Builtin;

/// An order as it stands in the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    order: u32,
    status: String,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

/// The orders of one file, shared by the tools that name it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk {
    orders: Arc<Mutex<HashMap<u32, Order>>>,
    refunds: Arc<Mutex<HashMap<String, u32>>>,
    /// What the orders were that were refunded here.
    before: Arc<Mutex<HashMap<u32, String>>>,
}

impl Desk {
    /// Reads the file: a JSON array of orders.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let orders: Vec<Order> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let orders = orders.into_iter().map(|order| (order.order, order)).collect();
        Ok(Self { orders: Arc::new(Mutex::new(orders)), ..Self::default() })
    }

    fn find(&self, number: u32) -> Result<Order, Fault> {
        self.orders.lock().get(&number).cloned().ok_or_else(|| {
            Fault::business(format!("there is no order {number}")).with_code("no_such_order")
        })
    }

    fn refund(&self, number: u32, key: &str) -> Result<Order, Fault> {
        let mut refunds = self.refunds.lock();
        let mut order = self.find(number)?;
        // The same request again has been granted already.
        if refunds.get(key) == Some(&number) {
            return Ok(order);
        }
        if order.status == "refunded" {
            return Err(Fault::business(format!("order {number} is refunded already"))
                .with_code("already_refunded"));
        }
        self.before.lock().insert(number, order.status.clone());
        "refunded".clone_into(&mut order.status);
        self.orders.lock().insert(number, order.clone());
        refunds.insert(key.to_owned(), number);
        Ok(order)
    }

    /// Undoes a refund that was made here; where there was none, there is nothing to undo.
    fn take_back(&self, number: u32) -> Result<Order, Fault> {
        let mut refunds = self.refunds.lock();
        let mut order = self.find(number)?;
        if let Some(status) = self.before.lock().remove(&number) {
            order.status = status;
            refunds.retain(|_, refunded| *refunded != number);
            self.orders.lock().insert(number, order.clone());
        }
        Ok(order)
    }
}

#[derive(Deserialize)]
struct Query {
    order: u32,
}

#[derive(Deserialize)]
struct Wish {
    order: Option<u32>,
    reason: Option<String>,
}

impl Builtin {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::QueryOrder => "query_order",
            Self::Refund => "refund",
            Self::TakeBack => "take_back",
            Self::Escalate => "escalate",
            Self::VectorSearch => "vector_search",
            Self::ExactSearch => "exact_search",
            Self::Default => "default",
        }
    }

    /// Whether it works on a file of orders.
    pub(crate) const fn needs_data(self) -> bool {
        matches!(self, Self::QueryOrder | Self::Refund | Self::TakeBack)
    }

    /// Whether it searches documents.
    pub(crate) const fn needs_documents(self) -> bool {
        matches!(self, Self::VectorSearch | Self::ExactSearch)
    }

    /// Whether it always says the same.
    pub(crate) const fn needs_text(self) -> bool {
        matches!(self, Self::Default)
    }

    /// What a model is told about it, under the name it is offered by.
    pub(crate) fn offer(self, name: &str) -> ToolSpec {
        let (description, parameters) = self.told();
        ToolSpec::new(name).description(description).parameters(parameters)
    }

    /// What it is for, and the schema of its arguments.
    fn told(self) -> (&'static str, serde_json::Value) {
        let order = json!({"type": "integer", "description": "the order's number"});
        let reason = json!({"type": "string", "description": "why, in a sentence"});
        let (description, properties, required) = match self {
            Self::QueryOrder => ("Looks an order up.", json!({"order": order}), vec!["order"]),
            Self::Refund => {
                ("Refunds an order.", json!({"order": order, "reason": reason}), vec!["order"])
            }
            Self::TakeBack => {
                ("Takes a refund of an order back.", json!({"order": order}), vec!["order"])
            }
            Self::Escalate => {
                ("Hands the case to a person.", json!({"order": order, "reason": reason}), vec![])
            }
            Self::VectorSearch | Self::ExactSearch => {
                let query = json!({"type": "string", "description": "words, or a question"});
                ("Searches the documents.", json!({"query": query}), vec!["query"])
            }
            Self::Default => ("Says what it always says.", json!({}), vec![]),
        };
        let parameters = json!({"type": "object", "properties": properties, "required": required});
        (description, parameters)
    }

    /// What one call does to the world.
    pub(crate) const fn effect(self) -> EffectKind {
        match self {
            Self::QueryOrder | Self::VectorSearch | Self::ExactSearch => EffectKind::Read,
            Self::Refund | Self::TakeBack | Self::Escalate => EffectKind::Idempotent,
            Self::Default => EffectKind::Pure,
        }
    }

    /// One of the tools over orders, as a child.
    pub(crate) fn over_orders(self, id: &str, desk: &Desk) -> Option<ChildSpec> {
        let desk = desk.clone();
        let name = self.name();
        let tool = match self {
            Self::QueryOrder => {
                Tool::new(name, AtRunTime(self.effect()), move |query: Query, _: ToolContext| {
                    let found = desk.find(query.order);
                    async move { found }
                })
            }
            Self::Refund => {
                Tool::new(name, AtRunTime(self.effect()), move |query: Query, ctx: ToolContext| {
                    let refunded = desk.refund(query.order, ctx.key());
                    async move { refunded }
                })
            }
            Self::TakeBack => {
                Tool::new(name, AtRunTime(self.effect()), move |query: Query, _: ToolContext| {
                    let taken = desk.take_back(query.order);
                    async move { taken }
                })
            }
            Self::Escalate => {
                Tool::new(name, AtRunTime(self.effect()), |wish: Wish, _: ToolContext| async move {
                    let ticket = wish.order.map_or("T-0".to_owned(), |order| format!("T-{order}"));
                    Ok::<_, Fault>(json!({"ticket": ticket, "reason": wish.reason}))
                })
            }
            Self::VectorSearch | Self::ExactSearch | Self::Default => return None,
        };
        let (_, mut parameters) = self.told();
        let required = parameters["required"].clone();
        let optional =
            |name: &str| !required.as_array().is_some_and(|it| it.contains(&name.into()));
        // Models write null for what they leave out; that it may be, not all providers can be told.
        for (name, schema) in parameters["properties"].as_object_mut().into_iter().flatten() {
            if optional(name) {
                schema["type"] = json!([schema["type"], "null"]);
            }
        }
        Some(tool.parameters(parameters).spec(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_refunded_once_however_often_the_request_comes() {
        let order = Order { order: 7, status: "shipped".to_owned(), rest: BTreeMap::new() };
        let desk = Desk::default();
        desk.orders.lock().insert(7, order);
        assert_eq!(desk.refund(7, "a").unwrap().status, "refunded");
        assert_eq!(desk.refund(7, "a").unwrap().status, "refunded");
        assert_eq!(desk.refund(7, "b").unwrap_err().code.as_deref(), Some("already_refunded"));
        // Taken back, it is what it was, and can be made again.
        assert_eq!(desk.take_back(7).unwrap().status, "shipped");
        assert_eq!(desk.take_back(7).unwrap().status, "shipped");
        assert_eq!(desk.refund(7, "a").unwrap().status, "refunded");
        assert_eq!(desk.refund(8, "a").unwrap_err().code.as_deref(), Some("no_such_order"));
    }
}
