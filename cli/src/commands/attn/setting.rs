//! What `attn` plans and simulates, as flags.

use crate::args::within;
use anyhow::Result;
use clap::Args;
use tessera::attention2d::{Direction, Network, Setting, Shape, WireDtype};

/// The attention and the machines of a model of them.
#[derive(Debug, Clone, Args)]
pub struct SettingArgs {
    /// Sequences.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = within(1_usize..=65_536))]
    batch: usize,
    /// Heads of queries.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = within(1_usize..=65_536))]
    heads: usize,
    /// Heads of keys and values, which divide those of queries; as many unless given.
    #[arg(long, value_name = "N", value_parser = within(1_usize..=65_536))]
    kv_heads: Option<usize>,
    /// Elements of a head.
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = within(1_usize..=65_536))]
    head_dim: usize,
    /// What queries, keys and values travel as: f32, bf16 or f16.
    #[arg(long, default_value_t = WireDtype::Bf16, value_name = "TYPE")]
    dtype: WireDtype,
    /// A token attends to none after it.
    #[arg(long)]
    causal: bool,
    /// The forward pass alone; forward and backward unless given.
    #[arg(long)]
    forward: bool,
    /// The machines, h100 unless given: a100, h100, h100-1 (one to a node), gb200, ethernet-1g or shared (memory), and
    /// what is different, such as a100,node=8,bandwidth=25e9. Also latency, node-bandwidth, inside-latency,
    /// inside-bandwidth, flops, launch.
    #[arg(long, value_name = "NAME")]
    network: Option<Network>,
}

impl SettingArgs {
    /// What is planned for so many ranks and tokens.
    pub fn setting(&self, ranks: usize, tokens: usize) -> Setting {
        Setting {
            shape: Shape {
                batch: self.batch,
                tokens,
                heads: self.heads,
                kv_heads: self.kv_heads.unwrap_or(self.heads),
                head_dim: self.head_dim,
            },
            ranks,
            causal: self.causal,
            wire_dtype: self.dtype,
            partial_dtype: WireDtype::F32,
        }
    }

    /// The machines; `usual` unless given.
    ///
    /// # Errors
    /// When `usual` is no network.
    pub fn network(&self, usual: &str) -> Result<Network> {
        match &self.network {
            Some(network) => Ok(network.clone()),
            None => Ok(usual.parse()?),
        }
    }

    /// The passes that count.
    pub fn passes(&self) -> &'static [Direction] {
        match self.forward {
            true => Direction::INFERENCE,
            false => Direction::TRAINING,
        }
    }
}
