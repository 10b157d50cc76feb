//! A carrier's tracking service times out twice and answers the third time, after half a second and a
//! whole one. Its caller notices nothing but the time. A question that is wrong in itself is asked once:
//! asking again would change nothing, and the error says so.

use mainstay::fault::{Class, EffectKind};
use mainstay::policy::Policy;
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::scripted::{Script, Scripted};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The script is our end of the child: it says what goes wrong, and when.
    let carrier = Script::<String, String>::new(|parcel| format!("{parcel} is on its way"));
    let system = System::start(
        SupervisorSpec::one_for_one("shop")
            // The playbook's waits to the letter; by default each is up to 20 % longer.
            .policy(Policy::playbook_exact())
            .child(carrier.stateless("tracking").effect(EffectKind::Read)),
    )
    .await?;
    let tracking = system.child::<Scripted<String, String>>("shop/tracking")?;

    carrier.then_fail(Class::Timeout);
    carrier.then_fail(Class::Timeout);
    let answer = tracking.call("parcel 7").await?;
    println!("The caller hears: {}, after {} attempts", answer.value, answer.attempts);
    let start = carrier.times()[0];
    for (failed, next) in answer.trail.iter().zip(carrier.times().iter().skip(1)) {
        let at = next.since(start).as_secs_f64();
        println!("  attempt {}: {}, tried again at {at:.1} s", failed.attempt, failed.ended);
    }

    carrier.then_fail(Class::InputValidation);
    let error = tracking.call("parcel seven").await.expect_err("it is not retried");
    println!("\nThe caller hears: {error}");
    for failed in error.trail().into_iter().flat_map(|trail| trail.iter()) {
        println!("  attempt {}: {}, then {}", failed.attempt, failed.ended, failed.action.name());
        for (rung, why) in &failed.declined {
            println!("    no {rung}: {why}");
        }
    }

    println!("\n{}", system.tree());
    let fates = system.fates();
    println!("{} accepted: {} done, {} failed", fates.accepted, fates.done, fates.failed);
    system.stop().await;
    Ok(())
}
