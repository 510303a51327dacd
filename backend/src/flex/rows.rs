//! Rows of a table, overwritten.

use super::copy::row_major;
use super::elementwise::alone;
use super::loss::indices;
use super::{contiguous, dims, tensor};
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

/// `table`, `[n, d]`, with `values`, `[m, d]`, in place of its `rows`, `[m]`: in place if it is not shared.
///
/// # Panics
/// If there is no such row.
pub(crate) fn put_rows(
    mut table: FlexTensor,
    rows: &FlexTensor,
    values: &FlexTensor,
) -> FlexTensor {
    let ([n, d], [m, _]) = (dims(&table), dims(values));
    if !alone(&table) {
        let shape = table.shape();
        table = tensor(row_major(&table), shape);
    }
    let strides = values.layout().strides();
    let values = match strides[1] == 1 && strides[0] >= 0 {
        true => values.clone(),
        false => contiguous(values),
    };
    let (first, stride) = (values.layout().start_offset(), values.layout().strides()[0]);
    let values = &values.storage::<f32>()[first..];
    let rows = indices(rows);
    assert!(
        rows.len() == m && rows.iter().all(|&row| row < n),
        "rows of the table"
    );
    let into = table.storage_mut::<f32>();
    for (index, row) in rows.into_iter().enumerate() {
        let values = &values[index * stride as usize..][..d];
        into[row * d..][..d].copy_from_slice(values);
    }
    table
}
