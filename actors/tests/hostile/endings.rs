//! What servers say of the end of an answer: of each frame, of none, too early, and in words of their own.

use std::time::Duration;

use mainstay::fault::{Class, Fault};
use mainstay_actors::chat::{ChatReply, Finish};
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use serde_json::{Value, json};

use crate::wires::{Wire, ask, fault, hear, said, what};

/// A frame that says this text, and that it is the last.
fn last(wire: Wire, text: &str) -> Value {
    with_reason(wire, text, if wire == Wire::Gemini { "STOP" } else { "stop" })
}

/// A frame that says this text, and this of the end, where the format can say both.
fn with_reason(wire: Wire, text: &str, reason: &str) -> Value {
    match wire {
        Wire::Gemini => json!({"candidates": [
            {"content": {"parts": [{"text": text}]}, "finishReason": reason}]}),
        _ => {
            json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]})
        }
    }
}

fn stream(wire: Wire, frames: impl IntoIterator<Item = String>) -> Row {
    wire.row(frames.into_iter().map(|frame| wire.written(&frame)))
}

async fn answer(wire: Wire, row: Row) -> (Result<ChatReply, Fault>, String) {
    let server = StubServer::start().await.unwrap();
    server.then(row);
    let (reply, heard) = hear(&wire.model(server.url())).await;
    (reply, said(&heard))
}

#[tokio::test]
async fn an_answer_whose_every_frame_is_called_the_last_is_heard_to_its_end() {
    let slow = |wire: Wire, pause: u64| async move {
        let texts = ["one ", "two ", "three"];
        let frames = texts.iter().map(|text| last(wire, text).to_string()).chain(wire.last());
        let row = stream(wire, frames).pause(Duration::from_millis(pause));
        let (reply, heard) = answer(wire, row).await;
        let reply = reply.unwrap();
        assert_eq!((&*reply.text, &*heard), ("one two three", "one two three"), "{wire:?}");
        assert!(reply.broken_by().is_none(), "{wire:?}");
    };
    // Longer than a final frame is waited for: together, and each.
    tokio::join!(
        slow(Wire::Gemini, 600),
        slow(Wire::Chat, 600),
        slow(Wire::Gemini, 1100),
        slow(Wire::Chat, 1100),
    );
}

#[tokio::test]
async fn what_is_said_after_the_end_was_said_is_part_of_the_answer() {
    let wire = Wire::Chat;
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string();
    let frames = |done: bool| {
        let mut frames =
            vec![wire.text("one "), end.clone(), wire.text("two "), wire.text("three")];
        if done {
            frames.extend([end.clone(), wire.last().unwrap()]);
        }
        stream(wire, frames).pause(Duration::from_millis(400))
    };
    let ((reply, _), (cut, _)) =
        tokio::join!(answer(wire, frames(true)), answer(wire, frames(false)));
    assert_eq!(reply.unwrap().text, "one two three");
    // It has gone on, and nothing says that it is over now.
    assert_eq!(what(&cut), Some((Class::Network, "stream_cut")));
}

#[tokio::test]
async fn a_failure_is_one_although_the_frame_before_was_called_the_last() {
    for wire in [Wire::Gemini, Wire::Chat] {
        let frames = || ["one ", "two "].map(|text| last(wire, text).to_string());
        let row = stream(wire, frames()).end_after(2, StreamEnd::Reset);
        let (cut, heard) = answer(wire, row).await;
        assert_eq!(fault(&cut).map(|fault| fault.class), Some(Class::Network), "{wire:?}");
        assert_eq!(heard, "one two ");
        let bad = frames().into_iter().chain(["<html>".to_owned()]);
        let (bad, _) = answer(wire, stream(wire, bad)).await;
        assert_eq!(what(&bad), Some((Class::ServerTransient, "bad_frame")), "{wire:?}");
        // Where the other frames did not say so, it was all, as before.
        let whole = [wire.text("one "), last(wire, "two").to_string()];
        let (whole, _) = answer(wire, stream(wire, whole).end_after(2, StreamEnd::Reset)).await;
        assert_eq!(whole.unwrap().text, "one two", "{wire:?}");
    }
}

#[tokio::test]
async fn a_word_for_nothing_is_no_reason_to_end_in_any_wire() {
    // A frame whose reason is such a word ends nothing: what breaks off after it is broken off.
    let broken = |wire: Wire, frame: Value| async move {
        let frames = [wire.text("one "), frame.to_string()];
        let row = stream(wire, frames).end_after(2, StreamEnd::Whole);
        let (cut, _) = answer(wire, row).await;
        assert_eq!(what(&cut), Some((Class::Network, "stream_cut")), "{wire:?}, {frame}");
    };
    for word in ["", "null", " ", "None"] {
        broken(Wire::Chat, with_reason(Wire::Chat, "two", word)).await;
        // As it is read where the short way does not do.
        let mut long = with_reason(Wire::Chat, "two", word);
        long["choices"][0]["delta"]["content"] = json!([{"type": "text", "text": "two"}]);
        broken(Wire::Chat, long).await;
        broken(Wire::Anthropic, json!({"type": "message_delta", "delta": {"stop_reason": word}}))
            .await;
        broken(Wire::Gemini, with_reason(Wire::Gemini, "two", word)).await;
    }
    broken(Wire::Gemini, with_reason(Wire::Gemini, "two", "FINISH_REASON_UNSPECIFIED")).await;
    // And the rest of the answer is heard.
    let slow = |wire: Wire, word: &'static str| async move {
        let mut frames: Vec<_> = ["one ", "two ", "three"]
            .iter()
            .map(|text| with_reason(wire, text, word).to_string())
            .collect();
        frames.extend(wire.stop());
        frames.extend(wire.last());
        let row = stream(wire, frames).pause(Duration::from_millis(400));
        let reply = answer(wire, row).await.0.unwrap();
        assert_eq!((&*reply.text, &reply.finish), ("one two three", &Finish::Stop), "{wire:?}");
    };
    tokio::join!(slow(Wire::Chat, ""), slow(Wire::Gemini, "FINISH_REASON_UNSPECIFIED"));
    // A prompt that is not blocked is answered.
    let mut good = Wire::Gemini.whole("hello");
    good["promptFeedback"] = json!({"blockReason": "BLOCK_REASON_UNSPECIFIED"});
    let server = StubServer::start().await.unwrap();
    server.then(Row::new(200, good.to_string()));
    let reply = ask(&Wire::Gemini.model(server.url())).await.unwrap();
    assert_eq!(reply.text, "hello");
}
