//! Memory in proportion to the file: whatever a pickle makes grow is charged before it grows.

use crate::source::Source;

/// What every file may take besides memory of its own length.
const ALLOWANCE: u64 = 64 << 10;

/// There is not so much memory for this file.
pub(super) struct Spent;

/// How much memory may still be taken.
pub(super) struct Budget(usize);

impl Budget {
    /// For what a file describes: once for what its pickle builds, and once for what is made of that.
    pub(super) fn of(source: &Source) -> Self {
        let bytes = source.length().saturating_add(ALLOWANCE);
        Self(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Takes so many bytes.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Spent> {
        self.0 = self.0.checked_sub(bytes).ok_or(Spent)?;
        Ok(())
    }

    /// Makes room for so many more items.
    pub(super) fn reserve<T>(&mut self, items: &mut Vec<T>, more: usize) -> Result<(), Spent> {
        let (capacity, needed) = (items.capacity(), items.len().saturating_add(more));
        if needed > capacity {
            // Doubling would waste up to half, and a small file has little to waste.
            let grown = needed.max(capacity + capacity / 4);
            self.charge((grown - capacity).saturating_mul(size_of::<T>()))?;
            items.reserve_exact(grown - items.len());
        }
        Ok(())
    }

    /// Adds an item.
    pub(super) fn push<T>(&mut self, items: &mut Vec<T>, item: T) -> Result<(), Spent> {
        self.reserve(items, 1)?;
        items.push(item);
        Ok(())
    }

    /// Adds items.
    pub(super) fn extend<T: Copy>(&mut self, items: &mut Vec<T>, more: &[T]) -> Result<(), Spent> {
        self.reserve(items, more.len())?;
        items.extend_from_slice(more);
        Ok(())
    }
}
