//! Replies that cannot be read again from what is written of them.

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Weighed {
    name: String,
    weights: Vec<f64>,
}

/// Weighs what it is asked; 0 cannot be weighed.
#[derive(Clone)]
struct Scales;

impl Scales {
    fn weigh(request: u64) -> Weighed {
        let weight = if request == 0 { f64::NAN } else { 1.0 };
        Weighed { name: "it".to_owned(), weights: vec![2.0, weight] }
    }
}

impl Behavior for Scales {
    type Request = u64;
    type Reply = Weighed;
}

impl Stateless for Scales {
    async fn serve(&self, request: &u64, _: &Context) -> Result<Weighed, Fault> {
        Ok(Self::weigh(*request))
    }
}

impl Stateful for Scales {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<Weighed>, Fault> {
        Ok(Step::Reply(Self::weigh(*request)))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("scales", 1))
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), CheckpointError> {
        Ok(())
    }
}

#[test]
fn a_reply_that_cannot_be_read_again_is_refused_with_its_field_and_not_asked_for_again() {
    type Make = fn() -> ChildSpec;
    let makes: [(Make, bool); 3] = [
        (|| ChildSpec::stateful("scales", || Scales).durable::<Scales>(), false),
        (
            || {
                let child = ChildSpec::stateless("scales", || Scales);
                child.effect(EffectKind::Idempotent).durable::<Scales>()
            },
            false,
        ),
        (
            || {
                let child = ChildSpec::stateless("scales", || Scales);
                let child = child.effect(EffectKind::Verifiable);
                child.policy(Policy::without_retries()).durable::<Scales>()
            },
            true,
        ),
    ];
    for (make, acts) in makes {
        let store = store();
        let spec = || SupervisorSpec::one_for_one("desk").child(make());
        let fate = if acts { Fate::Unknown } else { Fate::Failed };
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            let port: Port<u64, Weighed> = system.port("desk/scales").unwrap();
            let error = port.call_with(0_u64, CallOptions::new().key("nan")).await.unwrap_err();
            match error {
                CallError::RecoveryExhausted { fault, trail, .. } if !acts => {
                    let text = fault.to_string();
                    assert!(
                        text.contains("desk/scales") && text.contains("`.weights[1]`"),
                        "{text}"
                    );
                    assert_eq!(fault.code.as_deref(), Some("reply_unrecordable"));
                    assert!(trail.0.len() <= 2, "{trail:?}");
                }
                CallError::Unknown { .. } if acts => {}
                other => panic!("{other}"),
            }
            assert_eq!(system.journaled("nan"), Some(Journaled::Fated(fate, None)));
            let answer = port.call_with(1_u64, CallOptions::new().key("one")).await.unwrap();
            assert_eq!(answer.value.weights, [2.0, 1.0]);
        });
        runtime().block_on(async {
            let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            assert_eq!(recovered.requests, 0);
            assert_eq!(system.journaled("nan"), Some(Journaled::Fated(fate, None)));
        });
    }
}
