//! What the machine makes of a class that Python would call.

use super::budget::Spent;
use super::classes::Class;
use super::pickle::{Machine, short, wrong};
use super::value::{Span, StorageRef, TensorRef, Value};

/// Why an instruction cannot be obeyed.
pub(super) enum Fault {
    /// It asks for a class that is not allowed.
    Refused(String),
    /// It makes no sense where it is.
    Wrong { expected: String, found: String },
}

impl From<Spent> for Fault {
    fn from(_: Spent) -> Self {
        wrong(
            "values in proportion to the file",
            "more of them than the file accounts for",
        )
    }
}

impl Machine<'_> {
    /// The value of `callable(*arguments)`.
    pub(super) fn call(&mut self, callable: Value, arguments: Value) -> Result<Value, Fault> {
        let (class, span) = match (callable, arguments) {
            (Value::Class(Class::Foreign(class)), arguments) => {
                self.put_into(class, &[arguments]);
                return Ok(Value::Foreign(class));
            }
            (Value::Class(class), Value::Tuple(span)) => (class, span),
            (Value::Class(_), other) => return Err(wrong("a tuple of arguments", other.kind())),
            (other, _) => return Err(wrong("a class", other.kind())),
        };
        let first = self.arena.tuple(span).first().copied();
        match class {
            Class::Dict => {
                let pairs = self.pairs_of(first)?;
                Ok(Value::Dict(self.dict(&pairs)?))
            }
            Class::DefaultDict => Ok(Value::Dict(self.dict(&[])?)),
            Class::Namespace => Ok(Value::Object(self.dict(&[])?)),
            Class::Sequence => match first {
                None => self.list(&[]),
                Some(Value::List(list)) => {
                    let items = self.arena.list(list).to_vec();
                    self.list(&items)
                }
                Some(tuple @ Value::Tuple(_)) => Ok(tuple),
                Some(other) => Err(wrong("a sequence", other.kind())),
            },
            Class::Size => match first {
                Some(Value::List(list)) => {
                    let items = self.arena.list(list).to_vec();
                    self.tuple(&items)
                }
                Some(tuple @ Value::Tuple(_)) => Ok(tuple),
                other => Err(wrong(
                    "a tuple of sizes",
                    other.map_or("nothing", Value::kind),
                )),
            },
            Class::Device => Ok(Value::Opaque),
            Class::Tensor | Class::TypedTensor => self.tensor(class, span),
            Class::Parameter => match first {
                Some(tensor @ (Value::Tensor(_) | Value::Foreign(_))) => Ok(tensor),
                other => Err(wrong("a tensor", other.map_or("nothing", Value::kind))),
            },
            Class::FromType => match *self.arena.tuple(span) {
                [
                    function @ Value::Class(_),
                    Value::Class(Class::PlainTensor | Class::Parameter),
                    arguments @ Value::Tuple(_),
                    ..,
                ] if function != Value::Class(Class::FromType) => self.call(function, arguments),
                [_, Value::Class(Class::Foreign(class)), arguments, ..] => {
                    self.put_into(class, &[arguments]);
                    self.arena.foreign[class as usize].holds_tensors = true;
                    Ok(Value::Foreign(class))
                }
                ref parts => Err(wrong("a function, a class and arguments", &kinds(parts))),
            },
            Class::Dtype(_) | Class::Storage(_) | Class::PlainTensor | Class::Foreign(_) => {
                Err(wrong("a class that is called", "an element type"))
            }
        }
    }

    /// Notes whether a tensor becomes a part of an object of a class that is not known here. What else becomes one is
    /// forgotten.
    pub(super) fn put_into(&mut self, class: u32, values: &[Value]) {
        let tensor = |value: &Value| matches!(value, Value::Tensor(_) | Value::Storage(_));
        let holds = values.iter().any(|value| match *value {
            Value::Tuple(span) => self.arena.tuple(span).iter().any(tensor),
            Value::List(list) => self.arena.list(list).iter().any(tensor),
            Value::Dict(dict) | Value::Object(dict) => {
                self.arena.dict(dict).iter().any(|(_, value)| tensor(value))
            }
            other => tensor(&other),
        });
        if let Some(class) = self.arena.foreign.get_mut(class as usize) {
            class.holds_tensors |= holds;
        }
    }

    /// The pairs that a dictionary begins with.
    fn pairs_of(&self, argument: Option<Value>) -> Result<Vec<(Value, Value)>, Fault> {
        let rows = match argument {
            None => return Ok(Vec::new()),
            Some(Value::Dict(dict)) => return Ok(self.arena.dict(dict).to_vec()),
            Some(Value::List(list)) => self.arena.list(list),
            Some(Value::Tuple(span)) => self.arena.tuple(span),
            Some(other) => return Err(wrong("pairs", other.kind())),
        };
        let pair = |row: &Value| match (*row, self.sequence(*row)) {
            (_, Some(&[key, value])) => Ok((key, value)),
            (other, _) => Err(wrong("a pair", other.kind())),
        };
        rows.iter().map(pair).collect()
    }

    fn sequence(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::List(list) => Some(self.arena.list(list)),
            Value::Tuple(span) => Some(self.arena.tuple(span)),
            _ => None,
        }
    }

    /// Attributes of an object: those of a namespace are its content, those of a dictionary (PyTorch's `_metadata`) say
    /// nothing about its tensors.
    pub(super) fn build(&mut self, object: Value, state: Value) -> Result<(), Fault> {
        match (object, state) {
            (Value::Object(object), Value::Dict(state)) => {
                let state = self.arena.dict(state).to_vec();
                let attributes = &mut self.arena.dicts[object as usize];
                Ok(self.budget.extend(attributes, &state)?)
            }
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            (Value::Foreign(class), state) => {
                self.put_into(class, &[state]);
                Ok(())
            }
            // A tensor's own attributes.
            (Value::Tensor(_), _) => Ok(()),
            (Value::Object(_) | Value::Dict(_), other) => {
                Err(wrong("a dict of attributes", other.kind()))
            }
            (other, _) => Err(wrong("an object with attributes", other.kind())),
        }
    }

    /// `('storage', class, key, location, elements[, view])`
    pub(super) fn storage(&mut self, id: Value) -> Result<Value, Fault> {
        let Value::Tuple(span) = id else {
            return Err(wrong("a tuple that names a storage", id.kind()));
        };
        let parts = self.arena.tuple(span);
        if let [Value::Text(_), Value::Class(Class::Foreign(class)), ..] = *parts {
            return Ok(Value::Foreign(class));
        }
        let &[
            Value::Text(word),
            Value::Class(Class::Storage(dtype)),
            Value::Text(key),
            _,
            Value::Int(elements),
            ref view @ ..,
        ] = parts
        else {
            return Err(wrong(
                "a storage's class, key, device and number of elements",
                &kinds(parts),
            ));
        };
        if self.slice(word) != b"storage" {
            return Err(wrong("the word `storage`", "another"));
        }
        let part = match *view {
            [] | [Value::None] => None,
            [Value::Tuple(view)] => match *self.arena.tuple(view) {
                [_, Value::Int(offset), Value::Int(elements)] => Some((offset, elements)),
                ref parts => {
                    return Err(wrong("the key, offset and length of a view", &kinds(parts)));
                }
            },
            ref other => return Err(wrong("a view of a storage", &kinds(other))),
        };
        let storage = StorageRef {
            key,
            dtype,
            elements,
            part,
        };
        let index = short(self.arena.storages.len())?;
        self.budget.push(&mut self.arena.storages, storage)?;
        Ok(Value::Storage(index))
    }

    fn tensor(&mut self, class: Class, arguments: Span) -> Result<Value, Fault> {
        let parts = self.arena.tuple(arguments);
        // Elements of a type that is not read here.
        if let (&[Value::Foreign(foreign), ..], _)
        | (_, Some(&Value::Class(Class::Foreign(foreign)))) = (parts, parts.get(6))
        {
            self.arena.foreign[foreign as usize].holds_tensors = true;
            return Ok(Value::Foreign(foreign));
        }
        let &[
            Value::Storage(storage),
            Value::Int(offset),
            Value::Tuple(sizes),
            Value::Tuple(strides),
            ..,
        ] = parts
        else {
            return Err(wrong(
                "a storage, an offset, sizes and strides of a tensor",
                &kinds(parts),
            ));
        };
        let stated = match (class, parts.get(6)) {
            (Class::TypedTensor, Some(&Value::Class(Class::Dtype(dtype)))) => Some(dtype),
            (Class::TypedTensor, _) => {
                return Err(wrong("an element type in seventh place", &kinds(parts)));
            }
            _ => None,
        };
        let stored = self
            .arena
            .storages
            .get(storage as usize)
            .and_then(|storage| storage.dtype);
        let dtype = match (stated, stored) {
            (Some(stated), Some(stored)) if stated != stored => {
                return Err(wrong(
                    &format!("a storage of {stated:?}"),
                    &format!("one of {stored:?}"),
                ));
            }
            (Some(dtype), _) | (None, Some(dtype)) => dtype,
            (None, None) => {
                return Err(wrong(
                    "a tensor with an element type",
                    "one of an untyped storage",
                ));
            }
        };
        let tensor = TensorRef {
            storage,
            dtype,
            offset,
            sizes,
            strides,
        };
        let index = short(self.arena.tensors.len())?;
        self.budget.push(&mut self.arena.tensors, tensor)?;
        Ok(Value::Tensor(index))
    }
}

/// What the arguments are, for errors.
fn kinds(values: &[Value]) -> String {
    const SHOWN: usize = 8;
    let kinds: Vec<_> = values
        .iter()
        .take(SHOWN)
        .map(|value| value.kind())
        .collect();
    match kinds.is_empty() {
        true => "nothing".into(),
        false => kinds.join(", "),
    }
}
