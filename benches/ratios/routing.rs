//! P7: what a group, its circuits, a retry budget, a deadline and a quota domain add to a call.
//!
//! The same child is called by its own address and through its group; the difference is the price.
//! The peer is tower's timeout and retry with a budget around the same call of a bare actor of
//! ractor's, less that call.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

use super::hand::Bare;
use super::meter::{Asks, Goal, Options, Side, Unit, alternate, ct, price, report};
use super::ours::{Echo, Ours};

/// Retries what failed, as long as the budget allows.
#[derive(Clone)]
struct Budgeted(Arc<TpsBudget>);

impl tower::retry::Policy<(), (), BoxError> for Budgeted {
    type Future = Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut Result<(), BoxError>) -> Option<Ready<()>> {
        match result {
            Ok(()) => {
                self.0.deposit();
                None
            }
            Err(_) => self.0.withdraw().then(|| ready(())),
        }
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

/// A bare actor as a service.
#[derive(Clone)]
struct Actor(Bare);

impl Service<()> for Actor {
    type Response = ();
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let bare = self.0.clone();
        Box::pin(async move {
            bare.ask().await;
            Ok(())
        })
    }
}

/// That service behind tower's layers.
#[derive(Clone)]
struct Tower<S>(S);

impl<S> Asks for Tower<S>
where
    S: Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    async fn ask(&self) {
        self.0.clone().oneshot(()).await.expect("it succeeds");
    }
}

pub(crate) fn run(options: &Options) {
    let calls = options.size(200_000);
    let (mine, bare) = (ct(), ct());
    let member = |id: &str| {
        ChildSpec::stateless(id, || Echo)
            .concurrency(64)
            .quota_domain("provider")
            .deadline(Duration::from_secs(60))
    };
    let system = mine
        .block_on(System::start(
            SupervisorSpec::one_for_one("top")
                .group(
                    GroupSpec::model("llm")
                        .deadline(Duration::from_secs(60))
                        .member_spec(member("first"))
                        .member_spec(member("second")),
                )
                .child(
                    ChildSpec::stateless("alone", || Echo)
                        .concurrency(64)
                        .deadline(Duration::from_secs(60)),
                ),
        ))
        .expect("it starts");
    let alone = Ours(system.port::<u64, u64>("top/alone").expect("it is there"));
    let group = Ours(system.port::<u64, u64>("top/llm").expect("it is there"));
    let actor = Actor(bare.block_on(Bare::start()));
    let layered = Tower(
        ServiceBuilder::new()
            .retry(Budgeted(Arc::new(TpsBudget::default())))
            .timeout(Duration::from_secs(60))
            .service(actor.clone()),
    );
    let plain = Tower(actor);
    for callers in [1, 64] {
        let sides: Vec<Side<'_>> = vec![
            ("ours", Box::new(|| price(&mine, callers, calls, &group))),
            ("alone", Box::new(|| price(&mine, callers, calls, &alone))),
            ("tower", Box::new(|| price(&bare, callers, calls, &layered))),
            ("plain", Box::new(|| price(&bare, callers, calls, &plain))),
        ];
        let medians = alternate(options, sides);
        let added = [("ours", medians[0].1 - medians[1].1), ("tower", medians[2].1 - medians[3].1)];
        report(format_args!("P7 ct/{callers} added"), Unit::Time, &added, Goal::AtMost(1e3));
    }
    mine.block_on(system.stop());
}
