use super::*;

fn text(text: &str) -> StreamEvent {
    StreamEvent::Text(text.to_owned())
}

fn heard(stream: &mut ChatStream) -> Vec<StreamEvent> {
    std::iter::from_fn(|| stream.try_next().ok().flatten()).collect()
}

#[tokio::test]
async fn a_turn_that_asks_for_tools_ends_an_answer_but_not_a_stream_in_turns() {
    let call = ToolCall { id: "1".to_owned(), name: "look".to_owned(), arguments: "{}".to_owned() };
    let turn = ChatReply { text: "wait".to_owned(), ..ChatReply::calls([call.clone()]) };
    for in_turns in [false, true] {
        let (sink, mut stream) = open(8);
        let sink = if in_turns { sink.in_turns() } else { sink };
        sink.attempt().whole(&turn).await.unwrap();
        assert_eq!(sink.is_over(), !in_turns);
        let next = sink.attempt().whole(&ChatReply::text("there")).await;
        let asked = [text("wait"), StreamEvent::ToolCall(call.clone())];
        if in_turns {
            next.unwrap();
            let [first, second] = asked;
            assert_eq!(heard(&mut stream), [first, second, text("there"), StreamEvent::Done]);
        } else {
            assert_eq!(next, Err(Refusal::Ended));
            assert_eq!(heard(&mut stream)[..2], asked);
        }
    }
}

#[tokio::test]
async fn a_turn_without_a_word_or_one_that_is_paused_does_not_end_a_stream_in_turns() {
    let paused =
        ChatReply { finish: Finish::Other("pause_turn".to_owned()), ..ChatReply::text("well, ") };
    for (turn, said) in [(ChatReply::text(""), vec![]), (paused, vec![text("well, ")])] {
        let (sink, mut stream) = open(8);
        // Whoever hears one answer only has heard it.
        sink.attempt().whole(&turn).await.unwrap();
        assert!(sink.is_over());
        assert_eq!(heard(&mut stream), [&said[..], &[StreamEvent::Done]].concat());
        let (sink, mut stream) = open(8);
        let sink = sink.in_turns();
        sink.attempt().whole(&turn).await.unwrap();
        assert!(!sink.is_over() && !sink.is_written());
        sink.attempt().whole(&ChatReply::text("there")).await.unwrap();
        let rest = [text("there"), StreamEvent::Done];
        assert_eq!(heard(&mut stream), [&said[..], &rest].concat());
    }
}

#[tokio::test]
async fn an_attempt_that_fails_before_its_first_piece_is_never_noticed() {
    let (sink, mut stream) = open(8);
    let fault = sink.attempt().fail(Fault::network("gone")).unwrap_err();
    assert_eq!(fault.class, Class::Network);
    drop(sink.attempt());
    let mut second = sink.attempt();
    second.text("hello").await.unwrap();
    second.finish().unwrap();
    assert_eq!(heard(&mut stream), [text("hello"), StreamEvent::Done]);
    assert_eq!(stream.try_next(), Ok(None));
}

#[tokio::test]
async fn a_part_is_the_answer_unless_the_listener_can_begin_again() {
    let (sink, mut stream) = open(8);
    let mut writer = sink.attempt();
    writer.text("hel").await.unwrap();
    let reply = writer.fail(Fault::network("gone")).unwrap();
    assert_eq!(reply.text, "hel");
    assert_eq!(reply.broken_by().unwrap().class, Class::Network);
    assert_eq!(sink.broken(), Some(reply));
    assert_eq!(heard(&mut stream), [text("hel"), StreamEvent::Partial(Fault::network("gone"))]);
    assert_eq!(sink.attempt().text("again").await, Err(Refusal::Ended));

    let (sink, mut stream) = open(8);
    let sink = sink.on_break(OnBreak::Restart);
    let mut writer = sink.attempt();
    writer.text("hel").await.unwrap();
    writer.fail(Fault::network("gone")).unwrap_err();
    assert_eq!(sink.broken(), None);
    sink.attempt().whole(&ChatReply::text("hello")).await.unwrap();
    let expected = [text("hel"), StreamEvent::Restart, text("hello"), StreamEvent::Done];
    assert_eq!(heard(&mut stream), expected);
}

#[tokio::test]
async fn an_attempt_that_is_ended_from_outside_breaks_the_answer_off() {
    let (sink, mut stream) = open(8);
    let mut writer = sink.attempt();
    writer.text("hel").await.unwrap();
    drop(writer);
    assert_eq!(sink.broken().unwrap().broken_by().unwrap().code.as_deref(), Some("cut_off"));
    assert!(matches!(heard(&mut stream)[1], StreamEvent::Partial(_)));
}

#[tokio::test]
async fn a_newer_attempt_takes_over_and_the_older_can_write_no_more() {
    let (sink, mut stream) = open(8);
    let sink = sink.on_break(OnBreak::Restart);
    let (mut older, mut newer) = (sink.attempt(), sink.attempt());
    older.text("a").await.unwrap();
    newer.text("b").await.unwrap();
    assert_eq!(older.text("a").await, Err(Refusal::Superseded));
    // Nor can it break off what is not its own.
    older.fail(Fault::network("gone")).unwrap_err();
    newer.finish().unwrap();
    let expected = [text("a"), StreamEvent::Restart, text("b"), StreamEvent::Done];
    assert_eq!(heard(&mut stream), expected);
}

#[tokio::test]
async fn whichever_of_two_rivals_is_left_begins_anew_when_the_one_that_wrote_breaks_off() {
    for hedge_writes_first in [false, true] {
        let (sink, mut stream) = open(8);
        let sink = sink.on_break(OnBreak::Restart);
        let (mut zombie, plain, rival) = (sink.attempt(), sink.attempt(), sink.rival());
        let (mut one, mut other) = if hedge_writes_first { (rival, plain) } else { (plain, rival) };
        one.text("a").await.unwrap();
        assert_eq!(other.text("b").await, Err(Refusal::Superseded));
        assert!(sink.is_written());
        if hedge_writes_first {
            drop(one);
        } else {
            one.fail(Fault::network("gone")).unwrap_err();
        }
        assert!(!sink.is_written());
        // Who was given up before has no part in this.
        assert_eq!(zombie.text("z").await, Err(Refusal::Superseded));
        other.text("b").await.unwrap();
        assert_eq!(zombie.text("z").await, Err(Refusal::Superseded));
        other.finish().unwrap();
        let expected = [text("a"), StreamEvent::Restart, text("b"), StreamEvent::Done];
        assert_eq!(heard(&mut stream), expected);
    }
}

#[tokio::test]
async fn a_rival_that_has_lost_writes_nothing_into_the_next_turn() {
    let call = ToolCall { id: "1".to_owned(), name: "look".to_owned(), arguments: "{}".to_owned() };
    for on_break in [OnBreak::Partial, OnBreak::Restart] {
        let (sink, mut stream) = open(8);
        let sink = sink.in_turns().on_break(on_break);
        let (winner, mut rival, mut late) = (sink.attempt(), sink.rival(), sink.rival());
        winner.whole(&ChatReply::calls([call.clone()])).await.unwrap();
        assert_eq!(rival.text("no").await, Err(Refusal::Superseded));
        drop(rival);
        assert_eq!(late.text("no").await, Err(Refusal::Superseded));
        sink.attempt().whole(&ChatReply::text("there")).await.unwrap();
        assert_eq!(late.text("no").await, Err(Refusal::Ended));
        let expected = [StreamEvent::ToolCall(call.clone()), text("there"), StreamEvent::Done];
        assert_eq!(heard(&mut stream), expected);
    }
}

#[tokio::test]
async fn a_newer_attempt_leaves_the_part_of_one_that_was_given_up_alive() {
    let (sink, mut stream) = open(8);
    let (mut older, mut newer) = (sink.attempt(), sink.attempt());
    older.text("hel").await.unwrap();
    assert_eq!(newer.text("good day").await, Err(Refusal::Ended));
    let reply = newer.fail(Fault::network("gone")).unwrap();
    assert_eq!((&*reply.text, sink.broken()), ("hel", Some(reply.clone())));
    assert_eq!(older.text("lo").await, Err(Refusal::Ended));
    assert_eq!(heard(&mut stream), [text("hel"), StreamEvent::Partial(cut_off())]);
}

#[tokio::test(start_paused = true)]
async fn a_full_stream_holds_the_writer_and_a_deaf_one_does_not() {
    let second = std::time::Duration::from_secs(1);
    let (sink, mut stream) = open(1);
    let mut writer = sink.attempt();
    writer.text("a").await.unwrap();
    tokio::time::timeout(second, writer.text("b")).await.unwrap_err();
    let (wrote, first) = tokio::join!(writer.text("b"), stream.next());
    assert_eq!((wrote, first), (Ok(()), Some(text("a"))));
    drop(stream);
    for _ in 0..100 {
        tokio::time::timeout(second, writer.text("x")).await.unwrap().unwrap();
    }
    writer.finish().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_for_room_learns_that_it_was_superseded() {
    let second = std::time::Duration::from_secs(1);
    let (sink, _stream) = open(1);
    let sink = sink.on_break(OnBreak::Restart);
    let (mut older, mut newer) = (sink.attempt(), sink.attempt());
    older.text("a").await.unwrap();
    let (refused, waits) =
        tokio::join!(older.text("b"), tokio::time::timeout(second, newer.text("c")));
    assert_eq!(refused, Err(Refusal::Superseded));
    assert!(waits.is_err());
}

#[tokio::test]
async fn a_stream_without_sinks_ends() {
    let (sink, mut stream) = open(1);
    assert_eq!(stream.try_next(), Err(Pending));
    let (event, ()) = tokio::join!(stream.next(), async { drop(sink) });
    assert_eq!(event, None);
}

#[test]
fn a_sink_shows_nothing_of_what_was_said() {
    let (sink, _stream) = open(1);
    assert_eq!(sink, sink.clone());
    assert_ne!(sink, open(1).0);
    assert!(!format!("{sink:?}").contains("queue"));
}

#[tokio::test]
async fn what_is_heard_between_two_restarts_is_one_attempts_in_any_order_of_events() {
    for seed in 0..2000_u64 {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            usize::try_from((state >> 33) % below).unwrap()
        };
        let on_break = [OnBreak::Partial, OnBreak::Restart][random(2)];
        let (sink, mut stream) = open(1000);
        let sink = sink.on_break(on_break);
        let mut writers: Vec<(usize, StreamWriter)> = Vec::new();
        let (mut begun, mut finished) = (0, None);
        for _ in 0..30 {
            let chosen = if writers.is_empty() { 0 } else { random(writers.len() as u64) };
            match random(10) {
                0..2 => {
                    begun += 1;
                    writers.push((begun, sink.attempt()));
                }
                2..8 if !writers.is_empty() => {
                    let (number, writer) = &mut writers[chosen];
                    let _ = writer.text(format!("{number} ")).await;
                }
                8 if !writers.is_empty() => drop(writers.remove(chosen)),
                9 if !writers.is_empty() && random(3) == 0 => {
                    let (number, writer) = writers.remove(chosen);
                    if writer.finish().is_ok() {
                        assert_eq!(finished.replace(number), None, "seed {seed}: two ends");
                    }
                }
                _ => {}
            }
        }
        let broken = sink.broken();
        drop((writers, sink));
        let heard = heard(&mut stream);
        let mut last = 0;
        for part in heard.split(|event| *event == StreamEvent::Restart) {
            let mut numbers = part.iter().filter_map(|event| match event {
                StreamEvent::Text(text) => text.trim().parse::<usize>().ok(),
                _ => None,
            });
            let Some(first) = numbers.next() else { continue };
            assert!(numbers.all(|number| number == first), "seed {seed}: {heard:?}");
            assert!(first > last, "seed {seed}: an older attempt came back: {heard:?}");
            last = first;
        }
        if let Some(number) = finished {
            assert_eq!(heard.last(), Some(&StreamEvent::Done), "seed {seed}");
            assert!(number >= last, "seed {seed}");
        }
        if let Some(part) = broken {
            assert_eq!(on_break, OnBreak::Partial, "seed {seed}");
            let said: String = heard
                .iter()
                .filter_map(|event| match event {
                    StreamEvent::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            // A part is of the last attempt that was heard, which began anew or alone.
            assert!(said.ends_with(&part.text), "seed {seed}");
        }
    }
}

/// A request that waits for its turn at the one is asked of another meanwhile.
#[tokio::test(start_paused = true)]
async fn who_begins_once_its_hedge_has_written_breaks_nothing_off() {
    for on_break in [OnBreak::Partial, OnBreak::Restart] {
        let (sink, mut stream) = open(8);
        let sink = sink.on_break(on_break);
        let mut hedge = sink.rival();
        hedge.text("right").await.unwrap();
        let mut late = sink.attempt();
        assert_eq!(late.text("late").await, Err(Refusal::Superseded));
        drop(late);
        hedge.finish().unwrap();
        assert_eq!(stream.next().await, Some(StreamEvent::Text("right".to_owned())));
        assert_eq!(stream.next().await, Some(StreamEvent::Done), "{on_break:?}");
        // Once the hedge has broken off, the next begins anew.
        let (sink, mut stream) = open(8);
        let sink = sink.on_break(OnBreak::Restart);
        let mut hedge = sink.rival();
        hedge.text("ri").await.unwrap();
        drop(hedge);
        sink.attempt()
            .whole(&ChatReply { text: "right".to_owned(), ..ChatReply::default() })
            .await
            .unwrap();
        let heard = [stream.next().await, stream.next().await, stream.next().await];
        let text = |text: &str| Some(StreamEvent::Text(text.to_owned()));
        assert_eq!(heard, [text("ri"), Some(StreamEvent::Restart), text("right")]);
    }
}
