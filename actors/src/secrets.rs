//! What must never be shown, and how it is taken out of what others say.
//!
//! *Invariant.* No text that went through [`Secrets::hide`] holds a secret, or a part of one that would
//! be of use: a message that quotes a key may have been cut in the middle of it.

use std::collections::HashSet;
use std::fmt;

use mainstay::fault::Fault;
use reqwest::Url;

use crate::chat::{ChatReply, Finish};
use crate::http;

/// What replaces a secret in a text.
const HIDDEN: &str = "[key]";
/// The shortest part of a URL that is taken for a secret, and of a secret that is hidden, in bytes.
const SHORTEST: usize = 6;
/// A part of this length is hidden however long the secret is. Providers themselves show some letters
/// of a key, so that people know which one is meant.
const PART: usize = 12;

/// The shortest secret that is taken out of good answers, in bytes: what is shorter is no key but a word
/// that a local server is given in the place of one, and an answer may well have it.
const KEY: usize = 16;

/// Keys, tokens, and what else must not be shown.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

/// Whether what goes by this name, a variable or a part of a URL's query, is a secret. What is none is a path,
/// a version, a region: an answer without it would be a wrong one.
pub(crate) fn is_name_of_secret(name: &str) -> bool {
    /// What such a name has in it.
    const PARTS: [&str; 7] =
        ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "BEARER", "SIGNATURE"];
    /// What one of its words is.
    const WORDS: [&str; 8] =
        ["AUTH", "AUTHORIZATION", "CODE", "COOKIE", "DSN", "OAUTH", "PAT", "SIG"];
    let name = name.to_ascii_uppercase();
    let mut words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    match words.clone().next_back() {
        // Where the secret is, and not what.
        Some("PATH" | "FILE" | "DIR") => false,
        // Alone it is the folder that a process works in.
        Some("PWD") if name.len() > 3 => true,
        _ => {
            PARTS.iter().any(|part| name.contains(part))
                || words.any(|word| WORDS.contains(&word))
                || name.contains("CONNECTION_STRING")
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.0.len()).finish()
    }
}

impl Secrets {
    /// A key, and what a URL may hold of secrets.
    pub(crate) fn new(key: Option<&str>, url: &Url) -> Self {
        let mut secrets = Self(key.map(str::to_owned).into_iter().collect());
        // As they stand in the URL, too, which a server may quote. What has no name may be one.
        let pairs = url.query().unwrap_or_default().split('&');
        for (pair, (name, value)) in pairs.filter(|pair| !pair.is_empty()).zip(url.query_pairs()) {
            match pair.split_once('=') {
                None => {
                    secrets.add(pair);
                    secrets.add(&name);
                }
                Some((_, written)) if is_name_of_secret(&name) => {
                    secrets.add(written);
                    secrets.add(&value);
                }
                Some(_) => {}
            }
        }
        secrets.add(url.password().unwrap_or_default());
        // What is on the way may quote what it was given.
        http::proxy_secrets().iter().for_each(|secret| secrets.add(secret));
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

impl Secrets {
    /// A good answer's text without the keys that it quotes in full.
    pub(crate) fn clean(&self, text: &mut String) {
        if self.find(text).is_some() {
            let mut veil = Veil::default();
            let mut clean = veil.push(self, std::mem::take(text));
            clean.push_str(&veil.rest());
            *text = clean;
        }
    }

    /// A good answer without the keys that it quotes in full.
    pub(crate) fn cleaned(&self, mut reply: ChatReply) -> ChatReply {
        self.clean(&mut reply.text);
        self.clean(&mut reply.model);
        if let Finish::Other(why) = &mut reply.finish {
            self.clean(why);
        }
        for call in &mut reply.tool_calls {
            self.clean(&mut call.id);
            self.clean(&mut call.name);
            self.clean(&mut call.arguments);
        }
        reply
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str).filter(|key| key.len() >= KEY)
    }

    /// The first key in the text: where, and how long.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        self.keys().filter_map(|key| Some((text.find(key)?, key.len()))).min()
    }

    /// How much of the end of a text may be the beginning of a key.
    fn begun(&self, text: &str) -> usize {
        let begun = |key: &str| {
            let longest = text.len().min(key.len() - 1);
            (1..=longest)
                .rev()
                .find(|&length| key.is_char_boundary(length) && text.ends_with(&key[..length]))
        };
        self.keys().filter_map(begun).max().unwrap_or(0)
    }
}

/// Takes keys out of an answer as it comes, piece by piece: what may be the beginning of a key is held
/// back until it is known.
#[derive(Default)]
pub(crate) struct Veil {
    held: String,
}

impl Veil {
    /// What can be shown after this piece.
    pub(crate) fn push(&mut self, secrets: &Secrets, piece: String) -> String {
        let mut text = match self.held.is_empty() {
            true => piece,
            false => std::mem::take(&mut self.held) + &piece,
        };
        let mut shown = String::new();
        while let Some((at, length)) = secrets.find(&text) {
            shown.push_str(&text[..at]);
            shown.push_str(HIDDEN);
            text.drain(..at + length);
        }
        self.held = text.split_off(text.len() - secrets.begun(&text));
        if shown.is_empty() { text } else { shown + &text }
    }

    /// The answer is over: what was held back was the beginning of nothing.
    pub(crate) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
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
    fn a_key_is_taken_out_of_good_answers_wherever_they_are_cut_into_pieces() {
        let url = Url::parse("http://host").unwrap();
        let secrets = Secrets::new(Some(KEY), &url);
        for text in [
            format!("your key is {KEY}, {KEY}{KEY} or {}", &KEY[..9]),
            KEY.to_owned(),
            format!("sk-sk-{KEY} ä {}", &KEY[..18]),
            "no key at all".to_owned(),
        ] {
            let mut clean = text.clone();
            secrets.clean(&mut clean);
            assert_eq!(clean, text.replace(KEY, HIDDEN));
            for size in 1..text.len() {
                let mut veil = Veil::default();
                let (mut shown, mut piece) = (String::new(), String::new());
                for letter in text.chars() {
                    piece.push(letter);
                    if piece.len() >= size {
                        shown.push_str(&veil.push(&secrets, std::mem::take(&mut piece)));
                    }
                }
                shown.push_str(&veil.push(&secrets, piece));
                shown.push_str(&veil.rest());
                assert_eq!(shown, clean, "in pieces of {size}");
            }
        }
        // What a local server is given for a key is a word like others.
        let mut said = "this is ollama".to_owned();
        Secrets::new(Some("ollama"), &url).clean(&mut said);
        assert_eq!(said, "this is ollama");
    }

    #[test]
    fn a_secret_is_known_by_its_name() {
        for name in [
            "OPENAI_API_KEY",
            "GITHUB_TOKEN",
            "GITHUB_PAT",
            "DB_PASSWORD",
            "DB_PWD",
            "apiKey",
            "sig",
            "X-Amz-Signature",
            "AUTH",
            "HTTP_AUTHORIZATION",
            "AWS_SECRET_ACCESS_KEY",
            "PG_DSN",
            "AZURE_STORAGE_CONNECTION_STRING",
            "code",
            "access_token",
        ] {
            assert!(is_name_of_secret(name), "{name}");
        }
        for name in [
            "",
            "ROOT",
            "MEMORY_FILE_PATH",
            "ALLOWED_DIR",
            "PWD",
            "GIT_AUTHOR_EMAIL",
            "SSH_KEY_PATH",
            "api-version",
            "PATH",
            "PYTHONPATH",
            "REGION",
            "TOKEN_FILE",
            "ENCODING",
            "project",
        ] {
            assert!(!is_name_of_secret(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_secret_of_a_url_is_left_in_faults_and_answers() {
        let url = "http://h/?api-version=2024-10-01-preview&&to%6ben=se%63ret-0123456789&capability-0123456789";
        let secrets = Secrets::new(None, &Url::parse(url).unwrap());
        let said = "2024-10-01-preview secret-0123456789 se%63ret-0123456789 capability-0123456789";
        let expected = "2024-10-01-preview [key] [key] [key]";
        let mut clean = said.to_owned();
        secrets.clean(&mut clean);
        assert_eq!(clean, expected);
        let fault = secrets.hide(Fault::permission(said));
        assert!(fault.message.starts_with("2024-10-01-preview "), "{fault:?}");
        assert!(!fault.message.contains("0123"), "{fault:?}");
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
