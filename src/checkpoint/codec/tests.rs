use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Started,
    Said { who: String, words: Vec<String> },
    Paid(i64, Option<f64>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    name: String,
    bytes: Vec<u8>,
    events: Vec<Event>,
    counts: BTreeMap<String, u64>,
    pair: (u8, char),
    nothing: (),
    nested: Option<Box<Option<i128>>>,
}

fn sample() -> Sample {
    Sample {
        name: "größe".to_owned(),
        bytes: (0..=255).collect(),
        events: vec![
            Event::Started,
            Event::Said { who: "user".to_owned(), words: vec!["a".to_owned(); 300] },
            Event::Paid(-5, Some(0.25)),
            Event::Paid(i64::MAX, None),
        ],
        counts: (0..40).map(|n| (format!("count {n}"), n * n * 1_000_000)).collect(),
        pair: (7, 'ß'),
        nothing: (),
        nested: Some(Box::new(Some(-1))),
    }
}

fn schema() -> SchemaId {
    SchemaId::new("sample", 3)
}

/// Holds itself, as no stored type of ours does.
#[derive(Debug, Serialize, Deserialize)]
enum Chain {
    End,
    Link(Box<Chain>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Tree(Vec<Tree>);

#[test]
fn what_was_encoded_is_decoded_whatever_its_size() {
    for size in [0, 1, 4095, 4096, 100_000] {
        let value = vec![format!("{size}"); size / 8];
        let (digest, bytes) = encode(&schema(), &value).unwrap();
        let opened = open(&bytes).unwrap();
        assert_eq!(opened.schema, schema());
        assert_eq!(opened.digest(), digest);
        assert_eq!(opened.value::<Vec<String>>().unwrap(), value);
    }
    let (_, bytes) = encode(&schema(), &sample()).unwrap();
    assert_eq!(decode::<Sample>(&bytes).unwrap(), sample());
}

#[test]
fn large_payloads_are_compressed_and_noise_is_not() {
    let (_, bytes) = encode(&schema(), &vec![7_u64; 100_000]).unwrap();
    assert!(bytes.len() < 2_000, "{}", bytes.len());
    let mut seed = 1_u64;
    let noise: Vec<u64> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    })
    .take(2000)
    .collect();
    let (_, bytes) = encode(&schema(), &noise).unwrap();
    assert_eq!(bytes[6], 0, "noise is stored as it is");
    assert_eq!(decode::<Vec<u64>>(&bytes).unwrap(), noise);
}

#[test]
fn the_same_content_has_the_same_name_and_another_schema_has_another() {
    let name = |schema: &SchemaId| encode(schema, &sample()).unwrap().0;
    assert_eq!(name(&schema()), name(&schema()));
    assert_ne!(name(&schema()), name(&SchemaId::new("sample", 4)));
    assert_ne!(name(&schema()), name(&SchemaId::new("simple", 3)));
}

#[test]
fn every_prefix_is_refused() {
    let samples = [encode(&schema(), &sample()).unwrap().1, encode(&schema(), &1_u8).unwrap().1];
    for bytes in samples {
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(open(&longer).is_err());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for bytes in [encode(&schema(), &sample()).unwrap().1, encode(&schema(), &1_u8).unwrap().1] {
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_later_format_and_an_unknown_codec_are_refused_by_name() {
    let (_, mut bytes) = encode(&schema(), &1_u8).unwrap();
    bytes[4] = FORMAT + 1;
    let error = open(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "format 2 is not known here, up to 1 is");
    bytes[4] = FORMAT;
    bytes[5] = 2;
    let sum = checksum(&bytes);
    bytes[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
    let error = open(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "codec 2 is not known here, up to 1 is");
}

#[test]
fn raw_bytes_are_no_value_and_a_value_is_no_raw_bytes() {
    let (_, raw) = seal_raw(&schema(), &[1, 2, 3]).unwrap();
    assert_eq!(open(&raw).unwrap().raw().unwrap(), [1, 2, 3]);
    assert!(matches!(decode::<[u8; 3]>(&raw), Err(CodecError::Incompatible { .. })));
    let (_, value) = encode(&schema(), &1_u8).unwrap();
    assert!(matches!(open(&value).unwrap().raw(), Err(CodecError::Incompatible { .. })));
}

#[test]
fn another_type_is_refused_rather_than_read_wrongly() {
    let (_, two) = encode(&schema(), &(1_u8, 2_u8)).unwrap();
    let error = decode::<u8>(&two).unwrap_err();
    assert!(error.to_string().contains("1 bytes are left over"), "{error}");
    assert!(matches!(decode::<(u8, u8, u8)>(&two), Err(CodecError::IllTyped { .. })));
}

#[test]
fn a_type_that_could_not_be_read_back_is_found_when_it_is_written() {
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
    }
    #[derive(Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
        always: u8,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: HashMap<String, u8>,
    }
    fn check<T: Serialize + DeserializeOwned>(value: &T, what: &str) {
        let error = encode(&schema(), value).unwrap_err();
        assert!(
            matches!(&error, CodecError::Unstorable { what: it, .. } if it.contains(what)),
            "{error}"
        );
    }
    check(&Untagged::Number(1), "Untagged");
    check(&Skips { maybe: None, always: 1 }, "Skips");
    check(&Flat { inner: HashMap::new() }, "Flat");
    check(&serde_json::json!({"a": 1}), "Value");
    assert!(encode(&schema(), &Skips { maybe: Some(1), always: 1 }).is_ok());
}

#[test]
fn user_code_that_panics_is_an_error() {
    struct Bomb;
    impl Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("on purpose")
        }
    }
    impl<'de> Deserialize<'de> for Bomb {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("on purpose")
        }
    }
    let error = encode(&schema(), &Bomb).unwrap_err();
    assert!(error.to_string().contains("its Serialize panicked"), "{error}");
    let (_, bytes) = encode(&schema(), &1_u8).unwrap();
    let error = decode::<Bomb>(&bytes).err().unwrap();
    assert!(error.to_string().contains("its Deserialize panicked"), "{error}");
}

#[test]
fn nesting_is_followed_to_a_limit_and_never_to_the_end_of_the_stack() {
    // A million links, each a byte: a stack would end long before the bytes do.
    let deep = vec![1; 1 << 20];
    let error = from_payload::<Chain>(&deep).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 128"), "{error}");
    let error = from_payload::<Tree>(&deep).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 128"), "{error}");
    let mut chain = Chain::End;
    for _ in 0..60 {
        chain = Chain::Link(Box::new(chain));
    }
    let (_, bytes) = encode(&schema(), &chain).unwrap();
    assert!(matches!(decode::<Chain>(&bytes).unwrap(), Chain::Link(_)));
    for _ in 0..200 {
        chain = Chain::Link(Box::new(chain));
    }
    assert!(matches!(encode(&schema(), &chain), Err(CodecError::Unstorable { .. })));
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_allocated_for_it() {
    // Nine bytes that claim 2^40 of a text, of bytes, of numbers, and of nothings.
    let mut claim = vec![253];
    claim.extend_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(matches!(from_payload::<String>(&claim), Err(CodecError::IllTyped { .. })));
    assert!(matches!(from_payload::<Vec<u8>>(&claim), Err(CodecError::IllTyped { .. })));
    assert!(matches!(from_payload::<Vec<u128>>(&claim), Err(CodecError::IllTyped { .. })));
    assert!(matches!(from_payload::<BTreeMap<u8, u8>>(&claim), Err(CodecError::IllTyped { .. })));
    let error = from_payload::<Vec<()>>(&claim).unwrap_err();
    assert!(error.to_string().contains("more elements than bytes"), "{error}");
    let some = vec![(); 1000];
    assert_eq!(decode::<Vec<()>>(&encode(&schema(), &some).unwrap().1).unwrap().len(), 1000);
}

#[test]
fn a_head_that_claims_too_much_is_refused_by_its_length() {
    let (_, bytes) = encode(&schema(), &vec![0_u8; 10_000]).unwrap();
    for (at, wanted) in [(12, MAX_PAYLOAD as u64 + 1), (12, u64::MAX), (20, u64::MAX)] {
        let mut lie = bytes.clone();
        lie[at..at + 8].copy_from_slice(&wanted.to_le_bytes());
        let sum = checksum(&lie);
        lie[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(open(&lie), Err(CodecError::TooLarge { size, .. }) if size >= wanted / 2));
    }
    let mut lie = bytes;
    lie[12..20].copy_from_slice(&(MAX_PAYLOAD as u64).to_le_bytes());
    let sum = checksum(&lie);
    lie[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
    let error = open(&lie).unwrap_err();
    assert!(error.to_string().contains("claims too much"), "{error}");
}

#[test]
fn a_name_that_is_too_long_is_refused() {
    let schema = SchemaId::new("n".repeat(MAX_SCHEMA_NAME + 1), 1);
    assert!(matches!(encode(&schema, &1_u8), Err(CodecError::TooLarge { size: 129, .. })));
}

/// An envelope around any payload, with a checksum that holds: what a checksum cannot catch.
fn forged(codec: u8, flags: u8, plain: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = seal(&schema(), codec, &[]).unwrap();
    bytes[6] = flags;
    bytes[12..20].copy_from_slice(&plain.to_le_bytes());
    bytes[20..28].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(payload);
    let sum = checksum(&bytes);
    bytes[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Decodes the bytes as everything there is. Returning at all is what is asserted.
fn survive(bytes: &[u8]) {
    drop(decode::<Sample>(bytes));
    drop(decode::<Chain>(bytes));
    drop(decode::<Tree>(bytes));
    drop(decode::<Vec<()>>(bytes));
    drop(decode::<HashMap<String, Vec<Vec<String>>>>(bytes));
    drop(decode::<serde_json::Value>(bytes));
    drop(stored::read_checkpoint(bytes));
    drop(stored::read_line(bytes));
    drop(stored::read_pin(bytes));
    drop(stored::read_topology(bytes));
    drop(stored::read_export(bytes));
}

use crate::checkpoint::stored;

proptest! {
    #[test]
    fn no_bytes_harm_the_process(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        survive(&bytes);
        for flags in [0, LZ4] {
            survive(&forged(BINCODE, flags, bytes.len() as u64, &bytes));
            survive(&forged(BINCODE, flags, 50 * bytes.len() as u64, &bytes));
        }
        for name in ["mainstay.checkpoint", "mainstay.line", "mainstay.pin", "mainstay.topology", "mainstay.export"] {
            survive(&seal(&SchemaId::new(name, 1), BINCODE, &bytes).unwrap());
        }
    }

    #[test]
    fn a_changed_payload_is_refused_or_read_as_what_it_says(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = to_payload(&sample()).unwrap();
        let at = at.index(payload.len());
        payload[at] = byte;
        payload.truncate(cut.index(payload.len()) + 1);
        if let Ok(read) = from_payload::<Sample>(&payload) {
            // Not what was meant, but a value all the same, and of exactly these bytes' length.
            prop_assert!(to_payload(&read).unwrap().len() <= payload.len());
        }
    }
}
