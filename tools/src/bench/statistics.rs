//! What is made of measured times.

use kolo::plan::CollectiveKind;

/// The middle of the values; of two middles the lower. `None` where there is none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// How many bytes cross the busiest link for each byte of a rank's buffer: what nccl-tests multiplies the
/// algorithm's bandwidth with, so that it can be compared with the hardware's. `None` is an exchange
/// between neighbours.
pub(crate) fn bus_factor(kind: Option<CollectiveKind>, ranks: usize) -> f64 {
    let n = ranks as f64;
    match kind {
        Some(CollectiveKind::AllReduce) => 2.0 * (n - 1.0) / n,
        Some(
            CollectiveKind::ReduceScatter
            | CollectiveKind::AllGather
            | CollectiveKind::Gather
            | CollectiveKind::Scatter
            | CollectiveKind::AllToAll,
        ) => (n - 1.0) / n,
        Some(CollectiveKind::Broadcast | CollectiveKind::Reduce | CollectiveKind::Barrier) | None => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_measured_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn bus_factors_are_those_of_nccl_tests() {
        assert_eq!(bus_factor(Some(CollectiveKind::AllReduce), 4), 1.5);
        assert_eq!(bus_factor(Some(CollectiveKind::AllGather), 4), 0.75);
        assert_eq!(bus_factor(Some(CollectiveKind::Broadcast), 4), 1.0);
        assert_eq!(bus_factor(None, 4), 1.0);
    }
}
