//! Our own stored types, apart from the types the runtime works with, so that those can change.
//!
//! *Invariant.* No stored type holds itself, an untyped value, or anything of serde's that cannot be
//! decoded. Each has a schema name and a version; an old version is read for ever, a later one is
//! refused by name. A change here is a new version, never an edit: the golden files see to that.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Scope;
use crate::checkpoint::codec::{self, Blank, SchemaId};
use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::{Budgets, Checkpoint, Digest, Lineage, Pin, Topology, Wall};
use crate::error::CodecError;
use crate::id::{CheckpointId, ChildPath, Incarnation, LineId};

type Hash = [u8; 32];

/// What a checkpoint's digest is taken over.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
struct BodyV1 {
    id: u128,
    child: String,
    incarnation: u32,
    step: u64,
    scope: u8,
    schema: String,
    schema_version: u32,
    pieces: Vec<(String, Hash)>,
    envelope: Option<Hash>,
    parent: Option<u128>,
    root: u128,
    seq: u64,
    topology: Hash,
    created_at: u64,
    valid_until: u64,
    ledger: u64,
    mailbox_cut: u64,
    policy: Hash,
    budgets: [u64; 4],
}

#[derive(Deserialize)]
struct CheckpointV1 {
    body: BodyV1,
    digest: Hash,
    chain: Hash,
}

#[derive(Serialize, Deserialize)]
struct LineV1 {
    id: u128,
    scope: u8,
    at: String,
    created_at: u64,
    topology: Hash,
    ledger: u64,
    members: Vec<(String, u128)>,
    journal: Vec<(String, u64)>,
}

#[derive(Serialize, Deserialize)]
struct PinV1 {
    owner: String,
    reason: String,
    since: u64,
    until: u64,
}

#[derive(Serialize, Deserialize)]
struct TopologyV1 {
    lines: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ExportV1 {
    checkpoint: Vec<u8>,
    contents: Vec<Vec<u8>>,
    reason: Option<String>,
}

const CHECKPOINT: &str = "mainstay.checkpoint";
const LINE: &str = "mainstay.line";
const PIN: &str = "mainstay.pin";
const TOPOLOGY: &str = "mainstay.topology";
const EXPORT: &str = "mainstay.export";
/// Of all of them, so far.
const VERSION: u32 = 1;

fn write<T: Serialize>(name: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    codec::seal_value(&SchemaId::new(name, VERSION), value)
}

fn read<T: DeserializeOwned>(name: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let opened = codec::open(bytes)?;
    let wanted = SchemaId::new(name, VERSION);
    if opened.schema != wanted {
        return Err(CodecError::Incompatible {
            what: "schema".to_owned(),
            found: opened.schema.to_string(),
            expected: wanted.to_string(),
        });
    }
    opened.value()
}

fn scope_number(scope: Scope) -> u8 {
    match scope {
        Scope::Step => 0,
        Scope::Flow => 1,
        Scope::Transaction => 2,
        Scope::Session => 3,
        Scope::System => 4,
    }
}

fn scope_of(number: u8) -> Result<Scope, CodecError> {
    Scope::ALL.get(usize::from(number)).copied().ok_or_else(|| CodecError::IllTyped {
        wanted: "scope".to_owned(),
        why: format!("there is no scope {number}"),
    })
}

/// [`BodyV1`] as it is written. By hand, since each step of each durable child has one, and serde would
/// take the digests byte by byte; a test compares it with what serde writes.
fn body(checkpoint: &Checkpoint) -> Blank {
    let Checkpoint { lineage, budgets, .. } = checkpoint;
    let names: usize = checkpoint.pieces.iter().map(|(name, _)| name.len() + 40).sum();
    // With room for the signature.
    let room = 400 + checkpoint.child.as_str().len() + names;
    let mut blank = Blank::new(&SchemaId::new(CHECKPOINT, VERSION), room);
    let mut pen = Pen(blank.bytes());
    pen.wide(checkpoint.id.0);
    pen.text(checkpoint.child.as_str());
    pen.number(checkpoint.incarnation.0.into());
    pen.number(checkpoint.step);
    pen.0.push(scope_number(checkpoint.scope));
    pen.text(&checkpoint.schema.name);
    pen.number(checkpoint.schema.version.into());
    pen.number(checkpoint.pieces.len() as u64);
    for (name, digest) in &checkpoint.pieces {
        pen.text(name);
        pen.digest(*digest);
    }
    pen.0.push(checkpoint.envelope.is_some().into());
    checkpoint.envelope.into_iter().for_each(|digest| pen.digest(digest));
    pen.0.push(lineage.parent.is_some().into());
    lineage.parent.into_iter().for_each(|parent| pen.wide(parent.0));
    pen.wide(lineage.root.0);
    pen.number(lineage.seq);
    pen.digest(checkpoint.topology);
    pen.number(checkpoint.created_at.0);
    pen.number(checkpoint.valid_until.0);
    pen.number(checkpoint.ledger);
    pen.number(checkpoint.mailbox_cut);
    pen.digest(checkpoint.policy);
    let Budgets { attempts, tokens, money_micros, wall_millis } = *budgets;
    [attempts, tokens, money_micros, wall_millis].into_iter().for_each(|it| pen.number(it));
    blank
}

/// Writes as the codec's encoding does.
struct Pen<'a>(&'a mut Vec<u8>);

impl Pen<'_> {
    fn number(&mut self, number: u64) {
        codec::put_number(self.0, number.into());
    }

    fn wide(&mut self, number: u128) {
        codec::put_number(self.0, number);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn digest(&mut self, digest: Digest) {
        self.0.extend_from_slice(&digest.0);
    }
}

pub(crate) fn checkpoint_digest(checkpoint: &Checkpoint) -> Digest {
    Digest::of(body(checkpoint).payload())
}

/// Fills in the digest, and the chain that `chain` makes of it; returns the checkpoint as it is stored.
/// What is hashed and what is written is encoded once.
pub(crate) fn sign_checkpoint(
    checkpoint: &mut Checkpoint,
    chain: impl FnOnce(Digest) -> Digest,
) -> Result<Vec<u8>, CodecError> {
    let body = body(checkpoint);
    checkpoint.digest = Digest::of(body.payload());
    checkpoint.lineage.chain = chain(checkpoint.digest);
    with_signature(checkpoint, body)
}

pub(crate) fn write_checkpoint(checkpoint: &Checkpoint) -> Result<Vec<u8>, CodecError> {
    with_signature(checkpoint, body(checkpoint))
}

/// A structure is its fields one after the other, and 32 bytes are 32 bytes: see [`CheckpointV1`].
fn with_signature(checkpoint: &Checkpoint, mut body: Blank) -> Result<Vec<u8>, CodecError> {
    body.bytes().extend_from_slice(&checkpoint.digest.0);
    body.bytes().extend_from_slice(&checkpoint.lineage.chain.0);
    body.seal(&SchemaId::new(CHECKPOINT, VERSION))
}

pub(crate) fn read_checkpoint(bytes: &[u8]) -> Result<Checkpoint, CodecError> {
    let CheckpointV1 { body, digest, chain } = read(CHECKPOINT, bytes)?;
    let [attempts, tokens, money_micros, wall_millis] = body.budgets;
    Ok(Checkpoint {
        id: CheckpointId(body.id),
        child: ChildPath::new(body.child),
        incarnation: Incarnation(body.incarnation),
        step: body.step,
        scope: scope_of(body.scope)?,
        schema: SchemaId::new(body.schema, body.schema_version),
        pieces: body.pieces.into_iter().map(|(name, hash)| (name, Digest(hash))).collect(),
        envelope: body.envelope.map(Digest),
        lineage: Lineage {
            parent: body.parent.map(CheckpointId),
            root: CheckpointId(body.root),
            seq: body.seq,
            chain: Digest(chain),
        },
        topology: Digest(body.topology),
        created_at: Wall(body.created_at),
        valid_until: Wall(body.valid_until),
        ledger: body.ledger,
        mailbox_cut: body.mailbox_cut,
        policy: Digest(body.policy),
        budgets: Budgets { attempts, tokens, money_micros, wall_millis },
        digest: Digest(digest),
        taken: None,
    })
}

pub(crate) fn write_line(line: &RecoveryLine) -> Result<Vec<u8>, CodecError> {
    let members = line.members.iter().map(|(child, id)| (child.as_str().to_owned(), id.0));
    let journal = line.journal.iter().map(|(stream, at)| (stream.to_string(), *at));
    let stored = LineV1 {
        id: line.id.0,
        scope: scope_number(line.scope),
        at: line.at.as_str().to_owned(),
        created_at: line.created_at.0,
        topology: line.topology.0,
        ledger: line.ledger,
        members: members.collect(),
        journal: journal.collect(),
    };
    write(LINE, &stored)
}

pub(crate) fn read_line(bytes: &[u8]) -> Result<RecoveryLine, CodecError> {
    let line: LineV1 = read(LINE, bytes)?;
    let members = line.members.into_iter().map(|(child, id)| (child.into(), CheckpointId(id)));
    let journal = line.journal.into_iter().map(|(stream, at)| (Arc::from(stream), at));
    Ok(RecoveryLine {
        id: LineId(line.id),
        scope: scope_of(line.scope)?,
        at: ChildPath::new(line.at),
        created_at: Wall(line.created_at),
        topology: Digest(line.topology),
        ledger: line.ledger,
        members: members.collect(),
        journal: journal.collect(),
    })
}

pub(crate) fn write_pin(pin: &Pin) -> Result<Vec<u8>, CodecError> {
    let (owner, reason) = (pin.owner.clone(), pin.reason.clone());
    write(PIN, &PinV1 { owner, reason, since: pin.since.0, until: pin.until.0 })
}

pub(crate) fn read_pin(bytes: &[u8]) -> Result<Pin, CodecError> {
    let PinV1 { owner, reason, since, until } = read(PIN, bytes)?;
    Ok(Pin { owner, reason, since: Wall(since), until: Wall(until) })
}

pub(crate) fn write_topology(topology: &Topology) -> Result<Vec<u8>, CodecError> {
    write(TOPOLOGY, &TopologyV1 { lines: topology.lines.clone() })
}

pub(crate) fn read_topology(bytes: &[u8]) -> Result<Topology, CodecError> {
    let TopologyV1 { lines } = read(TOPOLOGY, bytes)?;
    Ok(Topology::new(lines))
}

pub(crate) fn write_export(
    checkpoint: &Checkpoint,
    contents: Vec<Vec<u8>>,
    reason: Option<String>,
) -> Result<Vec<u8>, CodecError> {
    write(EXPORT, &ExportV1 { checkpoint: write_checkpoint(checkpoint)?, contents, reason })
}

/// The checkpoint, its contents as envelopes, and why it was set aside.
pub(crate) type Exported = (Checkpoint, Vec<Vec<u8>>, Option<String>);

pub(crate) fn read_export(bytes: &[u8]) -> Result<Exported, CodecError> {
    let ExportV1 { checkpoint, contents, reason } = read(EXPORT, bytes)?;
    Ok((read_checkpoint(&checkpoint)?, contents, reason))
}

#[cfg(test)]
mod tests;
