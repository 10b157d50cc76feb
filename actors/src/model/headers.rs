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

fn seconds(text: &str, unit: f64) -> Option<Duration> {
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
