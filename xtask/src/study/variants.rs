//! What is compared, and what the paper (arXiv 2503.16057) says of it: the one place that knows.

use super::results::Measure;

/// The weights of the losses beside the model's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// Router similarity.
    pub similarity: f64,
    /// Switch's balance loss.
    pub balance: f64,
    /// Per-layer regularization.
    pub per_layer: f64,
}

/// A model of the study.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// In the names of files, and in [`TABLES`] and [`CLAIMS`].
    pub key: &'static str,
    /// In the report.
    pub label: &'static str,
    /// How tokens get experts; `None` is the dense model.
    pub routing: Option<Routing>,
    /// What the paper measured, FID, for its B/2 2-in-8.
    pub fid: Option<f64>,
}

/// How tokens get experts, as `tessera train dit` spells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Who races whom.
    pub rule: &'static str,
    /// What scales an expert's output.
    pub gate: &'static str,
    /// Scores are held against a learned threshold at inference.
    pub threshold: bool,
    /// Per-layer regularization.
    pub per_layer: bool,
    /// The router similarity loss.
    pub similarity: bool,
    /// The balance loss.
    pub balance: bool,
}

/// A race with nothing beside it.
const PLAIN: Routing = Routing {
    rule: "race",
    gate: "identity",
    threshold: false,
    per_layer: false,
    similarity: false,
    balance: false,
};

/// A race against a threshold.
const THRESHOLD: Routing = Routing {
    threshold: true,
    ..PLAIN
};

const fn variant(
    key: &'static str,
    label: &'static str,
    routing: Routing,
    fid: Option<f64>,
) -> Variant {
    Variant {
        key,
        label,
        routing: Some(routing),
        fid,
    }
}

/// Every model, trained once per seed.
pub const VARIANTS: [Variant; 11] = [
    Variant {
        key: "dense",
        label: "dense",
        routing: None,
        fid: Some(18.03),
    },
    variant(
        "token",
        "token choice, identity",
        Routing {
            rule: "token",
            ..PLAIN
        },
        Some(15.98),
    ),
    variant(
        "expert",
        "expert choice, identity",
        Routing {
            rule: "expert",
            ..PLAIN
        },
        Some(15.70),
    ),
    variant(
        "softmax",
        "Race, softmax",
        Routing {
            gate: "softmax",
            ..PLAIN
        },
        Some(16.47),
    ),
    variant(
        "sigmoid",
        "Race, sigmoid",
        Routing {
            gate: "sigmoid",
            ..PLAIN
        },
        Some(13.85),
    ),
    variant("race", "Race, identity", PLAIN, Some(13.66)),
    variant("threshold", "… + threshold", THRESHOLD, Some(11.56)),
    variant(
        "per-layer",
        "… + per-layer regularization",
        Routing {
            per_layer: true,
            ..THRESHOLD
        },
        Some(8.95),
    ),
    variant(
        "full",
        "… + similarity loss",
        Routing {
            per_layer: true,
            similarity: true,
            ..THRESHOLD
        },
        Some(8.03),
    ),
    variant(
        "balance",
        "threshold + balance loss",
        Routing {
            balance: true,
            ..THRESHOLD
        },
        None,
    ),
    variant(
        "similarity",
        "threshold + similarity loss",
        Routing {
            similarity: true,
            ..THRESHOLD
        },
        None,
    ),
];

/// The variant of a key.
///
/// # Panics
/// When there is none: keys are written in this file alone.
pub fn variant_of(key: &str) -> &'static Variant {
    let found = VARIANTS.iter().find(|variant| variant.key == key);
    found.expect("a key of this file")
}

impl Routing {
    /// The flags of `tessera train dit`.
    pub fn flags(&self, experts: &str, weights: &Weights) -> String {
        let or_none = |used: bool, weight: f64| if used { weight } else { 0.0 };
        let mut flags = format!(
            "--experts {experts} --rule {} --gate {} --similarity {} --balance {} --per-layer {}",
            self.rule,
            self.gate,
            or_none(self.similarity, weights.similarity),
            or_none(self.balance, weights.balance),
            or_none(self.per_layer, weights.per_layer)
        );
        if !self.threshold {
            flags += " --no-threshold";
        }
        flags
    }
}

/// A table of the report.
pub struct Table {
    /// Its heading.
    pub title: &'static str,
    /// The keys of its rows.
    pub rows: &'static [&'static str],
}

/// The tables of the report; a row may be in several.
pub const TABLES: [Table; 3] = [
    Table {
        title: "Routing rules (the paper's table 1, its identity column)",
        rows: &["dense", "token", "expert", "race"],
    },
    Table {
        title: "Gates, then one part after the other (tables 1 and 3)",
        rows: &[
            "softmax",
            "sigmoid",
            "race",
            "threshold",
            "per-layer",
            "full",
        ],
    },
    Table {
        title: "Balance (table 2)",
        rows: &["threshold", "balance", "similarity"],
    },
];

/// A claim of the paper: one variant is better than another.
pub struct Claim {
    /// In words.
    pub text: &'static str,
    /// The key of what should be better.
    pub better: &'static str,
    /// The key of what should be worse.
    pub worse: &'static str,
    /// By which measures.
    pub by: &'static [Measure],
    /// The paper's figures for the first measure, better and worse.
    pub paper: &'static str,
}

const QUALITY: &[Measure] = &[Measure::Frechet, Measure::Validation];
const EVENNESS: &[Measure] = &[Measure::MaxVio, Measure::Combinations];

/// The claims that the report holds against its figures.
pub const CLAIMS: [Claim; 11] = [
    Claim {
        text: "Racing experts with everything beat the dense model",
        better: "full",
        worse: "dense",
        by: QUALITY,
        paper: "FID 7.35 against 18.03 (table 4, 4-in-32)",
    },
    Claim {
        text: "Race beats token choice",
        better: "race",
        worse: "token",
        by: QUALITY,
        paper: "FID 13.66 against 15.98",
    },
    Claim {
        text: "Race beats expert choice",
        better: "race",
        worse: "expert",
        by: QUALITY,
        paper: "FID 13.66 against 15.70",
    },
    Claim {
        text: "The identity gate is no worse than sigmoid",
        better: "race",
        worse: "sigmoid",
        by: QUALITY,
        paper: "FID 13.66 against 13.85",
    },
    Claim {
        text: "Sigmoid beats softmax",
        better: "sigmoid",
        worse: "softmax",
        by: QUALITY,
        paper: "FID 13.85 against 16.47",
    },
    Claim {
        text: "The threshold helps",
        better: "threshold",
        worse: "race",
        by: QUALITY,
        paper: "FID 11.56 against 13.66",
    },
    Claim {
        text: "Per-layer regularization helps",
        better: "per-layer",
        worse: "threshold",
        by: QUALITY,
        paper: "FID 8.95 against 11.56",
    },
    Claim {
        text: "The similarity loss helps",
        better: "full",
        worse: "per-layer",
        by: QUALITY,
        paper: "FID 8.03 against 8.95",
    },
    Claim {
        text: "The similarity loss makes experts more even than nothing does",
        better: "similarity",
        worse: "threshold",
        by: EVENNESS,
        paper: "MaxVio 0.850 against 6.383, combinations 83.1 % against 19.0 %",
    },
    Claim {
        text: "The similarity loss makes experts more even than the balance loss does",
        better: "similarity",
        worse: "balance",
        by: EVENNESS,
        paper: "MaxVio 0.850 against 2.052, combinations 83.1 % against 72.4 %",
    },
    Claim {
        text: "The similarity loss costs less quality than the balance loss",
        better: "similarity",
        worse: "balance",
        by: QUALITY,
        paper: "FID 10.77 against 11.67",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_claims_name_variants_and_every_variant_is_in_a_table() {
        let rows: Vec<_> = TABLES.iter().flat_map(|table| table.rows).collect();
        for row in &rows {
            variant_of(row);
        }
        for claim in &CLAIMS {
            assert_ne!(variant_of(claim.better), variant_of(claim.worse));
        }
        for variant in &VARIANTS {
            assert!(rows.contains(&&variant.key), "{}", variant.key);
        }
    }

    #[test]
    fn no_two_variants_are_the_same_run() {
        let flags = |variant: &Variant| {
            let weights = Weights {
                similarity: 1.0,
                balance: 2.0,
                per_layer: 3.0,
            };
            variant
                .routing
                .map(|routing| routing.flags("4-in-16", &weights))
        };
        let mut all: Vec<_> = VARIANTS.iter().map(flags).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), VARIANTS.len());
        assert_eq!(
            flags(variant_of("race")).unwrap(),
            "--experts 4-in-16 --rule race --gate identity --similarity 0 --balance 0 --per-layer 0 --no-threshold"
        );
    }
}
