//! Machines as a model has them: a message of b bytes takes α + b/β, and a kernel its arithmetic and its call.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A way from one rank to another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// α, seconds before the first byte.
    pub latency_s: f64,
    /// β, of one message.
    pub bytes_per_s: f64,
}

impl Link {
    /// α + b/β.
    pub fn seconds(self, bytes: f64) -> f64 {
        self.latency_s + bytes / self.bytes_per_s
    }
}

/// Ranks of one kind in nodes of one size, numbered node by node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// The preset it began as.
    pub name: String,
    /// Ranks of a node.
    pub node: usize,
    /// Between ranks of a node.
    pub inside: Link,
    /// Between ranks of different nodes.
    pub between: Link,
    /// What all messages together bring into a node in a second.
    pub node_bytes_per_s: f64,
    /// Floating-point operations in a second that a rank's attention kernel does.
    pub flops_per_s: f64,
    /// Seconds that each call of the kernel costs besides.
    pub launch_s: f64,
}

/// Name, ranks of a node, then α and β inside and between, bytes into a node, operations, α of a call.
type Preset = (&'static str, usize, [f64; 7]);

/// What `FromStr` knows by name: round figures after data sheets, attention at half of the peak or less. What `a100` has between
/// nodes and for a call is fitted to the paper's measurements, in docs/attention2d-simulation.md.
const PRESETS: [Preset; 6] = [
    (
        "a100",
        4,
        [5e-6, 230e9, 6e-6, 7.1e9, 28.4e9, 225e12, 150e-6],
    ),
    ("h100", 8, [5e-6, 400e9, 10e-6, 45e9, 360e9, 500e12, 10e-6]),
    ("h100-1", 1, [5e-6, 400e9, 10e-6, 45e9, 45e9, 500e12, 10e-6]),
    (
        "gb200",
        72,
        [5e-6, 800e9, 10e-6, 45e9, 3240e9, 1200e12, 10e-6],
    ),
    (
        "ethernet-1g",
        1,
        [2e-6, 5e9, 50e-6, 117e6, 117e6, 500e9, 5e-6],
    ),
    ("shared", 65_536, [2e-6, 5e9, 2e-6, 5e9, 5e9, 50e9, 5e-6]),
];

impl Network {
    /// The names of what comes with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.0)
    }

    /// Seconds that a message of so many bytes is on its way.
    pub fn seconds(&self, way: Way, bytes: f64) -> f64 {
        self.link(way).seconds(bytes)
    }

    /// α and β of one of several messages that travel at once.
    pub fn link(&self, way: Way) -> Link {
        match way {
            Way::Inside => self.inside,
            Way::Between { messages } => Link {
                bytes_per_s: (self.node_bytes_per_s / messages.max(1) as f64)
                    .min(self.between.bytes_per_s),
                ..self.between
            },
        }
    }

    fn preset(&(name, node, numbers): &Preset) -> Self {
        let [
            inside,
            inside_bytes,
            between,
            between_bytes,
            node_bytes,
            flops,
            launch,
        ] = numbers;
        let link = |latency_s, bytes_per_s| Link {
            latency_s,
            bytes_per_s,
        };
        Self {
            name: name.into(),
            node,
            inside: link(inside, inside_bytes),
            between: link(between, between_bytes),
            node_bytes_per_s: node_bytes,
            flops_per_s: flops,
            launch_s: launch,
        }
    }

    /// The number of a name on the command line.
    fn field(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "inside-latency" => &mut self.inside.latency_s,
            "inside-bandwidth" => &mut self.inside.bytes_per_s,
            "latency" => &mut self.between.latency_s,
            "bandwidth" => &mut self.between.bytes_per_s,
            "node-bandwidth" => &mut self.node_bytes_per_s,
            "flops" => &mut self.flops_per_s,
            "launch" => &mut self.launch_s,
            _ => return None,
        })
    }
}

/// Where a message goes, and beside how many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It stays in its node.
    Inside,
    /// It enters a node as one of so many.
    Between {
        /// Messages that enter the node at once.
        messages: usize,
    },
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} to a node, {:.1} GB/s and {:.1} us inside, {:.2} GB/s and {:.1} us between nodes ({:.2} GB/s into a \
             node), {:.1} TFLOP/s, {:.1} us a call",
            self.name,
            self.node,
            self.inside.bytes_per_s / 1e9,
            self.inside.latency_s * 1e6,
            self.between.bytes_per_s / 1e9,
            self.between.latency_s * 1e6,
            self.node_bytes_per_s / 1e9,
            self.flops_per_s / 1e12,
            self.launch_s * 1e6,
        )
    }
}

/// A preset, then what is different, such as `a100,node=8,bandwidth=25e9`.
impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let preset = PRESETS.iter().find(|preset| preset.0 == name);
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
                network.node = value.parse().map_err(|_| wrong("a number of ranks"))?;
                continue;
            }
            let names = "one of node, inside-latency, inside-bandwidth, latency, bandwidth, node-bandwidth, flops, launch";
            let field = network.field(key).ok_or_else(|| wrong(names))?;
            *field = value.parse().map_err(|_| wrong("a number"))?;
        }
        let rates = [
            network.inside.bytes_per_s,
            network.between.bytes_per_s,
            network.node_bytes_per_s,
            network.flops_per_s,
        ];
        let times = [
            network.inside.latency_s,
            network.between.latency_s,
            network.launch_s,
        ];
        let sound = rates.iter().all(|&rate| rate > 0.0) && times.iter().all(|&time| time >= 0.0);
        match sound && network.node > 0 {
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
        assert_eq!((network.node, network.between.bytes_per_s), (4, 25e9));
        let rate = |messages| network.link(Way::Between { messages }).bytes_per_s;
        assert_eq!([1, 2, 4].map(rate), [25e9, 25e9, 12.5e9]);
        assert_eq!(network.link(Way::Inside), network.inside);
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
