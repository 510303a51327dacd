//! Walks over a module's parameters by name.

use crate::error::{Error, Result};
use crate::mismatch::{Mismatch, Misshapen, Stray, with_nearest};
use crate::weights::{Weight, Weights};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tessera_backend::{device_values, elements_of, host_values};
use tessera_checkpoint::CONFIG_FILE;

/// Where in the module tree a walk is: the names of the fields it went through.
#[derive(Debug, Default)]
pub struct NamePath {
    fields: Vec<String>,
    transposed: Vec<bool>,
}

impl NamePath {
    /// Goes into a field of a module.
    pub fn enter(&mut self, field: &str, container: &str) {
        self.fields.push(field.into());
        self.transposed
            .push(container == "Struct:Linear" && field == "weight");
    }

    /// Leaves it again.
    pub fn exit(&mut self) {
        self.fields.pop();
        self.transposed.pop();
    }

    /// The name of the parameter that the walk is at, such as `blocks.0.attn.qkv.weight`.
    pub fn name(&self) -> String {
        self.fields.join(".")
    }

    /// Burn keeps a linear map as `[in, out]`, checkpoints as `[out, in]`.
    fn is_linear_weight(&self) -> bool {
        self.transposed.last() == Some(&true)
    }

    fn file_shape(&self, mut shape: Vec<usize>) -> Vec<usize> {
        if self.is_linear_weight() {
            shape.reverse();
        }
        shape
    }
}

/// The methods of `ModuleVisitor` and `ModuleMapper` by which a walk keeps its field `path`, a [`NamePath`], up to
/// date.
#[macro_export]
macro_rules! track_names {
    () => {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
    };
}
/// How much of a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Tensors done.
    pub tensors: usize,
    /// All of them.
    pub of: usize,
}

impl Weights {
    /// The parameters of a module, read from its device. Parameters that were not used yet are initialized.
    pub fn of<M: Module>(module: &M) -> Self {
        #[derive(Default)]
        struct Read {
            path: NamePath,
            tensors: BTreeMap<String, Weight>,
        }
        impl ModuleVisitor for Read {
            track_names!();
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let tensor = param.transform_for_save().val();
                let shape = tensor.dims().to_vec();
                let data = host_values(tensor);
                let weight = match self.path.is_linear_weight() {
                    true => Weight::new([shape[1], shape[0]], transposed(&data, shape[1])),
                    false => Weight::new(shape, data),
                };
                self.tensors.insert(self.path.name(), weight);
            }
        }
        let mut read = Read::default();
        module.visit(&mut read);
        Self {
            tensors: read.tensors,
            ..Self::default()
        }
    }

    /// The shape of every parameter of a module by name, in the layout of files; initializes nothing.
    pub fn shapes_of<M: Module>(module: &M) -> BTreeMap<String, Vec<usize>> {
        #[derive(Default)]
        struct Shapes {
            path: NamePath,
            shapes: BTreeMap<String, Vec<usize>>,
        }
        impl ModuleVisitor for Shapes {
            track_names!();
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let shape = param.lazy_shape().as_slice().to_vec();
                self.shapes
                    .insert(self.path.name(), self.path.file_shape(shape));
            }
        }
        let mut walk = Shapes::default();
        module.visit(&mut walk);
        walk.shapes
    }

    /// Puts the weights into a module: all of them, into all of its parameters. Every parameter keeps its device,
    /// its identity and whether it is trained; one that was not used yet is not initialized first.
    ///
    /// # Errors
    /// [`Error::Mismatch`] names what is missing, unexpected or misshapen; others say that a file broke meanwhile.
    pub fn apply<M: Module>(&self, module: M) -> Result<M> {
        self.apply_with(module, &mut |_| ())
    }

    /// As [`apply`](Self::apply), telling how far it is. A tensor at a time is in memory besides the module's own.
    ///
    /// # Errors
    /// As `apply`.
    pub fn apply_with<M: Module>(&self, module: M, progress: &mut dyn FnMut(Loaded)) -> Result<M> {
        struct Write<'a> {
            path: NamePath,
            weights: &'a Weights,
            loaded: Loaded,
            progress: &'a mut dyn FnMut(Loaded),
            fault: Option<Error>,
        }
        impl ModuleMapper for Write<'_> {
            track_names!();
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let weight = &self.weights.tensors[&self.path.name()];
                let values = match (&self.fault, weight.values()) {
                    (None, Ok(values)) => values,
                    // Mapping cannot be left midway; nobody gets to see the rest.
                    (None, Err(fault)) => {
                        self.fault = Some(fault);
                        return param;
                    }
                    _ => return param,
                };
                let data = match self.path.is_linear_weight() {
                    true => transposed(&values, weight.shape()[1]),
                    false => values.into_owned(),
                };
                let shape = self.path.file_shape(weight.shape().to_vec());
                let shape: [usize; D] = shape
                    .try_into()
                    .expect("the shape was held against the module's");
                let value = device_values(data, shape, &param.lazy_device());
                let id = param.id;
                self.loaded.tensors += 1;
                (self.progress)(self.loaded);
                param.transform_for_load(value, id)
            }
        }
        self.fits(&module)?;
        let mut write = Write {
            path: NamePath::default(),
            weights: self,
            loaded: Loaded {
                tensors: 0,
                of: self.len(),
            },
            progress,
            fault: None,
        };
        let module = module.map(&mut write);
        write.fault.map_or(Ok(module), Err)
    }

    /// Refuses a config that describes a model of `claimed` numbers where these weights are far fewer: before the
    /// model is made, which would take the memory that the config claims. A model of up to twice as many, and a million
    /// more, is made, so that the report of names and shapes says what differs.
    ///
    /// # Errors
    /// [`Error::Claimed`].
    pub fn require_room(&self, claimed: u64) -> Result<()> {
        const SLACK: u64 = 1 << 20;
        let held = self
            .tensors
            .values()
            .map(|weight| elements_of(&[weight.shape()]));
        let held = held.fold(0, u64::saturating_add);
        if claimed <= held.saturating_mul(2).saturating_add(SLACK) {
            return Ok(());
        }
        let file = match self.file.as_os_str().is_empty() {
            true => PathBuf::from("the file of weights"),
            false => self.file.clone(),
        };
        let beside = file.with_file_name(CONFIG_FILE);
        Err(Error::Claimed {
            // That of a run's checkpoint is in another folder, and some are given by themselves.
            config: match beside.is_file() {
                true => beside,
                false => CONFIG_FILE.into(),
            },
            claimed,
            file,
            held,
        })
    }

    /// Whether these are all the weights of a module, and no others; reads none.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn fits<M: Module>(&self, module: &M) -> Result<()> {
        self.fits_shapes(&Self::shapes_of(module))
    }

    /// As [`fits`](Self::fits), for a network that is not a module: names with their shapes, in the layout of files.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn fits_shapes(&self, expected: &BTreeMap<String, Vec<usize>>) -> Result<()> {
        let missing = expected
            .keys()
            .filter(|name| !self.tensors.contains_key(*name));
        let missing: Vec<&str> = missing.map(|name| &**name).collect();
        let unexpected = self
            .tensors
            .keys()
            .filter(|name| !expected.contains_key(*name));
        let unexpected: Vec<&str> = unexpected.map(|name| &**name).collect();
        let misshapen: Vec<Misshapen> = self
            .tensors
            .iter()
            .filter_map(|(name, weight)| {
                let expected = expected
                    .get(name)
                    .filter(|shape| **shape != weight.shape())?;
                Some(Misshapen {
                    name: self.in_file(name).into(),
                    found: weight.shape().to_vec(),
                    expected: expected.clone(),
                })
            })
            .collect();
        if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
            return Ok(());
        }
        // A name that fits nowhere is most likely the renamed form of one that is wanted in vain.
        let there: Vec<&str> = match unexpected.is_empty() {
            true => self.tensors.keys().map(|name| &**name).collect(),
            false => unexpected.clone(),
        };
        let wanted: Vec<&str> = match missing.is_empty() {
            true => expected.keys().map(|name| &**name).collect(),
            false => missing.clone(),
        };
        Err(Error::Mismatch(Box::new(Mismatch {
            file: self.file.clone(),
            guess: self.guess(),
            missing: with_nearest(missing, &there)
                .into_iter()
                .map(|stray| Stray {
                    nearest: stray.nearest.map(|name| self.in_file(&name).into()),
                    ..stray
                })
                .collect(),
            unexpected: with_nearest(unexpected, &wanted)
                .into_iter()
                .map(|stray| Stray {
                    name: self.in_file(&stray.name).into(),
                    ..stray
                })
                .collect(),
            misshapen,
        })))
    }
}

/// Every parameter as a flat tensor outside autodiff, in the module's own layout.
///
/// # Shapes
/// - outputs: as many values as the parameter has, flat
pub fn flat_tensors<M: Module>(module: &M) -> BTreeMap<String, Tensor<1>> {
    #[derive(Default)]
    struct Flat {
        path: NamePath,
        tensors: BTreeMap<String, Tensor<1>>,
    }
    impl ModuleVisitor for Flat {
        track_names!();
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let flat = param.val().inner().reshape([-1]);
            self.tensors.insert(self.path.name(), flat);
        }
    }
    let mut walk = Flat::default();
    module.visit(&mut walk);
    walk.tensors
}

/// A module outside autodiff with the values that [`flat_tensors`] gives.
///
/// # Shapes
/// - `tensors`: as many values as the parameter has, flat
pub fn with_flat_tensors<M: Module>(module: M, tensors: &BTreeMap<String, Tensor<1>>) -> M {
    struct Unflatten<'a> {
        path: NamePath,
        tensors: &'a BTreeMap<String, Tensor<1>>,
    }
    impl ModuleMapper for Unflatten<'_> {
        track_names!();
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let flat = self.tensors[&self.path.name()].clone();
            param.map(|old| flat.reshape(old.dims()))
        }
    }
    module.map(&mut Unflatten {
        path: NamePath::default(),
        tensors,
    })
}

/// The module with every element of the named parameters set to a value.
///
/// # Panics
/// If the module has no parameter of a name: whoever measured it has the same module.
pub fn with_buffers<M: Module>(module: M, values: &[(String, f32)]) -> M {
    struct Set<'a> {
        path: NamePath,
        values: BTreeMap<&'a str, f32>,
    }
    impl ModuleMapper for Set<'_> {
        track_names!();
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.values.remove(&*self.path.name()) {
                Some(value) => param.map(|old| Tensor::full(old.dims(), value, &old.device())),
                None => param,
            }
        }
    }
    if values.is_empty() {
        return module;
    }
    let mut set = Set {
        path: NamePath::default(),
        values: values
            .iter()
            .map(|(name, value)| (&**name, *value))
            .collect(),
    };
    let module = module.map(&mut set);
    assert!(set.values.is_empty(), "no such parameter: {:?}", set.values);
    module
}

/// The transpose of row-major values with rows of `columns`.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    const TILE: usize = 32; // rows and columns of a tile stay in the nearest cache
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let mut result = vec![0.0; values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..rows.min(top + TILE) {
                for column in left..columns.min(left + TILE) {
                    result[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    result
}
