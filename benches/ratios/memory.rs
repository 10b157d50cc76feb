//! P6: resident memory of a child: of one that has worked, and of one that had no work yet.
//!
//! Each number comes from a process of its own, this program started again, so that no allocator gives
//! to one what another has used before. Dormant children, which worked and were put to sleep, are not
//! measured: they do not exist yet.

use std::process::{Command, ExitCode};

use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use ractor::call;

use super::hand::{self, Kameo, Msg};
use super::meter::{Asks, Goal, Options, Side, Unit, alternate, ct, report};
use super::ours::{Echo, Ours, Stopwatch};

const CHILDREN: usize = 100_000;
const FLAG: &str = "--memory-of";

/// Resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * rustix::param::page_size()
}

/// Starts so many children below "top", one after the other.
pub(crate) async fn fill(system: &System, children: usize) {
    let top = system.supervisor("top").expect("it is there");
    let template = ChildSpec::stateful("0", || Echo);
    for child in 0..children {
        top.start_child(template.clone().with_id(child.to_string())).await.expect("it starts");
    }
}

/// What this process does when it was started to be measured: prints bytes a child.
pub(crate) fn answer(arguments: &[String]) -> Option<ExitCode> {
    let [flag, kind, children] = arguments else { return None };
    if flag != FLAG {
        return None;
    }
    let children: usize = children.parse().ok()?;
    let runtime = ct();
    let before = resident();
    let after = match kind.as_str() {
        "ours-awake" => runtime.block_on(async {
            let system = System::start(SupervisorSpec::dynamic("top")).await.expect("it starts");
            fill(&system, children).await;
            for child in 0..children {
                let port = system.port::<u64, u64>(format!("top/{child}")).expect("it is there");
                Ours(port).ask().await;
            }
            resident()
        }),
        "ours-new" => runtime.block_on(async {
            let system = System::start(SupervisorSpec::dynamic("top")).await.expect("it starts");
            fill(&system, children).await;
            resident()
        }),
        "ractor" => runtime.block_on(async {
            let (addresses, _nurse) = hand::ward(&Stopwatch::new(), children, false).await;
            for address in &addresses {
                let actor = hand::at(address);
                assert_eq!(call!(actor, Msg::Echo, 1).expect("it serves"), 2);
            }
            resident()
        }),
        "kameo" => runtime.block_on(async {
            let (workers, _boss) = Kameo::ward(&Stopwatch::new(), children).await;
            for worker in &workers {
                worker.ask().await;
            }
            resident()
        }),
        _ => return Some(ExitCode::FAILURE),
    };
    println!("{}", after.saturating_sub(before) / children);
    Some(ExitCode::SUCCESS)
}

/// Bytes a child, measured in a process of its own.
fn measure(kind: &str, children: usize) -> f64 {
    let program = std::env::current_exe().expect("a program knows itself");
    let children = children.to_string();
    let output = Command::new(program)
        .args([FLAG, kind, &children])
        .output()
        .expect("this program can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().unwrap_or_else(|_| panic!("{kind}: no number but {text:?}"))
}

pub(crate) fn run(options: &Options) {
    let children = options.size(CHILDREN);
    let once = Options { rounds: options.rounds.min(3), ..*options };
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| measure("ours-awake", children))),
        ("ractor", Box::new(|| measure("ractor", children))),
        ("kameo", Box::new(|| measure("kameo", children))),
    ];
    let awake = alternate(&once, sides);
    report(format_args!("P6 awake of {children}"), Unit::Memory, &awake, Goal::AtMost(8.5e3));
    let sides: Vec<Side<'_>> = vec![("ours", Box::new(|| measure("ours-new", children)))];
    let new = alternate(&once, sides);
    let new = [new[0], awake[1]];
    report(format_args!("P6 no work yet of {children}"), Unit::Memory, &new, Goal::AtMost(1e3));
}
