//! `tessera attn bench`: every method on real ranks, measured.

use crate::args::{Global, MOST_TOKENS, spelled, within};
use crate::output;
use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use tessera::attention2d::{Comm, Direction, Mask, Shape, WireDtype, threads};
use tessera_bench::attention::{
    Comparison, Grids, Kind, Row, Selection, Setting, Table, Variants, check_size,
};

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

spelled!(
    /// The methods by name.
    enum Name for Kind {
        Attention2d,
        Ring,
        Zigzag,
        GatherKv,
        Ulysses,
    }
);

impl Bench {
    /// Measures and prints.
    ///
    /// # Errors
    /// Methods, grids or heads that do not go with the ranks; a rank that failed.
    pub fn run(self, global: &Global, world: &Comm) -> Result<()> {
        for &tokens in &self.tokens {
            check_size(self.shape(tokens))?;
        }
        let (setting, ranks, rows) = match self.threads_as_ranks {
            Some(ranks) => {
                ensure!(
                    world.size() == 1,
                    "--threads-as-ranks {ranks}: this is one of {} ranks already",
                    world.size()
                );
                let setting = self.setting(ranks)?;
                let rows = on_threads(&setting, ranks, global)?;
                (setting, ranks, rows)
            }
            None => {
                let setting = self.setting(world.size())?;
                let rows = setting.measure(world)?;
                (setting, world.size(), rows)
            }
        };
        match (world.rank(), self.json) {
            (0, true) => {
                let shape = setting.shape;
                output::json(&serde_json::json!({
                    "schema": "tessera.attn.bench/v1", "ranks": ranks, "batch": shape.batch, "heads": shape.heads,
                    "kv_heads": shape.kv_heads, "head_dim": shape.head_dim, "dtype": self.dtype, "causal": self.causal,
                    "backward": !self.forward, "rows": rows,
                }))
            }
            (0, false) => {
                let table = Table {
                    setting: &setting,
                    ranks,
                    rows: &rows,
                };
                output::text(table.to_string().trim_end())
            }
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

    fn setting(&self, ranks: usize) -> Result<Setting> {
        let mut selection = Selection {
            kinds: self.method.iter().copied().map(Kind::from).collect(),
            grids: Grids::Squarest,
            variants: match self.variants {
                true => Variants::Every,
                false => Variants::Plain,
            },
        };
        if selection.has(Kind::Attention2d) {
            selection.grids = self.grids()?;
        }
        Ok(Setting {
            shape: self.shape(1),
            lengths: self.tokens.clone(),
            methods: selection.methods(self.shape(1), ranks)?,
            wire_dtype: self.dtype,
            mask: match self.causal {
                true => Mask::causal(),
                false => Mask::all(),
            },
            passes: match self.forward {
                true => Direction::INFERENCE,
                false => Direction::TRAINING,
            },
            repeats: self.repeats,
            comparison: match self.no_compare {
                true => Comparison::None,
                false => Comparison::Dense,
            },
        })
    }

    fn grids(&self) -> tessera::attention2d::Result<Grids> {
        Ok(match self.grid.as_slice() {
            [] => Grids::Squarest,
            [word] if word == "all" => Grids::All,
            grids => Grids::These(
                grids
                    .iter()
                    .map(|grid| grid.parse())
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}

/// The rows of ranks that are threads.
fn on_threads(setting: &Setting, ranks: usize, global: &Global) -> Result<Vec<Row>> {
    let each = global
        .threads
        .unwrap_or(1)
        .clamp(1, rayon::current_num_threads());
    let team = threads::Team {
        ranks,
        threads_per_rank: each,
    };
    let measure = |comm: Comm| {
        if global.check {
            comm.enable_check();
        }
        setting.measure(&comm)
    };
    Ok(team.run(measure)?.remove(0))
}
