//! A small server of the Model Context Protocol that does what it is told to, for the tests of
//! `mainstay_actors::mcp`: it answers, fails, lies, hangs and dies on request. Written against the
//! protocol with nothing but `serde_json`, so that it shares no code with the client.
//!
//! `mcp_shop` speaks over standard input and output; `mcp_shop --http` over HTTP on a port of its
//! choice, which it prints, or on that of `--port PORT`. With `--log FILE` it writes a line for each thing
//! it was told: its process id, `call TOOL`, `cancelled`, `done TOOL`. With `--pages N` its list of tools has
//! so many pages; with `--cursor TEXT` each page says that the next is there, with `--schemaless NAME` a tool of
//! this name has no schema. With `--sessions` it gives out a
//! session over HTTP, and forgets it when told to (`--sessions-by-id`: and says so to the request); with `--moved WHERE` it is found at that place only.
//! With `--gone` it says of a session that it does not know that there is none, by a status of 404 alone. With
//! `--wants HEADER` it answers no request over HTTP that has not this header, as `name: value`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

/// The seats that are reserved.
static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
/// Which session is known; each call that says `forget` ends it.
static SESSION: AtomicU32 = AtomicU32::new(0);
static SUM_CALLS: AtomicU32 = AtomicU32::new(0);
/// A tool that it had, and has not now.
static GONE: Mutex<Option<String>> = Mutex::new(None);

struct Options {
    log: Option<PathBuf>,
    pages: u64,
    cursor: Option<String>,
    schemaless: Option<String>,
    sessions: bool,
    by_id: bool,
    without: Option<String>,
    moved: Option<String>,
    gone: bool,
    wants: Option<String>,
}

impl Options {
    fn note(&self, text: &str) {
        let Some(path) = &self.log else { return };
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the log");
        writeln!(file, "{text}").expect("the log can be written");
    }
}

fn main() {
    let mut options = Options {
        log: None,
        pages: 1,
        cursor: None,
        schemaless: None,
        sessions: false,
        by_id: false,
        without: None,
        moved: None,
        gone: false,
        wants: None,
    };
    let mut over_http = false;
    let mut port = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--log" => options.log = arguments.next().map(PathBuf::from),
            "--http" => over_http = true,
            "--cursor" => options.cursor = arguments.next(),
            "--schemaless" => options.schemaless = arguments.next(),
            "--without" => options.without = arguments.next(),
            "--sessions-by-id" => (options.sessions, options.by_id) = (true, true),
            "--sessions" => options.sessions = true,
            "--moved" => options.moved = arguments.next(),
            "--gone" => (options.sessions, options.gone) = (true, true),
            "--wants" => options.wants = arguments.next(),
            "--pages" => {
                let pages = arguments.next().and_then(|pages| pages.parse().ok());
                options.pages = pages.expect("a number of pages");
            }
            "--port" => {
                port = arguments.next().and_then(|port| port.parse().ok()).expect("a port");
            }
            "--complain" => {
                eprintln!("the shop is closed today");
                std::process::exit(3);
            }
            other => {
                eprintln!("unknown argument {other}");
                std::process::exit(2);
            }
        }
    }
    options.note(&format!("pid {}", std::process::id()));
    if over_http { serve_http(options, port) } else { serve_stdio(options) }
}

fn serve_stdio(options: Options) {
    let options = std::sync::Arc::new(options);
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        let options = std::sync::Arc::clone(&options);
        // Each in a thread of its own, so that a call that hangs does not keep it from hearing more.
        std::thread::spawn(move || {
            if let Some(answer) = answer(&message, &options) {
                let mut out = std::io::stdout().lock();
                let mut line = dressed(&message, answer);
                line.push(b'\n');
                if message["params"]["name"] == "change" {
                    let told =
                        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                    line.extend(format!("{told}\n").into_bytes());
                }
                let _ = out.write_all(&line).and_then(|()| out.flush());
            }
        });
    }
    options.note("end of input");
}

/// An answer as the caller wishes it written.
fn dressed(message: &Value, answer: String) -> Vec<u8> {
    match message.pointer("/params/arguments/as").and_then(Value::as_str) {
        Some("batch") => format!("[{answer}]").into_bytes(),
        // Each letter as one byte.
        Some("latin") => {
            answer.chars().map(|letter| u8::try_from(letter).unwrap_or(b'?')).collect()
        }
        Some("half") => answer.as_bytes()[..answer.len() / 2].to_vec(),
        // The last text in it has no end, and the id comes behind.
        Some("late") => {
            let id = format!("\"id\":{}", message["id"]);
            let mut answer = answer.replacen(&format!("{id},"), "", 1);
            answer.pop();
            let quote = answer.rfind('"').expect("a text");
            answer.remove(quote);
            format!("{answer},{id}}}").into_bytes()
        }
        // What it was asked is done, and what it says of that speaks of a session.
        Some(way @ ("session" | "nobody's session")) => {
            let (id, code) = match way {
                "session" => (message["id"].clone(), -32_000),
                _ => (Value::Null, -32_603),
            };
            let text = "session not found: the payment's session timed out after the charge";
            let error = json!({"code": code, "message": text});
            json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string().into_bytes()
        }
        Some("garbled") => answer.replacen(':', "::", 1).into_bytes(),
        _ => answer.into_bytes(),
    }
}

fn serve_http(options: Options, port: u16) {
    let options = std::sync::Arc::new(options);
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    for stream in listener.incoming().flatten() {
        let options = std::sync::Arc::clone(&options);
        std::thread::spawn(move || exchange(stream, &options));
    }
}

/// One connection: requests until the client has no more.
fn exchange(stream: TcpStream, options: &Options) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut length = 0;
        let mut session = None;
        let mut welcome = options.wants.is_none();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            welcome |= options.wants.as_deref() == Some(header.trim());
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if let Some(value) = header.strip_prefix("mcp-session-id:") {
                session = Some(value.trim().to_owned());
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        options.note(&format!("request {}", first.trim()));
        let mut kind = "application/json".to_owned();
        let mut cut = None;
        let mine = format!("s{}", SESSION.load(Ordering::Relaxed));
        let place = first.split(' ').nth(1).unwrap_or_default();
        let moved = options.moved.as_deref().filter(|moved| *moved != place);
        let (status, body) = if let Some(moved) = moved {
            (format!("307 Temporary Redirect\r\nlocation: {moved}"), Vec::new())
        } else if !welcome {
            ("401 Unauthorized".to_owned(), Vec::new())
        } else if options.gone && session.as_ref().is_some_and(|session| *session != mine) {
            ("404 Not Found".to_owned(), Vec::new())
        } else if options.sessions && session.is_some_and(|session| session != mine) {
            let error =
                json!({"code": -32000, "message": "Bad Request: No valid session ID provided"});
            let asked = serde_json::from_slice::<Value>(&body).unwrap_or_default();
            let id = if options.by_id { asked["id"].clone() } else { Value::Null };
            let error = json!({"jsonrpc": "2.0", "error": error, "id": id});
            ("400 Bad Request".to_owned(), error.to_string().into_bytes())
        } else if first.starts_with("POST") {
            let message: Value = serde_json::from_slice(&body).ok()?;
            if message.pointer("/params/arguments/forget").is_some() {
                SESSION.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(code) = message.pointer("/params/arguments/status").and_then(Value::as_u64)
            {
                let name = message["params"]["name"].as_str().unwrap_or_default();
                options.note(&format!("call {name}"));
                // An error of the protocol beside it, if one is asked for.
                let body = message.pointer("/params/arguments/rpc").map_or_else(Vec::new, |rpc| {
                    let error = json!({"code": rpc, "message": "the server is gone"});
                    let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
                    error.to_string().into_bytes()
                });
                (format!("{code} Told"), body)
            } else {
                let arguments = &message["params"]["arguments"];
                if let Some(told) = arguments["kind"].as_str() {
                    told.clone_into(&mut kind);
                }
                cut = arguments["cut"].as_u64().and_then(|cut| usize::try_from(cut).ok());
                match answer(&message, options) {
                    Some(answer) if arguments.get("sse").is_some() => {
                        "text/event-stream".clone_into(&mut kind);
                        let said = dressed(&message, answer);
                        ("200 OK".to_owned(), [b"event: message\ndata: ", &*said, b"\n\n"].concat())
                    }
                    Some(answer) if options.sessions && message["method"] == "initialize" => {
                        (format!("200 OK\r\nmcp-session-id: {mine}"), answer.into_bytes())
                    }
                    Some(answer) => ("200 OK".to_owned(), dressed(&message, answer)),
                    None => ("202 Accepted".to_owned(), Vec::new()),
                }
            }
        } else {
            ("405 Method Not Allowed".to_owned(), Vec::new())
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        let all = [head.as_bytes(), &body].concat();
        // So many bytes of the body, and then it hangs up.
        let end = cut.map_or(all.len(), |cut| (head.len() + cut).min(all.len()));
        writer.write_all(&all[..end]).ok()?;
        if cut.is_some() {
            return None;
        }
    }
}

fn answer(message: &Value, options: &Options) -> Option<String> {
    let method = message["method"].as_str()?;
    if method == "notifications/cancelled" {
        options.note("cancelled");
    }
    let id = message.get("id")?;
    if let (Some(name @ ("say" | "promise")), Some(said)) =
        (message["params"]["name"].as_str(), message["params"]["arguments"]["result"].as_str())
    {
        options.note(&format!("call {name}"));
        // As it stands: read and written anew it might not be the same.
        return Some(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{said}}}"));
    }
    let result = match method {
        "initialize" => Ok(json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "shop", "version": "1"},
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(page(&message["params"]["cursor"], options)),
        "tools/call" => call(&message["params"], options),
        _ => Err((-32601, "Method not found")),
    };
    let answer = match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, text)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
        }
    };
    Some(answer.to_string())
}

/// A page of the list of tools: on the last one all that can be called, on each before it one more.
fn page(cursor: &Value, options: &Options) -> Value {
    let number = cursor.as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(1_u64);
    if number >= options.pages {
        let mut last = json!({"tools": tools()});
        if let (Some(tools), Some(without)) = (last["tools"].as_array_mut(), &options.without) {
            tools.retain(|tool| tool["name"] != without.as_str());
        }
        let gone = GONE.lock().expect("nobody panics with it").clone();
        if let (Some(tools), Some(gone)) = (last["tools"].as_array_mut(), gone) {
            tools.retain(|tool| tool["name"] != gone.as_str());
        }
        if let (Some(tools), Some(name)) = (last["tools"].as_array_mut(), &options.schemaless) {
            tools.push(json!({ "name": name }));
        }
        if let Some(cursor) = &options.cursor {
            last["nextCursor"] = cursor.as_str().into();
        }
        return last;
    }
    let tool = json!({"name": format!("page_{number}"), "inputSchema": {"type": "object"}});
    json!({"tools": [tool], "nextCursor": (number + 1).to_string()})
}

/// A tool with a schema of its results.
fn promising(mut tool: Value) -> Value {
    tool["outputSchema"] = json!({
        "type": "object",
        "properties": {"sum": {"type": "integer"}, "in": {"enum": ["eur", "usd"]}},
        "required": ["sum"],
    });
    tool
}

fn tools() -> Value {
    let tool = |name: &str, hints: Value| {
        json!({
            "name": name,
            "description": format!("does {name}"),
            "inputSchema": {"type": "object"},
            "annotations": hints,
        })
    };
    json!([
        tool("sum", json!({"readOnlyHint": true})),
        tool("pay", json!({"readOnlyHint": true, "destructiveHint": false})),
        tool("put", json!({"idempotentHint": true})),
        tool("refuse", json!({})),
        tool("protocol_error", json!({})),
        tool("hang", json!({})),
        tool("die", json!({})),
        tool("die_once", json!({})),
        tool("meta", json!({})),
        tool("environment", json!({})),
        tool("many", json!({})),
        tool("family", json!({})),
        tool("fill", json!({})),
        tool("say", json!({})),
        promising(tool("promise", json!({}))),
        tool("change", json!({})),
        tool("reserve", json!({})),
        tool("release", json!({})),
        tool("reserved", json!({"readOnlyHint": true})),
    ])
}

fn call(params: &Value, options: &Options) -> Result<Value, (i64, &'static str)> {
    let name = params["name"].as_str().unwrap_or_default();
    let arguments = &params["arguments"];
    options.note(&format!("call {name}"));
    let text = |text: String| Ok(json!({"content": [{"type": "text", "text": text}]}));
    let error =
        |text: &str| Ok(json!({"isError": true, "content": [{"type": "text", "text": text}]}));
    let result = match name {
        "sum" | "put" | "pay" => {
            SUM_CALLS.fetch_add(1, Ordering::Relaxed);
            let sum = arguments["a"].as_i64().unwrap_or(0) + arguments["b"].as_i64().unwrap_or(0);
            Ok(json!({"content": [], "structuredContent": {"sum": sum}}))
        }
        "refuse" => error(arguments["say"].as_str().unwrap_or("no")),
        "protocol_error" => Err((arguments["code"].as_i64().unwrap_or(-32603), "as you wish")),
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        "die" => std::process::exit(9),
        "die_once" => {
            // The file that the caller names tells one life from the next.
            let mark = PathBuf::from(arguments["mark"].as_str().unwrap_or_default());
            if mark.exists() {
                text("alive".to_owned())
            } else {
                std::fs::write(mark, "").expect("the mark can be written");
                std::process::exit(9)
            }
        }
        "change" => {
            let gone = arguments["gone"].as_str().map(str::to_owned);
            *GONE.lock().expect("nobody panics with it") = gone;
            text("other tools".to_owned())
        }
        "meta" => text(params["_meta"].to_string()),
        "environment" => {
            let name = arguments["name"].as_str().unwrap_or_default();
            text(std::env::var(name).unwrap_or_else(|_| "unset".to_owned()))
        }
        "many" => Ok(json!({"content": [
            {"type": "text", "text": "one"}, {"type": "text", "text": "{\"two\":2}"},
        ]})),
        "fill" => {
            let bytes = arguments["bytes"].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
            let said = "x".repeat(bytes.unwrap_or(0));
            if arguments["fail"] == true { error(&said) } else { text(said) }
        }
        "family" => {
            // A grandchild of whoever started us, which must not outlive the group.
            let mut child = std::process::Command::new("sleep").arg("3600").spawn().expect("sleep");
            let id = child.id();
            std::thread::spawn(move || child.wait());
            text(id.to_string())
        }
        "reserve" | "release" | "reserved" => {
            let seat = arguments["seat"].as_str().unwrap_or_default();
            let mut taken = TAKEN.lock().expect("nobody panics with it");
            match name {
                "reserve" if arguments["lose"] != "before" => _ = taken.insert(seat.to_owned()),
                "release" => _ = taken.remove(seat),
                _ => {}
            }
            let state = if taken.contains(seat) { "taken" } else { "free" };
            drop(taken);
            options.note(&format!("{name} {arguments}: {state}"));
            if name == "reserve" && !arguments["lose"].is_null() {
                // The answer is lost.
                loop {
                    std::thread::sleep(Duration::from_secs(3600));
                }
            }
            Ok(json!({"content": [], "structuredContent": {"seat": seat, "state": state}}))
        }
        other => error(&format!("Unknown tool: {other}")),
    };
    options.note(&format!("done {name}"));
    result
}
