//! Attention with the log-sum-exp of its scores, which are never stored (Rabe & Staats, 2021; Dao et al.,
//! FlashAttention, 2022).

use super::{dims, elem, empty, upload};
use crate::arguments::Mask;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Queries per cube, one per thread.
pub(super) const QUERIES: usize = 64;

/// Maximum number of keys that a cube loads into shared memory at once.
pub(super) const KEYS: usize = 32;

/// Size of the tile of keys, and of that of values: together they fill the 16 KiB that every device has.
pub(super) const TILE: usize = 2048;

/// The largest head_dim for which the query and the sum fit a thread's registers.
const WIDEST: usize = 128;

/// The number of keys above which one thread reading all of them is too slow.
const FEW_KEYS: usize = 64;

/// Consecutive features per read.
pub(super) const WIDTH: usize = 4;

/// The mask in the form that kernels take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    All,
    Causal,
    Runs,
}

/// One query's sums over the keys seen so far: the largest score, the weights relative to it, and the values by them.
#[derive(CubeType)]
struct Online<N: Size> {
    most: RuntimeCell<f32>,
    total: RuntimeCell<f32>,
    sum: Array<Vector<f32, N>>,
    #[cube(comptime)]
    head_width: usize,
}

#[cube]
impl<N: Size> Online<N> {
    fn new(#[comptime] head_width: usize) -> Online<N> {
        let mut sum = Array::<Vector<f32, N>>::new(head_width);
        #[unroll]
        for i in 0..head_width {
            sum[i] = Vector::new(0.0f32);
        }
        Online::<N> {
            most: RuntimeCell::new(f32::min_value()),
            total: RuntimeCell::new(0.0f32),
            sum,
            head_width,
        }
    }

    /// The weight of the next score, after rescaling the sums to the new maximum.
    fn weigh(&mut self, score: f32) -> f32 {
        if score > self.most.read() {
            let shrink = (self.most.read() - score).exp();
            self.most.store(score);
            self.total.store(self.total.read() * shrink);
            #[unroll]
            for i in 0..self.head_width {
                self.sum[i] *= Vector::new(shrink);
            }
        }
        let weight = (score - self.most.read()).exp();
        self.total.store(self.total.read() + weight);
        weight
    }
}

/// The keys `[start, end)` that a query sees.
#[cube]
pub(super) fn run(
    query: usize,
    queries: usize,
    keys: usize,
    runs: &Tensor<i32>,
    #[comptime] seen: Seen,
) -> (usize, usize) {
    match comptime!(seen) {
        Seen::All => (0usize, keys),
        Seen::Causal => {
            let end = query + keys + 1;
            let end = select(end > queries, end - queries, 0usize);
            (0usize, select(end < keys, end, keys))
        }
        Seen::Runs => {
            let start = usize::cast_from(runs[query * 2]);
            let end = usize::cast_from(runs[query * 2 + 1]);
            (start, select(end < keys, end, keys))
        }
    }
}

/// The first key that no query of this block or an earlier one sees.
#[cube]
pub(super) fn end_of_block(
    block: usize,
    queries: usize,
    keys: usize,
    runs: &Tensor<i32>,
    #[comptime] seen: Seen,
) -> usize {
    let mut end = keys;
    if comptime!(seen == Seen::Causal) {
        let last = block * QUERIES + QUERIES - 1;
        let last = select(last < queries, last, queries - 1);
        let (_, of_last) = run(last, queries, keys, runs, seen);
        end = of_last;
    }
    end
}

/// Loads the rows of a head from `first` on, `count` in all, into shared memory.
#[cube]
#[allow(clippy::too_many_arguments)]
pub(super) fn bring<F: Float, N: Size>(
    tile: &mut Shared<[Vector<f32, N>]>,
    x: &Tensor<Vector<F, N>>,
    start: usize,
    first: usize,
    count: usize,
    #[comptime] rows: usize,
    #[comptime] head_width: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < comptime!(rows * head_width) {
        let (row, part) = (first + i / head_width, i % head_width);
        if row < count {
            tile[i] = Vector::cast_from(x[(start + row * x.stride(2)) / N::value() + part]);
        }
        i += CUBE_DIM as usize;
    }
}

/// `own · row`, of a row of a tile.
#[cube]
pub(super) fn dot<N: Size>(
    own: &Array<Vector<f32, N>>,
    tile: &Shared<[Vector<f32, N>]>,
    row: usize,
    #[comptime] head_width: usize,
) -> f32 {
    let mut products = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..head_width {
        products += own[i] * tile[row * head_width + i];
    }
    add_up(products)
}

/// Adds a row of a tile times its weight.
#[cube]
pub(super) fn add_weighted<N: Size>(
    sum: &mut Array<Vector<f32, N>>,
    weight: f32,
    tile: &Shared<[Vector<f32, N>]>,
    row: usize,
    #[comptime] head_width: usize,
) {
    #[unroll]
    for i in 0..head_width {
        sum[i] += Vector::new(weight) * tile[row * head_width + i];
    }
}

/// One thread per query; the threads of a cube share the keys and values they load.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn attention_kernel<F: Float, N: Size>(
    q: &Tensor<Vector<F, N>>,
    k: &Tensor<Vector<F, N>>,
    v: &Tensor<Vector<F, N>>,
    runs: &Tensor<i32>,
    out: &mut Tensor<Vector<F, N>>,
    lse: &mut Tensor<f32>,
    scale: f32,
    nothing: f32,
    blocks: u32,
    #[comptime] head_width: usize,
    #[comptime] tile_keys: usize,
    #[comptime] seen: Seen,
    #[comptime] shared: bool,
    #[define(F)] _dtype: ElemType,
) {
    let mut k_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile_keys * head_width));
    let mut v_tile = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile_keys * head_width));
    let (heads, queries) = (q.shape(1), q.shape(2));
    let (kv_heads, keys) = (k.shape(1), k.shape(2));
    // With few queries, adjacent threads have queries of different heads, and each reads its own keys.
    let mut at = ABSOLUTE_POS;
    let mut rows = q.shape(0) * heads * queries;
    if shared {
        let block = CUBE_POS % blocks as usize;
        let query = block * QUERIES + UNIT_POS as usize;
        let head = CUBE_POS / blocks as usize;
        at = head * queries + query;
        rows = (head + 1) * queries;
        if head >= q.shape(0) * heads {
            terminate!();
        }
    }
    let present = at < rows;
    let row = select(present, at, rows - 1);
    let query = row % queries;
    let head = row / queries;
    let (image, head) = (head / heads, head % heads);
    let kv_head = head / (heads / kv_heads);
    let n = N::value();
    let q_start = (image * q.stride(0) + head * q.stride(1) + query * q.stride(2)) / n;
    let k_start = image * k.stride(0) + kv_head * k.stride(1);
    let v_start = image * v.stride(0) + kv_head * v.stride(1);
    let (start, end) = run(query, queries, keys, runs, seen);

    let mut own = Array::<Vector<f32, N>>::new(head_width);
    #[unroll]
    for i in 0..head_width {
        own[i] = Vector::<f32, N>::cast_from(q[q_start + i]) * Vector::new(scale);
    }
    let mut online = Online::<N>::new(head_width);

    if shared {
        let tiles_end = end_of_block(CUBE_POS % blocks as usize, queries, keys, runs, seen);
        let mut tile = 0usize;
        while tile < tiles_end {
            sync_cube();
            bring(&mut k_tile, k, k_start, tile, keys, tile_keys, head_width);
            bring(&mut v_tile, v, v_start, tile, keys, tile_keys, head_width);
            sync_cube();
            let first = select(start > tile, start, tile);
            let last = select(end < tile + tile_keys, end, tile + tile_keys);
            for key in first..last {
                let weight = online.weigh(dot(&own, &k_tile, key - tile, head_width));
                add_weighted(&mut online.sum, weight, &v_tile, key - tile, head_width);
            }
            tile += tile_keys;
        }
    } else {
        for key in start..end {
            let k_at = (k_start + key * k.stride(2)) / n;
            let mut dots = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0..head_width {
                dots += own[i] * Vector::<f32, N>::cast_from(k[k_at + i]);
            }
            let weight = online.weigh(add_up(dots));
            let v_at = (v_start + key * v.stride(2)) / n;
            #[unroll]
            for i in 0..head_width {
                online.sum[i] += Vector::new(weight) * Vector::<f32, N>::cast_from(v[v_at + i]);
            }
        }
    }

    if present {
        let total = online.total.read();
        let inverse = select(total == 0.0f32, 0.0f32, 1.0f32 / total);
        #[unroll]
        for i in 0..head_width {
            out[row * head_width + i] = Vector::cast_from(online.sum[i] * Vector::new(inverse));
        }
        lse[row] = select(total == 0.0f32, nothing, online.most.read() + total.ln());
    }
}

/// The sum of a vector's elements.
#[cube]
fn add_up<N: Size>(x: Vector<f32, N>) -> f32 {
    let mut sum = x.extract(0usize);
    #[unroll]
    for i in 1..N::value() {
        sum += x.extract(i);
    }
    sum
}

/// Whether the kernels support this: the head fits registers, and there is something to compute.
pub(crate) fn takes(q: &CubeTensor, k: &CubeTensor) -> bool {
    let ([batch, _, queries, head_dim], [_, _, keys, _]) = (dims(q), dims::<4>(k));
    head_dim.is_multiple_of(WIDTH) && head_dim <= WIDEST && batch * queries * keys > 0
}

/// Whether the kernel is faster than matrix products.
pub(crate) fn pays(q: &CubeTensor, k: &CubeTensor) -> bool {
    let ([_, _, queries, _], [_, _, keys, _]) = (dims::<4>(q), dims::<4>(k));
    takes(q, k) && (queries >= QUERIES / 4 || keys <= FEW_KEYS)
}

/// Whether rows of heads can be read in vectors, as slices of `[batch, seq, d_model]` can.
pub(super) fn readable(x: CubeTensor) -> CubeTensor {
    let strides = x.meta.strides();
    let aligned = strides[..3]
        .iter()
        .all(|stride| stride.is_multiple_of(WIDTH));
    let start = x.handle.offset_start.unwrap_or(0);
    match strides[3] == 1 && aligned && start.is_multiple_of((WIDTH * x.dtype.size()) as u64) {
        true => x,
        false => into_contiguous(x),
    }
}

/// The mask as a kernel takes it: its kind, and the runs, which are read only for that kind.
pub(super) fn seen(mask: &Mask, like: &CubeTensor) -> (Seen, CubeTensor) {
    let unread = || empty(like, [1], DType::I32);
    match mask {
        Mask::All => (Seen::All, unread()),
        Mask::Causal => (Seen::Causal, unread()),
        Mask::Runs(runs) => {
            let runs = runs.iter().flatten().map(|&key| key as i32);
            (Seen::Runs, upload(like, runs.collect()))
        }
    }
}

/// See [`crate::Backend::attention_lse`].
pub(crate) fn attention(
    q: CubeTensor,
    k: CubeTensor,
    v: CubeTensor,
    mask: &Mask,
) -> (CubeTensor, CubeTensor) {
    let [q, k, v] = [q, k, v].map(readable);
    let [batch, heads, queries, head_dim] = dims(&q);
    let out = empty(&q, [batch, heads, queries, head_dim], q.dtype);
    let lse = empty(&q, [batch, heads, queries], DType::F32);
    let (seen, runs) = seen(mask, &q);
    let shared = queries >= QUERIES / 4;
    let blocks = queries.div_ceil(QUERIES);
    let cubes_wanted = match shared {
        true => batch * heads * blocks,
        false => (batch * heads * queries).div_ceil(QUERIES),
    };
    let count = super::cubes(&q, cubes_wanted);
    let (client, dtype) = (q.client.clone(), elem(&q));
    attention_kernel::launch(
        &client,
        count,
        CubeDim::new_1d(QUERIES as u32),
        WIDTH,
        q.into_tensor_arg(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        runs.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        lse.clone().into_tensor_arg(),
        (head_dim as f32).powf(-0.5),
        f32::NEG_INFINITY,
        blocks as u32,
        head_dim / WIDTH,
        KEYS.min(TILE / head_dim),
        seen,
        shared,
        dtype,
    );
    (out, lse)
}
