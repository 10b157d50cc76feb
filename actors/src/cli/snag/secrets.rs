//! What of a tree file is a key, or may be one: it is shown nowhere, neither as it stands there nor as it is read.
//!
//! *Invariant.* Nothing is taken on the word of the reader: a file that cannot be read is looked through as well. In
//! doubt a text is hidden, which costs whoever made a slip a look into the own file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys of a tree file, less those that name a variable: what stands there is shown.
const KNOWN: [&str; 115] = [
    "above",
    "after",
    "after_retry",
    "after_rollback",
    "after_substitute",
    "agents",
    "alerts",
    "all_down",
    "answer_schema",
    "answer_tokens",
    "arguments",
    "ask",
    "at",
    "at_once",
    "attempt_timeout",
    "base_url",
    "below",
    "budget",
    "builtin",
    "checkpoint",
    "command",
    "concurrency",
    "concurrent",
    "connect_wait",
    "context_window",
    "count_defaulted",
    "data",
    "description",
    "dir",
    "documents",
    "durability",
    "durable",
    "effects",
    "entry",
    "env",
    "errors_are_transient",
    "expiry",
    "grants",
    "groups",
    "guardrail",
    "happened",
    "headers",
    "hedge",
    "hold",
    "idle_timeout",
    "input",
    "jitter_percent",
    "kind",
    "limits",
    "lines",
    "lines_every",
    "max_delay",
    "max_result_bytes",
    "max_retries",
    "max_steps",
    "max_tokens",
    "max_wait",
    "measure",
    "members",
    "min_samples",
    "model",
    "models",
    "money",
    "name",
    "not_happened",
    "objectives",
    "otherwise",
    "output",
    "owner",
    "path",
    "people",
    "period",
    "ping_timeout",
    "points",
    "policy",
    "price_cap",
    "price_per_million",
    "process_deaths",
    "profile",
    "provider",
    "quota_domain",
    "reason",
    "requests_per_minute",
    "residency",
    "response_format",
    "restarts",
    "retries",
    "schema",
    "scope",
    "severity",
    "signal",
    "start_timeout",
    "steps",
    "store",
    "strategy",
    "structured_output",
    "supervisor",
    "system",
    "temperature",
    "text",
    "time",
    "timeout",
    "token_limit",
    "tokens",
    "tokens_per_minute",
    "tool",
    "tool_rights",
    "tools",
    "trusted",
    "undo",
    "url",
    "verify",
    "watch",
    "window",
    "without",
];

/// What is hidden, the longest first.
pub(super) struct Secrets(Vec<String>);

/// The keys below which there are others.
const TABLES: [&str; 13] = [
    "ask",
    "env",
    "groups",
    "grants",
    "headers",
    "limits",
    "models",
    "people",
    "points",
    "policy",
    "store",
    "supervisor",
    "watch",
];

/// The shortest that is taken for one: shorter ones stand anywhere.
const SHORTEST: usize = 4;

/// What may stand under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// What the file is about.
    Plain,
    /// Nobody has asked for it: it may be anything.
    Odd,
    /// The name of a variable.
    Variable,
    /// By the name of the key, a secret.
    Secret,
}

impl Secrets {
    pub(super) fn of(text: &str) -> Self {
        let mut found = Self(Vec::new());
        // As far as it can be read, in whichever notation.
        let (table, _) = DeTable::parse_recoverable(text);
        found.table(text, table.get_ref(), &mut Vec::new(), Room::Plain);
        found.lines(text);
        found.arguments(text);
        text.lines().flat_map(in_addresses).for_each(|secret| found.add(secret));
        strong(text).for_each(|secret| found.add(secret));
        let Self(mut found) = found;
        found.retain(|secret| secret.chars().count() >= SHORTEST);
        found.sort_unstable_by(|a, b| (b.len(), a).cmp(&(a.len(), b)));
        found.dedup();
        Self(found)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "[key]"))
    }

    fn add(&mut self, secret: &str) {
        self.0.push(secret.to_owned());
    }

    /// A text that is one, as it is read, as a message quotes it, and as it stands in the file.
    fn hidden(&mut self, read: &str, written: &str) {
        let quoted = format!("{read:?}");
        for whole in [read, quoted.trim_matches('"'), written.trim_matches(['"', '\''])] {
            self.add(whole);
            for line in whole.lines() {
                self.add(line.trim());
                // One that goes on in the next line.
                self.add(line.trim().trim_end_matches('\\').trim_end());
                self.add(format!("{line:?}").trim_matches('"').trim());
            }
        }
    }

    fn table<'a>(
        &mut self,
        text: &str,
        table: &'a DeTable<'_>,
        way: &mut Vec<&'a str>,
        outer: Room,
    ) {
        for (name, value) in table {
            let key = name.get_ref().as_ref();
            let is_header = way.last() == Some(&"headers_env");
            let is_behind = matches!(outer, Room::Variable | Room::Secret) && !is_header;
            let is_variable = way.last() == Some(&"env") && outer == Room::Plain;
            if is_behind && is_key(key) || is_variable && !is_name_of_variable(key) {
                self.hidden(key, text.get(name.span()).unwrap_or_default());
            }
            self.strong_in(key, text.get(name.span()).unwrap_or_default());
            let room = room(way, key, outer);
            way.push(key);
            self.value(text, value, way, room);
            way.pop();
        }
    }

    fn value<'a>(
        &mut self,
        text: &str,
        value: &'a Spanned<DeValue<'_>>,
        way: &mut Vec<&'a str>,
        room: Room,
    ) {
        let written = text.get(value.span()).unwrap_or_default();
        match value.get_ref() {
            DeValue::Table(table) => self.table(text, table, way, room),
            DeValue::Array(all) => all.iter().for_each(|it| self.value(text, it, way, room)),
            DeValue::String(read) if is_hidden(read, room) => self.hidden(read, written),
            // Where a table is expected, nobody has asked for a text.
            DeValue::String(read)
                if way.last().is_some_and(|name| TABLES.contains(name))
                    && is_hidden(read, Room::Odd) =>
            {
                self.hidden(read, written);
            }
            DeValue::String(read) => self.strong_in(read, written),
            DeValue::Integer(number) if is_hidden(written, room) => {
                self.hidden(number.as_str(), written);
            }
            _ if is_hidden(written, room) => self.hidden(written, written),
            _ => {}
        }
    }

    /// What is one wherever it stands, also where the text is written in escapes.
    fn strong_in(&mut self, read: &str, written: &str) {
        for secret in strong(read) {
            if written.contains(secret) {
                self.add(secret);
            } else {
                self.hidden(secret, written);
            }
        }
    }

    /// What cannot be read, line by line: a text without quotes, or with one.
    fn lines(&mut self, text: &str) {
        let mut section: Vec<&str> = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.trim_start().strip_prefix('[') {
                let name = name.trim_start_matches('[').split(']').next().unwrap_or_default();
                section = parts(name);
                continue;
            }
            for (at, sign) in line.match_indices(['=', ':']) {
                let (before, value) = (&line[..at], &line[at + 1..]);
                // In a table on one line, there are others before it, and it stands under the names before that.
                let (mut way, mut open, mut begin) = (section.clone(), Vec::new(), 0);
                for (place, bound) in before.match_indices(['{', '}', ',']) {
                    match bound {
                        "{" => {
                            open.push(way.len());
                            way.extend(parts(
                                before[begin..place].trim_end().trim_end_matches('='),
                            ));
                        }
                        "}" => way.truncate(open.pop().unwrap_or(section.len())),
                        _ => {}
                    }
                    begin = place + 1;
                }
                let inner = &before[begin..];
                if inner.contains('=') || sign == ":" && inner.contains("://") {
                    continue;
                }
                way.extend(parts(inner));
                let Some((key, above)) = way.split_last() else { continue };
                let outer = above
                    .iter()
                    .enumerate()
                    .fold(Room::Plain, |outer, (depth, name)| room(&above[..depth], name, outer));
                let room = room(above, key, outer);
                if room == Room::Plain {
                    continue;
                }
                // What stands between quotes, of either kind, and what stands in none.
                for (index, part) in value.split(['"', '\'']).enumerate() {
                    if index % 2 == 1 {
                        if is_hidden(part, room) {
                            self.add(part);
                        }
                        continue;
                    }
                    let bare = part.split('#').next().unwrap_or_default();
                    let bare = bare.split([',', '{', '}', '[', ']']).flat_map(|it| {
                        // The names in a table are none.
                        let behind = it.split_once('=').map(|(_, behind)| behind);
                        behind.filter(|_| value.contains('{')).unwrap_or(it).split('=')
                    });
                    bare.flat_map(str::split_whitespace)
                        .filter(|part| is_hidden(part, room))
                        .for_each(|part| self.add(part));
                }
            }
        }
    }

    /// Those of a `command`, which may stand on several lines.
    fn arguments(&mut self, text: &str) {
        let quoted = text.lines().flat_map(|line| line.split(['"', '\'']).skip(1).step_by(2));
        let mut is_named = false;
        for argument in quoted {
            let bare = argument.trim_start_matches('-');
            let is_option = bare.len() < argument.len();
            let (name, value) = bare.split_once('=').unwrap_or((bare, ""));
            let value = if is_named && !is_option { argument } else { value };
            let is_behind_name = is_named && !is_option || is_option && is_secret_name(name);
            if is_behind_name && is_key(value) {
                self.add(value);
            }
            is_named = is_option && value.is_empty() && is_secret_name(name);
        }
    }
}

/// Whether what goes by this name is a key by its looks, or the name of a key's variable.
pub(crate) fn is_secret_name(name: &str) -> bool {
    const WORDS: [&str; 8] =
        ["key", "token", "bearer", "secret", "password", "env_from", "authorization", "cookie"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Whether a text may be shown where the name of a variable belongs.
pub(crate) fn is_name_of_variable(text: &str) -> bool {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word && !text.starts_with(|c: char| c.is_ascii_digit()) && !is_key(text)
}

/// The parts of a key's name, or of a section's, without their quotes.
fn parts(name: &str) -> Vec<&str> {
    name.split('.').map(|part| part.trim().trim_matches(['"', '\'']).trim()).collect()
}

/// What may stand under `name` in the table to which `way` leads.
fn room(way: &[&str], name: &str, outer: Room) -> Room {
    const SECTIONS: [&str; 5] = ["models", "groups", "tools", "people", "agents"];
    const NAMED: [&str; 5] = ["effects", "grants", "objectives", "alerts", "retries"];
    let above = way.last().copied();
    if matches!(outer, Room::Variable | Room::Secret) {
        return outer;
    }
    // Whoever writes the file chooses these names.
    let is_named = match above {
        Some(above) => way.len() == 1 && SECTIONS.contains(&above) || NAMED.contains(&above),
        None => false,
    };
    if is_named || KNOWN.contains(&name) {
        return if is_named { Room::Plain } else { outer };
    }
    let plain = name.to_ascii_lowercase().replace(['_', '-'], "");
    match above {
        Some("headers") if is_secret_name(name) => Room::Secret,
        Some("headers") if has_secret_word(&plain) => Room::Variable,
        Some("headers" | "arguments") if !has_secret_word(&plain) => Room::Plain,
        Some("env") => {
            if has_secret_word(&plain) {
                Room::Secret
            } else {
                Room::Plain
            }
        }
        _ if plain.ends_with("env") || plain.contains("envfrom") => Room::Variable,
        _ if has_secret_word(&plain) => Room::Secret,
        _ => Room::Odd,
    }
}

/// Whether a name says that a secret goes by it, or may.
fn has_secret_word(plain: &str) -> bool {
    const WORDS: [&str; 9] =
        ["key", "token", "bearer", "secret", "pass", "auth", "cookie", "credential", "pwd"];
    WORDS.iter().any(|word| plain.contains(word))
}

/// Whether a text is hidden where it stands.
fn is_hidden(text: &str, room: Room) -> bool {
    match room {
        Room::Plain => false,
        // A scheme may stand before it; what an address holds of secrets is looked for by itself.
        Room::Odd => {
            let is_odd = |c: char| !c.is_ascii_alphanumeric() && !" ._:/@-".contains(c);
            let is_mixed = |text: &str| {
                text.contains(|c: char| c.is_ascii_uppercase())
                    && text.contains(|c: char| c.is_ascii_digit())
            };
            // A name that somebody has given to a model or a file looks otherwise.
            let is_no_name = |text: &&str| text.contains(is_odd) || is_mixed(text);
            let last = text.split_whitespace().next_back();
            !text.contains("://") && last.filter(is_no_name).is_some_and(is_key)
        }
        Room::Variable => !is_name_of_variable(text),
        Room::Secret => {
            let is_number = text.len() < 8 && text.parse::<f64>().is_ok();
            let is_variable = is_name_of_variable(text)
                && text.contains('_')
                && !text.contains(|c: char| c.is_ascii_lowercase());
            !is_number && !is_variable && !matches!(text, "true" | "false")
        }
    }
}

/// The words of a text that are keys by themselves: as providers write them, or as nobody writes a word.
fn strong(text: &str) -> impl Iterator<Item = &str> {
    const BEGINNINGS: [&str; 15] = [
        "sk-",
        "sk_",
        "pk_",
        "rk_",
        "gsk_",
        "xai-",
        "hf_",
        "ghp_",
        "gho_",
        "ghs_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "eyJ",
    ];
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.+~".contains(c);
    // A large number with its unit is none.
    let is_mixed = |part: &str| {
        part.len() >= 16
            && part.bytes().any(|byte| byte.is_ascii_digit())
            && part.bytes().filter(u8::is_ascii_alphabetic).count() > 2
    };
    // Its end may stand behind a slash, as base64 has them.
    let begun = text
        .split(move |c: char| !is_part(c) && c != '/')
        .filter(|word| word.len() >= 16 && BEGINNINGS.iter().any(|begin| word.starts_with(begin)));
    let mixed = text
        .split(move |c: char| !is_part(c))
        .filter(move |word| word.split(|c: char| !c.is_ascii_alphanumeric()).any(is_mixed));
    begun.chain(mixed)
}

/// What the addresses of a line hold of secrets: who logs in there, and what goes by such a name in the query, or by none.
fn in_addresses(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for address in line.split("://").skip(1) {
        let quoted = address.split(['"', '\'']).next().unwrap_or_default();
        // A password with a `/` or a blank in it makes it no address, which is what is told then.
        if let Some((login, _)) = quoted.rsplit_once('@') {
            found.extend(login.split_once(':').map(|(_, password)| password));
        }
        let address = quoted.split(' ').next().unwrap_or_default();
        let (address, query) = address.split_once('?').unwrap_or((address, ""));
        let host = address.split('/').next().unwrap_or_default();
        if let Some((login, _)) = host.rsplit_once('@') {
            let password = login.split_once(':').map(|(_, password)| password);
            found.extend(password.or_else(|| is_key(login).then_some(login)));
        }
        let query = query.split('#').next().unwrap_or_default();
        found.extend(query.split('&').filter_map(|pair| match pair.split_once('=') {
            Some((name, value)) => {
                let is_secret = is_secret_name(name) || matches!(name, "sig" | "code" | "auth");
                is_secret.then_some(value)
            }
            None => Some(pair),
        }));
    }
    found.retain(|secret| secret.len() >= SHORTEST);
    found
}

/// Whether it is longer, or made of other letters, than the name of a variable.
fn is_key(text: &str) -> bool {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let has = |fits: fn(&u8) -> bool| text.bytes().any(|byte| fits(&byte));
    let is_mixed =
        has(u8::is_ascii_lowercase) && (has(u8::is_ascii_digit) || has(u8::is_ascii_uppercase));
    let is_random = has(u8::is_ascii_digit) && !text.contains('_');
    let is_long = text.len() >= 20 && is_mixed || text.len() >= 16 && is_random;
    text.len() >= 8 && !text.contains(char::is_whitespace) && (!is_word || is_long)
}

#[cfg(test)]
mod tests {
    use super::super::super::file::{self, lists};
    use super::*;

    /// The keys that the reader names where it knows one of them not.
    fn read_at(place: &str) -> Vec<String> {
        let place = place.replace('*', "x");
        let text = match place.is_empty() {
            true => "nobody_knows = 1\n".to_owned(),
            false => format!("[{place}]\nnobody_knows = 1\n"),
        };
        let Err(snag) = file::read(&text) else { return Vec::new() };
        let known = snag.hint.split_once("known here: ").map_or("", |(_, known)| known);
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_key_that_the_reader_knows_is_known_here_and_no_other() {
        let read: Vec<_> =
            lists::TABLES.iter().chain([&""]).flat_map(|place| read_at(place)).collect();
        assert!(read.len() > 100, "{read:?}");
        let names_a_variable = |key: &str| room(&[], key, Room::Plain) == Room::Variable;
        let missing = |key: &&String| !KNOWN.contains(&&***key) && !names_a_variable(key);
        assert_eq!(read.iter().filter(missing).collect::<Vec<_>>(), Vec::<&String>::new());
        let of_nobody: Vec<_> =
            KNOWN.iter().filter(|key| !read.iter().any(|it| it == *key)).collect();
        assert_eq!(of_nobody, Vec::<&&str>::new());
    }

    #[test]
    fn an_address_is_hidden_where_it_holds_a_secret_alone() {
        assert!(in_addresses("a = \"https://git@h/x?a=b#c\"").is_empty());
        assert!(in_addresses("a = \"https://ada:pa/ssw 0rd@h/x\"").contains(&"pa/ssw 0rd"));
    }
}
