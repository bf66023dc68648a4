//! Matrix products: the one place that knows which crate computes them.

/// A view of a matrix: element (i, j) lies at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, R> {
    data: &'a [R],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, R> Matrix<'a, R> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a [R], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows `row_stride` elements apart.
    pub(crate) fn strided(data: &'a [R], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same elements, seen as the transposed matrix.
    pub(crate) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// A view of a matrix that receives a product; its rows lie `row_stride` elements apart.
pub(crate) struct MatrixMut<'a, R> {
    data: &'a mut [R],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a, R> MatrixMut<'a, R> {
    /// Rows one after the other.
    pub(crate) fn new(data: &'a mut [R], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows `row_stride` elements apart.
    pub(crate) fn strided(data: &'a mut [R], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride }
    }
}

/// A scalar that has a matrix product.
pub(crate) trait Product: Sized {
    /// The neutral element of addition.
    const ZERO: Self;
    /// The neutral element of multiplication.
    const ONE: Self;

    /// `c = scale a b + keep c`, on the calling thread; with `keep` zero, `c` is not read.
    fn product(scale: Self, a: Matrix<'_, Self>, b: Matrix<'_, Self>, keep: Self, c: MatrixMut<'_, Self>);
}

/// `c = a b`.
pub(crate) fn multiply<R: Product>(a: Matrix<'_, R>, b: Matrix<'_, R>, c: MatrixMut<'_, R>) {
    R::product(R::ONE, a, b, R::ZERO, c);
}

/// `c += a b`.
pub(crate) fn multiply_add<R: Product>(a: Matrix<'_, R>, b: Matrix<'_, R>, c: MatrixMut<'_, R>) {
    R::product(R::ONE, a, b, R::ONE, c);
}

fn foreign<'a, R>(m: Matrix<'a, R>) -> gemmkit::MatRef<'a, R> {
    gemmkit::MatRef::new(m.data, m.rows, m.columns, m.row_stride as isize, m.column_stride as isize)
}

macro_rules! product {
    ($($scalar:ty),*) => {$(
        impl Product for $scalar {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn product(
                scale: Self,
                a: Matrix<'_, Self>,
                b: Matrix<'_, Self>,
                keep: Self,
                c: MatrixMut<'_, Self>,
            ) {
                let c = gemmkit::MatMut::new(c.data, c.rows, c.columns, c.row_stride as isize, 1);
                gemmkit::gemm(scale, foreign(a), foreign(b), keep, c, gemmkit::Parallelism::Serial);
            }
        }
    )*};
}
product!(f32, f64);
