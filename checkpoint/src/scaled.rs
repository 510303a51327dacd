//! Weights of 8 bits: a tensor of integers, and beside it the scales that they are multiplied by. Names and shapes are
//! those of compressed-tensors with one scale per row: `NAME` of `I8`, and `NAME_scale` with an axis of one in place
//! of every axis that shares a scale.

use crate::error::{Error, Result};
use crate::tensor::StoredTensor;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the name of a tensor of integers ends with to name its scales.
pub const SCALE_SUFFIX: &str = "_scale";

/// The axes that a tensor has scales along, where it is stored in 8 bits: the leading ones, up to the first that is
/// longer than one. All others share. `None` for a vector, which is stored with floats.
pub fn scale_shape(shape: &[usize]) -> Option<Vec<usize>> {
    let rows = shape.iter().position(|&length| length > 1)?;
    let scale = |(axis, &length): (usize, &usize)| if axis <= rows { length } else { 1 };
    (rows + 1 < shape.len()).then(|| shape.iter().enumerate().map(scale).collect())
}

/// Gives every tensor of integers the scales that stand beside it, and takes them out of `tensors`.
pub(crate) fn join_scales(tensors: &mut BTreeMap<String, StoredTensor>) -> Result<()> {
    let integers = tensors
        .iter()
        .filter(|(_, tensor)| tensor.dtype == Dtype::I8);
    let names: Vec<String> = integers.map(|(name, _)| name.clone()).collect();
    for name in names {
        let beside = format!("{name}{SCALE_SUFFIX}");
        // Others than floats are tensors of their own, and may be among the names.
        let floats = [Dtype::F32, Dtype::F16, Dtype::BF16];
        let of_floats = |scales: &&StoredTensor| floats.contains(&scales.dtype);
        let Some(scales) = tensors.get(&beside).filter(of_floats).cloned() else {
            continue;
        };
        tensors.remove(&beside);
        let tensor = tensors.get_mut(&name).expect("it was just named");
        if !share(&tensor.shape, &scales.shape) {
            return Err(Error::format(
                scales.source.name(),
                format!("the shape of `{}`", scales.name),
                format!("one scale per row of `{name}`, which is {:?}", tensor.shape),
                format!("{:?}", scales.shape),
            ));
        }
        tensor.scales = Some(Arc::new(scales));
    }
    Ok(())
}

/// Whether scales are of so many leading axes of a tensor, the others of one.
fn share(shape: &[usize], scales: &[usize]) -> bool {
    let kept = scales
        .iter()
        .rposition(|&length| length != 1)
        .map_or(0, |last| last + 1);
    shape.starts_with(&scales[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_of_the_leading_axes() {
        assert_eq!(scale_shape(&[4, 3]), Some(vec![4, 1]));
        assert_eq!(scale_shape(&[4, 3, 2, 2]), Some(vec![4, 1, 1, 1]));
        assert_eq!(scale_shape(&[1, 9, 4]), Some(vec![1, 9, 1]));
        for vector in [&[][..], &[4], &[1, 1, 4], &[1, 1]] {
            assert_eq!(scale_shape(vector), None, "{vector:?}");
        }
        for fits in [
            &[][..],
            &[1],
            &[1, 1, 1],
            &[4],
            &[4, 1],
            &[4, 3],
            &[4, 3, 2],
        ] {
            assert!(share(&[4, 3, 2], fits), "{fits:?}");
        }
        for not in [&[3][..], &[1, 3], &[4, 1, 2], &[4, 3, 2, 2]] {
            assert!(!share(&[4, 3, 2], not), "{not:?}");
        }
    }
}
