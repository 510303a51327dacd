//! A machine for the opcodes of a pickle that build data. None of them calls anything: where Python would call a class,
//! one of a dozen known ones is made into a value of its own, and an object of any other is its class's name.

use super::budget::Budget;
use super::calls::Fault;
use super::classes::{Class, class, is_harmful};
use super::value::{Arena, ForeignClass, Span, Value};
use crate::error::{Error, Result};
use std::num::IntErrorKind;
use std::path::Path;

/// The highest protocol of the pickle module.
const LAST_PROTOCOL: u8 = 5;
/// Memo indices follow each other; a gap of this size is no pickler's.
const MEMO_GAP: usize = 1 << 10;

/// What a pickle came to.
pub(super) struct Unpickled {
    pub root: Value,
    pub arena: Arena,
    /// Bytes of the stream that it took.
    pub length: usize,
}

/// Runs one pickle at the beginning of `bytes`. What it builds takes memory from the `budget`.
pub(super) fn unpickle(file: &Path, bytes: &[u8], budget: &mut Budget) -> Result<Unpickled> {
    let mut machine = Machine {
        file,
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        arena: Arena::default(),
        budget,
    };
    let root = machine.run()?;
    if let Value::Foreign(class) | Value::Class(Class::Foreign(class)) = root {
        return Err(Error::Refused {
            file: file.into(),
            class: machine.arena.class_name(class, bytes),
        });
    }
    Ok(Unpickled {
        root,
        length: machine.at,
        arena: machine.arena,
    })
}

pub(super) struct Machine<'a> {
    pub(super) file: &'a Path,
    pub(super) bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    pub(super) arena: Arena,
    pub(super) budget: &'a mut Budget,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value> {
        loop {
            let start = self.at;
            let opcode = self
                .byte()
                .map_err(|fault| self.error(start, None, fault))?;
            if opcode == b'.' {
                return self
                    .pop()
                    .map_err(|fault| self.error(start, Some(opcode), fault));
            }
            self.step(opcode)
                .map_err(|fault| self.error(start, Some(opcode), fault))?;
        }
    }

    fn error(&self, at: usize, opcode: Option<u8>, fault: Fault) -> Error {
        let what = match opcode {
            Some(opcode) => format!("opcode 0x{opcode:02x} at byte {at} of the pickle"),
            None => format!("the pickle at byte {at}"),
        };
        match fault {
            Fault::Refused(class) => Error::Refused {
                file: self.file.into(),
                class,
            },
            Fault::Wrong { expected, found } => Error::format(self.file, what, expected, found),
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            // The stack.
            b'(' => {
                self.budget.push(&mut self.marks, self.stack.len())?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.take_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            // Scalars.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let value = self.decimal(line)?;
                self.push(value)?;
            }
            0x8a => {
                let length = self.byte()?;
                self.long(length.into())?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?);
                self.long(length.into())?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            b'F' => {
                let line = self.line()?;
                let value = self.str(line).and_then(|text| text.trim().parse().ok());
                let value = value.ok_or_else(|| wrong("a number", "other text"))?;
                self.push(Value::Float(value))?;
            }
            // Text and bytes stay where they are.
            b'U' | b'C' | 0x8c => {
                let length = self.byte()?;
                self.text(length.into())?;
            }
            b'T' | b'B' | b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length.into())?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            b'S' | b'V' => {
                let line = self.line()?;
                self.push(Value::Text(unquoted(self.bytes, line)))?;
            }
            // Containers.
            b')' => self.push(Value::Tuple(Span {
                start: 0,
                length: 0,
            }))?,
            0x85 => self.tuple_of(1)?,
            0x86 => self.tuple_of(2)?,
            0x87 => self.tuple_of(3)?,
            b't' => {
                let items = self.take_to_mark()?;
                let tuple = self.tuple(&items)?;
                self.push(tuple)?;
            }
            b']' | 0x8f => {
                let list = self.list(&[])?;
                self.push(list)?;
            }
            b'l' | 0x91 => {
                let items = self.take_to_mark()?;
                let list = self.list(&items)?;
                self.push(list)?;
            }
            b'}' => {
                let dict = self.dict(&[])?;
                self.push(Value::Dict(dict))?;
            }
            b'd' => {
                let items = self.take_to_mark()?;
                let dict = self.dict(&pairs(&items)?)?;
                self.push(Value::Dict(dict))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.take_to_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.take_to_mark()?;
                self.set_items(&items)?;
            }
            // The memo.
            b'h' => {
                let index = self.byte()?;
                self.get(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.get(index as usize)?;
            }
            b'g' => {
                let index = self.index()?;
                self.get(index)?;
            }
            b'q' => {
                let index = self.byte()?;
                self.put(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.put(index as usize)?;
            }
            b'p' => {
                let index = self.index()?;
                self.put(index)?;
            }
            0x94 => self.put(self.memo.len())?,
            // Classes, and what is made of them.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.class(module, name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => self.class(module, name)?,
                (name, _) => return Err(wrong("two strings", name.kind())),
            },
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let value = self.call(callable, arguments)?;
                self.push(value)?;
            }
            0x92 => {
                let (_keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                let value = self.call(callable, arguments)?;
                self.push(value)?;
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                self.build(object, state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            // How the stream is cut.
            0x80 => {
                let protocol = self.byte()?;
                if protocol > LAST_PROTOCOL {
                    return Err(wrong(
                        &format!("protocol 0 to {LAST_PROTOCOL}"),
                        &protocol.to_string(),
                    ));
                }
            }
            0x95 => drop(self.array::<8>()?),
            _ => return Err(wrong("an opcode that builds data", "another")),
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        Ok(self.budget.push(&mut self.stack, value)?)
    }

    /// The last value since the last mark.
    fn top(&self) -> Result<Value, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let values = self.stack.get(floor..).unwrap_or_default();
        let top = values.last().copied();
        top.ok_or_else(|| wrong("a value on the stack", "none"))
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn take_to_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let mark = self.marks.pop().ok_or_else(|| wrong("a mark", "none"))?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn tuple_of(&mut self, count: usize) -> Result<(), Fault> {
        let mut items = [Value::None; 3];
        for item in items[..count].iter_mut().rev() {
            *item = self.pop()?;
        }
        let tuple = self.tuple(&items[..count])?;
        self.push(tuple)
    }

    pub(super) fn tuple(&mut self, items: &[Value]) -> Result<Value, Fault> {
        let span = Span {
            start: short(self.arena.items.len())?,
            length: short(items.len())?,
        };
        self.budget.extend(&mut self.arena.items, items)?;
        Ok(Value::Tuple(span))
    }

    pub(super) fn list(&mut self, items: &[Value]) -> Result<Value, Fault> {
        let list = short(self.arena.lists.len())?;
        let mut own = Vec::new();
        self.budget.extend(&mut own, items)?;
        self.budget.push(&mut self.arena.lists, own)?;
        Ok(Value::List(list))
    }

    /// The place of a new dictionary.
    pub(super) fn dict(&mut self, items: &[(Value, Value)]) -> Result<u32, Fault> {
        let dict = short(self.arena.dicts.len())?;
        let mut own = Vec::new();
        self.budget.extend(&mut own, items)?;
        self.budget.push(&mut self.arena.dicts, own)?;
        Ok(dict)
    }

    fn append(&mut self, items: &[Value]) -> Result<(), Fault> {
        match self.top()? {
            Value::List(list) => {
                let list = &mut self.arena.lists[list as usize];
                Ok(self.budget.extend(list, items)?)
            }
            Value::Foreign(class) => {
                self.put_into(class, items);
                Ok(())
            }
            other => Err(wrong("a list", other.kind())),
        }
    }

    fn set_items(&mut self, items: &[Value]) -> Result<(), Fault> {
        match self.top()? {
            Value::Dict(dict) => {
                let dict = &mut self.arena.dicts[dict as usize];
                Ok(self.budget.extend(dict, &pairs(items)?)?)
            }
            Value::Foreign(class) => {
                self.put_into(class, items);
                Ok(())
            }
            other => Err(wrong("a dict", other.kind())),
        }
    }

    fn get(&mut self, index: usize) -> Result<(), Fault> {
        let value = self.memo.get(index).copied().flatten();
        let value = value
            .ok_or_else(|| wrong("a value that was memoised", &format!("none under {index}")))?;
        self.push(value)
    }

    fn put(&mut self, index: usize) -> Result<(), Fault> {
        let length = self.memo.len();
        if index > length + MEMO_GAP {
            return Err(wrong(
                &format!("a memo index near {length}"),
                &index.to_string(),
            ));
        }
        let value = self.top()?;
        if index >= length {
            self.budget.reserve(&mut self.memo, index + 1 - length)?;
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(value);
        Ok(())
    }

    fn class(&mut self, module: Span, name: Span) -> Result<(), Fault> {
        let (in_module, called) = (self.slice(module), self.slice(name));
        if let Some(class) = class(in_module, called) {
            return self.push(Value::Class(class));
        }
        let harmful = is_harmful(in_module, called);
        let foreign = short(self.arena.foreign.len())?;
        let class = ForeignClass {
            module,
            name,
            holds_tensors: false,
        };
        self.budget.push(&mut self.arena.foreign, class)?;
        match harmful {
            true => Err(Fault::Refused(self.arena.class_name(foreign, self.bytes))),
            false => self.push(Value::Class(Class::Foreign(foreign))),
        }
    }

    // The stream.

    fn take(&mut self, length: u64) -> Result<Span, Fault> {
        let left = self.bytes.len() - self.at;
        if length > left as u64 {
            return Err(wrong(
                &format!("{length} bytes"),
                &format!("the end after {left}"),
            ));
        }
        let span = Span {
            start: short(self.at)?,
            length: short(length as usize)?,
        };
        self.at += length as usize;
        Ok(span)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let span = self.take(N as u64)?;
        Ok(*self
            .slice(span)
            .first_chunk()
            .expect("so many bytes were taken"))
    }

    /// Up to the end of the line, which is left out.
    fn line(&mut self) -> Result<Span, Fault> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| wrong("a line", "one without an end"))?;
        let line = self.take(length as u64)?;
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, length: u64) -> Result<(), Fault> {
        let span = self.take(length)?;
        self.push(Value::Text(span))
    }

    pub(super) fn slice(&self, span: Span) -> &[u8] {
        span.of(self.bytes)
    }

    fn str(&self, span: Span) -> Option<&str> {
        std::str::from_utf8(self.slice(span)).ok()
    }

    fn index(&mut self) -> Result<usize, Fault> {
        let line = self.line()?;
        let index = self.str(line).and_then(|text| text.trim().parse().ok());
        index.ok_or_else(|| wrong("a number", "other text"))
    }

    /// A decimal number, of which protocol 0 writes `00` and `01` for the truth values.
    fn decimal(&self, line: Span) -> Result<Value, Fault> {
        let text = self.str(line).unwrap_or_default().trim();
        match text {
            "00" => Ok(Value::Bool(false)),
            "01" => Ok(Value::Bool(true)),
            _ => match text.trim_end_matches('L').parse::<i64>() {
                Ok(value) => Ok(Value::Int(value)),
                Err(error) => match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => Ok(Value::Opaque),
                    _ => Err(wrong("an integer", "other text")),
                },
            },
        }
    }

    /// A little-endian integer in two's complement. One of more than 64 bits is no size: what it is does not matter.
    fn long(&mut self, length: u64) -> Result<(), Fault> {
        let span = self.take(length)?;
        let digits = self.slice(span);
        let value = match digits.last() {
            None => Value::Int(0),
            Some(last) if digits.len() <= 8 => {
                let mut bytes = [if *last >= 0x80 { 0xff } else { 0 }; 8];
                bytes[..digits.len()].copy_from_slice(digits);
                Value::Int(i64::from_le_bytes(bytes))
            }
            Some(_) => Value::Opaque,
        };
        self.push(value)
    }
}

/// Keys and values in turn, as pairs.
fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>, Fault> {
    let (pairs, rest) = items.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(wrong("a value to every key", "a key without one")),
    }
}

/// The text between the quotes of protocol 0's strings.
fn unquoted(bytes: &[u8], line: Span) -> Span {
    match line.of(bytes) {
        [open @ (b'\'' | b'"'), .., close] if open == close => Span {
            start: line.start + 1,
            length: line.length - 2,
        },
        _ => line,
    }
}

pub(super) fn wrong(expected: &str, found: &str) -> Fault {
    Fault::Wrong {
        expected: expected.into(),
        found: found.into(),
    }
}

pub(super) fn short(length: usize) -> Result<u32, Fault> {
    u32::try_from(length).map_err(|_| wrong("a pickle of less than 4 GiB", "a longer one"))
}
