//! A checkout and its stock depend on each other, so they restart together: one_for_all. The stock
//! crashes in the middle of a queue of orders; both begin a new life, and every order in the queue is
//! answered all the same, the one that was in flight included. The queue belongs to the child, not to a life.

use std::time::Duration;

use mainstay::event::Event;
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::scripted::{Script, ScriptedState};

type Child = ScriptedState<String, String>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The panic is part of the story; Rust's own report of it would only stand in the way.
    std::panic::set_hook(Box::new(|_| {}));

    let answers = |word: &'static str| {
        Script::<String, String>::counting(move |order, nth| {
            format!("{order} {word} (number {nth} of this life)")
        })
    };
    let (stock, checkout) = (answers("reserved"), answers("paid"));
    let system = System::start(
        SupervisorSpec::one_for_all("shop")
            .intensity(3, Duration::from_secs(5))
            .child(stock.stateful("stock"))
            .child(checkout.stateful("checkout")),
    )
    .await?;
    let mut events = system.events();
    let stock_ref = system.child::<Child>("shop/stock")?;
    let checkout_ref = system.child::<Child>("shop/checkout")?;

    // Two orders go well, the third panics.
    stock.then_usual();
    stock.then_usual();
    stock.then_panic();
    let reserve = (1..=5).map(|n| {
        let stock = stock_ref.clone();
        tokio::spawn(async move { stock.call(format!("order {n}")).await })
    });
    println!("Five orders at once; the third one crashes the stock");
    for call in reserve.collect::<Vec<_>>() {
        let answer = call.await??;
        println!("  {}, attempt {}", answer.value, answer.attempts);
    }
    println!("  {}", checkout_ref.call("order 1").await?.value);

    println!("\nWhat happened meanwhile");
    while let Some(stamped) = events.try_next() {
        match stamped.event {
            Event::Exited { child, incarnation, cause } => {
                println!("  {} ended its life {incarnation}: {cause}", child.id());
            }
            Event::Restarting { scope, .. } => println!("  {scope} children start again"),
            Event::Started { child, incarnation } => {
                println!("  {} began its life {incarnation}", child.id());
            }
            _ => {}
        }
    }

    println!("\n{}", system.tree());
    let fates = system.fates();
    println!("{} accepted, {} done, {} lost", fates.accepted, fates.done, fates.open);
    system.stop().await;
    Ok(())
}
