//! The cost model of machines: a message of b bytes takes α + b/β, a kernel its arithmetic plus its launch.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A link between two ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// α, the latency in seconds.
    pub latency_s: f64,
    /// β, the bandwidth of one message in bytes per second.
    pub bytes_per_s: f64,
}

impl Link {
    /// The time of a message of `bytes` bytes: α + b/β.
    pub fn seconds(self, bytes: f64) -> f64 {
        self.latency_s + bytes / self.bytes_per_s
    }
}

/// Equal ranks in nodes of equal size, numbered node by node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// The name of the preset.
    pub name: String,
    /// The number of ranks per node.
    #[serde(rename = "node")]
    pub ranks_per_node: usize,
    /// Links within a node.
    #[serde(rename = "inside")]
    pub intra_node: Link,
    /// Links between nodes.
    #[serde(rename = "between")]
    pub inter_node: Link,
    /// The bandwidth into a node that all its messages share, in bytes per second.
    pub node_bytes_per_s: f64,
    /// Floating-point operations per second of a rank's attention kernel.
    pub flops_per_s: f64,
    /// Seconds per kernel launch.
    pub launch_s: f64,
}

/// A network that [`FromStr`] knows by name.
struct Preset {
    name: &'static str,
    ranks_per_node: usize,
    intra_node: Link,
    inter_node: Link,
    node_bytes_per_s: f64,
    flops_per_s: f64,
    launch_s: f64,
}

/// The presets: round figures from data sheets, with attention at half of the peak or less. The links between nodes and
/// the kernel launch of `a100` are fitted to the paper's measurements, see docs/attention2d-simulation.md.
const PRESETS: [Preset; 6] = [
    Preset {
        name: "a100",
        ranks_per_node: 4,
        intra_node: link(5e-6, 230e9),
        inter_node: link(6e-6, 7.1e9),
        node_bytes_per_s: 28.4e9,
        flops_per_s: 225e12,
        launch_s: 150e-6,
    },
    Preset {
        name: "h100",
        ranks_per_node: 8,
        intra_node: link(5e-6, 400e9),
        inter_node: link(10e-6, 45e9),
        node_bytes_per_s: 360e9,
        flops_per_s: 500e12,
        launch_s: 10e-6,
    },
    Preset {
        name: "h100-1",
        ranks_per_node: 1,
        intra_node: link(5e-6, 400e9),
        inter_node: link(10e-6, 45e9),
        node_bytes_per_s: 45e9,
        flops_per_s: 500e12,
        launch_s: 10e-6,
    },
    Preset {
        name: "gb200",
        ranks_per_node: 72,
        intra_node: link(5e-6, 800e9),
        inter_node: link(10e-6, 45e9),
        node_bytes_per_s: 3240e9,
        flops_per_s: 1200e12,
        launch_s: 10e-6,
    },
    Preset {
        name: "ethernet-1g",
        ranks_per_node: 1,
        intra_node: link(2e-6, 5e9),
        inter_node: link(50e-6, 117e6),
        node_bytes_per_s: 117e6,
        flops_per_s: 500e9,
        launch_s: 5e-6,
    },
    Preset {
        name: "shared",
        ranks_per_node: 65_536,
        intra_node: link(2e-6, 5e9),
        inter_node: link(2e-6, 5e9),
        node_bytes_per_s: 5e9,
        flops_per_s: 50e9,
        launch_s: 5e-6,
    },
];

const fn link(latency_s: f64, bytes_per_s: f64) -> Link {
    Link {
        latency_s,
        bytes_per_s,
    }
}

impl Network {
    /// The names of the presets.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.name)
    }

    /// The time of a message of `bytes` bytes.
    pub fn seconds(&self, route: Route, bytes: f64) -> f64 {
        self.link(route).seconds(bytes)
    }

    /// α and β of one message on a route.
    pub fn link(&self, route: Route) -> Link {
        match route {
            Route::IntraNode => self.intra_node,
            Route::InterNode { messages } => Link {
                bytes_per_s: (self.node_bytes_per_s / messages.max(1) as f64)
                    .min(self.inter_node.bytes_per_s),
                ..self.inter_node
            },
        }
    }

    fn preset(preset: &Preset) -> Self {
        Self {
            name: preset.name.into(),
            ranks_per_node: preset.ranks_per_node,
            intra_node: preset.intra_node,
            inter_node: preset.inter_node,
            node_bytes_per_s: preset.node_bytes_per_s,
            flops_per_s: preset.flops_per_s,
            launch_s: preset.launch_s,
        }
    }

    /// A number by its name in the text form.
    fn field(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "inside-latency" => &mut self.intra_node.latency_s,
            "inside-bandwidth" => &mut self.intra_node.bytes_per_s,
            "latency" => &mut self.inter_node.latency_s,
            "bandwidth" => &mut self.inter_node.bytes_per_s,
            "node-bandwidth" => &mut self.node_bytes_per_s,
            "flops" => &mut self.flops_per_s,
            "launch" => &mut self.launch_s,
            _ => return None,
        })
    }
}

/// The route of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Within a node.
    IntraNode,
    /// From another node.
    InterNode {
        /// Messages that enter the node at the same time and share its bandwidth.
        messages: usize,
    },
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} to a node, {:.1} GB/s and {:.1} us inside, {:.2} GB/s and {:.1} us between nodes ({:.2} GB/s \
             into a node), {:.1} TFLOP/s, {:.1} us a call",
            self.name,
            self.ranks_per_node,
            self.intra_node.bytes_per_s / 1e9,
            self.intra_node.latency_s * 1e6,
            self.inter_node.bytes_per_s / 1e9,
            self.inter_node.latency_s * 1e6,
            self.node_bytes_per_s / 1e9,
            self.flops_per_s / 1e12,
            self.launch_s * 1e6,
        )
    }
}

/// Parses a preset and changes to it, such as `a100,node=8,bandwidth=25e9`.
impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let preset = PRESETS.iter().find(|preset| preset.name == name);
        let known = || Self::names().collect::<Vec<_>>().join(", ");
        let mut network = preset
            .map(Self::preset)
            .ok_or_else(|| Error::config("a network", format!("one of {}", known()), name))?;
        for part in parts {
            let wrong = |expected: &str| Error::config("a number of a network", expected, part);
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| wrong("name=value such as bandwidth=25e9"))?;
            if key == "node" {
                network.ranks_per_node = value.parse().map_err(|_| wrong("a number of ranks"))?;
                continue;
            }
            let names = "one of node, inside-latency, inside-bandwidth, latency, bandwidth, node-bandwidth, flops, \
                         launch";
            let field = network.field(key).ok_or_else(|| wrong(names))?;
            *field = value.parse().map_err(|_| wrong("a number"))?;
        }
        let rates = [
            network.intra_node.bytes_per_s,
            network.inter_node.bytes_per_s,
            network.node_bytes_per_s,
            network.flops_per_s,
        ];
        let times = [
            network.intra_node.latency_s,
            network.inter_node.latency_s,
            network.launch_s,
        ];
        let sound = rates.iter().all(|&rate| rate > 0.0) && times.iter().all(|&time| time >= 0.0);
        match sound && network.ranks_per_node > 0 {
            true => Ok(network),
            false => Err(Error::config(
                "a network",
                "of rates above 0, times from 0 and nodes of 1 rank or more",
                text,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_what_is_different_make_a_network() -> Result<()> {
        let network: Network = "h100,node=4, bandwidth=25e9,node-bandwidth=50e9".parse()?;
        assert_eq!(
            (network.ranks_per_node, network.inter_node.bytes_per_s),
            (4, 25e9)
        );
        let rate = |messages| network.link(Route::InterNode { messages }).bytes_per_s;
        assert_eq!([1, 2, 4].map(rate), [25e9, 25e9, 12.5e9]);
        assert_eq!(network.link(Route::IntraNode), network.intra_node);
        for name in Network::names() {
            assert_eq!(name.parse::<Network>()?.name, name);
        }
        Ok(())
    }

    #[test]
    fn what_is_no_network_is_refused_by_name() {
        let refused = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        assert!(refused("v100").contains("one of a100, h100"));
        assert!(refused("a100,speed=1").contains("node-bandwidth"));
        assert!(refused("a100,flops=fast").contains("flops=fast"));
        assert!(refused("a100,flops=0").contains("rates above 0"));
    }
}
