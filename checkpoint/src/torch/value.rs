//! What a pickle builds: small values that refer to containers in an arena. Shared and cyclic ones are then harmless,
//! and nothing is nested when it is dropped.

use super::classes::Class;
use safetensors::Dtype;

/// A run of bytes of the pickle, or of items in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub length: u32,
}

impl Span {
    /// The run, of the `whole` that it was made for.
    pub(super) fn of<T>(self, whole: &[T]) -> &[T] {
        let start = self.start as usize;
        whole
            .get(start..start + self.length as usize)
            .unwrap_or_default()
    }
}

/// A value, or where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Text or bytes, where the pickle has them.
    Text(Span),
    /// Items of the arena.
    Tuple(Span),
    List(u32),
    Dict(u32),
    /// An object that is nothing but its attributes, which are a dictionary.
    Object(u32),
    Class(Class),
    Storage(u32),
    Tensor(u32),
    /// What is of no use here, such as a device.
    Opaque,
    /// An object of a class that is not known here, by the place of its name in the arena.
    Foreign(u32),
}

/// A class that is not known here.
#[derive(Debug, Clone, Copy)]
pub(super) struct ForeignClass {
    pub module: Span,
    pub name: Span,
    /// Whether a tensor was put into an object of it.
    pub holds_tensors: bool,
}

/// A storage that the pickle refers to. Numbers are as the pickle states them, unchecked.
#[derive(Debug, Clone, Copy)]
pub(super) struct StorageRef {
    /// The name of its entry.
    pub key: Span,
    /// The type of its elements; bytes if `None`.
    pub dtype: Option<Dtype>,
    /// How many elements there are.
    pub elements: i64,
    /// The part that this one is, as its first element and how many it has: early files have views of storages.
    pub part: Option<(i64, i64)>,
}

/// A tensor in a storage. Numbers are as the pickle states them, unchecked.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorRef {
    pub storage: u32,
    pub dtype: Dtype,
    pub offset: i64,
    pub sizes: Span,
    pub strides: Span,
}

/// Everything that a pickle has built.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pub items: Vec<Value>,
    pub lists: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<StorageRef>,
    pub tensors: Vec<TensorRef>,
    pub foreign: Vec<ForeignClass>,
}

impl Arena {
    pub(super) fn tuple(&self, span: Span) -> &[Value] {
        let start = span.start as usize;
        self.items
            .get(start..start + span.length as usize)
            .unwrap_or_default()
    }

    /// The name of a class that is not known here, of a pickle's bytes.
    pub(super) fn class_name(&self, class: u32, pickle: &[u8]) -> String {
        let shown = |text: &[u8]| text[..text.len().min(80)].escape_ascii().to_string();
        let class = self.foreign.get(class as usize);
        class.map_or_else(String::new, |class| {
            format!(
                "{}.{}",
                shown(class.module.of(pickle)),
                shown(class.name.of(pickle))
            )
        })
    }

    pub(super) fn list(&self, list: u32) -> &[Value] {
        self.lists.get(list as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn dict(&self, dict: u32) -> &[(Value, Value)] {
        self.dicts.get(dict as usize).map_or(&[], Vec::as_slice)
    }
}

impl Value {
    /// The kind, for errors.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Object(_) => "a namespace",
            Self::Class(_) => "a class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Opaque | Self::Foreign(_) => "an object",
        }
    }
}
