//! Fifty damaged files: each is an error that names the file, none panics, none takes memory out of proportion, and
//! none is taken for what it is not. One test in a program of its own, because it watches the allocator.

#![allow(clippy::unwrap_used)]

#[path = "../make/mod.rs"]
mod make;

use make::{Pickle, legacy, safetensors, state_dict, tensors, zip};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tessera_checkpoint::{Checkpoint, Error};

/// Counts what is allocated, and the most there ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator as it came; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from the same allocator with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a message and its parts may take beside the file.
const SPARE_BYTES: usize = 16 << 10;

/// Opens a file and reads all of its tensors, which must then be those that were written.
fn read(path: &Path, expected: &[make::Tensor]) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(path)?;
    let found = checkpoint.state_dict(None)?;
    for (name, tensor) in &found.tensors {
        let values = tensor.values()?;
        let same = expected.iter().any(|(expected, shape, numbers)| {
            expected == name && shape == tensor.shape() && *numbers == values
        });
        assert!(
            same,
            "{}: `{name}` was read, but not what was written",
            path.display()
        );
    }
    assert_eq!(found.tensors.len(), expected.len(), "{}", path.display());
    Ok(())
}

#[test]
fn fifty_damaged_files_are_refused_by_name_within_twice_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let values = tensors(40_000);
    let whole = folder.path().join("whole.safetensors");
    safetensors(&whole, &values);
    let whole = std::fs::read(whole).unwrap();
    let archive = zip(&state_dict(&values), &values);
    let old = legacy(&state_dict(&values), &values);
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, good) in [
        ("w.safetensors", &whole),
        ("w.pth", &archive),
        ("w.pt", &old),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, good).unwrap();
        read(&path, &values).unwrap();
        // Truncations, from the last byte to a few of them.
        for part in [1, 2, 3, 5, 7] {
            let length = good.len() - 1 - (good.len() - 2) * (part - 1) / 7;
            cases.push((format!("cut-{part}-{name}"), good[..length].to_vec()));
        }
    }
    // Bits of headers and of data. The old format has no checksums, so only its structure can be damaged to be seen.
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let places: [(&str, &Vec<u8>, Vec<usize>); 3] = [
        (
            "w.safetensors",
            &whole,
            vec![
                0,
                9,
                40,
                header / 2,
                header,
                8 + header,
                20_000,
                whole.len() - 1,
            ],
        ),
        (
            "w.pth",
            &archive,
            vec![
                0,
                60,
                120,
                200,
                5_000,
                archive.len() / 2,
                archive.len() - 90,
                archive.len() - 8,
            ],
        ),
        ("w.pt", &old, vec![0, 4, 20]),
    ];
    for (name, good, places) in places {
        for place in places {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << (place % 7);
            cases.push((format!("bit-{place}-{name}"), bytes));
        }
    }
    // Types and lengths that cannot be.
    let replaced = |from: &str, to: &str| {
        let at = whole
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .unwrap();
        [&whole[..at], to.as_bytes(), &whole[at + from.len()..]].concat()
    };
    cases.push(("half.safetensors".into(), replaced("\"F32\"", "\"F16\"")));
    cases.push((
        "integers.safetensors".into(),
        replaced("\"F32\"", "\"I32\""),
    ));
    cases.push(("other.safetensors".into(), replaced("\"F32\"", "\"X32\"")));
    cases.push((
        "shape.safetensors".into(),
        replaced("[10000,4]", "[4,10000]"),
    ));
    for (name, length) in [
        ("endless", u64::MAX),
        ("long", 1 << 40),
        ("longer", whole.len() as u64),
    ] {
        cases.push((
            format!("{name}.safetensors"),
            [&length.to_le_bytes(), &whole[8..]].concat(),
        ));
    }
    let huge = |stored, size: &[usize], stride: &[usize]| {
        Pickle::new()
            .raw(b"}(")
            .text("w")
            .tensor("1", stored, 0, size, stride)
            .raw(b"u")
            .stop()
    };
    cases.push((
        "expanded.pth".into(),
        zip(&huge(40_000, &[40_000, 40_000], &[0, 1]), &values),
    ));
    cases.push((
        "beyond.pth".into(),
        zip(&huge(40_000, &[40_000], &[2]), &values),
    ));
    cases.push((
        "declared.pth".into(),
        zip(&huge(2_000_000_000, &[40_000], &[1]), &values),
    ));
    cases.push((
        "declared.pt".into(),
        legacy(&huge(2_000_000_000, &[40_000], &[1]), &values),
    ));
    // Pickles that want more than data.
    let hostile = |module, name| {
        Pickle::new()
            .global(module, name)
            .raw(b"(")
            .text("true")
            .raw(b"tR")
            .stop()
    };
    cases.push(("system.pth".into(), zip(&hostile("os", "system"), &values)));
    cases.push((
        "eval.pt".into(),
        legacy(&hostile("builtins", "eval"), &values),
    ));
    cases.push((
        "nested.pth".into(),
        zip(
            &[0x80, 2]
                .into_iter()
                .chain([b'('; 200_000])
                .collect::<Vec<_>>(),
            &values,
        ),
    ));
    cases.push((
        "dicts.pth".into(),
        zip(
            &[0x80, 2]
                .into_iter()
                .chain([b'}'; 200_000])
                .collect::<Vec<_>>(),
            &values,
        ),
    ));
    cases.push((
        "memo.pth".into(),
        zip(&Pickle::new().raw(b"Nr\xff\xff\xff\xff").stop(), &values),
    ));
    // None of the formats.
    cases.push(("empty.safetensors".into(), Vec::new()));
    cases.push(("empty.pth".into(), Vec::new()));
    cases.push((
        "page.pth".into(),
        b"<!DOCTYPE html><html>not found</html>".to_vec(),
    ));
    println!("{} files, and a folder", cases.len());
    assert!(cases.len() >= 50);

    let mut largest: f64 = 0.0;
    for (name, bytes) in cases {
        let path = folder.path().join(&name);
        std::fs::write(&path, &bytes).unwrap();
        let length = bytes.len();
        drop(bytes);
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let error = read(&path, &values).expect_err(&name);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let (text, source) = (
            error.to_string(),
            std::error::Error::source(&error).map(ToString::to_string),
        );
        println!(
            "{name} ({length} bytes, {peak} allocated): {text}{}",
            source.map_or(String::new(), |s| format!(": {s}"))
        );
        assert!(text.contains(&name), "{name}: {text}");
        assert!(
            peak <= 2 * length + SPARE_BYTES,
            "{name}: {peak} bytes for {length}"
        );
        if length > SPARE_BYTES {
            largest = largest.max(peak as f64 / length as f64);
        }
    }
    println!("the most memory taken was {largest:.2} of a file's size");
    let error =
        Checkpoint::open(folder.path().join("w.safetensors").parent().unwrap()).unwrap_err();
    assert!(error.to_string().contains("several: "), "{error}");
}
