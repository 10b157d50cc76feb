//! States in the middle of requests that are not gone on with.

use super::*;

/// Adds what it is asked in two steps, as often as it is told what that is in a type it can read.
#[derive(Clone)]
struct Adder<Q> {
    sum: Arc<u64>,
    ends: bool,
    of: std::marker::PhantomData<fn() -> Q>,
}

impl<Q> Adder<Q> {
    fn new(ends: bool) -> Self {
        Self { sum: Arc::default(), ends, of: std::marker::PhantomData }
    }
}

impl<Q: Send + Sync + 'static> Behavior for Adder<Q> {
    type Request = Q;
    type Reply = u64;
}

impl<Q: Clone + Send + Sync + 'static> Stateful for Adder<Q> {
    async fn step(&mut self, _: &Q, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.sum = Arc::new(*self.sum + 1);
        match turn {
            Turn::First => Ok(Step::Continue),
            _ if self.ends => Ok(Step::Reply(*self.sum)),
            _ => std::future::pending().await,
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("adder", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        Ok(())
    }
}

fn tree<Q>(ends: bool) -> SupervisorSpec
where
    Q: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    let child = ChildSpec::stateful("adder", move || Adder::<Q>::new(ends));
    let child = child.durable::<Adder<Q>>().checkpoint(Interval::Steps(1));
    SupervisorSpec::one_for_one("desk").child(child)
}

#[test]
fn a_request_that_is_set_aside_as_unreadable_leaves_nothing_half_done_in_the_state() {
    let store = store();
    runtime().block_on(async {
        let spec = tree::<String>(true);
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let port: Port<String, u64> = system.port("desk/adder").unwrap();
        assert_eq!(port.call("first").await.unwrap().value, 2);
    });
    runtime().block_on(async {
        let spec = tree::<String>(false);
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let mut events = system.events();
        let port: Port<String, u64> = system.port("desk/adder").unwrap();
        port.submit("torn", CallOptions::new().key("torn")).await.unwrap();
        events.wait_for(|event| matches!(event, Event::Checkpointed { .. })).await.unwrap();
        std::mem::forget(system);
    });
    runtime().block_on(async {
        let mut options = RecoverOptions::default();
        options.set_unreadable_aside = true;
        let (system, recovered) =
            System::recover_with(tree::<u64>(true), Arc::clone(&store), options).await.unwrap();
        assert_eq!(recovered.set_aside.len(), 1);
        let port: Port<u64, u64> = system.port("desk/adder").unwrap();
        assert_eq!(
            port.call(1_u64).await.unwrap().value,
            4,
            "two of the first, and two of this one"
        );
    });
}
