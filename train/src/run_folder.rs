//! The folder of a run: `config.json`, `metrics.jsonl` and `checkpoint/step-00001234.safetensors`.

use crate::error::{Error, Result};
use crate::lock::RunLock;
use crate::run_config::{Changes, Config, Scope};
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tessera_checkpoint::{
    Checkpoint, WEIGHTS_FILE, create_folder, is_vacant, remove_temporaries, sync_folder,
    visible_entries, write_atomically,
};

/// What the run was started with.
const CONFIG_FILE: &str = "config.json";
/// The log.
const METRICS_FILE: &str = "metrics.jsonl";
/// The folder of the checkpoints.
const CHECKPOINTS: &str = "checkpoint";
/// Latents of the pictures that a run is trained on, kept in its folder.
pub const LATENTS_FILE: &str = "latents.safetensors";
/// The folder of the finished model.
const MODEL: &str = "model";
/// Folders that a run leaves.
const RESULTS: [&str; 3] = ["samples", MODEL, "vae"];

/// How a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// In a folder that is empty or does not exist, or where a run was killed before its first checkpoint.
    #[default]
    New,
    /// At step 0, removing the run that is there: its configuration, metrics, checkpoints, samples and model; nothing
    /// else.
    Overwrite,
    /// At the latest checkpoint of the run that is there.
    Resume,
}

/// A run folder that this process has locked and not yet changed, so that what takes long can be done and checked
/// before a run begins or goes on.
#[derive(Debug)]
pub struct RunEntry {
    root: PathBuf,
    start: Start,
    /// `None` at ranks that only read.
    lock: Option<RunLock>,
    /// What the run to resume was started with.
    ran: Option<Config>,
}

impl RunEntry {
    /// Locks the folder, and makes it if a new run begins.
    ///
    /// # Errors
    /// When another process writes into it; when it is not empty and `start` is [`Start::New`]; when there is no run or
    /// no checkpoint to resume.
    pub fn of(root: impl Into<PathBuf>, start: Start) -> Result<Self> {
        let root = root.into();
        let config_file = root.join(CONFIG_FILE);
        let missing = |missing| Error::NothingToResume {
            folder: root.clone(),
            missing,
        };
        match start {
            Start::Resume if !config_file.is_file() => return Err(missing(CONFIG_FILE)),
            Start::New if !is_empty(&root)? => {
                RunLock::require_free(&root)?;
                return Err(Error::FolderNotEmpty { folder: root });
            }
            _ => create_folder(&root)?,
        }
        let lock = Some(RunLock::take(&root)?);
        let ran = match start {
            Start::Resume => Some(Config::read(&config_file)?),
            // Whoever held the lock until now may have begun a run.
            Start::New if !is_empty(&root)? => return Err(Error::FolderNotEmpty { folder: root }),
            _ => None,
        };
        if start == Start::Resume && latest(&root)?.is_none() {
            return Err(missing("checkpoint"));
        }
        Ok(Self {
            root,
            start,
            lock,
            ran,
        })
    }

    /// The folder that another rank has entered.
    pub(crate) fn of_other(root: &Path, start: Start) -> Self {
        Self {
            root: root.into(),
            start,
            lock: None,
            ran: None,
        }
    }

    /// Holds the fields of a configuration that are known so far against those that the run to resume has.
    ///
    /// # Errors
    /// [`Error::ConfigChanged`].
    pub fn require_same(&self, known: &impl Serialize) -> Result<()> {
        let file = self.root.join(CONFIG_FILE);
        let Some(ran) = &self.ran else {
            return Ok(());
        };
        Config::of(known, &file)?.against(ran, Scope::Known, &file)?;
        Ok(())
    }

    /// Opens the folder. `config` is written to `config.json`, or held against the one that is there: what shapes the
    /// result must be the same, and the end of the run and how often it writes may change.
    ///
    /// Resuming drops the metrics beyond the latest checkpoint, so that the log becomes that of one uninterrupted
    /// run. What killed processes left half-written is removed.
    ///
    /// # Errors
    /// When the configuration differs, or a file cannot be written.
    pub fn open(self, config: &impl Serialize) -> Result<RunFolder> {
        let config_file = self.root.join(CONFIG_FILE);
        let mut config = Config::of(config, &config_file)?;
        let (mut changes, mut dropped) = (Changes::default(), Vec::new());
        if let Some(ran) = &self.ran {
            changes = config.against(ran, Scope::Whole, &config_file)?;
            config.mark.clone_from(&ran.mark);
        }
        if self.lock.is_some() {
            // What a killed run left, too, may be of other settings.
            if self.start != Start::Resume {
                remove_run(&self.root)?;
            }
            let checkpoints = self.root.join(CHECKPOINTS);
            create_folder(&checkpoints)?;
            for folder in [&self.root, &checkpoints] {
                remove_temporaries(folder)?;
            }
            config.write(&config_file)?;
            if self.start == Start::Resume {
                let (step, _) = latest(&self.root)?.unwrap_or_default();
                dropped = trim_metrics(&self.root.join(METRICS_FILE), step)?;
            }
        } else {
            // As the first rank wrote it.
            config.mark = Config::read(&config_file)?.mark;
        }
        let path = self.root.join(METRICS_FILE);
        let metrics = OpenOptions::new().create(true).append(true).open(&path);
        Ok(RunFolder {
            mark: config.mark,
            metrics: metrics.map_err(Error::io("cannot open", &path))?,
            root: self.root,
            lock: self.lock,
            changes,
            dropped,
        })
    }
}

/// The folder of one run, opened and checked.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    mark: String,
    metrics: File,
    lock: Option<RunLock>,
    changes: Changes,
    dropped: Vec<usize>,
}

impl RunFolder {
    /// [Enters](RunEntry::of) the folder and [opens](RunEntry::open) it.
    ///
    /// # Errors
    /// As both.
    pub fn open(root: impl Into<PathBuf>, config: &impl Serialize, start: Start) -> Result<Self> {
        RunEntry::of(root, start)?.open(config)
    }

    /// Keeps other processes from writing into the folder as long as it lives: for what is written when training has
    /// ended. `None` at a rank that does not write.
    pub fn lock(&self) -> Option<RunLock> {
        self.lock.clone()
    }

    /// What is otherwise than when the run was started.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The lines of `metrics.jsonl`, from 1, that were dropped because they are none.
    pub fn dropped_metrics(&self) -> &[usize] {
        &self.dropped
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
        let path = self.root.join(METRICS_FILE);
        let mut line = serde_json::to_string(line).map_err(|source| json(&path, 1, source))?;
        line.push('\n');
        // One write per line: a kill leaves at most the last line torn.
        let written = self.metrics.write_all(line.as_bytes());
        written.map_err(Error::io("cannot write", &path))
    }

    /// By which a checkpoint knows its run.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn checkpoint_file(&self, step: u64) -> PathBuf {
        self.root
            .join(format!("{CHECKPOINTS}/step-{step:08}.safetensors"))
    }

    /// Puts the log on the disk, before a checkpoint that comes after its lines: resuming needs them.
    pub(crate) fn sync_metrics(&self) -> Result<()> {
        let path = self.root.join(METRICS_FILE);
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

fn json(file: &Path, line: usize, source: serde_json::Error) -> Error {
    Error::Json {
        file: file.into(),
        line,
        source,
    }
}

/// Whether there is nothing of anybody's. Hidden files do not count, nor does what a run leaves that was killed before
/// its first checkpoint: there is nothing to resume. Latents know what they are of.
fn is_empty(root: &Path) -> Result<bool> {
    let entries = visible_entries(root)?;
    let names = entries.iter().map(|name| (name, root.join(name)));
    let nothing = names.map(|(name, path)| {
        Ok(match name.to_str() {
            Some(LATENTS_FILE) => true,
            Some(CONFIG_FILE) => Config::is_of_run(&path),
            Some(METRICS_FILE) => fs::metadata(&path).is_ok_and(|file| file.len() == 0),
            Some(CHECKPOINTS) => path.is_dir() && is_vacant(&path)?,
            // All but its weights is there from the start.
            Some(MODEL) => {
                Config::is_of_run(&root.join(CONFIG_FILE)) && !path.join(WEIGHTS_FILE).exists()
            }
            _ => false,
        })
    });
    let nothing = nothing.collect::<Result<Vec<_>>>()?;
    Ok(nothing.into_iter().all(|nothing| nothing))
}

/// Checkpoints first: what is left after a kill in the middle must not look like a run to resume. What the run had made
/// goes too, or it would be taken for the new run's until that ends.
fn remove_run(root: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = checkpoints(root)?
        .into_iter()
        .map(|(_, file)| file)
        .collect();
    let was_run = root.join(CONFIG_FILE).is_file();
    files.extend([METRICS_FILE, CONFIG_FILE].map(|name| root.join(name)));
    if was_run {
        for folder in RESULTS.map(|name| root.join(name)) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("cannot remove", &folder)(error));
                }
                _ => {}
            }
        }
        files.push(root.join("validation.jsonl"));
    }
    for file in files.iter().filter(|file| file.is_file()) {
        fs::remove_file(file).map_err(Error::io("cannot remove", file))?;
    }
    Ok(())
}

/// The checkpoints of a run by ascending step. Every one is whole, because none ever had this name otherwise.
fn checkpoints(root: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let folder = root.join(CHECKPOINTS);
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

/// The newest checkpoint of a run's folder that is whole, and its step: what to draw with while the run goes on, or
/// after it was stopped. Its averaged weights are the tensors under `ema.`, the last step's those under `model.`.
///
/// Every checkpoint is read and held against its checksums from the newest on, until one is whole. A run that is going
/// on may remove an old one meanwhile, which is then passed over.
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

/// Keeps the lines up to `step`, the last of which may be torn. Gives the numbers, from 1, of others that are no lines
/// of metrics: it is a log, and no reason not to go on.
fn trim_metrics(path: &Path, step: u64) -> Result<Vec<usize>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("cannot read", path)(error)),
    };
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for (index, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.last() != Some(&b'\n') {
            continue;
        }
        match serde_json::from_slice::<Line>(line) {
            Ok(parsed) if parsed.step <= step => kept.extend_from_slice(line),
            Ok(_) => {}
            Err(_) => dropped.push(index + 1),
        }
    }
    if kept.len() < text.len() {
        write_atomically(path, |file| file.write_all(&kept))?;
    }
    Ok(dropped)
}
