//! An act whose tool is cut off, and whose code does not come back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::error::CallError;
use mainstay::fault::{EffectKind, Fault};
use mainstay::ledger::EffectCounts;
use mainstay::policy::Policy;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, Shutdown, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;

use super::left::{Bomb, Looks, Payer, Slip, Till};

/// Holds its thread until it is let go.
#[derive(Clone)]
struct Vault {
    begun: Sender<()>,
    opens: Arc<Mutex<Receiver<()>>>,
}

impl Behavior for Vault {
    type Request = String;
    type Reply = Slip;
}

impl Stateful for Vault {
    async fn step(&mut self, order: &String, _: Turn, _: &Context) -> Result<Step<Slip>, Fault> {
        self.begun.send(()).unwrap();
        self.opens.lock().recv().unwrap();
        Ok(Step::Reply(Slip(order.parse().unwrap())))
    }
}

const TIMEOUT: Duration = Duration::from_secs(40);
const GRACE: Duration = Duration::from_secs(2);

async fn shop() -> (System, Receiver<()>, Sender<()>) {
    let (open, opens) = channel();
    let (begins, begun) = channel();
    let vault = Vault { begun: begins, opens: Arc::new(Mutex::new(opens)) };
    let vault = ChildSpec::stateful("clerk", move || vault.clone())
        .effect(EffectKind::Irreversible)
        .policy(Policy::without_retries().with_attempt_timeout(TIMEOUT).with_hang_grace(GRACE))
        .shutdown(Shutdown::Timeout(Duration::from_secs(1)))
        .blocking();
    let looks = Looks(Arc::<Till>::default());
    let spec = SupervisorSpec::rest_for_one("shop")
        .intensity(10, TIMEOUT)
        .child(ChildSpec::stateless("looks", move || looks.clone()))
        .child(ChildSpec::stateful("payer", Payer::default))
        .child(ChildSpec::stateful("bomb", || Bomb))
        .child(vault);
    (System::start(spec).await.unwrap(), begun, open)
}

#[tokio::test(start_paused = true)]
async fn an_act_whose_tool_is_cut_off_and_does_not_come_back_is_in_doubt_in_the_end() {
    for how in ["killed", "restarted", "removed"] {
        let (system, begun, open) = shop().await;
        let payer: Port<u32, u32> = system.port("shop/payer").unwrap();
        let call = tokio::spawn(async move { payer.call(5_u32).await });
        // The clock stands still while a thread is waited for so.
        tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
        let cut = system.clock().now();
        match how {
            "killed" => system.kill("shop/clerk").unwrap(),
            "restarted" => {
                let bomb = system.port::<(), ()>("shop/bomb").unwrap();
                bomb.call(()).await.unwrap_err();
            }
            _ => {
                let shop = system.supervisor("shop").unwrap();
                shop.terminate_child("clerk").await.unwrap();
            }
        }
        // As long as one that hangs may take.
        let limit = TIMEOUT + GRACE + Duration::from_secs(3);
        let ended = tokio::time::timeout(limit, call).await.expect(how).unwrap();
        assert!(matches!(ended, Err(CallError::Unknown { .. })), "{how}:");
        let waited = system.clock().now().since(cut);
        assert!(waited >= TIMEOUT, "{how}: it might have come back: {waited:?}");
        let counts = EffectCounts { unknown: 1, ..EffectCounts::default() };
        assert_eq!(system.effects().counts(), counts, "{how}");
        open.send(()).unwrap();
        system.stop().await;
    }
}
