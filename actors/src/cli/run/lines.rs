//! The lines that a person types.

use std::fs::OpenOptions;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use tokio::sync::mpsc;

/// How the terminal was before a line was asked for. While one is, it shows nothing of what is typed by itself.
#[cfg(unix)]
static BEFORE: std::sync::OnceLock<rustix::termios::Termios> = std::sync::OnceLock::new();

/// Leaves the terminal as it was: whoever asks for a line does that only once the line has come.
pub(crate) fn restore_terminal() {
    #[cfg(unix)]
    if let Some(before) = BEFORE.get() {
        use rustix::termios::{OptionalActions, tcgetpgrp, tcsetattr};
        // In the background of its terminal it would be stopped for that, and has asked for nothing.
        let is_behind = |group| group != rustix::process::getpgrp();
        if !tcgetpgrp(std::io::stdin()).is_ok_and(is_behind) {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Lines kept in a history's file that are offered again.
const OFFERED: usize = 1_000;

/// What stands in a history's file, where each has a line, for the end of a line in a question of several.
const BREAK: &str = "\u{2028}";

/// Something typed.
#[derive(Debug)]
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupt,
    /// A line that is no text.
    Unreadable,
}

/// Whether a person sits at the input.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal()
}

/// Lines, read in a thread of its own: one for each [`Lines::next`].
pub(super) struct Lines {
    lines: mpsc::UnboundedReceiver<Typed>,
    wanted: std::sync::mpsc::Sender<()>,
    /// Whether a line was asked for that has not come.
    awaited: bool,
}

impl Lines {
    /// Lines typed before are offered again, and are kept in this file if one is named.
    pub(super) fn new(history: Option<PathBuf>) -> anyhow::Result<Self> {
        #[cfg(unix)]
        if let Ok(now) = rustix::termios::tcgetattr(std::io::stdin()) {
            let _ = BEFORE.set(now);
        }
        let config = Config::builder().max_history_size(OFFERED).context("the history")?.build();
        let mut editor = DefaultEditor::with_config(config).context("the terminal")?;
        let mut file = None;
        if let Some(path) = history {
            let named = || format!("the history {}", path.display());
            let mut options = OpenOptions::new();
            options.create(true).append(true).read(true);
            // What a person asks is nobody else's to read.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let opened = options.open(&path).with_context(named)?;
            let lines: Result<Vec<_>, _> = std::io::BufReader::new(&opened).lines().collect();
            let lines = lines.with_context(named)?;
            for line in &lines[lines.len().saturating_sub(OFFERED)..] {
                editor.add_history_entry(line.replace(BREAK, "\n")).ok();
            }
            file = Some(opened);
        }
        let (to_lines, lines) = mpsc::unbounded_channel();
        let (wanted, asked) = std::sync::mpsc::channel();
        let read = move || {
            while asked.recv().is_ok() {
                let typed = match editor.readline("> ") {
                    Ok(line) => Typed::Line(line),
                    Err(ReadlineError::Interrupted) => Typed::Interrupt,
                    Err(ReadlineError::Io(error))
                        if error.kind() == std::io::ErrorKind::InvalidData =>
                    {
                        Typed::Unreadable
                    }
                    Err(_) => return,
                };
                if let Typed::Line(line) = &typed
                    && !line.trim().is_empty()
                {
                    editor.add_history_entry(line.as_str()).ok();
                    if let Some(file) = &mut file {
                        // Written at once: it is there after a kill.
                        let line = line.replace('\n', BREAK);
                        let _ = writeln!(file, "{line}");
                    }
                }
                if to_lines.send(typed).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("lines".to_owned()).spawn(read)?;
        Ok(Self { lines, wanted, awaited: false })
    }

    /// The next line; `None` at the end of the input. Given up, it loses no line.
    pub(super) async fn next(&mut self) -> Option<Typed> {
        if !self.awaited {
            self.wanted.send(()).ok()?;
            self.awaited = true;
        }
        let typed = self.lines.recv().await;
        self.awaited = false;
        typed
    }
}
