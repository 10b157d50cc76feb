//! What of a tree file is a key, or may be one: it is shown nowhere, neither as it stands there nor as it is read.
//!
//! Two rules tell. By its looks, wherever it stands: a long text that is not made of words. And by what stands before
//! it: a value behind a secret's name, in whichever notation.
//!
//! *Invariant.* Nothing is taken on the word of the reader: a file that cannot be read is looked through as well. In
//! doubt a text is hidden, which costs whoever made a slip a look into the own file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The shortest that is taken for one: shorter ones stand anywhere.
const SHORTEST: usize = 4;
/// One of so many bytes is hidden within longer words as well.
const WITHIN: usize = 8;
/// What is looked at by its looks has so many bytes.
const LONG: usize = 16;
const QUOTES: [char; 4] = ['"', '\'', '`', '\\'];

/// What is hidden, each with what stands before it if it is hidden there alone; the longest first.
pub(super) struct Secrets(Vec<(String, String)>);

/// What the name before a value says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// The name of a variable.
    Variable,
    Secret,
}

impl Secrets {
    pub(super) fn of(text: &str) -> Self {
        let mut found = Self(Vec::new());
        // As far as it can be read, in whichever notation.
        let (table, errors) = DeTable::parse_recoverable(text);
        found.table(text, table.get_ref(), None, Kind::Plain);
        if errors.is_empty() {
            let comments = text.lines().filter_map(|line| line.split_once('#'));
            comments.for_each(|(_, comment)| found.all(named(comment, true)));
        } else {
            found.all(named(text, false));
        }
        by_looks(text).for_each(|it| found.add(it));
        for line in text.lines() {
            found.all(in_addresses(line));
        }
        let Self(mut found) = found;
        found.retain(|(_, secret)| secret.chars().count() >= SHORTEST);
        // A tab is shown as a blank.
        let blank = |text: &String| text.replace('\t', " ");
        found.extend_from_within(..);
        let half = found.len() / 2;
        found[half..].iter_mut().for_each(|it| *it = (blank(&it.0), blank(&it.1)));
        found.sort_unstable_by_key(|it| (std::cmp::Reverse(it.0.len() + it.1.len()), it.clone()));
        found.dedup();
        Self(found)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.0.iter().fold(text.to_owned(), |text, (before, secret)| {
            let whole = format!("{before}{secret}");
            let (mut shown, mut done) = (String::new(), 0);
            for (at, _) in text.match_indices(&whole) {
                let end = at + whole.len();
                let is_within = text[..at].ends_with(is_part) || text[end..].starts_with(is_part);
                if whole.len() >= WITHIN || !is_within {
                    shown.extend([&text[done..at], before, "[key]"]);
                    done = end;
                }
            }
            shown + &text[done..]
        })
    }

    fn add(&mut self, secret: &str) {
        self.0.push((String::new(), secret.to_owned()));
    }

    fn all(&mut self, found: Vec<(&str, &str)>) {
        found.into_iter().for_each(|(before, secret)| self.behind(before, secret));
    }

    /// One that was found by what is before it. A word may stand elsewhere, and is no secret there.
    fn behind(&mut self, before: &str, secret: &str) {
        match is_name(secret) {
            true => self.0.push((before.to_owned(), secret.to_owned())),
            false => self.add(secret),
        }
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

    fn table(&mut self, text: &str, table: &DeTable<'_>, above: Option<&str>, outer: Kind) {
        for (name, value) in table {
            let (key, written) =
                (name.get_ref().as_ref(), text.get(name.span()).unwrap_or_default());
            // One of a header has hyphens.
            if outer != Kind::Plain && !is_name_of_variable(&key.replace('-', "_")) {
                self.hidden(key, written);
            }
            self.inside(key, written);
            let kind = if outer == Kind::Plain { kind(above, key) } else { outer };
            self.value(text, value, key, kind);
        }
    }

    fn value(&mut self, text: &str, value: &Spanned<DeValue<'_>>, name: &str, kind: Kind) {
        let written = text.get(value.span()).unwrap_or_default();
        match value.get_ref() {
            DeValue::Table(table) => self.table(text, table, Some(name), kind),
            DeValue::Array(all) => {
                let mut option = Kind::Plain;
                for it in all {
                    let read = it.get_ref().as_str().unwrap_or_default();
                    let is_value = option != Kind::Plain && !read.starts_with('-');
                    self.value(text, it, name, if is_value { option } else { kind });
                    let name = read.strip_prefix('-').filter(|name| !name.contains(['=', ' ']));
                    option = name.map_or(Kind::Plain, |name| self::kind(None, name));
                }
            }
            DeValue::String(read) if is_hidden(read, kind) => self.hidden(read, written),
            DeValue::String(read) => self.inside(read, written),
            DeValue::Integer(number) if is_hidden(written, kind) => {
                self.hidden(number.as_str(), written);
            }
            _ if is_hidden(written, kind) => self.hidden(written, written),
            _ => {}
        }
    }

    /// What stands in a text, also where that is written in escapes.
    fn inside(&mut self, read: &str, written: &str) {
        let strong = by_looks(read).map(|secret| ("", secret));
        for (before, secret) in named(read, true).into_iter().chain(strong) {
            if written.contains(&format!("{before}{secret}")) {
                self.behind(before, secret);
            } else {
                self.hidden(secret, written);
            }
        }
    }
}

/// The values behind the names of secrets, each with what stands before it from its name on. In prose a word that merely
/// follows such a name is none.
fn named<'a>(text: &'a str, is_prose: bool) -> Vec<(&'a str, &'a str)> {
    let is_edge = |c: char| c.is_whitespace() || "=:,[]{}".contains(c) || QUOTES.contains(&c);
    let mut found = within(text);
    let (mut section, mut outer) = (None, Kind::Plain);
    for line in text.lines() {
        // What begins with a name goes on to the end of its line.
        let line = line.trim_start_matches([' ', '\t', '-', '#']).trim_start_matches("export ");
        if let Some(name) = line.strip_prefix('[').filter(|_| !is_prose && !line.contains('=')) {
            let name = name.trim_start_matches('[').split(']').next().unwrap_or_default();
            let mut parts = name.rsplit('.').map(|part| part.trim().trim_matches(QUOTES));
            section = parts.next();
            outer = section.map_or(Kind::Plain, |section| kind(parts.next(), section));
            continue;
        }
        let end = line.find([' ', '\t', '=', ':']).unwrap_or(line.len());
        let name = last_part(&line[..end]);
        let kind = if outer == Kind::Plain { kind(section, name) } else { outer };
        let is_told = line[end..].trim_start().starts_with(['=', ':']);
        let value = line[end..].split(" #").next().unwrap_or_default().trim_matches(is_edge);
        let value = behind_scheme(value);
        // In a table on one line there are names as well.
        let is_table = line[end..].contains('{');
        let unnamed =
            |part: &'a str| part.split_once('=').filter(|_| is_table).map_or(part, |it| it.1);
        let mut parts = value.split(',').map(unnamed).flat_map(|part| part.split(is_edge));
        if (is_told || !is_prose) && parts.any(|part| is_hidden(part, kind)) {
            found.push((before(line, 0, value), value));
        }
    }
    found
}

/// Those that stand anywhere: `--token X`, `"--token", "X"`, `api-key=X`, `Authorization: Bearer X`.
fn within(text: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let (mut found, mut end) = (Vec::new(), 0);
    while let Some(begin) = text[end..].find(is_part).map(|at| end + at) {
        end = text[begin..].find(|c| !is_part(c)).map_or(text.len(), |length| begin + length);
        let (name, is_option) = (&text[begin..end], text[begin..].starts_with('-'));
        let kind = kind(None, last_part(name));
        // What is in an address ends otherwise.
        if kind == Kind::Plain || text[..begin].ends_with(['?', '&']) {
            continue;
        }
        let rest = text[end..].trim_start_matches(QUOTES);
        let value = rest.trim_start_matches([' ', '\t']);
        let is_told = value.starts_with(['=', ':']);
        let value = match value.strip_prefix(',').filter(|_| is_option) {
            Some(next) => next.trim_start(),
            None if is_told => value.trim_start_matches(|c| "=:>[( \t".contains(c)),
            None if value.len() == rest.len() => continue,
            None => value,
        };
        // Another option, or names that are looked at by themselves.
        if value.starts_with('-') && !is_told || value.starts_with('{') {
            continue;
        }
        let quote = value.chars().find(|c| *c != '\\').filter(|c| QUOTES.contains(c));
        let is_escaped = value.starts_with('\\');
        let value = value.trim_start_matches(QUOTES);
        let is_end = |(at, c): &(usize, char)| match quote {
            Some(quote) if *c == quote => is_escaped || !value[..*at].ends_with('\\'),
            Some(_) => *c == '\n',
            None => QUOTES.contains(c),
        };
        let length = value.char_indices().find(is_end).map_or(value.len(), |(at, _)| at);
        let whole = behind_scheme(&value[..length]);
        let secret = match quote {
            Some(_) => whole,
            None => whole.split_whitespace().next().unwrap_or_default(),
        };
        let secret = secret.trim_end_matches(|c| ",;)]}\\".contains(c));
        let is_sure = is_told || is_option || quote.is_some() || !is_name(secret);
        if is_sure && is_hidden(secret, kind) {
            found.push((before(text, begin, secret), secret));
        }
    }
    found
}

/// A value without the scheme that stands before a key in a header.
fn behind_scheme(value: &str) -> &str {
    let is_scheme = |word: &str| {
        matches!(&*word.to_ascii_lowercase(), "apikey" | "basic" | "bearer" | "digest" | "token")
    };
    let parts = value.trim_start().split_once(' ').filter(|(first, _)| is_scheme(first));
    parts.map_or(value, |(_, rest)| rest.trim_start())
}

/// What of a text stands before a part of it.
fn before<'a>(text: &'a str, from: usize, part: &str) -> &'a str {
    &text[from..part.as_ptr().addr() - text.as_ptr().addr()]
}

fn last_part(name: &str) -> &str {
    let name = name.trim_matches(|c: char| !c.is_alphanumeric());
    name.rsplit('.').next().unwrap_or_default()
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
    is_word && !text.starts_with(|c: char| c.is_ascii_digit()) && by_looks(text).next().is_none()
}

/// What may stand behind a name in the table `above`.
fn kind(above: Option<&str>, name: &str) -> Kind {
    /// In these, whoever writes the file chooses the names.
    const CHOSEN: &str =
        "agents alerts effects grants groups models objectives people retries tools";
    /// Numbers of tokens; so is `token_limit`, and what is meant for it.
    const COUNTS: [&str; 4] = ["answer_tokens", "max_tokens", "tokens", "tokens_per_minute"];
    const WORDS: [&str; 5] = ["passw", "passphrase", "passcode", "pwd", "credential"];
    let small = name.to_ascii_lowercase();
    let mut words = small.split(|c: char| !c.is_ascii_alphanumeric());
    let is_chosen = above.is_some_and(|above| CHOSEN.split(' ').any(|it| it == above));
    if is_chosen || COUNTS.contains(&name) || name.starts_with("token_lim") {
        Kind::Plain
    } else if name != "env" && name.ends_with("env")
        || name.ends_with("Env")
        || small.contains("env_from")
    {
        Kind::Variable
    } else if is_secret_name(name)
        || WORDS.iter().any(|word| small.contains(word))
        || words.any(|word| matches!(word, "pass" | "auth" | "oauth"))
    {
        Kind::Secret
    } else {
        Kind::Plain
    }
}

/// Whether a text is hidden where it stands.
fn is_hidden(text: &str, kind: Kind) -> bool {
    // As a shell writes it, or with what ends a list whose text is not closed.
    let name = text.trim_start_matches(['$', '{']).trim_end_matches([' ', ',', ']', '}']);
    match kind {
        _ if text.len() < SHORTEST => false,
        Kind::Plain => false,
        Kind::Variable => !is_name_of_variable(name),
        Kind::Secret => {
            let is_number = text.len() < 8 && text.replace('_', "").parse::<f64>().is_ok();
            let is_variable = is_name_of_variable(name)
                && name.contains('_')
                && !name.contains(|c: char| c.is_ascii_lowercase());
            !is_number && !is_variable && !matches!(text, "true" | "false")
        }
    }
}

/// Whether it may be a word, or some, as far as its letters go.
fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_alphabetic() || "_-./".contains(c))
}

/// The words of a text that are keys by themselves: as providers begin them, or as nobody writes a word.
fn by_looks(text: &str) -> impl Iterator<Item = &str> {
    const BEGINNINGS: &str = "AIza AKIA eyJ ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ glpat- gsk_ hf_ pk_ rk_ sk- sk_ xai- xoxb- xoxp-";
    let is_begun = |token: &str| {
        token.split('/').any(|part| BEGINNINGS.split(' ').any(|it| part.starts_with(it)))
    };
    let tokens = text
        .split(|c: char| !c.is_ascii_alphanumeric() && !"_-.+~/=".contains(c))
        .flat_map(|run| {
            // It stands between a name and a value, or ends one.
            let end = run.trim_end_matches('=').len();
            let last = run[..end].rfind('=').map_or(0, |at| at + 1);
            run[..last].split('=').chain([&run[last..]])
        })
        .filter(move |token| token.len() >= LONG && (is_begun(token) || !is_made_of_words(token)));
    // What people make up has signs in it that no name has.
    let is_made_up = |word: &&str| {
        let has = |fits: fn(char) -> bool| word.contains(fits);
        word.len() >= WITHIN
            && !word.contains("://")
            && has(|c| c.is_ascii_alphabetic())
            && has(|c| c.is_ascii_digit())
            && has(|c| "!$%&^".contains(c))
    };
    let words = text.split(|c: char| c.is_whitespace() || QUOTES.contains(&c));
    let words = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    tokens.chain(words.filter(is_made_up))
}

/// Whether a token is: of a name, a host, a path, a version, a date.
fn is_made_of_words(token: &str) -> bool {
    // The end of a name that is ours: of a tool that has another in paths.
    let is_ours = |end: &&str| end.len() == 8 && end.bytes().all(|it| it.is_ascii_hexdigit());
    let token = match token.rsplit_once('_') {
        Some((name, end)) if is_ours(&end) => name,
        _ => token,
    };
    // A large number with its unit says nothing.
    if token.trim_start_matches(|c: char| c.is_ascii_digit()).len() <= 2 {
        return true;
    }
    let (mut all, mut mixed) = (0, 0);
    for part in token.split(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_matches(|c: char| c.is_ascii_digit());
        let digits = part.len() - word.len();
        let is_number = word.is_empty() && digits <= 8;
        let is_word = digits <= 4 && word.len() <= 24 && is_cased_as_words(word);
        if !is_number && !is_word && part.len() > 7 {
            return false;
        }
        all += part.len();
        let is_mixed = !word.is_empty() && part.contains(|c: char| c.is_ascii_digit());
        mixed += if is_mixed && part.len() > 3 { part.len() } else { 0 };
    }
    // A licence is groups of both.
    2 * mixed < all || all == 0
}

/// Whether letters, and nothing else, are those of one word, or of some of which each begins with a large one; one of
/// them may be an abbreviation.
fn is_cased_as_words(letters: &str) -> bool {
    let large: Vec<bool> = letters.bytes().map(|byte| byte.is_ascii_uppercase()).collect();
    let changes = large.windows(2).filter(|it| **it == [false, true]).count();
    let runs = large.split(|it| !it).filter(|run| run.len() > 1).count();
    let is_camel = large.len() >= 3 * (changes + 1) && (runs == 0 || runs == 1 && changes < 3);
    letters.bytes().all(|byte| byte.is_ascii_alphabetic())
        && if large.contains(&false) { is_camel } else { large.len() < LONG }
}

/// What the addresses of a line hold of secrets, each with what stands before it: who logs in there, and what goes by such
/// a name in the query, or by none.
fn in_addresses(line: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for address in line.split("://").skip(1) {
        let mut add = |secret| found.push((before(address, 0, secret), secret));
        let quoted = address.split(['"', '\'']).next().unwrap_or_default();
        // A password with a `/` or a blank in it makes it no address, which is what is told then.
        if let Some((login, _)) = quoted.rsplit_once('@') {
            login.split_once(':').into_iter().for_each(|(_, password)| add(password));
        }
        let bare = quoted.split(' ').next().unwrap_or_default();
        let (bare, query) = bare.split_once('?').unwrap_or((bare, ""));
        let host = bare.split('/').next().unwrap_or_default();
        if let Some((login, _)) = host.rsplit_once('@') {
            match login.split_once(':') {
                Some((_, password)) => add(password),
                None if !is_name_of_variable(login) => add(login),
                None => {}
            }
        }
        let query = query.split('#').next().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((name, value))
                    if is_secret_name(name) || matches!(name, "sig" | "code" | "auth") =>
                {
                    add(value)
                }
                Some(_) => {}
                None => add(pair),
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Secrets::of(text).hide(text)
    }

    #[test]
    fn what_is_made_of_words_is_shown_wherever_it_stands() {
        for text in [
            // Names of models.
            "gpt-4o-mini-2024-07-18",
            "claude-3-5-sonnet-20241022",
            "meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
            "qwen2.5-coder:7b-instruct-q4_K_M",
            "accounts/fireworks/models/llama-v3p1-405b-instruct",
            "gemini-2.0-flash-exp",
            "text-embedding-3-large",
            "anthropic.claude-3-7-sonnet-20250219-v1:0",
            "TheBloke/Mistral-7B-Instruct-v0.2-GGUF",
            "granite3.1-dense-8b-instruct-q4_K_M",
            "stable-code-3b-v1beta1",
            // Hosts, paths and packages.
            "http://127.0.0.1:11434/v1",
            "https://my-company-prod.openai.azure.com/openai/deployments/gpt4o?api-version=2024-08-01-preview",
            "/srv/ann/work2024/orders_v2.jsonl",
            "/Volumes/ann/Documents/GitHub/myShopServer/index.js",
            "../server/dist/index.js",
            "@modelcontextprotocol/server-filesystem@2025.1.14",
            // Names of variables, of tools, and of what has several words.
            "OPENAI_API_KEY_2",
            "MAX_MCP_OUTPUT_TOKENS",
            "99999999999999999999s",
            "getOrderByIdAndDate",
            "parseJSONFileQuickly",
            "# ------------------ ================== #",
        ] {
            assert_eq!(shown(text), text);
            let value = format!("model = \"{text}\" # {text}");
            assert_eq!(shown(&value), value);
        }
    }

    #[test]
    fn what_looks_like_a_key_is_hidden_wherever_it_stands() {
        for key in [
            "550e8400-e29b-41d4-a716-446655440000",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "QmFzZTY0K2EvYi9jMWQyZTNmNA==",
            "0f1e2d3c4b5a6978",
            "9e107d9d372bb6826bd81d3542a419d6",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
            "sk-abcdefghijklmnop",
            "gho_16C7e42F292c6912E7710c838347Ae178B4a",
            "ZxKqLmTvRwYpBnsHdcQe",
            "AB12-CD34-EF56-GH78",
            "83140299578314a2b",
            "abcdefghijklmnopqrstuvwxy",
            "ABCDEFGHIJKLMNOP",
            // As people make them up.
            "tr0ub4dor-&-3",
        ] {
            for (text, expected) in [
                ("kind = \"*\"", "kind = \"[key]\""),
                ("base_url = '*'", "base_url = '[key]'"),
                ("model = \"see * there\"", "model = \"see [key] there\""),
                ("timeout = 3 # *", "timeout = 3 # [key]"),
                ("tools = [\"a\", \"*\"", "tools = [\"a\", \"[key]\""),
                ("*", "[key]"),
            ] {
                assert_eq!(shown(&text.replace('*', key)), expected, "{key}");
            }
        }
    }

    #[test]
    fn what_stands_behind_the_name_of_a_secret_is_hidden_in_every_notation() {
        for (text, expected) in [
            ("password = \"*\"", "password = \"[key]\""),
            ("password = *", "password = [key]"),
            ("  - password: * # mine", "  - password: [key] # mine"),
            ("password *", "password [key]"),
            ("password = two * words", "password = [key]"),
            ("openai_auth = \"*\"", "openai_auth = \"[key]\""),
            ("api_key \"*\"", "api_key \"[key]\""),
            ("key_env tok-*", "key_env [key]"),
            ("headers_env = { x-a = tok-* }", "headers_env = { [key] }"),
            ("[models.m.headers_env]\nx-a: tok-*", "[models.m.headers_env]\nx-a: [key]"),
            ("a = \"npx x --password * --y\"", "a = \"npx x --password [key] --y\""),
            ("a = \"npx x --api-key=*\"", "a = \"npx x --api-key=[key]\""),
            ("a = [\"x\", \"--token\", \"*\", 3]", "a = [\"x\", \"--token\", \"[key]\", 3]"),
            ("a = [\"x\", \"--token\",\n \"*\"", "a = [\"x\", \"--token\",\n \"[key]\""),
            ("a = [\"x\", \"--token\" \"*\"]", "a = [\"x\", \"--token\" \"[key]\"]"),
            ("headers = \"x-api-key: *\"", "headers = \"x-api-key: [key]\""),
            ("headers = { b = c, x-token = * }", "headers = { b = c, x-token = [key] }"),
            ("a = \"Authorization: Bearer *\"", "a = \"Authorization: Bearer [key]\""),
            ("a = \"see Authorization: Bearer *\"", "a = \"see Authorization: Bearer [key]\""),
            ("a = 1 # with Authorization: Bearer *", "a = 1 # with Authorization: Bearer [key]"),
            ("export MY_KEY=two * words", "export MY_KEY=[key]"),
            ("x \"api_key\": \"a\\\"*\", b", "x \"api_key\": \"[key]\", b"),
            ("a = 1 # password = *", "a = 1 # password = [key]"),
            ("a = 1 # was --password * then", "a = 1 # was --password [key] then"),
            ("a = '{\"token\": \"*\"}'", "a = '{\"token\": \"[key]\"}'"),
            ("a = \"{\\\"token\\\": \\\"*\\\"}\" b", "a = \"[key]\" b"),
        ] {
            for key in ["hunter2", "letmein", "83140299571"] {
                assert_eq!(shown(&text.replace('*', key)), expected, "{key}");
            }
        }
        // In escapes, and where nothing else is known of it.
        assert_eq!(shown("token = \"hunt\\u0065r2\""), "token = \"[key]\"");
        assert_eq!(shown("a = \"token: hunt\\u0065r2\""), "a = \"[key]\"");
        assert_eq!(shown("a = [\"--token\", \"Tr0ub &3 x\"]"), "a = [\"--token\", \"[key]\"]");
    }

    #[test]
    fn what_is_no_secret_behind_such_a_name_is_shown_and_so_is_a_word_elsewhere() {
        for text in [
            "max_tokens = 100000",
            "token_limi = \"many\"",
            "headers_env = { x-token = \"TEAM_TOKEN\", api-key = AZURE_KEY } x",
            "heders_env = { x-token = \"TEAM_TOKEN\" }",
            "token = 1234567",
            "token = true",
            "api_key = \"OPENAI_API_KEY\"",
            "env = { API_KEY = \"${OPENAI_API_KEY}\", NODE_ENV = \"dev-1\" }",
            "key_env = \"my_variable\"",
            "env_from = [\"MY_KEY\", \"HOME]",
            "headers_env = { api-key = \"AZURE_KEY }",
            "command = [\"x\", \"--token\", \"--verbose\"]",
            "[tools.x.effects]\nget_token = \"read\"",
            "[agents.keeper]\nmodel = \"llm\"",
            "system = \"Ask for the key and the token limit.\" # a key that nobody knows",
            "tools = [\"rotate_key\", \"author\"]",
        ] {
            assert_eq!(shown(text), text);
        }
        let text = "a = 1 # key: model\nmodel = \"password: house\"\nb = \"house\"";
        assert_eq!(shown(text), "a = 1 # key: [key]\nmodel = \"password: [key]\"\nb = \"house\"");
        assert_eq!(shown("token = \"time\"\ntimeout = 1"), "token = \"[key]\"\ntimeout = 1");
    }

    #[test]
    fn an_address_is_hidden_where_it_holds_a_secret_alone() {
        let text = "a = \"https://git@h/x?a=b#c\"";
        assert_eq!(shown(text), text);
        let text = "a = \"https://ada:*@h/x?code=house&b=house\"\nb = \"house\"";
        assert_eq!(
            shown(&text.replace('*', "pa/ssw0rd")),
            text.replace('*', "[key]").replacen("house", "[key]", 1)
        );
        assert_eq!(shown("a = \"https://ada:pa/ssw 0rd@h/x\""), "a = \"https://ada:[key]@h/x\"");
    }
}
