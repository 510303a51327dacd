//! Photographs of any size, through tokenizers that were made for none.

use crate::world::{WORLD, failure, json, picture, stdout, tessera};
use std::path::{Path, PathBuf};
use tessera::pictures::{Channels, Existing, Pixels, center_crop, read, write_png};
use tessera::tokenizers::TinyAutoencoderConfig;
use tessera::weights::WeightDtype;

/// A tiny autoencoder of random weights.
fn tiny(folder: &Path) -> PathBuf {
    let folder = folder.join("tiny");
    let network = TinyAutoencoderConfig::taesd()
        .init(1, &burn::tensor::Device::flex())
        .unwrap();
    network.save_dir(&folder, WeightDtype::F32).unwrap();
    folder
}

fn write(folder: &Path, name: &str, height: usize, width: usize) -> PathBuf {
    let samples = (0..3 * height * width)
        .map(|i| (i * 7 % 251) as u8)
        .collect();
    let path = folder.join(name);
    write_png(
        &path,
        &Pixels::new(height, width, Channels::Rgb, samples).unwrap(),
        &[],
        Existing::Keep,
    )
    .unwrap();
    path
}

#[test]
fn a_picture_keeps_its_size_whatever_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, out) = (tiny(folder.path()), folder.path().join("out"));
    let pictures = [
        write(folder.path(), "a.png", 37, 53),
        write(folder.path(), "b.png", 8, 9),
    ];
    let args = "reconstruct -i {} {} --vae {} --bits 6 -o {} --grid";
    stdout(args, &[&pictures[0], &pictures[1], &vae, &out]);
    let size = |name: &str| {
        read(out.join(name), None)
            .map(|pixels| (pixels.height(), pixels.width()))
            .unwrap()
    };
    assert_eq!(
        (size("a.png"), size("a-6bit.png"), size("b.png")),
        ((37, 53), (37, 53), (8, 9))
    );
    // The second is of another size than the first, so it has a sheet of its own.
    assert!(size("grid.png").1 > 4 * 53 && size("b-grid.png").1 > 4 * 9);
}

#[test]
fn a_tile_larger_than_the_picture_changes_no_byte_and_a_smaller_one_covers_it() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, photo) = (tiny(folder.path()), write(folder.path(), "a.png", 40, 100));
    let at = |name: &str| folder.path().join(name);
    for (name, tile) in [
        ("whole", "0"),
        ("large", "104"),
        ("small", "32 --vae-tile-overlap 16"),
    ] {
        let args = format!("reconstruct -i {{}} --vae {{}} --bits 6 --vae-tile {tile} -o {{}}");
        stdout(&args, &[&photo, &vae, &at(name)]);
    }
    let bytes = |name: &str| std::fs::read(at(name).join("a-6bit.png")).unwrap();
    assert_eq!(bytes("whole"), bytes("large"));
    let small = read(at("small").join("a-6bit.png"), None).unwrap();
    assert_eq!((small.height(), small.width()), (40, 100));
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_what_does() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, photo) = (tiny(folder.path()), write(folder.path(), "a.png", 20, 30));
    for (options, word) in [
        ("--vae-tile 7", "a multiple of 8"),
        ("--vae-tile 16 --vae-tile-overlap 16", "below 16"),
        ("--img-size 20", "multiples of 8"),
    ] {
        let error = failure(
            1,
            &format!("reconstruct -i {{}} --vae {{}} {options}"),
            &[&photo, &vae],
        );
        assert!(error.contains(word), "{options}: {error}");
    }
    let error = failure(
        1,
        "reconstruct --data {} --vae {}",
        &[&WORLD.pictures(), &vae],
    );
    assert!(error.contains("--img-size"), "{error}");
    let figures = json(
        "reconstruct --data {} --vae {} --img-size 16 --bits 6 --json",
        &[&WORLD.pictures(), &vae],
        "tessera.reconstruct/v1",
    );
    assert_eq!(figures["picture_size"], 16);
    let error = failure(1, "reconstruct -i {} --vae {}", &[&photo, &photo]);
    assert!(error.contains("a.png") && error.contains("PNG"), "{error}");
    assert_eq!(picture(true, 0).height(), 16);
}

/// As in training: smaller pictures are enlarged, never put on black, which would be measured too.
#[test]
fn a_picture_that_is_smaller_than_asked_for_is_enlarged_as_in_training() {
    let folder = tempfile::tempdir().unwrap();
    let (vae, out) = (tiny(folder.path()), folder.path().join("out"));
    let small = write(folder.path(), "small.png", 8, 12);
    let enlarged = center_crop(&read(&small, None).unwrap(), 16).unwrap();
    let large = folder.path().join("large.png");
    write_png(&large, &enlarged, &[], Existing::Keep).unwrap();
    let figures = json(
        "reconstruct -i {} {} --vae {} --img-size 16 --bits 6 --json -o {}",
        &[&small, &large, &vae, &out],
        "tessera.reconstruct/v1",
    );
    let psnr = |index: usize| &figures["pictures"][index]["continuous"]["psnr"];
    assert_eq!(psnr(0), psnr(1));
    let bytes = |name: &str| read(out.join(name), None).unwrap();
    assert_eq!(bytes("small.png"), bytes("large.png"));
}

#[test]
fn a_picture_without_ssim_is_left_out_of_its_mean_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let vae = tiny(folder.path());
    let tiny_one = write(folder.path(), "tiny.png", 8, 40);
    let large = write(folder.path(), "large.png", 24, 24);
    let args = "reconstruct -i {} {} --vae {} --bits 6 --json";
    let output = tessera(args, &[&tiny_one, &large, &vae]);
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ssim = |row: &serde_json::Value| row["continuous"]["ssim"].clone();
    assert!(ssim(&figures["pictures"][0]).is_null());
    assert_eq!(ssim(&figures["pictures"][1]), ssim(&figures["mean"]));
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("its mean leaves out tiny"), "{notes}");
    let table = stdout("reconstruct -i {} --vae {} --bits 6", &[&tiny_one, &vae]);
    assert!(table.lines().last().unwrap().ends_with(" -"), "{table}");
}

/// PSNR in dB of the reference's reconstructions, to 0.02. Its figures are of floats; ours are of the 8-bit pictures
/// that a user gets.
#[test]
fn parity_of_reconstructed_photographs_with_the_reference() {
    let promised = std::env::var_os("TESSERA_FIXTURES").map(PathBuf::from);
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let fixtures = promised.clone().unwrap_or_else(default);
    let (table, weights) = (
        fixtures.join("taef2_psnr.tsv"),
        fixtures.join("../data/taef2"),
    );
    if !table.is_file() || !weights.is_dir() {
        let absent = format!(
            "there is no {} or no {}",
            table.display(),
            weights.display()
        );
        assert!(promised.is_none(), "TESSERA_FIXTURES is set, but {absent}");
        println!("skipped: {absent}");
        return;
    }
    let found = json(
        "reconstruct -i {} --vae {} --bits 3,4,5,6 --json",
        &[&fixtures.join("photos"), &weights.join("taef2.safetensors")],
        "tessera.reconstruct/v1",
    );
    let table = std::fs::read_to_string(table).unwrap();
    let mut worst: f64 = 0.0;
    for line in table.lines().skip(1) {
        let (photo, expected) = line.split_once('\t').unwrap();
        let name = format!("{photo}_256");
        let row = found["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == *name)
            .unwrap();
        let quantized = row["quantised"].as_array().unwrap().iter();
        let figures = [&row["continuous"]].into_iter().chain(quantized);
        for (figure, expected) in figures.zip(expected.split('\t')) {
            let (figure, expected) = (
                figure["psnr"].as_f64().unwrap(),
                expected.parse::<f64>().unwrap(),
            );
            worst = worst.max((figure - expected).abs());
        }
    }
    assert_eq!(table.lines().count(), 7);
    println!("six photographs, continuous and 3 to 6 bits: within {worst:.4} dB");
    assert!(worst <= 0.02, "{worst} dB");
}
