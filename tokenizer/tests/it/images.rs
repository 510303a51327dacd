//! Pictures: reading, cropping, writing, comparing.

mod files;
mod golden;
mod hostile;
mod properties;

use tessera_tokenizer::{Channels, Pixels};

/// A picture that has slopes and detail and is the same every time.
fn picture(height: usize, width: usize, channels: Channels) -> Pixels {
    let sample = |index: usize| {
        let (y, x) = (
            index / channels.count() / width,
            index / channels.count() % width,
        );
        (3 * x + 5 * y + 40 * (index % channels.count()) + 7 * ((x * y) % 5)) as u8
    };
    let data = (0..height * width * channels.count()).map(sample).collect();
    Pixels::new(height, width, channels, data).unwrap()
}

/// The error's text with those of its causes.
fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", text(source)),
        None => error.to_string(),
    }
}
