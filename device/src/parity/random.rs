//! Numbers that look random, the same for each seed on every machine: splitmix64.

use std::fmt;
use std::ops::Range;

/// Random numbers of one seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound`, without it.
    ///
    /// # Panics
    ///
    /// If the bound is zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        (self.bits() % u64::from(bound)) as u32
    }

    /// A number of this range.
    ///
    /// # Panics
    ///
    /// If the range is empty.
    pub fn within(&mut self, range: &Range<usize>) -> usize {
        assert!(!range.is_empty(), "a range to choose from has a number");
        range.start + (self.bits() % (range.end - range.start) as u64) as usize
    }

    /// A random value: see [`Sample`].
    pub fn value<T: Sample>(&mut self) -> T {
        T::sample(self)
    }

    /// So many random values.
    pub fn values<T: Sample>(&mut self, len: usize) -> Vec<T> {
        (0..len).map(|_| T::sample(self)).collect()
    }
}

/// A number that was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A floating-point number.
    Real(f64),
    /// An integer.
    Integer(i128),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Real(value) => write!(f, "{value:?}"),
            Value::Integer(value) => value.fmt(f),
        }
    }
}

/// What random elements and scalars are made of: floating-point numbers from -1 to 1, integers of all sizes, and arrays of them.
/// Implement it for elements and scalars of your own.
///
/// ```
/// use chare_device::parity::{Random, Sample, Value};
///
/// #[derive(Clone, Copy)]
/// struct Body {
///     place: [f32; 3],
///     mass: f32,
/// }
/// impl Sample for Body {
///     fn sample(random: &mut Random) -> Self {
///         Body { place: random.value(), mass: random.value::<f32>().abs() }
///     }
///
///     fn list(&self, values: &mut Vec<Value>) {
///         self.place.list(values);
///         self.mass.list(values);
///     }
/// }
/// # let body: Body = Random::new(1).value();
/// # assert!(body.mass >= 0.0 && body.place != [0.0; 3]);
/// ```
pub trait Sample: Copy + 'static {
    /// A random value.
    fn sample(random: &mut Random) -> Self;

    /// Appends the numbers that it consists of.
    fn list(&self, values: &mut Vec<Value>);
}

macro_rules! integers {
    ($($Integer:ty)*) => { $(
        impl Sample for $Integer {
            fn sample(random: &mut Random) -> Self {
                random.bits() as $Integer
            }

            fn list(&self, values: &mut Vec<Value>) {
                values.push(Value::Integer(i128::from(*self)));
            }
        }
    )* };
}
integers!(u8 i8 u16 i16 u32 i32 u64 i64);

macro_rules! reals {
    ($($Real:ty)*) => { $(
        impl Sample for $Real {
            fn sample(random: &mut Random) -> Self {
                ((random.bits() >> 11) as f64 / (1u64 << 52) as f64 - 1.0) as $Real
            }

            fn list(&self, values: &mut Vec<Value>) {
                values.push(Value::Real(f64::from(*self)));
            }
        }
    )* };
}
reals!(f32 f64);

impl<T: Sample, const N: usize> Sample for [T; N] {
    fn sample(random: &mut Random) -> Self {
        std::array::from_fn(|_| T::sample(random))
    }

    fn list(&self, values: &mut Vec<Value>) {
        self.iter().for_each(|element| element.list(values));
    }
}
