//! The two tables at the network's entrance. The table of tokens is split by rows over the ranks of a
//! tensor-parallel group: a rank holds the tokens `first .. first + rows`, others' rows count as zero.

use super::{Real, lanes};

/// `out [n, width]`: each token's row where this rank holds it, else zeros.
pub(crate) fn forward_share<R: Real>(tokens: &[u8], table: &[R], first: usize, width: usize, out: &mut [R]) {
    for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(width)) {
        match local_row(token, table.len() / width, first) {
            Some(row) => out.copy_from_slice(&table[row * width..][..width]),
            None => out.fill(R::ZERO),
        }
    }
}

/// `x += the position's row`, for sequences of `length` tokens.
pub(crate) fn add_positions<R: Real>(x: &mut [R], table: &[R], length: usize, width: usize) {
    for sequence in x.chunks_exact_mut(length * width) {
        lanes::add(sequence, table);
    }
}

/// Adds each row of `dx` to the gradient of its token's row, where this rank holds it.
pub(crate) fn backward_weight<R: Real>(
    tokens: &[u8],
    dx: &[R],
    first: usize,
    width: usize,
    d_table: &mut [R],
) {
    let rows = d_table.len() / width;
    for (&token, dx) in tokens.iter().zip(dx.chunks_exact(width)) {
        if let Some(row) = local_row(token, rows, first) {
            lanes::add(&mut d_table[row * width..][..width], dx);
        }
    }
}

/// Adds each row of `dx` to the gradient of its position's row.
pub(crate) fn backward_positions<R: Real>(dx: &[R], length: usize, width: usize, d_table: &mut [R]) {
    for sequence in dx.chunks_exact(length * width) {
        lanes::add(d_table, sequence);
    }
}

/// The row of this rank's share that holds `token`.
pub(super) fn local_row(token: u8, rows: usize, first: usize) -> Option<usize> {
    usize::from(token).checked_sub(first).filter(|&row| row < rows)
}
