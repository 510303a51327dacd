//! What PyTorch computed (`fixtures/gen/dit.py`).

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tessera_gen_dit::{Dit, DitConfig};
use tessera_weights::Weights;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Named arrays of the fixture and its metadata.
pub struct Arrays(Vec<u8>);

impl Arrays {
    pub fn read() -> Self {
        Self(std::fs::read(fixture("dit.safetensors")).unwrap())
    }

    pub fn metadata(&self, key: &str) -> String {
        let (_, header) = SafeTensors::read_metadata(&self.0).unwrap();
        header.metadata().as_ref().unwrap()[key].clone()
    }

    pub fn config(&self, key: &str) -> DitConfig {
        serde_json::from_str(&self.metadata(key)).unwrap()
    }

    /// The transformer of the fixture.
    pub fn model(&self, device: &Device) -> Dit {
        let mut all = Weights::read(fixture("dit.safetensors")).unwrap();
        let weights = all.take_prefix("model.");
        Dit::from_weights(&self.config("config"), weights, device, &mut |_| ()).unwrap()
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    /// The names that begin so, without their beginning.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let tensors = self.tensors();
        let names = tensors.names().into_iter();
        names
            .filter_map(|name| name.strip_prefix(prefix).map(String::from))
            .collect()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let bytes = tensor.data().chunks_exact(4);
        bytes
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    }

    pub fn ints(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        let bytes = tensor.data().chunks_exact(8);
        bytes
            .map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()) as usize)
            .collect()
    }

    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let shape = self.tensors().tensor(name).unwrap().shape().to_vec();
        Tensor::from_data(TensorData::new(self.floats(name), shape), device)
    }

    /// Labels, of which the one after the last class is none.
    pub fn labels(&self, name: &str, classes: usize) -> Vec<Option<usize>> {
        let labels = self.ints(name).into_iter();
        labels
            .map(|label| (label < classes).then_some(label))
            .collect()
    }

    /// Holds what was found against the array of that name: within `relative` of its largest value and 1e-5.
    pub fn check<const D: usize>(&self, name: &str, found: Tensor<D>, relative: f32) {
        let shape = self.tensors().tensor(name).unwrap().shape().to_vec();
        assert_eq!(found.dims().to_vec(), shape, "{name}");
        self.check_values(name, &host(found), relative);
    }

    pub fn check_values(&self, name: &str, found: &[f32], relative: f32) {
        let expected = self.floats(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
        let pairs = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let (at, error) =
            pairs.enumerate().fold(
                (0, 0f32),
                |m, (i, d)| if d > m.1 || d.is_nan() { (i, d) } else { m },
            );
        println!("{name}: largest difference {error:e} at {at}, of at most {largest:e}");
        assert!(error < relative * largest + 1e-5, "{name} at {at}");
    }
}

pub fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// Gradients by name, in the checkpoint's layout (`Linear.weight` transposed).
pub fn gradients(model: &Dit, loss: Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    struct Collect {
        path: Vec<(String, bool)>,
        gradients: burn::tensor::Gradients,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container: &str) {
            let linear = container == "Struct:Linear" && name == "weight";
            self.path.push((name.into(), linear));
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let Some(gradient) = param.val().grad(&self.gradients) else {
                return;
            };
            let gradient = match self.path.last() {
                Some((_, true)) => gradient.transpose(),
                _ => gradient,
            };
            let names: Vec<_> = self.path.iter().map(|(name, _)| name.as_str()).collect();
            self.found.insert(names.join("."), host(gradient));
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
