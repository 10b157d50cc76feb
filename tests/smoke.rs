//! The whole path once: a model fails, a sibling answers, the caller never notices.

use mainstay::behavior::{Behavior, Context, Performed, Stateful, Stateless, Step, Turn};
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::{Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;

#[derive(Clone)]
struct Model(Result<&'static str, ()>);

impl Behavior for Model {
    type Request = String;
    type Reply = String;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Model {
    async fn serve(&self, request: &String, _: &Context) -> Result<String, Fault> {
        match self.0 {
            Ok(name) => Ok(format!("{name}: {request}")),
            Err(()) => Err(Fault::model_unavailable("down")),
        }
    }
}

#[derive(Clone, Default)]
struct Agent {
    answered: u64,
}

impl Behavior for Agent {
    type Request = String;
    type Reply = (u64, String);

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, String>>("llm")
    }
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &String,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<(u64, String)>, Fault> {
        match turn {
            Turn::Performed(outcomes) => {
                let outcomes: Performed = outcomes;
                self.answered += 1;
                Ok(Step::Reply((self.answered, outcomes.get::<String>(0)?.value.clone())))
            }
            _ => {
                let llm = ctx.port::<String, String>("llm")?;
                Ok(Step::Perform(vec![llm.ask(request.clone())]))
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sibling_answers_and_the_caller_never_notices() {
    let system = System::start(
        SupervisorSpec::one_for_one("support")
            .group(
                GroupSpec::model("llm")
                    .member("claude", Model(Err(())))
                    .member("local", Model(Ok("local"))),
            )
            .child(ChildSpec::stateful("agent", Agent::default)),
    )
    .await
    .unwrap();
    let agent = system.child::<Agent>("support/agent").unwrap();
    for n in 1..=5 {
        let answer = agent.call("Where is order 1042?").await.unwrap();
        assert_eq!(answer.value, (n, "local: Where is order 1042?".to_owned()));
        assert_eq!(answer.served_by, "support/agent");
        assert!(answer.degraded);
    }
    println!("{}", system.tree());
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (10, 10, 0));
    assert!(fates.is_balanced());
    system.stop().await;
    assert!(system.fates().is_balanced());
    assert!(agent.call("again").await.is_err());
}
