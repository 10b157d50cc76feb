//! A store that another version of the program has left.

use super::*;

#[path = "deploys.rs"]
mod deploys;
#[path = "older.rs"]
mod older;

/// Counts what it is asked; `V` is the version of its state.
#[derive(Clone, Default)]
struct Tally<const V: u32>(Arc<u64>);

impl<const V: u32> Behavior for Tally<V> {
    type Request = u64;
    type Reply = u64;
}

impl<const V: u32> Stateful for Tally<V> {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0 = Arc::new(*self.0 + request);
        Ok(Step::Reply(*self.0))
    }

    fn schema() -> Option<Schema> {
        Some(Schema::new("tally", V).field::<u64>("sum"))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("tally", V).with("sum", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("sum")?;
        Ok(())
    }
}

async fn tally<const V: u32>(
    store: &Arc<dyn Store>,
    options: RecoverOptions,
) -> Result<(System, Port<u64, u64>), RecoverError> {
    let child = ChildSpec::stateful("tally", Tally::<V>::default).durable::<Tally<V>>();
    let spec = SupervisorSpec::one_for_one("desk").child(child);
    let (system, _) = System::recover_with(spec, Arc::clone(store), options).await?;
    let port = system.port("desk/tally").unwrap();
    Ok((system, port))
}

#[test]
fn a_state_of_another_version_is_refused_by_name_and_the_store_left_as_it_was() {
    let store = store();
    let plain = RecoverOptions::default;
    runtime().block_on(async {
        let (_system, port) = tally::<2>(&store, plain()).await.unwrap();
        assert_eq!(port.call(500_u64).await.unwrap().value, 500);
    });
    let before = store.info().unwrap();
    runtime().block_on(async {
        // An older program, and a newer one that has no migration.
        let older = tally::<1>(&store, plain()).await.map(drop).unwrap_err();
        let newer = tally::<3>(&store, plain()).await.map(drop).unwrap_err();
        for (error, expected) in [(older, "at most version 1"), (newer, "version 3")] {
            let RecoverError::State { child, .. } = &error else { panic!("{error}") };
            assert_eq!(child.to_string(), "desk/tally");
            let text = error.to_string();
            assert!(text.contains("tally") && text.contains(expected), "{text}");
            assert!(text.contains('2'), "what was found: {text}");
        }
        assert_eq!(store.info().unwrap(), before, "nothing was written");
    });
    runtime().block_on(async {
        let (_system, port) = tally::<2>(&store, plain()).await.unwrap();
        assert_eq!(port.call(1_u64).await.unwrap().value, 501);
    });
    runtime().block_on(async {
        let mut options = plain();
        options.give_up_states = true;
        let (_system, port) = tally::<1>(&store, options).await.unwrap();
        // It begins anew where a person said so, and handles again what is still known.
        assert_eq!(port.call(1_u64).await.unwrap().value, 502);
    });
}

/// The state of before, read by a program that has changed it: with a field more, with another type of field,
/// with a migration that does not find what it asks for.
#[derive(Clone, Default)]
struct Changed<const HOW: u32>(Arc<u64>);

impl<const HOW: u32> Behavior for Changed<HOW> {
    type Request = u64;
    type Reply = u64;
}

impl<const HOW: u32> Stateful for Changed<HOW> {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0 = Arc::new(*self.0 + request);
        Ok(Step::Reply(*self.0))
    }

    fn schema() -> Option<Schema> {
        let schema = Schema::new("tally", 3 + u32::from(HOW == 2));
        Some(match HOW {
            0 => schema.field::<u64>("sum").field::<String>("name"),
            1 => schema.field::<(u64, String)>("sum"),
            _ => schema.field::<u64>("sum").migrate(3, 4, |old| {
                Ok(Snapshot::new("tally", 4).with("sum", old.get::<u64>("total")?))
            }),
        })
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("tally", 4).with("sum", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("sum")?;
        Ok(())
    }
}

async fn changed<const HOW: u32>(store: &Arc<dyn Store>) -> RecoverError {
    let child = ChildSpec::stateful("tally", Changed::<HOW>::default).durable::<Changed<HOW>>();
    let spec = SupervisorSpec::one_for_one("desk").child(child);
    System::recover(spec, Arc::clone(store)).await.map(drop).unwrap_err()
}

#[test]
fn states_none_of_which_can_be_taken_up_are_refused_and_nobody_begins_anew_unasked() {
    let store = store();
    runtime().block_on(async {
        let (_system, port) = tally::<3>(&store, RecoverOptions::default()).await.unwrap();
        for _ in 0..5 {
            port.call(100_u64).await.unwrap();
        }
    });
    let before = store.info().unwrap();
    runtime().block_on(async {
        let errors =
            [changed::<0>(&store).await, changed::<1>(&store).await, changed::<2>(&store).await];
        for (error, named) in errors.iter().zip(["name", "sum", "total"]) {
            let RecoverError::State { child, .. } = error else { panic!("{error}") };
            assert_eq!(child.to_string(), "desk/tally");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert_eq!(store.info().unwrap(), before, "nothing was written");
    });
    runtime().block_on(async {
        let (_system, port) = tally::<3>(&store, RecoverOptions::default()).await.unwrap();
        assert_eq!(port.call(1_u64).await.unwrap().value, 501);
    });
}
