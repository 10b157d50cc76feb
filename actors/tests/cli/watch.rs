//! `[watch]` of a tree file: what is aimed at, when somebody is told, and over which time.

use std::io::{BufRead, BufReader, Write};

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, command};
use super::store::Killed;

const TREE: &str = "profile = \"customer_service\"\n[models.m]\nkind = \"local\"\n[models.d]\nkind = \"default\"\ntext = \"x\"\n[groups.g]\nkind = \"model\"\nmembers = [\"m\", \"d\"]\n";

/// What `check` says of a tree with this section, from the objectives on.
#[track_caller]
fn page(watch: &str) -> String {
    let said = Folder::with("t.toml", &format!("{TREE}{watch}")).run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    said.out[said.out.find("\nObjectives").unwrap()..].to_owned()
}

#[track_caller]
fn has(page: &str, line: &[&str]) {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.join(" ");
    assert!(page.lines().any(|there| words(there) == line), "{line}\n{page}");
}

#[test]
fn every_key_is_printed_by_check() {
    let usual = page("");
    has(&usual, &["Objectives, over 5 min"]);
    has(&usual, &["a default answer counts as no success of its group"]);
    has(&usual, &["an alert ends after 30 s without its reason"]);
    has(&usual, &["S39 availability as users see it > 95 %"]);
    has(&usual, &["S88 error rate > 10 % warning >= 20"]);
    let page = page(
        r#"[watch]
window = "10m"
hold = "1m"
count_defaulted = true
without = ["S25", "S90"]

[watch.objectives.S39]
above = "99.5 %"

[watch.objectives.S26]
name = "soon well again"
below = "2s"

[watch.objectives.ours]
measure = "degraded"
kind = "model"
below = 0.01

[watch.objectives.quick]
measure = "p95"
signal = "response"
below = "3s"

[watch.alerts.S88]
above = "20 %"
severity = "critical"
min_samples = 5

[watch.alerts.S89]
severity = "critical"

[watch.alerts.storm]
name = "a storm of retries"
measure = "retries_per_request"
above = 1
min_samples = 3

[watch.alerts.users]
measure = "availability"
kind = "model"
below = "50 %"
"#,
    );
    has(&page, &["Objectives, over 10 min"]);
    has(&page, &["Alerts, over 10 min"]);
    has(&page, &["an alert ends after 1 min without its reason"]);
    has(&page, &["a default answer counts as a success of its group"]);
    assert!(!page.contains("S25 ") && !page.contains("S90 "), "{page}");
    has(&page, &["S39 availability as users see it > 99.5 %"]);
    has(&page, &["S26 soon well again < 2 s"]);
    has(&page, &["ours ours < 1 %"]);
    has(&page, &["quick quick (reported) < 3 s"]);
    has(&page, &["S88 error rate > 20 % critical >= 5"]);
    has(&page, &["S89 retry success < 80 % critical >= 20"]);
    has(&page, &["storm a storm of retries > 1 warning >= 3"]);
    has(&page, &["users users < 50 % warning >= 20"]);
}

#[test]
fn what_is_never_measured_in_a_tree_is_said_to_be() {
    let usual = page("");
    has(&usual, &["S28 degraded answers of a model group < 5 %"]);
    has(&usual, &["S29 success of an alternative tool > 90 % never: no tool group of 2"]);
    has(&usual, &["S31 retrieval > 95 % never: no data group"]);
    let alone = Folder::with("t.toml", "profile = \"codegen\"\n[models.m]\nkind = \"local\"\n");
    let alone = alone.run(&["check", "t.toml"], "").out;
    has(&alone, &["S37 fallback success > 90 % never: nobody stands in for another"]);
    has(&alone, &["R18 fallback success < 80 % warning >= 20 never: nobody stands in for another"]);
    has(&alone, &["S77.repair a person had to repair (reported) < 5 %"]);
    assert!(!alone.contains("nobody reports it"), "{alone}");
    let money = Folder::with(
        "t.toml",
        "profile = \"finance\"\n[store]\npath = \"state\"\n[models.m]\nkind = \"local\"\n[agents.a]\nmodel = \"m\"\n",
    );
    let money = money.run(&["check", "t.toml"], "").out;
    has(&money, &["S71.loss funds lost (reported) < 0.01 % never: nobody reports it"]);
}

/// A conversation with a model that always fails, its standard error line by line.
fn failing(
    server: &StubServer,
    watch: &str,
) -> (Folder, Killed, impl Iterator<Item = String> + use<>) {
    let text = format!(
        "[policy]\nmax_retries = 0\n[models.far]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n{watch}",
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let mut chat = command(&folder.0, &["run", "t.toml", "--chat"]).spawn().unwrap();
    let err = chat.stderr.take().unwrap();
    (folder, Killed(chat), BufReader::new(err).lines().map_while(Result::ok))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_of_the_file_is_raised_and_ends_as_the_file_says() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::error(404, "model_not_found", "gone"));
    let watch = "[watch]\nwindow = \"3s\"\nhold = \"100ms\"\nwithout = [\"S88\"]\n[watch.alerts.ours]\nmeasure = \"request_errors\"\nabove = \"40 %\"\nseverity = \"critical\"\nmin_samples = 2\n";
    let (_folder, mut chat, lines) = failing(&server, watch);
    let mut input = chat.0.stdin.take().unwrap();
    input.write_all(b"one\ntwo\n").unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut lines = lines.filter(|line| line.contains("ours"));
        (lines.next(), lines.next())
    });
    let (raised, cleared) = heard.await.unwrap();
    // By the usual window of five minutes and hold of half a minute, it would not end within the test.
    assert_eq!(
        raised.as_deref(),
        Some("mainstay: critical: alert ours: 100.0 % where 40.0 % is the limit, of 2")
    );
    assert_eq!(cleared.as_deref(), Some("mainstay: critical: ours is over"));
}

#[test]
fn a_conversation_shows_what_the_objectives_have_come_to() {
    let tree = |count: bool| {
        format!(
            "[policy]\nmax_retries = 0\n[models.far]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n[models.sorry]\nkind = \"default\"\ntext = \"later\"\n[groups.g]\nkind = \"model\"\nmembers = [\"far\", \"sorry\"]\n[watch]\ncount_defaulted = {count}\n"
        )
    };
    for (count, line) in [
        (false, "fallback success                   0.0 % of 1 (goal > 90 %): missed"),
        (true, "fallback success                   100.0 % of 1 (goal > 90 %): met"),
    ] {
        let folder = Folder::with("t.toml", &tree(count));
        let said = folder.run(&["run", "t.toml", "--chat"], "hello\n/metrics\n");
        assert!(
            said.out.contains("over 300 s: 1 requests accepted, 1 done; 2 attempts, 0 retries\n"),
            "{said:?}"
        );
        assert!(said.out.contains(line), "{count}: {said:?}");
    }
}

#[test]
fn a_person_says_whether_an_answer_was_of_use() {
    let folder = Folder::with(
        "t.toml",
        &format!("profile = \"customer_service\"\n{}", "[models.m]\nkind = \"local\"\n"),
    );
    let said = folder.run(&["run", "t.toml", "--chat"], "hello\n/good\n/bad\n/metrics\n");
    assert!(said.out.contains("noted\nnoted\n"), "{said:?}");
    for line in [
        "satisfaction                       50.0 % of 2 (goal > 95 %): missed",
        "a person had to help               0.0 % of 1 (goal < 10 %): met",
    ] {
        assert!(said.out.contains(line), "{said:?}");
    }
    let folder = Folder::with("t.toml", "profile = \"codegen\"\n[models.m]\nkind = \"local\"\n");
    let said =
        folder.run(&["run", "t.toml", "--chat"], "hello\n/good\n/good\n/good\n/bad\n/metrics\n");
    for line in ["75.0 % of 4 (goal > 90 %): missed", "25.0 % of 4 (goal < 5 %): missed"] {
        assert!(said.out.contains(line), "{said:?}");
    }
    // Where nothing asks for it, it is not pretended.
    let folder = Folder::with("t.toml", "[models.m]\nkind = \"local\"\n");
    let said = folder.run(&["run", "t.toml", "--chat"], "hello\n/good\n");
    assert!(said.out.ends_with("no objective asks for it\n"), "{said:?}");
}

#[test]
fn a_person_who_had_to_help_is_counted() {
    let text = "profile = \"customer_service\"\n[policy]\nmax_retries = 0\n[models.far]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n[people.boss]\nexpiry = \"1h\"\n[groups.g]\nkind = \"model\"\nmembers = [\"far\", \"boss\"]\n";
    let folder = Folder::with("t.toml", text);
    let input = "hello\n/answer boss-1 hi\n/metrics\n";
    let said = folder.run(&["run", "t.toml", "--chat"], input);
    let line = "a person had to help               100.0 % of 1 (goal < 10 %): missed";
    assert!(said.out.contains(line), "{said:?}");
}
