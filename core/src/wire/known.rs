//! Values whose type is known here to be plain memory, wherever generic code puts and takes a value as a whole: those of channels, promises and
//! reductions, outcomes, chares that are nothing else. They travel as they lie, also where no macro has seen their type.
//!
//! Serde tells each element, and nothing of what holds them, so the type is asked instead: vectors of the language's numbers and, with the feature
//! `ndarray`, arrays of them. Other plain types are known where macros see them (`probe.rs`), and parts of something larger by
//! [`bulk`](mod@super::bulk).

use std::any::{Any, TypeId};
use std::mem::{align_of, needs_drop, size_of};

use super::{Contiguous, Decoder, Encoder, INLINE_BYTES, WireError};

/// Calls a macro with the numbers of the language's.
macro_rules! with_numbers {
    ($each:ident $($before:tt)*) => {
        $each!($($before)* u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64)
    };
}

/// Where values of a type begin and how long they are tell most of those apart that cannot be known, when the program is compiled.
#[inline(always)]
fn may_be_known<T>() -> bool {
    const {
        let is_vector = size_of::<T>() == size_of::<Vec<u8>>();
        let may_be_array = cfg!(feature = "ndarray") && size_of::<T>() > size_of::<Vec<u8>>();
        needs_drop::<T>() && align_of::<T>() == align_of::<Vec<u8>>() && (is_vector || may_be_array)
    }
}

impl Encoder {
    /// Adds a value, if it is one of these; whether it is.
    #[inline]
    pub(super) fn put_if_known<T: 'static>(&mut self, value: &T) -> bool {
        may_be_known::<T>() && put(value, size_of::<T>(), self).is_some()
    }
}

impl Decoder<'_> {
    /// Takes a value, if it is one of these.
    #[inline]
    pub(super) fn take_if_known<T: 'static>(&mut self) -> Option<Result<T, WireError>> {
        if !may_be_known::<T>() {
            return None;
        }
        let mut place: Option<T> = None;
        let taken = take(&mut place, size_of::<T>(), self)?;
        Some(taken.map(|()| place.expect("what was taken is there")))
    }
}

/// How many buffers stand beside a value when it is encoded, if it is one of these.
pub(super) fn buffers_if_known<T: 'static>(value: &T) -> Option<usize> {
    if may_be_known::<T>() { buffers(value, size_of::<T>()) } else { None }
}

/// Goes through all that is known, of the size of the value: `$found` of the first type for which `$holds` is true.
macro_rules! find {
    ($size:expr, $known:ident, $holds:expr, $found:expr) => {
        if $size == size_of::<Vec<u8>>() {
            with_numbers!(find @vectors ($known, $holds, $found));
        }
        #[cfg(feature = "ndarray")]
        {
            use ndarray::{Array, Ix0, Ix1, Ix2, Ix3, Ix4, Ix5, Ix6, IxDyn};
            find!(@dimensions $size, ($known, $holds, $found) Ix0 Ix1 Ix2 Ix3 Ix4 Ix5 Ix6 IxDyn);
        }
    };
    (@vectors ($known:ident, $holds:expr, $found:expr) $($number:ty)*) => {
        $({
            type $known = Vec<$number>;
            if $holds { return Some($found); }
        })*
    };
    (@dimensions $size:expr, $what:tt $($dimension:ident)*) => {
        $(if $size == size_of::<Array<u8, $dimension>>() {
            with_numbers!(find @arrays $dimension $what);
        })*
    };
    (@arrays $dimension:ident ($known:ident, $holds:expr, $found:expr) $($number:ty)*) => {
        $({
            type $known = Array<$number, $dimension>;
            if $holds { return Some($found); }
        })*
    };
}

fn put(value: &dyn Any, size: usize, to: &mut Encoder) -> Option<()> {
    find!(size, Known, value.type_id() == TypeId::of::<Known>(), {
        to.put_copied(value.downcast_ref::<Known>().expect("its type has been asked"));
    });
    None
}

fn take(place: &mut dyn Any, size: usize, from: &mut Decoder<'_>) -> Option<Result<(), WireError>> {
    let wanted = (*place).type_id();
    find!(size, Known, wanted == TypeId::of::<Option<Known>>(), {
        let place = place.downcast_mut::<Option<Known>>().expect("its type has been asked");
        from.take_plain().map(|value| *place = Some(value))
    });
    None
}

fn buffers(value: &dyn Any, size: usize) -> Option<usize> {
    find!(size, Known, value.type_id() == TypeId::of::<Known>(), {
        let value = value.downcast_ref::<Known>().expect("its type has been asked");
        usize::from(byte_len(value) > INLINE_BYTES)
    });
    None
}

/// How long its values are.
pub(super) fn byte_len<T: Contiguous>(value: &T) -> usize {
    value.count() * size_of::<T::Value>()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::wire::{Codec, count_buffers};

    /// There and back, with how many bytes there were and how many buffers.
    fn carried<T: Serialize + Deserialize<'static> + Send + Clone + 'static>(value: &T) -> (T, usize, usize) {
        let codec = Codec::<T>::by_serde();
        let mut encoder = Encoder::default();
        (codec.encode)(value.clone(), &mut encoder).expect("it can be encoded");
        let (bytes, buffers) = (encoder.bytes.len(), encoder.buffers.len());
        assert_eq!(count_buffers(value), Some(buffers));
        (encoder.reread(codec.decode).expect("it was encoded"), bytes, buffers)
    }

    #[test]
    fn long_vectors_of_numbers_stand_beside() {
        let (back, bytes, buffers) = carried(&vec![0.5_f64; 1000]);
        assert_eq!((back, buffers), (vec![0.5; 1000], 1));
        assert!(bytes < 10, "{bytes}");
        let (back, _, buffers) = carried(&vec![u16::MAX, 7]);
        assert_eq!((back, buffers), (vec![u16::MAX, 7], 0));
        assert_eq!(carried(&Vec::<i128>::new()).0, []);
    }

    #[test]
    fn what_is_no_plain_memory_goes_by_serde() {
        let words = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(carried(&words).0, words);
        assert_eq!(carried(&"of the same size".to_owned()).0, "of the same size");
        let pair = (vec![1_u64; 100], vec![2_u8; 3]);
        let (back, bytes, buffers) = carried(&pair);
        assert_eq!((back, buffers), (pair, 0));
        assert!(bytes > 100, "{bytes}");
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn long_arrays_stand_beside() {
        use ndarray::{Array0, Array2, Array4, ArrayD, ShapeBuilder};

        let mut columns = Array2::<f32>::zeros((30, 20).f());
        columns[[3, 4]] = 1.5;
        let (back, bytes, buffers) = carried(&columns);
        assert_eq!((back.strides(), back == columns, buffers), (columns.strides(), true, 1));
        assert!(bytes < 10, "{bytes}");
        let four = Array4::<u8>::from_elem((5, 5, 5, 5), 3);
        assert_eq!(carried(&four), (four, carried(&Array4::<u8>::zeros((5, 5, 5, 5))).1, 1));
        let any = ArrayD::<i64>::from_elem(vec![40, 2], -1);
        assert_eq!((carried(&any).0, carried(&any).2), (any, 1));
        assert_eq!(carried(&Array0::from_elem((), 7_usize)).0, Array0::from_elem((), 7));
    }
}
