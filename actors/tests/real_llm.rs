//! The binary against a real small language model: `cargo test --test real_llm` runs this beside the tests of
//! the library.
//!
//! `MAINSTAY_LLM_URL` is the base URL of its server, as `.ci/run` sets it; without it this says that it is
//! skipped.

use std::io::Write as _;
use std::process::Command;

use serde_json::Value;

/// Longer than an answer of some words takes on any machine.
const TREE: &str = r#"
[ask]
max_tokens = 48
temperature = 0.0

[models.real]
kind = "KIND"
base_url = "URL"
model = "smollm2-135m"
timeout = "5m"
idle_timeout = "5m"
"#;

fn lines(url: &str, kind: &str, options: &[&str]) -> Vec<Value> {
    let folder = std::env::temp_dir().join(format!("mainstay-real-{}-{kind}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let tree = TREE.replace("URL", url).replace("KIND", kind);
    std::fs::write(folder.join("t.toml"), tree).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.current_dir(&folder).args(["run", "t.toml", "--json"]).args(options).arg("Say hello.");
    let output = command.output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{kind}: {out}{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_binary_is_answered_by_a_real_model_on_every_wire_that_it_speaks() {
    let Some(url) = std::env::var("MAINSTAY_LLM_URL").ok().filter(|url| !url.is_empty()) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the binary and a real model: MAINSTAY_LLM_URL is not set"
        );
        return;
    };
    for (kind, options) in [("openai", &[][..]), ("responses", &["--stream"]), ("anthropic", &[])] {
        let said = lines(&url, kind, options);
        let answer = said.last().unwrap();
        let text = answer["text"].as_str().unwrap();
        assert!(!text.is_empty() && answer["tokens"].as_u64().unwrap() > 10, "{kind}: {answer}");
        assert_eq!(
            (&answer["degraded"], &answer["attempts"]),
            (&false.into(), &1.into()),
            "{kind}"
        );
        if options.is_empty() {
            assert_eq!(said.len(), 1, "{kind}: {said:?}");
            continue;
        }
        let pieces = said.iter().filter(|line| line["event"] == "text");
        let heard: String = pieces.filter_map(|line| line["text"].as_str()).collect();
        assert_eq!(heard, text, "{kind}");
    }
}
