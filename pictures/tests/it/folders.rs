//! Folders as people have them: nested, linked, with what systems and other programs leave in them.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::{TempDir, tempdir};
use tessera_pictures::dataset::{BadPictures, Split, SquareDataset, Squares};
use tessera_pictures::{Channels, Existing, Found, Result, find, write_png};

use crate::support::picture;

/// A folder with pictures under `names`; other names are empty files, and those that end in `/` folders.
fn folder(names: &[&str]) -> TempDir {
    let root = tempdir().unwrap();
    for name in names {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else if name.to_lowercase().ends_with("png") {
            write_png(path, &picture(3, 4, Channels::Rgb), &[], Existing::Keep).unwrap();
        } else {
            fs::write(path, "").unwrap();
        }
    }
    root
}

/// Files below `root`, as text.
fn names(root: &Path, files: &[PathBuf]) -> Vec<String> {
    let name = |file: &PathBuf| {
        let below = file.strip_prefix(root).unwrap();
        below.to_str().unwrap().replace('\\', "/")
    };
    files.iter().map(name).collect()
}

fn found(path: &Path) -> Result<Found> {
    find(&[path.to_path_buf()])
}

fn squares(root: &Path, split: Split, bad_pictures: BadPictures) -> Result<SquareDataset> {
    let squares = Squares {
        size: 2,
        channels: Channels::Rgb,
        bad_pictures,
        crops: 1,
    };
    squares.open(root, split)
}

fn labels(data: &SquareDataset) -> Vec<usize> {
    let data = &data.pictures;
    (0..data.len()).map(|i| data.label(i)).collect()
}

#[test]
fn a_folder_gives_the_pictures_at_any_depth_and_counts_the_rest_by_kind() {
    let root = folder(&[
        "b.PNG",
        "a/deep/er/x.png",
        "x.png/in.png",
        ".hidden.png",
        "._b.png",
        ".git/o.png",
        "__MACOSX/._b.png",
        "Thumbs.db",
        "a/desktop.ini",
        "a/phone.HEIC",
        "a/phone2.heic",
        "scan.psd",
        "README",
    ]);
    let found = found(root.path()).unwrap();
    assert_eq!(
        names(root.path(), &found.files),
        ["a/deep/er/x.png", "b.PNG", "x.png/in.png"]
    );
    assert_eq!(
        found.left_out.to_string(),
        "6 hidden, 2 .heic, 1 without ending, 1 .psd"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_every_real_file_is_read_once() {
    use std::os::unix::fs::symlink;
    let root = folder(&[
        "set/cat/1.png",
        "set/dog/2.png",
        "elsewhere/3.png",
        "store/blob",
    ]);
    let set = root.path().join("set");
    fs::copy(set.join("cat/1.png"), root.path().join("store/blob")).unwrap();
    for (target, link) in [
        (".", "self"),
        (".", "again"),
        ("../..", "cat/above"),
        ("../dog", "cat/dogs"),
        ("../dog/2.png", "cat/0.png"),
        ("../elsewhere", "linked"),
        ("../../store/blob", "dog/of_the_store.png"),
        ("nowhere", "dog/dangling.png"),
    ] {
        symlink(target, set.join(link)).unwrap();
    }
    let found = found(&set).unwrap();
    assert_eq!(
        names(&set, &found.files),
        [
            "cat/1.png",
            "dog/2.png",
            "dog/of_the_store.png",
            "linked/3.png"
        ]
    );
    assert_eq!(
        found.left_out.to_string(),
        "3 links to a folder above, 2 links to what is taken already, 1 link to nothing"
    );
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_left_out_or_refused_and_never_waited_for() {
    use std::os::unix::net::UnixListener;
    let root = folder(&["a.png"]);
    let socket = root.path().join("b.png");
    let _listener = UnixListener::bind(&socket).unwrap();
    let found = found(root.path()).unwrap();
    assert_eq!(names(root.path(), &found.files), ["a.png"]);
    assert_eq!(found.left_out.to_string(), "1 pipe or device");
    for path in [&socket, Path::new("/dev/zero")] {
        let error = tessera_pictures::read(path, None).unwrap_err().to_string();
        assert!(
            error.ends_with("is a pipe or a device, expected a picture file"),
            "{error}"
        );
    }
}

#[test]
fn patterns_match_folders_too_and_leave_hidden_names_out() {
    let root = folder(&[
        "one/1.png",
        "two/2.png",
        "two/20.png",
        ".three/3.png",
        "two/.4.png",
        "two/a.txt",
    ]);
    for (pattern, expected) in [
        ("*/?.png", &["one/1.png", "two/2.png"][..]),
        ("t*/2*.png", &["two/2.png", "two/20.png"]),
        ("two/*", &["two/2.png", "two/20.png"]),
        ("*", &["one/1.png", "two/2.png", "two/20.png"]),
        (".t*/*", &[".three/3.png"]),
    ] {
        let found = found(&root.path().join(pattern)).unwrap();
        assert_eq!(names(root.path(), &found.files), expected, "{pattern}");
    }
    for (pattern, message) in [
        ("*/å*", "no file matches"),
        ("three/*.png", "no file matches"),
        ("**/*.png", "a folder is read with all below it"),
        ("two/a.png", "no such file"),
    ] {
        let error = found(&root.path().join(pattern)).unwrap_err().to_string();
        assert!(error.contains(message), "{pattern}: {error}");
    }
    let error = found(&folder(&["a.heic", ".b.png"]).path().join(""))
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("found 1 hidden, 1 .heic"), "{error}");
}

#[test]
fn a_class_is_a_sub_folder_with_a_picture_at_any_depth() {
    let root = folder(&[
        "cat/batch1/1.png",
        "cat/batch2/more/2.png",
        "dog/3.png",
        "__MACOSX/._3.png",
        "bird/",
        "phone/1.heic",
        "loose.png",
    ]);
    let data = squares(root.path(), Split::Train, BadPictures::Skip).unwrap();
    assert_eq!(data.pictures.class_names(), ["cat", "dog"]);
    assert_eq!(labels(&data), [0, 0, 1]);
    let empty: Vec<_> = data.empty.iter().map(ToString::to_string).collect();
    assert!(
        empty[0].ends_with("bird: it is empty, so it is no class"),
        "{empty:?}"
    );
    assert!(
        empty[1].ends_with("phone: it holds 1 .heic and no picture, so it is no class"),
        "{empty:?}"
    );
    assert_eq!(
        (data.left_out.to_string(), data.skipped.len()),
        ("1 hidden, 1 .heic".into(), 1)
    );
    let strict = squares(root.path(), Split::Train, BadPictures::Fail)
        .err()
        .unwrap()
        .to_string();
    assert!(
        strict.ends_with("bird: it is empty, so it is no class"),
        "{strict}"
    );
}

#[test]
fn a_class_of_which_no_picture_can_be_read_is_an_error() {
    let root = folder(&["cat/1.png", "dog/2.jpg", "dog/3.jpg"]);
    let error = squares(root.path(), Split::Train, BadPictures::Skip)
        .err()
        .unwrap()
        .to_string();
    let (folder, reason) = error.split_once(": ").unwrap();
    assert!(folder.ends_with("dog"), "{error}");
    assert!(
        reason.starts_with("none of its 2 pictures can be read; the first: "),
        "{error}"
    );
    assert_eq!(error.matches("2.jpg").count(), 1, "{error}");
}

#[test]
fn the_test_half_has_the_classes_of_the_training_half() {
    let root = folder(&[
        "train/a/1.png",
        "train/b/2.png",
        "train/c/3.png",
        "val/c/4.png",
        "val/a/5.png",
    ]);
    let test = squares(root.path(), Split::Test, BadPictures::Skip).unwrap();
    assert_eq!(
        (test.pictures.class_names().len(), labels(&test)),
        (3, vec![0, 2])
    );
    fs::create_dir(root.path().join("val/d")).unwrap();
    fs::copy(
        root.path().join("val/c/4.png"),
        root.path().join("val/d/6.png"),
    )
    .unwrap();
    let error = squares(root.path(), Split::Test, BadPictures::Skip)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("d: is no class of ") && error.ends_with("which are a, b, c"),
        "{error}"
    );
}

#[test]
fn a_training_half_alone_is_no_class_but_one_beside_others_is() {
    let root = folder(&["train/a/1.png", "train/b/2.png"]);
    for split in [Split::Train, Split::Test] {
        let data = squares(root.path(), split, BadPictures::Skip).unwrap();
        assert_eq!(data.pictures.class_names(), ["a", "b"]);
    }
    let vehicles = folder(&["train/1.png", "car/2.png"]);
    let data = squares(vehicles.path(), Split::Train, BadPictures::Skip).unwrap();
    assert_eq!(data.pictures.class_names(), ["car", "train"]);
}

#[test]
fn a_file_in_place_of_a_folder_says_what_to_do() {
    let root = folder(&["x.tar", "y.parquet", "train-images-idx3-ubyte"]);
    for (name, words) in [
        (
            "x.tar",
            "an archive, which is not read yet; unpack it and give its folder",
        ),
        ("y.parquet", "a table"),
        ("train-images-idx3-ubyte", "give the folder that it lies in"),
    ] {
        let error = squares(&root.path().join(name), Split::Train, BadPictures::Skip)
            .err()
            .unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_utf8_stay_apart() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let root = tempdir().unwrap();
    for name in [&b"caf\xE9"[..], b"caf\xE8"] {
        let class = root.path().join(OsStr::from_bytes(name));
        fs::create_dir(&class).unwrap();
        write_png(
            class.join("1.png"),
            &picture(3, 4, Channels::Rgb),
            &[],
            Existing::Keep,
        )
        .unwrap();
    }
    let data = squares(root.path(), Split::Train, BadPictures::Skip).unwrap();
    assert_eq!(data.pictures.class_names(), ["caf\\xE8", "caf\\xE9"]);
}
