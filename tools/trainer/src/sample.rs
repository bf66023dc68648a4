//! Text from a trained network, byte by byte.

use crate::error::Result;
use crate::model::stage::Stage;
use crate::model::{BEGIN, Shape, VOCABULARY};
use crate::parallel::group::Group;
use crate::random::Stream;

/// `count` bytes drawn from `softmax(logits / temperature)`, after the byte that begins a text; shown as
/// UTF-8, with marks where the bytes are none or would control a terminal. `stage` is a whole network; the
/// draws depend on the seed and the byte's number alone.
pub(crate) fn sample(
    stage: &Stage<f32>,
    shape: &Shape,
    count: usize,
    temperature: f64,
    seed: u64,
) -> Result<String> {
    let draws = Stream::new(seed, "sample");
    let mut alone = Group::new(None);
    let mut tape = stage.tape();
    let mut logits = [0.0; VOCABULARY];
    let mut text = vec![BEGIN];
    for i in 0..count {
        // The last positions' window, filled up at the end: attention looks back only, so it changes nothing.
        let mut window = text[text.len().saturating_sub(shape.context)..].to_vec();
        let last = window.len() - 1;
        window.resize(shape.context, BEGIN);
        stage.hidden(&window, &mut tape, &mut alone)?;
        stage.logits(&tape, last, &mut logits);
        logits[usize::from(BEGIN)] = f32::NEG_INFINITY;
        text.push(draw(&logits, temperature, draws.uniform(i as u64)));
    }
    let is_foreign = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    Ok(String::from_utf8_lossy(&text[1..]).replace(is_foreign, "\u{fffd}"))
}

/// The byte at which the cumulated probability passes `uniform` (in `[0, 1)`).
fn draw(logits: &[f32; VOCABULARY], temperature: f64, uniform: f64) -> u8 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let weights = logits.map(|x| (f64::from(x - max) / temperature).exp());
    let mut left = uniform * weights.iter().sum::<f64>();
    for (byte, weight) in (0..=u8::MAX).zip(weights) {
        left -= weight;
        if left < 0.0 {
            return byte;
        }
    }
    u8::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_distribution() {
        let mut logits = [f32::NEG_INFINITY; VOCABULARY];
        (logits[65], logits[66]) = (0.0, (3.0f32).ln());
        let count = |temperature: f64| {
            (0..1000).filter(|i| draw(&logits, temperature, (f64::from(*i) + 0.5) / 1000.0) == 65).count()
        };
        assert_eq!(count(1.0), 250);
        assert_eq!(count(0.5), 100);
        assert_eq!(draw(&logits, 1.0, 0.999_999), 66);
    }
}
