//! What a layer can be, as text and as JSON.

use tessera_moe::{Error, Gate, MoeConfig, RoutingRule};

#[test]
fn k_in_e_is_read_with_hyphens_and_without() {
    let config: MoeConfig = "4-in-32".parse().unwrap();
    assert_eq!(config, MoeConfig::k_in_e(4, 32));
    assert_eq!("4in32".parse::<MoeConfig>().unwrap(), config);
    assert_eq!((config.k, config.split, config.experts), (4.0, 4, 32));
    for text in [
        "",
        "4",
        "in",
        "4-of-32",
        "0-in-8",
        "9-in-8",
        "2-in-8-in-9",
        "-2-in-x",
    ] {
        let error = text.parse::<MoeConfig>().unwrap_err();
        assert!(matches!(&error, Error::KInE { found } if found == text));
        let message =
            format!("experts `{text}`: expected k-in-E such as 4-in-32, with k of E at most");
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_config_that_no_layer_can_have_is_refused_by_field() {
    let good = MoeConfig::k_in_e(2, 8);
    good.validate(32).unwrap();
    let fractional = MoeConfig {
        k: 1.5,
        ..good.clone()
    };
    fractional.validate(32).unwrap();
    let refused = |change: fn(&mut MoeConfig)| {
        let mut config = good.clone();
        change(&mut config);
        config.validate(32).unwrap_err().to_string()
    };
    let is = |field: &str, expected: &str, found: &str| {
        format!("mixture of experts: `{field}` must be {expected}, found {found}")
    };
    assert_eq!(refused(|c| c.experts = 0), is("experts", "1 or more", "0"));
    let divisor = "a divisor of the MLP's width 32";
    assert_eq!(refused(|c| c.split = 3), is("split", divisor, "3"));
    assert_eq!(refused(|c| c.split = 0), is("split", divisor, "0"));
    assert_eq!(refused(|c| c.k = -0.5), is("k", "in 0..=8", "-0.5"));
    assert_eq!(refused(|c| c.k = 8.5), is("k", "in 0..=8", "8.5"));
    assert_eq!(refused(|c| c.k = f64::NAN), is("k", "in 0..=8", "NaN"));
    assert_eq!(
        refused(|c| c.momentum = 1.0),
        is("momentum", "in 0..1", "1")
    );
    assert_eq!(
        refused(|c| c.similarity_weight = -1.0),
        is("similarity_weight", "0 or more", "-1")
    );
    assert_eq!(
        refused(|c| c.balance_weight = f64::INFINITY),
        is("balance_weight", "0 or more", "inf")
    );
    assert_eq!(
        refused(|c| c.target_weight = f64::NAN),
        is("target_weight", "0 or more", "NaN")
    );
}

#[test]
fn a_config_survives_json_and_unknown_keys_do_not() {
    for (rule, gate) in RoutingRule::ALL
        .into_iter()
        .zip(Gate::ALL.into_iter().cycle())
    {
        let config = MoeConfig {
            rule,
            gate,
            k: 2.5,
            threshold: false,
            ..MoeConfig::k_in_e(2, 8)
        };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<MoeConfig>(&json).unwrap(), config);
    }
    let short = r#"{"experts": 8, "split": 2, "k": 2.0}"#;
    let least: MoeConfig = serde_json::from_str(short).unwrap();
    let expected = MoeConfig {
        similarity_weight: 0.0,
        target_weight: 0.0,
        ..MoeConfig::k_in_e(2, 8)
    };
    assert_eq!(least, expected, "what is not said has no weight");
    let unknown = r#"{"experts": 8, "split": 2, "k": 2.0, "capacity": 1.0}"#;
    let error = serde_json::from_str::<MoeConfig>(unknown).unwrap_err();
    assert!(error.to_string().contains("`capacity`"), "{error}");
    let missing = serde_json::from_str::<MoeConfig>(r#"{"experts": 8}"#).unwrap_err();
    assert!(missing.to_string().contains("`split`"), "{missing}");
    let rule = r#"{"experts": 8, "split": 2, "k": 2.0, "rule": "batch-experts"}"#;
    let rule: MoeConfig = serde_json::from_str(rule).unwrap();
    assert_eq!(rule.rule, RoutingRule::BatchExperts);
}
