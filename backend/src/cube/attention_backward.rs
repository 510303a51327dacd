//! The gradients of attention. The weights are recomputed from the log-sum-exp and never stored (Dao et al.,
//! FlashAttention, 2022, algorithm 4): one kernel per query loops over the keys, another per key over the queries.

use super::attention::{
    KEYS, QUERIES, Seen, TILE, WIDTH, add_weighted, bring, dot, end_of_block, readable, run, seen,
};
use super::{cubes, dims, elem, empty};
use crate::arguments::Mask;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// `dq = scale · Σ_k w_k (g · v_k − delta) k_k`, one thread per query; the threads of a cube share the keys and
/// values they load.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn queries_kernel<F: Float, N: Size>(
    q: &Tensor<Vector<F, N>>,
    k: &Tensor<Vector<F, N>>,
    v: &Tensor<Vector<F, N>>,
    g: &Tensor<Vector<F, N>>,
    lse: &Tensor<f32>,
    delta: &Tensor<f32>,
    runs: &Tensor<i32>,
    dq: &mut Tensor<Vector<F, N>>,
    scale: f32,
    blocks: u32,
    #[comptime] head_width: usize,
    #[comptime] tile_keys: usize,
    #[comptime] seen: Seen,
    #[define(F)] _dtype: ElemType,
) {
    let mut k_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile_keys * head_width));
    let mut v_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile_keys * head_width));
    let (heads, queries) = (q.shape(1), q.shape(2));
    let (kv_heads, keys) = (k.shape(1), k.shape(2));
    let (of_all, block) = (CUBE_POS / blocks as usize, CUBE_POS % blocks as usize);
    if of_all >= q.shape(0) * heads {
        terminate!();
    }
    let query = block * QUERIES + UNIT_POS as usize;
    let present = query < queries;
    let query = select(present, query, queries - 1);
    let row = of_all * queries + query;
    let (image, head) = (of_all / heads, of_all % heads);
    let kv_head = head / (heads / kv_heads);
    let q_start = image * q.stride(0) + head * q.stride(1) + query * q.stride(2);
    let g_start = image * g.stride(0) + head * g.stride(1) + query * g.stride(2);
    let k_start = image * k.stride(0) + kv_head * k.stride(1);
    let v_start = image * v.stride(0) + kv_head * v.stride(1);
    let (start, end) = run(query, queries, keys, runs, seen);
    let (lse, delta) = (lse[row], delta[row]);

    let mut own = Array::<Vector<f32, N>>::new(head_width);
    let mut own_g = Array::<Vector<f32, N>>::new(head_width);
    let mut sum = Array::<Vector<f32, N>>::new(head_width);
    #[unroll]
    for i in 0..head_width {
        own[i] = Vector::<f32, N>::cast_from(q[q_start / N::value() + i]) * Vector::new(scale);
        own_g[i] = Vector::<f32, N>::cast_from(g[g_start / N::value() + i]);
        sum[i] = Vector::new(0.0f32);
    }
    let tiles_end = end_of_block(block, queries, keys, runs, seen);
    let mut tile = 0usize;
    while tile < tiles_end {
        sync_cube();
        bring(&mut k_tile, k, k_start, tile, keys, tile_keys, head_width);
        bring(&mut v_tile, v, v_start, tile, keys, tile_keys, head_width);
        sync_cube();
        let first = select(start > tile, start, tile);
        let last = select(end < tile + tile_keys, end, tile + tile_keys);
        for key in first..last {
            let weight = (dot(&own, &k_tile, key - tile, head_width) - lse).exp();
            let d_score = weight * (dot(&own_g, &v_tile, key - tile, head_width) - delta);
            add_weighted(&mut sum, d_score, &k_tile, key - tile, head_width);
        }
        tile += tile_keys;
    }
    if present {
        #[unroll]
        for i in 0..head_width {
            dq[row * head_width + i] = Vector::cast_from(sum[i] * Vector::new(scale));
        }
    }
}

/// `dv = Σ_q w_q g_q` and `dk = scale · Σ_q w_q (g_q · v − delta_q) q_q` over the queries of all heads that share the
/// key, one thread per key; the threads of a cube share the queries they load.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn keys_kernel<F: Float, N: Size>(
    q: &Tensor<Vector<F, N>>,
    k: &Tensor<Vector<F, N>>,
    v: &Tensor<Vector<F, N>>,
    g: &Tensor<Vector<F, N>>,
    lse: &Tensor<f32>,
    delta: &Tensor<f32>,
    runs: &Tensor<i32>,
    dk: &mut Tensor<Vector<F, N>>,
    dv: &mut Tensor<Vector<F, N>>,
    scale: f32,
    blocks: u32,
    #[comptime] head_width: usize,
    #[comptime] tile_queries: usize,
    #[comptime] seen: Seen,
    #[define(F)] _dtype: ElemType,
) {
    let mut q_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile_queries * head_width));
    let mut g_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile_queries * head_width));
    let mut of_row = Shared::<[f32]>::new_slice(comptime!(2 * tile_queries));
    let mut seen_keys = Shared::<[u32]>::new_slice(comptime!(2 * tile_queries));
    let (heads, queries) = (q.shape(1), q.shape(2));
    let (kv_heads, keys) = (k.shape(1), k.shape(2));
    let (of_all, block) = (CUBE_POS / blocks as usize, CUBE_POS % blocks as usize);
    if of_all >= k.shape(0) * kv_heads {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let key = block * QUERIES + unit;
    let present = key < keys;
    let key = select(present, key, keys - 1);
    let (image, kv_head) = (of_all / kv_heads, of_all % kv_heads);
    let k_start = image * k.stride(0) + kv_head * k.stride(1) + key * k.stride(2);
    let v_start = image * v.stride(0) + kv_head * v.stride(1) + key * v.stride(2);

    let mut own_k = Array::<Vector<f32, N>>::new(head_width);
    let mut own_v = Array::<Vector<f32, N>>::new(head_width);
    let mut sum_k = Array::<Vector<f32, N>>::new(head_width);
    let mut sum_v = Array::<Vector<f32, N>>::new(head_width);
    #[unroll]
    for i in 0..head_width {
        own_k[i] = Vector::<f32, N>::cast_from(k[k_start / N::value() + i]) * Vector::new(scale);
        own_v[i] = Vector::<f32, N>::cast_from(v[v_start / N::value() + i]);
        sum_k[i] = Vector::new(0.0f32);
        sum_v[i] = Vector::new(0.0f32);
    }
    // Causal: queries before this one see none of the cube's keys.
    let mut first_query = 0usize;
    if comptime!(seen == Seen::Causal) {
        let ahead = block * QUERIES + queries;
        first_query = select(ahead > keys, ahead - keys, 0usize);
    }
    let group = heads / kv_heads;
    for one in 0..group {
        let head = kv_head * group + one;
        let rows = (image * heads + head) * queries;
        let q_start = image * q.stride(0) + head * q.stride(1);
        let g_start = image * g.stride(0) + head * g.stride(1);
        let mut tile = first_query / tile_queries * tile_queries;
        while tile < queries {
            sync_cube();
            bring(
                &mut q_tile,
                q,
                q_start,
                tile,
                queries,
                tile_queries,
                head_width,
            );
            bring(
                &mut g_tile,
                g,
                g_start,
                tile,
                queries,
                tile_queries,
                head_width,
            );
            let query = tile + unit;
            if unit < tile_queries && query < queries {
                let (start, end) = run(query, queries, keys, runs, seen);
                seen_keys[unit * 2] = start as u32;
                seen_keys[unit * 2 + 1] = end as u32;
                of_row[unit * 2] = lse[rows + query];
                of_row[unit * 2 + 1] = delta[rows + query];
            }
            sync_cube();
            let there = queries - tile;
            let there = select(there < tile_queries, there, tile_queries.runtime());
            for at in 0..there {
                if key >= seen_keys[at * 2] as usize && key < seen_keys[at * 2 + 1] as usize {
                    let weight = (dot(&own_k, &q_tile, at, head_width) - of_row[at * 2]).exp();
                    let d_weight = dot(&own_v, &g_tile, at, head_width);
                    let d_score = weight * (d_weight - of_row[at * 2 + 1]);
                    add_weighted(&mut sum_v, weight, &g_tile, at, head_width);
                    add_weighted(&mut sum_k, d_score, &q_tile, at, head_width);
                }
            }
            tile += tile_queries;
        }
    }
    if present {
        let row = of_all * keys + key;
        #[unroll]
        for i in 0..head_width {
            dk[row * head_width + i] = Vector::cast_from(sum_k[i] * Vector::new(scale));
            dv[row * head_width + i] = Vector::cast_from(sum_v[i]);
        }
    }
}

/// See [`crate::Backend::attention_gradients`].
pub(crate) fn gradients(
    tensors: [CubeTensor; 4],
    [lse, delta]: [CubeTensor; 2],
    mask: &Mask,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [q, k, v, g] = tensors.map(readable);
    let [lse, delta] = [lse, delta].map(into_contiguous);
    let [batch, heads, queries, head_dim] = dims(&q);
    let [_, kv_heads, keys, _] = dims(&k);
    let dq = empty(&q, [batch, heads, queries, head_dim], q.dtype);
    let [dk, dv] = [&k, &v].map(|x| empty(x, [batch, kv_heads, keys, head_dim], x.dtype));
    let (seen, runs) = seen(mask, &q);
    let (client, dtype) = (q.client.clone(), elem(&q));
    let scale = (head_dim as f32).powf(-0.5);

    let blocks = queries.div_ceil(QUERIES);
    queries_kernel::launch(
        &client,
        cubes(&q, batch * heads * blocks),
        CubeDim::new_1d(QUERIES as u32),
        WIDTH,
        q.clone().into_tensor_arg(),
        k.clone().into_tensor_arg(),
        v.clone().into_tensor_arg(),
        g.clone().into_tensor_arg(),
        lse.clone().into_tensor_arg(),
        delta.clone().into_tensor_arg(),
        runs.clone().into_tensor_arg(),
        dq.clone().into_tensor_arg(),
        scale,
        blocks as u32,
        head_dim / WIDTH,
        KEYS.min(TILE / head_dim),
        seen,
        dtype,
    );
    let blocks = keys.div_ceil(QUERIES);
    keys_kernel::launch(
        &client,
        cubes(&k, batch * kv_heads * blocks),
        CubeDim::new_1d(QUERIES as u32),
        WIDTH,
        q.into_tensor_arg(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        g.into_tensor_arg(),
        lse.into_tensor_arg(),
        delta.into_tensor_arg(),
        runs.into_tensor_arg(),
        dk.clone().into_tensor_arg(),
        dv.clone().into_tensor_arg(),
        scale,
        blocks as u32,
        head_dim / WIDTH,
        KEYS.min(TILE / (head_dim + 2)), // Beside them are four numbers of each query.
        seen,
        dtype,
    );
    (dq, dk, dv)
}
