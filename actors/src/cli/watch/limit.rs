//! A limit as people write it: `0.95`, `"95 %"`, `"5s"`.

use std::fmt;

use mainstay::watch::Unit;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::Span;

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    Number(f64),
    Percent(f64),
    Span(Span),
}

impl Limit {
    /// In the unit of what is measured.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub(super) fn read(self, unit: Unit) -> Result<f64, (&'static str, &'static str)> {
        const SHARE: &str = "write a share such as \"95 %\" or 0.95";
        match (unit, self) {
            (Unit::Share, Self::Number(share)) if (0.0..=1.0).contains(&share) => Ok(share),
            (Unit::Share, Self::Percent(percent)) if (0.0..=100.0).contains(&percent) => {
                Ok(percent / 100.0)
            }
            (Unit::Share, Self::Span(_)) => Err(("a time, where a share is measured", SHARE)),
            (Unit::Share, _) => Err(("a share that is none", SHARE)),
            (Unit::Seconds, Self::Span(span)) => Ok(span.0.as_secs_f64()),
            (Unit::Seconds, _) => {
                Err(("no time, where one is measured", "write a duration such as \"5s\""))
            }
            (Unit::Number, Self::Number(number)) if number.is_finite() && number >= 0.0 => {
                Ok(number)
            }
            (Unit::Number, _) => {
                Err(("no number, where one is measured", "write a number such as 1.5"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Limit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a share such as \"95 %\", or a duration such as \"5s\"")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Limit, E> {
                Ok(Limit::Number(number as f64))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Limit, E> {
                Ok(Limit::Number(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                let percent = text.strip_suffix('%').map(|number| number.trim_end().parse());
                let limit = match percent {
                    Some(percent) => percent.ok().map(Limit::Percent),
                    None => Span::read(text).map(Limit::Span),
                };
                limit.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
