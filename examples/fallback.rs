//! A model is down, so its sibling answers the same request, and the caller sees no failure: only that
//! the answer is degraded, and by whom it is. After three failures in a row the circuit opens and the
//! model is not asked any more. When it is well again two probes close the circuit, and it serves.

use std::time::Duration;

use mainstay::circuit::CircuitSpec;
use mainstay::event::Event;
use mainstay::fault::Class;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::scripted::Script;

const REST: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let claude = Script::<String, String>::new(|_| "a long and thoughtful answer".to_owned());
    let local = Script::<String, String>::new(|_| "a short answer".to_owned());
    let system = System::start(
        SupervisorSpec::one_for_one("support").group(
            GroupSpec::model("llm")
                .member("claude", claude.behavior())
                .member("local", local.behavior())
                // One second instead of five, so that this ends soon.
                .circuit(CircuitSpec::new().with_open(REST, Duration::MAX)),
        ),
    )
    .await?;
    let llm = system.port::<String, String>("support/llm")?;
    let mut events = system.events();
    let ask = async || -> Result<(), Box<dyn std::error::Error>> {
        let before = claude.count();
        let answer = llm.call("Where is order 1042?").await?;
        let asked = if claude.count() > before { "asked" } else { "not asked" };
        let degraded = if answer.degraded { ", degraded" } else { "" };
        println!("  claude {asked}: {}, by {}{degraded}", answer.value, answer.served_by.id());
        Ok(())
    };

    println!("claude is well");
    ask().await?;
    println!("claude is down");
    claude.otherwise_fail(Class::ModelUnavailable);
    for _ in 0..5 {
        ask().await?;
    }
    println!("{}", system.tree());

    println!("claude is well again");
    claude.otherwise_usual();
    // Nothing to be told: the next request after the rest is a probe.
    tokio::time::sleep(REST + Duration::from_millis(100)).await;
    for _ in 0..3 {
        ask().await?;
    }
    println!("{}", system.tree());

    println!("what the events say");
    while let Some(stamped) = events.try_next() {
        match stamped.event {
            Event::Circuit { child, state } => println!("  circuit of {}: {state}", child.id()),
            Event::Switched { from, to, failback, .. } => {
                let why = if failback { "back" } else { "over" };
                println!("  {why} from {} to {}", from.id(), to.id());
            }
            _ => {}
        }
    }
    system.stop().await;
    Ok(())
}
