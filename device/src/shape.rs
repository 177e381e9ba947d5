//! The shape of a buffer: up to six extents, last one fastest. Only a label: memory is always one contiguous
//! run.

use std::fmt;

/// The largest number of axes a [`Shape`] has.
pub(crate) const MAX_AXES: usize = 6;

/// The extents of a buffer, in elements, slowest axis first (row-major).
///
/// Made from a length (`8`), an array (`[4, 4, 4]`) or a slice of at most six extents.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [usize; MAX_AXES],
    axis_count: u8,
}

impl Shape {
    /// The extents, one per axis.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..usize::from(self.axis_count)]
    }

    /// The number of elements; `usize::MAX`, which no device can hold, if the product is larger.
    pub fn len(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        self.extents().iter().fold(1usize, |product, &extent| product.saturating_mul(extent))
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.extents().contains(&0)
    }
}

impl From<usize> for Shape {
    fn from(len: usize) -> Self {
        Shape::from([len])
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Self {
        const { assert!(N <= MAX_AXES, "a shape has at most six axes") };
        let mut shape = Shape { extents: [0; MAX_AXES], axis_count: N as u8 };
        shape.extents[..N].copy_from_slice(&extents);
        shape
    }
}

impl TryFrom<&[usize]> for Shape {
    type Error = TooManyAxes;

    fn try_from(extents: &[usize]) -> Result<Self, TooManyAxes> {
        if extents.len() > MAX_AXES {
            return Err(TooManyAxes(extents.len()));
        }
        let mut shape = Shape { extents: [0; MAX_AXES], axis_count: extents.len() as u8 };
        shape.extents[..extents.len()].copy_from_slice(extents);
        Ok(shape)
    }
}

/// A shape was asked for with more than six axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a buffer has at most 6 axes, {0} were given")]
pub struct TooManyAxes(usize);

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.extents().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_and_length() {
        assert_eq!(Shape::from(5).extents(), [5]);
        assert_eq!(Shape::from([2, 3, 4]).len(), 24);
        assert_eq!(Shape::from([]).len(), 1);
        assert!(Shape::from([3, 0]).is_empty());
        assert_eq!(
            (Shape::from([usize::MAX, 2]).len(), Shape::from([usize::MAX, 2, 0]).len()),
            (usize::MAX, 0)
        );
        assert_eq!(Shape::try_from(&[1usize; 7][..]), Err(TooManyAxes(7)));
    }
}
