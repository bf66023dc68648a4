//! A small run from end to end: reports, checkpoint, sample, and the errors a person may meet.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use kolo::Communicator;
use kolo_trainer::{Error, JsonLines, Result, Settings, Summary, train};
use safetensors::SafeTensors;
use serde_json::Value;

/// A small network on this crate's own tests.
fn settings(tp: usize, pp: usize) -> Settings {
    Settings {
        tp,
        pp,
        layers: 2,
        width: 32,
        heads: 2,
        context: 24,
        batch: 8,
        steps: 6,
        warm_up: 2,
        text: vec![concat!(env!("CARGO_MANIFEST_DIR"), "/tests").into()],
        sample: 40, // beyond the context, so that its window slides
        ..Settings::default()
    }
}

/// Ranks as threads; every rank's result, and the lines that rank 0 reported.
fn run(ranks: usize, settings: &Settings) -> (Vec<Result<Summary>>, Vec<Value>) {
    let mut output = Vec::new();
    let results = thread::scope(|scope| {
        let output = &mut output;
        let mut communicators = Communicator::local(ranks).unwrap().into_iter();
        let root = communicators.next().unwrap();
        let root = scope.spawn(move || train(root, settings, &mut JsonLines::new(output)));
        let others: Vec<_> =
            communicators.map(|c| scope.spawn(move || train(c, settings, &mut ()))).collect();
        [root].into_iter().chain(others).map(|thread| thread.join().unwrap()).collect()
    });
    let lines = String::from_utf8(output).unwrap();
    (results, lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    path
}

fn root(results: Vec<Result<Summary>>) -> Summary {
    results.into_iter().next().unwrap().unwrap()
}

#[test]
fn reports_tell_every_step() {
    let (results, lines) = run(4, &settings(2, 2));
    let losses: Vec<_> = results.iter().map(|result| &result.as_ref().unwrap().losses).collect();
    assert!(losses.iter().all(|l| l.len() == 6 && *l == losses[0]), "ranks disagree about the losses");
    assert_eq!(lines.len(), 1 + 6 + 1);

    let start = &lines[0];
    assert_eq!((&start["dp"], &start["tp"], &start["pp"]), (&1.into(), &2.into(), &2.into()));
    // 256 d + T d, 12 d² + 13 d in a layer, 2 d.
    let parameters = 256 * 32 + 24 * 32 + 2 * (12 * 32 * 32 + 13 * 32) + 2 * 32;
    assert_eq!(start["parameters"], parameters);

    for (line, (i, loss)) in lines[1..7].iter().zip(losses[0].iter().enumerate()) {
        assert_eq!((&line["event"], &line["step"]), (&"step".into(), &(i + 1).into()));
        assert_eq!(line["loss"].as_f64().unwrap(), *loss);
        let share = line["communication"].as_f64().unwrap();
        assert!(share > 0.0 && share <= 1.0);
    }
    let n = 4 * 2 * 24 / 4; // tokens in one of the four microbatches
    assert_eq!(start["microbatches"], 4);
    // Between the stages, per tensor-parallel rank and direction: one microbatch's activations at a time.
    let of = |name: &str| lines[3]["collectives"][name]["bytes"].as_u64().unwrap_or(0);
    assert_eq!(of("send") + of("recv") + of("send_recv"), 2 * 2 * 2 * (4 * n * 32 * 4));
    assert_eq!(lines[7]["last_loss"].as_f64(), losses[0].last().copied());
    assert_eq!(lines[7]["sample"].as_str(), results[0].as_ref().unwrap().sample.as_deref());
}

#[test]
fn checkpoint_and_sample_do_not_depend_on_the_layout() {
    let of = |ranks: usize, tp: usize, pp: usize| {
        let output = folder(&format!("checkpoint-{ranks}-{tp}-{pp}"));
        let summary = root(run(ranks, &Settings { output: Some(output.clone()), ..settings(tp, pp) }).0);
        assert_eq!(summary.checkpoint.as_ref(), Some(&output));
        (summary.sample.unwrap(), output)
    };
    let (sample, alone) = of(1, 1, 1);
    assert!(sample.chars().count() > 10, "{sample:?}");
    let bytes = fs::read(alone.join("model.safetensors")).unwrap();
    let alone_tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(alone_tensors.tensor("transformer.h.1.attn.c_attn.weight").unwrap().shape(), [32, 96]);
    assert_eq!(alone_tensors.tensor("transformer.ln_f.bias").unwrap().shape(), [32]);
    let config: Value = serde_json::from_slice(&fs::read(alone.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["n_embd"], &config["bos_token_id"]), (&32.into(), &0.into()));

    for (ranks, tp, pp) in [(4, 2, 2), (4, 2, 1), (2, 1, 2)] {
        let (same_sample, folder) = of(ranks, tp, pp);
        assert_eq!(same_sample, sample, "{ranks} ranks, tp {tp}, pp {pp}");
        let files: HashSet<_> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(files, HashSet::from(["model.safetensors".into(), "config.json".into()]));
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), alone_tensors.len());
        for (name, tensor) in tensors.tensors() {
            let other = alone_tensors.tensor(&name).unwrap();
            assert_eq!(tensor.shape(), other.shape(), "{name}");
            for (a, b) in floats(tensor.data()).zip(floats(other.data())) {
                // The gradient of the keys' bias is rounding noise (the softmax does not see a constant), and
                // Adam makes steps of full length of it.
                let is_noise = name.ends_with("c_attn.bias");
                assert!((a - b).abs() < 1e-4 || is_noise, "{name}: {a} and {b}");
            }
        }
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[test]
fn bad_text_is_said_once_and_ends_every_rank() {
    let settings = Settings { text: vec![folder("missing")], ..settings(2, 1) };
    let (results, lines) = run(4, &settings);
    assert!(lines.is_empty());
    let mut errors = results.into_iter().map(Result::unwrap_err);
    assert!(matches!(errors.next(), Some(Error::File { action: "read", .. })));
    assert!(errors.all(|error| error.is_echo()));
}

#[test]
fn an_output_that_cannot_be_written_is_said_before_training() {
    let file = folder("in-the-way");
    fs::write(&file, "a file").unwrap();
    let (results, lines) = run(1, &Settings { output: Some(file), ..settings(1, 1) });
    assert!(lines.is_empty());
    let error = results.into_iter().next().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("cannot create ") && error.contains("in-the-way"), "{error}");
}

#[test]
fn settings_that_do_not_fit_are_refused_on_every_rank() {
    for result in run(3, &settings(2, 1)).0 {
        let error = result.unwrap_err();
        assert!(error.is_usage());
        assert_eq!(
            error.to_string(),
            "3 ranks cannot form a mesh of tp 2 x pp 1: ranks must be a multiple of 2"
        );
    }
}

#[test]
fn a_loss_that_is_no_number_ends_every_rank() {
    let settings = Settings { learning_rate: 1e30, clip: None, warm_up: 0, ..settings(1, 2) };
    for result in run(2, &settings).0 {
        assert!(matches!(result, Err(Error::Diverged { step: 1, .. })), "{result:?}");
    }
}
