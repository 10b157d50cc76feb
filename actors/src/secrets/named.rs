//! What is a secret by its name, and what is none by its value.
//!
//! *Invariant.* What might be a key is one: only what is made of words, in the place of a path or of an address, is not.

use reqwest::Url;

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
        Some("PATH" | "FILE" | "DIR" | "SOCK" | "SOCKET") => false,
        // Alone it is the folder that a process works in.
        Some("PWD") if name.len() > 3 => true,
        _ => {
            PARTS.iter().any(|part| name.contains(part))
                || words.any(|word| WORDS.contains(&word))
                || name.contains("CONNECTION_STRING")
        }
    }
}

/// What is a secret among the arguments of a program, each with its name: what follows `--api-key`, also behind a `=`, the
/// value of a variable (`DESK_TOKEN=...`), and that of a header (`Authorization: Bearer ...`).
pub(super) fn in_arguments<'a>(
    arguments: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'a str, &'a str)> {
    let (mut found, mut option) = (Vec::new(), None);
    for argument in arguments {
        let bare = argument.trim_start_matches('-');
        let is_option = bare.len() < argument.len();
        if let Some(name) = option.take().filter(|_| !is_option) {
            found.push((name, argument));
        } else if let Some((name, value)) = bare.split_once('=') {
            found.extend(ends_as_secret(name).then_some((name, value)));
        } else if is_option {
            option = ends_as_secret(bare).then_some(bare);
        } else if let Some((name, value)) = argument.split_once(':')
            && is_name(name)
            && is_name_of_secret(name)
        {
            // The scheme stands before it.
            found.extend(value.split_whitespace().next_back().map(|value| (name, value)));
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter))
}

/// Whether an option of this name has a secret behind it. Others have such a word in them, too (`--key-format`).
fn ends_as_secret(name: &str) -> bool {
    const ENDS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE"];
    let large = name.to_ascii_uppercase();
    is_name(name) && ENDS.iter().any(|end| large.ends_with(end))
}

/// What the value of something is that has the name of a secret.
pub(super) enum Value {
    /// Where a secret is kept.
    Path,
    /// Where somebody is reached; who logs in there may be in it.
    Address(Url),
    /// A secret, as far as can be told.
    Secret,
}

impl Value {
    pub(super) fn of(name: &str, value: &str) -> Self {
        let name = name.to_ascii_uppercase();
        // People choose passwords, and may choose words with slashes.
        if !name.contains("PASS") && !name.ends_with("PWD") && is_path(value) {
            return Self::Path;
        }
        match is_of_address(&name).then(|| Url::parse(value)) {
            Some(Ok(url)) if is_plain_address(&url) => Self::Address(url),
            _ => Self::Secret,
        }
    }
}

/// Whether a name in large letters is that of an address.
fn is_of_address(name: &str) -> bool {
    let last = name.rsplit(|letter: char| !letter.is_ascii_alphanumeric()).next();
    matches!(last, Some("URL" | "URI" | "ENDPOINT" | "ISSUER" | "HOST" | "ORIGIN" | "SERVER"))
}

/// Whether it is a path of two parts at least. A key may begin as one does, and has slashes in it if it is base64: it is
/// not made of words.
fn is_path(value: &str) -> bool {
    let drive = value.get(1..3).is_some_and(|after| matches!(after, ":\\" | ":/"));
    let begins = match value.as_bytes() {
        [letter, ..] if drive => letter.is_ascii_alphabetic(),
        [b'/', ..] | [b'~', b'/', ..] | [b'.', b'/', ..] | [b'.', b'.', b'/', ..] => true,
        _ => value.starts_with("file:///"),
    };
    let parts = value.split(['/', '\\']).filter(|part| !part.is_empty());
    begins && parts.count() >= 2 && is_plain(value)
}

/// Whether it is one of a host and a path that are made of words. In what follows them may be a secret, and in a path
/// without words as well: the addresses of hooks have theirs there.
fn is_plain_address(url: &Url) -> bool {
    url.query().is_none()
        && url.fragment().is_none()
        && url.host_str().is_some_and(is_plain)
        && is_plain(url.path())
}

/// Whether it is made of words and small numbers, and of what is between them.
fn is_plain(text: &str) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric()).all(is_plain_word)
}

/// Whether it is read as one word, or as several in which each begins with a large letter; with one number beside it.
/// A long row of letters is none.
fn is_plain_word(word: &str) -> bool {
    /// Digits of a number that says nothing.
    const DIGITS: usize = 5;
    /// Letters of a word.
    const LETTERS: usize = 20;
    let is_number = |run: &str| run.starts_with(|letter: char| letter.is_ascii_digit());
    let (mut numbers, mut at) = (0, 0);
    while at < word.len() {
        let rest = &word[at..];
        let is_other = |letter: char| letter.is_ascii_digit() != is_number(rest);
        let run = &rest[..rest.find(is_other).unwrap_or(rest.len())];
        at += run.len();
        if is_number(run) {
            numbers += 1;
            if run.len() > DIGITS || numbers > 1 {
                return false;
            }
        } else if run.len() > LETTERS || !is_cased_as_words(run) {
            return false;
        }
    }
    true
}

/// Whether letters are all large, or all small but those that words of three letters at least begin with.
fn is_cased_as_words(letters: &str) -> bool {
    let small = |letter: char| !letter.is_uppercase();
    if !letters.contains(small) {
        return true;
    }
    let mut humps = letters.split(char::is_uppercase);
    // What is before the first large letter may be short (`myKey`), and a word alone (`My`).
    let before = humps.next().unwrap_or_default();
    let is_alone = before.is_empty() && humps.clone().count() == 1;
    is_alone || humps.all(|hump| hump.chars().count() >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "SSH_AUTH_SOCK",
            "ENCODING",
            "project",
        ] {
            assert!(!is_name_of_secret(name), "{name}");
        }
    }

    #[test]
    fn a_path_or_an_address_is_none_whatever_it_is_called() {
        for (name, value) in [
            ("GOOGLE_APPLICATION_CREDENTIALS", "/srv/x/key.json"),
            (
                "GOOGLE_APPLICATION_CREDENTIALS",
                "/Volumes/Ada/Library/CloudStorage/My Keys/sa-2024.json",
            ),
            ("AWS_CREDENTIALS", "~/.aws/credentials"),
            ("TLS_KEY", "C:\\Users\\ada\\server.pem"),
            ("DEPLOY_KEY", "../keys/id_ed25519"),
            ("TOKEN", "file:///run/secrets/token"),
        ] {
            assert!(matches!(Value::of(name, value), Value::Path), "{name} {value}");
        }
        for (name, value) in [
            ("AUTH_URL", "https://login.example.com/oauth2/v1/token"),
            ("OAUTH_ISSUER", "https://accounts.google.com"),
            ("token_endpoint", "http://127.0.0.1:8080/"),
            ("AUTH_URL", "https://ada:Zq7Xw1ab@h.example.com/login"),
        ] {
            assert!(matches!(Value::of(name, value), Value::Address(_)), "{name} {value}");
        }
    }

    #[test]
    fn a_key_is_one_also_where_it_looks_like_a_path() {
        for (name, value) in [
            // Of AWS, as they are, and one that begins with a slash.
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            ("AWS_SECRET_ACCESS_KEY", "/JalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            ("KEY", "/9j/4AAQSkZJRgABAQEASABIAAD"),
            ("KEY", "/a8f3c9e1/b2d4f60a"),
            ("KEY", "/qwertyuiopasdfghjklzxcvbnm/qwertyuiopasdfghjkl"),
            ("TOKEN", "/one-part-alone"),
            ("TOKEN", "words/with/slashes"),
            ("DB_PASSWORD", "/correct/horse"),
            ("SECRET", "https://login.example.com/oauth"),
            ("PG_DSN", "postgres://ada:pw@db.example.com/shop"),
            ("AUTH_URL", "https://hooks.example.com/services/T024BE7LD/B0Zq7Xw1ab"),
            ("AUTH_URL", "https://h.example.com/login?of=ada"),
            ("AUTH_URL", "https://h.example.com/login#ada"),
            ("AUTH_URL", "https://zq7xw1ab9.example.com/"),
            ("AUTH_URL", "not an address"),
        ] {
            assert!(matches!(Value::of(name, value), Value::Secret), "{name} {value}");
        }
    }

    #[test]
    fn the_secrets_among_arguments_are_found_by_the_names_before_them() {
        let found = |line: &str| {
            let found = in_arguments(line.split('|'));
            found.into_iter().map(|(_, value)| value.to_owned()).collect::<Vec<_>>().join(" ")
        };
        for (line, secrets) in [
            ("serve|--token=a=b|--api-key|c|-password|d|--db_secret|e", "a=b c d e"),
            (
                "run|-e|DESK_TOKEN=a|-e|REGION=eu|--header|Authorization: Bearer b|X-Api-Key:c",
                "a b c",
            ),
            // What is no name of a secret, what stands behind none, and a switch.
            ("--key-format|pem|--token-path=/a|a|--tokens|b|key|c|--token|--port|1|C:\\keys", ""),
            ("--token", ""),
            ("what is my key=a|https://h/?a=b", ""),
        ] {
            assert_eq!(found(line), secrets, "{line}");
        }
    }
}
