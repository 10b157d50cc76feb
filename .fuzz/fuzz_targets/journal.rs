//! Any bytes, read as the records of a journal and as the request in hand of a state: a record a line, the first byte of
//! which is its version; the last line is the request in hand. A tree is taken up with what they make.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{
    Batch, Draft, Durability, MemoryStore, Now, SchemaId, Snapshot, Store, Wall, codec,
};
use mainstay::error::CheckpointError;
use mainstay::fault::Fault;
use mainstay::id::ChildPath;
use mainstay::moment::Moment;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, Upkeep};
use serde_json::Value;

/// Answers whatever it is asked.
#[derive(Clone, Default)]
struct Agent;

impl Behavior for Agent {
    type Request = Value;
    type Reply = u64;
}

impl Stateful for Agent {
    async fn step(&mut self, _: &Value, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        Ok(Step::Reply(1))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1))
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), CheckpointError> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let in_hand = lines.pop().unwrap_or_default();
    let now = Now { wall: Wall(1), moment: Moment::START };
    let draft = Draft::new(ChildPath::new("desk/agent"), Snapshot::new("agent", 1), now);
    let Ok(sealed) = draft.envelope(in_hand.to_vec()).seal() else { return };
    let mut batch = Batch::new().checkpoint(&sealed);
    for line in lines {
        let (version, text) = line.split_first().unwrap_or((&1, &[]));
        let schema = SchemaId::new("mainstay.journal", u32::from(version % 16));
        let Ok((_, record)) = codec::seal_raw(&schema, text) else { return };
        batch = batch.append("mainstay", record);
    }
    drop(store.commit(batch, Durability::Sync).wait());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let Ok(runtime) = runtime.enable_time().start_paused(true).build() else { return };
    runtime.block_on(async {
        if let Ok(upkeep) = Upkeep::of(Arc::clone(&store)) {
            drop((upkeep.open_requests(), upkeep.requests(), upkeep.checkpoints()));
        }
        let child = ChildSpec::stateful("agent", Agent::default).durable::<Agent>();
        let spec = SupervisorSpec::one_for_one("desk").child(child);
        let Ok((system, _)) = System::recover(spec, store).await else { return };
        if let Ok(port) = system.port("desk/agent") {
            let port: Port<Value, u64> = port;
            // It may be set aside by what it has in hand; it does not hang.
            drop(tokio::time::timeout(Duration::from_secs(3600), port.call(Value::Null)).await);
        }
        system.stop().await;
    });
});
