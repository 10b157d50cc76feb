//! What a spec says about needs and about the time between lives, and that it is followed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::error::{CallError, SpecError, StartError};
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::{Needs, Port};
use mainstay::spec::{BetweenLives, ChildSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Clerk, Hand, Log, script, secs};

#[tokio::test(start_paused = true)]
async fn between_lives_a_request_is_refused_with_its_message_where_the_spec_says_so() {
    let log = Arc::new(Log::default());
    let hand = Hand { script: script(|_, _| Act::Reply), log: Arc::clone(&log) };
    let spec = ChildSpec::stateless("w", move || hand.clone()).between_lives(BetweenLives::Refuse);
    let system = System::start(
        SupervisorSpec::one_for_one("top").restart_backoff(secs(1), secs(1)).child(spec),
    )
    .await
    .unwrap();
    system.kill("top/w").unwrap();
    let refused = system.port::<u64, u64>("top/w").unwrap().call(9u64).await;
    assert!(matches!(refused, Err(CallError::Refused { message: 9, .. })), "{refused:?}");
    assert_eq!(system.fates().accepted, 0);
    system.stop().await;
}

struct Wants;

impl Behavior for Wants {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
    fn needs() -> Needs {
        Needs::none().needs::<Port<String, u64>>("w")
    }
}

impl Stateless for Wants {
    async fn serve(&self, id: &u64, _: &Context) -> Result<u64, Fault> {
        Ok(*id)
    }
}

#[tokio::test(start_paused = true)]
async fn a_need_of_the_wrong_type_is_an_error_at_the_start_that_names_both() {
    let log = Arc::new(Log::default());
    let clerk = Clerk { script: script(|_, _| Act::Reply), log: Arc::clone(&log) };
    let error = System::start(
        SupervisorSpec::one_for_one("top")
            .child(ChildSpec::stateful("w", move || clerk.clone()))
            .child(ChildSpec::stateless("wants", || Wants)),
    )
    .await
    .unwrap_err();
    assert!(matches!(error, StartError::Spec(SpecError::NeedType { .. })), "{error:?}");
    let text = error.to_string();
    for part in ["top/wants", "\"w\"", "String", "Port<u64, u64>"] {
        assert!(text.contains(part), "{text} names {part}");
    }
    assert_eq!(log.lives.load(Ordering::Relaxed), 0);
}
