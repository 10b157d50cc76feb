//! What must never be shown, and how it is taken out of what others say.
//!
//! *Invariant.* No text that went through [`Secrets::hide`] holds a secret, or a part of one that would
//! be of use: a message that quotes a key may have been cut in the middle of it.

use std::collections::HashSet;
use std::fmt;

use mainstay::fault::Fault;
use reqwest::Url;

/// What replaces a secret in a text.
const HIDDEN: &str = "[key]";
/// The shortest part of a URL that is taken for a secret, and of a secret that is hidden, in bytes.
const SHORTEST: usize = 6;
/// A part of this length is hidden however long the secret is. Providers themselves show some letters
/// of a key, so that people know which one is meant.
const PART: usize = 12;

/// Keys, tokens, and what else must not be shown.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.0.len()).finish()
    }
}

impl Secrets {
    /// A key, and what a URL may hold of secrets.
    pub(crate) fn new(key: Option<&str>, url: &Url) -> Self {
        let mut secrets = Self(key.map(str::to_owned).into_iter().collect());
        for (_, value) in url.query_pairs() {
            secrets.add(&value);
        }
        secrets.add(url.password().unwrap_or_default());
        secrets
    }

    /// One more, unless it is too short to be one.
    pub(crate) fn add(&mut self, secret: &str) {
        if secret.len() >= SHORTEST {
            self.0.push(secret.to_owned());
        }
    }

    /// The fault without secrets. Providers quote keys in their messages, some in full.
    pub(crate) fn hide(&self, mut fault: Fault) -> Fault {
        for secret in &self.0 {
            if let Some(clean) = without(&fault.message, secret) {
                fault.message = clean.into();
            }
            if fault.code.as_ref().is_some_and(|code| without(code, secret).is_some()) {
                fault.code = Some("hidden".into());
            }
        }
        fault
    }
}

/// The text without the secret and its parts; `None` if it has none.
fn without(text: &str, secret: &str) -> Option<String> {
    let part = (secret.len() / 2).clamp(SHORTEST, PART).min(secret.len());
    let parts: HashSet<&[u8]> = secret.as_bytes().windows(part.max(1)).collect();
    let mut clean = Vec::new();
    // Up to where the text is done with, and up to where it is secret.
    let (mut done, mut covered) = (0, 0);
    for (at, window) in text.as_bytes().windows(part.max(1)).enumerate() {
        if !parts.contains(window) {
            continue;
        }
        if covered == 0 || at > covered {
            clean.extend_from_slice(&text.as_bytes()[done..at]);
            clean.extend_from_slice(HIDDEN.as_bytes());
        }
        covered = at + window.len();
        done = covered;
    }
    (covered > 0).then(|| {
        clean.extend_from_slice(&text.as_bytes()[done..]);
        // A part may end within a letter.
        String::from_utf8_lossy(&clean).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-7f3a9c5e1b2d4f60";

    fn hidden(message: &str) -> String {
        let url = Url::parse("http://user:pass-word@host/v1?api-version=1&key=in-the-url").unwrap();
        Secrets::new(Some(KEY), &url).hide(Fault::permission(message.to_owned())).message.into()
    }

    #[test]
    fn a_secret_is_hidden_whole_and_however_it_was_cut() {
        assert_eq!(hidden(&format!("bad {KEY}, {KEY}{KEY}")), "bad [key], [key]");
        for end in 1..KEY.len() {
            let (head, tail) = KEY.split_at(end);
            for part in [head, tail] {
                let shown = hidden(&format!("é {part}…"));
                let expected = if part.len() >= KEY.len() / 2 { "[key]" } else { part };
                assert_eq!(shown, format!("é {expected}…"));
            }
        }
        assert_eq!(hidden("at in-the-url with pass-word, 1"), "at [key] with [key], 1");
    }

    #[test]
    fn what_is_no_secret_is_left_as_it_is() {
        for text in ["", "sk-", "a key such as sk-...4f60", "1", "schlüssel"] {
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn a_code_that_holds_a_part_of_a_secret_is_hidden() {
        let url = Url::parse("http://host").unwrap();
        let fault = Fault::permission("").with_code(KEY[..12].to_owned());
        let fault = Secrets::new(Some(KEY), &url).hide(fault);
        assert_eq!(fault.code.as_deref(), Some("hidden"));
    }

    #[test]
    fn a_secret_of_letters_that_take_two_bytes_is_hidden() {
        let mut secrets = Secrets::default();
        secrets.add("äöüäöüß");
        let fault = secrets.hide(Fault::permission("so äöüäöüß it is"));
        assert_eq!(fault.message, "so [key] it is");
    }
}
