//! The offline model on the example complaints and on texts the rules were not written with.

use std::path::PathBuf;

use mainstay_actors::local::LocalModel;
use serde::Deserialize;

#[derive(Deserialize)]
struct Complaint {
    id: String,
    lang: String,
    text: String,
}

#[derive(Deserialize)]
struct Expected {
    id: String,
    intent: String,
    order: Option<u32>,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> Option<Vec<T>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/data");
    let folder = std::env::var_os("MAINSTAY_EXAMPLE_DATA").map_or(beside, PathBuf::from);
    let text = std::fs::read_to_string(folder.join(name)).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn nine_of_ten_complaints_are_understood() {
    let (Some(complaints), Some(expected)) =
        (read::<Complaint>("complaints.jsonl"), read::<Expected>("expected.jsonl"))
    else {
        eprintln!("skipped: no examples/data");
        return;
    };
    let (mut intents, mut orders, mut languages, mut wrong) = (0, 0, 0, Vec::new());
    for (complaint, expected) in complaints.iter().zip(&expected) {
        assert_eq!(complaint.id, expected.id);
        let understood = LocalModel::understand(&complaint.text);
        if understood.intent.name() == expected.intent {
            intents += 1;
        } else {
            wrong.push(format!(
                "{} {} intent {} not {}: {}",
                complaint.id,
                complaint.lang,
                understood.intent.name(),
                expected.intent,
                complaint.text
            ));
        }
        if understood.order == expected.order {
            orders += 1;
        } else {
            wrong.push(format!(
                "{} {} order {:?} not {:?}: {}",
                complaint.id, complaint.lang, understood.order, expected.order, complaint.text
            ));
        }
        if understood.language.code() == complaint.lang {
            languages += 1;
        } else {
            wrong.push(format!(
                "{} language {} not {}: {}",
                complaint.id, understood.language, complaint.lang, complaint.text
            ));
        }
    }
    let all = complaints.len();
    println!(
        "intents {intents}, orders {orders}, languages {languages} of {all}\n{}",
        wrong.join("\n")
    );
    for right in [intents, orders, languages] {
        assert!(right * 10 >= all * 9, "{right} of {all}");
    }
}
