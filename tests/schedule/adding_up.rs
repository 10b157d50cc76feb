//! Small failures of one task that add up, wherever in it they are.

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::port::Needs;

use super::*;

/// Asks the tool so many times, one after the other.
struct Many(usize);

impl Behavior for Many {
    type Request = String;
    type Reply = String;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
    fn needs() -> Needs {
        Needs::none().needs::<Texts>("tool")
    }
}

impl Stateless for Many {
    async fn serve(&self, request: &String, ctx: &Context) -> Result<String, Fault> {
        let tool: Texts = ctx.port("tool")?;
        let mut said = String::new();
        for n in 0..self.0 {
            said = tool.call(format!("{request} {n}")).await?.value;
        }
        Ok(said)
    }
}

/// A task of so many calls, each of which fails once before it is answered.
async fn flaky(calls: usize, policy: Policy) -> (System, Texts, Script) {
    let tool = echo();
    for _ in 0..calls {
        tool.then_fail(Class::ToolExecution);
        tool.then_usual();
    }
    let root = SupervisorSpec::one_for_one("root")
        .policy(policy)
        .child(tool.stateless("tool").effect(EffectKind::Pure))
        .child(ChildSpec::stateless("task", move || Many(calls)).deadline(secs(600)));
    let system = System::start(root).await.unwrap();
    let port = system.port("root/task").unwrap();
    (system, port, tool)
}

#[tokio::test(start_paused = true)]
async fn faults_that_were_mended_one_by_one_end_the_task_when_they_add_up() {
    let (system, port, tool) = flaky(6, Policy::playbook_exact().with_tolerance(3, secs(60))).await;
    let mut events = system.events();
    let Err(CallError::RecoveryExhausted { fault, trail, .. }) = port.call("x").await else {
        panic!("four small failures in a row were nothing");
    };
    // Three were mended; the fourth was not tried again, and the task hears of it.
    assert_eq!((tool.count(), fault.class, trail.0.len()), (7, Class::Exhausted, 1));
    let stats = system.stats();
    assert_eq!((stats.soft_failures, stats.accumulated, stats.alerts), (3, 1, 1));
    let added = events.wait_for(|event| matches!(event, Event::Accumulated { .. })).await.unwrap();
    let Event::Accumulated { child, failures, window, .. } = added.event else { unreachable!() };
    assert_eq!((child.as_str(), failures, window), ("root/tool", 3, secs(60)));
    // Another task begins at nothing: it meets the last two.
    port.call("y").await.unwrap();
    let stats = system.stats();
    assert_eq!((stats.soft_failures, stats.accumulated, tool.cues_left()), (5, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_tolerance_of_soft_failures_is_kept_as_number_and_as_window() {
    // (number, window, whether the task gets through six failures, one a second)
    for (failures, window, through) in [
        (5, secs(60), false),
        (6, secs(60), true),
        // No more than two of them are ever within such a window.
        (3, ms(2500), true),
        (2, ms(2500), false),
    ] {
        let policy = Policy::playbook_exact().with_tolerance(failures, window);
        let (system, port, _) = flaky(6, policy).await;
        let outcome = port.call("x").await;
        assert_eq!(outcome.is_ok(), through, "{failures} in {window:?}: {outcome:?}");
        assert_eq!(system.stats().accumulated, u64::from(!through));
    }
    // By default, twenty in a minute.
    let (_system, port, _) = flaky(20, Policy::playbook_exact()).await;
    port.call("x").await.unwrap();
    let (_system, port, _) = flaky(21, Policy::playbook_exact()).await;
    port.call("x").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_a_task_has_collected_is_not_forgotten_with_its_next_attempt() {
    let tool = echo();
    for _ in 0..2 {
        tool.then_fail(Class::ToolExecution);
        tool.then_usual();
    }
    tool.then_fail(Class::ToolExecution);
    let (system, port) = {
        let root = SupervisorSpec::one_for_one("root")
            .policy(Policy::playbook_exact().with_tolerance(3, secs(60)))
            .child(tool.stateless("tool").effect(EffectKind::Pure))
            .child(ChildSpec::stateless("task", || Twice).deadline(secs(600)));
        let system = System::start(root).await.unwrap();
        let port: Texts = system.port("root/task").unwrap();
        (system, port)
    };
    // Two at the tool and one of its own: the third call of the tool is not mended any more.
    port.call("x").await.unwrap_err();
    let stats = system.stats();
    assert_eq!((stats.soft_failures, stats.accumulated), (3, 1));
    assert_eq!(tool.count(), 5);
}

/// Asks the tool twice and fails; its second attempt asks once more.
struct Twice;

impl Behavior for Twice {
    type Request = String;
    type Reply = String;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
    fn needs() -> Needs {
        Needs::none().needs::<Texts>("tool")
    }
}

impl Stateless for Twice {
    async fn serve(&self, request: &String, ctx: &Context) -> Result<String, Fault> {
        let tool: Texts = ctx.port("tool")?;
        if ctx.attempt() == 1 {
            tool.call(request.clone()).await?;
            tool.call(request.clone()).await?;
            return Err(Fault::network("reset"));
        }
        Ok(tool.call(request.clone()).await?.value)
    }
}
