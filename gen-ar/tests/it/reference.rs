//! The authors' checkpoint and what their code computes with it.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tessera_gen_ar::{GenAr, GenArConfig, TransformerConfig};

/// The fixtures whose name begins and ends so. None where there are none; a failure where `TESSERA_FIXTURES` says
/// there are.
pub fn fixtures(prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let named = std::env::var_os("TESSERA_FIXTURES").map(PathBuf::from);
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let folder = named.clone().unwrap_or_else(default);
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(prefix) && name.ends_with(suffix)
    });
    files.sort();
    if files.is_empty() {
        let absent = format!("{} has no {prefix}*{suffix}", folder.display());
        assert!(named.is_none(), "TESSERA_FIXTURES is set, but {absent}");
        println!("skipped: {absent}");
    }
    files
}

/// Named arrays of a safetensors file and the config in its metadata.
pub struct Arrays {
    bytes: Vec<u8>,
    pub config: serde_json::Value,
}

impl Arrays {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let config = serde_json::from_str(&header.metadata().as_ref().unwrap()["config"]).unwrap();
        Self { bytes, config }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors()
            .names()
            .into_iter()
            .map(String::from)
            .collect()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    pub fn ints(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        tensor
            .data()
            .chunks_exact(8)
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as usize)
            .collect()
    }

    /// The generator that the metadata describe, with the released sampler's behavior.
    pub fn generator(&self) -> GenArConfig {
        let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let size = |name: &str| {
            let size = &self.config[name];
            TransformerConfig {
                width: number(&size[0]),
                depth: number(&size[1]),
                heads: number(&size[2]),
            }
        };
        let side = number(&self.config["img"]) / 16;
        let [enc, dec, head] = ["enc", "dec", "ch"].map(size);
        GenArConfig {
            class_num: number(&self.config["classes"]),
            buffer_size: number(&self.config["buf"]),
            dec,
            ..GenArConfig::new(
                [side, side],
                16,
                1 << number(&self.config["bits"]),
                enc,
                head,
            )
        }
    }
}

/// Gradients by name, in the checkpoint's layout (`Linear.weight` transposed).
pub fn gradients(model: &GenAr, loss: Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    struct Collect {
        path: Vec<(String, bool)>,
        gradients: burn::tensor::Gradients,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.push((
                name.into(),
                container == "Struct:Linear" && name == "weight",
            ));
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = param.val().grad(&self.gradients) else {
                return;
            };
            let transposed = self.path.last().is_some_and(|(_, linear)| *linear);
            let gradient = if transposed {
                gradient.transpose()
            } else {
                gradient
            };
            let names: Vec<_> = self.path.iter().map(|(name, _)| name.as_str()).collect();
            self.found.insert(
                names.join("."),
                gradient.into_data().iter::<f32>().collect(),
            );
        }
    }
    let mut collect = Collect {
        path: Vec::new(),
        gradients: loss.backward(),
        found: BTreeMap::new(),
    };
    model.visit(&mut collect);
    collect.found
}

/// The largest difference over the largest value expected, with where it is.
pub fn relative_error(what: &str, found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let (at, error) =
        differences.enumerate().fold(
            (0, 0f32),
            |m, (i, d)| if d > m.1 || d.is_nan() { (i, d) } else { m },
        );
    println!("{what}: largest difference {error:e} at {at}, of at most {largest:e}");
    error / largest
}
