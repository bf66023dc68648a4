//! A list that is nearly always short.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A list that holds two elements in place: a ring of 4,096 ranks has 33 million steps, and nearly all
/// lists in them are that short. Read it as a slice.
#[derive(Clone, Default)]
pub enum Few<T> {
    /// Nothing.
    #[default]
    None,
    /// One element.
    One(T),
    /// Two elements.
    Two([T; 2]),
    /// More; boxed twice, so that the pointer is thin.
    Many(Box<Box<[T]>>),
}

impl<T> Few<T> {
    /// Its elements.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Two(two) => two,
            Self::Many(many) => many,
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut elements = elements.into_iter();
        let Some(first) = elements.next() else { return Self::None };
        let Some(second) = elements.next() else { return Self::One(first) };
        let Some(third) = elements.next() else { return Self::Two([first, second]) };
        Self::Many(Box::new([first, second, third].into_iter().chain(elements).collect()))
    }
}

impl<T, const N: usize> From<[T; N]> for Few<T> {
    fn from(elements: [T; N]) -> Self {
        elements.into_iter().collect()
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(elements: Vec<T>) -> Self {
        elements.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<T: Hash> Hash for Few<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::{Source, Step};

    #[test]
    fn a_step_fits_a_cache_line() {
        assert!(size_of::<super::Few<Source>>() <= 24, "{}", size_of::<super::Few<Source>>());
        assert!(size_of::<Step>() <= 56, "{}", size_of::<Step>());
    }
}
