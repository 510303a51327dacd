//! Every method of distributed attention on ranks: time, bytes received and predicted, and the difference from dense
//! attention.

use burn::tensor::{Device, Tensor};
use serde::Serialize;
use std::fmt::{self, Display};
use std::time::Instant;
use tessera::attention2d::units::{mib, time};
use tessera::attention2d::{
    Comm, Direction, Distributed, Grid, Keys, Mask, Member, Merge, Method, Result, Shape, Task,
    WireDtype, shard, volume,
};
use tessera::backend::{device_values, host_values, ops, streams};

/// What outputs and gradients are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Dense attention, computed on the first rank.
    Dense,
    /// Nothing.
    None,
}

/// What is measured, the same at all ranks.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The sizes; each of `lengths` takes the place of its tokens.
    pub shape: Shape,
    /// Lengths of the sequence.
    pub lengths: Vec<usize>,
    /// What is measured at each.
    pub methods: Vec<Method>,
    /// What queries, keys and values travel as.
    pub wire_dtype: WireDtype,
    /// What a token attends to; one sequence is one document.
    pub mask: Mask,
    /// [`Direction::INFERENCE`] or [`Direction::TRAINING`].
    pub passes: &'static [Direction],
    /// Runs of each, of which the fastest counts; 1 or more.
    pub repeats: usize,
    /// What the result is compared with.
    pub comparison: Comparison,
}

/// Kinds of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attention2D on a grid.
    Attention2d,
    /// Ring Attention.
    Ring,
    /// Ring Attention, its tokens in zigzag.
    Zigzag,
    /// Keys and values gathered.
    GatherKv,
    /// Heads exchanged for tokens.
    Ulysses,
}

/// Grids of Attention2D.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grids {
    /// The one whose sides differ least.
    Squarest,
    /// All that the ranks form.
    All,
    /// These.
    These(Vec<Grid>),
}

/// How Attention2D is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variants {
    /// Not at all.
    Plain,
    /// Also with keys transposed, with overlap, and with the other two ways to merge.
    Every,
}

/// Which methods are measured.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Of these kinds; all that the ranks and heads allow where there is none.
    pub kinds: Vec<Kind>,
    /// On these grids.
    pub grids: Grids,
    /// In these variants.
    pub variants: Variants,
}

impl Selection {
    /// Whether methods of a kind are asked for.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// The methods for attention of that shape on so many ranks.
    ///
    /// # Errors
    /// A method or grid asked for that does not go with them.
    pub fn methods(&self, shape: Shape, ranks: usize) -> Result<Vec<Method>> {
        let mut methods = Vec::new();
        if self.has(Kind::Attention2d) {
            for grid in self.grids.of(ranks) {
                methods.push(Method::attention2d(grid));
                if self.variants == Variants::Every {
                    methods.extend(variants(grid));
                }
            }
        }
        let rivals = [
            (Kind::Ring, Method::Ring { zigzag: false }),
            (Kind::Zigzag, Method::Ring { zigzag: true }),
            (Kind::GatherKv, Method::GatherKv),
            (Kind::Ulysses, Method::Ulysses),
        ];
        for (kind, method) in rivals {
            if !self.has(kind) {
                continue;
            }
            match method.check(shape, ranks) {
                Err(_) if self.kinds.is_empty() => {}
                fits => {
                    fits?;
                    methods.push(method);
                }
            }
        }
        for &method in &methods {
            method.check(shape, ranks)?;
        }
        Ok(methods)
    }
}

impl Grids {
    fn of(&self, ranks: usize) -> Vec<Grid> {
        let all = Grid::of(ranks);
        match self {
            Self::All => all,
            Self::These(grids) => grids.clone(),
            Self::Squarest => all
                .into_iter()
                .min_by_key(|grid| grid.rows.abs_diff(grid.cols))
                .into_iter()
                .collect(),
        }
    }
}

/// A grid's other ways.
fn variants(grid: Grid) -> Vec<Method> {
    let of = |keys, merge, overlap| Method::Attention2D {
        grid,
        merge,
        keys,
        overlap,
    };
    vec![
        of(Keys::Transposed, Merge::AllToAll, false),
        of(Keys::AsSharded, Merge::Ring, false),
        of(Keys::AsSharded, Merge::MaxSum, false),
        of(Keys::AsSharded, Merge::AllToAll, true),
    ]
}

/// What was measured of one method at one length.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// How the method is called.
    pub name: String,
    /// The method.
    #[serde(flatten)]
    pub method: Method,
    /// The length of the sequence.
    pub tokens: usize,
    /// Of the slowest rank.
    pub seconds: f64,
    /// Mean over the ranks of what was not waiting.
    pub computing: f64,
    /// Mean over the ranks of the time spent in collectives.
    pub waiting: f64,
    /// Bytes received by the rank that received most.
    pub bytes: u64,
    /// The same as predicted.
    pub predicted_bytes: u64,
    /// Whether every rank received what was predicted for it.
    pub as_predicted: bool,
    /// Messages received by the rank that received most.
    pub messages: u64,
    /// Largest difference of outputs and gradients from dense attention, as a share of the largest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
}

/// Inputs of all ranks.
struct Inputs {
    qkv: [Tensor<4>; 3],
    d_out: Tensor<4>,
}

/// Elements of queries at most: 4 GiB, and as much of keys, values, the output and their gradients.
const MOST_ELEMENTS: usize = 1 << 30;

/// A sequence that is too long to measure with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} x {} x {} x {} (batch, heads, tokens, head): expected {MOST_ELEMENTS} elements or fewer to measure with",
    shape.batch, shape.heads, shape.tokens, shape.head_dim
)]
pub struct TooLarge {
    /// Its sizes.
    pub shape: Shape,
}

/// Refuses sizes that are too large to measure with.
///
/// # Errors
/// When they are.
pub fn check_size(shape: Shape) -> Result<(), TooLarge> {
    let elements = [shape.batch, shape.heads, shape.head_dim, shape.tokens]
        .iter()
        .try_fold(1_usize, |all, &size| all.checked_mul(size));
    match elements.is_some_and(|elements| elements <= MOST_ELEMENTS) {
        true => Ok(()),
        false => Err(TooLarge { shape }),
    }
}

impl Setting {
    fn trains(&self) -> bool {
        self.passes.contains(&Direction::Backward)
    }

    fn is_compared(&self) -> bool {
        self.comparison == Comparison::Dense
    }

    fn shape(&self, tokens: usize) -> Shape {
        Shape {
            tokens,
            ..self.shape
        }
    }

    /// Measures every method at every length on the ranks of `comm`, which all call this; the first has the rows.
    ///
    /// # Errors
    /// A method that does not go with the ranks, a rank that failed.
    pub fn measure(&self, comm: &Comm) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for &tokens in &self.lengths {
            let shape = self.shape(tokens);
            let mut rng = streams::MEASUREMENT.of(0, 0);
            let mut draw = |heads| {
                let shape = [shape.batch, heads, tokens, shape.head_dim];
                rng.normal_tensor::<4>(shape, &Device::flex())
            };
            let (q, k, v) = (
                draw(shape.heads),
                draw(shape.kv_heads),
                draw(shape.kv_heads),
            );
            let inputs = Inputs {
                qkv: [q, k, v],
                d_out: draw(shape.heads),
            };
            let dense = (comm.rank() == 0 && self.is_compared()).then(|| self.dense(&inputs));
            for &method in &self.methods {
                rows.push(self.row(comm, method, shape, &inputs, dense.as_deref())?);
            }
        }
        Ok(rows)
    }

    fn row(
        &self,
        comm: &Comm,
        method: Method,
        shape: Shape,
        inputs: &Inputs,
        dense: Option<&[Tensor<4>]>,
    ) -> Result<Row> {
        let attention = Distributed::new(comm, method)?;
        let positions = attention.positions(shape.tokens);
        let qkv = inputs.qkv.each_ref().map(|x| shard(x, &positions));
        let d_out = shard(&inputs.d_out, &positions);
        let task = Task {
            tokens: shape.tokens,
            mask: self.mask.clone(),
            wire_dtype: self.wire_dtype,
        };
        let mut best: Option<[f64; 3]> = None;
        let mut found = Vec::new();
        let (mut bytes, mut messages) = (0, 0);
        for _ in 0..self.repeats {
            comm.barrier()?;
            comm.traffic().reset();
            let started = Instant::now();
            let forward = attention.forward(&task, qkv.clone())?;
            found = vec![forward.out.clone()];
            if self.trains() {
                found.extend(attention.backward(&task, forward.saved, d_out.clone())?);
            }
            let traffic = comm.traffic();
            (bytes, messages) = (traffic.bytes(), traffic.messages());
            let waiting = traffic.waiting().as_secs_f64();
            comm.barrier()?;
            let seconds = started.elapsed().as_secs_f64();
            let all = comm.all_gather(&[seconds, waiting], &vec![2; comm.size()])?;
            let of = |i: usize| all.iter().skip(i).step_by(2).copied();
            let slowest = of(0).fold(0.0, f64::max);
            let mean = |sum: f64| sum / comm.size() as f64;
            let waiting = mean(of(1).sum());
            let computing = mean(all.chunks_exact(2).map(|rank| rank[0] - rank[1]).sum());
            if best.is_none_or(|best| slowest < best[0]) {
                best = Some([slowest, computing, waiting]);
            }
        }
        let [seconds, computing, waiting] = best.expect("at least one run");
        let mut predicted = 0;
        for &direction in self.passes {
            predicted += volume(method, shape, comm.member(), direction)?.bytes(self.wire_dtype);
        }
        let all = comm.all_gather(&[bytes, predicted, messages], &vec![3; comm.size()])?;
        let most = |i: usize| all.iter().skip(i).step_by(3).copied().max();
        let difference = match self.comparison {
            Comparison::None => None,
            Comparison::Dense => difference(comm, &attention, shape.tokens, &found, dense)?,
        };
        Ok(Row {
            name: method.to_string(),
            method,
            tokens: shape.tokens,
            seconds,
            computing,
            waiting,
            bytes: most(0).unwrap_or(0),
            predicted_bytes: most(1).unwrap_or(0),
            as_predicted: all.chunks_exact(3).all(|rank| rank[0] == rank[1]),
            messages: most(2).unwrap_or(0),
            difference,
        })
    }

    /// Output and gradients of attention on one rank.
    fn dense(&self, inputs: &Inputs) -> Vec<Tensor<4>> {
        let mask = match self.mask.causal {
            true => ops::Mask::Causal,
            false => ops::Mask::All,
        };
        let [q, k, v] = inputs.qkv.clone();
        let (out, lse) = ops::attention_with_lse(q, k, v, mask.clone());
        if !self.trains() {
            return vec![out];
        }
        let d_out = inputs.d_out.clone();
        let delta = (out.clone() * d_out.clone()).sum_dim(3).squeeze_dim::<3>(3);
        let gradients = ops::attention_gradients(inputs.qkv.clone(), d_out, lse, delta, mask);
        std::iter::once(out).chain(gradients).collect()
    }
}

/// At the first rank, which has the dense ones, how far everyone's tensors are from them.
fn difference(
    comm: &Comm,
    attention: &Distributed,
    tokens: usize,
    found: &[Tensor<4>],
    dense: Option<&[Tensor<4>]>,
) -> Result<Option<f64>> {
    let mut worst: Option<f64> = None;
    for (i, tensor) in found.iter().enumerate() {
        let [batch, heads, _, head_dim] = tensor.dims();
        let ranks = comm.size();
        let positions = |rank| attention.layout().positions(Member { rank, ranks }, tokens);
        let lists: Vec<_> = (0..ranks).map(positions).collect();
        let per = batch * heads * head_dim;
        let counts: Vec<_> = lists.iter().map(|list| list.len() * per).collect();
        let rows = host_values(tensor.clone().permute([2, 0, 1, 3]));
        let all = comm.all_gather(&rows, &counts)?;
        let Some(dense) = dense.map(|dense| &dense[i]) else {
            continue;
        };
        let all = device_values(all, [tokens, batch, heads, head_dim], &Device::flex());
        let expected = shard(dense, &lists.concat()).permute([2, 0, 1, 3]);
        let largest = host_values(dense.clone().abs().max())[0];
        let error = host_values((all - expected).abs().max())[0];
        let share = f64::from(error / largest);
        worst = Some(worst.map_or(share, |worst| worst.max(share)));
    }
    Ok(worst)
}

/// The rows as a table.
pub struct Table<'a> {
    /// What was measured.
    pub setting: &'a Setting,
    /// On how many ranks.
    pub ranks: usize,
    /// What came of it.
    pub rows: &'a [Row],
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            ranks,
            rows,
        } = self;
        let shape = setting.shape;
        write!(
            f,
            "{ranks} ranks, {}{}: {} sequences, {} heads of {}, {} of keys and values, {}\n\n\
             {:>7}  {:<32} {:>9} {:>9} {:>9}  {:>12} {:>12}  {:>9}\n",
            match setting.trains() {
                true => "forward and backward",
                false => "forward",
            },
            if setting.mask.causal { ", causal" } else { "" },
            shape.batch,
            shape.heads,
            shape.head_dim,
            shape.kv_heads,
            setting.wire_dtype,
            "tokens",
            "method",
            "time",
            "computing",
            "waiting",
            "received",
            "predicted",
            "from dense",
        )?;
        for row in *rows {
            let received = match row.as_predicted {
                true => mib(row.bytes),
                false => format!("{} !", mib(row.bytes)),
            };
            let difference = row
                .difference
                .map_or("-".into(), |difference| format!("{difference:.1e}"));
            writeln!(
                f,
                "{:>7}  {:<32} {:>9} {:>9} {:>9}  {received:>12} {:>12}  {difference:>9}",
                row.tokens,
                row.name,
                time(row.seconds),
                time(row.computing),
                time(row.waiting),
                mib(row.predicted_bytes),
            )?;
        }
        Ok(())
    }
}
