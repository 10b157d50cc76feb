//! Who may stand in for whom, as lines that are the same in every process.
//!
//! *Invariant.* Whatever lets a request go to another member, or keeps it from going there, is in a line.

use super::{Group, Seat};
use crate::policy::Role;
use crate::text;

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    pub(super) fn allowed_lines(&self) -> Vec<String> {
        let all = self.seats.iter().enumerate();
        all.map(|(index, seat)| {
            let named = |to: usize| self.seats.get(to).map(|seat| seat.id.as_str());
            let targets: Vec<_> = match &seat.allow {
                Some(allow) => allow.iter().copied().filter_map(named).collect(),
                None => (index + 1..self.seats.len()).filter_map(named).collect(),
            };
            let line = serde_json::json!({
                "group": self.path.as_str(),
                "kind": self.kind,
                "place": index,
                "member": seat.id,
                "role": role(seat),
                "capabilities": *seat.capabilities,
                "targets": targets,
            });
            let text = text::canonical(&line).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        })
        .collect()
    }
}

const fn role<Q, R>(seat: &Seat<Q, R>) -> &'static str {
    match seat.role {
        Role::Sibling => "sibling",
        Role::Simplified => "simplified",
        Role::Content => "content",
        Role::Default => "default",
        Role::Human => "human",
    }
}
