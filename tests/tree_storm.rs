//! Everything at once: kills, panics, normal ends, operators and time, against a nested tree. Whatever
//! happens, each question is answered, the tree comes to rest and says the truth about it, and it stops.

use std::collections::HashMap;
use std::time::Duration;

use mainstay::family::ChildStatus;
use mainstay::spec::{ChildSpec, RestartType, Shutdown, SupervisorSpec};
use mainstay::system::System;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, FOREVER, Kit, Starts, Stops, pass, secs};

const PLACES: [&str; 4] = ["top", "top/one", "top/two", "top/two/deep"];
const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Numbers from a seed, which a failing test prints.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len() as u64) as usize]
    }
}

/// A child whose attempts and starts come to an end by themselves.
fn child(kit: &Kit, place: &str, id: &str) -> ChildSpec {
    let child = kit.child(&format!("{place}/{id}")).with_id(id);
    child.start_timeout(secs(10)).attempt_timeout(secs(10)).deadline(secs(60))
}

fn supervisor(id: &str, place: &str, kit: &Kit, dice: &mut Dice) -> SupervisorSpec {
    let make = *dice.pick(&[
        SupervisorSpec::one_for_one,
        SupervisorSpec::one_for_all,
        SupervisorSpec::rest_for_one,
    ]);
    let mut spec = make(id);
    for child in &IDS[..dice.roll(4) as usize] {
        let kinds = [RestartType::Permanent, RestartType::Transient, RestartType::Temporary];
        let child = self::child(kit, place, child).restart(*dice.pick(&kinds));
        spec =
            spec.child(child.shutdown(*dice.pick(&[Shutdown::Brutal, Shutdown::Timeout(secs(2))])));
    }
    if dice.roll(2) == 0 {
        spec = spec.restart_backoff(Duration::from_millis(200), secs(2));
    }
    if dice.roll(2) == 0 {
        spec = spec.no_child_limit();
    }
    let limit = if place == "top" { u32::MAX } else { dice.roll(4) as u32 };
    spec.shutdown(*dice.pick(&[Shutdown::Brutal, Shutdown::Timeout(secs(3)), Shutdown::Infinity]))
        .intensity(limit, secs(5))
}

async fn storm(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let kit = Kit::new();
    let deep = supervisor("deep", PLACES[3], &kit, &mut dice);
    let two = supervisor("two", PLACES[2], &kit, &mut dice).supervisor(deep);
    let one = supervisor("one", PLACES[1], &kit, &mut dice);
    let top = supervisor("top", PLACES[0], &kit, &mut dice).supervisor(one).supervisor(two);
    let system = System::start(top).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..120 {
        let (place, id) = (*dice.pick(&PLACES), *dice.pick(&IDS));
        let path = format!("{place}/{id}");
        let supervisor = system.supervisor(place);
        match (dice.roll(14), supervisor) {
            (0..2, _) => drop(system.kill(path.as_str())),
            (2..4, _) => {
                let todo = dice.pick(&[Do::Ping, Do::Finish, Do::Panic, Do::Hang]).clone();
                if let Ok(child) = system.child::<kit::Worker>(path.as_str()) {
                    asked.push(tokio::spawn(async move { drop(child.call(todo).await) }));
                }
            }
            (4, Ok(supervisor)) => {
                let spec = child(&kit, place, id);
                asked.push(tokio::spawn(async move { drop(supervisor.start_child(spec).await) }));
            }
            (5, Ok(supervisor)) => {
                asked.push(tokio::spawn(async move { drop(supervisor.terminate_child(id).await) }));
            }
            (6 | 7, Ok(supervisor)) => {
                asked.push(tokio::spawn(async move { drop(supervisor.restart_child(id).await) }));
            }
            (8, Ok(supervisor)) => {
                asked.push(tokio::spawn(async move { drop(supervisor.delete_child(id).await) }));
            }
            (9, Ok(supervisor)) => {
                let id = *dice.pick(&["one", "two", "deep"]);
                let restart = dice.roll(3) > 0;
                asked.push(tokio::spawn(async move {
                    if restart {
                        drop(supervisor.restart_child(id).await);
                    } else {
                        drop(supervisor.terminate_child(id).await);
                    }
                }));
            }
            (10, _) => {
                let starts = [Starts::Well, Starts::Not, Starts::Never, Starts::Panics];
                kit.starts(&path, *dice.pick(&starts));
                kit.stops(&path, *dice.pick(&[Stops::Well, Stops::After(secs(1)), Stops::Never]));
            }
            (11, _) => pass(Duration::from_millis(dice.roll(900))).await,
            _ => tokio::task::yield_now().await,
        }
        assert!(system.fates().is_balanced());
    }
    // From here on all goes well, and what hangs in its start is let go by an operator.
    for place in PLACES {
        for id in IDS {
            kit.starts(&format!("{place}/{id}"), Starts::Well);
            kit.stops(&format!("{place}/{id}"), Stops::Well);
        }
    }
    for _ in 0..24 {
        settle_all(&system).await;
        pass(secs(5)).await;
    }
    for asked in asked {
        let answered = tokio::time::timeout(FOREVER * 10, asked).await;
        answered.expect("every question is answered").unwrap();
    }
    settle_all(&system).await;
    rest(&system).await;
    no_life_begins_twice(&kit.said());
    tokio::time::timeout(secs(100), system.stop()).await.expect("it stops");
    let fates = system.fates();
    assert!(fates.is_balanced() && fates.open == 0, "{fates:?}");
    kit.said();
    pass(secs(1000)).await;
    tokio::task::yield_now().await;
    assert_eq!(kit.said(), "", "nothing comes back");
}

async fn settle_all(system: &System) {
    for place in PLACES {
        if let Ok(supervisor) = system.supervisor(place) {
            for _ in 0..12 {
                tokio::task::yield_now().await;
                let _ = supervisor.count_children().await;
            }
        }
    }
}

/// What supervisors, dump and children say about each other agrees.
async fn rest(system: &System) {
    let dump = system.tree();
    assert_eq!(dump.counts(), system.counts(), "{dump}");
    for place in PLACES {
        let Ok(supervisor) = system.supervisor(place) else { continue };
        let Ok(children) = supervisor.which_children().await else { continue };
        for child in children {
            let path = format!("{place}/{}", child.id);
            let node = dump.find(&path.as_str().into());
            let state = node.unwrap_or_else(|| panic!("{path} in {dump}")).state().name();
            let expected = match child.status {
                ChildStatus::Running => "idle",
                ChildStatus::Stopped => "stopped",
                ChildStatus::Quarantined => "quarantined",
                other => panic!("{path} {other} at rest: {dump}"),
            };
            assert_eq!(state, expected, "{path} is {}: {dump}", child.status);
            if let Ok(worker) = system.child::<kit::Worker>(path.as_str()) {
                let life = worker.call(Do::Ping).await.ok().map(|answer| answer.value);
                let up = child.status == ChildStatus::Running;
                assert_eq!(life, up.then_some(child.incarnation.0), "{path}: {dump}");
            }
        }
    }
}

/// No life begins twice. Another child under the name of one that was deleted begins with its first.
fn no_life_begins_twice(said: &str) {
    let mut last: HashMap<&str, u32> = HashMap::new();
    for start in said.split(", ").filter_map(|said| said.strip_prefix("start ")) {
        let (child, life) = start.split_at(start.rfind(|c: char| !c.is_ascii_digit()).unwrap() + 1);
        let life: u32 = life.parse().unwrap();
        let before = last.insert(child, life);
        assert!(before != Some(life) || life == 1, "{child} {life} twice in {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_in_a_storm_answers_everybody_comes_to_rest_and_stops() {
    for seed in 1..=24 {
        println!("seed {seed}");
        storm(seed).await;
    }
}
