//! Every row of the tables of real errors, and what is made of it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use mainstay::fault::Class;
use mainstay_actors::model::classify::classify;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    name: String,
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
    class: Class,
    code: Option<String>,
    wait_ms: Option<u64>,
}

fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("fixtures/classify.json")).unwrap()
}

#[test]
fn every_real_error_gets_its_class() {
    let wall: SystemTime = httpdate::parse_http_date("Tue, 24 Nov 2026 06:00:00 GMT").unwrap();
    let mut wrong = Vec::new();
    for row in rows() {
        let headers = row.headers.into_iter().collect();
        let fault = classify(row.status, &headers, row.body.as_bytes(), wall);
        let wait = row.wait_ms.map(Duration::from_millis);
        let code_differs = row.code.is_some() && row.code.as_deref() != fault.code.as_deref();
        if fault.class != row.class || code_differs || fault.retry_after != wait {
            wrong.push(format!("{}: {fault:?}, expected {}", row.name, row.class));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_known_is_not_retried() {
    for status in (0..=1000_u16).filter(|status| !(300..400).contains(status)) {
        let fault = classify(status, &Default::default(), b"", SystemTime::UNIX_EPOCH);
        let known = [
            400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 415, 422, 425, 429,
            431, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530, 598, 599,
        ];
        assert_eq!(fault.class == Class::Unknown, !known.contains(&status), "{status}");
    }
    assert!(!Class::Unknown.is_retryable());
}

#[test]
fn no_body_can_make_the_classifier_fail() {
    let bodies: [&[u8]; 9] = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\"x\"",
        b"{\"error\":null}",
        b"{\"error\":[[[]]]}",
        b"\xff\xfe\x00",
        b"{\"error\":{\"code\":{\"a\":1},\"message\":[1]}}",
    ];
    for body in bodies {
        for status in [0, 200, 302, 400, 429, 500, u16::MAX] {
            let fault = classify(status, &Default::default(), body, SystemTime::UNIX_EPOCH);
            assert!(fault.code.is_some());
        }
    }
    let long = "é".repeat(100_000);
    let fault = classify(500, &Default::default(), long.as_bytes(), SystemTime::UNIX_EPOCH);
    assert!(fault.message.len() < 1024);
}
