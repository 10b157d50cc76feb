//! The command line: `mainstay run`, `mainstay check`, `mainstay tree`, `mainstay store`.
//!
//! *Invariant.* Everything goes through the public interface of the two packages: what the command
//! can do, a program can. The exit code says whether the same command may do better at another time (1), or
//! something about it has to be changed (2): `src/docs/tree-file.md` has the table.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use mainstay::checkpoint::MemoryStore;
use mainstay::error::{RecoverError, StartError, StoreError};
use mainstay::fault::{Class, Fault};
use mainstay::system::System;

use build::Tree;
use chaos::Trial;
use run::Session;
use signals::{Ended, Signals};
use snag::Snags;

mod aside;
mod build;
mod chaos;
mod check;
mod file;
mod people;
mod points;
mod profile;
mod run;
mod shop;
mod signals;
mod snag;
mod verify;
mod watch;

/// Run, check and show supervision trees of AI agents, described in one file.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a tree and ask it: one prompt, or a conversation when there is none and a terminal.
    Run {
        /// The tree file.
        file: PathBuf,
        /// What to ask. Read from standard input when it is missing and no person types.
        prompt: Option<String>,
        /// Print the answer, or why there is none, as one JSON object on one line. An `error` has a
        /// `retry_after` where it is known in how many seconds somebody is offered work again.
        #[arg(long)]
        json: bool,
        /// Show on standard error what happens: failures, retries, substitutes. On by itself when
        /// standard error is a terminal.
        #[arg(long)]
        progress: bool,
        /// Show the answer as it is written. On by itself when standard output is a terminal. With --json, an
        /// object on each line: what happens while it is written, and last the answer or the error.
        #[arg(long)]
        stream: bool,
        /// Hold a conversation even if no person types: every line of the input is a question or a
        /// command.
        #[arg(long, conflicts_with_all = ["json", "prompt"])]
        chat: bool,
        /// Keep the lines typed in a conversation in this file, and offer those of before. A question of several lines is
        /// one line of it, with U+2028 for the ends of lines.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "prompt"])]
        history: Option<PathBuf>,
        /// Ask once under this key, however often the command is run: what was answered is only printed
        /// again, also after a kill. Of use with a [store] that keeps what is asked.
        #[arg(long, value_name = "KEY", conflicts_with_all = ["chat", "history"])]
        key: Option<String>,
        /// Take up a store that was left by a tree with other agents.
        #[arg(long)]
        adopt: bool,
    },
    /// Validate a tree file and print what the tree does when something fails.
    ///
    /// A file has the sections [models.NAME], [groups.NAME], [tools.NAME], [people.NAME],
    /// [agents.NAME], and may have [policy], [supervisor], [store], and, where a model and no agent is
    /// asked, [ask]; the smallest is:
    ///
    ///     [models.llm]
    ///     kind = "local"
    ///
    ///     [agents.helper]
    ///     model = "llm"
    ///
    /// Groups are of the kinds model, tool, step, data and output; the first member serves, the others
    /// stand in, in their order. A member may be a tool of a server (`server.tool`) and, in all of them, a
    /// person. An agent's `agents` are those it starts one of for a task. All of it is shown in the
    /// example `examples/trees/desk.toml`.
    ///
    /// Paths begin at the file's folder. So does the program of a server's `command` if it has a slash;
    /// a name without one is looked up in PATH. The server runs in the file's folder, or in its `dir`.
    ///
    /// With a [store], what an agent in no group is asked survives a kill, and so does what the group is
    /// asked that answers you; `durable = false` in that group gives it up. A group whose members may
    /// both work gives a slow request to the next one, too:
    ///
    ///     hedge = { after = "300ms" }        # or "p95": slower than 95 of 100
    ///
    /// Where a person may decide what becomes of a request that has failed, and how long it waits:
    ///
    ///     [points]
    ///     at_once = "5m"                     # where no rung may help: a missing permission
    ///     after_retry = "2m"                 # and after_substitute, after_rollback
    ///     otherwise = "continue"             # or "abort", "retry_again"
    ///
    /// What is aimed at and when somebody is told; an id of the playbook's, as printed here, changes it:
    ///
    ///     [watch]
    ///     window = "10m"                     # and hold, count_defaulted, without = ["S25"]
    ///
    ///     [watch.objectives.S39]             # also: name, measure, kind, signal
    ///     above = "99 %"
    ///
    ///     [watch.alerts.ours]                # also: min_samples
    ///     measure = "request_errors"
    ///     above = "5 %"
    ///     severity = "critical"
    #[command(verbatim_doc_comment)]
    Check {
        /// The tree file.
        file: PathBuf,
        /// Try the tree at the playbook's failure rates, with models and tools that are played: nothing
        /// outside is asked. Ends with 1 if an objective is missed or a question is lost.
        #[arg(long)]
        chaos: bool,
        /// How many questions are asked at each rate.
        #[arg(long, value_name = "N", default_value_t = 200, requires = "chaos")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        requests: u32,
        /// Another seed has other attempts fail; the same has the same fail again.
        #[arg(long, value_name = "S", default_value_t = 1, requires = "chaos")]
        seed: u64,
        /// Print what came of the trial as one JSON object on one line.
        #[arg(long, requires = "chaos")]
        json: bool,
    },
    /// Start a tree, print it, and stop it.
    Tree {
        /// The tree file.
        file: PathBuf,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// What the store of a tree has set aside, and what waits for a person to settle it.
    ///
    /// Set aside are requests that ended two lives, or whose agent is no more, and checkpoints that could
    /// not be restored. Effects wait whose outcome nobody knows, or whose undo is stuck. The tree is not
    /// started; a store that a process works with is refused, and who has it is said.
    Store {
        /// The tree file.
        file: PathBuf,
        /// What to do; `list` if nothing is said.
        #[command(subcommand)]
        act: Option<aside::Act>,
        /// Print what comes of it as one JSON object on one line.
        #[arg(long, global = true)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
    Dot,
    Mermaid,
}

/// What is printed besides answers.
#[derive(Clone, Copy, Debug)]
struct Show {
    json: bool,
    progress: bool,
    stream: bool,
}

/// Why something that was to be on standard output is not there.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// Whether the reader of standard output has gone away.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes a line to standard output.
fn say(text: impl fmt::Display) {
    write_out(&format!("{text}\n"));
}

/// Writes to standard output. A reader that has gone away is nobody's failure; a full disk is one, at the end.
fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let text = harmless(text.to_owned(), out.is_terminal());
    match Writing::Output.all(&mut out, &text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
        }
        Err(error) => drop(UNWRITTEN.get_or_init(|| error.to_string())),
        Ok(()) => {}
    }
}

/// What is being written, which takes as long as the reader does.
#[derive(Clone, Copy)]
enum Writing {
    Output,
    Errors,
}

/// How often a part of something was written, of each; odd within one.
static PARTS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

impl Writing {
    /// In parts, so that one who reads slowly is told from one who does not read. The lock of it is held.
    fn all(self, out: &mut impl Write, text: &str) -> std::io::Result<()> {
        let parts = &PARTS[self as usize];
        let one = |write: &mut dyn FnMut() -> std::io::Result<()>| {
            parts.fetch_add(1, Ordering::Relaxed);
            let done = write();
            parts.fetch_add(1, Ordering::Relaxed);
            done
        };
        for part in text.as_bytes().chunks(4096) {
            one(&mut || out.write_all(part))?;
        }
        one(&mut || out.flush())
    }

    /// How far both are.
    fn now() -> [u64; 2] {
        PARTS.each_ref().map(|parts| parts.load(Ordering::Relaxed))
    }

    /// Whether one of them was being written then and is not a part further.
    fn is_stuck_since(before: [u64; 2]) -> bool {
        before.iter().zip(Self::now()).any(|(before, now)| before % 2 == 1 && *before == now)
    }
}

/// Whether all that was written to standard output has found its way.
fn is_heard() -> bool {
    UNWRITTEN.get().is_none() && !UNREAD.load(Ordering::Relaxed)
}

/// Writes a line to standard error. Most of what stands there is nothing without which somebody acts wrongly.
fn tell(text: impl fmt::Display) {
    has_told(text);
}

/// The same, and whether it could be written: somebody may have heard it.
fn has_told(text: impl fmt::Display) -> bool {
    let mut err = std::io::stderr().lock();
    let text = harmless(format!("{text}\n"), err.is_terminal());
    Writing::Errors.all(&mut err, &text).is_ok()
}

/// What a model, a tool or a file says may hold codes that a terminal obeys: it is shown them, and does
/// not get them. What goes elsewhere stays as it is.
fn harmless(text: String, is_terminal: bool) -> String {
    let obeyed = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns_around(c);
    if !is_terminal || !text.contains(obeyed) {
        return text;
    }
    let shown = |c: char| match c {
        c if !obeyed(c) => Some(c),
        '\r' => None,
        '\u{7f}' => Some('\u{2421}'),
        // The picture of a control code.
        c => Some(char::from_u32(0x2400 + c as u32).filter(|_| c < ' ').unwrap_or('\u{fffd}')),
    };
    text.chars().filter_map(shown).collect()
}

/// Whether what comes after it is shown in another order than it is written: what a text says could then look
/// like something else.
pub(crate) const fn turns_around(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// There is no answer. Empty when it has been said why already.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Runs the command that the arguments say.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_trial = matches!(cli.command, Command::Check { chaos: true, .. });
    let runtime = match is_trial {
        // Days pass in seconds, and in the same order every time.
        true => {
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
        }
        false => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format_args!("mainstay: no runtime: {error}"));
            return ExitCode::from(1);
        }
    };
    let wants_json = matches!(
        cli.command,
        Command::Run { json: true, .. }
            | Command::Check { json: true, .. }
            | Command::Store { json: true, .. }
    );
    let wants_lines = matches!(cli.command, Command::Run { json: true, stream: true, .. });
    let about_store = matches!(cli.command, Command::Store { .. });
    let result = runtime.block_on(execute(cli.command));
    // A thread that reads the terminal would hold it up.
    runtime.shutdown_background();
    run::restore_terminal();
    let Err(error) = result else {
        let Some(error) = UNWRITTEN.get() else { return ExitCode::SUCCESS };
        tell(format_args!("mainstay: standard output: {error}"));
        return ExitCode::from(1);
    };
    let is_told = error.downcast_ref::<Failed>().is_some_and(|failed| failed.0.is_empty())
        || error.downcast_ref::<Ended>().is_some_and(|ended| ended.is_told());
    if wants_json && !is_told {
        // A program reads standard output, and reads of this failure there, too.
        let kind = match () {
            () if error.is::<Snags>() => "file",
            () if about_store => "store",
            () if error.is::<Ended>() => "ended",
            () => "not_asked",
        };
        let message = causes(&error);
        let error = serde_json::json!({"error": {"kind": kind, "message": message.trim_end()}});
        say(if wants_lines { run::as_line("error", error) } else { error });
    }
    if let Some(snags) = error.downcast_ref::<Snags>() {
        tell(snags.to_string().trim_end());
        return ExitCode::from(2);
    }
    if let Some(ended) = error.downcast_ref::<Ended>() {
        tell(format_args!("mainstay: {ended}"));
        return ExitCode::from(ended.code());
    }
    if error.downcast_ref::<Failed>().is_none_or(|failed| !failed.0.is_empty()) {
        tell(format_args!("mainstay: {}", causes(&error)));
    }
    ExitCode::from(if may_pass(&error) { 1 } else { 2 })
}

/// Whether neither the file nor an argument is wrong: at another time, the same command may have its answer.
fn may_pass(error: &anyhow::Error) -> bool {
    let started = |error: &StartError| !matches!(error, StartError::Spec(_));
    error.is::<Failed>()
        // A server that did not start: what it was given may be wrong.
        || error.downcast_ref::<Fault>().is_some_and(|it| it.class != Class::InputValidation)
        || error.is::<StoreError>()
        || error.downcast_ref().is_some_and(started)
        || match error.downcast_ref() {
            Some(RecoverError::Start(error)) => started(error),
            Some(
                RecoverError::Topology { .. }
                | RecoverError::Request { .. }
                | RecoverError::Child { .. },
            ) => false,
            other => other.is_some(),
        }
}

/// An error with its causes, without those that it has in its own words.
fn causes(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |said, cause| {
        let cause = cause.to_string();
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { file, prompt, json, progress, stream, chat, history, key, adopt } => {
            let mut tree = Tree::read(&file)?;
            let show = Show {
                json,
                progress: progress || (!json && std::io::stderr().is_terminal()),
                stream: stream || (!json && std::io::stdout().is_terminal()),
            };
            let converse =
                prompt.is_none() && !json && key.is_none() && (chat || run::is_interactive());
            if let Some(wrong) = key.as_deref().and_then(run::wrong_key) {
                anyhow::bail!("--key {wrong}");
            }
            if adopt && !tree.has_store() {
                anyhow::bail!(
                    "--adopt takes up what a store keeps: {} has no [store] with a `path`",
                    file.display()
                );
            }
            if let (Some(_), false) = (&key, tree.outlives_the_process()) {
                anyhow::bail!(
                    "--key asks once where what is asked is kept: {} keeps nothing of {}",
                    file.display(),
                    tree.entry()
                );
            }
            if history.is_some() && !converse {
                anyhow::bail!(
                    "--history is for a conversation; add --chat to have one without a terminal"
                );
            }
            let mut signals = Signals::new().context("the signals")?;
            let mut session = tokio::select! {
                session = Session::start(&mut tree, show, adopt) => session?,
                ended = signals.next_or_interrupt() => return Err(ended.into()),
            };
            let (system, mut hurries) = (session.system(), false);
            let result = {
                let work = async {
                    match converse {
                        true => session.converse(history).await,
                        false => session.once(prompt, key).await,
                    }
                };
                let mut work = std::pin::pin!(work);
                tokio::select! {
                    result = &mut work => result,
                    ended = signals.next() => {
                        // The work is not called off before: what is durable goes on at the next start.
                        tokio::select! {
                            biased;
                            _ = system.stop() => {}
                            // A second one does not wait for the first.
                            _ = signals.next() => hurries = true,
                        }
                        Err(ended.into())
                    }
                }
            };
            if !hurries {
                tokio::select! {
                    biased;
                    () = session.stop() => {}
                    _ = signals.next() => {}
                }
            }
            let result = session.told_end(result);
            session.end().await;
            result
        }
        Command::Check { file, chaos: true, requests, seed, json } => {
            chaos::run(&mut Tree::read(&file)?, Trial { requests, seed, json }).await
        }
        Command::Check { file, .. } => {
            let tree = Tree::read(&file)?;
            match tree.look_closer() {
                Ok(strange) => strange.iter().for_each(|it| tell(it.to_string().trim_end())),
                // As with `run`: the file may be right, and somebody else mends it.
                Err(unusable) => {
                    tell(unusable.to_string().trim_end());
                    return Err(Failed(String::new()).into());
                }
            }
            say(check::page(&tree).trim_end());
            Ok(())
        }
        Command::Tree { file, format } => {
            let mut tree = Tree::read(&file)?;
            let mut signals = Signals::new().context("the signals")?;
            let start = async {
                for note in tree.discover().await? {
                    tell(format_args!("mainstay: {note}"));
                }
                // What is stored is neither needed nor touched: another process may be at work with it.
                let store = Arc::new(MemoryStore::new());
                anyhow::Ok(System::recover(tree.spec()?, store).await?.0)
            };
            let system = tokio::select! {
                system = start => system?,
                ended = signals.next_or_interrupt() => return Err(ended.into()),
            };
            for (here, own) in tree.aliases() {
                tell(format_args!("mainstay: {here} is what its server calls {own:?}"));
            }
            let dump = system.tree();
            match format {
                Format::Text => say(dump.to_string().trim_end()),
                Format::Json => say(dump.to_json()),
                Format::Dot => say(dump.to_dot()),
                Format::Mermaid => say(dump.to_mermaid()),
            }
            let mut stop = std::pin::pin!(system.stop());
            tokio::select! {
                _ = &mut stop => Ok(()),
                ended = signals.next_or_interrupt() => {
                    // A second one does not wait for the first.
                    tokio::select! {
                        _ = stop => {}
                        _ = signals.next_or_interrupt() => {}
                    }
                    Err(ended.into())
                }
            }
        }
        Command::Store { file, act, json } => aside::run(&file, act, json).await,
    }
}
