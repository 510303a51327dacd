//! What can go wrong with pictures, said with the file, the fault, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a caller's own code, such as a decoder.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A fault in reading, writing or comparing pictures, or in a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// A folder was given where a picture belongs.
    #[error("{}: is a folder, expected a picture file", path.display())]
    IsFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The file is already there and overwriting was not asked for.
    #[error("{}: already exists", path.display())]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("{}: cannot read", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("{}: cannot write", path.display())]
    WriteFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The content is no picture of a known kind, whatever the name's extension says.
    #[error("{}: expected {expected}, found {found}", path.display())]
    NotAPicture {
        /// The file.
        path: PathBuf,
        /// The formats that would have done.
        expected: &'static str,
        /// What its first bytes are.
        found: String,
    },
    /// The content is a picture of a format that is known and not read.
    #[error("{}: {format} is not supported; convert it to PNG or JPEG", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The format it is in, and what of it is not read.
        format: String,
    },
    /// What the path names is neither a file nor a folder: a pipe, a socket or a device.
    #[error("{}: is a pipe or a device, expected a picture file", path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// The file has more bytes than are read.
    #[error("{}: has {bytes} bytes, expected at most {limit_bytes}", path.display())]
    LargeFile {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The most bytes that are read.
        limit_bytes: u64,
    },
    /// The file ends before the picture does.
    #[error("{}: truncated {format}: expected {expected}, found {found}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The format it is in.
        format: &'static str,
        /// What the format still owes.
        expected: String,
        /// Where the file ends.
        found: String,
    },
    /// The header announces more pixels than this crate will allocate.
    #[error(
        "{}: announces {height}x{width} px (height x width), expected at most {limit_px} px in all",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Announced height in pixels.
        height: usize,
        /// Announced width in pixels.
        width: usize,
        /// The most pixels that are read.
        limit_px: usize,
    },
    /// The file is of a known format but its content is broken.
    #[error("{}: broken {format}: {reason}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// The format it is in.
        format: &'static str,
        /// The decoder's reason.
        reason: String,
    },
    /// The PNG encoder refused.
    #[error("{}: cannot encode as PNG", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The encoder's reason.
        #[source]
        source: png::EncodingError,
    },
    /// A piece of metadata that PNG has no place for.
    #[error("metadata {keyword:?}: expected {expected}")]
    Metadata {
        /// Its keyword.
        keyword: String,
        /// What PNG asks of it.
        expected: &'static str,
    },
    /// A picture has another size or another number of channels than the operation needs.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The argument at fault.
        what: &'static str,
        /// The shape that was needed.
        expected: String,
        /// The shape that was given.
        found: String,
    },
    /// A value that is NaN or infinite, where a picture must be finite.
    #[error("{what}: value {value} at [channel, row, column] = {index:?} is not finite")]
    NotFinite {
        /// The argument at fault.
        what: &'static str,
        /// The first such value.
        value: f32,
        /// Where it stands.
        index: [usize; 3],
    },
    /// A folder cannot be listed.
    #[error("{}: cannot list this folder", folder.display())]
    ListFolder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{}: {what} is {found}, expected {expected}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The part that is wrong.
        what: &'static str,
        /// What a good file has there.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A folder has no data of the kind wanted.
    #[error("no {expected} in {}{found}", folder.display())]
    NoData {
        /// The folder.
        folder: PathBuf,
        /// What was looked for.
        expected: String,
        /// What there is instead, after a semicolon; empty if that says nothing.
        found: String,
    },
    /// A picture could not be used, and the caller asked for strictness.
    #[error("{}", of_file(file, &**reason))]
    BadPicture {
        /// The picture.
        file: PathBuf,
        /// Why it could not be used.
        reason: BoxError,
    },
    /// No picture of a class can be used.
    #[error("{}: none of its {count} pictures can be read; the first: {reason}", folder.display())]
    BadClass {
        /// The folder of the class.
        folder: PathBuf,
        /// How many pictures it has.
        count: usize,
        /// Why the first of them could not be used.
        reason: String,
    },
    /// The halves of a data set have different classes.
    #[error("{}: is no class of {}, which are {}", folder.display(), training.display(), classes.join(", "))]
    UnknownClass {
        /// The folder in the test half.
        folder: PathBuf,
        /// The training half.
        training: PathBuf,
        /// Its classes.
        classes: Vec<String>,
    },
    /// A file was given where a folder of data belongs.
    #[error("{}: expected a folder, found {found}", path.display())]
    NoFolder {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do with it.
        found: &'static str,
    },
    /// Pictures that are padded, never shrunk, are larger than the squares.
    #[error("{name}: its pictures have {width}x{height} px, expected at most {size}x{size}")]
    LargerThanSquare {
        /// The data set.
        name: String,
        /// Width of its pictures in px.
        width: usize,
        /// Height of its pictures in px.
        height: usize,
        /// Side of the squares in px.
        size: usize,
    },
    /// Images of a data set differ in shape.
    #[error("images are {found:?}, expected {expected:?} (channels, height, width)")]
    ImageShape {
        /// Channels, height and width wanted.
        expected: [usize; 3],
        /// Those of the images.
        found: [usize; 3],
    },
    /// Crops were asked for of pictures that are padded, not cropped.
    #[error("{}: IDX pictures are padded, not cropped: only photographs have several crops", .0.display())]
    IdxCrops(PathBuf),
    /// No file is where a path or a pattern points.
    #[error("{}: {what}", path.display())]
    NoMatch {
        /// The path or pattern.
        path: PathBuf,
        /// `no such file`, `no file matches`, or what a folder lacks.
        what: String,
    },
}

impl Error {
    /// A fault in reading `path`, with the two that users meet most told apart.
    pub(crate) fn reading(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { path },
            std::io::ErrorKind::IsADirectory => Self::IsFolder { path },
            _ => Self::ReadFile { path, source },
        }
    }

    pub(crate) fn format(
        file: &Path,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Format {
            file: file.into(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}

/// What an error and its causes say, each thing once: many repeat their cause in their own text.
pub(crate) fn once(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// A reason with the name of its file, which many reasons begin with themselves.
pub(crate) fn of_file(file: &Path, reason: &(dyn std::error::Error + 'static)) -> String {
    let (name, reason) = (file.display().to_string(), once(reason));
    match reason.starts_with(&name) {
        true => reason,
        false => format!("{name}: {reason}"),
    }
}
