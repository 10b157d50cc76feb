//! Response headers, and the wait they ask for.

use std::time::{Duration, SystemTime};

/// The longest wait that is passed on; anything longer is cut to this. A server that asks for a year
/// has made a mistake, and a wait of a day is beyond every deadline anyway.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Response headers, in the order they came. Names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// The first value under this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self(headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// How long the server asks us to wait, `wall` being now on the clock people read.
///
/// Read in this order, the first that makes sense wins: `retry-after-ms`, `x-ms-retry-after-ms`,
/// `retry-after` in seconds (a fraction is allowed), `retry-after` as a date. A date that has passed
/// is no wait, `Some(0)`.
///
/// # Limits
/// What is negative, not a number, infinite or unreadable is passed over. More than
/// [`LONGEST_WAIT`] is cut to it.
pub fn retry_after(headers: &Headers, wall: SystemTime) -> Option<Duration> {
    for name in ["retry-after-ms", "x-ms-retry-after-ms"] {
        if let Some(wait) = headers.get(name).and_then(|text| seconds(text, 1e-3)) {
            return Some(wait);
        }
    }
    let text = headers.get("retry-after")?;
    seconds(text, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(date.duration_since(wall).unwrap_or_default().min(LONGEST_WAIT))
    })
}

/// When the provider's window is full again, where its headers say that it is empty: a hint, for a
/// refusal that says nothing more exact. Read are `x-ratelimit-reset-*` (spans such as `6m0s`, `20ms`,
/// or seconds) and `anthropic-ratelimit-*-reset` (points in time). Of several windows that are empty
/// the last to fill counts; a window of which requests or tokens remain does not count.
///
/// # Limits
/// As [`retry_after`].
pub fn reset_hint(headers: &Headers, wall: SystemTime) -> Option<Duration> {
    let empty = |remaining: String| headers.get(&remaining).is_none_or(|left| left.trim() == "0");
    let hints = headers.iter().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        if let Some(of) = name.strip_prefix("x-ratelimit-reset-") {
            return span(value).filter(|_| empty(format!("x-ratelimit-remaining-{of}")));
        }
        let of = name.strip_prefix("anthropic-ratelimit-")?.strip_suffix("-reset")?;
        let at =
            timestamp(value).filter(|_| empty(format!("anthropic-ratelimit-{of}-remaining")))?;
        Some(at.duration_since(wall).unwrap_or_default().min(LONGEST_WAIT))
    });
    hints.max()
}

/// A span as OpenAI writes it: `1s`, `6m0s`, `20ms`, `1h2m3.5s`; a bare number is seconds.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Some(span) = seconds(rest, 1.0) {
        return Some(span);
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit =
            rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        let factor = match &rest[digits..unit] {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        sum = sum.saturating_add(seconds(&rest[..digits], factor)?);
        rest = &rest[unit..];
    }
    (!text.trim().is_empty()).then_some(sum.min(LONGEST_WAIT))
}

/// A point in time as RFC 3339 writes it.
fn timestamp(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark))
        || !matches!(bytes.get(10), Some(b'T' | b't' | b' '))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = rest
        .strip_prefix('.')
        .map_or(rest, |fraction| fraction.trim_start_matches(|c: char| c.is_ascii_digit()));
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let at = text.len() - zone.len();
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            match zone.as_bytes() {
                [b'+', _, _, b':', _, _] => minutes,
                [b'-', _, _, b':', _, _] => -minutes,
                _ => return None,
            }
        }
    };
    // Days since 1970, with the year begun in March so that the leap day is its last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let since = days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(since).ok()?))
}

/// A number of units as a span; `None` for what is negative, not finite or no number.
pub(crate) fn seconds(text: &str, unit: f64) -> Option<Duration> {
    let number = text.trim().parse::<f64>().ok()?;
    if !number.is_finite() || number.is_sign_negative() && number != 0.0 {
        return None;
    }
    // Cut before the conversion, which panics on a number that does not fit.
    Some(Duration::from_secs_f64((number.abs() * unit).min(LONGEST_WAIT.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "Tue, 24 Nov 2026 06:00:00 GMT";

    fn wait(headers: &[(&str, &str)]) -> Option<Duration> {
        let wall = httpdate::parse_http_date(NOW).unwrap();
        retry_after(&headers.iter().copied().collect(), wall)
    }

    #[test]
    fn the_more_exact_header_wins_and_names_have_no_case() {
        let ms = Duration::from_millis;
        assert_eq!(wait(&[("retry-after", "2"), ("retry-after-ms", "1500")]), Some(ms(1500)));
        assert_eq!(wait(&[("X-MS-Retry-After-MS", "250"), ("retry-after", "2")]), Some(ms(250)));
        assert_eq!(wait(&[("Retry-After", " 0.5 ")]), Some(ms(500)));
        assert_eq!(wait(&[("retry-after-ms", "soon"), ("retry-after", "7")]), Some(ms(7000)));
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn a_date_is_measured_against_the_clock_handed_in() {
        let date = "Tue, 24 Nov 2026 06:00:42 GMT";
        assert_eq!(wait(&[("retry-after", date)]), Some(Duration::from_secs(42)));
        let past = "Tue, 24 Nov 2026 05:00:00 GMT";
        assert_eq!(wait(&[("retry-after", past)]), Some(Duration::ZERO));
    }

    #[test]
    fn an_empty_window_hints_at_when_it_is_full_again() {
        let wall = httpdate::parse_http_date(NOW).unwrap();
        let hint = |headers: &[(&str, &str)]| reset_hint(&headers.iter().copied().collect(), wall);
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("1s", Some(ms(1000))),
            ("6m0s", Some(ms(360_000))),
            ("20ms", Some(ms(20))),
            ("1h1m1.5s", Some(ms(3_661_500))),
            ("12", Some(ms(12_000))),
            ("90d", Some(LONGEST_WAIT)),
            ("", None),
            ("s", None),
            ("5", Some(ms(5000))),
            ("5x", None),
            ("-5s", None),
            ("NaN", None),
        ] {
            assert_eq!(hint(&[("X-RateLimit-Reset-Requests", text)]), expected, "{text}");
        }
        for (text, expected) in [
            ("2026-11-24T06:00:42Z", Some(ms(42_000))),
            ("2026-11-24T06:00:42.25Z", Some(ms(42_000))),
            ("2026-11-24T07:01:00+01:00", Some(ms(60_000))),
            ("2026-11-24T01:01:00-05:00", Some(ms(60_000))),
            ("2026-11-24T05:00:00Z", Some(ms(0))),
            ("2100-03-01T00:00:00Z", Some(LONGEST_WAIT)),
            ("2026-11-24", None),
            ("2026-13-24T06:00:42Z", None),
            ("2026-11-24T06:00:42", None),
            ("soon", None),
            ("2026-11-24T06:00:42é", None),
        ] {
            assert_eq!(hint(&[("anthropic-ratelimit-tokens-reset", text)]), expected, "{text}");
        }
        // A window that is not empty is not why; of those that are, the last to fill counts.
        let both = [
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-tokens", "9s"),
            ("x-ratelimit-remaining-tokens", "17"),
        ];
        assert_eq!(hint(&both), Some(ms(1000)));
        assert_eq!(hint(&both[..3]), Some(ms(9000)));
    }

    #[test]
    fn a_date_is_the_same_as_in_the_other_notation() {
        for (ours, other) in [
            ("1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("2000-02-29T12:30:01Z", "Tue, 29 Feb 2000 12:30:01 GMT"),
            ("2024-03-01T00:00:00Z", "Fri, 01 Mar 2024 00:00:00 GMT"),
            ("2026-12-31T23:59:59Z", "Thu, 31 Dec 2026 23:59:59 GMT"),
        ] {
            assert_eq!(timestamp(ours), httpdate::parse_http_date(other).ok(), "{ours}");
        }
    }

    #[test]
    fn nonsense_is_passed_over_and_the_absurd_is_cut() {
        for nonsense in ["-1", "NaN", "inf", "-inf", "", "tomorrow", "1e", "-0.5", "0x10"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
        for absurd in ["1e300", "99999999999999999999", "86401"] {
            assert_eq!(wait(&[("retry-after", absurd)]), Some(LONGEST_WAIT), "{absurd}");
        }
        let far = "Sat, 06 Nov 2094 08:49:37 GMT";
        assert_eq!(wait(&[("retry-after", far)]), Some(LONGEST_WAIT));
        assert_eq!(wait(&[("retry-after", "-0")]), Some(Duration::ZERO));
    }
}
