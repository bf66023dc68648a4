//! `y = x W + b`; weights are `[inputs, outputs]`, row-major, as in GPT-2's Conv1D.

use super::matrix::{Matrix, MatrixMut, multiply, multiply_add};
use super::{Real, lanes};

/// `y [n, outputs] = x [n, inputs] W + b`.
pub(crate) fn forward<R: Real>(x: &[R], w: &[R], b: &[R], y: &mut [R]) {
    let outputs = b.len();
    for row in y.chunks_exact_mut(outputs) {
        row.copy_from_slice(b);
    }
    let (n, inputs) = (y.len() / outputs, w.len() / outputs);
    multiply_add(Matrix::new(x, n, inputs), Matrix::new(w, inputs, outputs), MatrixMut::new(y, n, outputs));
}

/// `y = x W`, a row-parallel layer's share of the sum; `outputs` is the width of `y`.
pub(crate) fn forward_share<R: Real>(x: &[R], w: &[R], outputs: usize, y: &mut [R]) {
    let (n, inputs) = (y.len() / outputs, w.len() / outputs);
    multiply(Matrix::new(x, n, inputs), Matrix::new(w, inputs, outputs), MatrixMut::new(y, n, outputs));
}

/// `y = residual + (y + b)`, row by row: what follows the sum of a row-parallel layer's shares.
pub(crate) fn add_bias_and_residual<R: Real>(y: &mut [R], b: &[R], residual: &[R]) {
    for (y, residual) in y.chunks_exact_mut(b.len()).zip(residual.chunks_exact(b.len())) {
        for ((y, &residual), &b) in y.iter_mut().zip(residual).zip(b) {
            *y = residual + (*y + b);
        }
    }
}

/// `dx [n, inputs] = dy [n, outputs] Wᵀ`.
pub(crate) fn backward_input<R: Real>(dy: &[R], w: &[R], outputs: usize, dx: &mut [R]) {
    let (n, inputs) = (dy.len() / outputs, w.len() / outputs);
    let w = Matrix::new(w, inputs, outputs).transposed();
    multiply(Matrix::new(dy, n, outputs), w, MatrixMut::new(dx, n, inputs));
}

/// `dW += xᵀ dy`, `db += column sums of dy`.
pub(crate) fn backward_weight<R: Real>(x: &[R], dy: &[R], dw: &mut [R], db: &mut [R]) {
    let outputs = db.len();
    let (n, inputs) = (dy.len() / outputs, dw.len() / outputs);
    let xt = Matrix::new(x, n, inputs).transposed();
    multiply_add(xt, Matrix::new(dy, n, outputs), MatrixMut::new(dw, inputs, outputs));
    lanes::vectorised(
        #[inline(always)]
        || {
            lanes::add_rows(
                n,
                db,
                #[inline(always)]
                |row, sum| lanes::add(sum, &dy[row * outputs..][..outputs]),
            );
        },
    );
}
