//! Which file an address is of: for a program's handler of SIGBUS, which a file raises that was cut while it was
//! mapped. A handler may neither allocate nor lock, so the table is of fixed size and of atomics.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Windows that are known at once; of more the files have no names.
const PLACES: usize = 128;
/// Bytes of a name that are kept.
const NAME: usize = 240;
/// The start of a place that is being filled.
const CLAIMED: usize = 1;

static PLACES_IN_USE: [Place; PLACES] = [const { Place::free() }; PLACES];

/// A window that is mapped.
struct Place {
    /// The first address; 0 while it is free.
    start: AtomicUsize,
    /// One more than the last.
    end: AtomicUsize,
    /// The end of the file's name, filled up with zeros.
    name: [AtomicU8; NAME],
}

impl Place {
    const fn free() -> Self {
        Self {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            name: [const { AtomicU8::new(0) }; NAME],
        }
    }
}

/// Knows a window until it is dropped.
#[derive(Debug)]
pub(crate) struct Known(Option<usize>);

impl Known {
    /// The window at these addresses, of a file.
    pub(crate) fn new(addresses: Range<usize>, file: &Path) -> Self {
        let claim = |place: &Place| {
            let claimed =
                place
                    .start
                    .compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed);
            claimed.is_ok()
        };
        let index = PLACES_IN_USE.iter().position(claim);
        if let Some(index) = index {
            let place = &PLACES_IN_USE[index];
            let bytes = file.as_os_str().as_encoded_bytes();
            let end = &bytes[bytes.len().saturating_sub(NAME)..];
            let padded = end.iter().copied().chain(std::iter::repeat(0));
            for (kept, byte) in place.name.iter().zip(padded) {
                kept.store(byte, Ordering::Relaxed);
            }
            place.end.store(addresses.end, Ordering::Relaxed);
            place.start.store(addresses.start, Ordering::Release);
        }
        Self(index)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            PLACES_IN_USE[index].start.store(0, Ordering::Release);
        }
    }
}

/// Writes the name of the file whose mapped bytes are at `address` into `name`, the last 240 bytes of a longer one:
/// how many bytes it has. `None` where no weights are mapped. A handler of signals may call it.
pub fn mapped_file(address: usize, name: &mut [u8]) -> Option<usize> {
    let place = PLACES_IN_USE.iter().find(|place| {
        let start = place.start.load(Ordering::Acquire);
        start > CLAIMED && (start..place.end.load(Ordering::Relaxed)).contains(&address)
    })?;
    let mut length = 0;
    for (to, from) in name.iter_mut().zip(&place.name) {
        match from.load(Ordering::Relaxed) {
            0 => break,
            byte => *to = byte,
        }
        length += 1;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_at(address: usize) -> Option<String> {
        let mut name = [0; NAME];
        let length = mapped_file(address, &mut name)?;
        Some(String::from_utf8_lossy(&name[..length]).into_owned())
    }

    #[test]
    fn an_address_is_of_the_file_that_is_mapped_there() {
        // No real mapping is in the first pages.
        let first = Known::new(100..200, Path::new("a.safetensors"));
        let long = format!("{}.pt", "é".repeat(NAME));
        let _second = Known::new(200..300, Path::new(&long));
        assert_eq!(name_at(199).as_deref(), Some("a.safetensors"));
        let kept = name_at(200).expect("it is mapped");
        assert!(long.ends_with(kept.trim_start_matches('\u{fffd}')) && kept.len() > NAME / 2);
        assert_eq!(name_at(300), None);
        drop(first);
        assert_eq!(name_at(150), None);
    }
}
