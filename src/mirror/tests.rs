use super::*;

fn root() -> Roster {
    Roster::root(Facts::supervisor("root".into(), "one_for_one", "3 in 5s"))
}

fn child(roster: &Roster, id: &str) -> RowHandle {
    roster.add(roster.path().join(id), Kind::Stateless)
}

const fn status(state: ChildState) -> Status {
    Status { state, in_flight: 0, mailbox: 0, has_detail: false }
}

/// The ids in the roster, in order.
fn ids(roster: &Roster) -> Vec<String> {
    let mut ids = Vec::new();
    let mut at = 0;
    while let Some(page) = roster.page(at, false) {
        ids.extend(page.names.iter().flatten().map(|path| path.id().to_owned()));
        at += 1;
    }
    ids
}

#[test]
fn a_child_costs_no_more_than_its_share() {
    assert_eq!(size_of::<Row>(), 16);
    assert_eq!(size_of::<Option<ChildPath>>(), 16);
    assert_eq!(size_of::<Option<Weak<dyn Detail>>>(), 16);
    assert_eq!(size_of::<RowHandle>(), 16);
}

#[test]
fn a_row_holds_what_was_published_and_large_numbers_stop_at_the_limit() {
    for kind in Kind::ALL {
        for state in ChildState::ALL {
            let status = Status { state, in_flight: 3, mailbox: 70_000, has_detail: true };
            let words = Words::new(kind, status, Incarnation(7), 6);
            assert_eq!(words.kind(), kind);
            assert_eq!(words.state(), Some(state));
            assert_eq!((words.in_flight(), words.mailbox()), (3, 70_000));
            assert_eq!((words.incarnation(), words.restarts()), (Incarnation(7), 6));
            assert!(words.has_detail());
        }
    }
    let many = Status { in_flight: usize::MAX, mailbox: usize::MAX, ..Status::default() };
    let words = Words::new(Kind::Tool, many, Incarnation(u32::MAX), u32::MAX);
    assert_eq!((words.in_flight(), words.mailbox()), (u16::MAX, u32::MAX));
    assert_eq!((words.state(), words.kind()), (Some(ChildState::Unstarted), Kind::Tool));
    assert!(!words.has_detail());
    assert_eq!(Words::default().state(), None);
}

#[test]
fn counts_follow_every_change_at_every_level_and_end_where_they_began() {
    let root = root();
    let before = root.counts();
    assert_eq!((before.supervisors, before.children), (1, 0));
    let nested = root.nest(Facts::supervisor("root/team".into(), "one_for_all", "1 in 5s"));
    let group = nested.roster().nest(Facts::group("root/team/llm".into(), Kind::Model));
    let mut one = child(group.roster(), "one");
    let mut two = child(&root, "two");
    assert_eq!(root.counts().unstarted, 2);
    for state in ChildState::ALL {
        one.publish(status(state));
        assert_eq!(one.state(), state);
        for counts in [root.counts(), nested.roster().counts(), group.roster().counts()] {
            let by_state = counts.serving
                + counts.starting
                + counts.backing_off
                + counts.stopping
                + counts.restarting
                + counts.stopped
                + counts.quarantined
                + counts.zombies
                + counts.unstarted;
            assert_eq!(counts.children, by_state);
        }
        assert_eq!(group.roster().counts().children, 1);
    }
    assert_eq!((root.counts().zombies, root.counts().unstarted), (1, 1));
    one.publish_life(Incarnation(4), 3);
    two.publish_life(Incarnation(2), 1);
    two.publish_life(Incarnation(3), 2);
    nested.roster().publish_life(Incarnation(6), 5);
    assert_eq!(root.counts().restarts, 10);
    assert_eq!((nested.roster().counts().restarts, group.roster().counts().restarts), (8, 3));
    let counts = root.counts();
    assert_eq!((counts.supervisors, counts.groups, counts.children), (2, 1, 2));
    let kept = nested.roster().clone();
    drop((nested, two));
    kept.publish_life(Incarnation(9), 8);
    assert_eq!(root.counts().restarts, 3, "a supervisor that is gone is not counted");
    drop((one, group));
    assert_eq!(root.counts(), before);
}

#[test]
fn children_stand_in_order_of_start_and_the_first_free_row_is_used_again() {
    let root = root();
    let mut children: Vec<_> = (0..40).map(|n| child(&root, &n.to_string())).collect();
    let numbers: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(ids(&root), numbers, "across pages");
    children.remove(30);
    children.remove(5);
    children.remove(2);
    let _next = [child(&root, "a"), child(&root, "b"), child(&root, "c"), child(&root, "d")];
    let ids = ids(&root);
    assert_eq!((&*ids[2], &*ids[5], &*ids[30], &*ids[40]), ("a", "b", "c", "d"));
}

#[test]
fn pages_that_emptied_are_given_back_and_order_begins_anew() {
    let root = root();
    let pages = || root.shared.book.lock().pages.len();
    let children: Vec<_> = (0..5_000).map(|n| child(&root, &n.to_string())).collect();
    assert!(pages() > 7);
    drop(children);
    assert_eq!(pages(), 1);
    let _again: Vec<_> = (0..20).map(|n| child(&root, &n.to_string())).collect();
    assert_eq!(ids(&root), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    // A child that comes and goes at the edge of a page allocates none.
    let _edge: Vec<_> = (0..4).map(|n| child(&root, &n.to_string())).collect();
    for _ in 0..3 {
        let _one = child(&root, "one");
        assert_eq!(pages(), 3);
    }
    assert_eq!(pages(), 3);
}

#[test]
fn a_handle_may_outlive_its_roster() {
    let root = root();
    let nested = root.nest(Facts::supervisor("root/team".into(), "one_for_one", "3 in 5s"));
    let mut one = child(nested.roster(), "one");
    drop(nested);
    assert_eq!(ids(&root), Vec::<String>::new());
    one.publish(status(ChildState::Stopping));
    one.set_detail(Weak::<Told>::new());
    assert_eq!(root.counts().stopping, 1, "it is counted until it is dropped");
    drop(one);
    assert_eq!(root.counts().children, 0);
}

struct Told;

impl Detail for Told {
    fn detail(&self, _now: Moment) -> NodeDetail {
        NodeDetail { zombies: 1, ..NodeDetail::default() }
    }
}

#[test]
fn only_children_that_say_so_and_still_exist_are_asked() {
    let root = root();
    let told = Arc::new(Told);
    let weak: Weak<dyn Detail> = Arc::downgrade(&told) as _;
    let mut children: Vec<_> = (0..20).map(|n| child(&root, &n.to_string())).collect();
    for child in &mut children[3..] {
        child.set_detail(weak.clone());
    }
    let says = Status { has_detail: true, ..Status::default() };
    children[1].publish(says);
    children[6].publish(says);
    children[7].publish(says);
    children[9].publish(says);
    let asked = |details| {
        let rows =
            |page: PageCopy| page.details.into_iter().map(|(row, _)| row).collect::<Vec<_>>();
        (0..2).map(|at| root.page(at, details).map(rows).unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(asked(true), [vec![6, 7], vec![1]]);
    assert_eq!(asked(false), [Vec::<u16>::new(), vec![]]);
    drop(children.remove(6));
    let _same_row = child(&root, "new");
    assert_eq!(asked(true), [vec![7], vec![1]], "the new child has not inherited the row's detail");
    drop(told);
    assert_eq!(asked(true), [Vec::<u16>::new(), vec![]]);
}
