//! Every format that is read: a good file of it, where it lies, and the command that opens it there.

/// A good file to damage.
#[derive(Debug, Clone, Copy)]
pub enum Good {
    /// One of the inputs.
    Input(&'static str),
    /// One of the inputs, packed by gzip.
    Packed(&'static str),
    /// One that no command of ours writes.
    Bytes(&'static [u8]),
}

/// A format and who reads it.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// What it is called in the table.
    pub name: &'static str,
    /// A good file.
    pub good: Good,
    /// Inputs that lie beside it: folders, and what they are called there.
    pub beside: &'static [(&'static str, &'static str)],
    /// Where the damaged file lies.
    pub file: &'static str,
    /// The command that opens it.
    pub args: &'static str,
    /// Of how many damaged files this format gets one; slow commands get fewer.
    pub share: usize,
}

const INSPECT: Format = Format {
    name: "",
    good: Good::Bytes(&[]),
    beside: &[],
    file: "",
    args: "",
    share: 4,
};

const RESUME: &str = "train vae --data in/data --img-size 32 --channels 1 --ch 8 --ch-mult 1,2 --z-channels 4 \
     --batch-size 10 --epochs 2 --save-every 1 --keep-last 2 -t 1 -o r --resume latest";
const CACHED: &str = "train ar --data in/data --img-size 32 --channels 1 --vae in/vae/vae --cached latents.safetensors \
     --bits 4 --picture-size 28 --enc 16,1,2 --dec 16,1,2 --head 16,1,2 --buffer-size 2 --batch-size 10 \
     --epochs 1 -t 1 --overwrite -o r";
const DRAW: &str = "generate -m m -c 0 --steps 1 -t 1 --overwrite -o o.png";

/// The formats.
pub const FORMATS: [Format; 22] = [
    Format {
        name: "safetensors",
        good: Good::Input("vae/vae/model.safetensors"),
        beside: &[("vae/vae", "v")],
        file: "v/model.safetensors",
        args: "inspect --verify v/model.safetensors",
        ..INSPECT
    },
    Format {
        name: "safetensors, as a VAE",
        good: Good::Input("vae/vae/model.safetensors"),
        beside: &[("vae/vae", "v")],
        file: "v/model.safetensors",
        args: "reconstruct -i in/photo.png --vae v -t 1",
        ..INSPECT
    },
    Format {
        name: "PyTorch, zip",
        good: Good::Bytes(include_bytes!("seeds/zip.pt")),
        file: "a.pt",
        args: "inspect --verify a.pt",
        share: 8,
        ..INSPECT
    },
    Format {
        name: "PyTorch, legacy",
        good: Good::Bytes(include_bytes!("seeds/legacy.pt")),
        file: "a.pt",
        args: "inspect --verify a.pt",
        share: 8,
        ..INSPECT
    },
    Format {
        name: "PNG, its text",
        good: Good::Input("photo.png"),
        file: "a.png",
        args: "inspect a.png",
        ..INSPECT
    },
    Format {
        name: "PNG",
        good: Good::Input("photo.png"),
        file: "a.png",
        args: "reconstruct -i a.png -t 1",
        ..INSPECT
    },
    Format {
        name: "JPEG",
        good: Good::Bytes(include_bytes!("seeds/picture.jpg")),
        file: "a.jpg",
        args: "reconstruct -i a.jpg -t 1",
        ..INSPECT
    },
    Format {
        name: "WebP",
        good: Good::Bytes(include_bytes!("seeds/picture.webp")),
        file: "a.webp",
        args: "reconstruct -i a.webp -t 1",
        ..INSPECT
    },
    Format {
        name: "IDX, pictures",
        good: Good::Input("data/t10k-images-idx3-ubyte"),
        beside: &[("data", "d")],
        file: "d/t10k-images-idx3-ubyte",
        args: "tokenize --data d --limit 2 -t 1 --overwrite -o t",
        ..INSPECT
    },
    Format {
        name: "IDX, labels",
        good: Good::Input("data/t10k-labels-idx1-ubyte"),
        beside: &[("data", "d")],
        file: "d/t10k-labels-idx1-ubyte",
        args: "tokenize --data d --limit 2 -t 1 --overwrite -o t",
        share: 2,
    },
    Format {
        name: "IDX, gzip",
        good: Good::Packed("data/t10k-images-idx3-ubyte"),
        beside: &[("data", "d")],
        file: "d/t10k-images-idx3-ubyte.gz",
        args: "tokenize --data d --limit 2 -t 1 --overwrite -o t",
        ..INSPECT
    },
    Format {
        name: "tokens",
        good: Good::Input("tokens/tokens-00000.safetensors"),
        beside: &[("tokens", "t")],
        file: "t/tokens-00000.safetensors",
        args: "decode -i t -t 1 --overwrite -o o",
        ..INSPECT
    },
    Format {
        name: "tokens, manifest",
        good: Good::Input("tokens/manifest.json"),
        beside: &[("tokens", "t")],
        file: "t/manifest.json",
        args: "decode -i t -t 1 --overwrite -o o",
        ..INSPECT
    },
    Format {
        name: "calibration",
        good: Good::Input("calibration/c.json"),
        file: "c.json",
        args: "reconstruct -i in/photo.png --vae in/vae/vae --calibration c.json -t 1",
        ..INSPECT
    },
    Format {
        name: "model.json",
        good: Good::Input("ar/model/model.json"),
        beside: &[("ar/model", "m")],
        file: "m/model.json",
        args: DRAW,
        share: 6,
    },
    Format {
        name: "model.json, diffusion",
        good: Good::Input("dit/model/model.json"),
        beside: &[("dit/model", "m")],
        file: "m/model.json",
        args: DRAW,
        ..INSPECT
    },
    Format {
        name: "config.json",
        good: Good::Input("ar/model/config.json"),
        beside: &[("ar/model", "m")],
        file: "m/config.json",
        args: DRAW,
        share: 6,
    },
    Format {
        name: "config.json of a VAE",
        good: Good::Input("ar/model/vae/config.json"),
        beside: &[("ar/model", "m")],
        file: "m/vae/config.json",
        args: DRAW,
        ..INSPECT
    },
    Format {
        name: "metrics.jsonl",
        good: Good::Input("vae/metrics.jsonl"),
        beside: &[("vae", "r")],
        file: "r/metrics.jsonl",
        args: RESUME,
        share: 1,
    },
    Format {
        name: "config.json of a run",
        good: Good::Input("vae/config.json"),
        beside: &[("vae", "r")],
        file: "r/config.json",
        args: RESUME,
        share: 1,
    },
    Format {
        name: "checkpoint",
        good: Good::Input("vae/checkpoint/step-00000004.safetensors"),
        beside: &[("vae", "r")],
        file: "r/checkpoint/step-00000004.safetensors",
        args: RESUME,
        share: 2,
    },
    Format {
        name: "latents",
        good: Good::Input("latents/latents.safetensors"),
        beside: &[],
        file: "latents.safetensors",
        args: CACHED,
        share: 2,
    },
];
