//! A command that is told to end: it stops its tree in order, ends what it has started, and what is durable
//! goes on at the next start.
#![cfg(unix)]

use std::io::Write;
use std::process::{Child, Command};

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, Said, command, said};
use super::models::run;

/// A server of tools, without any, that ends neither with its input nor when it is asked to.
const STUBBORN: &str = r#"trap '' TERM HUP
echo $$ > pid
while read -r line; do
    id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    case "$line" in
    *'"initialize"'*) result='{"protocolVersion":"2025-03-26","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"tools/list"'*) result='{"tools":[]}' ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
exec tail -f /dev/null
"#;

fn lives(process: &str) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", process]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_to_end_stops_the_tree_and_what_it_has_started_and_the_question_goes_on_later() {
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let server = StubServer::start().await.unwrap();
        server.then(Row::hang());
        let stubborn = signal == "TERM";
        let tools = if stubborn { "[tools.s]\ncommand = [\"sh\", \"s.sh\"]\n" } else { "" };
        let text = format!(
            "[store]\npath = \"state\"\n{tools}[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
            server.url()
        );
        let folder = Folder::with("t.toml", &text);
        std::fs::write(folder.0.join("s.sh"), STUBBORN).unwrap();
        let child = command(&folder.0, &["run", "t.toml", "hello"]).spawn().unwrap();
        server.asked(1).await;
        let pid = std::fs::read_to_string(folder.0.join("pid")).unwrap_or_default();
        assert_eq!(lives(pid.trim()), stubborn);
        let arguments = [format!("-{signal}"), child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || said(child.wait_with_output().unwrap()));
        let ended = ended.await.unwrap();
        let expected = format!("mainstay: ended by SIG{signal}\n");
        assert_eq!((ended.code, &*ended.out, ended.err), (code, "", expected));
        assert!(!lives(pid.trim()), "{signal}: the server of tools is left behind");
        server.hung_up(1).await;
        std::fs::write(folder.0.join("t.toml"), text.replace(tools, "")).unwrap();
        let later = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
        assert_eq!((later.code, &*later.out), (0, "ok\n"), "{signal}: {later:?}");
        assert!(later.err.contains("taken up again: 1 open request"), "{signal}: {later:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_a_server_starts_ends_that_server_too() {
    let text = "[tools.s]\ncommand = [\"sh\", \"s.sh\"]\n[models.llm]\nkind = \"local\"\n[agents.a]\nmodel = \"llm\"\ntools = [\"s\"]\n";
    let script = "trap '' TERM INT HUP\necho $$ > pid\nexec tail -f /dev/null\n";
    let asks: [&[&str]; 2] = [&["run", "t.toml", "hello"], &["tree", "t.toml"]];
    for arguments in asks {
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let folder = Folder::with("t.toml", text);
            std::fs::write(folder.0.join("s.sh"), script).unwrap();
            let pipe = folder.0.join("pid");
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let child = command(&folder.0, arguments).spawn().unwrap();
            // Waits until the server writes it.
            let pid = tokio::task::spawn_blocking(move || std::fs::read_to_string(pipe).unwrap());
            let pid = pid.await.unwrap();
            assert!(lives(pid.trim()));
            let words = [format!("-{signal}"), child.id().to_string()];
            assert!(Command::new("kill").args(words).status().unwrap().success());
            let ended =
                tokio::task::spawn_blocking(move || said(child.wait_with_output().unwrap()));
            let ended = ended.await.unwrap();
            let expected = format!("mainstay: ended by SIG{signal}\n");
            assert_eq!((ended.code, &*ended.out, ended.err), (code, "", expected), "{arguments:?}");
            // It is killed, and gone as soon as the system has come to it.
            let stays = (0..1000).all(|_| lives(pid.trim()));
            assert!(!stays, "{signal}: {arguments:?} leaves its server behind");
        }
    }
}

/// A server with one tool, which is called and never answers.
const SILENT: &str = r#"while read -r line; do
    id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    case "$line" in
    *'"initialize"'*) result='{"protocolVersion":"2025-03-26","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"tools/list"'*) result='{"tools":[{"name":"pay","inputSchema":{"type":"object"}}]}' ;;
    *'"tools/call"'*) echo called > called; continue ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_ended_is_told_what_a_person_has_to_settle() {
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let server = StubServer::start().await.unwrap();
        server.then(Row::tool_calls([("pay", "{}")]));
        let text = format!(
            "[store]\npath = \"state\"\n[tools.s]\ncommand = [\"sh\", \"s.sh\"]\n[agents.a]\nmodel = \"llm\"\ntools = [\"s.pay\"]\n\
             [models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
            server.url()
        );
        let folder = Folder::with("t.toml", &text);
        std::fs::write(folder.0.join("s.sh"), SILENT).unwrap();
        let called = folder.0.join("called");
        assert!(Command::new("mkfifo").arg(&called).status().unwrap().success());
        let child = command(&folder.0, &["run", "t.toml", "--json", "pay"]).spawn().unwrap();
        let is_called = tokio::task::spawn_blocking(move || std::fs::read_to_string(called));
        assert_eq!(is_called.await.unwrap().unwrap(), "called\n");
        let words = [format!("-{signal}"), child.id().to_string()];
        assert!(Command::new("kill").args(words).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || said(child.wait_with_output().unwrap()));
        let ended = ended.await.unwrap();
        let told: serde_json::Value = serde_json::from_str(&ended.out).expect(&ended.out);
        assert_eq!((ended.code, &told["error"]["kind"]), (code, &"ended".into()), "{ended:?}");
        assert_eq!(told["unsettled"][0]["tool"], "t/s/pay", "{ended:?}");
        assert!(ended.err.ends_with(&format!("mainstay: ended by SIG{signal}\n")), "{ended:?}");
    }
}

/// A tree with the server, with or without a store.
fn tree_of(script: &str, model: &StubServer, store: &str) -> Folder {
    let text = format!(
        "{store}[tools.s]\ncommand = [\"sh\", \"s.sh\"]\n[agents.a]\nmodel = \"llm\"\ntools = [\"s.pay\"]\n\
         [models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
        model.url()
    );
    let folder = Folder::with("t.toml", &text);
    std::fs::write(folder.0.join("s.sh"), script).unwrap();
    folder
}

const STORE: &str = "[store]\npath = \"state\"\n";

/// What a command says that is told to end while its tool is at work, again and again until it does.
async fn told_to_end(folder: &Folder, arguments: &[&str], signals: &[&'static str]) -> Said {
    told_to_end_after(folder, arguments, signals, async {}).await
}

/// The same, not before something else has happened.
async fn told_to_end_after(
    folder: &Folder,
    arguments: &[&str],
    signals: &[&'static str],
    happens: impl Future<Output = ()>,
) -> Said {
    let called = folder.0.join("called");
    assert!(Command::new("mkfifo").arg(&called).status().unwrap().success());
    let mut child = command(&folder.0, &[&["run", "t.toml", "pay"], arguments].concat());
    let mut child = child.spawn().unwrap();
    happens.await;
    let signals = signals.to_vec();
    let ended = tokio::task::spawn_blocking(move || {
        assert_eq!(std::fs::read_to_string(&called).unwrap(), "called\n");
        let kill = |child: &Child, signal: &str| {
            let words = [format!("-{signal}"), child.id().to_string()];
            assert!(Command::new("kill").args(words).status().unwrap().success());
        };
        match signals[..] {
            // Two of one kind that come at once are one: it is sent until it has been heard twice.
            [signal] => {
                while child.try_wait().unwrap().is_none() {
                    kill(&child, signal);
                }
            }
            _ => signals.iter().for_each(|signal| kill(&child, signal)),
        }
        said(child.wait_with_output().unwrap())
    });
    ended.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_wait_is_told_what_was_in_flight_and_may_have_happened() {
    let cases: [(&[&'static str], &str, &[i32]); 3] = [
        (&["INT"], "cancelled", &[1]),
        // Of two that come at once either may be heard first; the other does not wait for what that began.
        (&["TERM", "HUP"], "ended", &[143, 129]),
        (&["HUP", "TERM"], "ended", &[143, 129]),
    ];
    for (signals, kind, codes) in cases {
        for (store, later) in [
            ("", "look there yourself"),
            (STORE, "the next start, or `mainstay store`, tells more"),
        ] {
            let server = StubServer::start().await.unwrap();
            server.otherwise(Row::tool_calls([("pay", "{}")]));
            let folder = tree_of(SILENT, &server, store);
            let people = told_to_end(&folder, &[], signals).await;
            let expected = format!("mainstay: in flight, and may have happened; {later}: ");
            let line = people.err.lines().find(|line| line.starts_with(&expected));
            assert!(line.is_some_and(|line| line.ends_with(" t/s/pay")), "{signals:?} {people:?}");
            assert!(codes.contains(&people.code), "{signals:?} {people:?}");

            let folder = tree_of(SILENT, &server, store);
            let program = told_to_end(&folder, &["--json"], signals).await;
            let told: serde_json::Value = serde_json::from_str(&program.out).expect(&program.out);
            assert_eq!(told["error"]["kind"], kind, "{signals:?} {program:?}");
            let act = &told["unsettled"][0];
            let act = (&act["tool"], &act["owner"], &act["status"]);
            assert_eq!(act, (&"t/s/pay".into(), &"t/a".into(), &"intended".into()), "{program:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_nobody_knows_of_is_looked_for_where_something_is_kept_of_it() {
    // It dies with the call.
    let dies = SILENT.replace("echo called > called; continue", "exit 1");
    for (store, hint) in [
        ("", "and nothing is kept of it, so look there yourself"),
        (STORE, "`mainstay store` shows how"),
    ] {
        let server = StubServer::start().await.unwrap();
        server.otherwise(Row::tool_calls([("pay", "{}")]));
        let said = run(&tree_of(&dies, &server, store), &["run", "t.toml", "pay"]).await;
        let expected = format!("mainstay: not settled, {hint}: ");
        let line = said.err.lines().find(|line| line.starts_with(&expected));
        assert!(line.is_some_and(|line| line.ends_with(" t/s/pay is unknown")), "{said:?}");
        assert!(!said.err.contains("in flight"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_a_question_off_is_told_what_it_did_all_the_same() {
    let answer = |result: &str| {
        let answer = format!("echo called > called; read -r _ < go; result='{result}'");
        SILENT.replace("echo called > called; continue", &answer)
    };
    let paid = answer(r#"{"content":[{"type":"text","text":"paid"}]}"#);
    let failed = answer(r#"{"content":[{"type":"text","text":"half of it"}],"isError":true}"#);
    for (script, status, words) in [
        (&paid, "confirmed", "done all the same, and not undone: "),
        (&failed, "failed", "may have been done: "),
    ] {
        for store in ["", STORE] {
            let server = StubServer::start().await.unwrap();
            server.then(Row::tool_calls([("pay", "{}")]));
            server.otherwise(Row::hang());
            let folder = tree_of(script, &server, store);
            for name in ["called", "go"] {
                assert!(
                    Command::new("mkfifo").arg(folder.0.join(name)).status().unwrap().success()
                );
            }
            let child = command(&folder.0, &["run", "t.toml", "pay", "--json"]).spawn().unwrap();
            let (called, go) = (folder.0.join("called"), folder.0.join("go"));
            let ended = tokio::task::spawn_blocking(move || {
                assert_eq!(std::fs::read_to_string(&called).unwrap(), "called\n");
                let words = ["-INT".to_owned(), child.id().to_string()];
                assert!(Command::new("kill").args(words).status().unwrap().success());
                // It goes on, whether that was heard already or not: no answer comes after it.
                std::fs::write(&go, "go\n").unwrap();
                said(child.wait_with_output().unwrap())
            });
            let ended = ended.await.unwrap();
            let told: serde_json::Value = serde_json::from_str(&ended.out).expect(&ended.out);
            assert_eq!((ended.code, &told["error"]["kind"]), (1, &"cancelled".into()), "{ended:?}");
            let act = &told["error"]["done"][0];
            let act = (&act["tool"], &act["owner"], &act["status"]);
            assert_eq!(act, (&"t/s/pay".into(), &"t/a".into(), &status.into()), "{ended:?}");
            let words = format!("mainstay: {words}");
            assert!(ended.err.lines().any(|line| line.starts_with(&words)), "{ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_nobody_reads_ends_all_the_same() {
    for (signal, again, code) in [("TERM", true, 143), ("INT", true, 130), ("TERM", false, 143)] {
        let server = StubServer::start().await.unwrap();
        server.otherwise(Row::reply(&"more ".repeat(100_000)));
        let url = server.url();
        let text =
            format!("[models.llm]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n");
        let folder = Folder::with("t.toml", &text);
        let mut child = command(&folder.0, &["run", "t.toml", "hello"]).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            // It has begun to write, and is read no further.
            std::io::Read::read_exact(&mut out, &mut [0]).unwrap();
            loop {
                let arguments = [format!("-{signal}"), child.id().to_string()];
                assert!(Command::new("kill").args(arguments).status().unwrap().success());
                // More than twice: two that come at once are one.
                let ended = if again { child.try_wait() } else { child.wait().map(Some) };
                if let Some(ended) = ended.unwrap() {
                    return ended.code();
                }
            }
        });
        assert_eq!(ended.await.unwrap(), Some(code), "{signal} {again}");
    }
}

/// Of a group, too, whose tool is that of a server: the server ends after it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_a_group_of_tools_has_with_its_server_is_waited_for_at_the_end() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("g", "{\"n\":7}")]));
    server.otherwise(Row::hang());
    let text = format!(
        "[models.m]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n{STORE}[tools.box]\ncommand = [\"sh\", \"s.sh\"]\n\
         [tools.box.effects]\npay = \"irreversible\"\n[groups.g]\nkind = \"tool\"\nmembers = [\"box.pay\"]\n\
         [agents.a]\nmodel = \"m\"\ntools = [\"g\"]\n",
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let script =
        PAYS.replace("echo \"$line\" >> pays\n", "echo called > called\nread -r go < gate\n");
    assert_ne!(script, PAYS);
    std::fs::write(folder.0.join("s.sh"), script).unwrap();
    let [called, gate] = ["called", "gate"].map(|name| {
        let path = folder.0.join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    });
    let child = command(&folder.0, &["run", "t.toml", "pay"]).spawn().unwrap();
    let pid = child.id().to_string();
    let ended = tokio::task::spawn_blocking(move || {
        std::fs::read_to_string(called).unwrap();
        let sent = std::process::Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.unwrap().success());
        // Opened for both, so that nobody has to be there any more.
        let mut gate = std::fs::File::options().read(true).write(true).open(gate).unwrap();
        gate.write_all(b"go\n").unwrap();
        let ended = child.wait_with_output().unwrap();
        drop(gate);
        ended
    });
    let err = String::from_utf8(ended.await.unwrap().stderr).unwrap();
    assert!(
        err.contains("done all the same, and not undone: ") && !err.contains("unknown"),
        "{err}"
    );
}

/// A server that pays, and pays back three times: asked for more it never answers, as long as somebody hears so.
pub(super) const PAYS: &str = r#"while read -r line; do
    id=$(printf '%s' "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    case "$line" in
    *'"initialize"'*) result='{"protocolVersion":"2025-03-26","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"tools/list"'*) result='{"tools":[{"name":"pay","inputSchema":{"type":"object"}},{"name":"back","inputSchema":{"type":"object"}}]}' ;;
    *'"back"'*)
        if [ -p called ] && [ -f backs ] && [ "$(wc -l < backs)" -ge 3 ]; then
            echo called > called
            continue
        fi
        if [ -p gate ] && [ -f backs ] && [ "$(wc -l < backs)" -ge 3 ]; then
            read -r go < gate
            rm gate
        fi
        echo "$line" >> backs
        result='{"content":[{"type":"text","text":"paid back"}]}' ;;
    *'"pay"'*)
        echo "$line" >> pays
        result='{"content":[{"type":"text","text":"paid"}]}' ;;
    *) continue ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"#;

/// An agent whose sub-agent pays three times, and fails; what becomes of it after that is for the model to say.
fn pays_in_vain(server: &StubServer, sub: &StubServer) -> Folder {
    server.then(Row::tool_calls([("s", "{\"task\":\"pay three times\"}")]));
    // It goes back to its beginning once, which undoes what it has done, before it fails.
    for _ in 0..2 {
        for n in 0..3 {
            sub.then(Row::tool_calls([("pay", &*format!("{{\"n\":{n}}}"))]));
        }
        sub.then(Row::error(400, "bad_request", "no"));
    }
    let model = |name: &str, server: &StubServer| {
        let url = server.url();
        format!("[models.{name}]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n")
    };
    let text = format!(
        "[supervisor]\nscope = \"transaction\"\n{STORE}{}{}[tools.box]\ncommand = [\"sh\", \"s.sh\"]\n\
         [tools.box.effects]\nback = \"idempotent\"\npay = {{ kind = \"compensable\", undo = {{ tool = \"box.back\" }} }}\n\
         [agents.a]\nmodel = \"top\"\nagents = [\"s\"]\n\
         [agents.s]\ndescription = \"pays\"\nmodel = \"sub\"\ntools = [\"box.pay\"]\n",
        model("top", server),
        model("sub", sub),
    );
    let folder = Folder::with("t.toml", &text);
    std::fs::write(folder.0.join("s.sh"), PAYS).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sub_agent_did_that_failed_is_named_and_undone_by_the_next_start() {
    let (server, sub) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let folder = pays_in_vain(&server, &sub);
    server.then(Row::hang());
    let ended = told_to_end_after(&folder, &["--json"], &["TERM"], server.asked(2)).await;
    let line = "mainstay: still to be undone, which the next start does: ";
    let line = ended.err.lines().find(|it| it.starts_with(line)).expect(&ended.err);
    assert_eq!(line.matches(" t/box/pay").count(), 2, "{ended:?}");
    let told: serde_json::Value = serde_json::from_str(&ended.out).expect(&ended.out);
    let told = told["unsettled"].as_array().expect(&ended.out);
    let told: Vec<_> = told.iter().map(|act| act["status"].as_str().unwrap()).collect();
    assert_eq!(told, ["compensating", "owed", "owed"], "{ended:?}");

    std::fs::remove_file(folder.0.join("called")).unwrap();
    server.otherwise(Row::reply("sorry"));
    let later = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!(later.code, 0, "{later:?}");
    assert!(!later.err.contains("still to be undone"), "{later:?}");
    let backs = std::fs::read_to_string(folder.0.join("backs")).unwrap();
    let backs: Vec<_> = (0..3).map(|n| backs.matches(&format!("\"n\":{n}")).count()).collect();
    assert_eq!(backs, [2, 2, 2], "{later:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sub_agent_did_that_failed_is_not_still_to_be_undone_where_the_same_command_undoes_it()
 {
    let (server, sub) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let folder = pays_in_vain(&server, &sub);
    server.otherwise(Row::reply("it came to nothing"));
    let gate = folder.0.join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let child = command(&folder.0, &["run", "t.toml", "--json", "pay"]).spawn().unwrap();
    let store = folder.0.join("state");
    let ended = tokio::task::spawn_blocking(move || {
        // Answered, while the first of three is being paid back.
        while !super::kept::holds(&store, "it came to nothing") {}
        std::fs::write(gate, "go\n").unwrap();
        child.wait_with_output().unwrap()
    });
    let ended = ended.await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(told["text"], "it came to nothing", "{told}");
    assert_eq!(told["unsettled"], serde_json::Value::Null, "{told}");
    let backs = std::fs::read_to_string(folder.0.join("backs")).unwrap();
    assert_eq!(backs.lines().count(), 6, "{backs}");
    let later = run(&folder, &["run", "t.toml", "--json"]).await;
    assert!(later.out.contains("not_asked"), "it was told: {later:?}");
}
