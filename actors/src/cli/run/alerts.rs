//! Alerts as lines: about the last minutes, what is [lost](super::lost), and where a person is needed.
//!
//! *Invariant.* They are said whatever else is shown: whoever runs a tree should not miss them.

use mainstay::event::{Event, EventStream, Stamped};
use mainstay::system::System;
use mainstay::watch::{Alert, Severity};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::lost::{Lost, may_lose};
use super::settle;

/// Who says them.
pub(super) struct Alerts {
    telling: JoinHandle<()>,
    over: oneshot::Sender<()>,
}

impl Alerts {
    /// Says what is lost already, each alert of before, and each that begins or ends from now on. `early` are the events of
    /// before, to be asked for once those from now on are heard.
    pub(super) fn tell(
        system: &System,
        early: impl FnOnce() -> Vec<Stamped>,
        say: impl Fn(String) + Send + 'static,
    ) -> Self {
        let (over, end) = oneshot::channel();
        let (events, mut lost) = (system.events(), Lost::default());
        lost.news(system).into_iter().for_each(&say);
        let mut said = early();
        said.retain(|stamped| {
            let line = line(&stamped.event);
            let is_said = line.is_some();
            line.into_iter().for_each(&say);
            is_said
        });
        let teller = Teller { system: system.clone(), lost, said, say };
        Self { telling: tokio::spawn(teller.tell(events, end)), over }
    }

    /// Says those that have come until now, and no more: the last of a run are heard as well.
    pub(super) async fn end(self) {
        let Self { telling, over } = self;
        if over.send(()).is_ok() {
            let _ = telling.await;
        }
    }
}

struct Teller<S> {
    system: System,
    lost: Lost,
    /// Events that are said, and may come once more.
    said: Vec<Stamped>,
    say: S,
}

impl<S: Fn(String)> Teller<S> {
    async fn tell(mut self, mut events: EventStream, mut end: oneshot::Receiver<()>) {
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                _ = &mut end => break,
            };
            let Some(stamped) = next else { break };
            self.hear(&stamped);
        }
        while let Some(stamped) = events.try_next() {
            self.hear(&stamped);
        }
        // Not everything that is lost has an event of its own, nor is every event heard in time.
        self.lost.news(&self.system).into_iter().for_each(&self.say);
    }

    fn hear(&mut self, stamped: &Stamped) {
        if let Some(at) = self.said.iter().position(|said| said == stamped) {
            self.said.remove(at);
            return;
        }
        let event = &stamped.event;
        line(event).into_iter().for_each(&self.say);
        if may_lose(event) {
            self.lost.news(&self.system).into_iter().for_each(&self.say);
        }
    }
}

fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Raised { alert } => {
            let Alert { rule, severity, measure, value, limit, samples, .. } = alert;
            let unit = measure.unit();
            let what = if *severity == Severity::Info { "objective missed" } else { "alert" };
            format!(
                "{severity}: {what} {rule}: {} where {} is the limit, of {samples}",
                unit.show(*value),
                unit.show(*limit),
            )
        }
        Event::Cleared { alert } => format!("{}: {} is over", alert.severity, alert.rule),
        Event::RollbackExhausted { at, .. } => {
            format!("alert: {at} fell, and no line could be returned to")
        }
        Event::UndoStopped { child, tool, key, .. } => format!(
            "alert: a person has to settle what {child} did: {tool} has no undo that helps for {} (in a conversation /effects, with a [store] `mainstay store`)",
            settle::short(*key)
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay::fault::Class;
    use mainstay::spec::SupervisorSpec;
    use mainstay::system::System;
    use mainstay_actors::scripted::Script;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alert_is_said_when_it_begins_and_when_it_ends() {
        let script = Script::<String, String>::echo();
        script.otherwise_fail(Class::InputValidation);
        let spec = SupervisorSpec::one_for_one("root").child(script.stateless("it"));
        let system = System::start(spec).await.unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let telling = Alerts::tell(&system, Vec::new, move |line| heard.lock().push(line));
        let port = system.port::<String, String>("root/it").unwrap();
        for _ in 0..20 {
            port.call("x").await.unwrap_err();
        }
        let mut events = system.events();
        let over = |event: &Event| matches!(event, Event::Cleared { alert } if alert.rule == "S88");
        events.wait_for(over).await.unwrap();
        system.stop().await;
        telling.end().await;
        let lines: Vec<_> =
            said.lock().iter().filter(|line| line.contains("S88")).cloned().collect();
        let begun = "warning: alert S88: 100.0 % where 10.0 % is the limit, of 20";
        assert_eq!(lines, [begun, "warning: S88 is over"]);
        let missed = "info: objective missed S39: 0.0 % where 95.0 % is the limit, of 20";
        assert!(said.lock().iter().any(|line| line == missed), "{:?}", said.lock());
    }

    #[tokio::test(start_paused = true)]
    async fn an_alert_of_before_is_said_and_one_that_comes_twice_is_said_once() {
        let script = Script::<String, String>::echo();
        script.otherwise_fail(Class::InputValidation);
        let spec = SupervisorSpec::one_for_one("root").child(script.stateless("it"));
        let system = System::start(spec).await.unwrap();
        let mut early = system.events();
        let port = system.port::<String, String>("root/it").unwrap();
        for _ in 0..20 {
            port.call("x").await.unwrap_err();
        }
        let (said, mut watched) = (Arc::new(Mutex::new(Vec::new())), system.events());
        let raised =
            |event: &Event| matches!(event, Event::Raised { alert } if alert.rule == "S88");
        watched.wait_for(raised).await.unwrap();
        let heard = Arc::clone(&said);
        let before = || std::iter::from_fn(|| early.try_next()).collect();
        let telling = Alerts::tell(&system, before, move |line| heard.lock().push(line));
        let over = |event: &Event| matches!(event, Event::Cleared { alert } if alert.rule == "S88");
        let ended = watched.wait_for(over).await.unwrap();
        system.stop().await;
        telling.end().await;
        let lines = |of: &[String]| of.iter().filter(|line| line.contains("S88")).count();
        assert_eq!(lines(&said.lock()), 2, "{:?}", said.lock());
        // One that came while they began to be listened to.
        let again = Mutex::new(Vec::new());
        let say = |line| again.lock().push(line);
        let (system, lost, said) = (system.clone(), Lost::default(), vec![ended.clone()]);
        let mut teller = Teller { system, lost, said, say };
        for expected in [0, 1] {
            teller.hear(&ended);
            assert_eq!(lines(&again.lock()), expected);
        }
    }
}
