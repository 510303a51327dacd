//! The registry of random streams. Everything random in this workspace is drawn from a stream that is named here, so
//! that no two purposes share numbers under one seed; a test checks that the ranges are disjoint.
//!
//! The values are part of the file formats: models, calibrations and pictures repeat only as long as they stay.

use crate::Rng;
#[cfg(test)]
use std::ops::Range;

/// One stream of every seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(u64);

impl Stream {
    /// The stream of this seed.
    pub fn of(self, seed: u64) -> Rng {
        Rng::new(seed, self.0)
    }

    #[cfg(test)]
    const fn range(self) -> Range<u64> {
        self.0..self.0 + 1
    }
}

/// Consecutive streams of every seed, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    first: u64,
    count: u64,
}

impl Streams {
    /// The stream with this number of this seed.
    ///
    /// # Panics
    /// If the number is beyond the range, in which the next purpose begins.
    pub fn of(self, seed: u64, number: u64) -> Rng {
        let Self { first, count } = self;
        assert!(
            number < count,
            "stream {number} of a range of {count} streams"
        );
        Rng::new(seed, first + number)
    }

    #[cfg(test)]
    const fn range(self) -> Range<u64> {
        self.first..self.first + self.count
    }
}

/// Which seed a stream belongs to. One number serves as the seed of many commands, but of one kind of generator.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seed {
    /// That of whichever model is trained or used.
    Any,
    /// That of an autoregressive model or one of its pictures.
    Ar,
    /// That of a diffusion model or one of its pictures.
    Dit,
    /// One that was itself drawn at random.
    Drawn,
    /// A constant of the program, for measurements whose values do not matter.
    Constant,
}

/// Declares the streams and lists them for the tests: a stream that is not listed cannot exist.
macro_rules! registry {
    ($($(#[$doc:meta])* $seed:ident: $name:ident = $kind:ident $value:tt;)*) => {
        $($(#[$doc])* pub const $name: $kind = $kind $value;)*

        /// Every range with its name and the seed that it belongs to.
        #[cfg(test)]
        const REGISTRY: &[(&str, Seed, Range<u64>)] = &[
            $((stringify!($name), Seed::$seed, $name.range())),*
        ];
    };
}

registry! {
    /// The weights of the classifier, one after the other.
    Any: CLASSIFIER_WEIGHTS = Stream(0);
    /// The seed of a request for which the user gave none; the seed of this stream is the time.
    Any: FRESH_SEED = Stream(3);
    /// The weights of a generator, a stream for each parameter.
    Any: GENERATOR_WEIGHTS = Streams { first: 1 << 32, count: 1 << 32 };
    /// The latents of a picture, drawn from its posterior.
    Any: POSTERIOR = Stream(0x0070_6f73_7465_7269);
    /// The weights of a tiny autoencoder, a stream for each parameter.
    Any: TINY_WEIGHTS = Streams { first: 0x0074_6165_0000_0000, count: 1 << 32 };
    /// The weights of a KL autoencoder, a stream for each parameter.
    Any: VAE_WEIGHTS = Streams { first: 0x0076_6165_0000_0000, count: 1 << 32 };
    /// The order of the examples in training, a stream for each epoch.
    Any: EPOCH_ORDER = Streams { first: 1 << 56, count: 1 << 56 };
    /// What is drawn while a batch is prepared (augmentation, posteriors), a stream for each part of a step.
    Any: BATCH = Streams { first: 2 << 56, count: 1 << 56 };
    /// What is drawn while a loss is computed (masks, times, noise, dropout), a stream for each part of a step.
    Any: LOSS = Streams { first: 3 << 56, count: 1 << 56 };

    /// The order in which a picture's positions are generated.
    Ar: PICTURE_ORDER = Stream(1);
    /// The draws of a picture's tokens.
    Ar: PICTURE_TOKENS = Stream(2);
    /// The posteriors that calibration measures, a stream for each picture of the data set.
    Ar: CALIBRATION = Streams { first: 1 << 40, count: 1 << 40 };
    /// The posteriors on which thresholds of experts are measured, a stream for each batch.
    Ar: THRESHOLD_TOKENS = Streams { first: 2 << 40, count: 1 << 40 };
    /// The masks under which thresholds of experts are measured, a stream for each batch.
    Ar: THRESHOLD_MASKS = Streams { first: 3 << 40, count: 1 << 40 };

    /// The noise of a picture: that which it starts from, then that of each step.
    Dit: PICTURE_NOISE = Stream(1);
    /// The noise and times of the validation loss, a stream for each batch.
    Dit: VALIDATION = Streams { first: 1 << 40, count: 1 << 40 };
    /// The noise and times with which thresholds of experts are measured, a stream for each batch.
    Dit: THRESHOLD_NOISE = Streams { first: 3 << 40, count: 1 << 40 };

    /// The dropout of ranks that share a batch, a stream for each rank, under a seed that all draw from [`LOSS`].
    Drawn: RANK_DROPOUT = Streams { first: 0, count: 1 << 32 };
    /// The inputs of benchmarks and self-tests.
    Constant: MEASUREMENT = Streams { first: 0, count: 1 << 56 };
    /// The noise with which a decoder is probed, a stream for each dimension of the latents.
    Constant: DECODER_NOISE = Streams { first: 1 << 56, count: 1 << 56 };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether two streams can be drawn from under one and the same seed.
    fn meet(a: Seed, b: Seed) -> bool {
        a == b
            || [(a, b), (b, a)]
                .iter()
                .any(|pair| matches!(pair, (Seed::Any, Seed::Ar | Seed::Dit)))
    }

    #[test]
    fn no_two_purposes_share_a_stream_of_one_seed() {
        let mut shared = Vec::new();
        for (i, (name, seed, range)) in REGISTRY.iter().enumerate() {
            assert!(range.start < range.end, "{name} is empty");
            for (other_name, other_seed, other) in &REGISTRY[i + 1..] {
                let overlap = range.start < other.end && other.start < range.end;
                if overlap && meet(*seed, *other_seed) {
                    shared.push(format!("{name} and {other_name}"));
                }
            }
        }
        assert!(shared.is_empty(), "{}", shared.join(", "));
    }

    /// Pictures, models and calibrations made before must repeat.
    #[test]
    fn streams_stay_where_they_are() {
        let first = |stream: &str| {
            let row = REGISTRY.iter().find(|row| row.0 == stream);
            row.expect("a stream of the registry").2.start
        };
        for (name, expected) in [
            ("CLASSIFIER_WEIGHTS", 0),
            ("PICTURE_ORDER", 1),
            ("PICTURE_TOKENS", 2),
            ("PICTURE_NOISE", 1),
            ("GENERATOR_WEIGHTS", 1 << 32),
            ("CALIBRATION", 1 << 40),
            ("VALIDATION", 1 << 40),
            ("POSTERIOR", 0x0070_6f73_7465_7269),
            ("TINY_WEIGHTS", 0x0074_6165_0000_0000),
            ("VAE_WEIGHTS", 0x0076_6165_0000_0000),
            ("EPOCH_ORDER", 1 << 56),
            ("BATCH", 2 << 56),
            ("LOSS", 3 << 56),
        ] {
            assert_eq!(first(name), expected, "{name}");
        }
    }

    #[test]
    fn a_number_names_the_stream_so_far_from_the_first() {
        let streams = Streams { first: 5, count: 3 };
        assert_eq!(streams.of(9, 2).next_u64(), Rng::new(9, 7).next_u64());
        assert_eq!(Stream(7).of(9).next_u64(), Rng::new(9, 7).next_u64());
    }

    #[test]
    #[should_panic(expected = "stream 3 of a range of 3 streams")]
    fn a_number_beyond_the_range_is_refused() {
        Streams { first: 5, count: 3 }.of(9, 3);
    }
}
