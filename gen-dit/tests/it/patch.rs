//! Patches and back.

use super::reference::host;
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use tessera_gen_dit::{patchify, unpatchify};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn patches_are_put_back_where_they_were(
        batch in 1usize..3, channels in 1usize..5, grid in 1usize..5, patch in 1usize..5,
    ) {
        let side = grid * patch;
        let shape = [batch, channels, side, side];
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(values.clone(), shape), &Device::flex());
        let tokens = patchify(x, patch);
        prop_assert_eq!(tokens.dims(), [batch, grid * grid, patch * patch * channels]);
        let rows = host(tokens.clone());
        // Token (row, column)'s values are by the patch's row and column, then by channel, as DiT's last layer has
        // them.
        let at = |b: usize, c: usize, y: usize, x: usize| values[((b * channels + c) * side + y) * side + x];
        let mut expected = Vec::new();
        for token in 0..batch * grid * grid {
            let (b, row, column) = (token / (grid * grid), token / grid % grid, token % grid);
            for place in 0..patch * patch * channels {
                let (y, x, c) = (place / channels / patch, place / channels % patch, place % channels);
                expected.push(at(b, c, row * patch + y, column * patch + x));
            }
        }
        prop_assert_eq!(rows, expected);
        let back = unpatchify(tokens, patch);
        prop_assert_eq!(back.dims(), shape);
        prop_assert_eq!(host(back), values);
    }
}
