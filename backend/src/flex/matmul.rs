//! Matrix products through the crate `gemm`, with a fixed order of summation.

/// A matrix in memory: element (i, j) lies at `ptr + i·row_stride + j·col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) ptr: *const f32,
    pub(crate) row_stride: isize,
    pub(crate) col_stride: isize,
}

// SAFETY: a Matrix is only read, and lives no longer than the tensor it looks into.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

/// A matrix in row-major order whose rows may be parts of longer ones: row i begins at `values[i·stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) stride: usize,
}

impl From<Rows<'_>> for Matrix {
    fn from(rows: Rows<'_>) -> Self {
        Self::rows(rows.values, rows.stride)
    }
}

impl Matrix {
    /// Row-major, `cols` per row.
    pub(crate) fn rows(values: &[f32], cols: usize) -> Self {
        Self {
            ptr: values.as_ptr(),
            row_stride: cols as isize,
            col_stride: 1,
        }
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// The matrix that begins at element (row, col).
    pub(crate) fn at(self, row: usize, col: usize) -> Self {
        let offset = row as isize * self.row_stride + col as isize * self.col_stride;
        Self {
            ptr: self.ptr.wrapping_offset(offset),
            ..self
        }
    }
}

/// Longest sum that `gemm` never splits, whatever the other sizes. Longer sums are split here, so that the order of
/// summation of an element depends on its own row and column alone.
pub(crate) const DEPTH: usize = 512;

/// The threads that compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone, for products that run in parallel with others.
    One,
    /// All threads of the pool.
    All,
}

impl Threads {
    /// How many there are.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::All => rayon::current_num_threads(),
        }
    }
}

/// The contents of the destination before a product.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Destination {
    Uninitialized,
    Sums,
}

/// `a[m, k] · b[k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// `[m, n, k]`
    pub(crate) sizes: [usize; 3],
    pub(crate) a: Matrix,
    pub(crate) b: Matrix,
    pub(crate) threads: Threads,
}

impl Product {
    /// `dst[m, n] = a · b`, with `stride` values from one row of `dst` to the next.
    ///
    /// # Safety
    /// `a` and `b` can be read and `dst` written at all their elements.
    #[inline]
    pub(crate) unsafe fn assign(self, dst: *mut f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.compute(dst, stride, Destination::Uninitialized) }
    }

    /// `dst[m, n] += a · b`, with `stride` values from one row of `dst` to the next.
    ///
    /// # Safety
    /// As [`assign`](Self::assign), and `dst` is initialized.
    #[inline]
    pub(crate) unsafe fn accumulate(self, dst: *mut f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.compute(dst, stride, Destination::Sums) }
    }

    unsafe fn compute(self, dst: *mut f32, stride: usize, destination: Destination) {
        let [m, n, k] = self.sizes;
        let parallelism = match self.threads {
            Threads::One => gemm::Parallelism::None,
            Threads::All => gemm::Parallelism::Rayon(0),
        };
        let mut start = 0;
        loop {
            let depth = DEPTH.min(k - start);
            let (a, b) = (self.a.at(0, start), self.b.at(start, 0));
            // SAFETY: the contract of the callers; the parts of the sum stay inside `a` and `b`.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    depth,
                    dst,
                    1,
                    stride as isize,
                    destination == Destination::Sums || start > 0,
                    a.ptr,
                    a.col_stride,
                    a.row_stride,
                    b.ptr,
                    b.col_stride,
                    b.row_stride,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
            start += depth;
            if start >= k {
                return;
            }
        }
    }
}
