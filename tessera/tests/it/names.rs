//! Names of pictures: patterns, classes that are no file names, and what is refused before anything is drawn.

use tessera::{Named, Names, Result};

/// The files of pictures of classes, each with the seed 10 + its number, in a folder of their own.
fn files(pattern: &str, classes: &[(usize, &str)]) -> Result<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let of = |(number, class): (usize, &(usize, &'static str))| Named {
        number,
        class: Some(*class),
        seed: 10 + number as u64,
    };
    let classes: Vec<(usize, &'static str)> = classes
        .iter()
        .map(|(id, name)| (*id, name.to_string().leak() as &_))
        .collect();
    let pictures = classes.iter().enumerate().map(of);
    let names = Names::new(&folder.path().join(pattern), pictures.clone(), &[])?;
    let name = |picture| {
        let path = names.path(picture);
        let path = path.strip_prefix(folder.path()).unwrap();
        path.display().to_string()
    };
    Ok(pictures.map(name).collect())
}

const TWO: [(usize, &str); 2] = [(3, "dress"), (7, "sneaker")];

#[test]
fn patterns_give_every_picture_a_name() {
    for (pattern, expected) in [
        ("a%05d.png", ["a00000.png", "a00001.png"]),
        ("a%d.PNG", ["a0.PNG", "a1.PNG"]),
        ("50%_%03d.png", ["50%_000.png", "50%_001.png"]),
        ("100%%%d.png", ["100%0.png", "100%1.png"]),
        ("{class}.png", ["dress.png", "sneaker.png"]),
        ("{class}_{seed}.png", ["dress_10.png", "sneaker_11.png"]),
        ("new/%d.png", ["new/0.png", "new/1.png"]),
        ("new", ["new/00000.png", "new/00001.png"]),
        ("v1.5", ["v1.5/00000.png", "v1.5/00001.png"]),
    ] {
        assert_eq!(files(pattern, &TWO).unwrap(), expected, "{pattern}");
    }
    assert_eq!(files("{sed}%.png", &TWO[..1]).unwrap(), ["{sed}%.png"]);
}

#[test]
fn names_that_are_none_or_not_one_per_picture_are_refused() {
    for (pattern, word) in [
        ("x.png", "%05d"),
        ("100%/x.png", "%05d"),
        ("%%05d.png", "%05d"),
        ("{Seed}.png", "{seed}"),
        ("%99999d.png", "expected 20 or fewer"),
        ("%99999999999999999999999d.png", "expected 20 or fewer"),
        ("out.jpg", ".png"),
        ("out.JPEG", ".png"),
        ("{class}/%d.png", "the file's alone"),
    ] {
        let error = files(pattern, &TWO).unwrap_err().to_string();
        assert!(error.contains(word), "{pattern}: {error}");
    }
    let twice = [(3, "dress"), (3, "dress")];
    let error = files("{class}.png", &twice).unwrap_err().to_string();
    assert!(error.contains("dress.png"), "{error}");
    let long = files(&format!("{}{{seed}}.png", "x".repeat(260)), &TWO).unwrap_err();
    assert!(long.to_string().contains("255"), "{long}");
}

#[test]
fn classes_are_safe_file_names_and_alike_ones_get_their_ids() {
    for (classes, expected) in [
        ([(0, "a b"), (1, "a/b")], ["a_b-0.png", "a_b-1.png"]),
        ([(2, "Cat"), (5, "cat")], ["Cat-2.png", "cat-5.png"]),
        ([(0, "../../etc"), (1, "")], ["______etc.png", "_.png"]),
        ([(0, "CON"), (1, "-rf")], ["_CON.png", "_-rf.png"]),
        ([(0, "猫\u{202e}\n"), (1, "é")], ["猫__.png", "é.png"]),
    ] {
        assert_eq!(files("{class}.png", &classes).unwrap(), expected);
    }
}
