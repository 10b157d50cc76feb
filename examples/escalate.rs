//! Two supervisors, one inside the other. A request that nobody can answer climbs the whole ladder: its
//! caller gets RecoveryExhausted with the trail, and there is one alert. A child that crashes again and
//! again takes its supervisor down; the outer one starts that again, and addresses stay what they were.

use std::time::Duration;

use mainstay::event::Event;
use mainstay::fault::Class;
use mainstay::policy::Policy;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::scripted::{Script, ScriptedState};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The panics are part of the story; Rust's own reports of them would only stand in the way.
    std::panic::set_hook(Box::new(|_| {}));

    let (claude, local) = (Script::<String, String>::echo(), Script::<String, String>::echo());
    let clerk = Script::<String, String>::new(|order| format!("{order} is packed"));
    let system = System::start(
        SupervisorSpec::one_for_one("shop").policy(Policy::playbook_exact()).supervisor(
            SupervisorSpec::one_for_one("team")
                // OTP's default: one restart in five seconds; the second ends the team. Without a limit
                // of its own, the child is not set aside before.
                .intensity(1, Duration::from_secs(5))
                .no_child_limit()
                .group(
                    GroupSpec::model("llm")
                        .member("claude", claude.behavior())
                        .member("local", local.behavior()),
                )
                .child(clerk.stateful("clerk")),
        ),
    )
    .await?;
    let mut events = system.events();

    println!("A request that nobody can answer");
    claude.then_fail(Class::Timeout);
    claude.then_fail(Class::Network);
    claude.then_fail(Class::ModelUnavailable);
    local.then_fail(Class::ModelUnavailable);
    let llm = system.port::<String, String>("shop/team/llm")?;
    let error = llm.call("Where is order 1042?").await.expect_err("everybody fails");
    for failed in error.trail().into_iter().flat_map(|trail| trail.iter()) {
        let (child, action) = (failed.child.id(), failed.action.name());
        println!("  attempt {} at {child}: {}, then {action}", failed.attempt, failed.ended);
        for (rung, why) in &failed.declined {
            println!("    no {rung}: {why}");
        }
    }
    let mut alerts = 0;
    while let Some(stamped) = events.try_next() {
        alerts += usize::from(matches!(stamped.event, Event::Alert { .. }));
    }
    println!("  alerts: {alerts}");

    println!("\nA child that crashes again and again");
    let clerk_ref = system.child::<ScriptedState<String, String>>("shop/team/clerk")?;
    clerk.then_panic();
    clerk.then_panic();
    let error = clerk_ref.call("order 666").await.expect_err("it ends two lives");
    println!("  the caller hears: {error}");
    println!("  the same address: {}", clerk_ref.call("order 7").await?.value);
    while let Some(stamped) = events.try_next() {
        match stamped.event {
            Event::Restarting { supervisor, child, cause, .. } => {
                println!("  {} starts {} again ({cause})", supervisor.id(), child.id());
            }
            Event::Escalated { supervisor, child, cause, restarts } => {
                let (supervisor, child) = (supervisor.id(), child.id());
                println!(
                    "  {supervisor} gives up: {restarts} restarts, 1 allowed; {child} ({cause})"
                );
            }
            Event::SupervisorEnded { supervisor, cause } => {
                println!("  {} ended: {cause}", supervisor.id());
            }
            _ => {}
        }
    }

    println!("\n{}", system.tree());
    system.stop().await;
    Ok(())
}
