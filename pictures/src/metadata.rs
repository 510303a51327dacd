//! The text that a PNG carries: what it may hold, and reading it back.

use std::io::Cursor;
use std::path::Path;

use crate::container::{Format, png_fault};
use crate::decoders::{Panicked, guarded, plain};
use crate::error::{BoxError, Error, Result, once};
use crate::read::content;

/// The most bytes that all compressed texts of a file may unfold to, so that a small one cannot claim all memory.
const LIMIT_TEXT_BYTES: usize = 1 << 24;

/// A keyword and its text in the plainest chunk that can hold it.
pub(crate) enum Text<'a> {
    Latin1(&'a str, &'a str),
    Utf8(&'a str, &'a str),
}

/// Fails if PNG has no place for such a keyword or text.
pub(crate) fn checked<'a>(keyword: &'a str, text: &'a str) -> Result<Text<'a>> {
    let refuse = |expected| {
        Err(Error::Metadata {
            keyword: keyword.to_string(),
            expected,
        })
    };
    if !(1..=79).contains(&keyword.chars().count()) {
        return refuse("a keyword of 1 to 79 characters");
    }
    if !keyword.chars().all(is_latin1) {
        return refuse("a keyword of printable Latin-1 characters");
    }
    if keyword.trim_matches(' ') != keyword || keyword.contains("  ") {
        return refuse("a keyword without leading, trailing or double spaces");
    }
    if text.contains('\0') {
        return refuse("a text without null characters");
    }
    let latin1 = text
        .chars()
        .all(|character| character == '\n' || is_latin1(character));
    Ok(if latin1 {
        Text::Latin1(keyword, text)
    } else {
        Text::Utf8(keyword, text)
    })
}

/// Printable Latin-1 as the PNG specification counts it; the no-break space is left out, it is not allowed in keywords.
fn is_latin1(character: char) -> bool {
    matches!(character, ' '..='~' | '\u{A1}'..='\u{FF}')
}

/// The keywords and texts of a PNG: its `tEXt` chunks, then `zTXt`, then `iTXt`, each in the file's order.
///
/// Chunks before and after the picture's data are found; the data itself is not decoded into a picture. A file that is
/// no PNG, or is truncated or broken, is an error that names it.
pub fn read_metadata(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let bytes = content(path)?;
    let format = Format::identify(&bytes, path)?;
    if format != Format::Png {
        let found = format.name().to_string();
        return Err(Error::NotAPicture {
            path: path.to_path_buf(),
            expected: "a PNG picture",
            found,
        });
    }
    format.expect_complete(&bytes, path)?;
    let panicked = |Panicked| Err("its decoder gave up on it; the file is damaged".into());
    let texts = guarded(|| texts(&bytes)).unwrap_or_else(panicked);
    texts.map_err(|reason| Error::Decode {
        path: path.to_path_buf(),
        format: format.name(),
        reason: plain(once(&*reason)),
    })
}

fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>, BoxError> {
    if let Some(fault) = png_fault(bytes) {
        return Err(fault.into());
    }
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info()?;
    reader.finish()?;
    let info = reader.info();
    let mut found: Vec<_> = info
        .uncompressed_latin1_text
        .iter()
        .map(|chunk| (chunk.keyword.clone(), chunk.text.clone()))
        .collect();
    let mut left = LIMIT_TEXT_BYTES;
    let mut spend = |text: String| match left.checked_sub(text.len()) {
        Some(rest) => {
            left = rest;
            Ok(text)
        }
        None => Err(format!(
            "its texts unpack to more than {LIMIT_TEXT_BYTES} bytes"
        )),
    };
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(LIMIT_TEXT_BYTES)?;
        found.push((chunk.keyword.clone(), spend(chunk.get_text()?)?));
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(LIMIT_TEXT_BYTES)?;
        found.push((chunk.keyword.clone(), spend(chunk.get_text()?)?));
    }
    Ok(found)
}
