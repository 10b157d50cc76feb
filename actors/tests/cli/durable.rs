//! A group that is asked and keeps its requests: killed in the middle of one, the next process does it.

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, command};
use super::models::run;
use super::store::start;

/// Two models that stand in for each other, asked without an agent.
fn models(server: &StubServer, group: &str) -> Folder {
    let model = |name: &str| {
        format!(
            "[models.{name}]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"{name}\"\n",
            server.url()
        )
    };
    let text = format!(
        "[store]\npath = \"state\"\n{}{}[groups.desk]\nkind = \"model\"\nmembers = [\"one\", \"two\"]\n{group}",
        model("one"),
        model("two"),
    );
    Folder::with("t.toml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_group_of_models_survives_a_kill() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    // The next process finds the first model out of order: whoever serves, the request is one.
    server.then(Row::error(404, "model_not_found", "gone"));
    server.then(Row::reply("by the second"));
    let folder = models(&server, "");
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(1).await;
    drop(first);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "by the second\n"), "{said:?}");
    assert_eq!(said.err, "mainstay: taken up again: 1 open request\n");
    let asked: Vec<_> = server
        .requests()
        .iter()
        .map(|seen| seen.json()["model"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(asked, ["one", "one", "two"].map(|name| Some(name.to_owned())));
    // What has its answer is not taken up again.
    server.then(Row::reply("another"));
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((&*said.out, &*said.err, server.count()), ("another\n", "", 4), "{said:?}");
    // For a program, with who gave the answer and whether that was the first choice.
    server.then(Row::hang());
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(5).await;
    drop(first);
    server.then(Row::error(404, "model_not_found", "gone"));
    server.then(Row::reply("by the second"));
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["served_by"], &answer["degraded"]), (&"t/desk/two".into(), &true.into()));
    assert_eq!((&answer["text"], &answer["taken_up"]), (&"by the second".into(), &true.into()));
    assert_eq!(answer["tokens"], 15, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_words_hear_what_became_of_the_question_to_a_group() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    server.then(Row::reply("one"));
    server.then(Row::reply("two"));
    let folder = models(&server, "");
    let first = start(&folder, &["run", "t.toml", "first"]);
    server.asked(1).await;
    drop(first);
    let said = run(&folder, &["run", "t.toml", "second"]).await;
    assert_eq!(said.out, "two\n", "{said:?}");
    assert_eq!(said.err, "mainstay: taken up again: 1 open request\nasked before: first\none\n");
    // And of one that failed in the meantime.
    server.then(Row::hang());
    let first = start(&folder, &["run", "t.toml", "third"]);
    server.asked(4).await;
    drop(first);
    server.then(Row::error(401, "invalid_api_key", "no"));
    server.then(Row::reply("four"));
    let said = run(&folder, &["run", "t.toml", "fourth"]).await;
    assert_eq!(said.out, "four\n", "{said:?}");
    assert!(said.err.contains("asked before: third\nno answer: "), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_with_a_group_goes_on_after_a_kill_where_it_stood() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("I am Ann"));
    server.then(Row::hang());
    server.then(Row::reply("Ann, as I said"));
    server.then(Row::reply("bye"));
    let folder = models(&server, "[ask]\nsystem = \"be Ann\"\n");
    let mut first = start(&folder, &["run", "t.toml", "--chat"]);
    std::io::Write::write_all(first.0.stdin.as_mut().unwrap(), b"who are you?\nwho?\n").unwrap();
    server.asked(2).await;
    drop(first);
    let folder = std::sync::Arc::new(folder);
    let there = std::sync::Arc::clone(&folder);
    let chat = move || there.run(&["run", "t.toml", "--chat"], "bye\n");
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert_eq!(said.out, "asked before: who?\nAnn, as I said\nbye\n", "{said:?}");
    let told: Vec<_> = server.requests()[3].json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(told, ["be Ann", "who are you?", "I am Ann", "who?", "Ann, as I said", "bye"]);
    // A question beside it that is taken up begins no other one.
    server.then(Row::hang());
    let beside = start(&folder, &["run", "t.toml", "one"]);
    server.asked(5).await;
    drop(beside);
    server.then(Row::reply("1"));
    let there = std::sync::Arc::clone(&folder);
    let chat = move || there.run(&["run", "t.toml", "--chat"], "two\n");
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert!(said.out.starts_with("asked before: one\n1\n"), "{said:?}");
    let told = server.requests().pop().unwrap().json()["messages"].to_string();
    assert!(told.contains("I am Ann") && told.contains("\"one\""), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_was_killed_goes_on_at_the_step_it_had_reached() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("note", "{\"reason\":\"late\"}")]));
    server.then(Row::hang());
    server.then(Row::reply("noted"));
    let text = format!(
        r#"profile = "finance"
[store]
path = "state"
[models.llm]
kind = "openai"
base_url = "{}"
model = "m"
[tools.note]
builtin = "escalate"
[agents.clerk]
model = "llm"
tools = ["note"]
[models.closed]
kind = "default"
text = "closed"
[groups.desk]
kind = "step"
members = ["clerk", "closed"]
"#,
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains("    durable: what it accepts survives the process\n"), "{page}");
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(2).await;
    drop(first);
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["text"], &answer["taken_up"]), (&"noted".into(), &true.into()), "{said:?}");
    assert_eq!(answer["tools_used"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&answer["served_by"], &answer["degraded"]),
        (&"t/desk/clerk".into(), &false.into())
    );
    // What the model had said before the kill is not asked again, and the tool's result is there.
    assert_eq!(server.count(), 3);
    let messages = server.requests()[2].json()["messages"].clone();
    assert_eq!(messages.as_array().unwrap().last().unwrap()["role"], "tool", "{messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_not_to_be_durable_keeps_nothing_and_says_so() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    let agents = format!(
        "[store]\npath = \"state\"\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[agents.a]\nmodel = \"llm\"\n[agents.b]\nmodel = \"llm\"\n[groups.desk]\nkind = \"step\"\nmembers = [\"a\", \"b\"]\ndurable = false\n",
        server.url()
    );
    let folder = Folder::with("t.toml", &agents);
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(1).await;
    drop(first);
    server.then(Row::reply("anew"));
    let said = run(&folder, &["run", "t.toml", "other"]).await;
    assert_eq!((said.code, &*said.out), (0, "anew\n"));
    let told = "requests to `desk` are NOT kept: an agent keeps its own, and so does a group that is not `durable = false`, or a model that no agent asks";
    assert_eq!(said.err, format!("mainstay: {told}\n"));
    assert_eq!(server.count(), 2, "what was asked before is gone");
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains(told) && !page.contains("    durable: "), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_takes_a_durable_group_and_keeps_it_for_the_process() {
    let server = StubServer::start().await.unwrap();
    let folder = models(&server, "durable = true\n");
    let text = std::fs::read_to_string(folder.0.join("t.toml")).unwrap();
    let text = text.replace("path = \"state\"", "durability = \"memory\"");
    std::fs::write(folder.0.join("t.toml"), text).unwrap();
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out, &*said.err), (0, "ok\n", ""));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "only the file itself");
    // The tree is shown without the store, which another process may hold.
    let said = command(&folder.0, &["tree", "t.toml"]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_single_model_survives_a_kill() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    server.then(Row::reply("taken up"));
    let model = format!(
        "[store]\npath = \"state\"\n[models.one]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
        server.url()
    );
    let folder = Folder::with("t.toml", &model);
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains("requests to `one` are kept and begun again"), "{page}");
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(1).await;
    drop(first);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "taken up\n"), "{said:?}");
    assert_eq!(said.err, "mainstay: taken up again: 1 open request\n");
    assert_eq!(server.count(), 2);
    // One that an agent asks, too, would be asked twice, and is not kept.
    let shared = format!("entry = \"one\"\n{model}[agents.a]\nmodel = \"one\"\n");
    std::fs::write(folder.0.join("t.toml"), shared).unwrap();
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains("requests to `one` are NOT kept"), "{page}");
}

/// An agent that hands a part of its task to another, both on a durable group of models. What the models say to
/// whom follows from the order in which they are asked.
fn team(server: &StubServer) -> Folder {
    let model = |name: &str| {
        format!(
            "[models.{name}]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"{name}\"\n",
            server.url()
        )
    };
    let text = format!(
        "[store]\npath = \"state\"\n{}{}[groups.llm]\nkind = \"model\"\nmembers = [\"one\", \"two\"]\ndurable = true\n\
         [agents.boss]\nmodel = \"llm\"\nagents = [\"reader\"]\n[agents.reader]\nmodel = \"llm\"\ntools = [\"note\"]\n\
         [tools.note]\nbuiltin = \"default\"\ntext = \"noted\"\n",
        model("one"),
        model("two"),
    );
    Folder::with("t.toml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_its_sub_agent_on_a_durable_group_are_told_everything_once() {
    let says = [
        Row::tool_calls([("reader", "{\"task\":\"read it\"}")]),
        Row::tool_calls([("note", "{}")]),
        Row::reply("it is read"),
        Row::reply("done"),
    ];
    // By how many kills in the middle of each of the four questions.
    for kills in [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 2, 1, 2]] {
        let server = StubServer::start().await.unwrap();
        for (row, kills) in says.iter().zip(kills) {
            (0..kills).for_each(|_| server.then(Row::hang()));
            server.then(row.clone());
        }
        let folder = team(&server);
        let page = run(&folder, &["check", "t.toml"]).await;
        assert!(page.out.contains("    durable: what it accepts survives"), "{page:?}");
        let mut asked = 0;
        for kills in kills {
            for _ in 0..kills {
                let process = start(&folder, &["run", "t.toml", "hello"]);
                asked += 1;
                server.asked(asked).await;
                drop(process);
                // That of whom you have asked, and that of the group.
                let left = run(&folder, &["store", "t.toml"]).await.out;
                let both = "state: 2 requests go on at the next start\n";
                assert!(left.starts_with(both), "{kills:?}: {left}");
            }
            asked += 1;
        }
        let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
        let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((said.code, &answer["text"]), (0, &"done".into()), "{kills:?} {said:?}");
        assert_eq!(answer["taken_up"], true, "{answer}");
        // Of four answers of 15 tokens: without what the agent had been told before the last kill.
        let told = match kills {
            [.., 1 | 2] => 3,
            [0, ..] => 1,
            _ => 0,
        };
        assert_eq!(answer["tokens"], 15 * (4 - told), "{kills:?} {answer}");
        // What was answered is not paid for again, and each is asked the same again after a kill.
        let mut bodies: Vec<_> =
            server.requests().iter().map(|it| it.json()["messages"].clone()).collect();
        assert_eq!(bodies.len(), asked, "{kills:?}");
        bodies.dedup();
        assert_eq!(bodies.len(), 4, "{kills:?}: {bodies:?}");
        let last = bodies[3].as_array().unwrap();
        let roles: Vec<_> = last.iter().map(|it| it["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "tool"], "{kills:?}");
        assert!(last[2]["content"].to_string().contains("it is read"), "{last:?}");
    }
}

/// An answer of the stub that has cost 1,000 tokens.
fn dear(message: serde_json::Value) -> Row {
    let body = serde_json::json!({
        "model": "stub", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 100, "total_tokens": 1000},
    });
    Row::new(200, body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_may_spend_is_not_more_after_a_kill() {
    let group = "model = \"llm\"";
    // The state is not stored after each step.
    let seldom = "model = \"one\"\ncheckpoint = { steps = 9 }";
    let kills = [None, Some(0), Some(1), Some(2)];
    for (agent, killed) in [group, seldom].iter().flat_map(|it| kills.map(|killed| (it, killed))) {
        let server = StubServer::start().await.unwrap();
        let call = serde_json::json!({"id": "c", "type": "function", "function": {"name": "note", "arguments": "{}"}});
        for question in 0..3 {
            if killed == Some(question) {
                server.then(Row::hang());
            }
            server.then(dear(serde_json::json!({"role": "assistant", "content": null, "tool_calls": [call.clone()]})));
        }
        server.then(dear(serde_json::json!({"role": "assistant", "content": "all is paid"})));
        let text = format!(
            "[store]\npath = \"state\"\n[models.one]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n\
             {}[agents.a]\n{agent}\ntools = [\"note\"]\nmax_tokens = 1200\nbudget = {{ tokens = 4100 }}\n\
             [tools.note]\nbuiltin = \"default\"\ntext = \"noted\"\n",
            server.url(),
            match agent.contains("llm") {
                true => "[groups.llm]\nkind = \"model\"\nmembers = [\"one\"]\ndurable = true\n",
                false => "",
            },
        );
        let folder = Folder::with("t.toml", &text);
        let ask = ["run", "t.toml", "--json", "--key", "k", "pay"];
        if let Some(question) = killed {
            let process = start(&folder, &ask);
            server.asked(question + 1).await;
            drop(process);
        }
        let said = run(&folder, &ask).await;
        let error = last(&said)["error"].take();
        assert_eq!(
            (said.code, &error["class"]),
            (1, &"budget_denied".into()),
            "{killed:?} {said:?}"
        );
        assert_eq!(server.count(), 3 + usize::from(killed.is_some()), "{killed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_under_a_key_is_asked_once_and_answered_as_often_as_one_likes() {
    for agent in ["", "[agents.a]\nmodel = \"one\"\n"] {
        let server = StubServer::start().await.unwrap();
        let model = format!(
            "[models.one]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n{agent}",
            server.url()
        );
        let store = "[store]\npath = \"state\"\nprocess_deaths = 1\n";
        let folder = Folder::with("t.toml", &format!("{store}{model}"));
        let ask = |key: &'static str| ["run", "t.toml", "--key", key, "pay it"];
        server.then(Row::hang());
        let process = start(&folder, &ask("a"));
        server.asked(1).await;
        drop(process);
        server.then(Row::reply("paid"));
        for times in 0..3 {
            let said = run(&folder, &ask("a")).await;
            assert_eq!((said.code, &*said.out), (0, "paid\n"), "{times} {said:?}");
        }
        let said = run(&folder, &[&ask("a")[..], &["--json"]].concat()).await;
        let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((&answer["text"], &answer["taken_up"]), (&"paid".into(), &true.into()));
        // Who gave it is kept with it.
        let by = if agent.is_empty() { "t/one" } else { "t/a" };
        assert_eq!((&answer["served_by"], &answer["attempts"]), (&by.into(), &1.into()));
        // Another process has paid for it.
        assert!(answer["tokens"].is_null() && answer["money_micros"].is_null(), "{answer}");
        assert_eq!(server.count(), 2, "asked once, and once more after the kill");
        server.then(Row::reply("another"));
        assert_eq!(run(&folder, &ask("b")).await.out, "another\n");
        assert_eq!(server.count(), 3);
        // What was set aside is not tried again behind anybody's back.
        for asked in [4, 5] {
            server.then(Row::hang());
            let process = start(&folder, &ask("c"));
            server.asked(asked).await;
            drop(process);
        }
        let said = run(&folder, &[&ask("c")[..], &["--json"]].concat()).await;
        let error = serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["error"].take();
        assert_eq!((said.code, &error["kind"]), (1, &"asked_before".into()), "{said:?}");
        assert_eq!(server.count(), 5);
        std::fs::write(folder.0.join("t.toml"), model).unwrap();
        let said = run(&folder, &ask("a")).await;
        assert_eq!((said.code, server.count()), (2, 5), "{said:?}");
        assert!(said.err.contains("--key asks once where what is asked is kept"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_is_told_as_one_as_often_as_its_answer_is_asked_for() {
    for (agent, by, defaulted) in
        [("", "t/llm/sorry", true), ("[agents.a]\nmodel = \"llm\"\n", "t/a", false)]
    {
        let text = format!(
            "[store]\npath = \"state\"\n[policy]\nmax_retries = 0\n[models.far]\nkind = \"openai\"\n\
             base_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n[models.sorry]\nkind = \"default\"\ntext = \"sorry\"\n\
             [groups.llm]\nkind = \"model\"\nmembers = [\"far\", \"sorry\"]\n{agent}"
        );
        let folder = Folder::with("t.toml", &text);
        let ask = ["run", "t.toml", "--json", "--key", "k", "hello"];
        let told = |said: &super::harness::Said| {
            let answer = last(said);
            ["text", "served_by", "degraded", "defaulted", "attempts"].map(|it| answer[it].clone())
        };
        let first = told(&run(&folder, &ask).await);
        let expected = serde_json::json!(["sorry", by, true, defaulted]);
        assert_eq!(serde_json::json!(first[..4]), expected, "{agent}");
        assert_eq!(told(&run(&folder, &ask).await), first, "{agent}");
        // What happens meanwhile is shown where it is asked for, and is no part of the answer.
        let said = run(&folder, &["run", "t.toml", "--json", "--progress", "again"]).await;
        assert_eq!(told(&said)[..4], first[..4], "{agent}");
        assert!(said.err.contains("  t/llm/far: attempt 1 failed: "), "{said:?}");
    }
}

/// What the command printed last, as JSON.
fn last(said: &super::harness::Said) -> serde_json::Value {
    serde_json::from_str(said.out.lines().last().unwrap()).unwrap()
}

/// Asks once and is killed while the model does.
async fn killed(server: &StubServer, folder: &Folder, arguments: &[&str]) {
    let asked = server.count();
    server.then(Row::hang());
    let process = start(folder, arguments);
    server.asked(asked + 1).await;
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_its_own_answer_whatever_another_key_was_asked_before_a_kill() {
    let server = StubServer::start().await.unwrap();
    let folder = models(&server, "");
    killed(&server, &folder, &["run", "t.toml", "--key", "a", "pay it"]).await;
    // The same words under another key are another question.
    server.then(Row::reply("of a"));
    server.then(Row::reply("of b"));
    let b = ["run", "t.toml", "--key", "b", "--json", "pay it"];
    let answer = last(&run(&folder, &b).await);
    let before = &answer["before"][0];
    assert_eq!((&answer["text"], answer.get("taken_up")), (&"of b".into(), None), "{answer}");
    assert_eq!((&before["key"], &before["text"]), (&"a".into(), &"of a".into()), "{answer}");
    assert_eq!(before["question"], "pay it");
    // Each is kept, and asked no more.
    assert_eq!(last(&run(&folder, &b).await)["text"], "of b");
    assert_eq!(run(&folder, &["run", "t.toml", "--key", "a", "pay it"]).await.out, "of a\n");
    assert_eq!(server.count(), 3);
    // What was asked under a key is not the answer to another question.
    let said = run(&folder, &["run", "t.toml", "--key", "a", "--json", "refund it"]).await;
    let error = last(&said)["error"].take();
    assert_eq!((said.code, &error["kind"]), (1, &"other_question".into()), "{said:?}");
    assert!(error["message"].as_str().unwrap().contains("\"a\""), "{error}");
    assert_eq!(server.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_question_before_a_kill_is_told_to_programs_and_its_failure_whole() {
    let server = StubServer::start().await.unwrap();
    let folder = models(&server, "");
    killed(&server, &folder, &["run", "t.toml", "first"]).await;
    server.then(Row::reply("one"));
    server.then(Row::reply("two"));
    let answer = last(&run(&folder, &["run", "t.toml", "--json", "second"]).await);
    assert_eq!((&answer["text"], answer["before"].as_array().unwrap().len()), (&"two".into(), 1));
    let before = &answer["before"][0];
    assert_eq!((&before["question"], &before["text"]), (&"first".into(), &"one".into()));
    assert_eq!(before["tokens"], 15, "{answer}");
    // One that fails in this process: once, with what failed, whether it had a key or not.
    for key in [&[][..], &["--key", "k"]] {
        let arguments = [&["run", "t.toml", "--json"][..], key, &["third"]].concat();
        killed(&server, &folder, &arguments).await;
        let asked = server.count();
        server.then(Row::error(400, "bad_thing", "no"));
        let said = run(&folder, &arguments).await;
        let error = last(&said)["error"].take();
        assert_eq!((said.code, server.count()), (1, asked + 1), "{said:?}");
        assert_eq!(error["kind"], "recovery_exhausted", "{error}");
        assert_eq!(
            (&error["class"], &error["code"]),
            (&"input_validation".into(), &"bad_thing".into())
        );
        assert_eq!(error["trail"][0]["child"], "t/desk/one", "{error}");
    }
    // And beside the answer to another.
    killed(&server, &folder, &["run", "t.toml", "fourth"]).await;
    server.then(Row::error(400, "bad_thing", "no"));
    server.then(Row::reply("five"));
    let answer = last(&run(&folder, &["run", "t.toml", "--json", "fifth"]).await);
    assert_eq!(answer["before"][0]["error"]["code"], "bad_thing", "{answer}");
    assert_eq!(
        (&answer["text"], &answer["before"][0]["question"]),
        (&"five".into(), &"fourth".into())
    );
}
