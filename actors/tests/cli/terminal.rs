//! A conversation at a real terminal: what is typed, what appears, and how it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::LocalModes;

use super::harness::Folder;

/// The command at a terminal of its own; ends with it.
struct Terminal {
    ours: File,
    child: Child,
    seen: String,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    fn open(folder: &Folder, arguments: &[&str]) -> Self {
        let ours: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let name = name.to_str().unwrap();
        let theirs = || Stdio::from(File::options().read(true).write(true).open(name).unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
        command.args(arguments).current_dir(&folder.0).env("TERM", "xterm");
        command.stdin(theirs()).stdout(theirs()).stderr(theirs());
        let child = command.spawn().unwrap();
        Self { ours: File::from(ours), child, seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until this appears, and forgets what stood before it.
    fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                return self.seen.drain(..at + text.len()).collect();
            }
            let mut bytes = [0; 4096];
            let read = self.ours.read(&mut bytes).unwrap_or(0);
            assert!(read > 0, "{text:?} never appears: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    fn ends(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// Done by a thread of its own, while the server of the test answers.
async fn at_terminal(folder: Folder, steps: impl FnOnce(&mut Terminal) + Send + 'static) {
    at_terminal_with(folder, &[], steps).await;
}

async fn at_terminal_with(
    folder: impl Into<Arc<Folder>>,
    arguments: &'static [&'static str],
    steps: impl FnOnce(&mut Terminal) + Send + 'static,
) {
    let folder = folder.into();
    let (tell, process) = tokio::sync::oneshot::channel();
    let work = move || {
        let mut terminal = Terminal::open(&folder, &[&["run", "t.toml"], arguments].concat());
        tell.send(terminal.child.id()).unwrap();
        terminal.until("> ");
        steps(&mut terminal);
    };
    let mut work = tokio::task::spawn_blocking(work);
    let process = process.await.unwrap().to_string();
    // What never appears ends the test, and is named by it.
    let outcome = tokio::time::timeout(Duration::from_secs(60), &mut work).await;
    if let Ok(outcome) = outcome {
        return outcome.unwrap();
    }
    Command::new("kill").args(["-KILL", &process]).status().unwrap();
    work.await.unwrap();
}

fn agent(server: &StubServer, rest: &str) -> Folder {
    let text = format!(
        "[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[agents.helper]\nmodel = \"llm\"\n{rest}",
        server.url()
    );
    Folder::with("t.toml", &text)
}

const UP: &str = "\u{1b}[A";
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_of_those_that_come_at_once() {
    let server = StubServer::start().await.unwrap();
    for answer in ["the first", "the second", "the third", "the fourth"] {
        server.then(Row::reply_stream([answer]));
    }
    at_terminal(agent(&server, ""), |terminal| {
        terminal.type_in("one\rtwo\rthree");
        terminal.until("the first");
        terminal.until("the second");
        terminal.until("three");
        terminal.type_in("!\r");
        terminal.until("the third");
        terminal.until("> ");
        // Marked as a paste, lines are one question.
        terminal.type_in("\u{1b}[200~four\rfive\u{1b}[201~\r");
        terminal.until("the fourth");
        terminal.until("> ");
        terminal.type_in(CTRL_D);
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
    let asked: Vec<_> = server
        .requests()
        .iter()
        .map(|seen| seen.json()["messages"].as_array().unwrap().last().unwrap()["content"].clone())
        .collect();
    assert_eq!(asked, ["one", "two", "three!", "four\nfive"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_two_lines_comes_back_as_it_was_in_the_next_session() {
    let server = StubServer::start().await.unwrap();
    let folder = Arc::new(agent(&server, ""));
    for typed in ["\u{1b}[200~four\rfive\u{1b}[201~\r", "\u{1b}[A\r"] {
        server.then(Row::reply_stream(["the answer"]));
        at_terminal_with(Arc::clone(&folder), &["--history", "lines"], move |terminal| {
            terminal.type_in(typed);
            terminal.until("the answer");
            terminal.until("> ");
            terminal.type_in(CTRL_D);
            assert_eq!(terminal.ends(), Some(0));
        })
        .await;
        let asked = server.requests().pop().unwrap().json();
        let asked = asked["messages"].as_array().unwrap().last().unwrap()["content"].clone();
        assert_eq!(asked, "four\nfive", "{typed:?}");
    }
    let kept = std::fs::read_to_string(folder.0.join("lines")).unwrap();
    assert_eq!(kept.lines().count(), 2, "each on a line: {kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn arrow_keys_bring_lines_back_and_ctrl_d_ends() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["one ", "two"]));
    server.then(Row::reply_stream(["three"]));
    at_terminal(agent(&server, ""), |terminal| {
        terminal.type_in("what is it?\r");
        terminal.until("one ");
        terminal.until("(by t/helper; 1 step;");
        terminal.until("> ");
        terminal.type_in(UP);
        terminal.until("what is it?");
        terminal.type_in("\r");
        terminal.until("three");
        terminal.until("> ");
        terminal.type_in("/tree\r");
        terminal.until("supervisor one_for_one");
        terminal.until("> ");
        terminal.type_in(CTRL_D);
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
    let asked = server.requests()[1].json()["messages"].clone();
    let said: Vec<_> = asked.as_array().unwrap().iter().map(|it| &it["content"]).collect();
    assert_eq!(said, ["what is it?", "one two", "what is it?"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_at_the_prompt_warns_once_and_then_leaves() {
    let server = StubServer::start().await.unwrap();
    at_terminal(agent(&server, ""), |terminal| {
        terminal.type_in(CTRL_C);
        terminal.until("Ctrl-C again leaves.");
        terminal.until("> ");
        terminal.type_in("/help\r");
        terminal.until("Ctrl-C    calls a question off");
        terminal.until("> ");
        terminal.type_in(CTRL_C);
        terminal.until("Ctrl-C again leaves.");
        terminal.until("> ");
        terminal.type_in(CTRL_C);
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_calls_the_running_answer_off_and_the_conversation_goes_on() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Hang));
    server.then(Row::reply_stream(["again"]));
    at_terminal(agent(&server, ""), |terminal| {
        terminal.type_in("what is it?\r");
        terminal.until("one ");
        // As the terminal would do for Ctrl-C, if it were the process's own.
        let process = terminal.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
        terminal.until("called off");
        terminal.until("> ");
        terminal.type_in("once more\r");
        terminal.until("again");
        terminal.until("> ");
        terminal.type_in("/quit\r");
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
    server.hung_up(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_at_the_terminal_and_may_call_it_off() {
    let server = StubServer::start().await.unwrap();
    let rest = "tools = [\"boss\"]\n[people.boss]\nexpiry = \"1h\"\n";
    for _ in 0..2 {
        server.then(Row::tool_calls([("boss", "{\"request\":\"may I?\"}")]));
    }
    server.then(Row::reply("you may"));
    at_terminal(agent(&server, rest), |terminal| {
        terminal.type_in("go\r");
        terminal.until("boss-1 waits for a person: boss {\"request\":\"may I?\"}");
        terminal.until("> ");
        terminal.type_in(CTRL_C);
        terminal.until("called off");
        let told = terminal.until("> ");
        assert!(!told.contains("done"), "a person was asked, and nothing was done: {told}");
        terminal.type_in("go\r");
        terminal.until("boss-2 waits for a person");
        terminal.until("> ");
        terminal.type_in("/approve boss-2\r");
        terminal.until("decided: boss-2");
        terminal.until("you may");
        terminal.until("> ");
        terminal.type_in(CTRL_D);
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_while_a_person_is_waited_for_come_after_that() {
    for (expiry, says) in [("1h", Some("/approve boss-1\r")), ("1s", None)] {
        let server = StubServer::start().await.unwrap();
        let rest = format!("tools = [\"boss\"]\n[people.boss]\nexpiry = \"{expiry}\"\n");
        server.then(Row::tool_calls([("boss", "{\"request\":\"may I?\"}")]));
        for answer in ["it is decided", "the second", "the third"] {
            server.then(Row::reply(answer));
        }
        at_terminal(agent(&server, &rest), move |terminal| {
            terminal.type_in("one\rtwo\rthree\r/quit\r");
            terminal.until("boss-1 waits for a person");
            terminal.until("what you type comes after that");
            if let Some(says) = says {
                terminal.until("comes after that, too");
                terminal.until("comes after that, too");
                // What cannot be meant for later is not put off.
                terminal.type_in("/aprove boss-1\r");
                terminal.until("there is no /aprove boss-1");
                terminal.type_in(says);
            }
            terminal.until("it is decided");
            terminal.until("> two");
            terminal.until("the second");
            terminal.until("> three");
            terminal.until("the third");
            assert_eq!(terminal.ends(), Some(0));
        })
        .await;
        let asked = server
            .requests()
            .iter()
            .map(|it| it.json()["messages"].to_string())
            .collect::<Vec<_>>();
        assert!(asked.len() == 4 && asked[3].contains("\"three\""), "{asked:?}");
    }
    // Who calls the question off does not want the others, either.
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("boss", "{\"request\":\"may I?\"}")]));
    let rest = "tools = [\"boss\"]\n[people.boss]\nexpiry = \"1h\"\n";
    at_terminal(agent(&server, rest), |terminal| {
        terminal.type_in("one\rtwo\r");
        terminal.until("what you type comes after that");
        terminal.until("> ");
        terminal.type_in(CTRL_C);
        terminal.until("not asked any more: two");
        terminal.until("called off");
        terminal.until("> ");
        terminal.type_in(CTRL_D);
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_again_what_is_typed_once_the_command_has_ended_at_its_prompt() {
    let server = StubServer::start().await.unwrap();
    at_terminal(agent(&server, ""), |terminal| {
        let shows = |terminal: &Terminal| {
            let modes = rustix::termios::tcgetattr(&terminal.ours).unwrap().local_modes;
            modes.contains(LocalModes::ECHO | LocalModes::ICANON)
        };
        assert!(!shows(terminal), "the prompt shows it itself");
        let process = terminal.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
        terminal.until("ended by SIGTERM");
        assert_eq!(terminal.ends(), Some(143));
        assert!(shows(terminal));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_the_command_in_the_middle_of_an_answer_is_said_on_a_line_of_its_own() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Hang));
    at_terminal(agent(&server, ""), |terminal| {
        terminal.type_in("what is it?\r");
        terminal.until("one ");
        let process = terminal.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
        terminal.until("\r\nmainstay: ended by SIGTERM\r\n");
        assert_eq!(terminal.ends(), Some(143));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_shown_the_codes_of_an_answer_and_does_not_obey_them() {
    let server = StubServer::start().await.unwrap();
    let codes = "\u{1b}]0;mine\u{7}\u{1b}[31mred\u{9b}0m\r\n\tend";
    server.then(Row::reply_stream([codes]));
    server.then(Row::error(401, "invalid_api_key", codes));
    at_terminal(agent(&server, ""), |terminal| {
        terminal.type_in("what is it?\r");
        terminal.until("\u{241b}]0;mine\u{2407}\u{241b}[31mred\u{fffd}0m\r\n");
        terminal.until("> ");
        terminal.type_in("once more\r");
        terminal.until("no answer: ");
        terminal.until("\u{241b}[31mred");
        // A line, since it may come before the prompt: what follows has an arrow in it, which looks like one.
        terminal.type_in("/quit\r");
        assert_eq!(terminal.ends(), Some(0));
    })
    .await;
    // What goes elsewhere stays as it is.
    server.then(Row::reply(codes));
    let folder = agent(&server, "");
    let said = super::models::run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!(said.out, format!("{codes}\n"), "{said:?}");
}
