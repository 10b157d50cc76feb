use super::*;

const KEY: &str = "sk-7f3a9c5e1b2d4f60";

fn hidden(message: &str) -> String {
    let url = Url::parse("http://user:pass-word@host/v1?api-version=1&key=in-the-url").unwrap();
    Secrets::new(Some(KEY), &url).hide(Fault::permission(message.to_owned())).message.into()
}

#[test]
fn a_secret_is_hidden_whole_and_however_it_was_cut() {
    assert_eq!(hidden(&format!("bad {KEY}, {KEY}{KEY}")), "bad [key], [key]");
    for end in 1..KEY.len() {
        let (head, tail) = KEY.split_at(end);
        for part in [head, tail] {
            let shown = hidden(&format!("é {part}…"));
            let expected = if part.len() >= KEY.len() / 2 { "[key]" } else { part };
            assert_eq!(shown, format!("é {expected}…"));
        }
    }
    assert_eq!(hidden("at in-the-url with pass-word, 1"), "at [key] with [key], 1");
}

#[test]
fn a_key_is_taken_out_of_good_answers_wherever_they_are_cut_into_pieces() {
    let url = Url::parse("http://host").unwrap();
    let secrets = Secrets::new(Some(KEY), &url);
    for text in [
        format!("your key is {KEY}, {KEY}{KEY} or {}", &KEY[..9]),
        KEY.to_owned(),
        format!("sk-sk-{KEY} ä {}", &KEY[..18]),
        "no key at all".to_owned(),
    ] {
        let mut clean = text.clone();
        secrets.clean(&mut clean);
        assert_eq!(clean, text.replace(KEY, HIDDEN));
        for size in 1..text.len() {
            let mut veil = Veil::default();
            let (mut shown, mut piece) = (String::new(), String::new());
            for letter in text.chars() {
                piece.push(letter);
                if piece.len() >= size {
                    shown.push_str(&veil.push(&secrets, std::mem::take(&mut piece)));
                }
            }
            shown.push_str(&veil.push(&secrets, piece));
            shown.push_str(&veil.rest(&secrets));
            assert_eq!(shown, clean, "in pieces of {size}");
        }
    }
}

#[test]
fn good_answers_are_rid_of_what_is_a_key_by_its_length_and_its_characters() {
    let url = Url::parse("http://host").unwrap();
    for (key, hidden) in [
        ("Zq7Xw1ab", true),
        ("SECRETpart", true),
        ("SECRETpart12", true),
        ("hunter2-hunter2", true),
        ("48201937", true),
        ("pass word!", true),
        ("any-word-of-16-b", true),
        // Too short, too plain, or words, as a local server is given for a key.
        ("Zq7Xw1a", false),
        ("00000000", false),
        ("ollama", false),
        ("lm-studio", false),
        ("Not-Needed", false),
        ("NO_KEY_AT_ALL", false),
    ] {
        let mut said = format!("this is {key}.");
        let found = Secrets::new(Some(key), &url).clean(&mut said);
        assert_eq!(found, hidden, "{key}");
        assert_eq!(said.contains("[key]"), hidden, "{said}");
        assert_eq!(said.contains(key), !hidden, "{said}");
    }
}

#[test]
fn a_secret_is_hidden_however_it_is_spelled() {
    let url = Url::parse("http://host").unwrap();
    for key in [
        KEY,
        "k\"q/SECRET+part\\12x3",
        "\"begins and ends\\",
        "\\\\two\\\"of-them",
        "sch\u{fc}ssel-12",
    ] {
        let secrets = Secrets::new(Some(key), &url);
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let number = |letter| match letter {
            '\\' => "\\\\".to_owned(),
            letter => format!("\\u{:04X}", u32::from(letter)),
        };
        let numbers: String = key.chars().map(number).collect();
        for spelled in [
            key.to_owned(),
            key.to_ascii_uppercase(),
            json(key),
            json(&json(key)),
            json(&json(&json(&key.to_ascii_uppercase()))),
            json(key).replace('/', "\\/").replace('+', "\\u002b"),
            numbers,
        ] {
            let said = format!("[{spelled}, {}]", json(&format!("{key} or \"not\"\\")));
            let shown = secrets.hide(Fault::permission(said.clone())).message.into_owned();
            let mut clean = said.clone();
            assert!(secrets.clean(&mut clean), "{said}");
            for shown in [shown, clean.clone()] {
                assert_eq!(shown.matches(HIDDEN).count(), 2, "{said}: {shown}");
                assert!(shown.ends_with(" or \\\"not\\\"\\\\\"]"), "{said}: {shown}");
                // Nothing is left but what quotes it.
                let left = shown.split_once(", ").unwrap().0.replace(HIDDEN, "");
                assert!(left.chars().all(|it| matches!(it, '[' | '"' | '\\')), "{said}: {shown}");
            }
            // Also where it comes letter by letter.
            let mut veil = Veil::default();
            let mut shown: String =
                said.chars().map(|letter| veil.push(&secrets, letter.into())).collect();
            shown.push_str(&veil.rest(&secrets));
            assert_eq!(shown, clean);
        }
    }
    // Of a key that another begins with, the longer is meant, if it is.
    let mut secrets = Secrets::default();
    secrets.add("key-0123456789");
    secrets.add("key-0123456789-and-more");
    for (said, clean) in
        [("a key-0123456789-and-more b", "a [key] b"), ("a key-0123456789-and", "a [key]-and")]
    {
        let mut veil = Veil::default();
        let mut shown: String =
            said.chars().map(|letter| veil.push(&secrets, letter.into())).collect();
        shown.push_str(&veil.rest(&secrets));
        assert_eq!(shown, clean);
    }
    // No text is held back for ever.
    let (mut veil, slashes) = (Veil::default(), "\\".repeat(10_000));
    let shown = veil.push(&secrets, slashes.clone());
    assert!(slashes.len() - shown.len() <= SLASHES + 1, "{}", shown.len());
}

#[test]
fn what_is_no_secret_of_a_url_is_left_in_faults_and_answers() {
    let url = "http://h/?api-version=2024-10-01-preview&&to%6ben=se%63ret-0123456789&capability-0123456789";
    let secrets = Secrets::new(None, &Url::parse(url).unwrap());
    let said = "2024-10-01-preview secret-0123456789 se%63ret-0123456789 capability-0123456789";
    let expected = "2024-10-01-preview [key] [key] [key]";
    let mut clean = said.to_owned();
    secrets.clean(&mut clean);
    assert_eq!(clean, expected);
    let fault = secrets.hide(Fault::permission(said));
    assert!(fault.message.starts_with("2024-10-01-preview "), "{fault:?}");
    assert!(!fault.message.contains("0123"), "{fault:?}");
}

#[test]
fn what_is_no_secret_is_left_as_it_is() {
    for text in ["", "sk-", "a key such as sk-...4f60", "1", "schlüssel"] {
        assert_eq!(hidden(text), text);
    }
}

#[test]
fn a_code_that_holds_a_part_of_a_secret_is_hidden() {
    let url = Url::parse("http://host").unwrap();
    let fault = Fault::permission("").with_code(KEY[..12].to_owned());
    let fault = Secrets::new(Some(KEY), &url).hide(fault);
    assert_eq!(fault.code.as_deref(), Some("hidden"));
}

#[test]
fn a_secret_of_letters_that_take_two_bytes_is_hidden() {
    let mut secrets = Secrets::default();
    secrets.add("äöüäöüß");
    let fault = secrets.hide(Fault::permission("so äöüäöüß it is"));
    assert_eq!(fault.message, "so [key] it is");
}

#[test]
fn a_longer_number_that_has_a_secret_in_it_is_another_one() {
    let url = Url::parse("http://localhost").unwrap();
    let secrets = Secrets::new(Some("48201937"), &url);
    for (said, clean, fault) in [
        ("order 9948201937, 482019371, 148201937", None, None),
        ("48201937 of #48201937.5 and id48201937id", Some("[key] of #[key].5 and id[key]id"), None),
        // Where a letter is written by its number, that is none.
        ("a\\u002048201937%2048201937\\x2048201937", Some("a\\u0020[key]%20[key]\\x20[key]"), None),
        // A part of it, as one number, may be what is left of it in an error.
        (
            "482019 or 201937, not 1482019 or 4820190",
            None,
            Some("[key] or [key], not 1482019 or 4820190"),
        ),
    ] {
        let expected = clean.unwrap_or(said);
        let mut shown = said.to_owned();
        assert_eq!(secrets.clean(&mut shown), clean.is_some(), "{said}");
        assert_eq!(shown, expected);
        for size in 1..said.len() {
            let mut veil = Veil::default();
            let letters: Vec<_> = said.chars().collect();
            let pieces = letters.chunks(size).map(|piece| piece.iter().collect());
            let mut shown: String = pieces.map(|piece| veil.push(&secrets, piece)).collect();
            shown.push_str(&veil.rest(&secrets));
            assert_eq!(shown, expected, "in pieces of {size}");
        }
        let hidden = secrets.hide(Fault::permission(said)).message;
        assert_eq!(hidden, fault.unwrap_or(expected), "{said}");
    }
}

#[test]
fn of_an_address_the_login_is_the_secret() {
    let mut secrets = Secrets::default();
    secrets.add_named("AUTH_URL", "https://ada:Zq7%40Xw1ab@login.example.com/oauth");
    secrets.add_named("HOOK_TOKEN_URL", "https://ghp_0123456789abcdef@example.com/");
    secrets.add_named("GOOGLE_APPLICATION_CREDENTIALS", "/srv/ada/key.json");
    secrets.add_named("AWS_SECRET_ACCESS_KEY", "/JalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
    secrets.add_named("PG_DSN", "postgres://ada:Wm4kTr82xq@db/shop");
    let said = "Wm4kTr82xq https://login.example.com/oauth /srv/ada/key.json Zq7%40Xw1ab Zq7@Xw1ab ghp_0123456789abcdef /JalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let mut clean = said.to_owned();
    secrets.clean(&mut clean);
    let expected =
        "[key] https://login.example.com/oauth /srv/ada/key.json [key] [key] [key] [key]";
    assert_eq!(clean, expected);
    assert_eq!(secrets.hide(Fault::permission(said)).message, expected);
}

#[test]
fn what_was_json_is_that_without_a_key_that_is_a_number() {
    let url = Url::parse("http://localhost").unwrap();
    let secrets = Secrets::new(Some("48201937"), &url);
    for (said, clean) in [
        (
            r#"{"account":48201937,"more":[1,"at 48201937"]}"#,
            r#"{"account":"[key]","more":[1,"at [key]"]}"#,
        ),
        (r#"{"48201937":"is it"}"#, r#"{"[key]":"is it"}"#),
        ("48201937", "\"[key]\""),
        ("it is 48201937.", "it is [key]."),
    ] {
        let mut text = said.to_owned();
        assert!(secrets.clean_json(&mut text), "{said}");
        assert_eq!(text, clean);
    }
    let mut text = "{\"a\": 4820}".to_owned();
    assert!(!secrets.clean_json(&mut text));
    assert_eq!(text, "{\"a\": 4820}");
}
