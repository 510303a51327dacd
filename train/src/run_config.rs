//! What a run was started with, in `config.json`, and what of it a resumed run may have otherwise.

use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use tessera_checkpoint::write_atomically;

/// Settings of [`TrainConfig`](crate::TrainConfig) that a resumed run may have otherwise: its end, and how often it
/// writes.
const MAY_CHANGE: [&str; 5] = [
    "epochs",
    "max_steps",
    "save_every",
    "keep_last",
    "log_every",
];
/// Where a `TrainConfig` is in a configuration that is more than one.
const TRAINING: &str = "training";
/// The field that this crate adds: the mark by which checkpoints know their run, whatever has changed since.
const MARK: &str = "mark";

/// A setting that is not what it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its path in `config.json`, such as `training.lr`.
    pub field: String,
    /// What the run was started with.
    pub ran: Option<Value>,
    /// What is given now.
    pub now: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<Value>| match value {
            Some(value) => value.to_string(),
            None => "nothing".into(),
        };
        let (ran, now) = (value(&self.ran), value(&self.now));
        write!(f, "{}: ran with {ran}, now {now}", self.field)
    }
}

/// What is otherwise in a resumed run, and need not be the same.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Settings that may change.
    pub settings: Vec<Difference>,
    /// Fields of the configuration that an older version did not write, so nothing is known of what the run had there.
    pub unrecorded: Vec<String>,
}

/// A configuration as it is, or will be, in its file.
#[derive(Debug)]
pub(crate) struct Config {
    text: String,
    value: Map<String, Value>,
    /// By which a checkpoint knows its run.
    pub mark: String,
}

impl Config {
    /// The configuration given.
    pub fn of(config: &impl Serialize, file: &Path) -> Result<Self> {
        let json = |source| Error::Json {
            file: file.into(),
            line: 1,
            source,
        };
        // Through text and back, because numbers may change on the way, and the file's went that way too.
        let text = serde_json::to_string_pretty(config).map_err(json)?;
        let value = serde_json::from_str(&text).map_err(json)?;
        let mut config = Self {
            mark: String::new(),
            text,
            value,
        };
        let mut shaping = config.value.clone();
        without_free(&mut shaping);
        config.mark = hash(Value::from(shaping).to_string().as_bytes());
        Ok(config)
    }

    /// The configuration in a file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).map_err(Error::io("cannot read", file))?;
        let value = serde_json::from_slice(&text);
        let mut value: Map<String, Value> = value.map_err(|source| Error::Json {
            file: file.into(),
            line: source.line(),
            source,
        })?;
        let mark = match value.remove(MARK) {
            Some(Value::String(mark)) => mark,
            // As older versions marked their checkpoints.
            _ => hash(&text),
        };
        Ok(Self {
            text: String::from_utf8_lossy(&text).into_owned(),
            value,
            mark,
        })
    }

    /// Whether a file is the configuration of a run.
    pub fn is_of_run(file: &Path) -> bool {
        let value = fs::read(file).map(|text| serde_json::from_slice::<Value>(&text));
        matches!(value, Ok(Ok(value)) if value[MARK].is_string())
    }

    /// Writes the file: whole or not at all.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = self.text.trim_end();
        let fields = text.strip_suffix('}').map_or(text, str::trim_end);
        let comma = if self.value.is_empty() { "" } else { "," };
        let mark = &self.mark;
        Ok(write_atomically(file, |file| {
            writeln!(file, "{fields}{comma}\n  \"{MARK}\": \"{mark}\"\n}}")
        })?)
    }

    /// What is not as it `ran`, of the fields that this configuration has; of all, if it is `whole`.
    ///
    /// # Errors
    /// [`Error::ConfigChanged`] when it must not change.
    pub fn against(&self, ran: &Self, scope: Scope, file: &Path) -> Result<Changes> {
        let mut all = Vec::new();
        let mut changes = Changes::default();
        for (key, now) in &self.value {
            match ran.value.get(key) {
                Some(ran) => compare(key, Some(ran), Some(now), &mut all),
                None => changes.unrecorded.push(key.clone()),
            }
        }
        if scope == Scope::Whole {
            for (key, ran) in &ran.value {
                if !self.value.contains_key(key) {
                    compare(key, Some(ran), None, &mut all);
                }
            }
        }
        let (free, fixed): (Vec<_>, Vec<_>) = all.into_iter().partition(Difference::is_free);
        changes.settings = free;
        match fixed.is_empty() {
            true => Ok(changes),
            false => Err(Error::ConfigChanged {
                file: file.into(),
                differences: fixed,
            }),
        }
    }
}

/// How much of a configuration is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The fields that are known so far.
    Known,
    /// All.
    Whole,
}

impl Difference {
    fn is_free(&self) -> bool {
        let field = self.field.strip_prefix(TRAINING);
        let field = field.and_then(|field| field.strip_prefix('.'));
        MAY_CHANGE.contains(&field.unwrap_or(&self.field))
    }
}

fn without_free(config: &mut Map<String, Value>) {
    config.retain(|key, _| !MAY_CHANGE.contains(&&**key));
    if let Some(Value::Object(training)) = config.get_mut(TRAINING) {
        training.retain(|key, _| !MAY_CHANGE.contains(&&**key));
    }
}

fn compare(
    path: &str,
    ran: Option<&Value>,
    now: Option<&Value>,
    differences: &mut Vec<Difference>,
) {
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (ran, now) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            compare(
                &format!("{path}.{key}"),
                a.get(key),
                b.get(key),
                differences,
            );
        }
    } else if ran != now {
        differences.push(Difference {
            field: path.into(),
            ran: ran.cloned(),
            now: now.cloned(),
        });
    }
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> String {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{hash:016x}")
}
