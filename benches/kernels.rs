//! How fast the kernels are: GB/s of each source, from the caches to memory, and ns of 8 bytes.
//!
//! `cargo bench --bench kernels [-- WORD...]` measures the dtypes and operators whose names are given, and
//! with `copy` the copies: to one place and two, and, streamed, past the caches.

use std::hint::black_box;
use std::time::{Duration, Instant};

use kolo::dtype::Dtype;
use kolo::kernel::{Reducer, Variant, copy};
use kolo::memory::View;
use kolo::op::OpKind;

const SIZES: [(&str, usize); 6] = [
    ("8 B/ns", 8),
    ("1 KiB", 1 << 10),
    ("8 KiB", 8 << 10),
    ("128 KiB", 128 << 10),
    ("1 MiB", 1 << 20),
    ("64 MiB", 64 << 20),
];
const PATIENCE: Duration = Duration::from_millis(15);

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let named = |name: &str| words.iter().any(|word| word == name);
    let any_op = !words.iter().any(|word| word.parse::<OpKind>().is_ok());
    let any_dtype = !words.iter().any(|word| word.parse::<Dtype>().is_ok());
    let header = SIZES.map(|(name, _)| format!("{name:>9}")).concat();
    println!("{:<9}{:<9}{:<9}{:>7}{header}", "variant", "dtype", "operator", "sources");
    let largest = SIZES.map(|(_, bytes)| bytes).into_iter().max().unwrap_or(0);
    let mut memory = vec![1u8; 6 * (largest + 4096) + 64];
    let aligned = memory.as_ptr().align_offset(64);
    let memory = &mut memory[aligned..];
    if words.is_empty() || named("copy") {
        report("-", "any", "copy", 1, memory, |to, from| copy(&[to], from[0]));
        report("-", "any", "copy two", 2, memory, |to, from| copy(&[to, from[1]], from[0]));
        report("-", "any", "streamed", 1, memory, |to, from| copy(&[to.streamed()], from[0]));
        report("-", "any", "one of 2", 2, memory, |to, from| copy(&[to.streamed(), from[1]], from[0]));
    }
    for variant in Variant::ALL.iter().copied().filter(|variant| variant.runs_here()) {
        for dtype in Dtype::ALL.into_iter().filter(|dtype| any_dtype || named(dtype.name())) {
            let ops = [OpKind::Sum, OpKind::Prod, OpKind::Max, OpKind::Average];
            for op in ops.into_iter().filter(|op| any_op || named(op.name())) {
                let reducer = Reducer::compiled_for(variant, dtype, op, 2).expect("for every dtype");
                for sources in [2, 3, 5] {
                    let fold = |to: View<'_>, from: &[View<'_>]| reducer.fold(&[to], from, true);
                    let variant = variant.to_string();
                    report(&variant, dtype.name(), op.name(), sources, memory, fold);
                }
                let fold = |to: View<'_>, from: &[View<'_>]| reducer.fold(&[to, from[1]], from, true);
                report(&variant.to_string(), dtype.name(), "in a slot", 2, memory, fold);
                if words.is_empty() || named("streamed") {
                    let fold = |to: View<'_>, from: &[View<'_>]| reducer.fold(&[to.streamed()], from, true);
                    report(&variant.to_string(), dtype.name(), "streamed", 2, memory, fold);
                }
            }
        }
    }
}

fn report(
    variant: &str,
    dtype: &str,
    op: &str,
    sources: usize,
    memory: &mut [u8],
    fold: impl Fn(View<'_>, &[View<'_>]),
) {
    print!("{variant:<9}{dtype:<9}{op:<9}{sources:>7}");
    for (_, bytes) in SIZES {
        // Apart by an odd number of lines, so that they do not fight for the same sets of a cache.
        let stride = bytes.next_multiple_of(4096) + 64;
        let mut parts = memory.chunks_mut(stride).map(|part| View::write(&mut part[..bytes]));
        let to = parts.next().expect("memory for the destination");
        let from: Vec<_> = parts.take(sources).collect();
        let seconds = fastest(|| fold(black_box(to), black_box(&from)));
        let figure = if bytes == 8 { seconds * 1e9 } else { bytes as f64 / seconds / 1e9 };
        print!("{figure:>9.1}");
    }
    println!();
}

/// Seconds of one run: the least over several batches.
fn fastest(mut run: impl FnMut()) -> f64 {
    let mut time = |runs: u32| {
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        start.elapsed()
    };
    let mut runs = 1;
    while time(runs) < PATIENCE / 10 && runs < 1 << 20 {
        runs *= 2;
    }
    let batches = (0..8).map(|_| time(runs));
    batches.min().unwrap_or(Duration::ZERO).as_secs_f64() / f64::from(runs)
}
