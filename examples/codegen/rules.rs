//! The offline generator: it turns a specification into the lines of a function by rules, and gets them
//! wrong where the faults say so.
//!
//! *Invariant.* A generation has as many lines as any other of the same function, so that one that was
//! begun by another process can be gone on with.

use crate::faults::{Faults, Flaw};
use crate::specs::{Spec, python};

/// The lines of a generation, from 1, of a function.
pub(crate) fn write(spec: &Spec, faults: &Faults, generation: u32) -> Vec<String> {
    let lines = well(spec);
    let choice = |of| faults.choice(&spec.name, generation, of);
    match faults.flaw(&spec.name, generation) {
        None => lines,
        Some(Flaw::Syntax) => misspelt(lines, choice(3)),
        Some(Flaw::Logic) => mistaken(lines, body(spec)),
    }
}

fn well(spec: &Spec) -> Vec<String> {
    let mut lines = head(spec);
    for refusal in &spec.refuses {
        lines.push(format!("    if {}:", refusal.when));
        lines.push(format!("        raise ValueError({:?})", refusal.because));
    }
    for (name, value) in &spec.keeps {
        lines.push(format!("    {name} = {value}"));
    }
    let mut indent = "    ";
    if let Some(walks) = &spec.walks {
        lines.push(format!("    for {walks}:"));
        indent = "        ";
    }
    lines.extend(spec.does.iter().map(|line| format!("{indent}{line}")));
    lines.push(format!("    return {}", spec.gives));
    lines
}

/// The signature and the words about it.
pub(crate) fn head(spec: &Spec) -> Vec<String> {
    let mut lines = vec![spec.signature(), format!("    \"\"\"Returns {}.", spec.says)];
    for example in spec.shown().iter().filter(|example| !example.raises) {
        lines.push(String::new());
        lines.push(format!("    >>> {}", spec.call(example)));
        lines.push(format!("    {}", python(&example.gives)));
    }
    lines.push("    \"\"\"".to_owned());
    lines
}

/// Where the code begins.
fn body(spec: &Spec) -> usize {
    head(spec).len() + 2 * spec.refuses.len()
}

/// A generation that is no Python.
fn misspelt(mut lines: Vec<String>, how: usize) -> Vec<String> {
    let last = lines.len() - 1;
    match how {
        0 => lines[0] = lines[0].trim_end_matches(':').to_owned(),
        1 => lines[last] = lines[last].replacen("return", "retrun", 1),
        _ => lines[last].push_str(" +"),
    }
    lines
}

/// A generation that does something else: an operator is mistaken for its opposite, or the result is
/// forgotten.
fn mistaken(mut lines: Vec<String>, from: usize) -> Vec<String> {
    const OPPOSITES: [(&str, &str); 6] = [
        (" == ", " != "),
        (" < ", " > "),
        (" > ", " < "),
        (" + ", " - "),
        (" += ", " -= "),
        (" in ", " not in "),
    ];
    // A loop that never ends would only be slow to find.
    let is_loop = |line: &str| line.starts_with("for ") || line.starts_with("while ");
    let code = |line: &&mut String| !is_loop(line.trim_start());
    for line in lines[from..].iter_mut().filter(code) {
        for (right, wrong) in OPPOSITES {
            if line.contains(right) {
                *line = line.replacen(right, wrong, 1);
                return lines;
            }
        }
    }
    if let Some(last) = lines.last_mut() {
        *last = "    return None".to_owned();
    }
    lines
}
