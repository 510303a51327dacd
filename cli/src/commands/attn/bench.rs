//! `tessera attn bench`: every method on real ranks, measured.

use super::text::{mib, time};
use crate::args::{Global, MOST_TOKENS, within};
use crate::output;
use anyhow::{Result, ensure};
use burn::tensor::{Device, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt::Write;
use std::time::Instant;
use tessera::attention2d::{
    Comm, Direction, Distributed, Grid, Keys, Mask, Member, Merge, Method, Shape, Task, WireDtype,
    shard, threads, volume,
};
use tessera::backend::{device_values, host_values, ops, streams};

/// Measure every method on ranks: time, bytes received and predicted, and the difference from dense attention.
///
/// Ranks are those of mpirun, or threads of this process.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  tessera attn bench --threads-as-ranks 16 --tokens 1024 --heads 16\n  \
    tessera attn bench --threads-as-ranks 64 --tokens 512 --heads 64 --kv-heads 8 --head-dim 16 --grid all --causal\n  \
    mpirun -n 4 tessera attn bench --tokens 1024,4096 --grid 2x2 --method attention2d,ring --json"
)]
pub struct Bench {
    /// Ranks that are threads, each computing with --threads threads, one unless given.
    #[arg(long, value_name = "P", value_parser = within(1_usize..=1024))]
    threads_as_ranks: Option<usize>,
    /// Lengths of the sequence.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1024",
        value_name = "N,…",
        value_parser = within(1..=MOST_TOKENS)
    )]
    tokens: Vec<usize>,
    /// Sequences.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = within(1_usize..=65_536))]
    batch: usize,
    /// Heads of queries.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = within(1_usize..=65_536))]
    heads: usize,
    /// Heads of keys and values, which divide those of queries; as many unless given.
    #[arg(long, value_name = "N", value_parser = within(1_usize..=65_536))]
    kv_heads: Option<usize>,
    /// Elements of a head.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = within(1_usize..=65_536))]
    head_dim: usize,
    /// What queries, keys and values travel as: f32, bf16 or f16.
    #[arg(long, default_value_t = WireDtype::F32, value_name = "TYPE")]
    dtype: WireDtype,
    /// A token attends to none after it.
    #[arg(long)]
    causal: bool,
    /// The forward pass alone.
    #[arg(long)]
    forward: bool,
    /// Methods; all that the ranks and heads allow unless given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME,…")]
    method: Vec<Name>,
    /// Grids of Attention2D, RxC, or all; the squarest unless given.
    #[arg(long, value_delimiter = ',', value_name = "RxC,…")]
    grid: Vec<String>,
    /// Also with keys transposed, with overlap, and with the other two ways to merge.
    #[arg(long)]
    variants: bool,
    /// Runs of each; the fastest is printed.
    #[arg(short, long, default_value_t = 1, value_name = "N", value_parser = within(1_usize..=1_000_000))]
    repeats: usize,
    /// Without the comparison, which computes dense attention on one rank.
    #[arg(long)]
    no_compare: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// The methods by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Attention2d,
    Ring,
    Zigzag,
    GatherKv,
    Ulysses,
}

/// What was measured of one method at one length.
#[derive(Debug, Clone, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    method: Method,
    tokens: usize,
    /// Of the slowest rank.
    seconds: f64,
    /// Mean over the ranks of what was not waiting.
    computing: f64,
    /// Mean over the ranks of the time spent in collectives.
    waiting: f64,
    /// Bytes received by the rank that received most.
    bytes: u64,
    /// The same as predicted.
    predicted_bytes: u64,
    /// Whether every rank received what was predicted for it.
    as_predicted: bool,
    messages: u64,
    /// Largest difference of outputs and gradients from dense attention, as a share of the largest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<f64>,
}

/// Inputs of all ranks.
struct Inputs {
    qkv: [Tensor<4>; 3],
    d_out: Tensor<4>,
}

/// Elements of queries at most: 4 GiB, and as much of keys, values, the output and their gradients.
const MOST_ELEMENTS: usize = 1 << 30;

impl Bench {
    /// Measures and prints.
    ///
    /// # Errors
    /// Methods, grids or heads that do not go with the ranks; a rank that failed.
    pub fn run(self, global: &Global, world: &Comm) -> Result<()> {
        for &tokens in &self.tokens {
            let shape = self.shape(tokens);
            let sizes = [shape.batch, shape.heads, shape.head_dim, tokens];
            let elements = sizes
                .iter()
                .try_fold(1_usize, |all, &size| all.checked_mul(size));
            ensure!(
                elements.is_some_and(|elements| elements <= MOST_ELEMENTS),
                "{} x {} x {tokens} x {} (batch, heads, tokens, head): expected {MOST_ELEMENTS} elements or fewer to \
                 measure with",
                shape.batch,
                shape.heads,
                shape.head_dim
            );
        }
        let (ranks, rows) = match self.threads_as_ranks {
            Some(ranks) => {
                ensure!(
                    world.size() == 1,
                    "--threads-as-ranks {ranks}: this is one of {} ranks already",
                    world.size()
                );
                let methods = self.methods(ranks)?;
                let each = global
                    .threads
                    .unwrap_or(1)
                    .clamp(1, rayon::current_num_threads());
                let measure = |comm: Comm| {
                    if global.check {
                        comm.enable_check();
                    }
                    self.measure(&comm, &methods)
                };
                let team = threads::Team {
                    ranks,
                    threads_per_rank: each,
                };
                (ranks, team.run(measure)?.remove(0))
            }
            None => {
                let methods = self.methods(world.size())?;
                (world.size(), self.measure(world, &methods)?)
            }
        };
        match (world.rank(), self.json) {
            (0, true) => {
                let shape = self.shape(0);
                output::json(&serde_json::json!({
                    "schema": "tessera.attn.bench/v1", "ranks": ranks, "batch": shape.batch, "heads": shape.heads,
                    "kv_heads": shape.kv_heads, "head_dim": shape.head_dim, "dtype": self.dtype, "causal": self.causal,
                    "backward": !self.forward, "rows": rows,
                }))
            }
            (0, false) => output::text(self.table(ranks, &rows)),
            _ => Ok(()),
        }
    }

    fn shape(&self, tokens: usize) -> Shape {
        Shape {
            batch: self.batch,
            tokens,
            heads: self.heads,
            kv_heads: self.kv_heads.unwrap_or(self.heads),
            head_dim: self.head_dim,
        }
    }

    fn methods(&self, ranks: usize) -> Result<Vec<Method>> {
        let wanted = |name| self.method.is_empty() || self.method.contains(&name);
        let mut methods = Vec::new();
        if wanted(Name::Attention2d) {
            for grid in self.grids(ranks)? {
                methods.push(Method::attention2d(grid));
                if self.variants {
                    methods.extend(variants(grid));
                }
            }
        }
        let rivals = [
            (Name::Ring, Method::Ring { zigzag: false }),
            (Name::Zigzag, Method::Ring { zigzag: true }),
            (Name::GatherKv, Method::GatherKv),
            (Name::Ulysses, Method::Ulysses),
        ];
        for (name, method) in rivals {
            if !wanted(name) {
                continue;
            }
            match method.check(self.shape(1), ranks) {
                Err(_) if self.method.is_empty() => {}
                fits => {
                    fits?;
                    methods.push(method);
                }
            }
        }
        for &method in &methods {
            method.check(self.shape(1), ranks)?;
        }
        Ok(methods)
    }

    fn grids(&self, ranks: usize) -> Result<Vec<Grid>> {
        let all = Grid::of(ranks);
        match self.grid.as_slice() {
            [] => Ok(all
                .into_iter()
                .min_by_key(|grid| grid.rows.abs_diff(grid.cols))
                .into_iter()
                .collect()),
            [word] if word == "all" => Ok(all),
            grids => Ok(grids
                .iter()
                .map(|grid| grid.parse())
                .collect::<tessera::attention2d::Result<_>>()?),
        }
    }

    fn measure(&self, comm: &Comm, methods: &[Method]) -> tessera::attention2d::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for &tokens in &self.tokens {
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
            let dense = (comm.rank() == 0 && !self.no_compare).then(|| self.dense(&inputs));
            for &method in methods {
                rows.push(self.method(comm, method, shape, &inputs, dense.as_deref())?);
            }
        }
        Ok(rows)
    }

    fn method(
        &self,
        comm: &Comm,
        method: Method,
        shape: Shape,
        inputs: &Inputs,
        dense: Option<&[Tensor<4>]>,
    ) -> tessera::attention2d::Result<Row> {
        let attention = Distributed::new(comm, method)?;
        let positions = attention.positions(shape.tokens);
        let qkv = inputs.qkv.each_ref().map(|x| shard(x, &positions));
        let d_out = shard(&inputs.d_out, &positions);
        let task = Task {
            tokens: shape.tokens,
            mask: self.mask(),
            wire_dtype: self.dtype,
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
            if !self.forward {
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
        let passes = match self.forward {
            true => Direction::INFERENCE,
            false => Direction::TRAINING,
        };
        let mut predicted = 0;
        for &direction in passes {
            predicted += volume(method, shape, comm.member(), direction)?.bytes(self.dtype);
        }
        let all = comm.all_gather(&[bytes, predicted, messages], &vec![3; comm.size()])?;
        let most = |i: usize| all.iter().skip(i).step_by(3).copied().max();
        let difference = match self.no_compare {
            true => None,
            false => self.difference(comm, &attention, shape.tokens, &found, dense)?,
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

    fn mask(&self) -> Mask {
        match self.causal {
            true => Mask::causal(),
            false => Mask::all(),
        }
    }

    /// Output and gradients of attention on one rank.
    fn dense(&self, inputs: &Inputs) -> Vec<Tensor<4>> {
        let mask = match self.causal {
            true => ops::Mask::Causal,
            false => ops::Mask::All,
        };
        let [q, k, v] = inputs.qkv.clone();
        let (out, lse) = ops::attention_with_lse(q, k, v, mask.clone());
        if self.forward {
            return vec![out];
        }
        let d_out = inputs.d_out.clone();
        let delta = (out.clone() * d_out.clone()).sum_dim(3).squeeze_dim::<3>(3);
        let gradients = ops::attention_gradients(inputs.qkv.clone(), d_out, lse, delta, mask);
        std::iter::once(out).chain(gradients).collect()
    }

    /// At the first rank, which has the dense ones, how far everyone's tensors are from them.
    fn difference(
        &self,
        comm: &Comm,
        attention: &Distributed,
        tokens: usize,
        found: &[Tensor<4>],
        dense: Option<&[Tensor<4>]>,
    ) -> tessera::attention2d::Result<Option<f64>> {
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

    fn table(&self, ranks: usize, rows: &[Row]) -> String {
        let shape = self.shape(0);
        let mut table = format!(
            "{ranks} ranks, {}{}: {} sequences, {} heads of {}, {} of keys and values, {}\n\n\
             {:>7}  {:<32} {:>9} {:>9} {:>9}  {:>12} {:>12}  {:>9}\n",
            if self.forward {
                "forward"
            } else {
                "forward and backward"
            },
            if self.causal { ", causal" } else { "" },
            shape.batch,
            shape.heads,
            shape.head_dim,
            shape.kv_heads,
            self.dtype,
            "tokens",
            "method",
            "time",
            "computing",
            "waiting",
            "received",
            "predicted",
            "from dense",
        );
        for row in rows {
            let received = match row.as_predicted {
                true => mib(row.bytes),
                false => format!("{} !", mib(row.bytes)),
            };
            let difference = row
                .difference
                .map_or("-".into(), |difference| format!("{difference:.1e}"));
            let _ = writeln!(
                table,
                "{:>7}  {:<32} {:>9} {:>9} {:>9}  {received:>12} {:>12}  {difference:>9}",
                row.tokens,
                row.name,
                time(row.seconds),
                time(row.computing),
                time(row.waiting),
                mib(row.predicted_bytes),
            );
        }
        table.truncate(table.trim_end().len());
        table
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
