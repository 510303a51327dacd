//! Presets, the papers' counts of parameters, and configs that no model can have.

use super::tiny;
use burn::module::Module;
use burn::tensor::Device;
use tessera_gen_dit::{Dit, DitConfig, Error, Parameters};

fn preset(name: &str) -> DitConfig {
    name.parse().unwrap()
}

/// As the papers write it: billions with three digits after the point.
fn billions(parameters: u64) -> String {
    format!("{:.3}", parameters as f64 / 1e9)
}

/// What `parameters` counts, from the tensors themselves: those of the blocks but for biases, thresholds and target
/// heads.
fn counted(config: &DitConfig) -> Parameters {
    let mut counts = Parameters {
        total: 0,
        activated: 0,
    };
    for (name, shape) in config.init(0, &Device::flex()).shapes() {
        let aside = ["bias", "threshold"];
        let left_out = name
            .split('.')
            .next_back()
            .is_some_and(|last| aside.contains(&last));
        if !name.starts_with("blocks.") || left_out || name.contains(".router.target.") {
            continue;
        }
        let of = shape.iter().product::<usize>() as u64;
        counts.total += of;
        counts.activated += match &config.moe {
            Some(moe) if name.contains(".experts.") => {
                assert_eq!(of % moe.experts as u64, 0, "{name}");
                (of as f64 * moe.k / moe.experts as f64) as u64
            }
            _ => of,
        };
    }
    counts
}

/// Expert Race, table 4. Its L with experts has 1.889 billion, which no rule that gives the other totals does: they
/// leave at most 0.09 million for what may be missing of the M.
#[test]
fn parameters_add_up_to_the_papers_table_4() {
    for (name, total, activated) in [
        ("dit-b/2", "0.127", "0.127"),
        ("dit-m/2", "0.265", "0.265"),
        ("dit-l/2", "0.453", "0.453"),
        ("dit-xl/2", "0.669", "0.669"),
        ("race-dit-b/2-4in32", "0.531", "0.135"),
        ("race-dit-m/2-4in32", "1.106", "0.281"),
        ("race-dit-l/2-4in32", "1.888", "0.479"),
        ("race-dit-xl/2-4in32", "2.788", "0.707"),
    ] {
        let config = preset(name);
        let found = config.parameters();
        println!("{name}: {} in all, {} active", found.total, found.activated);
        assert_eq!(found, counted(&config), "{name}");
        assert_eq!(billions(found.total), total, "{name}");
        assert_eq!(billions(found.activated), activated, "{name}");
    }
}

/// Expert Race, table 5, which leaves the router out. Its 1-in-16 has 0.978 billion, though the products are as many
/// as those of 2-in-32.
#[test]
fn parameters_add_up_to_the_papers_table_5() {
    for (experts, total) in [
        ("1in4", "0.297"),
        ("1in8", "0.524"),
        ("1in16", "0.977"),
        ("2in8", "0.297"),
        ("2in16", "0.524"),
        ("2in32", "0.977"),
        ("4in16", "0.297"),
        ("4in32", "0.524"),
        ("4in64", "0.977"),
        ("8in32", "0.297"),
        ("8in64", "0.524"),
        ("8in128", "0.977"),
    ] {
        let config = preset(&format!("race-dit-b/2-{experts}"));
        let found = config.parameters();
        assert_eq!(found, counted(&config), "{experts}");
        let each = (768 * 768 + 768 * config.moe.as_ref().unwrap().experts) as u64;
        let [all, active] = [found.total, found.activated].map(|count| count - 12 * each);
        println!("{experts}: {all} without router, {active} active");
        assert_eq!(billions(all), total, "{experts}");
        assert_eq!(active, preset("dit-b/2").parameters().total);
    }
}

#[test]
fn a_name_says_the_size_the_patch_and_the_experts() {
    let config = preset("Race-DiT-XL/4-2-in-16");
    assert_eq!(
        DitConfig {
            moe: Some("2-in-16".parse().unwrap()),
            patch_size: 4,
            ..DitConfig::xl_2()
        },
        config
    );
    assert_eq!(
        preset("dit-s-8"),
        DitConfig {
            hidden_size: 384,
            depth: 12,
            num_heads: 6,
            patch_size: 8,
            ..DitConfig::xl_2()
        }
    );
    assert_eq!(config.seq(), 64);
    for wrong in [
        "",
        "dit",
        "dit-b",
        "dit-b/3",
        "dit-q/2",
        "dit-b/2-4in32",
        "race-dit-b/2",
        "race-dit-b/2-",
        "race-dit-b/2-4of32",
        "race-dit-b/2-5in4",
        "race-dit-b/2-0in4",
        "race-race-dit-b/2-4in32",
        "b/2",
    ] {
        let error = wrong.parse::<DitConfig>().unwrap_err();
        assert!(matches!(error, Error::Preset { .. }), "{wrong}: {error}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{wrong}`")), "{text}");
        assert!(text.contains("race-dit-b/2-4in32"), "{text}");
    }
}

#[test]
fn configs_of_no_model_are_refused() {
    let good = tiny::config();
    good.validate().unwrap();
    let refused = |field: &str, change: &dyn Fn(&mut DitConfig)| {
        let mut config = good.clone();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert!(error.to_string().contains(&format!("`{field}`")), "{error}");
    };
    refused("patch_size", &|config| config.patch_size = 0);
    refused("depth", &|config| config.depth = 0);
    refused("num_classes", &|config| config.num_classes = 0);
    refused("input_size", &|config| config.input_size = 9);
    refused("hidden_size", &|config| config.num_heads = 5);
    refused("hidden_size", &|config| config.hidden_size = 21); // of 3 heads, but not of 4 parts
    refused("class_dropout_prob", &|config| {
        config.class_dropout_prob = 1.0
    });
    refused("class_dropout_prob", &|config| {
        config.class_dropout_prob = f32::NAN
    });
    refused("learn_sigma", &|config| {
        config.process = tessera_gen_dit::Process::Flow
    });
    refused("split", &|config| {
        config.moe = Some("5in8".parse().unwrap()); // 96 is no multiple of 5
    });
}

#[test]
fn a_config_is_the_same_after_json() {
    for (_, config) in tiny::all() {
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<DitConfig>(&json).unwrap(), config);
    }
}

#[test]
fn a_config_counts_what_its_model_has_without_making_it() {
    let mut configs: Vec<DitConfig> = tiny::all().into_iter().map(|(_, config)| config).collect();
    configs.push(DitConfig::xl_2());
    configs.push("race-dit-b/2-4in32".parse().unwrap());
    for config in configs {
        let model = config.init(0, &Device::flex());
        assert_eq!(config.elements(), model.num_params() as u64, "{config:?}");
    }
}

#[test]
fn a_config_that_claims_more_than_its_weights_hold_is_refused_before_a_model_is_made() {
    let good = tiny::config();
    let weights = tiny::model(&good).weights();
    let refused = |change: fn(&mut DitConfig)| {
        let mut config = good.clone();
        change(&mut config);
        let error = Dit::from_weights(&config, weights.clone(), &Device::flex(), &mut |_| ());
        error.unwrap_err().to_string()
    };
    for far in [
        refused(|c| c.depth = 1 << 32),
        // A table of positions, which the file has as a tensor.
        refused(|c| c.input_size = 65_536),
        refused(|c| c.num_classes = usize::MAX),
        refused(|c| c.mlp_ratio = usize::MAX),
    ] {
        assert!(
            far.starts_with("config.json: describes a model of "),
            "{far}"
        );
    }
    let near = refused(|c| c.depth += 1);
    assert!(near.contains("missing (`blocks.2."), "{near}");
}
