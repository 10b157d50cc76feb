//! The world the tools act on: orders, payments, tickets for people. What was really done is counted
//! here, by the world's own books and not by the runtime's word.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::input::{Complaint, Order};

/// What the desk may pay out by itself, in minor units of the order's currency.
pub(crate) const REFUND_LIMIT_CENTS: i64 = 50_000;

/// The shop.
#[derive(Debug)]
pub(crate) struct Shop {
    orders: HashMap<u32, Order>,
    /// Whose account each complaint came from.
    customers: HashMap<String, String>,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// Every order that was paid back, with the key it was done under.
    paid: HashMap<u32, String>,
    /// By key.
    tickets: HashMap<String, usize>,
    records: HashMap<String, Record>,
    counts: Counts,
}

/// What was done for one complaint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Orders that were looked up.
    pub(crate) looked_up: Vec<u32>,
    /// Those of them that turned out to have been paid back before.
    pub(crate) found_refunded: Vec<u32>,
    /// Orders that were paid back.
    pub(crate) paid: Vec<u32>,
    /// Whether a person has it on their desk.
    pub(crate) person: bool,
}

/// What was done in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Orders paid back.
    pub(crate) paid: u64,
    /// Those of them that a person paid back, because the refund tool could not.
    pub(crate) paid_by_person: u64,
    /// Tickets opened for a person.
    pub(crate) tickets: u64,
    /// Refunds and tickets asked for again under the same key, and not done twice.
    pub(crate) repeated: u64,
}

impl Shop {
    pub(crate) fn new(orders: Vec<Order>, complaints: &[Complaint]) -> Self {
        Self {
            orders: orders.into_iter().map(|order| (order.order, order)).collect(),
            customers: complaints.iter().map(|it| (it.id.clone(), it.customer.clone())).collect(),
            books: Mutex::default(),
        }
    }

    /// Looks an order up for the complaint this key belongs to.
    pub(crate) fn query(&self, key: &str, number: u32) -> Value {
        let mut books = self.books.lock();
        books.record(key).looked_up.push(number);
        let Some(order) = self.orders.get(&number) else { return json!({ "found": false }) };
        let status = if books.paid.contains_key(&number) { "refunded" } else { &order.status };
        if status == "refunded" {
            books.record(key).found_refunded.push(number);
        }
        json!({
            "found": true, "order": number, "status": status, "item": order.item, "eta": order.eta,
            "amount_cents": order.amount_cents, "currency": order.currency,
        })
    }

    /// Pays an order back: once for a key, however often it is asked for. A refusal is an answer, not
    /// a failure of the tool.
    pub(crate) fn refund(&self, key: &str, number: u32) -> Value {
        self.pay(&mut self.books.lock(), key, number).0
    }

    /// Gives a case to a person, who pays back what the tool could not: under the same key, so never
    /// what the tool has paid back without being able to say so.
    pub(crate) fn refund_by_person(&self, key: &str, number: u32) -> Value {
        let mut books = self.books.lock();
        books.record(key).person = true;
        let (answer, paid) = self.pay(&mut books, key, number);
        books.counts.paid_by_person += u64::from(paid);
        answer
    }

    /// The answer, and whether it was paid just now.
    fn pay(&self, books: &mut Books, key: &str, number: u32) -> (Value, bool) {
        let refused = |code: &str, text: &str| {
            (json!({ "error": { "class": "refused", "code": code, "message": text } }), false)
        };
        let done = || json!({ "refunded": true, "order": number });
        if let Some(other) = books.paid.get(&number) {
            if other != key {
                return refused("already_refunded", "this order was paid back before");
            }
            books.counts.repeated += 1;
            return (done(), false);
        }
        let Some(order) = self.orders.get(&number) else {
            return refused("no_such_order", "there is no such order");
        };
        if order.status == "refunded" {
            return refused("already_refunded", "this order was paid back before");
        }
        if self.customers.get(complaint_of(key)) != Some(&order.customer) {
            return refused("not_theirs", "the order belongs to somebody else; a person must look");
        }
        if order.amount_cents > REFUND_LIMIT_CENTS {
            return refused("above_limit", "above what the desk may pay out; a person decides");
        }
        books.paid.insert(number, key.to_owned());
        books.record(key).paid.push(number);
        books.counts.paid += 1;
        (done(), true)
    }

    /// Opens a ticket for a person: once for a key.
    pub(crate) fn escalate(&self, key: &str) -> Value {
        let mut books = self.books.lock();
        books.record(key).person = true;
        let next = books.tickets.len() + 1;
        let number = *books.tickets.entry(key.to_owned()).or_insert(next);
        if number == next {
            books.counts.tickets += 1;
        } else {
            books.counts.repeated += 1;
        }
        json!({ "ticket": number })
    }

    /// What was done for a complaint.
    pub(crate) fn record(&self, complaint: &str) -> Record {
        self.books.lock().records.get(complaint).cloned().unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.books.lock().counts
    }
}

impl Books {
    fn record(&mut self, key: &str) -> &mut Record {
        self.records.entry(complaint_of(key).to_owned()).or_default()
    }
}

/// The complaint a tool's idempotency key belongs to. A model cannot choose it: the key is made by the
/// runtime from the caller's, which is the complaint's id, with one more part.
pub(crate) fn complaint_of(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(complaint, _)| complaint)
}
