//! The end of the network: the final norm, the tied head (the token table, transposed), the loss. The
//! vocabulary is divided over the tensor-parallel group, the token table by rows.

use std::ops::Range;

use super::parameters::Affine;
use crate::error::Result;
use crate::math::layer_norm::{self, Moments};
use crate::math::matrix::{Matrix, MatrixMut, multiply, multiply_add};
use crate::math::{Real, loss};
use crate::parallel::group::Group;

/// What one microbatch of `n` tokens keeps.
pub(crate) struct HeadTape<R> {
    moments: Moments<R>,
    normed: Vec<R>,
    /// Logits, later their gradient: `[n, local vocabulary]`.
    logits: Vec<R>,
    d_normed: Vec<R>,
    maxima: Vec<R>,
    /// Sums of exponentials, then the targets' logits: one all-reduce for both.
    sums: Vec<R>,
}

impl<R: Real> HeadTape<R> {
    /// For `n` tokens and this rank's share of the vocabulary.
    pub(crate) fn new(n: usize, width: usize, vocabulary: usize) -> Self {
        Self {
            moments: Moments::new(n),
            normed: vec![R::ZERO; n * width],
            logits: vec![R::ZERO; n * vocabulary],
            d_normed: vec![R::ZERO; n * width],
            maxima: vec![R::ZERO; n],
            sums: vec![R::ZERO; 2 * n],
        }
    }
}

/// The head's arithmetic: its parameters' places and its sizes.
pub(crate) struct Head<'a> {
    pub(crate) tokens: &'a Range<usize>,
    pub(crate) norm: &'a Affine,
    pub(crate) width: usize,
    /// The first token whose row this rank holds.
    pub(crate) first: usize,
}

impl Head<'_> {
    fn vocabulary(&self) -> usize {
        self.tokens.len() / self.width
    }

    fn table<'v, R: Real>(&self, values: &'v [R]) -> Matrix<'v, R> {
        Matrix::new(&values[self.tokens.clone()], self.vocabulary(), self.width)
    }

    /// The final norm of `input [n, width]`.
    pub(crate) fn norm<R: Real>(&self, values: &[R], input: &[R], tape: &mut HeadTape<R>) {
        let (w, b) = (&values[self.norm.weight.clone()], &values[self.norm.bias.clone()]);
        layer_norm::forward(input, w, b, &mut tape.normed, &mut tape.moments);
    }

    /// The logits of one normed row, over this rank's vocabulary.
    pub(crate) fn logits<R: Real>(&self, values: &[R], tape: &HeadTape<R>, row: usize, logits: &mut [R]) {
        let row = Matrix::new(&tape.normed[row * self.width..], 1, self.width);
        multiply(row, self.table(values).transposed(), MatrixMut::new(logits, 1, self.vocabulary()));
    }

    /// The sum over the normed rows of `-ln p(target)`; keeps the gradient of `weight` times that.
    pub(crate) fn loss<R: Real>(
        &self,
        values: &[R],
        targets: &[u8],
        weight: R,
        tape: &mut HeadTape<R>,
        tensor: &mut Group,
    ) -> Result<f64> {
        let (n, vocabulary, first) = (targets.len(), self.vocabulary(), self.first);
        let logits = MatrixMut::new(&mut tape.logits, n, vocabulary);
        multiply(Matrix::new(&tape.normed, n, self.width), self.table(values).transposed(), logits);

        loss::maxima(&tape.logits, vocabulary, &mut tape.maxima);
        tensor.max(&mut tape.maxima)?;
        let (sums, at) = tape.sums.split_at_mut(n);
        loss::exponentials(&mut tape.logits, vocabulary, first, targets, &tape.maxima, sums, at);
        tensor.sum(&mut tape.sums)?;
        let (sums, at) = tape.sums.split_at(n);
        Ok(loss::finish(&mut tape.logits, vocabulary, first, targets, sums, at, weight))
    }

    /// The gradient of `input` into `gradient`.
    pub(crate) fn backward_input<R: Real>(
        &self,
        values: &[R],
        input: &[R],
        gradient: &mut [R],
        tape: &mut HeadTape<R>,
        tensor: &mut Group,
    ) -> Result<()> {
        let n = tape.maxima.len();
        let d_logits = Matrix::new(&tape.logits, n, self.vocabulary());
        multiply(d_logits, self.table(values), MatrixMut::new(&mut tape.d_normed, n, self.width));
        tensor.sum(&mut tape.d_normed)?;
        gradient.fill(R::ZERO);
        let w = &values[self.norm.weight.clone()];
        layer_norm::backward_input(&tape.d_normed, input, w, &tape.moments, gradient);
        Ok(())
    }

    /// Adds the gradients of the norm and of the token table.
    pub(crate) fn backward_weight<R: Real>(&self, input: &[R], gradients: &mut [R], tape: &HeadTape<R>) {
        let (n, vocabulary) = (tape.maxima.len(), self.vocabulary());
        let (dw, db) = self.norm.of(gradients);
        layer_norm::backward_weight(&tape.d_normed, input, &tape.moments, dw, db);
        let d_logits = Matrix::new(&tape.logits, n, vocabulary).transposed();
        let d_table = MatrixMut::new(&mut gradients[self.tokens.clone()], vocabulary, self.width);
        multiply_add(d_logits, Matrix::new(&tape.normed, n, self.width), d_table);
    }
}
