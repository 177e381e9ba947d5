//! Values behind `dyn` whose type is asked for on every message.
//!
//! [`Any`](std::any::Any) brings the 16 bytes of a type's id through memory in two halves; reading them back as one has
//! to wait until both have left the processor's store buffer, which costs more than all else that a contribution to a
//! reduction does. [`Known`] brings the address of an id that lies in the binary.

use std::any::TypeId;

/// Any type. A trait that has it as its supertrait can be turned back into the type behind it.
pub(crate) trait Known: 'static {
    fn id(&self) -> &'static TypeId;
}

impl<T: 'static> Known for T {
    #[inline]
    fn id(&self) -> &'static TypeId {
        const { &TypeId::of::<T>() }
    }
}

impl dyn Known {
    /// The value, if it is a `T`.
    #[inline(always)]
    pub(crate) fn known_ref<T: 'static>(&self) -> Option<&T> {
        if *self.id() != TypeId::of::<T>() {
            return None;
        }
        // SAFETY: `id` is implemented in one place, for every type, and has said that this is a `T`.
        Some(unsafe { &*(&raw const *self).cast::<T>() })
    }

    /// As `known_ref`, for changing it.
    #[inline(always)]
    pub(crate) fn known_mut<T: 'static>(&mut self) -> Option<&mut T> {
        // Not `self.id()`: the reference itself is a type, too.
        if *(*self).id() != TypeId::of::<T>() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { &mut *(&raw mut *self).cast::<T>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    trait Shape: Known {}
    struct Dot(u8);
    struct Line(u64);
    impl Shape for Dot {}
    impl Shape for Line {}

    #[test]
    fn a_value_is_found_as_what_it_is_only() {
        let mut shapes: [Box<dyn Shape>; 2] = [Box::new(Dot(1)), Box::new(Line(2))];
        let mut seen = Vec::new();
        for shape in &mut shapes {
            let shape: &mut dyn Known = &mut **shape;
            seen.push((
                shape.known_mut::<Dot>().map(|dot| dot.0),
                shape.known_mut::<Line>().map(|line| line.0),
            ));
        }
        assert_eq!(seen, [(Some(1), None), (None, Some(2))]);
    }
}
