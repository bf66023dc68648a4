//! What was found out for a call, kept for those that are like it: most calls were made before.

use super::ask::Errand;
use crate::engine::{Chart, Signature, Stamp};
use crate::health::Peers;
use crate::kernel::Reducer;

/// A call's way: the same for all calls of its errand, but for the number.
#[derive(Debug)]
pub(super) struct Trip {
    pub(super) errand: Errand,
    /// By its place among the communicator's.
    pub(super) route: usize,
    pub(super) signature: Signature,
    pub(super) stamp: Stamp,
    /// Whom it is between, as it is recorded.
    pub(super) peers: Peers,
    /// How to combine, where the errand says all about it.
    pub(super) reducer: Option<Reducer>,
    /// Of its route, at its size.
    pub(super) chart: Option<Chart>,
}

/// So many are kept, each at the place that its errand comes to; the newest of those that come to the same.
const PLACES: usize = 64;

/// The trips of a communicator.
#[derive(Debug, Default)]
pub(super) struct Trips {
    /// That of the last call.
    current: Option<Box<Trip>>,
    /// Those of others; no places before there are any.
    others: Vec<Option<Box<Trip>>>,
}

impl Trips {
    #[inline(always)]
    pub(super) fn current(&self) -> Option<&Trip> {
        self.current.as_deref()
    }

    #[inline(always)]
    pub(super) fn current_mut(&mut self) -> Option<&mut Trip> {
        self.current.as_deref_mut()
    }

    /// Makes an earlier trip the current one, if this errand's is still known.
    pub(super) fn resume(&mut self, errand: &Errand) -> bool {
        let place = self.others.get_mut(errand.place(PLACES));
        let Some(trip) = place.and_then(|place| place.take_if(|trip| trip.errand == *errand)) else {
            return false;
        };
        self.replace_current(trip);
        true
    }

    /// Makes a new trip the current one.
    pub(super) fn begin(&mut self, trip: Trip) {
        self.replace_current(Box::new(trip));
    }

    fn replace_current(&mut self, trip: Box<Trip>) {
        if let Some(last) = self.current.replace(trip) {
            self.others.resize_with(PLACES, || None);
            let place = last.errand.place(PLACES);
            self.others[place] = Some(last);
        }
    }
}
