//! The keys of `[supervisor]` that only a crash shows. Nothing that comes from outside ends a life of the
//! ready-made children, so the tests that run the program cannot see them at work.

use std::sync::atomic::{AtomicU32, Ordering};

use mainstay::event::{Event, EventStream};
use mainstay::fault::ExitCause;

use super::*;

/// Three models below a supervisor with these keys.
async fn three(keys: &str) -> System {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let file = FILES.fetch_add(1, Ordering::Relaxed);
    let name = format!("mainstay-build-{}-{file}.toml", std::process::id());
    let path = std::env::temp_dir().join(name);
    let models = ["a", "b", "c"].map(|name| format!("[models.{name}]\nkind = \"local\"\n"));
    let text = format!("name = \"t\"\nentry = \"a\"\n[supervisor]\n{keys}{}", models.concat());
    std::fs::write(&path, text).unwrap();
    let tree = Tree::read(&path);
    std::fs::remove_file(&path).unwrap();
    System::start(tree.unwrap().spec().unwrap()).await.unwrap()
}

/// Kills the child, and says who began a life because of that.
async fn begun(system: &System, events: &mut EventStream, killed: &str) -> Vec<String> {
    system.kill(killed).unwrap();
    let (mut begun, mut all) = (Vec::new(), None);
    while all.is_none_or(|all| begun.len() < all) {
        match events.next().await.unwrap().event {
            Event::Restarting { scope, .. } => all = Some(scope),
            Event::Started { child, .. } => begun.push(child.as_str().to_owned()),
            _ => {}
        }
    }
    begun.sort();
    begun
}

#[tokio::test(start_paused = true)]
async fn a_crash_takes_along_whom_the_strategy_says() {
    let cases = [
        ("", &["t/b"][..]),
        ("strategy = \"one_for_one\"\n", &["t/b"]),
        ("strategy = \"one_for_all\"\n", &["t/a", "t/b", "t/c"]),
        ("strategy = \"rest_for_one\"\n", &["t/b", "t/c"]),
    ];
    for (keys, expected) in cases {
        let system = three(keys).await;
        let mut events = system.events();
        assert_eq!(begun(&system, &mut events, "t/b").await, expected, "{keys}");
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_tree_gives_up_after_so_many_restarts_in_such_a_time() {
    // Each child crashes once: one that does so more often alone is set aside.
    let cases = [
        ("restarts = 1\n", 0, 1),
        ("restarts = 2\n", 0, 2),
        ("restarts = 1\nperiod = \"7s\"\n", 6, 1),
        ("restarts = 1\nperiod = \"5s\"\n", 6, 3),
        // Three in five seconds.
        ("", 0, 3),
    ];
    for (keys, between, expected) in cases {
        let system = three(keys).await;
        let mut events = system.events();
        let mut restarts = 0;
        for child in ["t/a", "t/b", "t/c"] {
            tokio::select! {
                biased;
                _ = begun(&system, &mut events, child) => restarts += 1,
                ended = system.wait() => {
                    assert!(matches!(ended.0, ExitCause::Intensity { .. }), "{keys}: {ended:?}");
                    break;
                }
            }
            tokio::time::advance(Duration::from_secs(between)).await;
        }
        assert_eq!(restarts, expected, "{keys}");
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_alone_uses_up_the_restarts_is_set_aside() {
    let aside = |event: &Event| matches!(event, Event::ChildQuarantined { child, .. } if child.as_str() == "t/b");
    for restarts in [0, 1, 4] {
        let system = three(&format!("restarts = {restarts}\n")).await;
        let mut events = system.events();
        for _ in 0..restarts {
            assert_eq!(begun(&system, &mut events, "t/b").await, ["t/b"]);
        }
        system.kill("t/b").unwrap();
        events.wait_for(aside).await.unwrap();
        // The others go on.
        system.stop().await;
    }
}
