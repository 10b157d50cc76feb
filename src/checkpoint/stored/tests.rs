use proptest::prelude::*;

use super::*;

/// Numbers of every width there is, with both sides of each border.
fn number() -> impl Strategy<Value = u64> {
    let borders = [0, 250, 251, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
    prop_oneof![prop::sample::select(borders.to_vec()), any::<u64>(), 0..1000_u64]
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<Hash>().prop_map(Digest)
}

fn wide() -> impl Strategy<Value = u128> {
    prop_oneof![any::<u128>(), number().prop_map(u128::from)]
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    let names = (wide(), ".{0,300}", any::<u32>(), number(), 0..5_usize, ".{0,9}", any::<u32>());
    let pieces = prop::collection::vec((".{0,20}", digest()), 0..6);
    let lineage = (prop::option::of(wide()), wide(), number(), digest());
    let digests = (prop::option::of(digest()), digest(), digest(), digest());
    let numbers = prop::array::uniform4(number());
    (names, pieces, lineage, digests, numbers, prop::array::uniform4(number())).prop_map(
        |(names, pieces, lineage, digests, numbers, budgets)| {
            let (id, child, incarnation, step, scope, schema, version) = names;
            let (parent, root, seq, chain) = lineage;
            let (envelope, topology, policy, digest) = digests;
            let [created_at, valid_until, ledger, mailbox_cut] = numbers;
            let [attempts, tokens, money_micros, wall_millis] = budgets;
            Checkpoint {
                id: CheckpointId(id),
                child: ChildPath::new(child),
                incarnation: Incarnation(incarnation),
                step,
                scope: Scope::ALL[scope],
                schema: SchemaId::new(schema, version),
                pieces,
                envelope,
                lineage: Lineage {
                    parent: parent.map(CheckpointId),
                    root: CheckpointId(root),
                    seq,
                    chain,
                },
                topology,
                created_at: Wall(created_at),
                valid_until: Wall(valid_until),
                ledger,
                mailbox_cut,
                policy,
                budgets: Budgets { attempts, tokens, money_micros, wall_millis },
                digest,
                taken: None,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_checkpoint_written_by_hand_is_what_serde_reads_and_writes(checkpoint in checkpoint()) {
        let by_hand = body(&checkpoint).payload().to_vec();
        let read: BodyV1 = codec::from_payload(&by_hand).unwrap();
        prop_assert_eq!(codec::to_payload(&read).unwrap(), by_hand);
        let stored = write_checkpoint(&checkpoint).unwrap();
        prop_assert_eq!(read_checkpoint(&stored).unwrap(), checkpoint);
    }
}
