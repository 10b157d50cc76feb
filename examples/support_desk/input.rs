//! Reading complaints, orders and labels. A row that cannot be used is named with its file and line and
//! left out; the others are worked on.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

const COMPLAINTS: (&str, &[u8]) =
    ("examples/data/complaints.jsonl", include_bytes!("../data/complaints.jsonl"));
const ORDERS: (&str, &[u8]) = ("examples/data/orders.json", include_bytes!("../data/orders.json"));
const EXPECTED: (&str, &[u8]) =
    ("examples/data/expected.jsonl", include_bytes!("../data/expected.jsonl"));

/// Rows that are named; of more there is a count.
const NAMED_ROWS: usize = 20;

/// Bytes of a complaint, at most: a book is none, and would hold up everybody else.
const LONGEST_TEXT: usize = 1 << 16;

/// A complaint as it reaches the desk.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Complaint {
    pub(crate) id: String,
    pub(crate) text: String,
    /// Whose account it came from; nobody's, if it does not say.
    #[serde(default)]
    pub(crate) customer: String,
}

/// An order of the shop.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Order {
    pub(crate) order: u32,
    pub(crate) customer: String,
    pub(crate) status: String,
    pub(crate) item: String,
    pub(crate) amount_cents: i64,
    pub(crate) currency: String,
    pub(crate) eta: String,
}

/// What a careful person would make of a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Intent {
    Human,
    Refund,
    Status,
    Other,
}

/// The label of a complaint.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Label {
    pub(crate) id: String,
    pub(crate) intent: Intent,
    pub(crate) order: Option<u32>,
    pub(crate) exists: bool,
}

/// Everything there is to work with.
#[derive(Debug)]
pub(crate) struct Input {
    /// Where the complaints come from.
    pub(crate) source: String,
    pub(crate) complaints: Vec<Complaint>,
    pub(crate) orders: Vec<Order>,
    /// By the id of the complaint; empty when there are none for this input.
    pub(crate) labels: HashMap<String, Label>,
    /// Rows left out.
    pub(crate) faulty: Vec<Faulty>,
}

/// A row that cannot be used.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.why)
    }
}

/// The rows that cannot be used, one a line, as many as anybody will read.
pub(crate) fn named(faulty: &[Faulty]) -> Vec<String> {
    let mut lines: Vec<_> = faulty.iter().take(NAMED_ROWS).map(Faulty::to_string).collect();
    if let Some(more @ 1..) = faulty.len().checked_sub(NAMED_ROWS) {
        lines.push(format!("and {more} more rows that cannot be used"));
    }
    lines
}

/// Reads the input, or what is built in.
///
/// # Errors
/// A text that names the file: it cannot be read, or has no usable row.
pub(crate) fn read(file: Option<&Path>, limit: Option<usize>) -> Result<Input, String> {
    let (source, bytes) = match file {
        Some(path) => (path.display().to_string(), load(path)?),
        None => (COMPLAINTS.0.to_owned(), COMPLAINTS.1.to_vec()),
    };
    let mut faulty = Vec::new();
    let mut complaints: Vec<Complaint> = rows(&source, &bytes, &mut faulty, check)?;
    if complaints.is_empty() {
        let mut lines = named(&faulty);
        lines.push(format!("{source}: there is no complaint in it that can be worked on"));
        return Err(lines.join("\nerror: "));
    }
    complaints.truncate(limit.unwrap_or(usize::MAX));

    let orders = match beside(file, "orders.json") {
        Some(path) => orders(&path.display().to_string(), &load(&path)?)?,
        None => orders(ORDERS.0, ORDERS.1)?,
    };
    let labels = match (file, beside(file, "expected.jsonl")) {
        (_, Some(path)) => {
            rows(&path.display().to_string(), &load(&path)?, &mut faulty, |_, _| Ok(()))?
        }
        (None, None) => rows(EXPECTED.0, EXPECTED.1, &mut faulty, |_, _| Ok(()))?,
        (Some(_), None) => Vec::new(),
    };
    let labels = labels.into_iter().map(|label: Label| (label.id.clone(), label)).collect();
    Ok(Input { source, complaints, orders, labels, faulty })
}

fn load(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}

fn beside(file: Option<&Path>, name: &str) -> Option<PathBuf> {
    file.map(|file| file.with_file_name(name)).filter(|path| path.is_file())
}

fn orders(file: &str, bytes: &[u8]) -> Result<Vec<Order>, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        format!("{file}:{}: the orders cannot be read: {}", error.line(), reason(&error))
    })
}

/// What a complaint must be, beside having the fields.
fn check(complaint: &Complaint, seen: &mut HashSet<String>) -> Result<(), String> {
    if complaint.id.trim().is_empty() {
        Err("\"id\" is empty".to_owned())
    } else if complaint.text.trim().is_empty() {
        Err("\"text\" is empty".to_owned())
    } else if complaint.text.len() > LONGEST_TEXT {
        Err(format!("\"text\" is longer than {LONGEST_TEXT} bytes"))
    } else if !seen.insert(complaint.id.clone()) {
        Err(format!("the id {:?} was used before", complaint.id))
    } else {
        Ok(())
    }
}

/// The usable rows of a file of one JSON object a line.
fn rows<T: DeserializeOwned>(
    file: &str,
    bytes: &[u8],
    faulty: &mut Vec<Faulty>,
    check: impl Fn(&T, &mut HashSet<String>) -> Result<(), String>,
) -> Result<Vec<T>, String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(format!("{file}:1: is UTF-16; save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut seen = HashSet::new();
    let mut good = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match row(line).and_then(|row| check(&row, &mut seen).map(|()| row)) {
            Ok(row) => good.push(row),
            Err(why) => faulty.push(Faulty { file: file.to_owned(), line: index + 1, why }),
        }
    }
    Ok(good)
}

fn row<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(line).map_err(|error| {
        format!("not UTF-8 from byte {} of the line on", error.valid_up_to() + 1)
    })?;
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_str(text).map_err(|error| reason(&error))
}

/// The error without the line, which counts from the row and not from the file.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    let what = if error.is_data() { "not a row of this file" } else { "not JSON" };
    format!("{what}: {} (column {})", &text[..end], error.column())
}
