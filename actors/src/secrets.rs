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

pub(crate) use named::is_name_of_secret;

mod named;

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
/// So many letters before a number tell whether it begins there.
const BEFORE: usize = 6;
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
    /// It is made of digits alone: a longer number that has them in it is another one.
    is_number: bool,
}

/// How the beginning of a text is to be read.
enum Spelled {
    Otherwise,
    /// It ends before that can be said.
    Perhaps,
    /// As the secret, in so many bytes.
    So(usize),
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

/// Whether a number goes on behind these texts, which follow each other. Where a letter is written by its number, those
/// digits are no part of one.
fn is_within_number(before: [&str; 2]) -> bool {
    let mut last = ['\0'; BEFORE];
    let letters = before.into_iter().rev().flat_map(|text| text.chars().rev());
    last.iter_mut().zip(letters).for_each(|(place, letter)| *place = letter);
    let is_code = |digits: usize| last[..digits].iter().all(char::is_ascii_hexdigit);
    last[0].is_ascii_digit()
        && match last {
            [_, _, '%', ..] | [_, _, 'x', '\\', ..] => !is_code(2),
            [_, _, _, _, 'u', '\\'] => !is_code(4),
            _ => true,
        }
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
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        Self { text: text.to_owned(), letters, is_key: is_key(text), is_number }
    }

    /// Whether a text that begins with this byte can begin with it.
    fn may_begin(&self, byte: u8) -> bool {
        byte == b'\\' || self.text.as_bytes()[0].eq_ignore_ascii_case(&byte)
    }

    /// Whether it stands here, behind these texts: as [`Secret::spelled`], and as a number of its own if it is one.
    fn stands(&self, before: [&str; 2], text: &str, more: bool) -> Spelled {
        if self.is_number && is_within_number(before) {
            return Spelled::Otherwise;
        }
        match self.spelled(text, more) {
            Spelled::So(length) if self.is_number => match text.as_bytes().get(length) {
                Some(byte) if byte.is_ascii_digit() => Spelled::Otherwise,
                None if more => Spelled::Perhaps,
                _ => Spelled::So(length),
            },
            spelled => spelled,
        }
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
        secrets.add_login(url);
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

    /// What goes by this name, which says that it is a secret: all of it, or what of an address is one.
    pub(crate) fn add_named(&mut self, name: &str, value: &str) {
        match named::Value::of(name, value) {
            named::Value::Path => {}
            named::Value::Address(url) => self.add_login(&url),
            named::Value::Secret => {
                self.add(value);
                // Of a connection's address the password may be quoted alone.
                Url::parse(value).iter().for_each(|url| self.add_login(url));
            }
        }
    }

    /// Those among the arguments of a program, and who logs in by the addresses among them.
    pub(crate) fn of_arguments(arguments: &[String]) -> Self {
        let mut secrets = Self::default();
        for (name, value) in named::in_arguments(arguments.iter().map(String::as_str)) {
            secrets.add_named(name, value);
        }
        for argument in arguments {
            Url::parse(argument).iter().for_each(|url| secrets.add_login(url));
        }
        secrets
    }

    /// Who logs in by this URL: the password, or a token in the place of both.
    pub(crate) fn add_login(&mut self, url: &Url) {
        let login = match url.password() {
            Some(password) => password,
            None if is_key(url.username()) => url.username(),
            None => return,
        };
        self.add(login);
        let plain = http::decoded(login);
        if plain != login.as_bytes() {
            self.add(&String::from_utf8_lossy(&plain));
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
        let has_any = self.find("", text, false).is_some();
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
        if self.find("", text, false).is_none() {
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
            Value::Number(number) if self.find("", &number.to_string(), false).is_some() => {
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
    /// also where one may begin. `before` it something was said.
    fn find(&self, before: &str, text: &str, more: bool) -> Option<(usize, Option<usize>)> {
        if !self.0.iter().any(|secret| secret.is_key) {
            return None;
        }
        text.bytes().enumerate().find_map(|(at, byte)| {
            let mut longest = None;
            for key in self.0.iter().filter(|secret| secret.is_key && secret.may_begin(byte)) {
                match key.stands([before, &text[..at]], &text[at..], more) {
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
    /// The last letters before it.
    before: String,
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
        while let Some((at, length)) = secrets.find(&self.before, rest, more) {
            shown.push_str(&rest[..at]);
            self.comes_after(&rest[..at]);
            rest = &rest[at..];
            let Some(length) = length else {
                self.held = rest.to_owned();
                return shown;
            };
            shown.push_str(HIDDEN);
            self.comes_after(HIDDEN);
            rest = &rest[length..];
        }
        self.comes_after(rest);
        if rest.len() == text.len() { text } else { shown + rest }
    }

    fn comes_after(&mut self, shown: &str) {
        let last = |text: &str| text.char_indices().rev().nth(BEFORE - 1).map_or(0, |(at, _)| at);
        self.before.push_str(&shown[last(shown)..]);
        let end = last(&self.before);
        self.before.drain(..end);
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
        if said.get(at..at + part).is_some_and(|window| parts.contains(window))
            && (!secret.is_number || is_part(text, at, &secret.text))
        {
            covered[at..at + part].fill(true);
        }
        if secret.may_begin(byte)
            && let Spelled::So(length) = secret.stands(["", &text[..at]], &text[at..], false)
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

/// Whether the number that goes through this place of a text is a part of one that is a secret, and not another.
fn is_part(text: &str, at: usize, secret: &str) -> bool {
    let is_other = |letter: char| !letter.is_ascii_digit();
    let begins =
        text[..at].char_indices().rev().take_while(|(_, letter)| !is_other(*letter)).last();
    let begins = begins.map_or(at, |(begins, _)| begins);
    let begins = if is_within_number([&text[..at], ""]) { begins } else { at };
    let number = &text[begins..];
    secret.contains(&number[..number.find(is_other).unwrap_or(number.len())])
}

#[cfg(test)]
mod tests;
