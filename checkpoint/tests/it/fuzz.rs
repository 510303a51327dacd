//! A hundred thousand damaged files for each reader: none panics, and what is accepted can be read to the end.

use crate::make::{Pickle, legacy, safetensors, state_dict, tensors, zip};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tessera_checkpoint::Checkpoint;

const CASES: u32 = 100_000;
/// A tensor of a small file has no more values than this, whatever a damaged header says.
const MAX_BYTES: usize = 1 << 16;

/// Changes to a file, by places that are taken modulo its length.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Set(usize, u8),
    Number(usize, u64),
    Cut(usize),
    Repeat(usize, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let place = any::<u32>().prop_map(|place| place as usize);
    let change = prop_oneof![
        4 => (place.clone(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        4 => (place.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (place.clone(), prop_oneof![Just(0), Just(u64::MAX), Just(1 << 31), any::<u64>()])
            .prop_map(|(at, number)| Change::Number(at, number)),
        1 => place.clone().prop_map(Change::Cut),
        1 => (place, 1..40_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
    ];
    prop::collection::vec(change, 1..5)
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len().max(1);
        match *change {
            _ if bytes.is_empty() => {}
            Change::Flip(at, bit) => bytes[at % length] ^= 1 << bit,
            Change::Set(at, byte) => bytes[at % length] = byte,
            Change::Number(at, number) => {
                let at = at % length;
                let end = bytes.len().min(at + 8);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Change::Cut(at) => bytes.truncate(at % length),
            Change::Repeat(at, count) => {
                let at = at % length;
                let part = bytes[at..bytes.len().min(at + count)].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Opens a file and reads all it claims to have.
fn read_whole(name: &str, bytes: Vec<u8>) {
    let Ok(checkpoint) = Checkpoint::from_bytes(name, bytes) else {
        return;
    };
    let _ = checkpoint.state_dict(None);
    for tensor in checkpoint.tensors.values() {
        assert!(tensor.length() <= MAX_BYTES as u64, "{tensor:?}");
        if let Ok(values) = tensor.values() {
            assert_eq!(values.len(), tensor.elements());
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None::<Box<FileFailurePersistence>>.map(|off| off as _),
        ..ProptestConfig::with_cases(CASES)
    }
}

/// A safetensors file in memory.
fn small_safetensors() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    safetensors(&path, &tensors(16));
    std::fs::read(path).unwrap()
}

#[test]
fn fuzz_safetensors() {
    let good = small_safetensors();
    read_whole("w.safetensors", good.clone());
    proptest!(config(), |(changes in changes())| {
        read_whole("w.safetensors", changed(good.clone(), &changes));
    });
}

/// As other programs write it: without checksums, so that damage reaches the tensors.
#[test]
fn fuzz_safetensors_without_checksums() {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}}"#;
    let good = [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        &[0x3c; 22],
    ]
    .concat();
    assert_eq!(
        Checkpoint::from_bytes("w.safetensors", good.clone())
            .unwrap()
            .tensors
            .len(),
        2
    );
    proptest!(config(), |(changes in changes())| {
        read_whole("w.safetensors", changed(good.clone(), &changes));
    });
}

/// The index of shards, which lie in a folder.
#[test]
fn fuzz_shards() {
    let folder = tempfile::tempdir().unwrap();
    safetensors(&folder.path().join("w-1.safetensors"), &tensors(16)[..1]);
    safetensors(&folder.path().join("w-2.safetensors"), &tensors(16)[1..]);
    let index = br#"{"metadata":{"total_size":76},"weight_map":{"first.bias":"w-1.safetensors","first.weight":"w-2.safetensors"}}"#.to_vec();
    let name = folder.path().join("w.safetensors.index.json");
    assert_eq!(
        Checkpoint::from_bytes(&name, index.clone())
            .unwrap()
            .tensors
            .len(),
        2
    );
    proptest!(config(), |(changes in changes())| {
        read_whole(name.to_str().unwrap(), changed(index.clone(), &changes));
    });
}

#[test]
fn fuzz_zip() {
    let values = tensors(16);
    let good = zip(&state_dict(&values), &values);
    assert_eq!(
        Checkpoint::from_bytes("w.pth", good.clone())
            .unwrap()
            .tensors
            .len(),
        2
    );
    proptest!(config(), |(changes in changes())| {
        read_whole("w.pth", changed(good.clone(), &changes));
    });
}

#[test]
fn fuzz_legacy() {
    let values = tensors(16);
    let good = legacy(&state_dict(&values), &values);
    assert_eq!(
        Checkpoint::from_bytes("w.pt", good.clone())
            .unwrap()
            .tensors
            .len(),
        2
    );
    proptest!(config(), |(changes in changes())| {
        read_whole("w.pt", changed(good.clone(), &changes));
    });
}

/// The pickle inside an archive whose checksums are right, so that every change reaches the machine.
#[test]
fn fuzz_pickle() {
    let values = tensors(16);
    let good = state_dict(&values);
    proptest!(config(), |(changes in changes())| {
        read_whole("w.pth", zip(&changed(good.clone(), &changes), &values));
    });
}

/// Instructions at random, most of them such as there are.
#[test]
fn fuzz_instructions() {
    let values = tensors(16);
    const WORDS: &[&str] = &[
        "(", ")", "]", "}", "N", "\u{88}", "0", "1", "2", "a", "e", "s", "u", "t", "l", "d", "b",
        "Q", "R", ".",
    ];
    let word = prop_oneof![
        8 => prop::sample::select(WORDS).prop_map(|word| word.chars().map(|c| c as u8).collect()),
        2 => prop::sample::select(vec![0x81_u8, 0x85, 0x86, 0x87, 0x93, 0x94, 0x8f, 0x90, 0x91])
            .prop_map(|byte| vec![byte]),
        2 => (0..4_u8).prop_map(|index| vec![b'q', index]),
        2 => (0..4_u8).prop_map(|index| vec![b'h', index]),
        2 => any::<i32>().prop_map(|value| [&b"J"[..], &value.to_le_bytes()].concat()),
        2 => Just(Pickle::default().text("storage").0),
        2 => Just(b"ctorch\nFloatStorage\n".to_vec()),
        2 => Just(b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec()),
        2 => Just(b"ccollections\nOrderedDict\n".to_vec()),
        2 => Just(Pickle::default().tensor("1", 16, 0, &[4, 4], &[4, 1]).0),
        1 => prop::collection::vec(any::<u8>(), 1..6),
    ];
    proptest!(config(), |(words in prop::collection::vec(word, 0..40))| {
        read_whole("w.pth", zip(&[vec![0x80, 2], words.concat(), b".".to_vec()].concat(), &values));
    });
}
