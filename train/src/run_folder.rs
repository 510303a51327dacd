//! The folder of a run: `config.json`, `metrics.jsonl` and `checkpoint/step-00001234.safetensors`.

use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{
    Checkpoint, create_folder, is_vacant, remove_temporaries, sync_folder, write_atomically,
};

/// How a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// In a folder that is empty or does not exist.
    #[default]
    New,
    /// At step 0, removing the run that is there (its configuration, metrics and checkpoints; nothing else).
    Overwrite,
    /// At the latest checkpoint of the run that is there.
    Resume,
}

/// The folder of one run, opened and checked.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    config_hash: String,
    metrics: File,
}

impl RunFolder {
    /// Opens the folder. `config` is written to `config.json`, or held against the one that is there.
    ///
    /// Resuming drops the metrics beyond the latest checkpoint, so that the log becomes that of one uninterrupted
    /// run. What killed processes left half-written is removed.
    ///
    /// # Errors
    /// When the folder is not empty and `start` is [`Start::New`]; when there is no run or no checkpoint to
    /// resume; when the configuration differs.
    pub fn open(root: impl Into<PathBuf>, config: &impl Serialize, start: Start) -> Result<Self> {
        let root = root.into();
        let config_file = root.join("config.json");
        let config = Config::of(config, &config_file)?;
        match start {
            Start::New if !is_vacant(&root)? => {
                return Err(Error::FolderNotEmpty { folder: root });
            }
            Start::New => {}
            Start::Overwrite => remove_run(&root)?,
            Start::Resume => return Self::resume(root, &config),
        }
        let checkpoints = root.join("checkpoint");
        create_folder(&checkpoints)?;
        write_atomically(&config_file, |file| file.write_all(config.text.as_bytes()))?;
        Self::with_metrics(root, &config)
    }

    /// The folder that another rank has opened, to read what is in it.
    ///
    /// # Errors
    /// When it cannot be opened, or `config` is none.
    pub fn join(root: impl Into<PathBuf>, config: &impl Serialize) -> Result<Self> {
        let root = root.into();
        let config = Config::of(config, &root.join("config.json"))?;
        Self::with_metrics(root, &config)
    }

    fn resume(root: PathBuf, config: &Config) -> Result<Self> {
        let config_file = root.join("config.json");
        let missing = |missing| Error::NothingToResume {
            folder: root.clone(),
            missing,
        };
        if !config_file.is_file() {
            return Err(missing("config.json"));
        }
        remove_temporaries(&root)?;
        let text = fs::read(&config_file).map_err(Error::io("cannot read", &config_file))?;
        config.require_same(&Config::parse(text, &config_file)?, &config_file)?;
        let checkpoints = root.join("checkpoint");
        if checkpoints.is_dir() {
            remove_temporaries(&checkpoints)?;
        }
        let (step, _) = latest(&root)?.ok_or_else(|| missing("checkpoint"))?;
        trim_metrics(&root.join("metrics.jsonl"), step)?;
        Self::with_metrics(root, config)
    }

    fn with_metrics(root: PathBuf, config: &Config) -> Result<Self> {
        let path = root.join("metrics.jsonl");
        let metrics = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self {
            config_hash: config.hash.clone(),
            metrics: metrics.map_err(Error::io("cannot open", &path))?,
            root,
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The latest checkpoint and its step.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn latest(&self) -> Result<Option<(u64, PathBuf)>> {
        latest(&self.root)
    }

    /// Appends one JSON object as a line of `metrics.jsonl`. It must have the field `step`, by which resuming
    /// decides what to drop.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn log(&mut self, line: &impl Serialize) -> Result<()> {
        let path = self.root.join("metrics.jsonl");
        let mut line = serde_json::to_string(line).map_err(|source| json(&path, 1, source))?;
        line.push('\n');
        // One write per line: a kill leaves at most the last line torn.
        let written = self.metrics.write_all(line.as_bytes());
        written.map_err(Error::io("cannot write", &path))
    }

    /// A short mark of the configuration, by which a checkpoint knows its run.
    pub(crate) fn config_hash(&self) -> &str {
        &self.config_hash
    }

    pub(crate) fn checkpoint_file(&self, step: u64) -> PathBuf {
        self.root
            .join(format!("checkpoint/step-{step:08}.safetensors"))
    }

    /// Puts the log on the disk, before a checkpoint that comes after its lines: resuming needs them.
    pub(crate) fn sync_metrics(&self) -> Result<()> {
        let path = self.root.join("metrics.jsonl");
        let synced = self.metrics.sync_all();
        synced
            .and_then(|()| sync_folder(&self.root))
            .map_err(Error::io("cannot write", &path))
    }

    /// Removes all checkpoints but the last `keep`.
    pub(crate) fn prune(&self, keep: usize) -> Result<()> {
        let files = checkpoints(&self.root)?;
        for (_, file) in &files[..files.len().saturating_sub(keep)] {
            fs::remove_file(file).map_err(Error::io("cannot remove", file))?;
        }
        Ok(())
    }
}

/// A configuration as it is in its file.
struct Config {
    text: String,
    value: Value,
    hash: String,
}

impl Config {
    fn of(config: &impl Serialize, file: &Path) -> Result<Self> {
        // Through text and back, because numbers may change on the way, and the file's went that way too.
        let text = serde_json::to_string_pretty(config).map_err(|e| json(file, 1, e))?;
        Self::parse((text + "\n").into(), file)
    }

    fn parse(text: Vec<u8>, file: &Path) -> Result<Self> {
        let value = serde_json::from_slice(&text).map_err(|e| json(file, e.line(), e))?;
        Ok(Self {
            hash: format!("{:016x}", fnv1a(&text)),
            text: String::from_utf8_lossy(&text).into_owned(),
            value,
        })
    }

    fn require_same(&self, ran: &Self, file: &Path) -> Result<()> {
        let mut differences = Vec::new();
        compare("", &ran.value, &self.value, &mut differences);
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(5);
        differences.truncate(5);
        if more > 0 {
            differences.push(format!("and {more} more"));
        }
        Err(Error::ConfigChanged {
            file: file.into(),
            differences,
        })
    }
}

fn compare(path: &str, ran: &Value, now: &Value, differences: &mut Vec<String>) {
    let (Value::Object(a), Value::Object(b)) = (ran, now) else {
        if ran != now {
            differences.push(format!("{path}: ran with {ran}, now {now}"));
        }
        return;
    };
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match (a.get(key), b.get(key)) {
            (Some(ran), Some(now)) => compare(&path, ran, now, differences),
            (Some(ran), None) => differences.push(format!("{path}: ran with {ran}, now absent")),
            (None, Some(now)) => differences.push(format!("{path}: absent then, now {now}")),
            (None, None) => {}
        }
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

fn json(file: &Path, line: usize, source: serde_json::Error) -> Error {
    Error::Json {
        file: file.into(),
        line,
        source,
    }
}

/// Checkpoints first: what is left after a kill in the middle must not look like a run to resume.
fn remove_run(root: &Path) -> Result<()> {
    if is_vacant(root)? {
        return Ok(());
    }
    let mut files: Vec<PathBuf> = checkpoints(root)?
        .into_iter()
        .map(|(_, file)| file)
        .collect();
    files.extend(["metrics.jsonl", "config.json"].map(|name| root.join(name)));
    for file in files.iter().filter(|file| file.is_file()) {
        fs::remove_file(file).map_err(Error::io("cannot remove", file))?;
    }
    let checkpoints = root.join("checkpoint");
    if checkpoints.is_dir() {
        remove_temporaries(&checkpoints)?;
    }
    Ok(remove_temporaries(root)?)
}

/// The checkpoints of a run by ascending step. Every one is whole, because none ever had this name otherwise.
fn checkpoints(root: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = root.join("checkpoint");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Error::io("cannot list", &folder))? {
        let entry = entry.map_err(Error::io("cannot list", &folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let step = name
            .strip_prefix("step-")
            .and_then(|n| n.strip_suffix(".safetensors"));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint of a run's folder that is whole, and its step: what to draw with while the run goes on, or after
/// it was stopped. Its averaged weights are the tensors under `ema.`, the last step's those under `model.`.
///
/// Every checkpoint is read and held against its checksums from the newest on, until one is whole. A run that is going on
/// may remove an old one meanwhile, which is then passed over.
///
/// # Errors
/// When the folder cannot be listed. A folder without a checkpoint is `None`.
pub fn newest_whole(run: &Path) -> Result<Option<(u64, PathBuf)>> {
    let newest_first = checkpoints(run)?.into_iter().rev();
    Ok(newest_first.into_iter().find(|(_, file)| is_whole(file)))
}

/// Whether every tensor can be read and is what its checksum says.
fn is_whole(file: &Path) -> bool {
    let all_read = |checkpoint: Checkpoint| {
        let mut tensors = checkpoint.tensors.values();
        tensors.all(|tensor| tensor.bytes().is_ok())
    };
    Checkpoint::open(file).is_ok_and(all_read)
}

fn latest(root: &Path) -> Result<Option<(u64, PathBuf)>> {
    Ok(checkpoints(root)?.pop())
}

/// Keeps the lines up to `step`; the last line may be torn.
fn trim_metrics(path: &Path, step: u64) -> Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("cannot read", path)(error)),
    };
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let mut kept = String::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            continue;
        }
        let parsed: Line = serde_json::from_str(line).map_err(|e| json(path, index + 1, e))?;
        if parsed.step <= step {
            kept.push_str(line);
        }
    }
    if kept.len() == text.len() {
        return Ok(());
    }
    Ok(write_atomically(path, |file| {
        file.write_all(kept.as_bytes())
    })?)
}
