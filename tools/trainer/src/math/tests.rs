//! Each backward half against central differences in f64.

use super::attention::Heads;
use super::layer_norm::Moments;
use super::{attention, embedding, gelu, layer_norm, linear, loss};
use crate::random::Stream;

/// `count` normal values; the name keeps the inputs of one test apart.
pub(crate) fn normals(name: &str, count: usize) -> Vec<f64> {
    let stream = Stream::new(7, name);
    (0..count as u64).map(|i| stream.normal(i)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares `gradient` with `(f(x + h) - f(x - h)) / 2h` in every element of `x`.
pub(crate) fn check(what: &str, x: &[f64], gradient: &[f64], mut f: impl FnMut(&[f64]) -> f64) {
    const STEP: f64 = 1e-5;
    assert_eq!(x.len(), gradient.len(), "{what}");
    let mut moved = x.to_vec();
    for (i, &got) in gradient.iter().enumerate() {
        moved[i] = x[i] + STEP;
        let above = f(&moved);
        moved[i] = x[i] - STEP;
        let below = f(&moved);
        moved[i] = x[i];
        let want = (above - below) / (2.0 * STEP);
        assert!((got - want).abs() <= 1e-8 * (1.0 + want.abs()), "{what}[{i}]: {got}, by differences {want}");
    }
}

#[test]
fn linear_gradients() {
    let (n, inputs, outputs) = (37, 5, 3); // more rows than one partial sum takes
    let (x, w, b) = (normals("x", n * inputs), normals("w", inputs * outputs), normals("b", outputs));
    let dy = normals("dy", n * outputs);
    let value = |x: &[f64], w: &[f64], b: &[f64]| {
        let mut y = vec![0.0; n * outputs];
        linear::forward(x, w, b, &mut y);
        dot(&y, &dy)
    };
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
    linear::backward_input(&dy, &w, outputs, &mut dx);
    linear::backward_weight(&x, &dy, &mut dw, &mut db);
    check("dx", &x, &dx, |x| value(x, &w, &b));
    check("dw", &w, &dw, |w| value(&x, w, &b));
    check("db", &b, &db, |b| value(&x, &w, b));
}

#[test]
fn shares_of_a_row_parallel_layer_add_up() {
    let (n, inputs, outputs) = (4, 6, 3);
    let (x, w, b) = (normals("x", n * inputs), normals("w", inputs * outputs), normals("b", outputs));
    let residual = normals("residual", n * outputs);
    let mut whole = vec![0.0; n * outputs];
    linear::forward(&x, &w, &b, &mut whole);
    let half = |columns: std::ops::Range<usize>| -> Vec<f64> {
        let x: Vec<f64> = x.chunks(inputs).flat_map(|row| row[columns.clone()].to_vec()).collect();
        let mut y = vec![0.0; n * outputs];
        linear::forward_share(&x, &w[columns.start * outputs..columns.end * outputs], outputs, &mut y);
        y
    };
    let mut out: Vec<f64> = half(0..2).iter().zip(half(2..6)).map(|(a, b)| a + b).collect();
    linear::add_bias_and_residual(&mut out, &b, &residual);
    for ((out, whole), residual) in out.iter().zip(whole).zip(residual) {
        assert!((out - whole - residual).abs() < 1e-13);
    }
}

#[test]
fn layer_norm_gradients() {
    let (n, width) = (35, 19); // neither a multiple of the lanes nor of the rows per sum
    let (x, w, b) = (normals("x", n * width), normals("w", width), normals("b", width));
    let dy = normals("dy", n * width);
    let mut moments = Moments::new(n);
    let mut value = |x: &[f64], w: &[f64], b: &[f64]| {
        let mut y = vec![0.0; n * width];
        layer_norm::forward(x, w, b, &mut y, &mut moments);
        dot(&y, &dy)
    };
    value(&x, &w, &b);
    let mut at_x = Moments::new(n);
    layer_norm::forward(&x, &w, &b, &mut vec![0.0; n * width], &mut at_x);
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
    layer_norm::backward_input(&dy, &x, &w, &at_x, &mut dx);
    layer_norm::backward_weight(&dy, &x, &at_x, &mut dw, &mut db);
    check("dx", &x, &dx, |x| value(x, &w, &b));
    check("dw", &w, &dw, |w| value(&x, w, &b));
    check("db", &b, &db, |b| value(&x, &w, b));
}

#[test]
fn gelu_value_and_gradient() {
    let x: Vec<f64> = (-60..=60).map(|i| f64::from(i) / 10.0).collect();
    let mut y = vec![0.0; x.len()];
    gelu::forward(&x, &mut y);
    for (&x, &y) in x.iter().zip(&y) {
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        assert!((y - 0.5 * x * (1.0 + u.tanh())).abs() < 1e-14);
    }
    let dy = normals("dy", x.len());
    let mut dx = dy.clone();
    gelu::backward_input(&x, &mut dx);
    check("dx", &x, &dx, |x| {
        let mut y = vec![0.0; x.len()];
        gelu::forward(x, &mut y);
        dot(&y, &dy)
    });
}

#[test]
fn gelu_in_f32_has_no_spikes() {
    for i in -120_000..=120_000 {
        let x = i as f32 / 1_000.0;
        let (mut y, mut d) = ([0.0f32], [1.0f32]);
        gelu::forward(&[x], &mut y);
        gelu::backward_input(&[x], &mut d);
        let (mut y64, mut d64) = ([0.0f64], [1.0f64]);
        gelu::forward(&[f64::from(x)], &mut y64);
        gelu::backward_input(&[f64::from(x)], &mut d64);
        assert!((f64::from(y[0]) - y64[0]).abs() < 2e-6 * (1.0 + y64[0].abs()), "gelu({x}) = {}", y[0]);
        assert!((f64::from(d[0]) - d64[0]).abs() < 2e-6, "gelu'({x}) = {}", d[0]);
    }
}

fn attention_value(heads: Heads, qkv: &[f64], weights: &[f64]) -> f64 {
    let mut probabilities = vec![0.0; heads.probabilities()];
    let mut out = vec![0.0; qkv.len() / 3];
    attention::forward(heads, qkv, &mut probabilities, &mut out);
    dot(&out, weights)
}

#[test]
fn attention_gradients() {
    let heads = Heads { sequences: 2, length: 7, count: 2, size: 3 };
    let qkv = normals("qkv", 2 * 7 * 3 * 6);
    let d_out = normals("d_out", qkv.len() / 3);
    let mut probabilities = vec![0.0; heads.probabilities()];
    let mut out = vec![0.0; qkv.len() / 3];
    attention::forward(heads, &qkv, &mut probabilities, &mut out);
    let mut d_qkv = vec![f64::NAN; qkv.len()]; // every element must be overwritten
    attention::backward_input(heads, &qkv, &probabilities, &d_out, &mut d_qkv);
    check("d_qkv", &qkv, &d_qkv, |qkv| attention_value(heads, qkv, &d_out));
}

#[test]
fn attention_over_several_blocks_is_causal_and_matches_the_definition() {
    let heads = Heads { sequences: 1, length: 150, count: 1, size: 4 };
    let qkv = normals("long", 150 * 12);
    let mut probabilities = vec![f64::NAN; heads.probabilities()];
    let mut out = vec![0.0; 150 * 4];
    attention::forward(heads, &qkv, &mut probabilities, &mut out);
    let part = |row: usize, which: usize| &qkv[row * 12 + which * 4..][..4];
    for i in [0, 1, 63, 64, 65, 127, 128, 149] {
        let weights: Vec<f64> = (0..=i).map(|j| (dot(part(i, 0), part(j, 1)) / 2.0).exp()).collect();
        let total: f64 = weights.iter().sum();
        for c in 0..4 {
            let want: f64 = (0..=i).map(|j| weights[j] / total * part(j, 2)[c]).sum();
            assert!((out[i * 4 + c] - want).abs() < 1e-12, "row {i}");
        }
    }
    // The gradient across blocks, for a sample of the inputs.
    let d_out = normals("long d_out", out.len());
    let mut d_qkv = vec![f64::NAN; qkv.len()];
    attention::backward_input(heads, &qkv, &probabilities, &d_out, &mut d_qkv);
    let sample: Vec<usize> = (0..qkv.len()).step_by(41).collect();
    let gradient: Vec<f64> = sample.iter().map(|&i| d_qkv[i]).collect();
    let at: Vec<f64> = sample.iter().map(|&i| qkv[i]).collect();
    check("d_qkv", &at, &gradient, |at| {
        let mut moved = qkv.clone();
        sample.iter().zip(at).for_each(|(&i, &x)| moved[i] = x);
        attention_value(heads, &moved, &d_out)
    });
}

#[test]
fn embedding_gradients() {
    let (width, first, length) = (3, 2, 4);
    let tokens = [2, 5, 3, 2, 9, 0, 4, 2]; // 9 and 0 belong to other ranks
    let (table, positions) = (normals("table", 4 * width), normals("positions", length * width));
    let dx = normals("dx", tokens.len() * width);
    let value = |table: &[f64], positions: &[f64]| {
        let mut x = vec![0.0; tokens.len() * width];
        embedding::forward_share(&tokens, table, first, width, &mut x);
        embedding::add_positions(&mut x, positions, length, width);
        dot(&x, &dx)
    };
    let (mut d_table, mut d_positions) = (vec![0.0; table.len()], vec![0.0; positions.len()]);
    embedding::backward_weight(&tokens, &dx, first, width, &mut d_table);
    embedding::backward_positions(&dx, length, width, &mut d_positions);
    check("table", &table, &d_table, |table| value(table, &positions));
    check("positions", &positions, &d_positions, |positions| value(&table, positions));
}

#[test]
fn loss_over_two_shards_and_its_gradient() {
    let (vocabulary, targets) = (5, [0u8, 7, 4, 5]); // two shards of five
    let logits = normals("logits", 4 * 10);
    // The definition, over whole rows.
    let value = |logits: &[f64]| -> f64 {
        let row =
            |(row, &t): (&[f64], &u8)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[usize::from(t)];
        logits.chunks(10).zip(&targets).map(row).sum()
    };
    let mut shards: Vec<Vec<f64>> = (0..2)
        .map(|s| logits.chunks(10).flat_map(|row| row[s * vocabulary..][..vocabulary].to_vec()).collect())
        .collect();
    let mut maxima = vec![f64::NEG_INFINITY; 4];
    for shard in &shards {
        let mut own = vec![0.0; 4];
        loss::maxima(shard, vocabulary, &mut own);
        maxima.iter_mut().zip(own).for_each(|(max, own)| *max = max.max(own));
    }
    let (mut sums, mut targets_at) = (vec![0.0; 4], vec![0.0; 4]);
    for (s, shard) in shards.iter_mut().enumerate() {
        let (mut sum, mut at) = (vec![0.0; 4], vec![0.0; 4]);
        loss::exponentials(shard, vocabulary, s * vocabulary, &targets, &maxima, &mut sum, &mut at);
        super::lanes::add(&mut sums, &sum);
        super::lanes::add(&mut targets_at, &at);
    }
    for (s, shard) in shards.iter_mut().enumerate() {
        let got = loss::finish(shard, vocabulary, s * vocabulary, &targets, &sums, &targets_at, 0.5);
        assert!((got - value(&logits)).abs() < 1e-12);
    }
    let gradient: Vec<f64> =
        (0..4 * 10).map(|i| shards[i % 10 / vocabulary][i / 10 * vocabulary + i % vocabulary]).collect();
    check("logits", &logits, &gradient, |logits| 0.5 * value(logits));
}
