//! A command that is told to end: it stops its tree in order, ends what it has started, and what is durable
//! goes on at the next start.
#![cfg(unix)]

use std::process::Command;

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, command, said};
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
