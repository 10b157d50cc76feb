//! Any bytes, read as an envelope of types that are hard on a decoder.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use mainstay::checkpoint::{Export, SchemaId, codec};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Chain {
    End,
    Link(Box<Chain>),
    Many(Vec<Chain>),
}

fn survive(bytes: &[u8]) {
    drop(codec::decode::<Chain>(bytes));
    drop(codec::decode::<Vec<()>>(bytes));
    drop(codec::decode::<HashMap<String, Vec<Option<f64>>>>(bytes));
    drop(codec::decode::<(String, Vec<u8>, i128, char)>(bytes));
    drop(Export::read(bytes));
}

fuzz_target!(|bytes: &[u8]| {
    survive(bytes);
    // Behind a checksum that holds, where most bytes never get by chance.
    let schema = SchemaId::new("mainstay.export", 1);
    if let Ok((_, mut sealed)) = codec::seal_raw(&schema, bytes) {
        survive(&sealed);
        sealed[5] = 1;
        let mut sum = crc(&sealed);
        sealed[codec::HEAD - 4..codec::HEAD].copy_from_slice(&sum);
        survive(&sealed);
        sealed[6] ^= 1;
        sum = crc(&sealed);
        sealed[codec::HEAD - 4..codec::HEAD].copy_from_slice(&sum);
        survive(&sealed);
    }
});

/// CRC-32 (IEEE) over everything but the checksum's own bytes.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut sum = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        if (codec::HEAD - 4..codec::HEAD).contains(&at) {
            continue;
        }
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    (!sum).to_le_bytes()
}
