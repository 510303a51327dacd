//! Pictures named on the command line, brought to the size a tokenizer reads.

use crate::args::{DataArgs, within};
use crate::{data, interrupt, output};
use anyhow::{Context, Result, bail, ensure};
use clap::{ArgGroup, Args};
use std::path::PathBuf;
use std::sync::Once;
use tessera::pictures::dataset::Split;
use tessera::pictures::{Found, counted, find};
use tessera::{Color, InputPicture, Inputs, Tokenizer};

/// Where pictures come from.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("pictures").required(true).args(["input", "data"]))]
pub struct PictureArgs {
    /// Pictures: files, folders with all below them, or patterns with * and ?.
    #[arg(short, long, num_args = 1.., value_name = "PATH")]
    pub input: Vec<PathBuf>,
    /// A folder with a sub-folder per class, or of MNIST-style IDX files (their test half).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Take the train half of IDX files.
    #[arg(long, requires = "data")]
    pub train_split: bool,
    /// Stop after so many pictures; none is left out unless given.
    #[arg(long, value_name = "N", value_parser = within(1..=u64::MAX))]
    pub limit: Option<u64>,
}

/// The pictures of a command, read when they are asked for.
pub struct Pictures {
    inputs: Inputs,
    /// Says once that color is lost; spent where notes are not wanted.
    gray_note: Once,
}

impl Pictures {
    /// Finds the pictures; each is read later.
    ///
    /// # Errors
    /// When a path does not exist, a pattern matches nothing, or no picture is found.
    pub fn open(args: &PictureArgs, tokenizer: &Tokenizer, quiet: bool) -> Result<Self> {
        let limit = args.limit.map_or(usize::MAX, |limit| limit as usize);
        let Some(folder) = &args.data else {
            let Found {
                mut files,
                left_out,
            } = find(&args.input)?;
            if !quiet && !left_out.is_empty() {
                output::note(format_args!(
                    "data: {}; left out: {left_out}",
                    counted(files.len())
                ));
            }
            files.truncate(limit);
            return Ok(Self::of(Inputs::files(files), quiet));
        };
        let square = tokenizer.square.with_context(|| {
            format!(
                "{}: the pictures of a data set are of one size; give it with --img-size",
                folder.display()
            )
        })?;
        let split = if args.train_split {
            Split::Train
        } else {
            Split::Test
        };
        let args = DataArgs {
            data: folder.clone(),
            img_size: square.img_size,
            channels: tokenizer.vae.image_channels(),
            strict: false,
        };
        let data = data::open(&args, split, quiet)?;
        let count = data.len().min(limit);
        Ok(Self::of(Inputs::Data(data, count), quiet))
    }

    fn of(inputs: Inputs, quiet: bool) -> Self {
        let gray_note = Once::new();
        if quiet {
            gray_note.call_once(|| {});
        }
        Self { inputs, gray_note }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inputs.count()
    }

    /// The names of the classes, none for single files.
    pub fn class_names(&self) -> &[String] {
        self.inputs.class_names()
    }

    /// Height and width that the pictures had before they were padded, where they were.
    pub fn padded_from(&self) -> Option<[usize; 2]> {
        self.inputs.padded_from()
    }

    /// Picture `index`; says of the first in color that its color is lost.
    fn get(&self, index: usize, tokenizer: &Tokenizer) -> Result<InputPicture> {
        let picture = self.inputs.get(index, tokenizer)?;
        if let (Color::Lost, Some(path)) = (picture.color, self.inputs.file(index)) {
            self.gray_note.call_once(|| {
                output::note(format_args!(
                    "note: {} is in color and {} is gray: color is lost; give a tokenizer for color with -m",
                    path.display(),
                    tokenizer.name
                ));
            });
        }
        Ok(picture)
    }

    /// Gives all pictures in batches to `each`; one that cannot be read is named on stderr and left out.
    ///
    /// # Errors
    /// When `each` fails or Ctrl-C is pressed.
    pub fn batches(
        &self,
        tokenizer: &Tokenizer,
        mut each: impl FnMut(Vec<InputPicture>) -> Result<()>,
    ) -> Result<LeftOut> {
        let mut left_out = LeftOut::none_of(self.len());
        let indices: Vec<_> = (0..self.len()).collect();
        for chunk in indices.chunks(tokenizer.batch()) {
            let mut batch = Vec::with_capacity(chunk.len());
            for &index in chunk {
                batch.extend(left_out.or(self.get(index, tokenizer))?);
            }
            if !batch.is_empty() {
                each(batch)?;
            }
            if interrupt::requested() {
                bail!(
                    "stopped after {} of {} pictures",
                    chunk[chunk.len() - 1] + 1,
                    self.len()
                );
            }
        }
        left_out.some_done()?;
        Ok(left_out)
    }
}

/// Says which tokenizer works where the user named none.
pub fn say_builtin(tokenizer: &Tokenizer, quiet: bool) {
    if quiet {
        return;
    }
    let color = match tokenizer.vae.image_channels() {
        1 => "gray",
        _ => "color",
    };
    let size = tokenizer.square.map_or_else(String::new, |square| {
        format!(", {} px", square.picture_size)
    });
    output::note(format_args!(
        "note: no model given, so the built-in one is used: {} ({color}{size}); give another with -m",
        tokenizer.name
    ));
}

/// Pictures that are named and left out, so that one bad file does not end what others are in.
#[derive(Debug)]
pub struct LeftOut {
    failed: usize,
    of: usize,
}

impl LeftOut {
    /// None yet, of so many pictures.
    pub fn none_of(pictures: usize) -> Self {
        Self {
            failed: 0,
            of: pictures,
        }
    }

    /// A picture, or nothing in place of one whose error is said.
    ///
    /// # Errors
    /// When it is the only one: its fault is the command's.
    pub fn or<T>(&mut self, picture: Result<T>) -> Result<Option<T>> {
        match picture {
            Ok(picture) => Ok(Some(picture)),
            Err(error) if self.of == 1 => Err(error),
            Err(error) => {
                self.failed += 1;
                output::note(format_args!("error: {error:#}"));
                Ok(None)
            }
        }
    }

    /// Goes on with the others.
    ///
    /// # Errors
    /// When there are none.
    pub fn some_done(&self) -> Result<()> {
        ensure!(
            self.failed < self.of,
            "none of the {} pictures could be read",
            self.of
        );
        Ok(())
    }

    /// Ends what was done for the others.
    ///
    /// # Errors
    /// When any was left out.
    pub fn all_done(&self) -> Result<()> {
        let Self { failed, of } = self;
        ensure!(
            *failed == 0,
            "{failed} of {of} pictures could not be read; the others are done"
        );
        Ok(())
    }
}
