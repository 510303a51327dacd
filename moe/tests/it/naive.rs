//! The same computed in the plainest way: loops over tokens and experts, and formulas as they are printed.

use burn::tensor::{Tensor, TensorData};
use tessera_moe::{Moe, RoutingRule};

/// Which place races which, one letter per axis of figure 3: two scores are in one race if they agree on every axis
/// that does not race.
fn same_race(rule: RoutingRule, a: [usize; 3], b: [usize; 3]) -> bool {
    let [batch, seq, experts] = [0, 1, 2].map(|axis| a[axis] == b[axis]);
    match rule {
        RoutingRule::Token => batch && seq,
        RoutingRule::Expert => batch && experts,
        RoutingRule::BatchSeq => experts,
        RoutingRule::BatchExperts => seq,
        RoutingRule::SeqExperts => batch,
        RoutingRule::Race => true,
    }
}

/// How many races there are, D_A of figure 3.
pub fn races(rule: RoutingRule, [batch, seq, experts]: [usize; 3]) -> usize {
    match rule {
        RoutingRule::Token => batch * seq,
        RoutingRule::Expert => batch * experts,
        RoutingRule::BatchSeq => experts,
        RoutingRule::BatchExperts => seq,
        RoutingRule::SeqExperts => batch,
        RoutingRule::Race => 1,
    }
}

/// A score wins if fewer than `winning` of its race beat it: a higher one, or an equal one of a lower index.
pub fn winners(rule: RoutingRule, scores: &[f32], shape: [usize; 3], winning: usize) -> Vec<bool> {
    let place = |index: usize| {
        let token = index / shape[2];
        [token / shape[1], token % shape[1], index % shape[2]]
    };
    let wins = |me: usize| {
        let beats = |other: usize| {
            same_race(rule, place(me), place(other))
                && (scores[other] > scores[me] || (scores[other] == scores[me] && other < me))
        };
        (0..scores.len()).filter(|&other| beats(other)).count() < winning
    };
    (0..scores.len()).map(wins).collect()
}

fn gelu(x: Tensor<2>) -> Tensor<2> {
    const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
    let cubed = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cubed * 0.044715) * SQRT_2_OVER_PI;
    x * 0.5 * (inner.tanh() + 1.0)
}

/// The router's logits: `W_g gelu(W_1 x + b_1) + b_g`.
///
/// # Shapes
/// - x: `[tokens, d_model]`
/// - output: `[tokens, experts]`
pub fn logits(moe: &Moe, x: Tensor<2>) -> Tensor<2> {
    let linear = |x: Tensor<2>, map: &tessera_backend::nn::Linear| {
        x.matmul(map.weight.val()) + map.bias.as_ref().unwrap().val().unsqueeze_dim::<2>(0)
    };
    linear(gelu(linear(x, &moe.router.fc1)), &moe.router.gate)
}

/// Every expert computes every token, and a mask keeps what won.
///
/// # Shapes
/// - x, output: `[tokens, d_model]`
/// - scores, mask: `[tokens, experts]`
pub fn layer(moe: &Moe, x: Tensor<2>, scores: Tensor<2>, mask: &[bool]) -> Tensor<2> {
    let ([tokens, experts], device) = (scores.dims(), x.device());
    let mask: Vec<f32> = mask.iter().map(|&won| f32::from(u8::from(won))).collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [tokens, experts]), &device);
    let gates = scores * mask;
    let mut y = Tensor::zeros_like(&x);
    for expert in 0..experts {
        let map = |x: Tensor<2>, map: &tessera_moe::ExpertLinear| {
            let weight = map.weight.val().narrow(0, expert, 1).squeeze_dim::<2>(0);
            x.matmul(weight) + map.bias.val().narrow(0, expert, 1)
        };
        let out = map(gelu(map(x.clone(), &moe.experts.fc1)), &moe.experts.fc2);
        y = y + out * gates.clone().narrow(1, expert, 1);
    }
    y
}

/// Softmax over the experts of each token.
fn softmax(logits: &[f64], experts: usize) -> Vec<f64> {
    let row = |row: &[f64]| {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exp: Vec<f64> = row.iter().map(|z| (z - most).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.into_iter().map(move |e| e / sum).collect::<Vec<_>>()
    };
    logits.chunks(experts).flat_map(row).collect()
}

fn sum_over(tokens: usize, of: impl Fn(usize) -> f64) -> f64 {
    (0..tokens).map(of).sum()
}

/// Equations 9 to 11, pair by pair.
pub fn similarity(logits: &[f64], mask: &[bool], experts: usize) -> f64 {
    let (p, tokens) = (softmax(logits, experts), logits.len() / experts);
    let m = |t: usize, e: usize| f64::from(u8::from(mask[t * experts + e]));
    let shared = |i: usize, j: usize| sum_over(tokens, |t| m(t, i) * m(t, j));
    let (mut loads, mut pairs) = (0.0, 0.0);
    for i in 0..experts {
        for j in 0..experts {
            *(if i == j { &mut loads } else { &mut pairs }) += shared(i, j);
        }
    }
    let number = experts as f64;
    let mut loss = 0.0;
    for i in 0..experts {
        for j in 0..experts {
            let w = match i == j {
                true => number * shared(i, j) / loads,
                false if pairs == 0.0 => 0.0,
                false => (number * number - number) * shared(i, j) / pairs,
            };
            loss += w * sum_over(tokens, |t| p[t * experts + i] * p[t * experts + j]);
        }
    }
    loss / tokens as f64
}

/// Switch's: `E Σ f_i P̄_i`.
pub fn balance(logits: &[f64], mask: &[bool], experts: usize) -> f64 {
    let (p, tokens) = (softmax(logits, experts), logits.len() / experts);
    let all = mask.iter().filter(|&&won| won).count() as f64;
    let of = |e: usize| {
        let load = sum_over(tokens, |t| f64::from(u8::from(mask[t * experts + e])));
        load / all * sum_over(tokens, |t| p[t * experts + e]) / tokens as f64
    };
    (0..experts).map(of).sum::<f64>() * experts as f64
}
