//! The whole network's weights, gathered from any layout, as Hugging Face's `GPT2LMHeadModel` loads them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::error::{Error, Result};
use crate::model::parameters::Table;
use crate::model::stage::Stage;
use crate::model::{BEGIN, Shape, Share, VOCABULARY};
use crate::parallel::mesh::Mesh;

/// Tensors by name, each with its whole shape and values.
pub(crate) struct Weights(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Weights {
    /// Gathers every tensor at rank 0; empty elsewhere. One call of all ranks: the first replica's ranks
    /// give their arenas as they lie, and rank 0 knows from the tables what is where.
    pub(crate) fn gather(stage: &Stage<f32>, shape: &Shape, mesh: &mut Mesh) -> Result<Self> {
        let degrees = mesh.degrees;
        let places: Vec<_> = (0..degrees.ranks()).map(|rank| degrees.place(rank)).collect();
        let table = |rank: usize| Table::new(shape, &degrees.share(&places[rank]));
        let gives = |rank: usize| places[rank].replica == 0;
        let counts: Vec<usize> =
            (0..degrees.ranks()).map(|rank| if gives(rank) { table(rank).len } else { 0 }).collect();
        let mine: &[f32] = if mesh.place.replica == 0 { &stage.values } else { &[] };
        let arenas = mesh.world.gather(mine, &counts)?;

        let mut weights = Self(BTreeMap::new());
        let mut rest = &arenas[..];
        for rank in (0..degrees.ranks()).filter(|&rank| gives(rank) && !arenas.is_empty()) {
            let (arena, after) = rest.split_at(counts[rank]);
            weights.insert(&table(rank), arena);
            rest = after;
        }
        Ok(weights)
    }

    /// Puts one rank's parts where they belong.
    fn insert(&mut self, table: &Table, arena: &[f32]) {
        for tensor in table.tensors.iter().filter(|tensor| tensor.counts()) {
            let [rows, columns] = tensor.whole;
            let (_, values) = self.0.entry(tensor.name.clone()).or_insert_with(|| {
                let shape = if tensor.is_vector() { vec![columns] } else { vec![rows, columns] };
                (shape, vec![0.0; rows * columns])
            });
            for (index, &value) in tensor.whole_indices().zip(&arena[tensor.place.clone()]) {
                values[index] = value;
            }
        }
    }

    /// The whole network on this rank alone, for one sequence at a time.
    pub(crate) fn stage(&self, shape: &Shape) -> Stage<f32> {
        let mut stage = Stage::new(shape, &Share::WHOLE, 1, 0);
        for tensor in &stage.table.tensors {
            if let Some((_, values)) = self.0.get(&tensor.name) {
                stage.values[tensor.place.clone()].copy_from_slice(values);
            }
        }
        stage
    }

    /// Writes `model.safetensors` and `config.json` into `folder`, each beside its final name first.
    pub(crate) fn write(&self, folder: &Path, shape: &Shape) -> Result<()> {
        let bytes: Vec<Vec<u8>> = self
            .0
            .values()
            .map(|(_, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
            .collect();
        let views = self.0.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            (name, view.expect("four bytes for each element of the shape"))
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let model = safetensors::serialize(views, Some(metadata)).map_err(|e| {
            Error::file("write", &folder.join("model.safetensors"), std::io::Error::other(e.to_string()))
        })?;
        replace(&folder.join("model.safetensors"), &model)?;
        replace(&folder.join("config.json"), format!("{:#}\n", config(shape)).as_bytes())
    }
}

/// Makes sure that a checkpoint can be written into `folder`, before hours of training.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|cause| Error::file("create", folder, cause))?;
    let probe = beside(&folder.join("model.safetensors"));
    File::create(&probe).map_err(|cause| Error::file("write", &probe, cause))?;
    fs::remove_file(&probe).map_err(|cause| Error::file("remove", &probe, cause))
}

/// Where a file is written before it takes its name.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Writes a file so that its name always stands for a whole one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = beside(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|cause| Error::file("write", path, cause))
}

/// The sizes and conventions, in the words of Hugging Face's configuration.
fn config(shape: &Shape) -> serde_json::Value {
    json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_positions": shape.context,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": true,
        "bos_token_id": BEGIN,
        "eos_token_id": BEGIN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_layout_gives_the_same_weights() {
        let shape = Shape { layers: 4, width: 8, heads: 4, context: 6 };
        let of = |tensor: usize, stages: usize| {
            let mut weights = Weights(BTreeMap::new());
            for i in 0..tensor * stages {
                let share = Share { tensor: (i % tensor, tensor), stage: (i / tensor, stages) };
                let table = Table::new(&shape, &share);
                weights.insert(&table, &table.initial(11));
            }
            weights
        };
        let whole = of(1, 1);
        assert_eq!(whole.0["transformer.h.3.attn.c_attn.weight"].0, [8, 24]);
        assert_eq!(whole.0["transformer.h.3.attn.c_attn.bias"].0, [24]);
        assert_eq!(whole.0.len(), 2 + 4 * 12 + 2);
        assert_eq!(whole.stage(&shape).values[..], Table::new(&shape, &Share::WHOLE).initial::<f32>(11)[..]);
        for (tensor, stages) in [(4, 1), (1, 4), (2, 2), (4, 4)] {
            assert_eq!(of(tensor, stages).0, whole.0, "tp {tensor}, pp {stages}");
        }
    }
}
