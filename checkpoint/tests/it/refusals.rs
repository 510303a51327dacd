//! PyTorch's files: what nobody writes is refused, and damage is seen at every byte.

use crate::make::{Pickle, Tensor, archive, legacy, state_dict, tensors, zip};
use crate::torch::read;
use tessera_checkpoint::Checkpoint;

/// The error with which both containers refuse a pickle.
fn refusal(pickle: &[u8], tensors: &[Tensor]) -> String {
    let [new, old] = [zip(pickle, tensors), legacy(pickle, tensors)].map(|file| {
        Checkpoint::from_bytes("w.pth", file)
            .unwrap_err()
            .to_string()
    });
    assert_eq!(new, old);
    assert!(new.contains("w.pth"), "{new}");
    new
}

#[test]
fn a_tensor_that_cannot_be_is_refused_by_name_and_numbers() {
    let one = |stored, offset, size: &[usize], stride: &[usize]| {
        let pickle = Pickle::new()
            .raw(b"}(")
            .text("a")
            .tensor("1", 16, 0, &[16], &[1]);
        let pickle = pickle.text("w").tensor("0", stored, offset, size, stride);
        refusal(&pickle.raw(b"u").stop(), &tensors(16))
    };
    let minus = usize::MAX;
    for (error, parts) in [
        (
            one(3, 0, &[4], &[1]),
            ["tensor `w`", "within the 3 elements", "[4]"],
        ),
        (
            one(3, 1, &[3], &[1]),
            ["tensor `w`", "within the 3 elements", "element 1"],
        ),
        (
            one(3, 0, &[2], &[3]),
            ["tensor `w`", "within the 3 elements", "[3]"],
        ),
        (
            one(3, 0, &[1 << 20], &[0]),
            ["tensor `w`", "within the 3 elements", "[1048576]"],
        ),
        (
            one(3, 4, &[0], &[1]),
            ["tensor `w`", "within the 3 elements", "element 4"],
        ),
        (
            one(3, minus, &[1], &[1]),
            ["tensor `w`", "an offset from 0", "-1"],
        ),
        (
            one(3, 0, &[minus], &[1]),
            ["tensor `w`", "a size from 0", "-1"],
        ),
        (
            one(3, 0, &[1], &[minus]),
            ["tensor `w`", "a stride from 0", "-1"],
        ),
        (
            one(3, 0, &[1, 1], &[1]),
            ["tensor `w`", "as many strides", "2 and 1"],
        ),
        (
            one(3, 0, &[1; 65], &[1; 65]),
            ["tensor `w`", "at most 64", "65"],
        ),
        (
            one(3, 0, &[1 << 30; 3], &[0; 3]),
            ["tensor `w`", "within the 3 elements", "1073741824"],
        ),
        (
            one(3, 0, &[0, 1 << 30, 1 << 30, 1 << 30], &[0; 4]),
            ["tensor `w`", "within", "1073741824"],
        ),
    ] {
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{parts:?}: {error}"
        );
    }
    // Of an archive the entry has the length, of an early file the number before it.
    for stored in [2, 4, minus] {
        let pickle = Pickle::new()
            .raw(b"}")
            .text("w")
            .tensor("0", stored, 0, &[1], &[1]);
        let error = read(zip(&pickle.raw(b"s").stop(), &tensors(16)[..1]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("storage `0`") && error.contains("12 bytes"),
            "{error}"
        );
    }
    let absent = Pickle::new()
        .raw(b"}")
        .text("w")
        .tensor("9", 3, 0, &[3], &[1])
        .raw(b"s")
        .stop();
    let error = read(zip(&absent, &tensors(16))).unwrap_err().to_string();
    assert!(
        error.contains("storage `9`") && error.contains("absent"),
        "{error}"
    );
    let twice = Pickle::new()
        .raw(b"}(")
        .text("a.b")
        .tensor("0", 3, 0, &[3], &[1])
        .text("a");
    let twice = twice
        .raw(b"}")
        .text("b")
        .tensor("0", 3, 0, &[1], &[1])
        .raw(b"su")
        .stop();
    let error = read(zip(&twice, &tensors(16)[..1]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`a.b`"), "{error}");
}

#[test]
fn pickles_without_end_or_measure_are_refused() {
    let values = tensors(16);
    let refused = |what: &str, pickle: &[u8], parts: &[&str]| {
        let error = read(zip(pickle, &values)).expect_err(what).to_string();
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{what}: {error}"
        );
    };
    let million = |word: &[u8]| [b"\x80\x02", &word.repeat(1_000_000)[..], b"."].concat();
    for (what, word) in [
        ("None", &b"N"[..]),
        ("mark", b"("),
        ("dict", b"}"),
        ("list", b"]"),
        ("tuple", b")"),
        ("nested tuple", b")\x85"),
    ] {
        refused(
            what,
            &million(word),
            &["in proportion to the file", "at byte"],
        );
    }
    refused(
        "nested lists",
        &[&b"]".repeat(100_000)[..], &b"a".repeat(99_999), b"."].concat(),
        &["proportion"],
    );
    refused(
        "nested lists",
        &[&b"]".repeat(500)[..], &b"a".repeat(499), b"."].concat(),
        &["at most 64", "in itself"],
    );
    refused(
        "nested tuples",
        &[b")".to_vec(), b"\x85".repeat(500), b".".to_vec()].concat(),
        &["at most 64"],
    );
    // A dictionary in itself; two that have each other; one of sixty that each have the next twice.
    refused("a cycle", b"}q\x00K\x01h\x00s.", &["in itself"]);
    refused(
        "two cycles",
        b"}q\x00K\x01]q\x01(h\x00h\x00h\x00es.",
        &["in itself"],
    );
    let mut doubled = b"]q\x00".to_vec();
    for index in 0..60 {
        doubled.extend([b']', b'q', index + 1, b'(', b'h', index, b'h', index, b'e']);
    }
    refused(
        "2^60 lists",
        &[&doubled[..], b"."].concat(),
        &["proportion"],
    );
    // One tensor in a list a hundred thousand times, and under a long name.
    let tensor = Pickle::new()
        .raw(b"](")
        .tensor("0", 3, 0, &[3], &[1])
        .raw(b"q\x00")
        .0;
    refused(
        "many names",
        &[&tensor[..], &b"h\x00".repeat(20_000), b"e."].concat(),
        &["proportion"],
    );
    // The memo.
    refused(
        "a memo index",
        b"Nr\xff\xff\xff\xff.",
        &["0x72", "4294967295"],
    );
    refused(
        "a memo index",
        b"Np99999999999999999999\n.",
        &["0x70", "a number"],
    );
    refused("a memo index", b"h\x05.", &["0x68", "none under 5"]);
    // Lengths beyond the end.
    refused(
        "a string",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        &["0x8d", "18446744073709551615 bytes"],
    );
    refused(
        "bytes",
        b"B\xff\xff\xff\x7f.",
        &["0x42", "2147483647 bytes"],
    );
    refused(
        "a long",
        b"\x8b\xff\xff\xff\xff.",
        &["0x8b", "4294967295 bytes"],
    );
    refused("a line", b"ctorch", &["0x63", "at byte 0"]);
    // Opcodes that are none, or have nothing to work on.
    for word in [&b"\xff"[..], b"i", b"o", b"\x82\x01", b"\x97", b"Pid\n"] {
        refused(
            "an opcode",
            word,
            &[&format!("opcode 0x{:02x} at byte 0 of the pickle", word[0])],
        );
    }
    for word in [
        &b"0"[..],
        b"1",
        b"2",
        b"a",
        b"(a",
        b"e",
        b"s",
        b"u",
        b"(Nu",
        b"t",
        b"R",
        b"Q",
        b"b",
        b"\x93",
        b"\x92",
        b"\x94",
        b".",
    ] {
        refused("an opcode", word, &[]);
    }
    refused("a protocol", b"\x80\x06N.", &["0x80", "6"]);
    refused("nothing", b"", &["at byte 0"]);
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let values = tensors(8);
    for file in [
        zip(&state_dict(&values), &values),
        legacy(&state_dict(&values), &values),
    ] {
        assert_eq!(read(file.clone()).unwrap().len(), 2);
        for length in 0..file.len() {
            assert!(
                read(file[..length].to_vec()).is_err(),
                "{length} of {}",
                file.len()
            );
        }
        let longer = [&file[..], b"."].concat();
        assert!(read(longer).is_err(), "one byte more than {}", file.len());
    }
}

#[test]
fn no_bit_of_an_archive_changes_what_is_read() {
    let values = tensors(8);
    let file = zip(&state_dict(&values), &values);
    let good = read(file.clone()).unwrap();
    let mut refused = 0;
    for bit in 0..8 * file.len() {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match read(bytes) {
            Ok(found) => assert_eq!(found, good, "bit {} of byte {}", bit % 8, bit / 8),
            Err(_) => refused += 1,
        }
    }
    // What may change is times, versions and attributes.
    assert!(
        refused > 8 * file.len() / 2,
        "{refused} of {} bits",
        8 * file.len()
    );
}

#[test]
fn archives_that_torch_does_not_write_are_refused_by_the_entry() {
    let values = tensors(8);
    let pickle = state_dict(&values);
    let good = zip(&pickle, &values);
    let refused = |bytes: Vec<u8>, parts: &[&str]| {
        let error = read(bytes).unwrap_err().to_string();
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{parts:?}: {error}"
        );
    };
    let headers: Vec<usize> = (0..good.len())
        .filter(|&at| good[at..].starts_with(b"PK\x01\x02"))
        .collect();
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let storage = headers[2];
    refused(
        patched(storage + 10, &[8, 0]),
        &["entry `archive/data/0`", "compressed"],
    );
    refused(
        patched(storage + 20, &[3, 0, 0, 0]),
        &["entry `archive/data/0`", "compressed"],
    );
    refused(
        patched(storage + 8, &[1, 0]),
        &["entry `archive/data/0`", "encrypted"],
    );
    refused(
        patched(storage + 42, &[0, 0, 0, 0]),
        &["entry `archive/data/0`", "behind another"],
    );
    refused(
        patched(storage + 42, &[0xff, 0xff, 0xff, 0x7f]),
        &["entry `archive/data/0`", "beyond it"],
    );
    refused(
        patched(storage + 20, &[0xf0; 8]),
        &["entry `archive/data/0`", "beyond it"],
    );
    // A storage that takes the entry behind it as well.
    refused(
        patched(storage + 20, &[60, 0, 0, 0, 60, 0, 0, 0]),
        &["the entry at byte", "inside it"],
    );
    let entry = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    refused(
        archive(&[entry("a/data.pkl", b"}."), entry("a/data.pkl", b"}.")]),
        &["entry `a/data.pkl`", "two"],
    );
    refused(
        archive(&[entry("a/data.pkl", b"}."), entry("b/data.pkl", b"}.")]),
        &["`…/data.pkl`", "several"],
    );
    refused(
        archive(&[entry("a/other", b"}.")]),
        &["`…/data.pkl`", "none"],
    );
    refused(
        archive(&[entry("a/data.pkl", b"}."), entry("a/byteorder", b"big")]),
        &["entry `a/byteorder`", "little", "big"],
    );
    // Checksums: of the pickle when the file is opened, of a storage when it is read.
    let at = |needle: &[u8]| {
        good.windows(needle.len())
            .position(|window| window == needle)
            .unwrap()
    };
    refused(
        patched(at(b"first.bias"), b"Q"),
        &["entry `archive/data.pkl`", "damaged"],
    );
    let damaged = patched(at(b"archive/data/0") + 14, &[1]);
    assert_eq!(
        Checkpoint::from_bytes("w.pth", damaged.clone())
            .unwrap()
            .tensors
            .len(),
        2
    );
    refused(damaged, &["model.first.bias", "damaged"]);
}

#[test]
fn an_early_file_is_held_to_its_layout() {
    let values = tensors(8);
    let good = legacy(&state_dict(&values), &values);
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    for (bytes, parts) in [
        (
            replaced(b"M\xe9\x03.", b"M\xea\x03."),
            ["the version of its layout", "1001"],
        ),
        (
            replaced(b"little_endian\x88", b"little_endian\x89"),
            ["the machine that wrote it", "little-endian"],
        ),
        (
            replaced(b"](X\x01\0\0\x000", b"](X\x01\0\0\x007"),
            ["storage `7`", "none of them"],
        ),
        (
            replaced(b"](X\x01\0\0\x000", b"](X\x01\0\0\x001"),
            ["storage `1`", "twice"],
        ),
        (
            replaced(b"](X\x01\0\0\x000X\x01\0\0\x001e", b"](X\x01\0\0\x000e"),
            ["the end of the file", "bytes"],
        ),
        (
            replaced(b"](X\x01\0\0\x000X\x01\0\0\x001e", b"N"),
            ["the storages' keys", "None"],
        ),
        (
            replaced(&[3, 0, 0, 0, 0, 0, 0, 0], &[0xff; 8]),
            ["storage `0`", "-1 elements"],
        ),
        (
            replaced(&[3, 0, 0, 0, 0, 0, 0, 0], &[2, 0, 0, 0, 0, 0, 0, 0]),
            ["storage", "elements"],
        ),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{parts:?}: {error}"
        );
    }
}
