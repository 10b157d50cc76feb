//! State to bytes and back: the only room that names the encoding.
//!
//! Every stored thing is one *envelope*: a fixed head, the name of its schema, and a payload. The page
//! [`checkpoint_format`](crate::documentation::checkpoint_format) describes it byte by byte. Reading
//! goes in a fixed order, so that no bytes can do harm: lengths capped, checksum, decompression into a
//! buffer of the stated size, decoding with limits, all bytes used, and only then meaning.
//!
//! *Invariant.* No bytes make this module panic, abort, recurse deeply or allocate more than a small
//! multiple of their number (compressed ones: than the size stated in the head, capped). What is
//! encoded is read back before it is handed on, so a type that cannot be decoded is found at once.

mod guard;

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::manifest::Digest;
use crate::error::CodecError;

pub use guard::MAX_DEPTH;

/// The version of the envelope that is written. Older ones are read for ever.
pub const FORMAT: u8 = 1;
/// The longest payload, before compression: 256 MiB. Split a larger state into pieces.
pub const MAX_PAYLOAD: usize = 256 << 20;
/// The longest name of a schema, in bytes.
pub const MAX_SCHEMA_NAME: usize = 128;
/// How long the head of an envelope is.
pub const HEAD: usize = 32;

const MAGIC: [u8; 4] = *b"MSCP";
/// The payload is bytes as they are.
const RAW: u8 = 0;
/// The payload is serde through bincode 2, standard configuration.
const BINCODE: u8 = 1;
const LZ4: u8 = 1;
/// Payloads from this size are compressed, when that halves them: less is not worth the time at a
/// restore.
const COMPRESS_FROM: usize = 4096;

/// The name and version of a kind of state.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId {
    /// Its name, at most [`MAX_SCHEMA_NAME`] bytes.
    pub name: Cow<'static, str>,
    /// Its version; grows with each change of what its pieces mean.
    pub version: u32,
}

impl SchemaId {
    /// A schema by name and version.
    pub fn new(name: impl Into<Cow<'static, str>>, version: u32) -> Self {
        Self { name: name.into(), version }
    }
}

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" version {}", self.name, self.version)
    }
}

impl fmt::Debug for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An envelope that was read: its checksum held and its payload is whole.
#[derive(Debug)]
pub struct Opened<'a> {
    /// What it says it is.
    pub schema: SchemaId,
    codec: u8,
    payload: Cow<'a, [u8]>,
}

impl Opened<'_> {
    /// The payload as it was before compression.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The content's name: the same for the same schema and payload, whether compressed or not.
    pub fn digest(&self) -> Digest {
        content_digest(&self.schema, &self.payload)
    }

    /// The value in it.
    ///
    /// # Errors
    /// [`CodecError::IllTyped`] when the payload is no `T`, or not only a `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        self.require(BINCODE)?;
        from_payload(&self.payload)
    }

    /// The bytes in it, as they were given to [`seal_raw`].
    ///
    /// # Errors
    /// [`CodecError::Incompatible`] when it holds a value.
    pub fn raw(&self) -> Result<&[u8], CodecError> {
        self.require(RAW)?;
        Ok(&self.payload)
    }

    fn require(&self, codec: u8) -> Result<(), CodecError> {
        if self.codec == codec {
            return Ok(());
        }
        Err(CodecError::Incompatible {
            what: "codec".to_owned(),
            found: self.codec.to_string(),
            expected: codec.to_string(),
        })
    }
}

/// Encodes a value into an envelope, reads it back, and names its content.
///
/// # Errors
/// [`CodecError::Unstorable`] when the type cannot be encoded, or cannot be decoded again: serde's
/// `untagged`, `tag`, `flatten` and `skip_serializing_if`, `serde_json::Value`, and values nested
/// deeper than [`MAX_DEPTH`]. [`CodecError::TooLarge`] above [`MAX_PAYLOAD`].
pub fn encode<T: Serialize + DeserializeOwned>(
    schema: &SchemaId,
    value: &T,
) -> Result<(Digest, Vec<u8>), CodecError> {
    let payload = to_payload(value)?;
    let unreadable = |error: CodecError| CodecError::Unstorable {
        what: type_name::<T>().to_owned(),
        why: format!("its bytes could not be read back: {error}"),
    };
    drop(from_payload::<T>(&payload).map_err(unreadable)?);
    let bytes = seal(schema, BINCODE, &payload)?;
    Ok((content_digest(schema, &payload), bytes))
}

/// Reads an envelope and the value in it.
///
/// # Errors
/// See [`open`] and [`Opened::value`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    open(bytes)?.value()
}

/// Puts bytes as they are into an envelope.
///
/// # Errors
/// [`CodecError::TooLarge`] above [`MAX_PAYLOAD`], or for a name above [`MAX_SCHEMA_NAME`].
pub fn seal_raw(schema: &SchemaId, bytes: &[u8]) -> Result<(Digest, Vec<u8>), CodecError> {
    let sealed = seal(schema, RAW, bytes)?;
    Ok((content_digest(schema, bytes), sealed))
}

/// The payload of a value, without an envelope: for what is hashed, and for stored types, whose
/// readability has tests of its own.
pub(crate) fn to_payload<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let unstorable =
        |why: String| CodecError::Unstorable { what: type_name::<T>().to_owned(), why };
    // Most are short, and need not grow.
    let mut payload = Vec::with_capacity(64);
    let config = bincode::config::standard();
    let run = || bincode::serde::encode_into_std_write(value, &mut payload, config);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(_)) => Ok(payload),
        Ok(Err(error)) => Err(unstorable(error.to_string())),
        Err(_) => Err(unstorable("its Serialize panicked".to_owned())),
    }
}

/// The value of a payload that is nothing but that value.
pub(crate) fn from_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, CodecError> {
    /// Eight times the payload, since a number claims its full width even where it takes one byte.
    const LIMIT: usize = 8 * MAX_PAYLOAD;
    let ill_typed = |why: String| CodecError::IllTyped { wanted: type_name::<T>().to_owned(), why };
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let budget = guard::Budget::of(payload.len());
    let seed = guard::Guarded::<T>::new(&budget);
    let run = || bincode::serde::seed_decode_from_slice(seed, payload, config);
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok((value, used))) if used == payload.len() => Ok(value),
        Ok(Ok((_, used))) => {
            Err(ill_typed(format!("{} bytes are left over", payload.len() - used)))
        }
        Ok(Err(error)) => Err(ill_typed(error.to_string())),
        Err(_) => Err(ill_typed("its Deserialize panicked".to_owned())),
    }
}

/// Appends a number as the encoding has it: the shortest of 1, 3, 5, 9 and 17 bytes.
pub(crate) fn put_number(bytes: &mut Vec<u8>, number: u128) {
    // Each arm is taken only by what fits it.
    match number {
        0..=250 => bytes.push(number as u8),
        251..=0xffff => {
            bytes.push(251);
            bytes.extend_from_slice(&(number as u16).to_le_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            bytes.push(252);
            bytes.extend_from_slice(&(number as u32).to_le_bytes());
        }
        0x1_0000_0000..=0xffff_ffff_ffff_ffff => {
            bytes.push(253);
            bytes.extend_from_slice(&(number as u64).to_le_bytes());
        }
        _ => {
            bytes.push(254);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// An envelope around a value of a stored type of ours.
pub(crate) fn seal_value<T: Serialize>(
    schema: &SchemaId,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    seal(schema, BINCODE, &to_payload(value)?)
}

/// An envelope whose payload is written right where it will stand.
pub(crate) struct Blank {
    bytes: Vec<u8>,
    payload: usize,
}

impl Blank {
    /// With room for a payload of so many bytes.
    pub(crate) fn new(schema: &SchemaId, room: usize) -> Self {
        let name = schema.name.as_bytes();
        let payload = HEAD + name.len();
        let mut bytes = Vec::with_capacity(payload + room);
        bytes.resize(HEAD, 0);
        bytes.extend_from_slice(name);
        Self { bytes, payload }
    }

    /// The bytes up to now, to be written on.
    pub(crate) const fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload..]
    }

    /// The envelope around an encoded value of this schema, the one it was begun with.
    pub(crate) fn seal(mut self, schema: &SchemaId) -> Result<Vec<u8>, CodecError> {
        let len = self.payload().len();
        if len >= COMPRESS_FROM || schema.name.len() > MAX_SCHEMA_NAME {
            return seal(schema, BINCODE, self.payload());
        }
        write_head(&mut self.bytes[..HEAD], schema, (BINCODE, 0), (len, len));
        let sum = checksum(&self.bytes);
        self.bytes[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
        Ok(self.bytes)
    }
}

/// All of the head but its checksum, which is left as it is. The lengths are capped, so they fit their fields.
fn write_head(
    head: &mut [u8],
    schema: &SchemaId,
    (codec, flags): (u8, u8),
    (plain, stored): (usize, usize),
) {
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&[FORMAT, codec, flags, schema.name.len() as u8]);
    head[8..12].copy_from_slice(&schema.version.to_le_bytes());
    head[12..20].copy_from_slice(&(plain as u64).to_le_bytes());
    head[20..28].copy_from_slice(&(stored as u64).to_le_bytes());
}

/// As [`seal_raw`], for bytes that nobody asks for by the name of their content.
pub(crate) fn seal_bytes(schema: &SchemaId, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    seal(schema, RAW, bytes)
}

fn seal(schema: &SchemaId, codec: u8, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
    within("the payload", payload.len(), MAX_PAYLOAD)?;
    within("the schema's name", schema.name.len(), MAX_SCHEMA_NAME)?;
    let packed = (payload.len() >= COMPRESS_FROM).then(|| lz4_flex::block::compress(payload));
    let packed = packed.filter(|packed| packed.len() <= payload.len() / 2);
    let flags = if packed.is_some() { LZ4 } else { 0 };
    let stored = packed.as_deref().unwrap_or(payload);
    let name = schema.name.as_bytes();
    let mut bytes = Vec::with_capacity(HEAD + name.len() + stored.len());
    bytes.resize(HEAD, 0);
    write_head(&mut bytes, schema, (codec, flags), (payload.len(), stored.len()));
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(stored);
    let sum = checksum(&bytes);
    bytes[HEAD - 4..HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// Reads an envelope: lengths, checksum, decompression. What its value means is not looked at.
///
/// # Errors
/// [`CodecError::Corrupt`] for bytes that were never written like this, [`CodecError::Incompatible`]
/// for a later format or codec, [`CodecError::TooLarge`] for lengths above the caps.
pub fn open(bytes: &[u8]) -> Result<Opened<'_>, CodecError> {
    opened(parse(bytes, Sum::Check)?)
}

/// As [`decode`], of an envelope that was made here or has passed [`check`].
pub(crate) fn decode_checked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    opened(parse(bytes, Sum::WasChecked)?)?.value()
}

/// Whether the checksum is still to be looked at.
#[derive(PartialEq, Eq)]
enum Sum {
    Check,
    WasChecked,
}

fn opened(parsed: Parsed<'_>) -> Result<Opened<'_>, CodecError> {
    let Parsed { schema, codec, flags, plain_len, stored } = parsed;
    let payload = match flags {
        0 if plain_len == stored.len() => Cow::Borrowed(stored),
        0 => {
            let what = "two lengths of an uncompressed payload differ".to_owned();
            return Err(CodecError::Corrupt(what));
        }
        _ => Cow::Owned(unpack(stored, plain_len)?),
    };
    Ok(Opened { schema, codec, payload })
}

struct Parsed<'a> {
    schema: SchemaId,
    codec: u8,
    flags: u8,
    plain_len: usize,
    stored: &'a [u8],
}

fn parse(bytes: &[u8], sum_is: Sum) -> Result<Parsed<'_>, CodecError> {
    let corrupt = |what: String| CodecError::Corrupt(what);
    if bytes.len() < HEAD {
        return Err(corrupt(format!("{} bytes, an envelope has at least {HEAD}", bytes.len())));
    }
    let (head, rest) = bytes.split_at(HEAD);
    if head[..4] != MAGIC {
        return Err(corrupt("this is no envelope".to_owned()));
    }
    if head[4] != FORMAT {
        return Err(unknown("format", head[4], FORMAT));
    }
    let (codec, flags, name_len) = (head[5], head[6], usize::from(head[7]));
    let version = u32::from_le_bytes(field(head, 8));
    // What does not fit a usize is above the cap as well.
    let len = |at| {
        let len = usize::try_from(u64::from_le_bytes(field(head, at))).unwrap_or(usize::MAX);
        within("the payload", len, MAX_PAYLOAD)
    };
    let (plain_len, stored_len) = (len(12)?, len(20)?);
    let sum = u32::from_le_bytes(field(head, HEAD - 4));
    within("the schema's name", name_len, MAX_SCHEMA_NAME)?;
    if rest.len() != name_len + stored_len {
        return Err(corrupt(format!(
            "{} bytes follow the head, it says {}",
            rest.len(),
            name_len + stored_len
        )));
    }
    if sum_is == Sum::Check && checksum(bytes) != sum {
        return Err(corrupt("the checksum does not match".to_owned()));
    }
    let (name, stored) = rest.split_at(name_len);
    let name = std::str::from_utf8(name)
        .map_err(|_| corrupt("the schema's name is not UTF-8".to_owned()))?
        .to_owned();
    if codec > BINCODE {
        return Err(unknown("codec", codec, BINCODE));
    }
    if flags > LZ4 {
        return Err(unknown("flags", flags, LZ4));
    }
    Ok(Parsed { schema: SchemaId::new(name, version), codec, flags, plain_len, stored })
}

/// Whether the bytes are an envelope as it was written; its payload is not looked at.
pub(crate) fn check(bytes: &[u8]) -> Result<(), CodecError> {
    parse(bytes, Sum::Check).map(drop)
}

fn unpack(stored: &[u8], plain_len: usize) -> Result<Vec<u8>, CodecError> {
    // A byte of lz4 stands for at most 255 bytes, so a longer claim is a lie, and is not allocated.
    if plain_len / 255 > stored.len() {
        return Err(CodecError::Corrupt("the compressed payload claims too much".to_owned()));
    }
    let mut plain = vec![0; plain_len];
    match lz4_flex::block::decompress_into(stored, &mut plain) {
        Ok(len) if len == plain_len => Ok(plain),
        Ok(len) => Err(CodecError::Corrupt(format!("{len} bytes decompressed, not {plain_len}"))),
        Err(error) => Err(CodecError::Corrupt(format!("decompression failed: {error}"))),
    }
}

/// Over everything but the checksum's own four bytes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&bytes[..HEAD - 4]);
    sum.update(&bytes[HEAD..]);
    sum.finalize()
}

fn content_digest(schema: &SchemaId, payload: &[u8]) -> Digest {
    /// Most are short, and a hash of bytes that stand together takes half the time.
    const SHORT: usize = 256;
    let name = schema.name.as_bytes();
    let parts = [&(name.len() as u64).to_le_bytes(), name, &schema.version.to_le_bytes(), payload];
    let len = parts.iter().map(|part| part.len()).sum();
    if len <= SHORT {
        let (mut bytes, mut at) = ([0; SHORT], 0);
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        return Digest::of(&bytes[..len]);
    }
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(part);
    }
    Digest(*hash.finalize().as_bytes())
}

fn within(what: &str, size: usize, limit: usize) -> Result<usize, CodecError> {
    if size <= limit {
        return Ok(size);
    }
    Err(CodecError::TooLarge { what: what.to_owned(), size: size as u64, limit: limit as u64 })
}

fn unknown(what: &str, found: u8, expected: u8) -> CodecError {
    CodecError::Incompatible {
        what: what.to_owned(),
        found: found.to_string(),
        expected: format!("up to {expected}"),
    }
}

/// `N` bytes of the head; its callers stay within it.
fn field<const N: usize>(head: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests;
