//! What is wrong with a tree file, and where: rendered as a compiler does.

use std::fmt;
use std::ops::Range;

mod secrets;

use secrets::Secrets;
pub(crate) use secrets::{is_name_of_variable, is_secret_name};

/// One thing that is wrong, with its place in the file and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Snag {
    message: String,
    span: Option<Range<usize>>,
    label: String,
    hint: String,
    is_warning: bool,
}

impl Snag {
    /// `message` says what is wrong, `label` stands under the place, `hint` says what to do.
    pub(crate) fn new(
        span: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
        label: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let (message, label, hint) = (message.into(), label.into(), hint.into());
        Self { message, span: span.into(), label, hint, is_warning: false }
    }

    /// As something that is strange, and wrong for nobody.
    pub(crate) fn warning(self) -> Self {
        Self { is_warning: true, ..self }
    }
}

/// All that is wrong with one file. Never empty.
#[derive(Debug)]
pub(crate) struct Snags {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) snags: Vec<Snag>,
}

impl std::error::Error for Snags {}

impl fmt::Display for Snags {
    /// Without what is a key by its looks, or stands where one is expected: this is printed, and kept by whoever runs
    /// it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = Secrets::of(&self.text);
        for (index, snag) in self.snags.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.one(snag, &secrets, f)?;
        }
        Ok(())
    }
}

impl Snags {
    fn one(&self, snag: &Snag, secrets: &Secrets, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if snag.is_warning { "warning" } else { "error" };
        writeln!(f, "{level}: {}", secrets.hide(&snag.message))?;
        let mut edge = " ".to_owned();
        if let Some(span) = &snag.span {
            let place = Place::of(&self.text, span);
            edge = " ".repeat(place.line.to_string().len());
            writeln!(f, "{edge}--> {}:{}:{}", self.file, place.line, place.column)?;
            writeln!(f, "{edge} |")?;
            writeln!(f, "{} | {}", place.line, secrets.hide(&place.source))?;
            // Below what is shown of the line.
            let width = |from: usize, length: usize| {
                let part: String = place.source.chars().skip(from).take(length).collect();
                secrets.hide(&part).chars().count()
            };
            let indent = " ".repeat(width(0, place.column - 1));
            let marks = "^".repeat(width(place.column - 1, place.width).max(1));
            writeln!(f, "{edge} | {indent}{marks} {}", secrets.hide(&snag.label))?;
            writeln!(f, "{edge} |")?;
        } else {
            writeln!(f, "{edge}--> {}", self.file)?;
        }
        writeln!(f, "{edge} = help: {}", secrets.hide(&snag.hint))
    }
}

/// A place as people count: from 1, in characters.
struct Place {
    line: usize,
    column: usize,
    width: usize,
    source: String,
}

impl Place {
    fn of(text: &str, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let begin = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let source = text[begin..].lines().next().unwrap_or_default();
        let end = span.end.clamp(start, begin + source.len());
        let width = text.get(start..end).map_or(1, |marked| marked.chars().count());
        Self {
            line: text[..begin].matches('\n').count() + 1,
            column: text[begin..start].chars().count() + 1,
            width: width.max(1),
            // A tab is as wide as its mark.
            source: source.replace('\t', " "),
        }
    }
}

/// The name among `known` that was probably meant.
pub(crate) fn meant<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wrong.chars().count() + 1) / 3;
    known
        .into_iter()
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// How many letters must change to get from one to the other; two that changed places are one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let last: &Vec<usize> = &rows[i - 1];
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognized_and_another_word_is_not() {
        let known = ["model", "system", "tools", "max_steps"];
        assert_eq!(meant("modle", known), Some("model"));
        assert_eq!(meant("max_step", known), Some("max_steps"));
        assert_eq!(meant("tool", known), Some("tools"));
        assert_eq!(meant("temperature", known), None);
    }

    #[test]
    fn a_key_where_its_variable_belongs_is_not_shown() {
        let (dashed, word) = ("sk-ant-0123456789", "gsk_abcdefghij0123456789");
        let file = format!(
            "key_env = \"{dashed}\"\nkey = '{word}'\nenv_from = [\"MY_KEY\", \"{dashed}2\"]\nmodel = \"a-model\"\nother_env = \"MY_KEY\"\n"
        );
        let mut snags = Vec::new();
        let mut start = 0;
        for line in file.lines() {
            let message = format!("the environment variable {dashed} or {word} is not set");
            let hint = format!("export {dashed}=...");
            snags.push(Snag::new(start..start + line.len(), message, "read from here", hint));
            start += line.len() + 1;
        }
        let said = Snags { file: "tree.toml".to_owned(), text: file, snags }.to_string();
        assert!(!said.contains(dashed) && !said.contains(word), "{said}");
        assert!(said.contains("a-model") && said.contains("\"MY_KEY\""), "{said}");
        assert!(said.contains("1 | key_env = \"[key]\""), "{said}");
        let file = format!("headers = {{ x-a = \"b\", Authorization = \"Bearer {word}\" }}\n");
        let snags = vec![Snag::new(0..9, "no", "", "no")];
        let said = Snags { file: "tree.toml".to_owned(), text: file, snags }.to_string();
        assert!(said.contains("x-a = \"b\", Authorization = \"[key]\""), "{said}");
    }

    #[test]
    fn a_key_among_the_arguments_of_a_command_is_not_shown() {
        let file = "command = [\"\", \"--token=sk-0123456789\", \"--api-key\",\n  \"sk-9876543210\", \"--to\", \"sk-shown-0\"]\n";
        let snags = [0, file.find('\n').unwrap() + 1];
        let snags = snags.map(|at| Snag::new(at..at + 3, "no", "", "no")).into();
        let said = Snags { file: "t.toml".into(), text: file.into(), snags }.to_string();
        assert!(
            said.contains("\"--token=[key]\"")
                && said.contains("\"[key]\", \"--to\", \"sk-shown-0\""),
            "{said}"
        );
    }

    #[test]
    fn what_an_address_holds_of_secrets_is_not_shown_and_the_place_is_below_what_is() {
        let file = "base_url = \"ftp://user:hunter2secret@h/v1?v=2&key=sk-99&bare-one\" # u\n";
        let at = file.find("bare").unwrap();
        let place = vec![Snag::new(at..at + 8, "no", "here", "no")];
        let said = Snags { file: "t.toml".into(), text: file.into(), snags: place }.to_string();
        let line = "base_url = \"ftp://user:[key]@h/v1?v=2&key=[key]&[key]\" # u";
        assert!(said.contains(line), "{said}");
        let marks = said.lines().find(|line| line.contains('^')).unwrap();
        let shown = said.lines().find(|line| line.contains("base_url")).unwrap();
        assert_eq!(marks.find('^').unwrap(), shown.rfind("[key]").unwrap(), "{said}");
        assert!(marks.contains("^^^^^ here"), "{said}");
    }

    #[test]
    fn a_place_is_counted_in_lines_and_characters_and_never_leaves_its_line() {
        let text = "a = 1\nü = \"x\ny\"\n";
        let at = text.find('"').unwrap();
        let place = Place::of(text, &(at..text.len()));
        assert_eq!((place.line, place.column, place.width), (2, 5, 2));
        let end = Place::of(text, &(text.len()..text.len()));
        assert_eq!((end.line, end.column, end.width, &*end.source), (4, 1, 1, ""));
    }
}
