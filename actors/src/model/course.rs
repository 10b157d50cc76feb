//! [`Course`]: an attempt under way, and who pays for it.

use mainstay::behavior::Context;
use mainstay::fault::Fault;
use mainstay::policy::budget::{Limits, Resource};

use super::Model;
use super::share::{Share, share};
use crate::chat::Usage;
use crate::chat::stream::{StreamSink, StreamWriter};

/// An attempt under way.
#[derive(Default)]
pub(crate) struct Course<'a> {
    /// It is a hedge: it writes a stream only if nobody else does.
    pub(super) rival: bool,
    /// Who pays.
    pub(super) payer: Option<(&'a Model, &'a Context)>,
}

impl Course<'_> {
    /// Reserves what a request may use of the payer's budget, and of what one request of the model may cost,
    /// if that has limits.
    pub(super) fn share(
        &self,
        model: &Model,
        prompt: u64,
        limit: Option<u32>,
    ) -> Result<Option<Share>, Fault> {
        let mut left = self.payer.map_or_else(Limits::default, |(_, ctx)| ctx.budget_left());
        // The tighter one decides.
        let cap = model.price_cap.filter(|cap| left.money_micros.is_none_or(|left| *cap < left));
        left.money_micros = cap.or(left.money_micros);
        let price = model.price.unwrap_or_default();
        let share = share(prompt, limit, model.answer_tokens, price, &left).map_err(|denied| {
            match cap {
                Some(cap) if denied.what == Resource::Money => Fault::budget_denied(format!(
                    "the request may cost {} millionths, and one of this model at most {cap}",
                    denied.asked
                ))
                .with_code("price_cap")
                .not_applied(),
                _ => Fault::from(denied),
            }
            .by_own_limits()
        })?;
        if let (Some(share), Some((_, ctx))) = (share, self.payer) {
            ctx.reserve(model.cost(share.usage))?;
        }
        Ok(share)
    }

    /// Begins to write a stream. In a box, since most requests have none.
    pub(super) fn writer(&self, sink: &StreamSink) -> Box<StreamWriter> {
        Box::new(if self.rival { sink.rival() } else { sink.attempt() })
    }

    /// So much was used so far: it is charged if the attempt is dropped now.
    pub(crate) fn used(&self, usage: Usage) {
        if let Some((model, ctx)) = self.payer {
            ctx.owe(model.cost(usage));
        }
    }
}

/// It stands back: nothing of it was heard, or nothing counts of what was.
pub(super) fn superseded() -> Fault {
    Fault::cancelled("another attempt writes the stream").with_code("superseded").not_applied()
}
