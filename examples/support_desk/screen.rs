//! Progress on stderr: on a terminal the live tree, redrawn in place; otherwise a line now and then.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr};
use std::time::{Duration, Instant};

use mainstay::system::System;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::watch::Watch;
use crate::work::Work;

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Between two pictures.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(100);
/// When the terminal does not say.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// How text is set off, if at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    on: bool,
    columns: usize,
}

impl Style {
    /// Colors if this goes to a terminal and nobody said otherwise; as wide as it is.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = stream.is_terminal();
        let columns = if is_terminal { size().0 } else { usize::MAX };
        Self { on: is_terminal && !plain, columns }
    }

    /// How many there are; no end of them where it is no terminal.
    pub(crate) fn columns(self) -> usize {
        self.columns
    }

    fn set(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.set("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.set("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.set("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.set("31", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.set("33", text)
    }
}

/// Where progress is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    live: bool,
    style: Style,
    started: Instant,
    /// Lines of the picture that stands on the terminal.
    drawn: usize,
    last_line: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let live = stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|it| it != "dumb");
        let style = Style::of(&stderr());
        Self { live, style, started: Instant::now(), drawn: 0, last_line: None }
    }

    /// Shows how things stand.
    pub(crate) fn show(&mut self, system: &System, watch: &Watch, work: &Work) {
        if self.live {
            self.draw(&self.picture(system, watch, work));
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            // Nobody to tell that nobody reads.
            let _ = writeln!(stderr(), "{}", self.line(system, watch, work));
        }
    }

    /// A word in between, such as that the tree is being stopped.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = writeln!(stderr(), "{}", self.style.warn(text));
        self.drawn = 0;
    }

    /// Takes the picture away, for the report to take its place.
    pub(crate) fn clear(&mut self) {
        if self.live {
            self.draw(&[]);
        }
    }

    fn line(&self, system: &System, watch: &Watch, work: &Work) -> String {
        let fates = system.fates();
        format!(
            "{:5.1}s  {:3} of {} complaints  {} requests: {} answered, {} open; {} retries, {} handed \
             on, {} restarts",
            self.started.elapsed().as_secs_f64(),
            work.ended(),
            work.total(),
            fates.accepted,
            fates.done,
            fates.open,
            watch.retries.values().sum::<u64>(),
            watch.fallbacks.values().sum::<u64>(),
            watch.restarts,
        )
    }

    fn picture(&self, system: &System, watch: &Watch, work: &Work) -> Vec<String> {
        let (ended, total) = (work.ended(), work.total());
        let full = (ended * 30).checked_div(total).unwrap_or(0);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(30 - full));
        let mut lines = vec![format!("{bar} {ended}/{total}")];
        lines.push(self.line(system, watch, work).trim_start().to_owned());
        lines.push(String::new());
        lines.extend(system.tree().to_string().lines().map(str::to_owned));
        lines.push(String::new());
        lines.extend(watch.news.iter().cloned());
        if let Some((complaint, answer)) = work.last() {
            lines.push(String::new());
            let (id, answer) = (one_line(&complaint.id), one_line(&answer));
            lines.push(format!("{id}  {}", one_line(&complaint.text)));
            lines.push(format!("{:width$}  {answer}", "", width = id.width()));
        }
        lines
    }

    fn draw(&mut self, lines: &[String]) {
        let (columns, rows) = size();
        let lines = &lines[..lines.len().min(rows.saturating_sub(1))];
        let mut out = String::new();
        if self.drawn > 0 {
            // After a resize the old picture may be longer than the terminal; what has left it stays.
            let _ = write!(out, "\x1b[{}A\r", self.drawn.min(rows.saturating_sub(1)));
        }
        for line in lines {
            let line = cut(line, columns.saturating_sub(1));
            let _ = write!(out, "{}\x1b[K\r\n", self.paint(&line));
        }
        out.push_str("\x1b[J");
        self.drawn = lines.len();
        let mut stderr = stderr().lock();
        let _ = stderr.write_all(out.as_bytes()).and_then(|()| stderr.flush());
    }

    fn paint(&self, line: &str) -> String {
        if !self.style.on {
            return line.to_owned();
        }
        let troubled = ["open ", "half-open", "restarting", "backing off", "quarantined", "alert"];
        if line.starts_with('█') || line.starts_with('░') {
            self.style.good(line)
        } else if line.starts_with("name ") {
            self.style.bold(line)
        } else if line.contains("─ ") && troubled.iter().any(|word| line.contains(word)) {
            self.style.warn(line)
        } else if line.contains("alert: ") {
            self.style.bad(line)
        } else {
            line.to_owned()
        }
    }
}

fn size() -> (usize, usize) {
    terminal_size::terminal_size()
        .map_or(USUAL_SIZE, |(columns, rows)| (usize::from(columns.0), usize::from(rows.0)))
}

/// The text without what would break the line or steer the terminal.
pub(crate) fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As much of the text as fits so many columns.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    cut.push('…');
    cut
}
