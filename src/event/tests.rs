//! Each kind of event is one record for whoever reads `tracing`.

use std::fmt;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use super::*;
use crate::decision::Action;
use crate::watch::{Measure, Severity};

/// Keeps every record of this thread as `target: fields`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(format!("{}:", event.metadata().target()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Which kind it is. A new one does not compile until it is here, and then the test wants one of it.
fn number(event: &Event) -> usize {
    match event {
        Event::Started { .. } => 0,
        Event::Exited { .. } => 1,
        Event::Restarting { .. } => 2,
        Event::ChildQuarantined { .. } => 3,
        Event::Escalated { .. } => 4,
        Event::SupervisorEnded { .. } => 5,
        Event::Zombie { .. } => 6,
        Event::Failed { .. } => 7,
        Event::Decided { .. } => 8,
        Event::Interrupted { .. } => 9,
        Event::Fated { .. } => 10,
        Event::Restored { .. } => 11,
        Event::RestoreFailed { .. } => 12,
        Event::BeganAnew { .. } => 13,
        Event::LineDrawn { .. } => 14,
        Event::ScopeRolledBack { .. } => 15,
        Event::RollbackFailed { .. } => 16,
        Event::RolledBack { .. } => 17,
        Event::Checkpointed { .. } => 18,
        Event::Stale { .. } => 19,
        Event::Circuit { .. } => 20,
        Event::Switched { .. } => 21,
        Event::Hedged { .. } => 22,
        Event::NotHedged { .. } => 23,
        Event::DomainClosed { .. } => 24,
        Event::RollbackExhausted { .. } => 25,
        Event::Effect { .. } => 26,
        Event::Accumulated { .. } => 27,
        Event::Alert { .. } => 28,
        Event::PointOpened { .. } => 29,
        Event::PointClosed { .. } => 30,
        Event::Raised { .. } => 31,
        Event::Cleared { .. } => 32,
        Event::LineMissed { .. } => 33,
        Event::UndoStopped { .. } => 34,
        Event::Replayed { .. } => 35,
        Event::Noted { .. } => 36,
        Event::PolicyChanged { .. } => 37,
        Event::AllowList { .. } => 38,
        Event::RestoredOtherwise { .. } => 39,
    }
}

fn each() -> Vec<Event> {
    let path = |id: &str| ChildPath::new("root").join(id);
    let (child, other) = (path("it"), path("other"));
    let (request, incarnation, delivery) = (RequestId(7), Incarnation(3), Delivery(2));
    let ended = Ended::Fault { class: Class::Network, code: Some("503".to_owned()) };
    let alert = watch::Alert {
        rule: "S89".to_owned(),
        severity: Severity::Warning,
        measure: Measure::ErrorRate,
        value: 0.2,
        limit: 0.1,
        samples: 50,
        since: Moment::START,
    };
    let cause = ExitKind::Panic;
    let supervisor = ChildPath::new("root");
    let (checkpoint, line, scope) = (CheckpointId(9), LineId(8), Scope::Flow);
    vec![
        Event::Started { child: child.clone(), incarnation },
        Event::Exited { child: child.clone(), incarnation, cause },
        Event::Restarting {
            supervisor: supervisor.clone(),
            child: child.clone(),
            cause,
            scope: 1,
            restarts: 1,
        },
        Event::ChildQuarantined { child: child.clone(), cause },
        Event::Escalated {
            supervisor: supervisor.clone(),
            child: child.clone(),
            cause,
            restarts: 2,
        },
        Event::SupervisorEnded { supervisor: supervisor.clone(), cause },
        Event::Zombie { child: child.clone(), incarnation },
        Event::Failed { child: child.clone(), request, attempt: 1, delivery, ended: ended.clone() },
        Event::Decided {
            child: child.clone(),
            request,
            decision: Decision { action: Action::Fail, declined: Vec::new() },
            to: None,
            class: Some(Class::Network),
            asks: false,
        },
        Event::Interrupted { child: child.clone(), request },
        Event::Fated {
            child: child.clone(),
            request,
            fate: Fate::Failed,
            served_by: None,
            attempts: 1,
            degraded: false,
            defaulted: false,
            elapsed: Duration::ZERO,
            cost: Cost::default(),
        },
        Event::Restored {
            child: child.clone(),
            incarnation,
            checkpoint: Some(checkpoint),
            step: Some(4),
        },
        Event::RestoreFailed { child: child.clone(), checkpoint: Some(checkpoint) },
        Event::BeganAnew { child: child.clone(), incarnation },
        Event::LineDrawn { supervisor: supervisor.clone(), line, scope, children: 2 },
        Event::ScopeRolledBack {
            at: supervisor.clone(),
            scope,
            line: Some(line),
            children: 2,
            refused: Vec::new(),
            kept: 0,
            undone: 0,
            unknown: 0,
            approved_by: None,
            elapsed: Duration::ZERO,
            replayed: 2,
            missing: 1,
        },
        Event::RollbackFailed {
            at: supervisor.clone(),
            scope,
            wider: None,
            reason: "no line".to_owned(),
        },
        Event::RolledBack { child: child.clone(), request, scope, kept: 0, undone: 1, unknown: 0 },
        Event::Checkpointed { child: child.clone(), checkpoint, step: 1 },
        Event::Stale { child: child.clone(), request, delivery },
        Event::Circuit { child: child.clone(), state: "open" },
        Event::Switched {
            group: supervisor.clone(),
            from: child.clone(),
            to: other.clone(),
            failback: false,
        },
        Event::Hedged {
            group: supervisor.clone(),
            request,
            from: child.clone(),
            to: other,
            after: Duration::from_secs(1),
        },
        Event::NotHedged { group: supervisor.clone(), request, why: NoHedge::Deadline },
        Event::DomainClosed { domain: "account".to_owned(), until: Moment::START },
        Event::RollbackExhausted { at: supervisor.clone(), reasons: Vec::new() },
        Event::Effect {
            child: child.clone(),
            tool: path("tool"),
            key: EffectKey::from_bytes([5; 32]),
            status: "confirmed",
        },
        Event::Accumulated {
            child: child.clone(),
            request,
            failures: 20,
            window: Duration::from_secs(60),
        },
        Event::Alert { child: child.clone(), request, ended, attempts: 4 },
        Event::PointOpened {
            child: child.clone(),
            request,
            point: 1,
            after: None,
            proposed: "fail",
            until: Moment::START,
        },
        Event::PointClosed { child, request, point: 1, decision: "continue", by_person: false },
        Event::Raised { alert: alert.clone() },
        Event::Cleared { alert },
        Event::LineMissed { supervisor, reason: "it was busy".to_owned() },
        Event::UndoStopped {
            child: path("it"),
            tool: path("pay"),
            key: EffectKey::from_bytes([3; 32]),
            stands: 2,
        },
        Event::Replayed { child: path("it"), requests: 2, lost: 1 },
        Event::Noted { child: path("it"), request, what: "turns", count: 3 },
        Event::PolicyChanged { child: path("it"), checkpoint },
        Event::AllowList { group: path("it"), digest: Digest([4; 32]) },
        Event::RestoredOtherwise {
            child: path("it"),
            checkpoint: Some(checkpoint),
            pieces: vec!["sum".to_owned()],
        },
    ]
}

#[test]
fn each_kind_of_event_is_one_record_that_says_where_it_happened() {
    let recorder = Recorder::default();
    let events = each();
    tracing::subscriber::with_default(recorder.clone(), || {
        for event in &events {
            event.trace();
        }
    });
    let seen: Vec<_> = events.iter().map(number).collect();
    assert_eq!(seen, (0..events.len()).collect::<Vec<_>>(), "one of each");
    let lines = recorder.0.lock().unwrap();
    assert_eq!(lines.len(), events.len(), "{lines:#?}");
    for (event, line) in events.iter().zip(&*lines) {
        assert!(line.starts_with("mainstay: ") && line.contains("message="), "{line}");
        match event.path() {
            Some(path) => assert!(line.contains(path.as_str()), "{line} says not {path}"),
            None => assert!(line.contains("account") || line.contains("S89"), "{line}"),
        }
    }
}

#[tokio::test]
async fn a_subscriber_that_is_too_slow_loses_the_oldest_and_is_told_how_many() {
    let events = Events::new(4);
    let (mut slow, mut quick) = (events.subscribe(), events.subscribe());
    let send = |n| {
        let (child, incarnation) = (ChildPath::new("it"), Incarnation(n));
        events.emit(|| Moment::START, Event::Zombie { child, incarnation });
    };
    let life = |stamped: Option<Stamped>| match stamped.unwrap().event {
        Event::Zombie { incarnation, .. } => incarnation.0,
        other => panic!("{other:?}"),
    };
    for n in 1..=10 {
        send(n);
        assert_eq!(life(quick.try_next()), n);
    }
    assert_eq!((slow.lagged(), events.lagged()), (0, 0), "not known before it is read");
    assert_eq!(life(slow.next().await), 7);
    assert_eq!((slow.lagged(), quick.lagged(), events.lagged()), (6, 0, 6));
    for n in 11..=16 {
        send(n);
    }
    assert_eq!(life(slow.try_next()), 13);
    assert_eq!((slow.lagged(), events.lagged()), (11, 11));
}
