//! The whole network in f64: its gradients against central differences, and its tensor-parallel shares
//! against the whole.

use std::thread;

use kolo::Communicator;

use super::parameters::Table;
use super::stage::{Batch, Stage};
use super::{Shape, Share};
use crate::math::tests::{check, normals};
use crate::parallel::group::Group;

const SHAPE: Shape = Shape { layers: 2, width: 8, heads: 2, context: 5 };
const SEQUENCES: usize = 2;
const WEIGHT: f64 = 0.1;

fn batch() -> Batch {
    // Bytes of both halves of the vocabulary; one occurs twice, one as token and as target.
    Batch {
        tokens: vec![1, 200, 3, 1, 255, 0, 77, 128, 127, 200],
        targets: b"\xc8\x03\x01\xff\x07\x4d\x80\x7f\xc8\x00".to_vec(),
    }
}

/// A stage whose every parameter is random, biases and norms too.
fn stage(share: &Share) -> Stage<f64> {
    let mut stage = Stage::new(&SHAPE, share, SEQUENCES, 5);
    for tensor in &stage.table.tensors {
        let noise = normals(&tensor.name, tensor.whole[0] * tensor.whole[1]);
        let values = &mut stage.values[tensor.place.clone()];
        for (value, index) in values.iter_mut().zip(tensor.whole_indices()) {
            *value += 0.3 * noise[index];
        }
    }
    stage
}

/// The sum of the losses, and the gradients of `WEIGHT` times it.
fn loss_and_gradients(stage: &Stage<f64>, tensor: &mut Group) -> (f64, Vec<f64>) {
    let (batch, mut tape) = (batch(), stage.tape());
    let mut gradients = vec![0.0; stage.table.len];
    let loss = stage.forward(&batch, WEIGHT, &mut tape, tensor).unwrap();
    stage.backward_input(&mut tape, tensor).unwrap();
    stage.backward_weight(&batch, &tape, &mut gradients);
    (loss, gradients)
}

#[test]
fn gradients_of_the_whole_network() {
    let mut stage = stage(&Share::WHOLE);
    let (_, gradients) = loss_and_gradients(&stage, &mut Group::new(None));
    let (batch, mut tape) = (batch(), stage.tape());
    let tensors: Vec<_> = stage.table.tensors.iter().map(|t| (t.name.clone(), t.place.clone())).collect();
    for (name, place) in tensors {
        // All of the small tensors, every seventh element of the large ones.
        let sample: Vec<usize> = place.clone().step_by(if place.len() > 100 { 7 } else { 1 }).collect();
        let before = stage.values.to_vec();
        let at: Vec<f64> = sample.iter().map(|&i| before[i]).collect();
        let gradient: Vec<f64> = sample.iter().map(|&i| gradients[i]).collect();
        check(&name, &at, &gradient, |at| {
            stage.values.copy_from_slice(&before);
            sample.iter().zip(at).for_each(|(&i, &x)| stage.values[i] = x);
            WEIGHT * stage.forward(&batch, WEIGHT, &mut tape, &mut Group::new(None)).unwrap()
        });
        stage.values.copy_from_slice(&before);
    }
}

#[test]
fn tensor_parallel_shares_have_the_gradients_of_the_whole() {
    let (whole_loss, whole_gradients) = loss_and_gradients(&stage(&Share::WHOLE), &mut Group::new(None));
    let whole_table = Table::new(&SHAPE, &Share::WHOLE);
    thread::scope(|scope| {
        for communicator in Communicator::local(2).unwrap() {
            let (whole_gradients, whole_table) = (&whole_gradients, &whole_table);
            scope.spawn(move || {
                let stage = stage(&Share { tensor: (communicator.rank(), 2), stage: (0, 1) });
                let (loss, gradients) = loss_and_gradients(&stage, &mut Group::new(Some(communicator)));
                assert!((loss - whole_loss).abs() < 1e-12 * whole_loss);
                for (tensor, whole) in stage.table.tensors.iter().zip(&whole_table.tensors) {
                    let (mine, whole) =
                        (&gradients[tensor.place.clone()], &whole_gradients[whole.place.clone()]);
                    for (index, got) in tensor.whole_indices().zip(mine) {
                        let error = (got - whole[index]).abs();
                        assert!(error < 1e-12, "{}[{index}] is off by {error}", tensor.name);
                    }
                }
            });
        }
    });
}

/// Every element of every tensor lies on exactly one rank that counts it, and replicas hold all of it.
#[test]
fn shares_cover_every_tensor_once() {
    let shape = Shape { layers: 4, width: 16, heads: 4, context: 6 };
    for (ranks, stages) in [(1, 1), (2, 1), (4, 2), (1, 4), (4, 4)] {
        let mut seen = std::collections::BTreeMap::<String, Vec<u32>>::new();
        for i in 0..ranks * stages {
            let table = Table::new(&shape, &Share { tensor: (i % ranks, ranks), stage: (i / ranks, stages) });
            for tensor in table.tensors.iter().filter(|tensor| tensor.counts()) {
                let size = tensor.whole[0] * tensor.whole[1];
                let counts = seen.entry(tensor.name.clone()).or_insert_with(|| vec![0; size]);
                tensor.whole_indices().for_each(|index| counts[index] += 1);
            }
        }
        assert_eq!(seen.len(), 4 + 4 * 12);
        assert!(seen.values().flatten().all(|&count| count == 1), "tp {ranks}, pp {stages}");
    }
}
