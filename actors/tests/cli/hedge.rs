//! A group of a tree file that gives a slow request to a second member, too, and one whose members all
//! rest.

use std::time::{Duration, Instant};

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::Folder;
use super::models::run;

fn tree(slow: &StubServer, other: &StubServer, group: &str) -> Folder {
    let model = |name: &str, server: &StubServer| {
        format!(
            "[models.{name}]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
            server.url()
        )
    };
    let text = format!(
        "{}{}[groups.llm]\nkind = \"model\"\nmembers = [\"slow\", \"other\"]\n{group}",
        model("slow", slow),
        model("other", other),
    );
    Folder::with("t.toml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_model_is_hedged_after_the_time_of_the_file() {
    let (slow, other) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    slow.otherwise(Row::hang());
    other.otherwise(Row::reply("quick"));
    let folder = tree(&slow, &other, "hedge = { after = \"300ms\" }\n");
    let began = Instant::now();
    let said = run(&folder, &["run", "t.toml", "--progress", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "quick\n"), "{said:?}");
    // Without the hedge, the first model would have had its whole attempt of 30 s.
    assert!(began.elapsed() < Duration::from_secs(25), "{said:?}");
    let told = |line: &str| {
        line.starts_with("  t/llm: no answer after 3")
            && line.ends_with(", t/llm/other is asked, too")
    };
    assert!(said.err.lines().any(told) && said.err.contains("(by t/llm/other;"), "{said:?}");
    slow.hung_up(1).await;
    let page = run(&folder, &["check", "t.toml"]).await.out;
    let told =
        "    hedged: a request without an answer after 0.3 s is given to the next one, too\n";
    assert!(page.contains(told), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_hedged_group_that_is_shown_as_it_is_written_is_one() {
    let (slow, other) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    slow.otherwise(Row::hang());
    other.otherwise(Row::reply_stream(["one ", "two"]));
    let folder = tree(&slow, &other, "hedge = { after = \"100ms\" }\n");
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert_eq!((said.code, &*said.out, &*said.err), (0, "one two\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_hedged_when_it_is_slower_than_it_was() {
    let (slow, other) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    other.otherwise(Row::reply("quick"));
    let folder = tree(&slow, &other, "hedge = { after = \"p95\" }\n");
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(
        page.contains(
            "    hedged: a request slower than 95 of 100 is given to the next one, too\n"
        )
    );
    // Twenty answers are enough to know what is slow; a local server's take some milliseconds.
    for _ in 0..20 {
        slow.then(Row::reply("usual"));
    }
    slow.otherwise(Row::hang());
    let input = "hi\n".repeat(21);
    let chat = move || folder.run(&["run", "t.toml", "--chat"], &input);
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    let expected = format!("{}quick\n", "usual\n".repeat(20));
    // One that was slow by chance may have been hedged as well.
    let known = said.out.replace("quick", "usual");
    assert_eq!((said.code, known), (0, expected.replace("quick", "usual")), "{said:?}");
    assert!(said.out.ends_with("quick\n"), "{said:?}");
    slow.hung_up(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_a_group_whose_members_all_rest_waits_or_fails_as_the_file_says() {
    // Three failures in a row open the circuit of the only member for 5 s; a request has 1 s.
    for (all_down, asked, end, told) in [
        (
            "last_resort",
            4,
            "back",
            "waits for one that is back in time, else one is asked all the same",
        ),
        (
            "wait_until",
            3,
            "no answer within 1",
            "waits for the first that is back, to its deadline",
        ),
        ("fail", 3, "every member rests", "is refused at once"),
    ] {
        let server = StubServer::start().await.unwrap();
        for _ in 0..3 {
            server.then(Row::error(503, "overloaded", "down"));
        }
        server.then(Row::reply("back"));
        let text = format!(
            "[policy]\nmax_retries = 0\nattempt_timeout = \"1s\"\n[models.one]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[groups.llm]\nkind = \"model\"\nmembers = [\"one\"]\nall_down = \"{all_down}\"\n",
            server.url()
        );
        let folder = std::sync::Arc::new(Folder::with("t.toml", &text));
        let there = std::sync::Arc::clone(&folder);
        let chat = move || there.run(&["run", "t.toml", "--chat"], "1\n2\n3\n4\n");
        let said = tokio::task::spawn_blocking(chat).await.unwrap();
        assert_eq!(server.count(), asked, "{all_down}: {said:?}");
        let last = said.out.lines().chain(said.err.lines().skip(4)).next();
        assert!(last.is_some_and(|line| line.contains(end)), "{all_down}: {said:?}");
        let page = run(&folder, &["check", "t.toml"]).await.out;
        assert!(page.contains(&format!("    while all rest: a request {told}\n")), "{page}");
    }
}
