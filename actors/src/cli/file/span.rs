//! Lengths of time as people write them.
//!
//! *Invariant.* None of them is zero.

use std::fmt;
use std::time::Duration;

use mainstay::policy::Hedge;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A duration as `"30s"`, `"500ms"`, `"2m"` or `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl Span {
    /// What such a text means.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = match &text[at..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let millis = text[..at].parse::<u64>().ok()?.checked_mul(unit)?;
        // Nothing is waited for longer than a year.
        (1..=31_536_000_000).contains(&millis).then(|| Self(Duration::from_millis(millis)))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30s\", \"500ms\" or \"2m\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::read(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// After which time something is slow: a duration, or `"p95"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After(pub(crate) Hedge);

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = After;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"300ms\", or \"p95\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<After, E> {
                if text == "p95" {
                    return Ok(After(Hedge::p95()));
                }
                let span = Span::read(text);
                span.map(|span| After(Hedge::after(span.0)))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}
