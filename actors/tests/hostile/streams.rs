//! Streams, in every wire format: every way of writing one that the formats allow, and every way of
//! breaking one off.

use std::time::Duration;

use mainstay::fault::{Class, EffectState};
use mainstay_actors::chat::Finish;
use mainstay_actors::chat::stream::StreamEvent;
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::wires::{LONG, WIRES, Wire, connected, fault, hear, hear_for, said, what};

/// Letters of two and of four bytes, so that a cut can go through one.
const TEXTS: [&str; 3] = ["h\u{e9}", "\u{1f600} ", "l\"o"];

type Write = fn(Wire, &[String]) -> String;

/// Ways to write the frames of a stream; each says the same.
const WAYS: [(&str, Write); 12] = [
    ("as most do", |wire, frames| wire.all_written(frames)),
    ("carriage returns and line feeds", |wire, frames| ends(wire, frames, "\r\n")),
    ("carriage returns", |wire, frames| ends(wire, frames, "\r")),
    ("a byte order mark", |wire, frames| format!("\u{feff}{}", wire.all_written(frames))),
    ("no space after the colon", |wire, frames| {
        wire.all_written(frames).replace("data: {", "data:{").replace("data: [", "data:[")
    }),
    ("spaces around", |wire, frames| {
        frames.iter().map(|frame| wire.written(&format!("  {frame} \t"))).collect()
    }),
    ("names, ids and delays", |wire, frames| {
        if wire.is_lines() {
            return wire.all_written(frames);
        }
        let event = |(id, frame)| {
            format!("event: message\nid: {id}\nretry: 10\ndata: {frame}\nevent: message\n\n")
        };
        frames.iter().enumerate().map(event).collect()
    }),
    ("comments and empty lines between", |wire, frames| {
        let between = if wire.is_lines() { "\n  \n" } else { ": ping\n\n\n:\n" };
        frames.iter().map(|frame| format!("{between}{}{between}", wire.written(frame))).collect()
    }),
    ("comments within", |wire, frames| {
        if wire.is_lines() {
            return wire.all_written(frames);
        }
        frames.iter().map(|frame| format!("data: {frame}\n: still there\n\n")).collect()
    }),
    ("data of several lines", |wire, frames| {
        if wire.is_lines() {
            return wire.all_written(frames);
        }
        let lines = |frame: &String| match frame.strip_prefix('{') {
            Some(rest) => format!("data: {{\ndata:\ndata:   {rest}\n\n"),
            None => wire.written(frame),
        };
        frames.iter().map(lines).collect()
    }),
    ("no end of the last line", |wire, frames| {
        wire.all_written(frames).trim_end_matches('\n').to_owned()
    }),
    ("frames that nobody knows", |wire, frames| {
        let unknown = [
            "{}",
            "{\"type\":\"ping\"}",
            "{\"type\":\"response.of_tomorrow\",\"delta\":{\"a\":[1]},\"item\":null}",
            "{\"object\":\"x\",\"choices\":[],\"error\":null}",
            "{\"responseId\":\"r\",\"candidates\":[]}",
            "{\"status\":\"loading\",\"created_at\":\"x\"}",
        ]
        .map(|frame| wire.written(frame))
        .concat();
        frames.iter().map(|frame| format!("{unknown}{}", wire.written(frame))).collect()
    }),
];

fn ends(wire: Wire, frames: &[String], end: &str) -> String {
    wire.all_written(frames).replace('\n', end)
}

#[tokio::test]
async fn every_way_to_write_a_stream_and_every_cut_of_it_says_the_same_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let frames = wire.frames(&TEXTS);
        for (way, write) in WAYS {
            let bytes = write(wire, &frames);
            for size in [1, 3, 64, bytes.len()] {
                server.then(wire.row(bytes.as_bytes().chunks(size)));
                let (reply, heard) = hear(&model).await;
                let reply = reply.unwrap_or_else(|fault| panic!("{wire:?}, {way}: {fault:?}"));
                assert_eq!(reply.text, TEXTS.concat(), "{wire:?}, {way}, in pieces of {size}");
                assert_eq!((reply.usage.input, reply.usage.output), (10, 5), "{wire:?}, {way}");
                assert_eq!(reply.finish, Finish::Stop);
                let mut expected: Vec<_> =
                    TEXTS.iter().map(|text| StreamEvent::Text((*text).to_owned())).collect();
                expected.push(StreamEvent::Done);
                assert_eq!(heard, expected, "{wire:?}, {way}, in pieces of {size}");
            }
        }
    }
}

#[tokio::test]
async fn the_arguments_of_a_tool_call_are_put_together_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    let pieces = ["{\"na", "me\":\"h\u{e9} \\\"x\\\"\",", "\"n\":[1", ",2]}"];
    for wire in WIRES {
        let model = wire.model(server.url());
        let mut frames = wire.begin();
        frames.push(wire.text("I look."));
        frames.extend(wire.call(&pieces));
        frames.extend(wire.stop());
        frames.extend(wire.last());
        let bytes = wire.all_written(&frames);
        for size in [1, 7, bytes.len()] {
            server.then(wire.row(bytes.as_bytes().chunks(size)));
            let (reply, heard) = hear(&model).await;
            let reply = reply.unwrap();
            let call = &reply.tool_calls[0];
            assert_eq!((&*call.id, &*call.name), ("c1", "find"), "{wire:?}");
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
            let expected: serde_json::Value = serde_json::from_str(&pieces.concat()).unwrap();
            assert_eq!(arguments, expected, "{wire:?}");
            let expected = [
                StreamEvent::Text("I look.".to_owned()),
                StreamEvent::ToolCall(call.clone()),
                StreamEvent::Done,
            ];
            assert_eq!(heard, expected, "{wire:?}");
        }
    }
}

#[tokio::test]
async fn no_beginning_of_a_stream_is_taken_for_the_whole_in_any_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let mut frames = wire.begin();
        frames.extend([wire.text("h\u{e9}"), wire.text("llo")]);
        frames.extend(wire.call(&["{\"a\":", "7}"]));
        frames.extend(wire.stop());
        // What is said when all is said, without the end of its line.
        let all_said = wire.all_written(&frames).trim_end_matches('\n').len();
        frames.extend(wire.last());
        let bytes = wire.all_written(&frames);
        let first_word = wire.all_written(&wire.begin()).len();
        for cut in (0..bytes.len()).step_by(7).chain([all_said - 1, all_said]) {
            let end = if cut % 2 == 0 { StreamEnd::Whole } else { StreamEnd::Reset };
            server.then(wire.row([&bytes.as_bytes()[..cut]]).end_after(1, end));
            let (reply, heard) = hear(&model).await;
            let at = format!("{wire:?}, cut at {cut} of {}, {end:?}: {reply:?}", bytes.len());
            if let Some(fault) = fault(&reply) {
                // A reset may swallow the last line, whose end is not there.
                assert!(cut < all_said || end == StreamEnd::Reset, "{at}");
                let code = fault.code.as_deref().unwrap_or_default();
                assert_eq!(fault.class, Class::Network, "{at}");
                assert!(matches!(code, "stream_cut" | "connection_reset"), "{at}");
                // Asked, and perhaps answered: it says nothing of what happened there.
                assert_eq!(fault.effect, EffectState::Unstated, "{at}");
                assert_eq!(reply.is_ok(), !said(&heard).is_empty(), "{at}");
                if let Ok(part) = &reply {
                    assert_eq!(part.text, said(&heard), "{at}");
                    assert_eq!(heard.last(), Some(&StreamEvent::Partial(fault.clone())), "{at}");
                    assert!(cut > first_word && part.tool_calls.is_empty(), "{at}");
                } else {
                    assert_eq!(heard, [], "{at}");
                }
            } else {
                let reply = reply.unwrap();
                assert!(cut >= all_said, "{at}");
                assert_eq!((&*reply.text, reply.tool_calls.len()), ("h\u{e9}llo", 1), "{at}");
                assert_eq!(heard.last(), Some(&StreamEvent::Done), "{at}");
            }
        }
    }
}

#[tokio::test]
async fn an_error_in_a_stream_has_its_class_before_and_after_the_commit_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let (error, class) = wire.error();
        let line = wire.written(&error.to_string());
        let named = format!("event: error\ndata: {error}\n\n");
        // Under its name alone, with nothing in its data that says that it is one.
        let inner = error.get("error").filter(|inner| inner.is_object()).unwrap_or(&error);
        let bare = format!("event: error\ndata: {inner}\n\n");
        let field = format!("error: {inner}\n\n");
        let ways = if wire.is_lines() { vec![line] } else { vec![line, named, bare, field] };
        for way in ways {
            for texts in [&[][..], &["he", "llo"]] {
                let mut frames = wire.begin();
                frames.extend(texts.iter().map(|text| wire.text(text)));
                let after = wire.all_written(&wire.stop());
                let bytes = format!("{}{way}{after}", wire.all_written(&frames));
                server.then(wire.row([bytes]));
                let (reply, heard) = hear(&model).await;
                let found = fault(&reply).unwrap_or_else(|| panic!("{wire:?}, {way}: {reply:?}"));
                assert_eq!(found.class, class, "{wire:?}, {way}: {found:?}");
                assert_eq!(said(&heard), texts.concat(), "{wire:?}, {way}");
                assert_eq!(reply.is_ok(), !texts.is_empty(), "{wire:?}, {way}");
                if reply.is_ok() {
                    assert!(matches!(heard.last(), Some(StreamEvent::Partial(it)) if it == found));
                }
            }
        }
    }
}

#[tokio::test]
async fn what_comes_after_the_end_of_an_answer_changes_nothing_in_any_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let bytes = wire.all_written(&wire.frames(&["hello"])).into_bytes();
        let mut trailers: Vec<Vec<u8>> = vec![
            b"\n\n\n".to_vec(),
            b"<html>".to_vec(),
            wire.written("garbage").into_bytes(),
            wire.written("[DONE]").into_bytes(),
            [b"data: \xff\xfe\n\n\xff\n".to_vec(), vec![b'x'; 100_000]].concat(),
        ];
        // Of Gemini only the end of the body tells which frame was the last.
        if wire != Wire::Gemini {
            trailers.push(wire.written(&wire.text("more")).into_bytes());
            trailers.push(wire.written(&wire.error().0.to_string()).into_bytes());
        }
        for trailer in trailers {
            for pieces in [vec![[&bytes[..], &trailer].concat()], vec![bytes.clone(), trailer]] {
                let shown = format!("{wire:?}, {:?}", String::from_utf8_lossy(&pieces[0]));
                server.then(wire.row(pieces));
                let (reply, heard) = hear(&model).await;
                assert_eq!(reply.expect(&shown).text, "hello", "{shown}");
                assert_eq!(heard.last(), Some(&StreamEvent::Done), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_all_said_waits_for_no_end_that_never_comes_in_any_wire() {
    let server = StubServer::start().await.unwrap();
    let tick = Duration::from_millis(100);
    let asks = WIRES.iter().flat_map(|wire| {
        let mut frames = wire.begin();
        frames.push(wire.text("hello"));
        frames.extend(wire.stop());
        let said = wire.all_written(&frames);
        let ping = if wire.is_lines() { "\n" } else { ": ping\n\n" };
        let mut pings = vec![said.clone()];
        pings.resize(1000, ping.to_owned());
        let silent = wire.row([said]).end_after(1, StreamEnd::Hang);
        [silent, wire.row(pings).pause(tick)].map(|row| (*wire, row))
    });
    let mut running = tokio::task::JoinSet::new();
    for (wire, row) in asks {
        let server = StubServer::start().await.unwrap();
        server.otherwise(row);
        running.spawn(async move {
            let model = connected(wire.bare(server.url()).idle_timeout(LONG * 2));
            let ended = timeout(LONG, hear_for(&model, LONG * 2)).await;
            (wire, ended.expect("it does not wait for ever"))
        });
    }
    drop(server);
    while let Some(done) = running.join_next().await {
        let (wire, (reply, heard)) = done.unwrap();
        assert_eq!(reply.unwrap().text, "hello", "{wire:?}");
        assert_eq!(heard.last(), Some(&StreamEvent::Done), "{wire:?}");
    }
}

#[tokio::test]
async fn a_huge_event_is_read_and_a_larger_one_refused_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let large = "x".repeat(900 * 1024);
        server.then(wire.row([wire.all_written(&wire.frames(&[&large]))]));
        let (reply, heard) = hear(&model).await;
        assert_eq!(reply.unwrap().text.len(), large.len(), "{wire:?}");
        assert_eq!(said(&heard).len(), large.len());
        let larger = "x".repeat(1100 * 1024);
        if wire == Wire::Responses {
            // Its last frames say all of it once more, however it came before.
            let half = larger.split_at(larger.len() / 2);
            let mut frames: Vec<_> = [half.0, half.1].map(|text| wire.text(text)).into();
            let done =
                json!({"type": "response.output_text.done", "output_index": 0, "text": larger});
            frames.push(done.to_string());
            let mut end: Value = serde_json::from_str(&wire.stop()[0]).unwrap();
            end["response"]["output"] = wire.whole(&larger)["output"].clone();
            frames.push(end.to_string());
            server.then(wire.row([wire.all_written(&frames)]));
            let (reply, heard) = hear(&model).await;
            let reply = reply.unwrap();
            assert!(reply.broken_by().is_none(), "{:?}", reply.finish);
            assert_eq!((reply.text.len(), said(&heard).len()), (larger.len(), larger.len()));
            continue;
        }
        for texts in [&[&*larger][..], &["hello", &*larger]] {
            server.then(wire.row([wire.all_written(&wire.frames(texts))]));
            let (reply, heard) = hear(&model).await;
            let expected = Some((Class::OutputInvalid, "frame_too_large"));
            assert_eq!(what(&reply), expected, "{wire:?}");
            assert_eq!(
                (reply.is_ok(), said(&heard).len()),
                (texts.len() == 2, 5 * (texts.len() - 1))
            );
        }
    }
}

#[tokio::test]
async fn an_answer_is_as_long_as_what_it_says_and_not_as_what_its_words_come_in() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        // Each word in 16 KiB of what nobody reads: twelve megabytes for some.
        let word = "forty letters that are said in this frame";
        let mut frame: Value = serde_json::from_str(&wire.text(word)).unwrap();
        frame["obfuscation"] = "x".repeat(16 * 1024).into();
        let mut frames = wire.begin();
        frames.extend(std::iter::repeat_n(frame.to_string(), 768));
        frames.extend(wire.stop());
        frames.extend(wire.last());
        server.then(wire.row([wire.all_written(&frames)]));
        let (reply, heard) = hear(&model).await;
        assert_eq!(reply.unwrap().text.len(), 768 * word.len(), "{wire:?}");
        assert_eq!(said(&heard).len(), 768 * word.len());
    }
    // What is said has its bounds, too, and so have the calls, of which nobody hears before the end.
    let wire = Wire::Chat;
    let text = wire.text(&"x".repeat(900 * 1024));
    let call = json!({"choices": [{"delta": {"tool_calls": [
        {"index": 0, "id": "c", "function": {"name": "f", "arguments": "1".repeat(900 * 1024)}}]}}]});
    for frame in [text, call.to_string()] {
        server.then(wire.row(vec![wire.written(&frame); 13]).end_after(13, StreamEnd::Hang));
        let (reply, _) = hear(&wire.model(server.url())).await;
        assert_eq!(what(&reply), Some((Class::OutputInvalid, "body_too_large")));
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_is_never_passed_on_by_any_wire() {
    let server = StubServer::start().await.unwrap();
    // Never a letter, half a letter, and half a pair.
    for bad in [&b"\xff"[..], b"\xc3", b"\xed\xa0\xbd"] {
        for wire in WIRES {
            let model = wire.model(server.url());
            for texts in [&[][..], &["hello"]] {
                let mut frames = wire.begin();
                frames.extend(texts.iter().map(|text| wire.text(text)));
                let mut bytes = wire.all_written(&frames).into_bytes();
                let frame = wire.written(&wire.text("BAD"));
                let (head, tail) = frame.split_once("BAD").unwrap();
                bytes.extend([head.as_bytes(), bad, tail.as_bytes()].concat());
                bytes.extend(wire.all_written(&wire.stop()).into_bytes());
                server.then(wire.row([bytes]));
                let (reply, heard) = hear(&model).await;
                let expected = Some((Class::ServerTransient, "bad_utf8"));
                assert_eq!(what(&reply), expected, "{wire:?}, {bad:?}: {reply:?}");
                assert_eq!(said(&heard), texts.concat(), "{wire:?}");
                assert_eq!(reply.is_ok(), !texts.is_empty(), "{wire:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_pauses_drips_or_trickles_is_a_timeout_in_every_wire() {
    let ms = Duration::from_millis;
    let mut running = tokio::task::JoinSet::new();
    for wire in WIRES {
        let frames = |texts: &[&str]| {
            let mut frames = wire.begin();
            frames.extend(texts.iter().map(|text| wire.text(text)));
            wire.all_written(&frames)
        };
        let words: Vec<_> = (0..400).map(|_| wire.written(&wire.text("x"))).collect();
        let half: Vec<_> = frames(&["x"]).bytes().take(20).map(|byte| vec![byte]).collect();
        let silent = |texts: &[&str]| wire.row([frames(texts)]).end_after(1, StreamEnd::Hang);
        let beats = vec![if wire.is_lines() { "\n" } else { ": ping\n\n" }; 400];
        let beats = [frames(&["x"])].into_iter().chain(beats.into_iter().map(str::to_owned));
        let cases: [(Row, Option<usize>, &str, &str); 5] = [
            (wire.row(half).pause(ms(50)), None, "idle", ""),
            (silent(&[]), None, "idle", ""),
            (silent(&["x"]), None, "idle", "x"),
            (wire.row(words).pause(ms(40)), Some(1000), "too_slow", "x"),
            // Signs of life are no content.
            (wire.row(beats).pause(ms(40)), Some(1000), "too_slow", "x"),
        ];
        for (row, floor, code, start) in cases {
            let server = StubServer::start().await.unwrap();
            server.otherwise(row);
            running.spawn(async move {
                let model = wire.bare(server.url());
                let model = match floor {
                    Some(floor) => model.throughput_floor(floor, ms(300)).idle_timeout(LONG),
                    None => model.idle_timeout(ms(500)),
                };
                let (reply, heard) = hear(&connected(model)).await;
                assert_eq!(what(&reply), Some((Class::Timeout, code)), "{wire:?}: {reply:?}");
                assert_eq!(reply.is_ok(), !start.is_empty(), "{wire:?}, {code}");
                assert!(said(&heard).starts_with(start), "{wire:?}, {code}");
                assert_eq!(fault(&reply).unwrap().effect, EffectState::Unstated);
                timeout(LONG, server.hung_up(1)).await.expect("it is left");
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}
