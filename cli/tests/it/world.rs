//! A folder with pictures of two classes and a model that the program trained on them for three steps.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use tessera::pictures::{Channels, Existing, Pixels, write_png};

/// Side of every picture in px.
pub const SIZE: usize = 16;

/// Made once, by the first test that looks.
pub static WORLD: LazyLock<World> = LazyLock::new(World::make);

/// What the tests share; none of them writes here.
pub struct World {
    folder: tempfile::TempDir,
}

/// Runs the program; `args` are split at spaces, `{}` stands for `paths` in turn.
pub fn tessera(args: &str, paths: &[&Path]) -> Output {
    let mut paths = paths.iter();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    for arg in args.split_whitespace() {
        match arg.split_once("{}") {
            None => command.arg(arg),
            Some((head, tail)) => {
                command.arg(format!("{head}{}{tail}", paths.next().unwrap().display()))
            }
        };
    }
    assert!(paths.next().is_none(), "a path too many for {args}");
    command.args(["-t", "1"]).output().unwrap()
}

/// What a successful run prints on stdout.
pub fn stdout(args: &str, paths: &[&Path]) -> String {
    let output = tessera(args, paths);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "tessera {args}: {:?}\n{errors}",
        output.status.code()
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The JSON that a successful run prints, which must be of this schema.
pub fn json(args: &str, paths: &[&Path], schema: &str) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_str(&stdout(args, paths)).unwrap();
    assert_eq!(value["schema"], schema);
    value
}

/// What a run that fails with `code` says on stderr; stdout must stay empty.
pub fn failure(code: i32, args: &str, paths: &[&Path]) -> String {
    let output = tessera(args, paths);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "tessera {args}: {errors}");
    assert!(
        output.stdout.is_empty(),
        "tessera {args} printed {}",
        String::from_utf8_lossy(&output.stdout)
    );
    errors
}

/// Step and loss of every line of the metrics.
pub fn losses(run: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((line["step"].as_u64()?, line["loss"].as_f64()?))
    };
    text.lines().filter_map(line).collect()
}

/// A picture that differs with `seed`: a bright disc, or a bright square.
pub fn picture(disc: bool, seed: usize) -> Pixels {
    let bright = |y: usize, x: usize| {
        let (y, x) = (y.abs_diff(5 + seed % 6), x.abs_diff(6 + seed % 4));
        if disc {
            y * y + x * x < 20
        } else {
            y < 4 && x < 4
        }
    };
    let sample = |i: usize| {
        let (y, x, channel) = (i / 3 / SIZE, i / 3 % SIZE, i % 3);
        if bright(y, x) {
            200 - 40 * channel as u8
        } else {
            (3 * (y + x) + seed) as u8
        }
    };
    Pixels::new(
        SIZE,
        SIZE,
        Channels::Rgb,
        (0..3 * SIZE * SIZE).map(sample).collect(),
    )
    .unwrap()
}

/// Pictures in two classes, so many of each.
pub fn pictures(folder: &Path, of_class: usize) {
    for (class, disc) in [("disc", true), ("square", false)] {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for seed in 0..of_class {
            write_png(
                folder.join(class).join(format!("{class}{seed}.png")),
                &picture(disc, seed),
                &[],
                Existing::Keep,
            )
            .unwrap();
        }
    }
}

impl World {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        pictures(&folder.path().join("pictures"), 3);
        let at = |name: &str| folder.path().join(name);
        let vae = "train vae --data {} --img-size 16 --ch 8 --ch-mult 1,2 --z-channels 4 --batch-size 3 \
                   --epochs 9 --max-steps 3 -o {}";
        assert_eq!(
            stdout(vae, &[&at("pictures"), &at("vae")]).trim(),
            at("vae/vae").display().to_string()
        );
        let ar = "train ar --data {} --img-size 16 --vae {} --bits 4 --enc 16,1,2 --dec 16,1,2 --head 16,1,2 \
                  --buffer-size 2 --batch-size 3 --epochs 9 --max-steps 3 -o {}";
        assert_eq!(
            stdout(ar, &[&at("pictures"), &at("vae/vae"), &at("ar")]).trim(),
            at("ar/model").display().to_string()
        );
        Self { folder }
    }

    /// The pictures, in a folder per class.
    pub fn pictures(&self) -> PathBuf {
        self.folder.path().join("pictures")
    }

    /// One of them.
    pub fn disc(&self) -> PathBuf {
        self.pictures().join("disc/disc0.png")
    }

    /// The run that trained the generator.
    pub fn run(&self) -> PathBuf {
        self.folder.path().join("ar")
    }

    /// The whole model.
    pub fn model(&self) -> PathBuf {
        self.run().join("model")
    }

    /// The VAE alone.
    pub fn vae(&self) -> PathBuf {
        self.folder.path().join("vae/vae")
    }
}
