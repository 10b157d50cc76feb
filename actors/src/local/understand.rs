//! What a message is about: its language, what its writer wants, and which order it names.

use std::sync::LazyLock;

use super::keywords::LISTS;
use super::order;
use super::text::{fold, has_amount, sentences, words};
use super::{Intent, Language, Understood};

/// How many words may stand between "don't want" and what is not wanted.
const UNLESS_REACH: usize = 2;
/// So many bytes of a message are read: every list is looked for in all of them.
const READ: usize = 16 * 1024;

struct Pattern {
    parts: Vec<Part>,
}

struct Part {
    text: String,
    /// Only at the beginning of a word.
    edge: bool,
}

impl Pattern {
    fn read(entry: &str, joined: bool) -> Self {
        let part = |entry: &str| {
            let inside = joined || entry.starts_with('~');
            let text = fold(entry.trim_start_matches('~')).replace('_', " ");
            Part { text: if inside { text } else { format!(" {text}") }, edge: !inside }
        };
        Self { parts: entry.split('+').map(part).collect() }
    }

    /// Where the pattern ends its first match in a sentence of words; for one with several parts,
    /// where the first part is.
    fn find(&self, words: &str) -> Option<usize> {
        let all = self.parts.iter().all(|part| words.contains(&part.text));
        let first = self.parts.first()?;
        if all { words.find(&first.text).map(|at| at + usize::from(first.edge)) } else { None }
    }
}

struct Compiled {
    language: Language,
    common: Vec<String>,
    human: Vec<Pattern>,
    refund: Vec<Pattern>,
    status: Vec<Pattern>,
    question: Vec<Pattern>,
    praise: Vec<Pattern>,
    unless: Vec<Pattern>,
    back: Vec<Pattern>,
}

static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    let lists = LISTS.iter().map(|lists| {
        let joined = lists.language.is_joined();
        let read =
            |list: &'static str| entries(list).map(|entry| Pattern::read(entry, joined)).collect();
        Compiled {
            language: lists.language,
            common: entries(lists.common).map(|word| format!(" {word} ")).collect(),
            human: read(lists.human),
            refund: read(lists.refund),
            status: read(lists.status),
            question: read(lists.question),
            praise: read(lists.praise),
            unless: read(lists.unless),
            back: read(lists.back),
        }
    });
    lists.collect()
});

/// Attempts to steer are looked for in every language, whichever the message is in.
static STEERING: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let patterns = LISTS.iter().flat_map(|lists| {
        let joined = lists.language.is_joined();
        entries(lists.steering).map(move |entry| Pattern::read(entry, joined))
    });
    patterns.collect()
});

fn entries(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split('|').filter(|entry| !entry.is_empty())
}

fn any(patterns: &[Pattern], words: &str) -> bool {
    patterns.iter().any(|pattern| pattern.find(words).is_some())
}

/// Reads a message, as far as a person would.
pub(super) fn understand(text: &str) -> Understood {
    let end = (0..=READ.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let text = &text[..end.unwrap_or_default()];
    let folded: Vec<String> = sentences(text).into_iter().map(fold).collect();
    let all: Vec<String> = folded.iter().map(|sentence| words(sentence)).collect();
    let kept: Vec<usize> = (0..all.len()).filter(|&index| !any(&STEERING, &all[index])).collect();
    let steered = kept.len() < all.len();
    let language = language(text, &all.concat());
    let order = order::find(text);
    // People mix English into everything.
    let lists: Vec<&Compiled> = COMPILED
        .iter()
        .filter(|lists| lists.language == language || lists.language == Language::En)
        .collect();
    let wants = |pick: fn(&Compiled) -> &[Pattern]| {
        kept.iter().any(|&index| {
            lists.iter().any(|lists| {
                clauses(&folded[index]).any(|clause| wanted(pick(lists), &lists.unless, &clause))
            })
        })
    };
    let says = |pick: fn(&Compiled) -> &[Pattern]| {
        kept.iter().any(|&index| lists.iter().any(|lists| any(pick(lists), &all[index])))
    };
    let sum_back = || {
        kept.iter().any(|&index| {
            has_amount(&folded[index]) && lists.iter().any(|lists| any(&lists.back, &all[index]))
        })
    };
    let intent = if wants(|lists| &lists.human) {
        Intent::Human
    } else if wants(|lists| &lists.refund) || sum_back() {
        Intent::Refund
    } else if says(|lists| &lists.praise) || order.is_none() && says(|lists| &lists.question) {
        Intent::Other
    } else if says(|lists| &lists.status) || order.is_some() && !steered {
        Intent::Status
    } else {
        Intent::Other
    };
    Understood { language, intent, order }
}

/// A negation reaches to the next comma or dash.
fn clauses(folded: &str) -> impl Iterator<Item = String> + '_ {
    folded.split([',', '、', '，', '،', ':', '(', ')']).map(words)
}

/// Whether one of the patterns is there without "don't want" or the like shortly before it.
fn wanted(patterns: &[Pattern], unless: &[Pattern], clause: &str) -> bool {
    patterns.iter().filter_map(|pattern| pattern.find(clause)).any(|at| {
        let before = &clause[..at];
        let voided = unless.iter().any(|unless| {
            let Some(part) = unless.parts.first() else { return false };
            let Some(found) = before.rfind(&part.text) else { return false };
            let between = before[found + part.text.len()..].split_whitespace().count();
            between <= UNLESS_REACH
        });
        !voided
    })
}

/// The language of a text: by its script; in Latin letters by its commonest words and its special
/// letters. English when nothing speaks for another.
fn language(text: &str, words: &str) -> Language {
    let count = |range: fn(char) -> bool| text.chars().filter(|c| range(*c)).count();
    let letters = count(char::is_alphabetic).max(1);
    let most = |range: fn(char) -> bool| count(range) * 3 > letters;
    if count(|c| ('\u{3040}'..='\u{30ff}').contains(&c)) * 10 > letters {
        return Language::Ja;
    }
    if most(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)) {
        return Language::Zh;
    }
    if most(|c| ('\u{0400}'..='\u{04ff}').contains(&c)) {
        return Language::Ru;
    }
    if most(|c| ('\u{0600}'..='\u{06ff}').contains(&c)) {
        return Language::Ar;
    }
    if most(|c| ('\u{0900}'..='\u{097f}').contains(&c)) {
        return Language::Hi;
    }
    let lower = text.to_lowercase();
    let special = |letters: &str| lower.chars().filter(|c| letters.contains(*c)).count() * 2;
    let mut best = (Language::En, 0);
    for lists in COMPILED.iter().filter(|lists| !lists.common.is_empty()) {
        let common: usize =
            lists.common.iter().map(|word| words.matches(word.as_str()).count()).sum();
        // A word of the trade speaks for its language as well.
        let trade = [&lists.human, &lists.refund, &lists.status]
            .into_iter()
            .flatten()
            .filter(|pattern| pattern.find(words).is_some())
            .count();
        let letters = special(match lists.language {
            Language::De => "äöüß",
            Language::Fr => "éèêàùçœ",
            Language::Es => "ñ¿¡áíóú",
            Language::Pt => "ãõçáéê",
            Language::It => "òàèìù",
            Language::Pl => "łąęśżźćń",
            Language::Tr => "ğışİ",
            _ => "",
        });
        let score = 2 * common + trade + letters.min(8);
        if score > best.1 {
            best = (lists.language, score);
        }
    }
    best.0
}
