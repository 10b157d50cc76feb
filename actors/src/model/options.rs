//! What an endpoint is told about itself: what it may cost.

use mainstay::fault::Fault;
use mainstay::spec::Capabilities;

use super::Model;

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

    /// What it says of itself to a group; `None` for nothing.
    pub(super) fn capabilities(&self) -> Option<Capabilities> {
        let stated = Capabilities { price_cap_micros: self.price_cap, ..Capabilities::default() };
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
