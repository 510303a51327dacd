//! Files that a command would overwrite.

use tessera::Named;
use tessera_cli::names::names;

#[test]
fn files_that_are_there_are_counted_before_drawing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let picture = |number| Named {
        number,
        class: None,
        seed: 0,
    };
    let make = |name: &str, others: &[&str], overwrite| {
        names(&at(name), (0..8).map(picture), others, overwrite)
    };
    for name in ["5.png", "6.png", "grid.png", ".DS_Store"] {
        std::fs::write(at(name), "mine").unwrap();
    }
    let error = make("%d.png", &[], false).unwrap_err().to_string();
    assert!(
        error.starts_with("2 of 8 files exist") && error.contains("--overwrite"),
        "{error}"
    );
    let error = make("x%d.png", &["grid.png"], false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("grid.png: already exists"), "{error}");
    make("%d.png", &["grid.png"], true).unwrap();
    std::fs::create_dir(at("7.png")).unwrap();
    let error = make("%d.png", &[], true).unwrap_err().to_string();
    assert!(error.contains("7.png: expected a file"), "{error}");
    // Hidden files are no content of a folder.
    std::fs::create_dir(at("new")).unwrap();
    std::fs::write(at("new/.DS_Store"), "").unwrap();
    make("new", &[], false).unwrap();
}
