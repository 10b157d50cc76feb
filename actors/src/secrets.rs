//! What must never be shown, and how it is taken out of what others say.
//!
//! *Invariant.* No text that went through [`Secrets::hide`] holds a secret, or a part of one that would
//! be of use: a message that quotes a key may have been cut in the middle of it.

use std::collections::HashSet;
use std::fmt;

use mainstay::fault::Fault;
use reqwest::Url;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::chat::{ChatReply, Finish};
use crate::http;

/// What replaces a secret in a text.
const HIDDEN: &str = "[key]";
/// The shortest part of a URL that is taken for a secret, and of a secret that is hidden, in bytes.
const SHORTEST: usize = 6;
/// A part of this length is hidden however long the secret is. Providers themselves show some letters
/// of a key, so that people know which one is meant.
const PART: usize = 12;

/// A secret of so many bytes is taken out of good answers, too, whatever it is made of.
const KEY: usize = 16;
/// One of so many is, if it is no word that an answer may well have: see [`is_key`].
const SHORT_KEY: usize = 8;
/// How many different characters such a one has at least: `00000000` stands in many an answer.
const VARIETY: usize = 5;
/// How many backslashes JSON writes before what it quotes; there are twice as many in each text within a text.
const SLASHES: usize = 64;

/// Keys, tokens, and what else must not be shown.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<Secret>);

#[derive(Clone)]
struct Secret {
    text: String,
    /// Its characters, each with the number of backslashes before it; those at its end are before none.
    letters: Vec<(usize, Option<char>)>,
    is_key: bool,
}

/// How the beginning of a text is to be read.
enum Spelled {
    Otherwise,
    /// It ends before that can be said.
    Perhaps,
    /// As the secret, in so many bytes.
    So(usize),
}

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

/// Whether good answers are rid of a secret. What a local server is given in the place of a key is `ollama` or
/// `not-needed`, and an answer without such a word would be another one.
fn is_key(secret: &str) -> bool {
    let differ = || secret.chars().collect::<HashSet<_>>().len() >= VARIETY;
    secret.len() >= KEY || secret.len() >= SHORT_KEY && !is_words(secret) && differ()
}

/// Whether it is made of words: letters of one case, but for the first, and what joins words.
fn is_words(text: &str) -> bool {
    text.split(['-', '_', '.', ':', '/', ' ']).all(|word| {
        let small = word.chars().skip(1).all(|letter| !letter.is_uppercase());
        let large = word.chars().all(|letter| !letter.is_lowercase());
        word.chars().all(char::is_alphabetic) && (small || large)
    })
}

/// How many of a run of backslashes spell those at the end of a secret: what else is in it belongs to the quote that
/// follows. `None` if there are too few.
fn own_of(slashes: usize, run: usize, after: &str) -> Option<usize> {
    let quotes = after.starts_with('"');
    let is_all = |level: &usize| {
        let own = slashes << level;
        run == own || quotes && run + 1 == own + (1 << level)
    };
    // As deep as that is looked for.
    let level = (0..=SLASHES.ilog2() as usize).rev().find(is_all);
    let level = level.unwrap_or(usize::from(run >= 2 * slashes));
    Some(slashes << level).filter(|own| *own <= run)
}

impl Secret {
    fn new(text: &str) -> Self {
        let (mut letters, mut slashes) = (Vec::new(), 0);
        for letter in text.chars() {
            if letter == '\\' {
                slashes += 1;
            } else {
                letters.push((std::mem::take(&mut slashes), Some(letter)));
            }
        }
        if slashes > 0 {
            letters.push((slashes, None));
        }
        Self { text: text.to_owned(), letters, is_key: is_key(text) }
    }

    /// Whether a text that begins with this byte can begin with it.
    fn may_begin(&self, byte: u8) -> bool {
        byte == b'\\' || self.text.as_bytes()[0].eq_ignore_ascii_case(&byte)
    }

    /// Whether the text begins with it: as it is, in larger or smaller letters, and as JSON quotes it, also where
    /// that is quoted again. `more` of the text may come.
    fn spelled(&self, text: &str, more: bool) -> Spelled {
        let mut rest = text;
        for &(slashes, letter) in &self.letters {
            let run =
                rest.bytes().take(SLASHES + slashes + 1).take_while(|byte| *byte == b'\\').count();
            let after = &rest[run..];
            let perhaps = after.is_empty() && more && run <= SLASHES + slashes;
            let Some(letter) = letter else {
                match own_of(slashes, run, after) {
                    _ if perhaps => return Spelled::Perhaps,
                    Some(own) => rest = &rest[own..],
                    None => return Spelled::Otherwise,
                }
                continue;
            };
            if run > SLASHES + slashes {
                return Spelled::Otherwise;
            }
            let Some(first) = after.chars().next() else {
                return if perhaps { Spelled::Perhaps } else { Spelled::Otherwise };
            };
            let is_quoted = slashes > 0 || matches!(letter, '"' | '/');
            if run >= slashes
                && first.eq_ignore_ascii_case(&letter)
                && (run == slashes || is_quoted)
            {
                rest = &after[first.len_utf8()..];
                continue;
            }
            // Some write more than quotes by its number.
            let Some(digits) = after.strip_prefix('u').filter(|_| run > slashes) else {
                return Spelled::Otherwise;
            };
            match digits.get(..4).map(|digits| u32::from_str_radix(digits, 16)) {
                Some(Ok(number))
                    if char::from_u32(number)
                        .is_some_and(|it| it.eq_ignore_ascii_case(&letter)) =>
                {
                    rest = &digits[4..];
                }
                None if digits.len() < 4 && more => return Spelled::Perhaps,
                _ => return Spelled::Otherwise,
            }
        }
        Spelled::So(text.len() - rest.len())
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
        let mut secrets =
            Self(key.filter(|key| !key.is_empty()).map(Secret::new).into_iter().collect());
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
            self.0.push(Secret::new(secret));
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

    /// A good answer's text without the keys that it quotes in full. Whether it had any.
    pub(crate) fn clean(&self, text: &mut String) -> bool {
        let has_any = self.find(text, false).is_some();
        if has_any {
            let mut veil = Veil::default();
            let mut clean = veil.push(self, std::mem::take(text));
            clean.push_str(&veil.rest(self));
            *text = clean;
        }
        has_any
    }

    /// As [`Secrets::clean`], of a text that is JSON, if it is: it stays that, also where a number was a key.
    pub(crate) fn clean_json(&self, text: &mut String) -> bool {
        if self.find(text, false).is_none() {
            return false;
        }
        let value = serde_json::from_str::<Value>(text);
        self.clean(text);
        if let Ok(mut value) = value
            && serde_json::from_str::<IgnoredAny>(text).is_err()
        {
            self.clean_value(&mut value);
            *text = value.to_string();
        }
        true
    }

    fn clean_value(&self, value: &mut Value) {
        match value {
            Value::Number(number) if self.find(&number.to_string(), false).is_some() => {
                *value = HIDDEN.into();
            }
            Value::String(text) => drop(self.clean(text)),
            Value::Array(all) => all.iter_mut().for_each(|value| self.clean_value(value)),
            Value::Object(all) => {
                let cleaned = std::mem::take(all).into_iter().map(|(mut name, mut value)| {
                    self.clean(&mut name);
                    self.clean_value(&mut value);
                    (name, value)
                });
                *all = cleaned.collect();
            }
            _ => {}
        }
    }

    /// A good answer without the keys that it quotes in full.
    pub(crate) fn cleaned(&self, mut reply: ChatReply) -> ChatReply {
        self.clean_json(&mut reply.text);
        self.clean(&mut reply.model);
        if let Finish::Other(why) = &mut reply.finish {
            self.clean(why);
        }
        for call in &mut reply.tool_calls {
            self.clean(&mut call.id);
            self.clean(&mut call.name);
            self.clean_json(&mut call.arguments);
        }
        reply
    }

    /// Where the first key is, and how long; of the longest of those that begin there. Where `more` may come,
    /// also where one may begin.
    fn find(&self, text: &str, more: bool) -> Option<(usize, Option<usize>)> {
        if !self.0.iter().any(|secret| secret.is_key) {
            return None;
        }
        text.bytes().enumerate().find_map(|(at, byte)| {
            let mut longest = None;
            for key in self.0.iter().filter(|secret| secret.is_key && secret.may_begin(byte)) {
                match key.spelled(&text[at..], more) {
                    Spelled::Perhaps => return Some((at, None)),
                    Spelled::So(length) => longest = longest.max(Some(length)),
                    Spelled::Otherwise => {}
                }
            }
            longest.map(|length| (at, Some(length)))
        })
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
        self.shown(secrets, piece, true)
    }

    /// The answer is over: what was held back is the beginning of nothing more.
    pub(crate) fn rest(&mut self, secrets: &Secrets) -> String {
        self.shown(secrets, String::new(), false)
    }

    fn shown(&mut self, secrets: &Secrets, piece: String, more: bool) -> String {
        let text = match self.held.is_empty() {
            true => piece,
            false => std::mem::take(&mut self.held) + &piece,
        };
        let (mut shown, mut rest) = (String::new(), &*text);
        while let Some((at, length)) = secrets.find(rest, more) {
            shown.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some(length) = length else {
                self.held = rest.to_owned();
                return shown;
            };
            shown.push_str(HIDDEN);
            rest = &rest[length..];
        }
        if rest.len() == text.len() { text } else { shown + rest }
    }
}

/// The text without the secret, however it is spelled, and its parts; `None` if it has none.
fn without(text: &str, secret: &Secret) -> Option<String> {
    let lower = |text: &str| text.to_ascii_lowercase().into_bytes();
    let (said, own) = (lower(text), lower(&secret.text));
    let part = (own.len() / 2).clamp(SHORTEST, PART).min(own.len());
    let parts: HashSet<&[u8]> = own.windows(part).collect();
    let mut covered = vec![false; text.len()];
    for (at, byte) in text.bytes().enumerate() {
        if said.get(at..at + part).is_some_and(|window| parts.contains(window)) {
            covered[at..at + part].fill(true);
        }
        if secret.may_begin(byte)
            && let Spelled::So(length) = secret.spelled(&text[at..], false)
        {
            covered[at..at + length].fill(true);
        }
    }
    covered.contains(&true).then(|| {
        let mut clean = Vec::with_capacity(text.len());
        let mut before = false;
        for (byte, covered) in text.bytes().zip(covered) {
            match (covered, before) {
                (false, _) => clean.push(byte),
                (true, false) => clean.extend_from_slice(HIDDEN.as_bytes()),
                (true, true) => {}
            }
            before = covered;
        }
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
                shown.push_str(&veil.rest(&secrets));
                assert_eq!(shown, clean, "in pieces of {size}");
            }
        }
    }

    #[test]
    fn good_answers_are_rid_of_what_is_a_key_by_its_length_and_its_characters() {
        let url = Url::parse("http://host").unwrap();
        for (key, hidden) in [
            ("Zq7Xw1ab", true),
            ("SECRETpart", true),
            ("SECRETpart12", true),
            ("hunter2-hunter2", true),
            ("48201937", true),
            ("pass word!", true),
            ("any-word-of-16-b", true),
            // Too short, too plain, or words, as a local server is given for a key.
            ("Zq7Xw1a", false),
            ("00000000", false),
            ("ollama", false),
            ("lm-studio", false),
            ("Not-Needed", false),
            ("NO_KEY_AT_ALL", false),
        ] {
            let mut said = format!("this is {key}.");
            let found = Secrets::new(Some(key), &url).clean(&mut said);
            assert_eq!(found, hidden, "{key}");
            assert_eq!(said.contains("[key]"), hidden, "{said}");
            assert_eq!(said.contains(key), !hidden, "{said}");
        }
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_spelled() {
        let url = Url::parse("http://host").unwrap();
        for key in [
            KEY,
            "k\"q/SECRET+part\\12x3",
            "\"begins and ends\\",
            "\\\\two\\\"of-them",
            "sch\u{fc}ssel-12",
        ] {
            let secrets = Secrets::new(Some(key), &url);
            let json = |text: &str| serde_json::Value::from(text).to_string();
            let number = |letter| match letter {
                '\\' => "\\\\".to_owned(),
                letter => format!("\\u{:04X}", u32::from(letter)),
            };
            let numbers: String = key.chars().map(number).collect();
            for spelled in [
                key.to_owned(),
                key.to_ascii_uppercase(),
                json(key),
                json(&json(key)),
                json(&json(&json(&key.to_ascii_uppercase()))),
                json(key).replace('/', "\\/").replace('+', "\\u002b"),
                numbers,
            ] {
                let said = format!("[{spelled}, {}]", json(&format!("{key} or \"not\"\\")));
                let shown = secrets.hide(Fault::permission(said.clone())).message.into_owned();
                let mut clean = said.clone();
                assert!(secrets.clean(&mut clean), "{said}");
                for shown in [shown, clean.clone()] {
                    assert_eq!(shown.matches(HIDDEN).count(), 2, "{said}: {shown}");
                    assert!(shown.ends_with(" or \\\"not\\\"\\\\\"]"), "{said}: {shown}");
                    // Nothing is left but what quotes it.
                    let left = shown.split_once(", ").unwrap().0.replace(HIDDEN, "");
                    assert!(
                        left.chars().all(|it| matches!(it, '[' | '"' | '\\')),
                        "{said}: {shown}"
                    );
                }
                // Also where it comes letter by letter.
                let mut veil = Veil::default();
                let mut shown: String =
                    said.chars().map(|letter| veil.push(&secrets, letter.into())).collect();
                shown.push_str(&veil.rest(&secrets));
                assert_eq!(shown, clean);
            }
        }
        // Of a key that another begins with, the longer is meant, if it is.
        let mut secrets = Secrets::default();
        secrets.add("key-0123456789");
        secrets.add("key-0123456789-and-more");
        for (said, clean) in
            [("a key-0123456789-and-more b", "a [key] b"), ("a key-0123456789-and", "a [key]-and")]
        {
            let mut veil = Veil::default();
            let mut shown: String =
                said.chars().map(|letter| veil.push(&secrets, letter.into())).collect();
            shown.push_str(&veil.rest(&secrets));
            assert_eq!(shown, clean);
        }
        // No text is held back for ever.
        let (mut veil, slashes) = (Veil::default(), "\\".repeat(10_000));
        let shown = veil.push(&secrets, slashes.clone());
        assert!(slashes.len() - shown.len() <= SLASHES + 1, "{}", shown.len());
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

    #[test]
    fn what_was_json_is_that_without_a_key_that_is_a_number() {
        let url = Url::parse("http://localhost").unwrap();
        let secrets = Secrets::new(Some("48201937"), &url);
        for (said, clean) in [
            (
                r#"{"account":48201937,"more":[1,"at 48201937"]}"#,
                r#"{"account":"[key]","more":[1,"at [key]"]}"#,
            ),
            (r#"{"48201937":"is it"}"#, r#"{"[key]":"is it"}"#),
            ("48201937", "\"[key]\""),
            ("it is 48201937.", "it is [key]."),
        ] {
            let mut text = said.to_owned();
            assert!(secrets.clean_json(&mut text), "{said}");
            assert_eq!(text, clean);
        }
        let mut text = "{\"a\": 4820}".to_owned();
        assert!(!secrets.clean_json(&mut text));
        assert_eq!(text, "{\"a\": 4820}");
    }
}
