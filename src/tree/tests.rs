use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::fault::{Class, ExitKind};
use crate::id::{Delivery, RequestId};
use crate::mirror::{Detail, Nested, RowHandle, Status};

const NOW: Moment = Moment::from_millis(60_000);

struct Says(NodeDetail);

impl Detail for Says {
    fn detail(&self, _now: Moment) -> NodeDetail {
        self.0.clone()
    }
}

fn root() -> Roster {
    let root = Roster::root(Facts::supervisor("support".into(), "one_for_one", "3 in 5s"));
    root.publish(status(ChildState::Idle));
    root.publish_life(Incarnation(1), 0);
    root
}

const fn status(state: ChildState) -> Status {
    Status { state, in_flight: 0, mailbox: 0, has_detail: false }
}

fn child(roster: &Roster, id: &str, kind: Kind, state: ChildState) -> RowHandle {
    let mut row = roster.add(roster.path().join(id), kind);
    row.publish(status(state));
    if state != ChildState::Unstarted {
        row.publish_life(Incarnation(1), 0);
    }
    row
}

/// A detail that lives as long as the test.
fn say(row: &mut RowHandle, status: Status, detail: NodeDetail) -> Arc<Says> {
    let says = Arc::new(Says(detail));
    let weak = Arc::downgrade(&says);
    row.set_detail(weak);
    row.publish(Status { has_detail: true, ..status });
    says
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What keeps a tree.
type Kept = (Vec<Nested>, Vec<RowHandle>, Vec<Arc<Says>>);

/// A small tree in which everything happens at once.
fn busy_tree() -> (Roster, Kept) {
    let root = root();
    let team = root.nest(Facts::supervisor("support/team".into(), "rest_for_one", "5 in 1m"));
    team.roster().publish(status(ChildState::Restarting));
    team.roster().publish_life(Incarnation(3), 2);
    team.roster().publish_cause(ExitKind::Panic, Moment::from_millis(58_000));
    let mut planner = child(team.roster(), "planner", Kind::Stateful, ChildState::Waiting);
    let unsent = child(team.roster(), "écrivain 作家", Kind::Agent, ChildState::Unstarted);
    let llm = root.nest(Facts::group("support/llm".into(), Kind::Model));
    llm.roster().publish(status(ChildState::Idle));
    let mut claude = child(llm.roster(), "claude", Kind::Model, ChildState::Busy);
    let mut spare = child(llm.roster(), "spare", Kind::Model, ChildState::BackingOff);
    claude.publish_life(Incarnation(13), 12);
    let mut work = NodeDetail::default();
    for (attempt, age) in [(2, 340), (1, 20)] {
        let (request, delivery) = (RequestId(7 + u64::from(attempt)), Delivery(attempt));
        let age = Duration::from_millis(age);
        work.in_flight.push(InFlight { request, attempt, delivery, age });
    }
    work.circuit = Some(CircuitView::HalfOpen);
    let ended = Ended::Fault { class: Class::RateLimit, code: Some("429".to_owned()) };
    work.last_cause = Some(LastCause { ended, age: Duration::from_millis(4_250) });
    let rest = NodeDetail {
        circuit: Some(CircuitView::Open { left: secs(4) }),
        resumes_in: Some(secs(95)),
        zombies: 1,
        ..NodeDetail::default()
    };
    let waits = NodeDetail {
        waits_for: vec!["support/llm/claude".into(), "support/other".into()],
        budgets: vec![BudgetView { name: "tokens".to_owned(), left: 52_000, limit: Some(100_000) }],
        checkpoint: Some(CheckpointView { id: "c42".to_owned(), age: secs(7_300), step: 40 }),
        ..NodeDetail::default()
    };
    let flying = Status { in_flight: 2, mailbox: 1_234, ..status(ChildState::Busy) };
    let says = vec![
        say(&mut claude, flying, work),
        say(&mut spare, status(ChildState::BackingOff), rest),
        say(&mut planner, status(ChildState::Waiting), waits),
    ];
    (root, (vec![team, llm], vec![planner, unsent, claude, spare], says))
}

#[test]
fn a_dump_reads_as_an_aligned_tree() {
    let root = root();
    let _team = root.nest(Facts::supervisor("support/team".into(), "one_for_all", "1 in 5s"));
    let mut db = child(&root, "db", Kind::Stateful, ChildState::Idle);
    let _search = child(&root, "recherche 検索", Kind::Tool, ChildState::Unstarted);
    db.publish(Status { mailbox: 4, ..status(ChildState::Idle) });
    let text = TreeDump::read(&root, NOW, Details::Ask).to_string();
    let expected = "\
name               kind                    state      life  mailbox
support            supervisor one_for_one  running    #1
├─ team            supervisor one_for_all  unstarted
├─ db              stateful                idle       #1          4
└─ recherche 検索  tool                    unstarted
2 supervisors, 2 children: 1 serving, 1 unstarted
";
    assert_eq!(text, expected);
}

#[test]
fn a_dump_tells_what_is_in_flight_what_failed_and_what_is_waited_for() {
    let (root, _kept) = busy_tree();
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    let expected = "\
name                 kind                     state              life  restarts  mailbox  in flight            circuit    last cause              waits for              zombies  left                   checkpoint
support              supervisor one_for_one   running            #1
├─ team              supervisor rest_for_one  restarting         #3           2                                           panic, 2s
│  ├─ planner        stateful                 waiting            #1                                                                               support/llm/claude +1           tokens 52,000/100,000  c42, 2h01m, step 40
│  └─ écrivain 作家  agent                    unstarted
└─ llm               model group              running
   ├─ claude         model                    busy               #13         12    1,234  attempt 2, 340ms +1  half-open  rate_limit (429), 4.2s
   └─ spare          model                    backing off 1m35s  #1                                            open 4s                                                         1
2 supervisors, 1 group, 4 children: 2 serving, 1 unstarted, 1 backing off; 14 restarts
";
    assert_eq!(dump.to_string(), expected);
    assert!(format!("{dump:#}").contains("5 in 1m"));
    let rows = TreeDump::read(&root, NOW, Details::Skip).to_string();
    assert!(!rows.contains("attempt") && rows.contains("1,234"), "{rows}");
}

#[test]
fn a_usual_tree_fits_a_hundred_columns() {
    let root = root();
    let llm = root.nest(Facts::group("support/llm".into(), Kind::Model));
    llm.roster().publish(status(ChildState::Idle));
    let mut claude = child(llm.roster(), "claude", Kind::Model, ChildState::Busy);
    claude.publish_life(Incarnation(3), 2);
    let mut work = NodeDetail::default();
    let (request, delivery, age) = (RequestId(1), Delivery(2), Duration::from_millis(340));
    work.in_flight.push(InFlight { request, attempt: 2, delivery, age });
    work.last_cause = Some(LastCause { ended: Ended::Exit(ExitKind::Panic), age: secs(2) });
    let _says = say(&mut claude, Status { mailbox: 12, ..status(ChildState::Busy) }, work);
    let text = TreeDump::read(&root, NOW, Details::Ask).to_string();
    for line in text.lines() {
        assert!(unicode_width::UnicodeWidthStr::width(line) <= 100, "{line}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn alike_children_are_summed_up_and_the_others_are_not() {
    let root = root();
    let mut many: Vec<_> = (0..10_000)
        .map(|n| child(&root, &format!("w{n}"), Kind::Stateless, ChildState::Idle))
        .collect();
    let _nested = root.nest(Facts::group("support/llm".into(), Kind::Model));
    many[7_000].publish(Status { mailbox: 3, ..status(ChildState::Idle) });
    many[8_000].publish(status(ChildState::Quarantined));
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    let text = dump.to_string();
    let shown: Vec<_> = (2..10)
        .map(|n| format!("├─ w{n}                 stateless               idle         #1\n"))
        .collect();
    let expected = format!(
        "\
name                  kind                    state        life  mailbox
support               supervisor one_for_one  running      #1
├─ w0                 stateless               idle         #1
├─ w1                 stateless               idle         #1
{}├─ w7000              stateless               idle         #1          3
├─ w8000              stateless               quarantined  #1
├─ llm                model group             unstarted
└─ … 9,988 more idle
1 supervisor, 1 group, 10,000 children: 9,999 serving, 1 quarantined
",
        shown.concat()
    );
    assert_eq!(text, expected);
    assert_eq!(format!("{dump:#}").lines().count(), 10_000 + 4);
    assert_eq!(dump.len(), 10_002);
    assert!(dump.to_dot().contains("… 9,988 more idle"));
    assert!(dump.to_mermaid().contains("[\"… 9,988 more idle\"]"));
}

#[test]
fn a_storm_does_not_flood_the_screen() {
    let root = root();
    let _many: Vec<_> = (0..200)
        .map(|n| {
            let mut row = child(&root, &format!("w{n}"), Kind::Tool, ChildState::Restarting);
            row.publish_life(Incarnation(2), 1);
            row
        })
        .collect();
    let text = TreeDump::read(&root, NOW, Details::Ask).to_string();
    assert!(text.contains("└─ … 150 more restarting\n"), "{text}");
    assert_eq!(text.lines().count(), 54);
}

#[test]
fn nodes_are_found_by_path_and_walked_in_order() {
    let (root, _kept) = busy_tree();
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    let ids: Vec<_> = dump.nodes().map(|node| node.id()).collect();
    assert_eq!(ids, ["support", "team", "planner", "écrivain 作家", "llm", "claude", "spare"]);
    assert_eq!(dump.len(), ids.len());
    for node in dump.nodes() {
        assert_eq!(dump.find(node.path()).map(|node| node.path()), Some(node.path()));
    }
    for missing in ["", "supp", "support/", "support/tea", "support/llm/claude/x", "other"] {
        assert!(dump.find(&missing.into()).is_none(), "{missing}");
    }
    let claude = dump.find(&"support/llm/claude".into()).unwrap();
    assert_eq!((claude.mailbox(), claude.in_flight(), claude.restarts()), (1_234, 2, 12));
    assert_eq!((claude.state(), claude.incarnation()), (ChildState::Busy, Incarnation(13)));
    assert_eq!(claude.detail().unwrap().in_flight[0].attempt, 2);
    let team = dump.find(&"support/team".into()).unwrap();
    assert_eq!((team.strategy(), team.intensity()), (Some("rest_for_one"), Some("5 in 1m")));
    assert_eq!((team.child_count(), team.children().count()), (2, 2));
    assert_eq!(dump.counts(), root.counts());
}

#[test]
fn json_is_nested_and_comes_back_the_same() {
    let (root, _kept) = busy_tree();
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    let json = dump.to_json();
    let again: TreeDump = serde_json::from_str(&json).unwrap();
    assert_eq!(again.to_json(), json);
    assert_eq!(again.to_string(), dump.to_string());
    assert_eq!((again.len(), again.counts(), again.at()), (dump.len(), dump.counts(), NOW));

    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "path": "support/llm/claude", "id": "claude", "kind": "model", "state": "busy",
        "incarnation": 13, "restarts": 12, "mailbox": 1_234, "in_flight_count": 2,
        "in_flight": [
            {"request": 9, "attempt": 2, "delivery": 2, "age_ms": 340},
            {"request": 8, "attempt": 1, "delivery": 1, "age_ms": 20},
        ],
        "circuit": {"state": "half_open"},
        "last_cause": {"ended": {"Fault": {"class": "rate_limit", "code": "429"}}, "age_ms": 4_250},
    });
    assert_eq!(value["at_ms"], 60_000);
    assert_eq!(value["root"]["children"][1]["children"][0], expected);
    assert_eq!(value["root"]["children"][0]["strategy"], "rest_for_one");
    assert_eq!(value["root"]["children"][1]["of"], "model");
    let planner = &value["root"]["children"][0]["children"][0];
    assert_eq!(planner["waits_for"][0], "support/llm/claude");
    assert_eq!(
        planner["checkpoint"],
        serde_json::json!({"id": "c42", "age_ms": 7_300_000, "step": 40})
    );
}

#[test]
fn json_of_many_children_comes_back_the_same_and_a_leaf_with_children_is_refused() {
    let root = root();
    let mut many: Vec<_> = (0..3_000)
        .map(|n| child(&root, &format!("w{n}"), Kind::Stateless, ChildState::Idle))
        .collect();
    many.retain(|_| true);
    many.remove(1_500);
    let json = TreeDump::read(&root, NOW, Details::Ask).to_json();
    let again: TreeDump = serde_json::from_str(&json).unwrap();
    assert_eq!((again.to_json() == json, again.len()), (true, 3_000));

    let leaf = json.replacen("\"supervisor\"", "\"tool\"", 1);
    let error = serde_json::from_str::<TreeDump>(&leaf).unwrap_err().to_string();
    assert!(error.contains("\"support\" is a tool and has no children"), "{error}");
}

/// Ids that try to break out.
const HOSTILE: [&str; 10] = [
    r#"a"b"#,
    r"a\",
    "a]b[c",
    "a|b{c}d<e>&amp;f",
    "a\nb\u{0}\u{202e}c",
    "\"];\nevil -> node [label=\"",
    "end",
    "1. one `two` **three** _four_ #quot; #35;",
    "- x %% y ;",
    "",
];

#[test]
fn no_id_breaks_a_line_a_quote_or_a_graph() {
    let root = root();
    let _rows: Vec<_> =
        HOSTILE.iter().map(|id| child(&root, id, Kind::Stateless, ChildState::Idle)).collect();
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    assert_eq!(dump.to_string().lines().count(), HOSTILE.len() + 3);
    let again: TreeDump = serde_json::from_str(&dump.to_json()).unwrap();
    assert_eq!(again.to_json(), dump.to_json());

    let dot = dump.to_dot();
    assert!(dot.contains(r#"  n1 [label="a\"b\nstateless\nidle #1", style=rounded];"#), "{dot}");
    assert!(dot.contains(r#"  n2 [label="a\\\nstateless"#), "{dot}");
    assert_eq!(dot.lines().count(), 4 + 1 + 2 * HOSTILE.len() + 1);
    for line in dot.lines().filter(|line| line.contains("[label=")) {
        let inner = line.split_once("[label=\"").unwrap().1;
        let plain = inner.replace("\\\\", "").replace("\\\"", "");
        let (_, after) = plain.split_once('"').unwrap();
        assert!(matches!(after, "];" | ", style=rounded];"), "{line}");
    }

    let mermaid = dump.to_mermaid();
    for line in mermaid.lines().skip(1) {
        assert!(is_mermaid(line), "{line}");
    }
    assert!(mermaid.contains(r##"  n1("a#34;b<br/>stateless<br/>idle #35;1")"##), "{mermaid}");
    assert!(mermaid.contains("n8(\"1#46; one #96;two#96;"), "{mermaid}");
}

/// Whether a line is one of the three that a flowchart of ours may hold.
fn is_mermaid(line: &str) -> bool {
    let vertex = |text: &str| {
        let digits = text.strip_prefix('n').unwrap_or("");
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
    };
    let Some(line) = line.strip_prefix("  ") else { return false };
    for arrow in [" --> ", " -. waits for .-> "] {
        if let Some((from, to)) = line.split_once(arrow)
            && vertex(from)
        {
            return vertex(to);
        }
    }
    let Some((id, shape)) = line.split_once(['[', '(']) else { return false };
    let shape = &line[line.len() - shape.len() - 1..];
    let label = [("[[\"", "\"]]"), ("[\"", "\"]"), ("(\"", "\")")]
        .into_iter()
        .find_map(|(open, close)| shape.strip_prefix(open)?.strip_suffix(close));
    let Some(label) = label else { return false };
    let text = label.replace("<br/>", " ");
    let entity = |part: &str| part.split_once(';').is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    vertex(id)
        && !text.contains(['"', '<', '>', '[', ']', '{', '}', '|', '`', '*', '&', '\\', '%'])
        && text.split('#').skip(1).all(entity)
}

#[test]
fn graphs_show_who_waits_for_whom() {
    let (root, _kept) = busy_tree();
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    let expected = r#"flowchart LR
  n0["support<br/>supervisor one_for_one<br/>running #35;1"]
  n1["team<br/>supervisor rest_for_one<br/>restarting #35;3<br/>2 restarts<br/>last: panic, 2s"]:::uneasy
  n0 --> n1
  n2[["llm<br/>model group<br/>running"]]
  n0 --> n2
  n3("planner<br/>stateful<br/>waiting #35;1<br/>left: tokens 52,000/100,000<br/>kept: c42, 2h01m, step 40")
  n1 --> n3
  n4("écrivain 作家<br/>agent<br/>unstarted")
  n1 --> n4
  n5("claude<br/>model<br/>busy #35;13<br/>12 restarts<br/>1,234 in mailbox<br/>in flight: attempt 2, 340ms #43;1<br/>circuit half-open<br/>last: rate_limit (429), 4.2s"):::uneasy
  n2 --> n5
  n6("spare<br/>model<br/>backing off 1m35s #35;1<br/>circuit open 4s<br/>1 zombies"):::bad
  n2 --> n6
  n3 -. waits for .-> n5
  classDef uneasy fill:#fff3cd,stroke:#997404
  classDef bad fill:#f8d7da,stroke:#b02a37
"#;
    assert_eq!(dump.to_mermaid(), expected);
    let dot = dump.to_dot();
    assert!(dot.contains("  n3 -> n5 [style=dashed, constraint=false, label=\"waits for\"];\n"));
    assert!(
        dot.contains("n4 [label=\"écrivain 作家\\nagent\\nunstarted\", style=\"rounded,dashed\"]")
    );
    let spare = "1 zombies\", style=\"rounded,filled\", fillcolor=\"#f8d7da\", color=\"#b02a37\"];";
    assert!(dot.contains(spare), "trouble is seen before anything is read: {dot}");
    assert!(dot.contains("n2 [label=\"llm\\nmodel group\\nrunning\", shape=folder];"));
}

#[test]
fn durations_are_short_and_numbers_are_grouped() {
    let texts = [0, 999, 1_000, 4_250, 59_999, 60_000, 185_000, 7_800_000, 273_600_000]
        .map(|millis| cells::short(Duration::from_millis(millis)));
    assert_eq!(texts, ["0ms", "999ms", "1s", "4.2s", "59s", "1m00s", "3m05s", "2h10m", "3d4h"]);
    let texts = [0, 999, 1_000, 1_234_567].map(cells::grouped);
    assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
}

/// Says the number of its child, so that a dump that mixed two children up would show.
struct Numbered(u32);

impl Detail for Numbered {
    fn detail(&self, _now: Moment) -> NodeDetail {
        NodeDetail { zombies: self.0, ..NodeDetail::default() }
    }
}

/// Stops the threads, also when an assertion failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_row_used_again_is_never_shown_under_another_id() {
    let root = root();
    let done = AtomicBool::new(false);
    let churn = |mut number: u32| {
        let mut rows = Vec::new();
        while !done.load(Ordering::Relaxed) {
            number += 4;
            let path = ChildPath::new(format!("support/{number}"));
            let mut row = root.add(path, Kind::Stateless);
            let says = Arc::new(Numbered(number));
            let weak = Arc::downgrade(&says);
            row.set_detail(weak);
            row.publish_life(Incarnation(number), number);
            let has_detail = number.is_multiple_of(8);
            let mailbox = number as usize;
            row.publish(Status { mailbox, has_detail, ..status(ChildState::Idle) });
            rows.push((row, says));
            if rows.len() > 40 {
                rows.swap_remove(number as usize % 40);
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..2 {
            scope.spawn(move || churn(number));
        }
        let _stop = Stop(&done);
        let mut seen = 0;
        for round in 0.. {
            if seen > 50_000 && round > 1_000 {
                break;
            }
            let details = if round % 2 == 0 { Details::Ask } else { Details::Skip };
            let dump = TreeDump::read(&root, NOW, details);
            for node in dump.root().children() {
                let number: u32 = node.id().parse().unwrap();
                // Its own numbers, or none yet.
                for own in [node.incarnation().0, node.restarts(), node.mailbox()] {
                    assert!(own == 0 || own == number, "{node:?}");
                }
                if let Some(detail) = node.detail() {
                    assert_eq!(detail.zombies, number);
                }
                seen += 1;
            }
            assert_eq!(dump.root().children().count(), dump.root().child_count());
        }
    });
    assert_eq!(root.counts().children, 0);
    assert_eq!(TreeDump::read(&root, NOW, Details::Ask).len(), 1);
}

#[test]
fn a_dump_keeps_what_it_saw() {
    let root = root();
    let mut row = child(&root, "old", Kind::Tool, ChildState::Busy);
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    row.publish(status(ChildState::Stopped));
    drop(row);
    let _new = child(&root, "new", Kind::Tool, ChildState::Idle);
    let node = dump.root().children().next().unwrap();
    assert_eq!((node.id(), node.state()), ("old", ChildState::Busy));
    let dump = TreeDump::read(&root, NOW, Details::Ask);
    assert_eq!(dump.root().children().next().unwrap().id(), "new");
}
