//! Cuts Rust into words and signs, as far as the house's rules need it: no comments, no insides of
//! literals, and for each token its line, its inline modules, and whether it is test code.

/// A word or a sign of Rust code, with its line.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Cuts Rust into words and signs. Comments are dropped, literals become one empty token.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    while at < chars.len() {
        let (start, first_line) = (at, line);
        let mut word = String::new();
        match chars[at] {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && chars[at] != '\n' {
                    at += 1;
                }
                continue;
            }
            '/' if peek(at + 1) == '*' => {
                let mut open = 0;
                while at < chars.len() {
                    match (chars[at], peek(at + 1)) {
                        ('/', '*') => (open, at) = (open + 1, at + 1),
                        ('*', '/') => (open, at) = (open - 1, at + 1),
                        _ => {}
                    }
                    at += 1;
                    if open == 0 {
                        break;
                    }
                }
            }
            '"' => at = after_string(&chars, at),
            // A character or a lifetime: a lifetime has no quote after its first letter.
            '\'' if peek(at + 1) == '\\' => {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            }
            '\'' if peek(at + 2) == '\'' => at += 3,
            '\'' => {
                at += 1;
                while peek(at).is_alphanumeric() || peek(at) == '_' {
                    at += 1;
                }
            }
            c if c.is_alphanumeric() || c == '_' => {
                while peek(at).is_alphanumeric() || peek(at) == '_' {
                    word.push(peek(at));
                    at += 1;
                }
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                let hashes = (at..).take_while(|at| peek(*at) == '#').count();
                if raw && peek(at + hashes) == '"' {
                    let mut end = at + hashes + 1;
                    let closes = |end: usize| {
                        peek(end) == '"' && (1..=hashes).all(|next| peek(end + next) == '#')
                    };
                    while end < chars.len() && !closes(end) {
                        end += 1;
                    }
                    at = end + hashes + 1;
                    word.clear();
                } else if matches!(word.as_str(), "b" | "c") && peek(at) == '"' {
                    at = after_string(&chars, at);
                    word.clear();
                } else if word == "r" && hashes == 1 {
                    // A raw identifier: its word comes next.
                    at += 1;
                    continue;
                }
            }
            ':' if peek(at + 1) == ':' => {
                word.push_str("::");
                at += 2;
            }
            c => {
                if !c.is_whitespace() {
                    word.push(c);
                }
                at += 1;
            }
        }
        let end = at.min(chars.len());
        line += chars[start..end].iter().filter(|c| **c == '\n').count();
        if !word.is_empty() {
            tokens.push(Token { text: word, line: first_line });
        }
    }
    tokens
}

/// Where the string that opens at `at` has ended.
fn after_string(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Marks the tokens of `#[cfg(test)]` items, attribute included.
pub(crate) fn in_test(tokens: &[Token]) -> Vec<bool> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut marks = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        if !(text(at) == "#" && text(at + 1) == "[") {
            at += 1;
            continue;
        }
        let start = at;
        let mut tests = false;
        // All attributes of the item: one of them is enough.
        while text(at) == "#" && text(at + 1) == "[" {
            let end = closing(tokens, at + 1);
            let words: Vec<&str> = (at + 2..end).map(text).collect();
            tests |=
                words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not");
            at = end + 1;
        }
        if !tests {
            continue;
        }
        let end = item_end(tokens, at);
        marks[start..end].fill(true);
        at = end;
    }
    marks
}

/// One past the end of the item that begins here: its `;`, its closing brace, or the brace that closes
/// what it stands in.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            "}" | ")" | "]" => return at,
            "{" => return closing(tokens, at) + 1,
            "(" | "[" => at = closing(tokens, at),
            _ => {}
        }
        at += 1;
    }
    tokens.len()
}

/// The token that closes the bracket at `at`.
fn closing(tokens: &[Token], at: usize) -> usize {
    let mut open = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text.as_str() {
            "(" | "[" | "{" => open += 1,
            ")" | "]" | "}" => {
                open -= 1;
                if open == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

/// For each token, in how many inline modules (`mod tests { … }`) it stands.
pub(crate) fn inline_depth(tokens: &[Token]) -> Vec<usize> {
    let mut depth = vec![0; tokens.len()];
    for at in 0..tokens.len().saturating_sub(2) {
        if tokens[at].text == "mod" && is_word(&tokens[at + 1].text) && tokens[at + 2].text == "{" {
            for inner in &mut depth[at + 3..closing(tokens, at + 2)] {
                *inner += 1;
            }
        }
    }
    depth
}

/// The first words of the path or the group of paths that begins at `start`: of `{a, b::c}` they are
/// `a` and `b`. Each with the place of its token.
pub(crate) fn heads(tokens: &[Token], start: usize) -> Vec<(usize, String)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    if text(start) != "{" {
        return if is_word(text(start)) { vec![(start, text(start).to_owned())] } else { vec![] };
    }
    let mut found = Vec::new();
    let mut open = 0_usize;
    let mut at = start;
    while at < tokens.len() {
        match text(at) {
            "{" => open += 1,
            "}" if open == 1 => break,
            "}" => open -= 1,
            word if open == 1 && is_word(word) && matches!(text(at - 1), "{" | ",") => {
                found.push((at, word.to_owned()));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

pub(crate) fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}
