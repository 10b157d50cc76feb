//! A life that is not the one any more.

use super::*;

/// Adds up. The first time it is asked for 7 it holds its thread, without awaiting anything.
#[derive(Clone)]
struct Holds {
    sum: Arc<u64>,
    held: Arc<Mutex<Option<std::sync::mpsc::Receiver<()>>>>,
}

impl Behavior for Holds {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Holds {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        let held = if *request == 7 { self.held.lock().take() } else { None };
        if let Some(held) = held {
            let _ = held.recv();
        }
        self.sum = Arc::new(*self.sum + request);
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("holds", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        Ok(())
    }
}

#[test]
fn a_life_that_was_given_up_as_hanging_writes_nothing_when_it_comes_back() {
    let store = store();
    let (release, held) = std::sync::mpsc::channel();
    let held = Arc::new(Mutex::new(Some(held)));
    let spec = || {
        let holds = Holds { sum: Arc::default(), held: Arc::clone(&held) };
        let policy = Policy::playbook_exact().with_hang_grace(Duration::from_millis(50));
        let child = ChildSpec::stateful("holds", move || holds.clone())
            .durable::<Holds>()
            .attempt_timeout(Duration::from_millis(100))
            .policy(policy);
        SupervisorSpec::one_for_one("desk").child(child)
    };
    let real = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(3).enable_all().build().unwrap()
    };
    let process = real();
    process.block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let port = system.port::<u64, u64>("desk/holds").unwrap();
        let mut sums = Vec::new();
        for (key, amount) in [("a", 100_u64), ("seven", 7), ("b", 1_000), ("c", 10_000)] {
            let options = CallOptions::new().key(key);
            sums.push(port.call_with(amount, options).await.unwrap().value);
        }
        assert_eq!(sums, [100, 107, 1_107, 11_107]);
        let mut events = system.events();
        release.send(()).unwrap();
        events.wait_for(|event| matches!(event, Event::Stale { .. })).await.unwrap();
        let known = system.journaled("seven");
        assert_eq!(known, Some(Journaled::Fated(Fate::Done, Some("107".to_owned()))));
        // As by kill -9.
        std::mem::forget(system);
    });
    process.shutdown_background();
    real().block_on(async {
        let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert!(recovered.missing.is_empty() && recovered.replayed.is_empty());
        let port = system.port::<u64, u64>("desk/holds").unwrap();
        assert_eq!(port.call(0_u64).await.unwrap().value, 11_107);
        system.stop().await;
    });
}
