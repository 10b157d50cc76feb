//! What servers say of the end of an answer: of each frame, of none, too early, and in words of their own.

use std::time::Duration;

use mainstay::fault::{Class, Fault};
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::chat::{ChatReply, ChatRequest, Finish};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use serde_json::{Value, json};

use crate::wires::{WIRES, Wire, ask, connected, fault, hear, said, what};

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
async fn what_has_said_nothing_is_not_at_its_end_whatever_it_says() {
    let end = |wire: Wire| match wire {
        Wire::Gemini => wire.stop()[0].clone(),
        _ => last(wire, "").to_string(),
    };
    // A gateway that says so while the model thinks, for longer than a final frame is waited for.
    let slow = |wire: Wire| async move {
        let frames = [end(wire), wire.text("one "), wire.text("two"), end(wire)];
        let row = stream(wire, frames.into_iter().chain(wire.last()));
        let (reply, heard) = answer(wire, row.pause(Duration::from_millis(1100))).await;
        assert_eq!((&*reply.unwrap().text, &*heard), ("one two", "one two"), "{wire:?}");
    };
    // Then the connection is what failed, or the stream: nothing was said that another attempt cannot say.
    let broken = |wire: Wire| async move {
        let row = stream(wire, [end(wire)]).end_after(1, StreamEnd::Reset);
        let (reply, _) = answer(wire, row).await;
        assert_eq!(what(&reply), Some((Class::Network, "connection_reset")), "{wire:?}");
        let server = StubServer::start().await.unwrap();
        server.then(stream(wire, [end(wire)]).end_after(1, StreamEnd::Hang));
        let model = connected(wire.bare(server.url()).idle_timeout(Duration::from_millis(300)));
        assert_eq!(what(&hear(&model).await.0), Some((Class::Timeout, "idle")), "{wire:?}");
        // What can only be an end is one.
        let word = if wire == Wire::Gemini { "SAFETY" } else { "content_filter" };
        let row = stream(wire, [with_reason(wire, "", word).to_string()]);
        let (reply, _) = answer(wire, row.end_after(1, StreamEnd::Hang)).await;
        assert_eq!(fault(&reply).unwrap().class, Class::ContentFiltered, "{wire:?}");
    };
    let (gemini, chat) = (Wire::Gemini, Wire::Chat);
    tokio::join!(slow(gemini), slow(chat), broken(gemini), broken(chat));
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

#[tokio::test]
async fn an_answer_that_its_provider_calls_broken_or_spoiled_is_none_in_any_wire() {
    let table = [
        (Wire::Chat, "insufficient_system_resource", Class::ServerTransient),
        (Wire::Chat, "abort", Class::ServerTransient),
        (Wire::Chat, "network_error", Class::ServerTransient),
        (Wire::Chat, "model_length", Class::OutputInvalid),
        (Wire::Chat, "MAX_TOKENS", Class::OutputInvalid),
        (Wire::Chat, "sensitive", Class::ContentFiltered),
        (Wire::Chat, "ERROR_TOXIC", Class::ContentFiltered),
        (Wire::Anthropic, "abort", Class::ServerTransient),
        (Wire::Gemini, "OTHER", Class::OutputInvalid),
        (Wire::Gemini, "MALFORMED_RESPONSE", Class::OutputInvalid),
        (Wire::Gemini, "MISSING_THOUGHT_SIGNATURE", Class::OutputInvalid),
        (Wire::Gemini, "LANGUAGE", Class::ContentFiltered),
        (Wire::Ollama, "load", Class::ServerTransient),
    ];
    let server = StubServer::start().await.unwrap();
    for (wire, word, class) in table {
        let mut whole = wire.whole("half an ans");
        let place = match wire {
            Wire::Anthropic => "/stop_reason",
            Wire::Gemini => "/candidates/0/finishReason",
            Wire::Ollama => "/done_reason",
            _ => "/choices/0/finish_reason",
        };
        *whole.pointer_mut(place).unwrap() = word.into();
        server.then(Row::new(200, whole.to_string()));
        let fault = ask(&wire.model(server.url())).await.unwrap_err();
        assert_eq!(fault.class, class, "{wire:?} {word}: {fault:?}");
        assert!(fault.code.is_some());
    }
    // The words of others for a good end are understood, and one that nobody knows is no clean answer.
    let model = Model::openai(server.url(), "m");
    let system = System::start(SupervisorSpec::one_for_one("root").child(model.spec("m"))).await;
    let system = system.unwrap();
    let child = system.child::<Model>("root/m").unwrap();
    for (word, finish, degraded) in [
        ("eos_token", Finish::Stop, false),
        ("COMPLETE", Finish::Stop, false),
        ("of_tomorrow", Finish::Other("of_tomorrow".to_owned()), true),
    ] {
        server.then(Row::completion(json!({"content": "hello"}), word));
        let answer = child.call("x").await.unwrap();
        assert_eq!((&answer.value.finish, answer.degraded), (&finish, degraded), "{word}");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_response_that_is_incomplete_says_why_if_it_does() {
    let server = StubServer::start().await.unwrap();
    for (details, class, code, said) in [
        (json!({"reason": "max_output_tokens"}), Class::OutputInvalid, "truncated", "token limit"),
        (json!({"reason": "length"}), Class::OutputInvalid, "truncated", "token limit"),
        (json!({"reason": "content_filter"}), Class::ContentFiltered, "content_filter", "filtered"),
        (json!({"reason": "made_up"}), Class::Unknown, "made_up", "not known here: made_up"),
        (json!({"reason": "stop"}), Class::Unknown, "stop", "not known here: stop"),
        (json!({"reason": "a secret?"}), Class::Unknown, "incomplete", "is not said"),
        (Value::Null, Class::Unknown, "incomplete", "is not said"),
    ] {
        let mut whole = Wire::Responses.whole("half an ans");
        whole["status"] = "incomplete".into();
        whole["incomplete_details"] = details.clone();
        server.then(Row::new(200, whole.to_string()));
        let fault = ask(&Wire::Responses.model(server.url())).await.unwrap_err();
        assert_eq!((fault.class, fault.code.as_deref()), (class, Some(code)), "{details}");
        assert!(fault.message.contains(said), "{details}: {fault:?}");
    }
}

#[tokio::test]
async fn an_answer_that_says_nothing_is_none_in_any_wire_and_a_sibling_is_asked() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        server.then(Row::new(200, wire.whole("").to_string()));
        let whole = ask(&wire.model(server.url())).await;
        assert_eq!(what(&whole), Some((Class::OutputInvalid, "empty_answer")), "{wire:?}");
        server.then(stream(wire, wire.frames(&[])));
        let (streamed, heard) = hear(&wire.model(server.url())).await;
        assert_eq!(what(&streamed), Some((Class::OutputInvalid, "empty_answer")), "{wire:?}");
        assert_eq!(heard, [], "{wire:?}");
    }
    // What was thought is no answer.
    let thought = json!({"content": null, "reasoning_content": "well"});
    server.then(Row::completion(thought, "stop"));
    assert_eq!(ask(&Wire::Chat.model(server.url())).await.unwrap_err().class, Class::OutputInvalid);
    let good = StubServer::start().await.unwrap();
    // Also where why it said nothing is not known here, and where the words are those of another provider.
    server.then(Row::completion(json!({"content": ""}), "of_tomorrow"));
    let fault = ask(&Wire::Chat.model(server.url())).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::OutputInvalid, Some("of_tomorrow")));
    for (word, class) in [
        ("PROHIBITED_CONTENT", Class::ContentFiltered),
        ("RECITATION", Class::ContentFiltered),
        ("MALFORMED_FUNCTION_CALL", Class::OutputInvalid),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", Class::OutputInvalid),
    ] {
        for said in ["", "half a sen"] {
            server.then(Row::completion(json!({"content": said}), word));
            let fault = ask(&Wire::Chat.model(server.url())).await.unwrap_err();
            assert_eq!(fault.class, class, "{word}: {fault}");
        }
    }
    server.otherwise(Row::completion(json!({"content": ""}), "of_tomorrow"));
    let group = GroupSpec::model("llm")
        .member_spec(Model::openai(server.url(), "m").spec("m0"))
        .member_spec(Model::openai(good.url(), "m").spec("m1"));
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let llm = system.port::<ChatRequest, ChatReply>("root/llm").unwrap();
    assert_eq!(llm.call("x").await.unwrap().served_by.as_str(), "root/llm/m1");
    system.stop().await;
}

#[tokio::test]
async fn what_is_said_in_another_place_is_heard_and_what_is_thought_is_not() {
    let wire = Wire::Chat;
    let end = json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}).to_string();
    let frames = |frame: Value| stream(wire, [frame.to_string(), end.clone(), "[DONE]".to_owned()]);
    // The whole message instead of a piece of it.
    let message = json!({"choices": [{"message": {"role": "assistant", "content": "hello"}}]});
    let (reply, heard) = answer(wire, frames(message)).await;
    assert_eq!((&*reply.unwrap().text, &*heard), ("hello", "hello"));
    // And once more, after its pieces.
    let both = json!({"choices": [{"delta": {"content": "hel"}}, ]});
    let rest = json!({"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop",
                                   "message": {"content": "hello"}}]});
    let row = stream(wire, [both.to_string(), rest.to_string(), "[DONE]".to_owned()]);
    assert_eq!(answer(wire, row).await.1, "hello");
    let call = json!({"name": "find", "arguments": "{\"n\":7}"});
    for row in [
        frames(json!({"choices": [{"delta": {"function_call": call}}]})),
        Row::completion(json!({"content": null, "function_call": call}), "function_call"),
    ] {
        let calls = answer(wire, row).await.0.unwrap().tool_calls;
        assert_eq!((&*calls[0].name, &*calls[0].arguments), ("find", "{\"n\":7}"));
    }
    let parts = json!([{"type": "reasoning", "text": "well"}, {"type": "thinking", "text": "hm"},
                       {"type": "text", "text": "hel"}, {"text": "lo"}]);
    let mut good = wire.whole("");
    good["choices"][0]["message"]["content"] = parts;
    // An error that says nothing is none.
    for error in [json!(""), json!({}), json!(false)] {
        good["error"] = error;
        let reply = answer(wire, Row::new(200, good.to_string())).await.0;
        assert_eq!(reply.unwrap().text, "hello");
    }
    let wire = Wire::Responses;
    let done = json!({"type": "response.output_text.done", "output_index": 0, "text": "hello"});
    let frames = [done.to_string()].into_iter().chain(wire.stop());
    assert_eq!(answer(wire, stream(wire, frames)).await.1, "hello");
    let frames = [wire.text("hello"), done.to_string()].into_iter().chain(wire.stop());
    assert_eq!(answer(wire, stream(wire, frames)).await.1, "hello");
}

#[tokio::test]
async fn the_floor_counts_what_nobody_hears_of_a_call_and_of_a_thought() {
    let server = StubServer::start().await.unwrap();
    let piece = |text: &str| {
        let call = json!({"index": 0, "function": {"arguments": text}});
        json!({"choices": [{"delta": {"tool_calls": [call]}}]}).to_string()
    };
    let wire = Wire::Chat;
    let mut frames = vec![
        wire.text("I look."),
        json!({"choices": [{"delta": {"tool_calls": [
        {"index": 0, "id": "c", "function": {"name": "find", "arguments": "{\"a\":\""}}]}}]})
        .to_string(),
    ];
    frames.extend((0..12).map(|_| piece("twelve more.")));
    frames.push(piece("\"}"));
    frames.extend(wire.stop());
    frames.extend(wire.last());
    let slow = |floor: usize| {
        server.then(stream(wire, frames.clone()).pause(Duration::from_millis(80)));
        // Longer than any machine stands still, and shorter than the answer takes.
        connected(
            Model::openai(server.url(), "m").throughput_floor(floor, Duration::from_millis(900)),
        )
    };
    let reply = hear(&slow(12)).await.0.unwrap();
    assert!(reply.broken_by().is_none(), "{:?}", reply.finish);
    assert_eq!(reply.tool_calls.len(), 1);
    // It is still a floor.
    assert_eq!(what(&hear(&slow(10_000)).await.0), Some((Class::Timeout, "too_slow")));
}

#[tokio::test]
async fn what_was_said_is_not_free_because_a_server_counts_nothing() {
    let wire = Wire::Chat;
    for (count, estimated) in [(0, true), (3, false)] {
        let mut whole = wire.whole("four score and seven years ago");
        whole["usage"]["completion_tokens"] = count.into();
        let usage = answer(wire, Row::new(200, whole.to_string())).await.0.unwrap().usage;
        assert_eq!(usage.estimated, estimated);
        assert!(usage.output >= 3 && usage.input == 10, "{usage:?}");
    }
}

#[tokio::test]
async fn what_is_paid_for_is_counted_wherever_it_is_said() {
    let frames = |wire: Wire, frames: &[Value]| {
        let frames: Vec<_> = frames.iter().map(Value::to_string).collect();
        wire.row([wire.all_written(&frames)])
    };
    let body = |body: Value| Row::new(200, body.to_string());
    let said = json!({"index": 0, "message": {"content": "a"}, "finish_reason": "stop"});
    let piece = json!({"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"});
    let thought = json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 100});
    // One that no tree of values has to be made for is read in another way.
    let odd = json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 100, "x": 1});
    let old = json!({"index": 0, "message": {"content": [{"text": "a"}]}});
    let parts = json!([{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]);
    let message = |text: &str| json!([{"type": "message", "content": [{"text": text}]}]);
    for (wire, row, expected) in [
        // What was thought is in the sum alone.
        (Wire::Chat, body(json!({"choices": [said], "usage": thought})), (10, 90)),
        (Wire::Chat, body(json!({"choices": [old], "usage": odd})), (10, 90)),
        (
            Wire::Chat,
            frames(Wire::Chat, &[json!({"choices": [piece], "usage": thought})]),
            (10, 90),
        ),
        (
            Wire::Responses,
            body(json!({"output": message("a"), "usage": {
                "input_tokens": 10, "output_tokens": 2, "total_tokens": 100}})),
            (10, 90),
        ),
        // A sum that is none, or says less, changes nothing.
        (
            Wire::Responses,
            body(json!({"output": message("a"), "usage": {
                "input_tokens": 10, "output_tokens": 2, "total_tokens": 0}})),
            (10, 2),
        ),
        (
            Wire::Gemini,
            body(json!({"candidates": parts, "usageMetadata": {
                "promptTokenCount": 10, "toolUsePromptTokenCount": 30,
                "candidatesTokenCount": 2, "thoughtsTokenCount": 88}})),
            (40, 90),
        ),
        // What came from a cache is not told once more at the end.
        (
            Wire::Anthropic,
            frames(
                Wire::Anthropic,
                &[
                    json!({"type": "message_start", "message": {"usage": {
                        "input_tokens": 10, "cache_read_input_tokens": 1000, "output_tokens": 1}}}),
                    json!({"type": "content_block_delta", "index": 0,
                           "delta": {"type": "text_delta", "text": "a"}}),
                    json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                           "usage": {"input_tokens": 10, "output_tokens": 5}}),
                    json!({"type": "message_stop"}),
                ],
            ),
            (1010, 5),
        ),
    ] {
        let usage = answer(wire, row).await.0.unwrap().usage;
        assert_eq!((usage.input, usage.output, usage.estimated), (expected.0, expected.1, false));
    }
}
