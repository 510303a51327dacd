//! Data sets, whole and hostile.

use flate2::{Compression, write::GzEncoder};
use ndarray::Array3;
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::path::Path;
use tessera_pictures::dataset::{
    BadPictures, Dataset, Decoder, FolderOptions, Idx, ImageFolder, Split, load_mnist_folder,
};
use tessera_pictures::{BoxError, Error};

fn idx(shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    shape
        .iter()
        .for_each(|length| bytes.extend(length.to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_folder_of_the_mnist_family_is_read_plain_or_gzipped() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("fashion");
    fs::create_dir(&folder).unwrap();
    let pixels: Vec<u8> = (0..2 * 2 * 3).map(|i| i * 20).collect();
    fs::write(
        folder.join("train-images-idx3-ubyte"),
        idx(&[2, 2, 3], &pixels),
    )
    .unwrap();
    let labels = gzip(&idx(&[2], &[3, 0]));
    fs::write(folder.join("train-labels-idx1-ubyte.gz"), labels).unwrap();
    let mnist = load_mnist_folder(&folder, Split::Train).unwrap();
    assert_eq!(
        (mnist.name(), mnist.len(), mnist.is_empty()),
        ("fashion", 2, false)
    );
    assert_eq!((mnist.label(0), mnist.label(1)), (3, 0));
    assert_eq!(mnist.class_names(), ["0", "1", "2", "3"]);
    let image = mnist.image(1).unwrap();
    assert_eq!(image.dim(), (1, 2, 3));
    assert_eq!(image[[0, 0, 0]], 120.0 / 127.5 - 1.0);

    let error = load_mnist_folder(&folder, Split::Test)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz in"),
        "{error}"
    );
    fs::write(
        folder.join("train-images-idx3-ubyte"),
        idx(&[1, 2, 3], &[0; 6]),
    )
    .unwrap();
    let error = load_mnist_folder(&folder, Split::Train)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the number of labels is 2, expected 1, one per image"),
        "{error}"
    );
}

#[test]
fn hostile_idx_files_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let huge = u32::MAX;
    let cases: [(Vec<u8>, &str); 9] = [
        (vec![], "the header is cut short"),
        (vec![0, 0, 8], "the header is cut short"),
        (vec![0, 0, 8, 3, 0, 0], "the header is cut short"),
        (
            idx(&[4], &[0; 4]),
            "the magic number is 0x00000801, expected 0x00000803",
        ),
        (
            vec![b'P', b'K', 3, 4],
            "the magic number is 0x504b0304, expected 0x00000803",
        ),
        (
            idx(&[2, 2, 2], &[0; 7]),
            "the data is 7 bytes, expected 8 bytes for [2, 2, 2]",
        ),
        (
            idx(&[2, 2, 2], &[0; 9]),
            "the data is more, expected 8 bytes for [2, 2, 2]",
        ),
        (
            idx(&[huge, huge, huge], &[0; 9]),
            "the data is 9 bytes, expected too many bytes",
        ),
        (
            idx(&[huge, 1000, 1], &[0; 9]),
            "the data is 9 bytes, expected 4294967295000 bytes for [4294967295, 1000, 1]",
        ),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let error = Idx::read(&path, 3).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} lacks {expected}");
    }
    // 4 GB of zeros in 4 MB: only as much is unpacked as the header allows.
    let bomb = gzip(&idx(&[1, 1, 1], &vec![0; 50_000_000]));
    fs::write(&path, &bomb).unwrap();
    assert!(
        Idx::read(&path, 3)
            .unwrap_err()
            .to_string()
            .contains("the data is more")
    );
    fs::write(&path, &bomb[..bomb.len() / 2]).unwrap();
    Idx::read(&path, 3).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_idx_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut header = vec![0, 0, 8, 3];
        header.extend(&bytes);
        for content in [bytes, header] {
            fs::write(&path, &content).unwrap();
            let _ = Idx::read(&path, 3);
        }
    }
}

/// "Decodes" a text file of one number into a picture of that value; the side is the number of lines.
fn decoder() -> Decoder {
    Box::new(|path: &Path| -> Result<Array3<f32>, BoxError> {
        let text = fs::read_to_string(path)?;
        let side = text.lines().count();
        Ok(Array3::from_elem((3, side, side), text.trim().parse()?))
    })
}

fn open(
    root: impl AsRef<Path>,
    bad_pictures: BadPictures,
    memory_bytes: usize,
) -> tessera_pictures::Result<ImageFolder> {
    let options = FolderOptions {
        bad_pictures,
        memory_bytes,
        classes_of: None,
    };
    ImageFolder::open(root, decoder(), &options)
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const PICTURES: [(&str, &str); 7] = [
    ("dog/b.PNG", "0.5"),
    ("dog/a.jpeg", "0.25"),
    ("cat/x.webp", "-1"),
    ("cat/notes.txt", "not a picture"),
    (".cache/c.png", "0"),
    ("dog/broken.png", "no number"),
    ("cat/.hidden.png", "0"),
];

#[test]
fn sub_folders_are_classes_and_bad_pictures_are_skipped_and_counted() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &PICTURES);
    for memory in [0, usize::MAX] {
        let data = open(root.path(), BadPictures::Skip, memory).unwrap();
        assert_eq!(data.class_names(), ["cat", "dog"]);
        let seen: Vec<_> = (0..data.len())
            .map(|i| (data.label(i), data.image(i).unwrap()[[0, 0, 0]]))
            .collect();
        assert_eq!(seen, [(0, -1.0), (1, 0.25), (1, 0.5)]);
        assert_eq!(data.skipped().len(), 1);
        assert!(data.skipped()[0].file.ends_with("dog/broken.png"));
        assert!(
            data.skipped()[0].reason.to_string().contains("float"),
            "{:?}",
            data.skipped()
        );
        assert!(data.file(2).ends_with("dog/b.PNG"));
    }
    let error = open(root.path(), BadPictures::Fail, 0).unwrap_err();
    match &error {
        Error::BadPicture { file, .. } => assert!(file.ends_with("dog/broken.png")),
        other => panic!("{other}"),
    }
}

#[test]
fn a_picture_of_another_size_or_outside_every_class_is_skipped() {
    let root = tempfile::tempdir().unwrap();
    write(
        root.path(),
        &[("a/1.png", "1"), ("a/2.png", "1\n\n"), ("loose.png", "1")],
    );
    let data = open(root.path(), BadPictures::Skip, 0).unwrap();
    assert_eq!(data.len(), 1);
    let reasons: Vec<_> = data
        .skipped()
        .iter()
        .map(|s| s.reason.to_string())
        .collect();
    assert_eq!(
        reasons[0],
        "it has shape [3, 2, 2], the first picture has [3, 1, 1]"
    );
    assert!(reasons[1].contains("beside the class folders"));
}

#[test]
fn a_flat_folder_is_one_class_and_an_empty_one_an_error() {
    let root = tempfile::tempdir().unwrap();
    let flat = root.path().join("flat");
    write(&flat, &[("b.png", "1"), ("a.png", "0")]);
    let data = open(&flat, BadPictures::Fail, 0).unwrap();
    assert_eq!(
        (data.class_names(), data.label(1)),
        (&["flat".to_owned()][..], 0)
    );
    assert_eq!(data.image(0).unwrap()[[0, 0, 0]], 0.0);

    let bad = root.path().join("bad");
    write(&bad, &[("a.png", "x")]);
    let error = open(&bad, BadPictures::Skip, 0).unwrap_err().to_string();
    assert!(
        error.contains("none of its 1 pictures can be read; the first: ")
            && error.contains("bad/a.png: invalid"),
        "{error}"
    );
    let empty = tempfile::tempdir().unwrap();
    let error = open(empty.path(), BadPictures::Skip, 0)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("no pictures (png, apng, jpg"), "{error}");
    assert!(open(root.path().join("none"), BadPictures::Skip, 0).is_err());
}

#[test]
fn idx_files_are_found_where_torchvision_puts_them_and_what_is_missing_is_said() {
    let root = tempfile::tempdir().unwrap();
    let at = |place: &str| {
        let folder = root.path().join(place);
        fs::create_dir_all(&folder).unwrap();
        folder
    };
    let (images, labels) = (idx(&[2, 1, 1], &[7, 9]), idx(&[2], &[0, 1]));
    for (place, images_name, labels_name) in [
        (
            "dotted",
            "train-images.idx3-ubyte",
            "train-labels.idx1-ubyte",
        ),
        (
            "set/MNIST/raw",
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
        ),
        (
            "set2/raw",
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
        ),
    ] {
        fs::write(at(place).join(images_name), &images).unwrap();
        fs::write(at(place).join(labels_name), &labels).unwrap();
        let root = root.path().join(place.split('/').next().unwrap());
        assert_eq!(
            load_mnist_folder(root, Split::Train).unwrap().len(),
            2,
            "{place}"
        );
    }
    for (place, name, split, words) in [
        (
            "no_labels",
            "train-images-idx3-ubyte",
            Split::Train,
            "no train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz in",
        ),
        (
            "no_images",
            "t10k-labels.idx1-ubyte",
            Split::Test,
            "no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz in",
        ),
        (
            "other_half",
            "train-images-idx3-ubyte",
            Split::Test,
            "no t10k-images-idx3-ubyte or",
        ),
        (
            "emnist",
            "emnist-train-images-idx3-ubyte.gz",
            Split::Train,
            "no train-images-idx3-ubyte or",
        ),
    ] {
        fs::write(at(place).join(name), &images).unwrap();
        let error = load_mnist_folder(at(place), split).unwrap_err().to_string();
        assert!(
            error.starts_with(words) && error.ends_with(&format!("; it holds {name}")),
            "{error}"
        );
    }
}

/// Known from the headers and the lengths of the files: nothing is unpacked.
#[test]
fn idx_files_that_claim_more_than_they_can_hold_are_refused_before_they_are_unpacked() {
    let root = tempfile::tempdir().unwrap();
    let images = root.path().join("train-images-idx3-ubyte.gz");
    fs::write(
        root.path().join("train-labels-idx1-ubyte"),
        idx(&[2], &[0, 1]),
    )
    .unwrap();
    for (header, words) in [
        (
            [1 << 16, 1 << 16, 1 << 16],
            "expected 281474976710656 bytes",
        ),
        ([5, 2, 2], "the number of labels is 2, expected 5"),
    ] {
        // Broken behind the header: unpacking would fail with another error.
        let mut bytes = gzip(&idx(&header, &[0; 5000]));
        let end = bytes.len() - 8;
        bytes[end..].fill(0xFF);
        fs::write(&images, bytes).unwrap();
        let error = load_mnist_folder(root.path(), Split::Train)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}
