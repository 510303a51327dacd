//! From what a pickle has built to named tensors: the walk over its containers, and the checks that what each tensor
//! claims is there.

use super::budget::Budget;
use super::classes::Class;
use super::pickle::Unpickled;
use super::value::{Span, StorageRef, TensorRef, Value};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::tensor::{StoredTensor, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The name of a tensor that is in no container.
const ROOT: &str = "tensor";
/// Containers in containers; a deeper one contains itself.
const MAX_DEPTH: usize = 64;
/// PyTorch's own limit.
const MAX_AXES: usize = 64;
/// Numbers and strings that are kept. Those within two containers (`epoch`, `args.lr`) come first: half of the room is
/// theirs alone.
const MAX_METADATA: usize = 1000;
const OUTER_DEPTH: usize = 2;

/// Where the bytes of a storage are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub range: Range<u64>,
    /// CRC-32 of them, where the file states it.
    pub crc32: Option<u32>,
}

/// A storage, or the part of one that tensors are in.
struct Storage {
    whole: Place,
    part: Range<u64>,
}

/// What a file says besides tensors, what of it is not read, and its tensors, by name.
#[derive(Default)]
pub(super) struct Content {
    pub metadata: BTreeMap<String, String>,
    pub opaque: BTreeMap<String, String>,
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// Everything in the containers of `object`, which was unpickled from `pickle`. `place` says where a storage is.
pub(super) fn collect(
    source: &Arc<Source>,
    pickle: &[u8],
    object: &Unpickled,
    place: impl Fn(&str) -> Option<Place>,
) -> Result<Content> {
    let mut walk = Walk {
        source,
        pickle,
        object,
        storages: Vec::new(),
        name: String::new(),
        budget: Budget::of(source),
        content: Content::default(),
    };
    let storages = &object.arena.storages;
    walk.charge(size_of::<Storage>() * storages.len())?;
    walk.storages.reserve_exact(storages.len());
    for storage in storages {
        walk.storages.push(locate(source, pickle, storage, &place)?);
    }
    walk.visit(object.root, 0)?;
    match object.arena.foreign.is_empty() || !walk.content.tensors.is_empty() {
        true => Ok(walk.content),
        // No weights but an object, of a class that would have to be run.
        false => Err(Error::Refused {
            file: source.name().into(),
            class: object.arena.class_name(0, pickle),
        }),
    }
}

/// Finds a storage and holds what the pickle says of it against its bytes.
fn locate(
    source: &Source,
    pickle: &[u8],
    storage: &StorageRef,
    place: impl Fn(&str) -> Option<Place>,
) -> Result<Storage> {
    let key = String::from_utf8_lossy(storage.key.of(pickle));
    let wrong = |expected: String, found: String| {
        Error::format(source.name(), format!("storage `{key}`"), expected, found)
    };
    let whole = place(&key).ok_or_else(|| wrong("in the file".into(), "absent".into()))?;
    let size = storage.dtype.map_or(1, |dtype| dtype.bitsize() as u64 / 8);
    let bytes = |elements: i64| u64::try_from(elements).ok()?.checked_mul(size);
    let length = whole.range.end - whole.range.start;
    if bytes(storage.elements) != Some(length) {
        let expected = format!("{} elements of {size} bytes", storage.elements);
        return Err(wrong(expected, format!("{length} bytes")));
    }
    let part = match storage.part {
        None => Some(whole.range.clone()),
        Some((offset, elements)) => (|| {
            let start = whole.range.start.checked_add(bytes(offset)?)?;
            let end = start.checked_add(bytes(elements)?)?;
            (end <= whole.range.end).then_some(start..end)
        })(),
    };
    let part = part.ok_or_else(|| {
        let found = format!("a view of it beyond them: {:?}", storage.part);
        wrong(format!("{} elements", storage.elements), found)
    })?;
    Ok(Storage { whole, part })
}

struct Walk<'a> {
    source: &'a Arc<Source>,
    pickle: &'a [u8],
    object: &'a Unpickled,
    storages: Vec<Storage>,
    /// Of the value that is being visited.
    name: String,
    /// For the result. A container in many places is walked in each of them, and its tensors are
    /// named in each, so that a short pickle may describe more than fits anywhere.
    budget: Budget,
    content: Content,
}

impl Walk<'_> {
    fn visit(&mut self, value: Value, depth: usize) -> Result<()> {
        self.charge(size_of::<Value>())?;
        let arena = &self.object.arena;
        match value {
            Value::Dict(dict) | Value::Object(dict) => {
                for (index, &(key, value)) in arena.dict(dict).iter().enumerate() {
                    match key {
                        Value::Text(key) => {
                            let key = self.text(key).into_owned();
                            self.under(&key, value, depth)?;
                        }
                        Value::Class(Class::Foreign(class)) | Value::Foreign(class) => {
                            let key = arena.class_name(class, self.pickle);
                            self.under(&key, value, depth)?;
                        }
                        Value::Int(key) => self.under(&key.to_string(), value, depth)?,
                        _ => self.under(&index.to_string(), value, depth)?,
                    }
                }
                Ok(())
            }
            Value::List(list) => self.items(arena.list(list), depth),
            Value::Tuple(tuple) => self.items(arena.tuple(tuple), depth),
            Value::Tensor(tensor) => match arena.tensors.get(tensor as usize) {
                Some(tensor) => self.keep(tensor),
                None => Ok(()),
            },
            Value::Bool(value) => self.note(value, depth),
            Value::Int(value) => self.note(value, depth),
            Value::Float(value) => self.note(value, depth),
            Value::Text(text) => match std::str::from_utf8(text.of(self.pickle)) {
                Ok(text) => self.note(text, depth),
                // Bytes, such as the state of a random number generator.
                Err(_) => Ok(()),
            },
            Value::Foreign(class) => self.leave(class),
            Value::None | Value::Class(_) | Value::Storage(_) | Value::Opaque => Ok(()),
        }
    }

    fn items(&mut self, items: &[Value], depth: usize) -> Result<()> {
        for (index, &item) in items.iter().enumerate() {
            self.under(&index.to_string(), item, depth)?;
        }
        Ok(())
    }

    /// Visits what a container at `depth` has under `key`.
    fn under(&mut self, key: &str, value: Value, depth: usize) -> Result<()> {
        if depth == MAX_DEPTH {
            let expected = format!("at most {MAX_DEPTH} containers in each other");
            return Err(Error::format(
                self.source.name(),
                "the pickle",
                expected,
                "more, or one in itself",
            ));
        }
        self.charge(key.len())?;
        let length = self.name.len();
        if depth > 0 {
            self.name.push('.');
        }
        self.name.push_str(key);
        self.visit(value, depth + 1)?;
        self.name.truncate(length);
        Ok(())
    }

    fn text(&self, span: Span) -> Cow<'_, str> {
        String::from_utf8_lossy(span.of(self.pickle))
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.budget.charge(bytes).map_err(|_| {
            Error::format(
                self.source.name(),
                "the pickle",
                "tensors in proportion to the file",
                "more of them than the file accounts for",
            )
        })
    }

    fn note(&mut self, value: impl ToString, depth: usize) -> Result<()> {
        let room = if depth <= OUTER_DEPTH {
            MAX_METADATA
        } else {
            MAX_METADATA / 2
        };
        if self.content.metadata.len() < room {
            let value = value.to_string();
            self.charge(self.name.len() + value.len())?;
            self.content.metadata.insert(self.name.clone(), value);
        }
        Ok(())
    }

    /// Names an object that is not read.
    fn leave(&mut self, class: u32) -> Result<()> {
        let arena = &self.object.arena;
        if self.content.opaque.len() < MAX_METADATA {
            let mut what = arena.class_name(class, self.pickle);
            if arena
                .foreign
                .get(class as usize)
                .is_some_and(|class| class.holds_tensors)
            {
                what.push_str(", which holds tensors");
            }
            self.charge(self.name.len() + what.len())?;
            self.content.opaque.insert(self.name.clone(), what);
        }
        Ok(())
    }

    fn keep(&mut self, tensor: &TensorRef) -> Result<()> {
        let name = match self.name.as_str() {
            "" => ROOT.to_owned(),
            name => name.to_owned(),
        };
        let axes = tensor.sizes.length as usize + tensor.strides.length as usize;
        self.charge(size_of::<StoredTensor>() + 2 * name.len() + size_of::<usize>() * axes)?;
        let tensor = self.tensor(&name, tensor)?;
        match self.content.tensors.insert(name, tensor) {
            None => Ok(()),
            Some(tensor) => {
                let what = format!("the name `{}`", tensor.name);
                Err(Error::format(
                    self.source.name(),
                    what,
                    "that of one tensor",
                    "that of two",
                ))
            }
        }
    }

    fn tensor(&mut self, name: &str, tensor: &TensorRef) -> Result<StoredTensor> {
        let wrong = |expected: String, found: String| {
            Error::format(
                self.source.name(),
                format!("tensor `{name}`"),
                expected,
                found,
            )
        };
        let absent = || wrong("in a storage".into(), "in none".into());
        let storage = self
            .storages
            .get(tensor.storage as usize)
            .ok_or_else(absent)?;
        let natural = |what: &str, value: Value| match value {
            Value::Int(number) => usize::try_from(number)
                .map_err(|_| wrong(format!("{what} from 0"), number.to_string())),
            other => Err(wrong(format!("{what} that is an int"), other.kind().into())),
        };
        let (sizes, strides) = (
            self.object.arena.tuple(tensor.sizes),
            self.object.arena.tuple(tensor.strides),
        );
        if sizes.len() != strides.len() || sizes.len() > MAX_AXES {
            let expected = format!("at most {MAX_AXES} sizes and as many strides");
            return Err(wrong(
                expected,
                format!("{} and {}", sizes.len(), strides.len()),
            ));
        }
        let shape = sizes
            .iter()
            .map(|&size| natural("a size", size))
            .collect::<Result<Vec<_>>>()?;
        let strides = strides.iter().map(|&stride| natural("a stride", stride));
        let mut strides = strides.collect::<Result<Vec<_>>>()?;
        let offset = natural("an offset", Value::Int(tensor.offset))?;
        // Of one index there is no next.
        for (stride, _) in strides
            .iter_mut()
            .zip(&shape)
            .filter(|(_, size)| **size == 1)
        {
            *stride = 0;
        }
        let view = View { offset, strides };

        let size = tensor.dtype.bitsize() as u64 / 8;
        let there = (storage.part.end - storage.part.start) / size;
        let fits = |elements: Option<usize>| elements.filter(|&elements| elements as u64 <= there);
        // Multiplied without the zeros, for nobody who multiplies them later should overflow.
        let product = shape
            .iter()
            .filter(|&&size| size != 0)
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let elements = product.map(|product| if shape.contains(&0) { 0 } else { product });
        // More elements than there are bytes for, of an expanded tensor, are taken as far as the file is that long.
        let repeated = elements.filter(|&elements| {
            elements as u64 > there
                && view
                    .strides
                    .iter()
                    .zip(&shape)
                    .any(|(stride, size)| *stride == 0 && *size > 1)
        });
        let more = repeated.and_then(|elements| (elements as u64 - there).checked_mul(size));
        let allowed = more.is_some_and(|more| {
            self.budget
                .charge(usize::try_from(more).unwrap_or(usize::MAX))
                .is_ok()
        });
        let elements = if allowed { elements } else { fits(elements) };
        let (Some(elements), Some(_)) = (elements, fits(view.reach(&shape))) else {
            let expected = format!("within the {there} elements of its storage");
            let found = format!(
                "sizes {shape:?} with strides {:?} from element {offset}",
                view.strides
            );
            return Err(wrong(expected, found));
        };
        let whole = |range: &Range<u64>| *range == storage.whole.range;
        let (range, view) = if elements == 0 || contiguous(&shape, &view.strides) {
            let start = storage.part.start + offset as u64 * size;
            (start..start + elements as u64 * size, None)
        } else {
            (storage.part.clone(), Some(view))
        };
        Ok(StoredTensor {
            name: name.to_owned(),
            dtype: tensor.dtype,
            shape,
            source: self.source.clone(),
            crc32: storage.whole.crc32.filter(|_| whole(&range)),
            range,
            view,
            position: Some(self.content.tensors.len()),
            scales: None,
        })
    }
}

/// Whether elements follow each other in row-major order.
fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut next = 1;
    shape
        .iter()
        .zip(strides)
        .rev()
        .filter(|(size, _)| **size != 1)
        .all(|(&size, &stride)| {
            let follows = stride == next;
            next *= size;
            follows
        })
}
