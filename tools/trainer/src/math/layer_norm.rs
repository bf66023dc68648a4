//! Layer normalisation (Ba, Kiros, Hinton 2016): `y = w x̂ + b`, `x̂ = (x - mean) / sqrt(variance + 1e-5)`
//! over each row, with the biased variance.

use super::{Real, lanes};

const EPSILON: f64 = 1e-5;

/// The moments of each row, kept for the backward halves.
pub(crate) struct Moments<R> {
    mean: Vec<R>,
    /// One over the standard deviation.
    scale: Vec<R>,
}

impl<R: Real> Moments<R> {
    /// For `rows` rows.
    pub(crate) fn new(rows: usize) -> Self {
        Self { mean: vec![R::ZERO; rows], scale: vec![R::ZERO; rows] }
    }
}

/// `y = w x̂ + b` for rows of the width of `w`.
pub(crate) fn forward<R: Real>(x: &[R], w: &[R], b: &[R], y: &mut [R], moments: &mut Moments<R>) {
    lanes::vectorised(
        #[inline(always)]
        || {
            let width = w.len();
            let share = R::ONE / R::of(width as f64);
            let rows = x.chunks_exact(width).zip(y.chunks_exact_mut(width));
            let moments = moments.mean.iter_mut().zip(&mut moments.scale);
            for ((x, y), (mean_out, scale_out)) in rows.zip(moments) {
                let mean = lanes::sum(x, |x| x) * share;
                let variance = lanes::sum(x, |x| (x - mean) * (x - mean)) * share;
                let scale = R::ONE / (variance + R::of(EPSILON)).sqrt();
                for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
                    *y = (x - mean) * scale * w + b;
                }
                (*mean_out, *scale_out) = (mean, scale);
            }
        },
    );
}

/// `dx += scale (g - mean(g) - x̂ mean(g x̂))` with `g = dy w`: added, since a residual path runs beside it.
pub(crate) fn backward_input<R: Real>(dy: &[R], x: &[R], w: &[R], moments: &Moments<R>, dx: &mut [R]) {
    lanes::vectorised(
        #[inline(always)]
        || {
            let width = w.len();
            let share = R::ONE / R::of(width as f64);
            let mut g = vec![R::ZERO; width];
            let mut normal = vec![R::ZERO; width];
            let rows = dy.chunks_exact(width).zip(x.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
            for (((dy, x), dx), (&mean, &scale)) in rows.zip(moments.mean.iter().zip(&moments.scale)) {
                for ((((g, normal), &dy), &x), &w) in g.iter_mut().zip(&mut normal).zip(dy).zip(x).zip(w) {
                    *g = dy * w;
                    *normal = (x - mean) * scale;
                }
                let mean_g = lanes::sum(&g, |g| g) * share;
                let mean_gn = lanes::sum2(&g, &normal, |g, normal| g * normal) * share;
                for ((dx, &g), &normal) in dx.iter_mut().zip(&g).zip(&normal) {
                    *dx += scale * (g - mean_g - normal * mean_gn);
                }
            }
        },
    );
}

/// `dw += column sums of dy x̂`, `db += column sums of dy`.
pub(crate) fn backward_weight<R: Real>(dy: &[R], x: &[R], moments: &Moments<R>, dw: &mut [R], db: &mut [R]) {
    lanes::vectorised(
        #[inline(always)]
        || {
            let (width, rows) = (dw.len(), moments.mean.len());
            lanes::add_rows(
                rows,
                dw,
                #[inline(always)]
                |row, sum| {
                    let (mean, scale) = (moments.mean[row], moments.scale[row]);
                    let (dy, x) = (&dy[row * width..][..width], &x[row * width..][..width]);
                    for ((sum, &dy), &x) in sum.iter_mut().zip(dy).zip(x) {
                        *sum += dy * ((x - mean) * scale);
                    }
                },
            );
            lanes::add_rows(
                rows,
                db,
                #[inline(always)]
                |row, sum| lanes::add(sum, &dy[row * width..][..width]),
            );
        },
    );
}
